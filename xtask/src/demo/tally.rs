//! Who answered how often, and what failed: what the clients saw, by the address that they dialled.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::cast::{Backend, Service};

/// What happened to one connection of a client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// This backend answered.
    Answer(String),
    /// Nobody did: `refused`, `reset`, `timeout` or `other`.
    Failure(String),
}

/// What a client process says, one line each.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Report {
    Outcome(Outcome),
    /// This backend answered, through the daemon.
    Through(String),
    /// A connection was begun.
    Connection,
    /// The address that `getpeername` gave the application.
    Peer(String),
}

impl Report {
    pub(super) fn parse(line: &str) -> Option<Report> {
        let (kind, word) = line.trim_end().split_once(' ')?;
        match kind {
            "answer" => Some(Report::Outcome(Outcome::Answer(word.into()))),
            "through" => Some(Report::Through(word.into())),
            "connection" => Some(Report::Connection),
            "failure" => Some(Report::Outcome(Outcome::Failure(word.into()))),
            "peer" => Some(Report::Peer(word.into())),
            _ => None,
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Report::Outcome(Outcome::Answer(word)) => write!(out, "answer {word}"),
            Report::Outcome(Outcome::Failure(word)) => write!(out, "failure {word}"),
            Report::Through(word) => write!(out, "through {word}"),
            Report::Connection => out.write_str("connection new"),
            Report::Peer(word) => write!(out, "peer {word}"),
        }
    }
}

/// Counts by VIP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    outcomes: BTreeMap<(SocketAddr, Outcome), u64>,
    connections: BTreeMap<SocketAddr, u64>,
    /// Answers that came through the daemon.
    through: BTreeMap<SocketAddr, u64>,
}

impl Tally {
    pub(super) fn add(&mut self, vip: SocketAddr, outcome: Outcome) {
        *self.outcomes.entry((vip, outcome)).or_default() += 1;
    }

    /// What a client of this VIP says.
    pub(super) fn hear(&mut self, vip: SocketAddr, report: Report) {
        match report {
            Report::Outcome(outcome) => self.add(vip, outcome),
            Report::Through(name) => {
                *self.through.entry(vip).or_default() += 1;
                self.add(vip, Outcome::Answer(name));
            }
            Report::Connection => *self.connections.entry(vip).or_default() += 1,
            Report::Peer(_) => {}
        }
    }

    /// What came on top of an earlier state of the same tally.
    pub(super) fn since(&self, earlier: &Tally) -> Tally {
        Tally {
            outcomes: rest(&self.outcomes, &earlier.outcomes),
            connections: rest(&self.connections, &earlier.connections),
            through: rest(&self.through, &earlier.through),
        }
    }

    /// Connections to this service that were begun, with an answer.
    pub(super) fn connections(&self, service: &Service) -> u64 {
        service.vips.iter().filter_map(|vip| self.connections.get(vip)).sum()
    }

    /// Answers of this service that came through the daemon.
    pub(super) fn through(&self, service: &Service) -> u64 {
        service.vips.iter().filter_map(|vip| self.through.get(vip)).sum()
    }

    /// Connections to this VIP, whatever became of them.
    pub(super) fn dialled(&self, vip: SocketAddr) -> u64 {
        self.outcomes.iter().filter(|((of, _), _)| *of == vip).map(|(_, count)| count).sum()
    }

    /// Connections to this VIP that this backend answered.
    pub(super) fn answers_at(&self, vip: SocketAddr, backend: &Backend) -> u64 {
        self.outcomes.get(&(vip, Outcome::Answer(backend.name.to_owned()))).copied().unwrap_or(0)
    }

    /// Connections of this service that this backend answered.
    pub(super) fn answers(&self, service: &Service, backend: &Backend) -> u64 {
        service.vips.iter().map(|vip| self.answers_at(*vip, backend)).sum()
    }

    /// All connections of this service, whatever became of them.
    pub(super) fn total(&self, service: &Service) -> u64 {
        service.vips.iter().map(|vip| self.dialled(*vip)).sum()
    }

