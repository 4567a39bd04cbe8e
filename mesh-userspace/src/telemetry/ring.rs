//! What happened lately, in bounded memory: the newest items, numbered, for those who ask and those who follow.
//!
//! Items are numbered from 0 in the order in which they came, and the number says where a follower goes on. What is
//! kept is bounded by count and by bytes; the oldest goes first. Readers look at it in pieces, so that whoever writes
//! waits for the copying of some pointers at most, however much is searched.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// How many items a reader takes at once.
const PIECE: usize = 256;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Items; 0 keeps nothing, and then there is nothing to follow either.
    pub count: usize,
    /// Bytes of all items, with what it takes to keep them.
    pub bytes: usize,
}

/// The newest items.
#[derive(Debug)]
pub struct Ring<T> {
    kept: Mutex<Kept<T>>,
    /// The number of the next item.
    next: watch::Sender<u64>,
}

#[derive(Debug)]
struct Kept<T> {
    bounds: Bounds,
    /// Oldest first, each with its bytes.
    items: VecDeque<(Arc<T>, usize)>,
    bytes: usize,
    /// The number of the next item.
    next: u64,
}

/// What came after some item.
#[derive(Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// How many were gone already.
    pub missed: u64,
    /// Oldest first, without a gap between them.
    pub items: Vec<Arc<T>>,
    /// The number with which to go on.
    pub next: u64,
}

