//! What programs tell the daemon as it happens. Nothing that must be exact depends on it: what does not fit into the
//! ring buffer is lost, and counted where it must be.

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
