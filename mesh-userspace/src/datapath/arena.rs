//! Ranges of the slot arena: handed out, freed, rested, joined again.

use mesh_common::service::SlotRange;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How long a freed range rests before it is used again, in nanoseconds.
///
/// Shorter than for numbers of rows, and given up where space is short, because a reader that comes later still is not
/// misled: the slots it finds belong to another service or carry other tags, which it checks, and then it looks again.
/// What never happens is that a range is used again by the plan that freed it: until the plan is carried out, views
/// show it.
pub(super) const REST: u64 = 1_000_000_000;

/// The free space of the slot arena.
#[derive(Clone, Debug)]
pub(super) struct Arena {
    capacity: u32,
    /// Free ranges, base → length, never touching each other.
    by_base: BTreeMap<u32, u32>,
    /// The same, shortest first.
    by_length: BTreeSet<(u32, u32)>,
    /// Freed ranges that rest, oldest first.
    resting: VecDeque<Resting>,
    /// Counts the plans.
    plan: u64,
    /// Slots that are free, resting ones included.
    free: u32,
}

/// A range that was freed.
#[derive(Clone, Copy, Debug)]
struct Resting {
    range: SlotRange,
    ready: u64,
    /// The plan that freed it.
    plan: u64,
}

impl Arena {
    /// An arena of `capacity` slots of which `used` ranges are taken. Ranges may be named more than once.
    pub(super) fn new(capacity: u32, used: impl IntoIterator<Item = SlotRange>) -> Self {
        let mut arena = Self {
            capacity,
            by_base: BTreeMap::new(),
            by_length: BTreeSet::new(),
            resting: VecDeque::new(),
            plan: 0,
            free: 0,
        };
        let mut ranges: Vec<SlotRange> = used.into_iter().filter(|r| r.count > 0).collect();
        ranges.sort_unstable_by_key(|r| r.base);
        let mut next = 0;
        for range in ranges {
            if range.base > next {
                arena.insert(next, range.base - next);
            }
            next = next.max(range.base.saturating_add(range.count));
        }
        if next < capacity {
            arena.insert(next, capacity - next);
        }
        arena
    }

    /// Another plan begins: the one before is carried out.
    pub(super) fn begin(&mut self) {
        self.plan += 1;
    }

    /// Takes a range of `count` slots, the tightest that fits.
    pub(super) fn take(&mut self, count: u32, now: u64) -> Option<SlotRange> {
        self.wake(|resting, _| resting.ready <= now);
        self.fit(count).or_else(|| {
            self.wake(|resting, plan| resting.plan < plan);
            self.fit(count)
        })
    }

    /// Joins ranges that rested, oldest first, as long as they are `ready`.
    fn wake(&mut self, ready: impl Fn(&Resting, u64) -> bool) {
        while let Some(resting) = self.resting.pop_front_if(|resting| ready(resting, self.plan)) {
            self.free -= resting.range.count;
            self.join(resting.range);
        }
    }

    fn fit(&mut self, count: u32) -> Option<SlotRange> {
        let (length, base) = *self.by_length.range((count, 0)..).next()?;
        self.remove(base, length);
        if length > count {
            self.insert(base + count, length - count);
        }
        Some(SlotRange { base, count })
    }

    /// Gives a range back.
    pub(super) fn free(&mut self, range: SlotRange, now: u64) {
        if range.count > 0 {
            self.free += range.count;
            self.resting.push_back(Resting { range, ready: now + REST, plan: self.plan });
        }
    }

    /// Gives back a range that nobody saw: it need not rest.
    pub(super) fn give_back(&mut self, range: SlotRange) {
        self.join(range);
    }

    /// How many slots are in use.
    pub(super) fn used(&self) -> u32 {
        self.capacity - self.free
    }

    fn join(&mut self, range: SlotRange) {
        let (mut base, mut length) = (range.base, range.count);
        if let Some((&before, &n)) = self.by_base.range(..base).next_back()
            && before + n == base
        {
            self.remove(before, n);
            (base, length) = (before, n + length);
        }
        if let Some(&after) = self.by_base.get(&(base + length)) {
            self.remove(base + length, after);
            length += after;
        }
        self.insert(base, length);
    }

    fn insert(&mut self, base: u32, length: u32) {
        self.by_base.insert(base, length);
        self.by_length.insert((length, base));
        self.free += length;
    }

    fn remove(&mut self, base: u32, length: u32) {
        self.by_base.remove(&base);
        self.by_length.remove(&(length, base));
        self.free -= length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_never_overlap_and_all_space_comes_back(steps in proptest::collection::vec((any::<bool>(), 1..40u32), 1..200)) {
            let mut arena = Arena::new(500, []);
            arena.begin();
            let (mut held, mut now) = (Vec::<SlotRange>::new(), 0);
            for (take, n) in steps {
                now += REST / 4;
                if take {
                    if let Some(range) = arena.take(n, now) {
                        prop_assert_eq!(range.count, n);
                        prop_assert!(range.base + n <= 500);
                        for other in &held {
                            prop_assert!(range.base + range.count <= other.base || other.base + other.count <= range.base);
                        }
                        held.push(range);
                    }
                } else if !held.is_empty() {
                    let range = held.swap_remove(n as usize % held.len());
                    arena.free(range, now);
                }
            }
            for range in held {
                arena.free(range, now);
            }
            prop_assert_eq!(arena.take(500, now + REST), Some(SlotRange { base: 0, count: 500 }));
        }
    }

    #[test]
    fn a_range_is_used_again_early_where_space_is_short_but_never_by_the_plan_that_freed_it() {
        let mut arena = Arena::new(4, []);
        arena.begin();
        let range = arena.take(4, 0).unwrap();
        arena.free(range, 0);
        assert_eq!(arena.take(4, 0), None);
        arena.begin();
        assert_eq!(arena.take(4, 0), Some(range));
    }

    #[test]
    fn an_adopted_arena_hands_out_only_what_is_free() {
        let used = [SlotRange { base: 2, count: 3 }, SlotRange { base: 2, count: 3 }, SlotRange { base: 8, count: 2 }];
        let mut arena = Arena::new(10, used);
        assert_eq!(arena.take(3, 0), Some(SlotRange { base: 5, count: 3 }));
        assert_eq!(arena.take(2, 0), Some(SlotRange { base: 0, count: 2 }));
        assert_eq!(arena.take(1, 0), None);
    }
}