    /// Failures of this service by kind.
    pub(super) fn failures(&self, service: &Service) -> BTreeMap<&str, u64> {
        let mut failures = BTreeMap::new();
        for ((of, outcome), count) in &self.outcomes {
            if let (true, Outcome::Failure(kind)) = (service.vips.contains(of), outcome) {
                *failures.entry(kind.as_str()).or_default() += *count;
            }
        }
        failures
    }

    /// Failures of all services and kinds.
    pub(super) fn failed(&self) -> u64 {
        self.outcomes
            .iter()
            .filter(|((_, outcome), _)| matches!(outcome, Outcome::Failure(_)))
            .map(|(_, count)| count)
            .sum()
    }
}

fn rest<K: Ord + Clone>(now: &BTreeMap<K, u64>, earlier: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    let rest = now.iter().map(|(key, count)| (key.clone(), count - earlier.get(key).copied().unwrap_or(0)));
    rest.filter(|(_, count)| *count > 0).collect()
}

/// Whether `count` of `total` is what a weight promises that is `weight` of all `weights`.
///
/// As far off as fair dice may be once in a million times, not as one would like to see it: few connections, as on a
/// slow machine, tell little.
pub(super) fn is_fair(count: u64, total: u64, weight: u64, weights: u64) -> bool {
    let [count, total, weight, weights] = [count, total, weight, weights].map(|number| number as f64);
    let share = weight / weights;
    let deviation = (total * share * (1.0 - share)).sqrt();
    (count - total * share).abs() <= 5.0 * deviation + 1.0
}

#[cfg(test)]
mod tests {
    use super::super::cast;
    use super::*;

    fn answer(who: &str) -> Outcome {
        Outcome::Answer(who.into())
    }

    #[test]
    fn a_report_survives_the_pipe() {
        let refused = Report::Outcome(Outcome::Failure("refused".into()));
        let through = Report::Through("blue".into());
        let peer = Report::Peer("[fd00::1]:80".into());
        for report in [Report::Outcome(answer("red")), refused, through, Report::Connection, peer] {
            assert_eq!(Report::parse(&format!("{report}\n")), Some(report));
        }
        assert_eq!(Report::parse("noise"), None);
        assert_eq!(Report::parse("other thing"), None);
    }

    #[test]
    fn a_phase_counts_only_what_happened_in_it() {
        let [web, echo, ..] = cast::services().unwrap();
        let (vip, red) = (web.vips[0], &web.backends[0]);
        let mut tally = Tally::default();
        tally.add(vip, answer("red"));
        let before = tally.clone();
        tally.add(vip, answer("red"));
        tally.add(vip, Outcome::Failure("refused".into()));
        tally.add(echo.vips[0], answer("one"));
        let phase = tally.since(&before);
        assert_eq!((phase.answers(&web, red), phase.total(&web), phase.dialled(vip), phase.failed()), (1, 2, 2, 1));
        assert_eq!(phase.failures(&web).get("refused"), Some(&1));
        assert_eq!(phase.failures(&echo).len(), 0);
        assert_eq!(tally.since(&tally), Tally::default());
    }

    #[test]
    fn an_answer_through_the_daemon_is_an_answer() {
        let [web, ..] = cast::services().unwrap();
        let mut tally = Tally::default();
        for report in [Report::Connection, Report::Through("red".into()), Report::Outcome(answer("red"))] {
            tally.hear(web.vips[0], report);
        }
        let counted = (tally.answers(&web, &web.backends[0]), tally.through(&web), tally.connections(&web));
        assert_eq!(counted, (2, 1, 1));
    }

    #[test]
    fn chance_is_fair_and_a_forgotten_weight_is_not() {
        assert!(is_fair(188, 376, 3, 6) && is_fair(195, 374, 1, 2) && is_fair(1, 3, 1, 2));
        assert!(is_fair(0, 0, 1, 2) && is_fair(376, 376, 2, 2));
        assert!(!is_fair(125, 376, 3, 6), "a third where half was promised");
        assert!(!is_fair(0, 374, 1, 2) && !is_fair(370, 376, 2, 2));
    }
}
