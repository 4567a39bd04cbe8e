//! Traces of requests: the last ones stay on the node, and a collector gets all that it can take.
//!
//! | file | answers |
//! | --- | --- |
//! | `spans` | what does a trace look like to whoever reads it? |
//! | [`collector`] | where does a collector listen, and for what? |
//! | `exporter` | when is sent what, and what if nobody takes it? |
//! | `http`, `grpc`, `connect` | how is it sent? |
//! | `otlp` | in which words? |
//!
//! Workers put a trace into a ring and are done. The exporter, a thread of its own, follows the rings: what it has not
//! sent when they need the room is dropped and counted, so a collector that is slow or away costs the memory of the
//! rings and nothing else.
//!
//! There are two rings, for requests that failed and for all others, which share the room: each may use what the other
//! leaves, and half of it is its own. So a flood of failures does not push out what was sampled, and what is sampled
//! does not push out the few failures.

mod answer;
pub mod collector;
mod connect;
mod exporter;
mod grpc;
mod http;
mod otlp;
mod spans;

pub use collector::Collector;
pub use exporter::{Exporter, Node};
pub use spans::{Kind, Span, Value, spans};

use super::ring::{Bounds, Ring};
use crate::proxy::{Trace, Tracer, Try};
use std::{
    cmp::Reverse,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

/// How many traces may wait for a collector, at least.
const WAITING: usize = 4096;

/// What became of traces.
#[derive(Debug, Default)]
pub struct Counts {
    kept: AtomicU64,
    exported: AtomicU64,
    /// Those that had to make room before they were sent.
    overflown: AtomicU64,
    /// Those that the collector refused.
    refused: AtomicU64,
    /// Those that were not sent before the daemon ended.
    left: AtomicU64,
    /// Spans that the collector took no notice of, in traces that it took.
    rejected_spans: AtomicU64,
    failures: AtomicU64,
}

/// [`Counts`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceReport {
    /// Requests whose trace was kept.
    pub kept: u64,
    /// Those whose trace a collector took.
    pub exported: u64,
    /// Those whose trace no collector got, each reason with its word.
    pub dropped: [(&'static str, u64); 3],
    /// Spans that the collector said it takes no notice of.
    pub rejected_spans: u64,
    /// Times that sending failed.
    pub failures: u64,
}

/// The traces that are kept.
#[derive(Debug)]
pub struct Traces {
    /// Of requests that ended as they should, and of those that did not.
    rings: [Ring<Trace>; 2],
    /// How many of them may be read here.
    keep: AtomicUsize,
    /// What both rings share.
    room: Mutex<Bounds>,
    counts: Counts,
}

impl Default for Traces {
    fn default() -> Self {
        const NONE: Bounds = Bounds { count: 0, bytes: 0 };
        Self {
            rings: [Ring::new(NONE), Ring::new(NONE)],
            keep: AtomicUsize::new(0),
            room: Mutex::new(NONE),
            counts: Counts::default(),
        }
    }
}

impl Traces {
    /// From now on so many are kept, in so many bytes; `exported`: a collector wants them too.
    pub fn configure(&self, keep: usize, bytes: usize, exported: bool) {
        self.keep.store(keep, Ordering::Relaxed);
        let count = if exported { keep.max(WAITING) } else { keep };
        let room = Bounds { count, bytes };
        *self.room.lock().unwrap_or_else(PoisonError::into_inner) = room;
        let [one, other] = shares(room, self.sizes());
        self.rings[0].resize(one);
        self.rings[1].resize(other);
    }

    fn sizes(&self) -> [(usize, usize); 2] {
        [self.rings[0].size(), self.rings[1].size()]
    }

    /// Of those that `wanted` lets through the newest, newest first.
    pub fn newest(&self, limit: usize, wanted: impl Fn(&Trace) -> bool) -> Vec<Arc<Trace>> {
        // More may be there, for the collector.
        let shown = Bounds { count: self.keep.load(Ordering::Relaxed), bytes: usize::MAX };
        let mut found = Vec::new();
        for (ring, share) in self.rings.iter().zip(shares(shown, self.sizes())) {
            let oldest = ring.next().saturating_sub(share.count as u64);
            let newest = ring.newest(limit, &wanted).into_iter().take_while(|(number, _)| *number >= oldest);
            found.extend(newest.map(|(_, trace)| trace));
        }
        found.sort_by_key(|trace| Reverse(trace.line.ended));
        found.truncate(limit);
        found
    }

    /// What became of them.
    #[must_use]
    pub fn report(&self) -> TraceReport {
        let Counts { kept, exported, overflown, refused, left, rejected_spans, failures } = &self.counts;
        let [kept, exported, overflown, refused, left, rejected_spans, failures] =
            [kept, exported, overflown, refused, left, rejected_spans, failures].map(|n| n.load(Ordering::Relaxed));
        let dropped = [("overflow", overflown), ("refused", refused), ("shutdown", left)];
        TraceReport { kept, exported, dropped, rejected_spans, failures }
    }
}

impl Tracer for Traces {
    fn trace(&self, trace: Trace) {
        let bytes = [
            trace.line.path.as_ref().map_or(0, |path| path.len()),
            trace.line.method.as_ref().map_or(0, |method| method.as_str().len()),
            trace.state.as_ref().map_or(0, |state| state.len()),
            trace.tries.len() * size_of::<Try>(),
        ];
        self.counts.kept.fetch_add(1, Ordering::Relaxed);
        let failed = usize::from(trace.failed);
        // One at a time: the shares of both are taken from what they hold.
        let room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        self.rings[failed].push(trace, bytes.iter().sum());
        let shares = shares(*room, self.sizes());
        for (ring, share) in self.rings.iter().zip(shares) {
            ring.bound(share);
        }
    }
}

/// How much each of two rings may hold that hold so many items and bytes now: what the other leaves, half of it at least.
/// Of an odd number the other one's half is the larger.
fn shares(room: Bounds, [one, other]: [(usize, usize); 2]) -> [Bounds; 2] {
    let half = Bounds { count: room.count / 2, bytes: room.bytes / 2 };
    let rest = Bounds { count: room.count - half.count, bytes: room.bytes - half.bytes };
    [left(room, other, rest), left(room, one, half)]
}

/// What is left of `room` by who holds so many items and bytes and is to give way down to `least`.
fn left(room: Bounds, (count, bytes): (usize, usize), least: Bounds) -> Bounds {
    Bounds { count: room.count - count.min(least.count), bytes: room.bytes - bytes.min(least.bytes) }
}

#[cfg(test)]
mod tests;
