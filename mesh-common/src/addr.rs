//! Addresses as the kernel's socket hooks hand them over: network byte order, one shape for both families.

use bytemuck::{Pod, Zeroable};

/// An IP address in 16 bytes of network order; IPv4 is v4-mapped (`::ffff:a.b.c.d`, RFC 4291 2.5.5.2).
///
/// One shape means one service table and one translation for `AF_INET`, `AF_INET6` and v4-mapped sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Address {
    /// The address as four 32-bit words, each in network byte order (`user_ip6` of `bpf_sock_addr`).
    pub words: [u32; 4],
}

/// The third word of every v4-mapped address, in network byte order.
const MAPPED: u32 = 0xffff_u32.to_be();

impl Address {
    /// The v4-mapped form of an IPv4 address given as one word in network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn v4(word: u32) -> Self {
        Self { words: [0, 0, MAPPED, word] }
    }

    /// An IPv6 address (v4-mapped ones included) given as four words in network byte order.
    #[inline(always)]
    #[must_use]
    pub const fn v6(words: [u32; 4]) -> Self {
        Self { words }
    }

    /// Whether this is all zeroes: no address.
    #[inline(always)]
    #[must_use]
    pub const fn is_unspecified(&self) -> bool {
        let [a, b, c, d] = self.words;
        a | b | c | d == 0
    }

    /// Whether this is an IPv4 address in its v4-mapped form.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == MAPPED
    }
}

impl From<core::net::IpAddr> for Address {
    fn from(ip: core::net::IpAddr) -> Self {
        let octets = match ip {
            core::net::IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            core::net::IpAddr::V6(v6) => v6.octets(),
        };
        let word = |i: usize| u32::from_ne_bytes([octets[i], octets[i + 1], octets[i + 2], octets[i + 3]]);
        Self { words: [word(0), word(4), word(8), word(12)] }
    }
}

impl From<Address> for core::net::IpAddr {
    /// The address a person would write: a v4-mapped one comes back as IPv4.
    fn from(address: Address) -> Self {
        let mut octets = [0; 16];
        for (chunk, word) in octets.chunks_exact_mut(4).zip(address.words) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        core::net::Ipv6Addr::from(octets).to_canonical()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    proptest! {
        #[test]
        fn every_address_comes_back_as_it_went_in(v4: u32, v6: u128) {
            for ip in [IpAddr::V4(Ipv4Addr::from(v4)), IpAddr::V6(Ipv6Addr::from(v6))] {
                let address = Address::from(ip);
                prop_assert_eq!(IpAddr::from(address), ip.to_canonical());
                prop_assert_eq!(address.is_v4(), ip.to_canonical().is_ipv4());
            }
        }
    }

    #[test]
    fn the_hook_of_either_family_builds_the_same_key_for_one_ipv4_address() {
        let ip = Ipv4Addr::new(10, 96, 0, 10);
        let word = u32::from_ne_bytes(ip.octets());
        assert_eq!(Address::v4(word), Address::from(IpAddr::V4(ip)));
        assert_eq!(Address::v4(word), Address::from(IpAddr::V6(ip.to_ipv6_mapped())));
    }
}
