//! Service rows: from a dialled address to a range of slots.

use crate::{addr::Address, breaker::Limits};
use bytemuck::{Pod, Zeroable};

/// `IPPROTO_TCP`.
pub const TCP: u8 = 6;

/// Key of the VIP table: what an application dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct VipKey {
    /// The dialled address.
    pub address: Address,
    /// The dialled port, network byte order.
    pub port: u16,
    /// The IP protocol: [`TCP`].
    pub protocol: u8,
    /// Always zero: hash keys are compared byte by byte.
    pub zero: u8,
}

impl VipKey {
    /// The key of `address` and `port` (network byte order) over TCP.
    #[inline(always)]
    #[must_use]
    pub const fn tcp(address: Address, port: u16) -> Self {
        Self { address, port, protocol: TCP, zero: 0 }
    }

    /// 32 bits that tell this key from another one.
    ///
    /// A hash table reuses the memory of a deleted entry at once, also under a reader that just found it.
    /// The value repeats this fingerprint of its key, so such a reader notices.
    #[inline(always)]
    #[must_use]
    pub const fn fingerprint(&self) -> u32 {
        let [a, b, c, d] = self.address.words;
        let mut h = ((a as u64) << 32 | b as u64) ^ 0x9e37_79b9_7f4a_7c15;
        h = (h ^ ((c as u64) << 32 | d as u64)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        h ^= h >> 33;
        h = (h ^ ((self.port as u64) << 8 | self.protocol as u64)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        (h >> 32) as u32
    }
}

/// Value of the VIP table, one word: the service's id, whether the VIP is left alone, and the fingerprint of the key it
/// belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct VipRow(pub u64);

impl VipRow {
    /// The row that leads `key` to `service`.
    #[must_use]
    pub const fn new(key: &VipKey, service: u32) -> Self {
        Self((key.fingerprint() as u64) << 32 | service as u64)
    }

    /// The same VIP, counted and left alone (`dataplane.bypass`).
    #[must_use]
    pub const fn bypassed(self) -> Self {
        Self(self.0 | Self::BYPASSED)
    }

    /// Whether connects to this VIP are left alone.
    #[inline(always)]
    #[must_use]
    pub const fn is_bypassed(self) -> bool {
        self.0 & Self::BYPASSED != 0
    }

    /// The service's id, unless this row belongs to another key.
    #[inline(always)]
    #[must_use]
    pub const fn service(self, key: &VipKey) -> Option<u32> {
        if (self.0 >> 32) as u32 == key.fingerprint() { Some((self.0 & (Self::BYPASSED - 1)) as u32) } else { None }
    }

    /// Above every id: there are at most 2^20 services.
    const BYPASSED: u64 = 1 << 31;
}

/// Which endpoints a socket can reach: the position in [`ServiceRow::views`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// IPv4 endpoints: for an IPv4 VIP, dialled as such or v4-mapped.
    V4 = 0,
    /// IPv6 endpoints only: an IPv6 VIP dialled by a socket that is `IPV6_V6ONLY`, or one of a service with
    /// [`flags::SAME_FAMILY`].
    V6 = 1,
    /// Endpoints of both families, IPv4 ones as v4-mapped addresses: any other socket that dials an IPv6 VIP.
    Any = 2,
}

impl View {
    /// All views, in the order of [`ServiceRow::views`].
    pub const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Any];
}

/// Which of a service's slots are looked at: the position in [`ServiceRow::views`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// With all that the daemon knows: health, locality, slow start. In force while the daemon is there.
    Attended = 0,
    /// Without health, which nobody looks at any more when the daemon is gone.
    Alone = 1,
    /// Every endpoint that is in selection, near or far: where the first set has none that admits.
    All = 2,
}

impl Set {
    /// All sets, in the order of [`ServiceRow::views`].
    pub const ALL: [Self; 3] = [Self::Attended, Self::Alone, Self::All];
}

/// A range of the slot arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SlotRange {
    /// Index of the first slot.
    pub base: u32,
    /// Number of slots, less than 2^28; 0: nothing to choose from.
    pub count: u32,
}

/// What a view shows, one 64-bit word in a row so that it is swapped whole: slots, and how one of them is picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shown {
    /// The slots.
    pub range: SlotRange,
    /// How one is picked.
    pub policy: Policy,
}

