//! Whether the DNS is in touch, over all names.

use super::super::Change;
use std::collections::{BTreeMap, BTreeSet};

/// Which names were answered, and which are not.
#[derive(Debug)]
pub(super) struct Touch {
    /// Those that never were.
    waiting: BTreeSet<String>,
    /// Those that are not now: why.
    failing: BTreeMap<String, String>,
    synced: bool,
    /// What was said last.
    error: Option<String>,
}

impl Touch {
    /// Before any of these names was answered.
    pub(super) fn new(names: impl IntoIterator<Item = String>) -> Self {
        let waiting = names.into_iter().collect();
        Self { waiting, failing: BTreeMap::new(), synced: false, error: None }
    }

    /// Takes how a look went; `failed`: why something is not confirmed. Returns what there is to say of it.
    pub(super) fn hear(&mut self, name: &str, answered: bool, failed: Option<String>) -> Vec<Change> {
        if answered {
            self.waiting.remove(name);
        }
        match failed {
            Some(why) => self.failing.insert(name.to_owned(), why),
            None => self.failing.remove(name),
        };
        let error = self.failing.iter().next().map(|(name, why)| match self.failing.len() - 1 {
            0 => format!("{name}: {why}"),
            others => format!("{name}: {why}; and {others} more"),
        });
        let first = !self.synced && self.waiting.is_empty();
        self.synced |= first;
        let again = self.synced && self.error.is_some() && error.is_none();
        let mut changes = Vec::new();
        if first || again {
            changes.push(Change::Synced);
        }
        if let Some(why) = error.as_ref().filter(|_| first || error != self.error) {
            changes.push(Change::Lost(why.clone()));
        }
        self.error = error;
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch() -> Touch {
        Touch::new(["a", "b", "c"].map(str::to_owned))
    }

    fn lost(why: &str) -> Vec<Change> {
        vec![Change::Lost(why.to_owned())]
    }

    fn timeout() -> Option<String> {
        Some("timed out".to_owned())
    }

    #[test]
    fn it_is_synced_once_every_name_was_answered() {
        let mut touch = touch();
        assert_eq!(touch.hear("a", true, None), []);
        assert_eq!(touch.hear("b", true, None), []);
        assert_eq!(touch.hear("a", true, None), []);
        assert_eq!(touch.hear("c", true, None), [Change::Synced]);
        assert_eq!(touch.hear("c", true, None), []);
    }

    #[test]
    fn a_failure_is_said_once_with_name_and_reason_and_so_is_its_end() {
        let mut touch = touch();
        assert_eq!(touch.hear("a", false, timeout()), lost("a: timed out"));
        assert_eq!(touch.hear("a", false, timeout()), []);
        assert_eq!(touch.hear("b", true, None), []);
        assert_eq!(touch.hear("c", false, timeout()), lost("a: timed out; and 1 more"));
        assert_eq!(touch.hear("c", true, None), lost("a: timed out"));
        assert_eq!(touch.hear("a", true, None), [Change::Synced]);
        assert_eq!(touch.hear("b", false, timeout()), lost("b: timed out"));
        assert_eq!(touch.hear("b", true, None), [Change::Synced]);
    }

    #[test]
    fn what_was_answered_and_fails_when_the_last_is_answered_is_still_said() {
        let mut touch = touch();
        touch.hear("a", true, None);
        touch.hear("b", true, None);
        touch.hear("a", false, timeout());
        assert_eq!(touch.hear("c", true, None), [Change::Synced, Change::Lost("a: timed out".to_owned())]);
    }
}
