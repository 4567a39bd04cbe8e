//! Which endpoint does the hash of a client mean?
//!
//! The table of Maglev: D. Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
//! section 3.4. Every member has its own permutation of the positions, and takes in turn its first one that is free.
//!
//! Promised, and tested below:
//! - a member's part of the positions is its part of the weights to within two positions, where no member's part is
//!   less than one position;
//! - where some are that light, they get one position each all the same, at the cost of the others, if there are at
//!   least twice as many positions as members;
//! - without one of N members of equal weight (N up to 100, 16381 positions), at most 1/N + 2 % of the positions change;
//! - the same members make the same table, in whatever order they are given.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};

/// How many positions a table may have; a prime besides ([`is_prime`]).
pub const SIZES: RangeInclusive<u32> = 251..=1_048_573;

/// A table of `size` positions, each an index into `members`: pairs of a [`key`] and a weight above 0.
///
/// Empty without members (those of weight 0 do not count). Of more members than positions some get none, by key.
///
/// Weights decide whose turn it is: the turn k of a member, from 0, comes at the time (k + 1/2) / weight, and turns are
/// taken in the order of time, then of key. This deals out positions as Webster's method deals out seats. Envoy counts
/// rounds, in which a member of a third of the greatest weight takes every third turn
/// (`source/extensions/load_balancing_policies/maglev/maglev_lb.cc`). These times are the same idea without the greatest
/// weight in it: when the heaviest member goes, the turns of all others keep their order, and fewer positions change.
#[must_use]
pub fn table(members: &[(u64, u64)], size: u32) -> Vec<u32> {
    let total: u128 = members.iter().map(|(_, weight)| u128::from(*weight)).sum();
    let mut turns: BinaryHeap<Reverse<Member>> = (0..)
        .zip(members)
        .filter(|(_, (_, weight))| *weight > 0)
        .map(|(index, (key, weight))| Reverse(Member::new(index, *key, *weight, total, size)))
        .collect();
    let mut positions: Vec<Option<u32>> = vec![None; if turns.is_empty() { 0 } else { size as usize }];
    for _ in 0..positions.len() {
        let Some(mut next) = turns.peek_mut() else { break };
        let member = &mut next.0;
        while let Some(Some(_)) = positions.get(member.position as usize) {
            member.advance(size);
        }
        if let Some(free) = positions.get_mut(member.position as usize) {
            *free = Some(member.index);
        }
        member.take_turn();
    }
    positions.into_iter().flatten().collect()
}

/// A member at its next turn. Fields are compared in this order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Member {
    /// When its next turn is, in units of 2^-64 of the turn of a member of weight 1.
    time: u128,
    key: u64,
    index: u32,
    turns: u32,
    weight: u64,
    /// The next of its permutation: `position`, `position + skip`, `position + 2 skip`, … modulo the size.
    position: u32,
    skip: u32,
}

impl Member {
    fn new(index: u32, key: u64, weight: u64, total: u128, size: u32) -> Self {
        let within = |hash: u64, size: u32| u32::try_from(hash % u64::from(size.max(1))).unwrap_or(0);
        let skip = 1 + within(mix(key ^ 0x9e37_79b9_7f4a_7c15), size.saturating_sub(1));
        // The size is a prime, so every skip reaches every position. Should it be none, this one does.
        let skip = if coprime(skip, size) { skip } else { 1 };
        let mut member = Self { time: 0, key, index, turns: 0, weight, position: within(mix(key), size), skip };
        // Less than one position: it comes first, so that it gets one. All others get theirs by their turn.
        if u128::from(weight) * u128::from(size) >= total {
            member.time = member.turn();
        }
        member
    }

    /// The time of its turn.
    fn turn(&self) -> u128 {
        (u128::from(2 * u64::from(self.turns) + 1) << 63) / u128::from(self.weight)
    }

    fn take_turn(&mut self) {
        self.turns += 1;
        self.time = self.turn();
    }

    fn advance(&mut self, size: u32) {
        let (room, skip) = (size - self.position, self.skip);
        self.position = if skip < room { self.position + skip } else { skip - room };
    }
}

/// The hash of an endpoint's address, for [`table`]. It stays the same over versions and machines, so that all nodes
/// send a client to the same endpoint.
#[must_use]
pub fn key(address: SocketAddr) -> u64 {
    let start = match address.ip().to_canonical() {
        IpAddr::V4(ip) => fnv(&ip.octets(), FNV_START),
        IpAddr::V6(ip) => fnv(&ip.octets(), FNV_START),
    };
    mix(fnv(&address.port().to_be_bytes(), start))
}

/// The hash of what a client is known by, for a position of a [`table`]; as lasting as [`key`].
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    mix(fnv(bytes, FNV_START))
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, to be mixed well because it is not: neighbours in a subnet differ in few bits.
fn fnv(bytes: &[u8], start: u64) -> u64 {
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// Spreads what differs in a few bits over all: the finalizer of `SplitMix64` (Steele et al., OOPSLA 2014).
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Whether `n` is a prime.
#[must_use]
pub fn is_prime(n: u32) -> bool {
    n >= 2 && (2..).take_while(|d| u64::from(*d).pow(2) <= u64::from(n)).all(|d| !n.is_multiple_of(d))
}

fn coprime(a: u32, b: u32) -> bool {
    if b == 0 { a == 1 } else { coprime(b, a % b) }
}

#[cfg(test)]
mod tests;
