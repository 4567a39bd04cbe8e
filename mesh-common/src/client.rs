//! Who a client is, where the same client is to meet the same endpoint.

use crate::{addr::Address, service::View};
use bytemuck::{Pod, Zeroable};

/// A client of one service: key of the table that remembers where it went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct ClientKey {
    /// The address it is bound to; else zero.
    pub source: Address,
    /// Cookie of its network namespace.
    pub netns: u64,
    /// Its cgroup, in the daemon's own network namespace only; else 0.
    pub cgroup: u64,
    /// Index of the service's row.
    pub service: u32,
    /// The [`View`] of the service that its socket has: another view's endpoint may be out of its reach.
    pub view: u32,
}

impl ClientKey {
    /// Nobody.
    pub const NONE: Self = Self { source: Address { words: [0; 4] }, netns: 0, cgroup: 0, service: 0, view: 0 };

    /// The client that calls `service`.
    ///
    /// A socket that is bound to an address is known by it, as a proxy in between would know it. Others have no address
    /// before they connect: they are known by their network namespace, which is a pod; or, in the namespace that
    /// the daemon is in itself, by their cgroup, which is a unit or a container there.
    #[inline(always)]
    #[must_use]
    pub const fn new(source: Address, netns: u64, own_netns: u64, cgroup: u64, service: u32, view: View) -> Self {
        let cgroup = if netns == own_netns && source.is_unspecified() { cgroup } else { 0 };
        Self { source, netns, cgroup, service, view: view as u32 }
    }

    /// 32 evenly spread bits of it, the same at every call; service and view have no part in them.
    #[inline(always)]
    #[must_use]
    pub const fn hash(&self) -> u32 {
        let [a, b, c, d] = self.source.words;
        let mut h = mix((a as u64) << 32 | b as u64);
        h = mix(h ^ ((c as u64) << 32 | d as u64));
        h = mix(h ^ self.netns);
        h = mix(h ^ self.cgroup);
        (h >> 32) as u32
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), after an odd step so that 0 is not kept.
#[inline(always)]
const fn mix(word: u64) -> u64 {
    let mut h = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}

/// Where a client went last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ClientRow {
    /// The [`Slot`](crate::endpoint::Slot) of its endpoint.
    pub slot: u64,
    /// When it went there last, CLOCK_MONOTONIC in nanoseconds.
    pub at: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bound_client_is_the_same_in_whatever_cgroup(ip: u32, cgroup: u64, other: u64) {
            prop_assume!(ip != 0);
            let key = |cgroup| ClientKey::new(Address::v4(ip), 7, 7, cgroup, 1, View::V4);
            prop_assert_eq!(key(cgroup), key(other));
        }
    }

    #[test]
    fn hashes_of_neighbours_are_spread_evenly() {
        let mut buckets = [0_u32; 16];
        for n in 0..16_000_u32 {
            let key = ClientKey::new(Address::v4((0x0a00_0000 + n).to_be()), 7, 8, 0, 1, View::V4);
            buckets[(key.hash() >> 28) as usize] += 1;
        }
        // 1000 expected, 31 standard deviation.
        assert!(buckets.iter().all(|n| n.abs_diff(1000) < 200), "{buckets:?}");
    }
}
