//! What the sink is still to be told.

use super::{Change, checker::Key};
use crate::model::Health;
use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};
use tokio::time::Instant;

/// Changes are held back this long, so that many come as one.
const GATHER: Duration = Duration::from_millis(20);

/// Changed verdicts, one for each endpoint, with the verdict that the sink knows.
#[derive(Default)]
pub(super) struct Changes {
    waiting: HashMap<Key, (Health, Change)>,
    at: Option<Instant>,
}

impl Changes {
    /// Takes down that a verdict changed from `before`.
    pub(super) fn add(&mut self, before: Health, change: Change, now: Instant) {
        match self.waiting.entry((change.service.clone(), change.address)) {
            Entry::Occupied(mut waiting) => waiting.get_mut().1 = change,
            Entry::Vacant(place) => {
                place.insert((before, change));
            }
        }
        self.at.get_or_insert(now + GATHER);
    }

    /// Forgets endpoints that are checked no longer.
    pub(super) fn retain(&mut self, checked: impl Fn(&Key) -> bool) {
        self.waiting.retain(|key, _| checked(key));
    }

    /// When they are to be told; `None`: there are none.
    pub(super) fn at(&self) -> Option<Instant> {
        self.at
    }

    /// What is to be told now. A verdict that changed and changed back is no news.
    pub(super) fn take(&mut self) -> Vec<Change> {
        self.at = None;
        self.waiting.drain().filter(|(_, (before, change))| *before != change.health).map(|(_, (_, c))| c).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_verdict_that_changed_back_is_not_told() {
        let (now, mut changes) = (Instant::now(), Changes::default());
        let change = |health| Change { service: "s".into(), address: ([127, 0, 0, 1], 1).into(), health, reason: None };
        changes.add(Health::Healthy, change(Health::Unhealthy), now);
        changes.add(Health::Unhealthy, change(Health::Healthy), now + GATHER / 2);
        assert_eq!(changes.at(), Some(now + GATHER));
        assert!(changes.take().is_empty() && changes.at().is_none());
        changes.add(Health::Healthy, change(Health::Unhealthy), now);
        assert_eq!(changes.take(), [change(Health::Unhealthy)]);
    }
}
