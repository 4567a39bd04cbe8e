//! Who answered how often, and what failed: what the clients saw, per service.

use std::collections::BTreeMap;

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

/// Counts by service and outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally(BTreeMap<(String, Outcome), u64>);

impl Tally {
    pub(super) fn add(&mut self, service: &str, outcome: Outcome) {
        *self.0.entry((service.to_owned(), outcome)).or_default() += 1;
    }

    /// What came on top of an earlier state of the same tally.
    pub(super) fn since(&self, earlier: &Tally) -> Tally {
        let rest = self.0.iter().map(|(key, count)| (key.clone(), count - earlier.0.get(key).copied().unwrap_or(0)));
        Tally(rest.filter(|(_, count)| *count > 0).collect())
    }

    pub(super) fn answers(&self, service: &str, backend: &str) -> u64 {
        self.0.get(&(service.to_owned(), Outcome::Answer(backend.to_owned()))).copied().unwrap_or(0)
    }

    /// All connections of this service, whatever became of them.
    pub(super) fn total(&self, service: &str) -> u64 {
        self.0.iter().filter(|((of, _), _)| of == service).map(|(_, count)| count).sum()
    }

    /// Failures of this service by kind.
    pub(super) fn failures(&self, service: &str) -> BTreeMap<&str, u64> {
        let mut failures = BTreeMap::new();
        for ((of, outcome), count) in &self.0 {
            if let (true, Outcome::Failure(kind)) = (of == service, outcome) {
                failures.insert(kind.as_str(), *count);
            }
        }
        failures
    }

    /// Failures of all services and kinds.
    pub(super) fn failed(&self) -> u64 {
        self.0.iter().filter(|((_, outcome), _)| matches!(outcome, Outcome::Failure(_))).map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
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
        let mut tally = Tally::default();
        tally.add("web", answer("red"));
        let before = tally.clone();
        tally.add("web", answer("red"));
        tally.add("web", Outcome::Failure("refused".into()));
        tally.add("echo", answer("one"));
        let phase = tally.since(&before);
        assert_eq!((phase.answers("web", "red"), phase.total("web"), phase.failed()), (1, 2, 1));
        assert_eq!(phase.failures("web").get("refused"), Some(&1));
        assert_eq!(phase.failures("echo").len(), 0);
        assert_eq!(tally.since(&tally), Tally::default());
    }
}
