//! The addresses that the daemon dials to prove that connects are intercepted.
//!
//! A connect to them that is *not* intercepted must end on this machine: 127/8 never leaves it, and the link-local
//! address is dialled through the loopback interface, on which it does not exist. Nobody has a use for them, so
//! nobody's connects are taken away: `m`, `e`, `s` and `h` as numbers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The IPv4 address that is dialled.
pub const PROBE_V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 109, 101, 115)), 104);

/// The IPv6 address that is dialled.
pub const PROBE_V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x6d65, 0x7368)), 104);

/// Whether an address is the daemon's own to dial, and so no service's.
#[must_use]
pub fn is_probe(address: SocketAddr) -> bool {
    address == PROBE_V4 || address == PROBE_V6
}
