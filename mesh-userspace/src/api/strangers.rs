//! Who came to a listener that many may reach, and has shown nothing yet that speaks for it.
//!
//! Such a listener has room for so many connections. Where there is none left, the stranger gives way that has been there
//! for longest: whoever opens connections and says nothing keeps out nobody who has something to say.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// How often it is logged at most that strangers gave way.
const LOG_AGAIN: Duration = Duration::from_secs(60);

/// The strangers of a listener.
#[derive(Debug, Default)]
pub(super) struct Strangers(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// In the order in which they came.
    waiting: BTreeMap<u64, Arc<Notify>>,
    came: u64,
    /// How many gave way since that was logged last.
    gave_way: u64,
    logged_at: Option<Instant>,
}

impl Strangers {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more comes.
    pub(super) fn welcome(self: &Arc<Self>) -> Guest {
        let mut inner = self.inner();
        let (number, leave) = (inner.came, Arc::new(Notify::new()));
        inner.came += 1;
        inner.waiting.insert(number, Arc::clone(&leave));
        Guest { strangers: Arc::clone(self), number, leave }
    }

    /// The one that has been there for longest is told to leave.
    pub(super) fn give_way(&self) {
        let mut inner = self.inner();
        let Some((_, leave)) = inner.waiting.pop_first() else { return };
        leave.notify_one();
        inner.gave_way += 1;
        if inner.logged_at.is_none_or(|at| at.elapsed() >= LOG_AGAIN) {
            let gave_way = std::mem::take(&mut inner.gave_way);
            inner.logged_at = Some(Instant::now());
            drop(inner);
            tracing::warn!(
                "discovery.registry.listen is full: {gave_way} connections that showed nothing gave way to others"
            );
        }
    }
}

/// A connection, and whether it is a stranger's.
#[derive(Debug)]
pub(super) struct Guest {
    strangers: Arc<Strangers>,
    number: u64,
    leave: Arc<Notify>,
}

impl Guest {
    /// It has shown what there is to show.
    pub(super) fn is_known(&self) {
        self.strangers.inner().waiting.remove(&self.number);
    }

    /// Waits until it has to leave: it gave way, or is still a stranger after `patience`.
    pub(super) async fn must_leave(&self, patience: Duration) {
        let waited = tokio::time::timeout(patience, self.leave.notified()).await;
        let is_stranger = || self.strangers.inner().waiting.contains_key(&self.number);
        if waited.is_err() && !is_stranger() {
            std::future::pending().await
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.is_known();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn left(guest: &Guest) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        std::pin::pin!(guest.must_leave(LONG)).poll(&mut context).is_ready()
    }

    #[tokio::test]
    async fn the_stranger_that_was_there_for_longest_gives_way_and_nobody_who_is_known() {
        let strangers = Arc::new(Strangers::default());
        let [first, second, third] = [(); 3].map(|()| strangers.welcome());
        first.is_known();
        strangers.give_way();
        assert_eq!([&first, &second, &third].map(left), [false, true, false]);
        drop(third);
        strangers.give_way();
        assert!(!left(&first));
    }

    #[tokio::test]
    async fn who_shows_nothing_has_to_leave_after_a_while() {
        let strangers = Arc::new(Strangers::default());
        let (known, stranger) = (strangers.welcome(), strangers.welcome());
        known.is_known();
        let soon = Duration::from_millis(20);
        stranger.must_leave(soon).await;
        assert!(tokio::time::timeout(soon * 10, known.must_leave(soon)).await.is_err());
    }
}
