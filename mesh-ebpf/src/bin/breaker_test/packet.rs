//! What the test sends and gets back. `tests/tests/breaker_in_kernel.rs` includes this file by path.

use bytemuck::{Pod, Zeroable};
use mesh_common::breaker::{Limits, Outcome, State};

/// What comes before a [`Step`] in the packet: the kernel takes an Ethernet header off.
#[allow(dead_code, reason = "the program does not see it")]
pub(crate) const HEADER: usize = 14;

/// What [`Step::kind`] says.
pub(crate) mod kind {
    /// The circuit is given [`Step::word`](super::Step::word), the service
    /// [`Step::open`](super::Step::open).
    pub(crate) const BEGIN: u32 = 0;
    /// An outcome is reported.
    pub(crate) const REPORT: u32 = 1;
    /// A connection wants to pass.
    pub(crate) const ENTER: u32 = 2;
}

/// The outcomes by their numbers in [`Step::outcome`].
pub(crate) const OUTCOMES: [Outcome; 6] =
    [Outcome::Failure, Outcome::Timeout, Outcome::Suspect, Outcome::Established, Outcome::Alive, Outcome::Nothing];

/// One step of a story.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Step {
    /// The service's.
    pub(crate) limits: Limits,
    /// The circuit at the beginning.
    pub(crate) word: u64,
    /// How many of the service's circuits are open at the beginning.
    pub(crate) open: u64,
    /// Now, milliseconds.
    pub(crate) now: u64,
    /// One of [`kind`].
    pub(crate) kind: u32,
    /// The place in [`OUTCOMES`].
    pub(crate) outcome: u32,
    /// 1: of a probe.
    pub(crate) probe: u32,
    /// 32 random bits.
    pub(crate) chance: u32,
}

/// What is the case after a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Answer {
    /// The circuit.
    pub(crate) word: u64,
    /// How many of the service's circuits are open.
    pub(crate) open: u64,
    /// 0: a connection was not let through, or none came; otherwise 1 more than the number of its
    /// [`Entry`](mesh_common::breaker::Entry).
    pub(crate) entry: u64,
    /// Transitions since the beginning, by the state that they led to.
    pub(crate) transitions: [u64; State::COUNT],
}
