//! What programs tell the daemon as it happens. Nothing that must be exact depends on it: what does not fit into the
//! ring buffer is lost, and counted where it must be.

use bytemuck::{Pod, Zeroable};

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
