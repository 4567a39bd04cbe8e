//! Connections that the daemon takes for a service: where its listeners are, and what was dialled.

use crate::{addr::Address, service::VipKey};
use bytemuck::{Pod, Zeroable};

/// `AF_INET`
pub const AF_INET: u32 = 2;
/// `AF_INET6`
pub const AF_INET6: u32 = 10;

/// Key of the table of the daemon's listeners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct ListenerKey {
    /// Cookie of the network namespace that the listener is in.
    pub netns: u64,
    /// [`AF_INET`], where it listens at 127.0.0.1, or [`AF_INET6`], where at ::1.
    pub family: u32,
    /// Always zero: hash keys are compared byte by byte.
    pub zero: u32,
}

impl ListenerKey {
    /// The key of the listener for `family` in the namespace with the cookie `netns`.
    #[inline(always)]
    #[must_use]
    pub const fn new(netns: u64, family: u32) -> Self {
        Self { netns, family, zero: 0 }
    }
}

/// The client's end of a connection to one of the daemon's listeners, as the daemon sees it when it accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct ClientEnd {
    /// Cookie of the network namespace that both ends are in.
    pub netns: u64,
    /// The client's address.
    pub address: Address,
    /// The client's port, network byte order.
    pub port: u16,
    /// Always zero, as above.
    pub zero: u16,
    /// Always zero, as above.
    pub zero2: u32,
}

impl ClientEnd {
    /// The client at `address` and `port` (network byte order) in the namespace with the cookie `netns`.
    #[inline(always)]
    #[must_use]
    pub const fn new(netns: u64, address: Address, port: u16) -> Self {
        Self { netns, address, port, zero: 0, zero2: 0 }
    }
}

/// What the client of a connection to one of the daemon's listeners dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Original {
    /// The VIP.
    pub vip: VipKey,
    /// Index of the service's row at that moment.
    pub service: u32,
}
