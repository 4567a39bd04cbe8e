//! Endpoint rows, and the slots that point at them.

use crate::{addr::Address, breaker::State, histogram::Histogram, reason::Failure, service::Policy};
use bytemuck::{Pod, Zeroable};
use core::mem::offset_of;

/// One entry of the slot arena, one word: an endpoint's id, and the tag its row must carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Slot(pub u64);

impl Slot {
    /// The slot of endpoint `id` while its row carries `tag`.
    #[must_use]
    pub const fn new(id: u32, tag: u32) -> Self {
        Self((tag as u64) << 32 | id as u64)
    }

    /// Index of the endpoint's row.
    #[inline(always)]
    #[must_use]
    pub const fn id(self) -> u32 {
        self.0 as u32
    }

    /// The tag its row must carry.
    #[inline(always)]
    #[must_use]
    pub const fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// One endpoint of one service. Written by the daemon only; address and service do not change while its tag stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct EndpointRow {
    /// Where it listens.
    pub address: Address,
    /// Its port, network byte order.
    pub port: u16,
    /// 1 while the endpoint belongs to a service, 0 in a free row.
    pub used: u16,
    /// Counts the uses of this row; never 0 in a used one.
    pub tag: u32,
    /// The service it serves.
    pub service: u32,
    /// How often it stands among the slots that are in force: its weight, as it is now.
    pub weight: u16,
    /// A set of [`marks`].
    pub marks: u16,
}

/// Bits of [`EndpointRow::marks`].
pub mod marks {
    /// The number of its tier: how near it is.
    pub const TIER: u16 = 7;
    /// It is in selection: it has a weight, does not drain, is not tripped.
    pub const IN: u16 = 8;
    /// Health checks do not hold it back.
    pub const HEALTHY: u16 = 16;
}

/// How many tiers the numbers in [`marks::TIER`] name: anywhere, this node, zone, region, and the rest.
pub const TIERS: usize = 5;

/// How often endpoints of a service were picked: by [`Policy`], then by tier.
pub type Picks = [[u64; TIERS]; Policy::COUNT];

/// What the kernel remembers about one endpoint, and the daemon changes as well, atomically.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct EndpointState {
    /// Its circuit: a [`Word`](crate::breaker::Word).
    pub circuit: u64,
    /// When a connection was established last, CLOCK_MONOTONIC in nanoseconds.
    pub established_at: u64,
    /// How long that took, in nanoseconds.
    pub connect_ns: u64,
}

impl Default for Address {
    fn default() -> Self {
        Self::zeroed()
    }
}

/// What the kernel counts for one endpoint: words that only grow, added to atomically.
///
/// Counters of a *free* row belong to the daemon, which zeroes them before the row's next use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct EndpointCounts {
    /// Connects that the connect hook sent to this endpoint.
    pub picked: u64,
    /// Connections that TCP began to open (SYN about to leave).
    pub opened: u64,
    /// Connections that became established.
    pub established: u64,
    /// Connections that ended, in whatever way; `opened - closed` are active.
    pub closed: u64,
    /// Failed connects by [`Failure`].
    pub failures: [u64; Failure::COUNT],
    /// Payload bytes that the endpoint's TCP acknowledged: of closed connections, and of live ones up to the last look
    /// at them.
    pub sent: u64,
    /// Payload bytes that arrived in order from the endpoint; as above.
    pub received: u64,
    /// Segments sent again; as above.
    pub retransmits: u64,
    /// How often its circuit entered each [`State`].
    pub transitions: [u64; State::COUNT],
}

/// A counter of connections to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// [`EndpointCounts::opened`].
    Opened,
    /// [`EndpointCounts::established`].
    Established,
    /// [`EndpointCounts::closed`].
    Closed,
    /// [`EndpointCounts::failures`].
    Failed(Failure),
    /// [`EndpointCounts::sent`].
    Sent,
    /// [`EndpointCounts::received`].
    Received,
}

impl Counter {
    /// The position of its word in [`EndpointCounts`].
    #[must_use]
    pub const fn word(self) -> usize {
        let byte = match self {
            Self::Opened => offset_of!(EndpointCounts, opened),
            Self::Established => offset_of!(EndpointCounts, established),
            Self::Closed => offset_of!(EndpointCounts, closed),
            Self::Failed(why) => offset_of!(EndpointCounts, failures) + why as usize * size_of::<u64>(),
            Self::Sent => offset_of!(EndpointCounts, sent),
            Self::Received => offset_of!(EndpointCounts, received),
        };
        byte / size_of::<u64>()
    }
}

impl EndpointCounts {
    /// Connections open now (being opened included).
    #[must_use]
    pub const fn active(&self) -> u64 {
        self.opened.saturating_sub(self.closed)
    }

    /// Failed connects, whatever the reason.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failures.iter().sum()
    }
}

/// How long things took at one endpoint. A table of its own: it is large, and only looked at when metrics are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct EndpointTimes {
    /// From the SYN to the established connection.
    pub connect: Histogram,
    /// The smoothed round-trip time of a connection when it closed.
    pub rtt: Histogram,
}
