//! What programs tell the daemon as it happens. Nothing that must be exact depends on it: what does not fit into the
//! ring buffer is lost, and counted where it must be.

use crate::{
    connection::{Record, Traffic},
    service::VipKey,
};
use bytemuck::{Pod, Zeroable};

/// Somebody dialled a VIP of an HTTP service in a network namespace where the daemon does not listen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct NoListener {
    /// Cookie of the namespace.
    pub netns: u64,
    /// The process (thread group) that dialled, in the host's pid namespace.
    pub pid: u32,
    /// Always zero.
    pub zero: u32,
}

/// The lack of a listener in one namespace is told at most once in this many nanoseconds.
pub const TELL_AGAIN_NS: u64 = 100_000_000;

// Events are told apart by their lengths.
const _: () = assert!(size_of::<NoListener>() != size_of::<Transition>());

/// A circuit went from one state to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Transition {
    /// Index of the endpoint's row.
    pub id: u32,
    /// Tag of that row.
    pub tag: u32,
    /// Index of the service's row.
    pub service: u32,
    /// Always zero.
    pub zero: u32,
    /// The circuit's word before.
    pub from: u64,
    /// The circuit's word after.
    pub to: u64,
}

/// A connection that TCP began to open ended, however far it had come. In a ring buffer of its own: a flood of these must
/// not push out what is rare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Ended {
    /// The socket's record as it was.
    pub record: Record,
    /// What it carried in all.
    pub traffic: Traffic,
    /// When, CLOCK_MONOTONIC in nanoseconds.
    pub at: u64,
    /// The state of TCP that it came from, of [`connection::tcp`](crate::connection::tcp).
    pub state: u32,
    /// Smoothed round-trip time in microseconds, 0 if it was never measured.
    pub rtt_us: u32,
    /// The socket's error (`sk_err`), 0 for none; [`ERROR_UNKNOWN`] where it cannot be read.
    pub error: i32,
    /// Always zero.
    pub zero: u32,
}

/// In place of a socket's error.
pub const ERROR_UNKNOWN: i32 = -1;

/// Bytes of the ring buffer of [`Ended`]: some 4,500 of them, more than end within [`LOOK_EVERY_MS`] on a busy node.
pub const ENDED_BYTES: u32 = 1 << 20;

/// The daemon looks for [`Ended`] by itself, once in so many milliseconds: waking it for each would cost more than telling
/// it. It is woken where this much waits for it.
pub const LOOK_EVERY_MS: u16 = 200;
/// Bytes that wait, from which on the daemon is woken.
pub const WAKE_BYTES: u64 = ENDED_BYTES as u64 / 4;

/// Connects of one process to one VIP that were refused for one reason: a row of a hash that hooks fill and the daemon
/// empties, once in [`LOOK_FOR_REFUSED_MS`].
///
/// A row and no event each: whoever is refused mostly tries again at once, and that must cost neither the machine nor the
/// log more than a number that grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct RefusedKey {
    /// What was dialled.
    pub vip: VipKey,
    /// The process (thread group) that dialled, in the host's pid namespace.
    pub pid: u32,
    /// Number of a [`Reason`](crate::reason::Reason).
    pub reason: u32,
}

/// What is known of connects that were refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Refused {
    /// When the first one was, CLOCK_MONOTONIC in nanoseconds.
    pub first_at: u64,
    /// When the latest one was.
    pub last_at: u64,
    /// How many there were.
    pub count: u64,
    /// Id of the cgroup the process was in: the inode of its directory.
    pub cgroup: u64,
    /// The process's name, padded with zeroes.
    pub command: [u8; 16],
    /// Index of the service's row.
    pub service: u32,
    /// Always zero.
    pub zero: u32,
}

/// Rows for [`Refused`], and so the most lines that are told of them at once. 140 KiB of kernel memory. Connects beyond
/// them are refused all the same, and not told of.
pub const MAX_REFUSED: u32 = 1024;

/// How often the daemon looks for [`Refused`], in milliseconds.
pub const LOOK_FOR_REFUSED_MS: u16 = 1000;

/// Words that count what there was no room to tell of.
pub mod untold {
    /// Connections that ended ([`Ended`](super::Ended)).
    pub const ENDED: u32 = 0;
    /// Connects that were refused ([`Refused`](super::Refused)).
    pub const REFUSED: u32 = 1;
    /// How many words there are.
    pub const COUNT: u32 = 2;
}
