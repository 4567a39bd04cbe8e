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
    /// The address that `getpeername` gave the application.
    Peer(String),
}

impl Report {
    pub(super) fn parse(line: &str) -> Option<Report> {
        let (kind, word) = line.trim_end().split_once(' ')?;
        match kind {
            "answer" => Some(Report::Outcome(Outcome::Answer(word.into()))),
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
            Report::Peer(word) => write!(out, "peer {word}"),
        }
    }
}

/// Counts by VIP and outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally(BTreeMap<(SocketAddr, Outcome), u64>);

impl Tally {
    pub(super) fn add(&mut self, vip: SocketAddr, outcome: Outcome) {
        *self.0.entry((vip, outcome)).or_default() += 1;
    }

    /// What came on top of an earlier state of the same tally.
    pub(super) fn since(&self, earlier: &Tally) -> Tally {
        let rest = self.0.iter().map(|(key, count)| (key.clone(), count - earlier.0.get(key).copied().unwrap_or(0)));
        Tally(rest.filter(|(_, count)| *count > 0).collect())
    }

    /// Connections to this VIP, whatever became of them.
    pub(super) fn dialled(&self, vip: SocketAddr) -> u64 {
        self.0.iter().filter(|((of, _), _)| *of == vip).map(|(_, count)| count).sum()
    }

    /// Connections to this VIP that this backend answered.
    pub(super) fn answers_at(&self, vip: SocketAddr, backend: &Backend) -> u64 {
        self.0.get(&(vip, Outcome::Answer(backend.name.to_owned()))).copied().unwrap_or(0)
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
        for ((of, outcome), count) in &self.0 {
            if let (true, Outcome::Failure(kind)) = (service.vips.contains(of), outcome) {
                *failures.entry(kind.as_str()).or_default() += *count;
            }
        }
        failures
    }

    /// Failures of all services and kinds.
    pub(super) fn failed(&self) -> u64 {
        self.0.iter().filter(|((_, outcome), _)| matches!(outcome, Outcome::Failure(_))).map(|(_, count)| count).sum()
    }
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
        for report in [Report::Outcome(answer("red")), refused, Report::Peer("[fd00::1]:80".into())] {
            assert_eq!(Report::parse(&format!("{report}\n")), Some(report));
        }
        assert_eq!(Report::parse("noise"), None);
        assert_eq!(Report::parse("other thing"), None);
    }

    #[test]
    fn a_phase_counts_only_what_happened_in_it() {
        let [web, echo] = cast::services().unwrap();
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
    fn chance_is_fair_and_a_forgotten_weight_is_not() {
        assert!(is_fair(188, 376, 3, 6) && is_fair(195, 374, 1, 2) && is_fair(1, 3, 1, 2));
        assert!(is_fair(0, 0, 1, 2) && is_fair(376, 376, 2, 2));
        assert!(!is_fair(125, 376, 3, 6), "a third where half was promised");
        assert!(!is_fair(0, 374, 1, 2) && !is_fair(370, 376, 2, 2));
    }
}
