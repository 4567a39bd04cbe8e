//! Row numbers: handed out, freed, and rested before they are used again.

use std::collections::VecDeque;

/// How long a freed number rests before it is used again, in nanoseconds.
///
/// A hook that read it just before may use it just after. Such a reader is done within microseconds; ten seconds
/// leave room for a virtual processor that was stopped in between.
pub(super) const QUARANTINE: u64 = 10_000_000_000;

/// The numbers of one table.
#[derive(Clone, Debug)]
pub(super) struct Ids {
    capacity: u32,
    /// The lowest number that was never used.
    fresh: u32,
    /// Freed numbers with the time from which they may be used again, oldest first.
    resting: VecDeque<(u32, u64)>,
}

impl Ids {
    /// All numbers below `capacity`, except `used`; the others below the highest used one rest from `now`.
    pub(super) fn new(capacity: u32, used: impl IntoIterator<Item = u32>, now: u64) -> Self {
        let mut taken: Vec<u32> = used.into_iter().collect();
        taken.sort_unstable();
        let fresh = taken.last().map_or(0, |last| last + 1);
        let free = (0..fresh).filter(|id| taken.binary_search(id).is_err());
        let resting = free.map(|id| (id, now + QUARANTINE)).collect();
        Self { capacity, fresh, resting }
    }

    /// A number that nobody uses and for which `idle` holds. Numbers that were used long ago come first, so that
    /// tables stay dense.
    pub(super) fn take(&mut self, now: u64, idle: impl Fn(u32) -> bool) -> Option<u32> {
        // Those in use by connections are looked at again in another turn. While there are fresh ones a few looks do.
        let looks = if self.fresh < self.capacity { 8 } else { usize::MAX };
        for _ in 0..self.resting.len().min(looks) {
            let (id, ready) = *self.resting.front()?;
            self.resting.pop_front();
            if ready <= now && idle(id) {
                return Some(id);
            }
            self.resting.push_back((id, ready));
        }
        if self.fresh < self.capacity {
            self.fresh += 1;
            return Some(self.fresh - 1);
        }
        None
    }

    /// Gives a number back.
    pub(super) fn free(&mut self, id: u32, now: u64) {
        self.resting.push_back((id, now + QUARANTINE));
    }

    /// Takes one back that was given back; whether it is there still.
    pub(super) fn take_back(&mut self, id: u32) -> bool {
        let at = self.resting.iter().position(|(resting, _)| *resting == id);
        at.and_then(|at| self.resting.remove(at)).is_some()
    }

    /// How many numbers are in use.
    pub(super) fn used(&self) -> u32 {
        self.fresh - u32::try_from(self.resting.len()).unwrap_or(self.fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_number_rests_before_it_comes_back() {
        let mut ids = Ids::new(2, [], 0);
        assert_eq!((ids.take(0, |_| true), ids.take(0, |_| true)), (Some(0), Some(1)));
        ids.free(0, 0);
        assert_eq!(ids.take(QUARANTINE - 1, |_| true), None);
        assert_eq!(ids.take(QUARANTINE, |_| true), Some(0));
    }

    #[test]
    fn a_number_with_open_connections_is_passed_over() {
        let mut ids = Ids::new(2, [0, 1], 0);
        ids.free(0, 0);
        ids.free(1, 0);
        assert_eq!(ids.take(QUARANTINE, |id| id != 0), Some(1));
        assert_eq!(ids.take(QUARANTINE, |id| id != 0), None);
        assert_eq!(ids.take(QUARANTINE, |_| true), Some(0));
    }

    #[test]
    fn gaps_that_an_earlier_daemon_left_are_used_after_a_rest() {
        let mut ids = Ids::new(4, [0, 3], 5);
        assert_eq!(ids.used(), 2);
        assert_eq!(ids.take(5, |_| true), None);
        assert_eq!(ids.take(5 + QUARANTINE, |_| true), Some(1));
    }
}
