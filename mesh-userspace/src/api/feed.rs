//! Events that many read, each at its own pace.
//!
//! A feed keeps its last events, numbered without a gap. A reader knows which one it read last, so that one that was away
//! goes on where it was; one that fell behind what is kept is told so, and holds nobody up.

use super::door::BoxFuture;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// How many events a feed keeps.
pub const KEPT: usize = 512;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Rises by one from event to event.
    pub id: u64,
    /// Which kind of event.
    pub kind: &'static str,
    /// JSON on one line.
    pub data: Arc<str>,
}

/// Events of one kind of thing.
#[derive(Debug)]
pub struct Feed {
    kept: Mutex<VecDeque<Event>>,
    /// The id of the last event; of one without any the number before its first.
    last: watch::Sender<u64>,
}

impl Feed {
    /// A feed whose first event will have the number after `last`.
    #[must_use]
    pub fn new(last: u64) -> Arc<Self> {
        Arc::new(Self { kept: Mutex::default(), last: watch::Sender::new(last) })
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id of the last event.
    #[must_use]
    pub fn last(&self) -> u64 {
        *self.last.borrow()
    }

    /// Adds events and wakes all readers once.
    pub fn push(&self, events: impl IntoIterator<Item = (&'static str, Arc<str>)>) {
        let mut kept = self.kept();
        let before = self.last();
        let mut last = before;
        for (kind, data) in events {
            last += 1;
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back(Event { id: last, kind, data });
        }
        drop(kept);
        if last > before {
            self.last.send_replace(last);
        }
    }

    /// A reader that goes on after the event `after`; `None`: what followed is not kept any more, or that event never was.
    #[must_use]
    pub fn resume(self: &Arc<Self>, after: u64) -> Option<Reader> {
        let kept = self.kept();
        let last = self.last();
        let first = kept.front().map_or(last + 1, |event| event.id);
        after
            .checked_add(1)
            .is_some_and(|next| (first..=last + 1).contains(&next))
            .then(|| Reader::new(Arc::clone(self), after, None))
    }

    /// A reader that begins with `snapshot`: how things are after the event with the snapshot's id.
    #[must_use]
    pub fn read_from(self: &Arc<Self>, snapshot: Event) -> Reader {
        Reader::new(Arc::clone(self), snapshot.id, Some(snapshot))
    }
}

/// Reads a [`Feed`].
#[derive(Debug)]
pub struct Reader {
    feed: Arc<Feed>,
    /// The last event that was read.
    read: u64,
    first: Option<Event>,
    news: watch::Receiver<u64>,
}

/// Events, one after the other.
pub trait Source: Send + 'static {
    /// The next event, once there is one. Nothing is lost where it is not waited for to the end.
    fn next(&mut self) -> BoxFuture<'_, Read>;
}

impl Source for Reader {
    fn next(&mut self) -> BoxFuture<'_, Read> {
        Box::pin(self.next())
    }
}

/// What a [`Reader`] reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The next event.
    Event(Event),
    /// What came next is not kept any more.
    Behind,
    /// There are no events any more.
    Ended,
}

impl Reader {
    fn new(feed: Arc<Feed>, read: u64, first: Option<Event>) -> Self {
        let news = feed.last.subscribe();
        Self { feed, read, first, news }
    }

    /// The next event, once there is one. Nothing is lost where it is not waited for to the end.
    pub async fn next(&mut self) -> Read {
        if let Some(first) = self.first.take() {
            return Read::Event(first);
        }
        let read = self.read;
        if self.news.wait_for(|last| *last > read).await.is_err() {
            return Read::Ended;
        }
        let kept = self.feed.kept();
        let first = kept.front().map_or(0, |event| event.id);
        let found = (read + 1).checked_sub(first).and_then(|at| kept.get(usize::try_from(at).ok()?));
        match found {
            Some(event) => {
                self.read = event.id;
                Read::Event(event.clone())
            }
            None => Read::Behind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn push(feed: &Feed, n: usize) {
        feed.push((0..n).map(|_| ("endpoint", Arc::from("{}"))));
    }

    /// All that can be read without waiting.
    async fn read(reader: &mut Reader) -> Vec<u64> {
        let mut ids = Vec::new();
        loop {
            tokio::select! {
                biased;
                read = reader.next() => match read {
                    Read::Event(event) => ids.push(event.id),
                    other => panic!("{other:?}"),
                },
                () = std::future::ready(()) => return ids,
            }
        }
    }

    #[tokio::test]
    async fn who_falls_behind_is_told_and_holds_nobody_up() {
        let feed = Feed::new(7);
        let mut slow = feed.resume(7).unwrap();
        let mut quick = feed.resume(7).unwrap();
        push(&feed, KEPT);
        assert_eq!(read(&mut quick).await.len(), KEPT);
        push(&feed, 1);
        assert_eq!(slow.next().await, Read::Behind);
        assert_eq!(read(&mut quick).await, [7 + KEPT as u64 + 1]);
        assert!(feed.resume(7).is_none());
        assert!(feed.resume(8).is_some());
        assert!(feed.resume(feed.last() + 1).is_none(), "an id of another daemon's");
        assert!(feed.resume(u64::MAX - 1).is_none());
    }

    #[tokio::test]
    async fn a_snapshot_comes_first_and_then_what_follows_it() {
        let feed = Feed::new(3);
        push(&feed, 2);
        let mut reader = feed.read_from(Event { id: feed.last(), kind: "snapshot", data: "[]".into() });
        push(&feed, 2);
        assert_eq!(read(&mut reader).await, [5, 6, 7]);
    }

    proptest! {
        /// Readers that come, go, resume: together they read each event once and in order.
        #[test]
        fn a_resumed_reader_misses_nothing_and_reads_nothing_twice(steps in prop::collection::vec((0..30usize, any::<bool>()), 1..60)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let feed = Feed::new(100);
                let mut reader = feed.resume(100);
                let mut seen = Vec::new();
                for (n, resume) in steps {
                    push(&feed, n);
                    if let Some(reader) = &mut reader {
                        seen.extend(read(reader).await);
                    }
                    if resume {
                        reader = feed.resume(seen.last().copied().unwrap_or(100));
                        assert!(reader.is_some());
                    }
                }
                assert_eq!(seen, (101..=feed.last()).collect::<Vec<_>>());
            });
        }
    }
}