impl Shown {
    /// Where the number of the policy lies in the word.
    pub const POLICY_SHIFT: u32 = 28;

    /// The word in a row.
    #[must_use]
    pub const fn word(self) -> u64 {
        (self.range.base as u64) << 32 | (self.policy as u64) << Self::POLICY_SHIFT | self.range.count as u64
    }

    /// What a row's word says. Unknown policies (a newer daemon's) read as round robin.
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        let policy = match (word >> Self::POLICY_SHIFT) & 0xf {
            1 => Policy::Random,
            2 => Policy::LeastConnections,
            3 => Policy::Maglev,
            _ => Policy::RoundRobin,
        };
        Self { range: SlotRange { base: (word >> 32) as u32, count: word as u32 & 0x0fff_ffff }, policy }
    }
}

/// How the kernel picks among a service's slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// One slot after the other, in the order the daemon laid them out.
    #[default]
    RoundRobin = 0,
    /// Any slot, each as likely as another.
    Random = 1,
    /// Of two slots the one whose endpoint has fewer connections for its weight.
    LeastConnections = 2,
    /// The slot that a hash of the client names: the slots are a Maglev table.
    Maglev = 3,
}

impl Policy {
    /// How many policies there are.
    pub const COUNT: usize = 4;
    /// Every policy, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [Self::RoundRobin, Self::Random, Self::LeastConnections, Self::Maglev];

    /// The word in metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
            Self::LeastConnections => "least_connections",
            Self::Maglev => "maglev",
        }
    }
}

/// One service. Written by the daemon only, word by word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ServiceRow {
    /// What each [`View`] shows in each [`Set`], as [`Shown::word`].
    pub views: [[u64; 3]; 3],
    /// [`name_hash`] of the service's name, by which a restarted daemon finds its rows again; 0: the row is free.
    pub name: u64,
    /// When circuits open, and for how long.
    pub limits: Limits,
    /// How long a connect may take, in milliseconds; 0: as long as the kernel tries.
    pub connect_timeout_ms: u32,
    /// For how long after its last connect a client comes back to its endpoint, in milliseconds; 0: not at all.
    pub affinity_ms: u32,
    /// A set of [`flags`].
    pub flags: u64,
}

/// Bits of [`ServiceRow::flags`].
pub mod flags {
    /// An operator holds circuits of the service open: a view that shows nothing is no mistake of the configuration.
    pub const TRIPPED: u64 = 1;
    /// Connections go through the daemon, where it listens.
    pub const PROXIED: u64 = 2;
    /// With [`PROXIED`]: where the daemon takes none, connects are refused instead of sent to an endpoint.
    pub const REFUSE_ALONE: u64 = 4;
    /// An IPv6 VIP leads to IPv6 endpoints only, whatever the socket can reach.
    pub const SAME_FAMILY: u64 = 8;
}

/// What the kernel remembers about a service. Words that programs and the daemon change atomically.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ServiceState {
    /// The turn of round robin.
    pub turn: u64,
    /// Endpoints whose circuit is not closed.
    pub open: u64,
    /// When the next connection is let through while the whole service is open, milliseconds of CLOCK_MONOTONIC.
    pub probe_at: u64,
}

/// The 64-bit FNV-1a hash of a service's name; never 0.
#[must_use]
pub fn name_hash(name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    if hash == 0 { 1 } else { hash }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_shown_survives_its_word(base: u32, count in 0..1u32 << 28, policy in 0..Policy::COUNT) {
            let shown = Shown { range: SlotRange { base, count }, policy: Policy::ALL[policy] };
            prop_assert_eq!(Shown::from_word(shown.word()), shown);
        }

        #[test]
        fn a_row_answers_only_its_own_key(words: [u32; 4], port: u16, other: u16, service in 0..1u32 << 20) {
            let key = VipKey::tcp(Address { words }, port);
            let row = VipRow::new(&key, service);
            prop_assert_eq!(row.service(&key), Some(service));
            prop_assert_eq!(row.bypassed().service(&key), Some(service));
            prop_assert!(row.bypassed().is_bypassed() && !row.is_bypassed());
            prop_assume!(port != other);
            prop_assert_eq!(row.service(&VipKey::tcp(Address { words }, other)), None);
        }
    }
}
