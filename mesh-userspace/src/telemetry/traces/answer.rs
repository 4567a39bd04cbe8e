//! What a collector says of traces that it took (the specification of OTLP, Partial Success).

use crate::text::is_harmless;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;
use std::time::Duration;
use tokio::time::Instant;

/// Characters of what a collector says about itself that are told.
const MOST_OF_MESSAGE: usize = 200;

/// How often what it says is told at most: it may say it of every message, and in other words each time.
const EVERY: Duration = Duration::from_secs(300);

/// Its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// How many spans it took no notice of.
    pub(super) rejected: u64,
    /// Why, or what it advises though it took them all; empty: nothing.
    pub(super) said: String,
}

impl From<Option<ExportTracePartialSuccess>> for Answer {
    fn from(partly: Option<ExportTracePartialSuccess>) -> Self {
        let Some(partly) = partly else { return Self::default() };
        Self { rejected: u64::try_from(partly.rejected_spans).unwrap_or(0), said: said(&partly.error_message) }
    }
}

/// What a collector says, cut, and without what could do something to a terminal.
pub(super) fn said(message: &str) -> String {
    let shown = |character| if is_harmless(character) { character } else { '\u{fffd}' };
    message.chars().take(MOST_OF_MESSAGE).map(shown).collect()
}

/// When its answers were told of.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    told: Option<Instant>,
}

impl Remarks {
    /// What is to be told of this answer at `now`; `None`: nothing, or not again already.
    pub(super) fn of(&mut self, answer: &Answer, now: Instant) -> Option<String> {
        let text = match answer {
            Answer { rejected: 0, said } if said.is_empty() => return None,
            Answer { rejected: 0, said } => format!("takes traces, and says: {said}"),
            Answer { rejected, said } if said.is_empty() => format!("took no notice of {rejected} spans"),
            Answer { rejected, said } => format!("took no notice of {rejected} spans: {said}"),
        };
        if self.told.is_some_and(|told| now.saturating_duration_since(told) < EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_did_not_take_or_advises_is_told_and_not_again_at_once() {
        let (start, mut remarks) = (Instant::now(), Remarks::default());
        let mut of = |rejected_spans, message: &str, seconds| {
            let partly = ExportTracePartialSuccess { rejected_spans, error_message: message.to_owned() };
            remarks.of(&Answer::from(Some(partly)), start + Duration::from_secs(seconds))
        };
        assert_eq!([of(0, "", 0), of(-1, "", 0)], [None, None]);
        assert_eq!(of(2, "too\nlong", 1).as_deref(), Some("took no notice of 2 spans: too\u{fffd}long"));
        assert_eq!([of(2, "too long", 2), of(7, "another", 300)], [None, None]);
        assert_eq!(of(i64::MAX, "", 301).as_deref(), Some("took no notice of 9223372036854775807 spans"));
        let advice = of(0, &"x".repeat(1000), 700).unwrap();
        assert_eq!(advice, format!("takes traces, and says: {}", "x".repeat(200)));
        assert_eq!(Answer::from(None), Answer::default());
    }
}