impl<T> Ring<T> {
    /// An empty ring.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let kept = Kept { bounds, items: VecDeque::new(), bytes: 0, next: 0 };
        Self { kept: Mutex::new(kept), next: watch::Sender::new(0) }
    }

    /// Changes how much is kept, at once, and for long.
    pub fn resize(&self, bounds: Bounds) {
        self.bound(bounds);
        self.lock().items.shrink_to_fit();
    }

    /// Changes how much is kept, at once, for now.
    pub fn bound(&self, bounds: Bounds) {
        let mut kept = self.lock();
        kept.bounds = bounds;
        kept.evict();
    }

    /// Keeps an item that holds so many bytes outside of itself.
    pub fn push(&self, item: T, bytes: usize) {
        self.extend([(item, bytes)]);
    }

    /// Keeps items, each with the bytes that it holds outside of itself. Whoever has many pays once.
    pub fn extend(&self, items: impl IntoIterator<Item = (T, usize)>) {
        let next = {
            let mut kept = self.lock();
            for (item, bytes) in items {
                kept.push(item, bytes);
            }
            kept.next
        };
        // A follower counts itself before it looks. So whoever is not counted here looks after the lock was given back,
        // and sees these items.
        if self.next.receiver_count() > 0 {
            self.next.send_replace(next);
        }
    }

    /// Of the items that `wanted` lets through the `limit` newest, newest first, each with its number.
    pub fn newest(&self, limit: usize, wanted: impl Fn(&T) -> bool) -> Vec<(u64, Arc<T>)> {
        let mut found = Vec::new();
        let mut end = self.lock().next;
        while found.len() < limit {
            let (start, piece) = self.before(end);
            if piece.is_empty() {
                break;
            }
            let numbered = piece.into_iter().enumerate().rev().map(|(place, item)| (start + place as u64, item));
            let room = limit - found.len();
            found.extend(numbered.filter(|(_, item)| wanted(item)).take(room));
            end = start;
        }
        found
    }

    /// At most `most` items from the one with this number on. A number that was not given out yet, such as one of an
    /// earlier run of the daemon, means from now on.
    #[must_use]
    pub fn page(&self, from: u64, most: usize) -> Page<T> {
        let kept = self.lock();
        let from = from.min(kept.next);
        let start = from.max(kept.first());
        let items: Vec<_> = kept.range(start, start.saturating_add(most as u64)).collect();
        Page { missed: start - from, next: start + items.len() as u64, items }
    }

    /// The number of the next item.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.lock().next
    }

    /// Tells when there is more. Whoever follows subscribes first and reads then: nothing is missed between.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }

    /// How many items are kept, and their bytes.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let kept = self.lock();
        (kept.items.len(), kept.bytes)
    }

    /// A piece of the items before this number, with the number of its first.
    fn before(&self, end: u64) -> (u64, Vec<Arc<T>>) {
        let kept = self.lock();
        let start = end.saturating_sub(PIECE as u64).max(kept.first());
        // Where a writer was faster than the reader, what comes before is gone.
        if start < end { (start, kept.range(start, end).collect()) } else { (end, Vec::new()) }
    }

    fn lock(&self) -> MutexGuard<'_, Kept<T>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Kept<T> {
    /// What it takes to keep an item besides what it holds itself: its place, and the counts of its `Arc`.
    const COST: usize = size_of::<(Arc<T>, usize)>() + 2 * size_of::<usize>() + size_of::<T>();

    fn push(&mut self, item: T, bytes: usize) {
        self.next += 1;
        if self.bounds.count == 0 {
            return;
        }
        // More than everything may take is as good as a little more than that, and can be added to.
        let bytes = bytes.saturating_add(Self::COST).min(self.bounds.bytes.saturating_add(1));
        self.items.push_back((Arc::new(item), bytes));
        self.bytes += bytes;
        self.evict();
    }

    /// Lets the oldest go until the rest is within bounds. One that is larger than all that may be kept goes too.
    fn evict(&mut self) {
        while self.items.len() > self.bounds.count || self.bytes > self.bounds.bytes {
            let Some((_, bytes)) = self.items.pop_front() else { return };
            self.bytes -= bytes;
        }
    }

    /// The number of the oldest item that is kept.
    fn first(&self) -> u64 {
        self.next - self.items.len() as u64
    }

    /// The items numbered from `start` up to `end`, as far as there are any.
    fn range(&self, start: u64, end: u64) -> impl Iterator<Item = Arc<T>> {
        let first = self.first();
        let place =
            |number: u64| usize::try_from(number.saturating_sub(first)).unwrap_or(usize::MAX).min(self.items.len());
        let (start, end) = (place(start), place(end));
        self.items.range(start..end.max(start)).map(|(item, _)| Arc::clone(item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Bounds = Bounds { count: 1000, bytes: 1 << 20 };

    fn of(bounds: Bounds, items: std::ops::Range<u32>) -> Ring<u32> {
        let ring = Ring::new(bounds);
        ring.extend(items.map(|item| (item, 0)));
        ring
    }

    fn newest(ring: &Ring<u32>, limit: usize, wanted: impl Fn(&u32) -> bool) -> Vec<(u64, u32)> {
        ring.newest(limit, wanted).into_iter().map(|(number, item)| (number, *item)).collect()
    }

    fn page(ring: &Ring<u32>, from: u64, most: usize) -> (u64, Vec<u32>, u64) {
        let page = ring.page(from, most);
        (page.missed, page.items.iter().map(|item| **item).collect(), page.next)
    }

    #[test]
    fn the_newest_come_first_and_no_more_than_asked_for() {
        let ring = of(ROOM, 0..10);
        assert_eq!(newest(&ring, 3, |_| true), [(9, 9), (8, 8), (7, 7)]);
        assert_eq!(newest(&ring, 3, |item| item % 4 == 0), [(8, 8), (4, 4), (0, 0)]);
        assert_eq!(newest(&ring, 0, |_| true), []);
        assert_eq!(newest(&of(ROOM, 0..0), 3, |_| true), []);
    }

    #[test]
    fn all_pieces_are_searched_and_none_twice() {
        for count in [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE] {
            let ring = of(ROOM, 0..u32::try_from(count).unwrap());
            let found = newest(&ring, usize::MAX, |_| true);
            assert!(found.iter().map(|(number, _)| *number).eq((0..count as u64).rev()), "{count}");
            assert_eq!(newest(&ring, 5, |item| *item == 0), [(0, 0)]);
        }
    }

    #[test]
    fn the_oldest_goes_first_by_count_and_by_bytes() {
        let ring = of(Bounds { count: 3, ..ROOM }, 0..5);
        assert_eq!(newest(&ring, 9, |_| true), [(4, 4), (3, 3), (2, 2)]);

        let cost = Kept::<u32>::COST;
        let ring = Ring::new(Bounds { bytes: 2 * (cost + 100), ..ROOM });
        ring.extend((0..3).map(|item| (item, 100)));
        assert_eq!(newest(&ring, 9, |_| true), [(2, 2), (1, 1)]);
        assert_eq!(ring.size(), (2, 2 * (cost + 100)));
        ring.push(3, 101);
        assert_eq!(ring.size(), (1, cost + 101));
        // It would take more than everything may.
        ring.push(4, usize::MAX);
        assert_eq!(ring.size(), (0, 0));
        ring.push(5, 0);
        assert_eq!(newest(&ring, 9, |_| true), [(5, 5)]);
    }

    #[test]
    fn a_ring_that_keeps_nothing_counts_on() {
        let ring = of(Bounds { count: 0, ..ROOM }, 0..5);
        assert_eq!((ring.next(), ring.size()), (5, (0, 0)));
        assert_eq!(page(&ring, 0, 9), (5, vec![], 5));
    }

    #[test]
    fn less_room_takes_hold_at_once() {
        let ring = of(ROOM, 0..10);
        ring.resize(Bounds { count: 2, ..ROOM });
        assert_eq!(newest(&ring, 9, |_| true), [(9, 9), (8, 8)]);
        ring.resize(ROOM);
        ring.push(10, 0);
        assert_eq!(newest(&ring, 9, |_| true), [(10, 10), (9, 9), (8, 8)]);
    }

    #[test]
    fn a_follower_goes_on_where_it_was_and_learns_what_it_missed() {
        let ring = of(Bounds { count: 4, ..ROOM }, 0..4);
        assert_eq!(page(&ring, 1, 2), (0, vec![1, 2], 3));
        assert_eq!(page(&ring, 3, 2), (0, vec![3], 4));
        assert_eq!(page(&ring, 4, 2), (0, vec![], 4));
        ring.extend((4..10).map(|item| (item, 0)));
        assert_eq!(page(&ring, 4, 2), (2, vec![6, 7], 8));
        assert_eq!(page(&ring, 8, usize::MAX), (0, vec![8, 9], 10));
        // Of another run of the daemon.
        assert_eq!(page(&ring, 1_000_000, 2), (0, vec![], 10));
    }

    #[test]
    fn a_follower_is_woken_and_whoever_stopped_following_costs_nothing() {
        let ring = of(ROOM, 0..1);
        let mut changes = ring.changes();
        assert!(!changes.has_changed().unwrap());
        ring.push(1, 0);
        assert!(changes.has_changed().unwrap());
        assert_eq!(*changes.borrow_and_update(), 2);
        drop(changes);
        ring.push(2, 0);
        // The next one starts from what is there, by its own reading.
        let changes = ring.changes();
        assert!(!changes.has_changed().unwrap());
        assert_eq!(page(&ring, 2, 9), (0, vec![2], 3));
    }
}
