//! Equal values, kept once.

use std::{collections::HashSet, hash::Hash, sync::Arc};

/// What was seen so far. A node has 100,000 services, and most have the settings of most.
#[derive(Debug)]
pub(super) struct Intern<T>(HashSet<Arc<T>>);

impl<T> Default for Intern<T> {
    fn default() -> Self {
        Self(HashSet::new())
    }
}

impl<T: Eq + Hash> Intern<T> {
    /// `value`, or the equal one that was seen before.
    pub(super) fn get(&mut self, value: T) -> Arc<T> {
        if let Some(seen) = self.0.get(&value) {
            return seen.clone();
        }
        let value = Arc::new(value);
        self.0.insert(value.clone());
        value
    }

    /// Puts the equal one that was seen before in the place of `value`.
    pub(super) fn share(&mut self, value: &mut Arc<T>) {
        if let Some(seen) = self.0.get(value) {
            *value = seen.clone();
        } else {
            self.0.insert(value.clone());
        }
    }
}
