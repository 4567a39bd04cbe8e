//! How many in the last while? Counted in ticks, so that what is old goes as a whole.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts of the last `N` ticks, the one that runs included, shared by workers.
#[derive(Debug)]
pub(super) struct Window<const N: usize>([AtomicU64; N]);

/// A slot holds the tick it counts (upper half, modulo 2^32) and the count (lower half, which stays at its end).
const fn slot(tick: u32, count: u32) -> u64 {
    ((tick as u64) << 32) | count as u64
}

#[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
const fn halves(slot: u64) -> (u32, u32) {
    ((slot >> 32) as u32, slot as u32)
}

impl<const N: usize> Window<N> {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// Counts one at `tick`. One that is older than what its slot counts is not counted.
    pub(super) fn add(&self, tick: u32) {
        self.change(tick, |count| count.saturating_add(1));
    }

    /// Takes back one that was counted at `tick`.
    pub(super) fn take_back(&self, tick: u32) {
        self.change(tick, |count| count.saturating_sub(1));
    }

    fn change(&self, tick: u32, change: impl Fn(u32) -> u32) {
        let Some(place) = self.0.get(tick as usize % N.max(1)) else { return };
        let _ = place.fetch_update(Relaxed, Relaxed, |found| {
            let (counted, count) = halves(found);
            if counted == tick {
                Some(slot(tick, change(count)))
            } else {
                // Another worker's clock may be a tick ahead.
                (count == 0 || tick.wrapping_sub(counted) < u32::MAX / 2).then(|| slot(tick, change(0)))
            }
        });
    }

    /// How many were counted in the `N` ticks up to `tick`.
    pub(super) fn sum(&self, tick: u32) -> u64 {
        let recent = |slot: &AtomicU64| {
            let (counted, count) = halves(slot.load(Relaxed));
            // One that is ahead by a little is another worker's, and counts.
            let age = tick.wrapping_sub(counted);
            (age as usize <= N.saturating_sub(1) || age > u32::MAX - 2).then_some(u64::from(count))
        };
        self.0.iter().filter_map(recent).sum()
    }

    pub(super) fn clear(&self) {
        for slot in &self.0 {
            slot.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_last_ticks_count_and_no_others(steps in proptest::collection::vec(0_u32..30, 1..100), start: u32) {
            let window = Window::<10>::new();
            let (mut tick, mut seen) = (start, Vec::new());
            for step in steps {
                tick = tick.wrapping_add(step);
                window.add(tick);
                seen.push(tick);
                let expected = seen.iter().filter(|seen| tick.wrapping_sub(**seen) < 10).count();
                prop_assert_eq!(window.sum(tick), expected as u64);
            }
        }
    }

    #[test]
    fn what_is_taken_back_does_not_count() {
        let window = Window::<10>::new();
        window.add(5);
        window.add(5);
        window.take_back(5);
        assert_eq!(window.sum(5), 1);
        window.take_back(16);
        assert_eq!(window.sum(16), 0);
    }
}
