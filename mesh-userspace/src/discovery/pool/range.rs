//! The addresses of a range that can be given.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range of addresses without those that stand for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    net: IpNet,
    first: u128,
    size: u128,
}

impl Range {
    pub(super) fn new(net: IpNet) -> Self {
        let bits = net.max_prefix_len() - net.prefix_len();
        let all = 1u128.checked_shl(bits.into()).unwrap_or(u128::MAX);
        let network = number(net.network());
        let (first, size) = match net {
            _ if bits < 2 => (network, all),
            // Without network and broadcast address.
            IpNet::V4(_) => (network + 1, all - 2),
            // Without the anycast address of the routers.
            IpNet::V6(_) => (network + 1, all - 1),
        };
        Self { net, first, size }
    }

    pub(super) const fn net(&self) -> IpNet {
        self.net
    }

    /// How many addresses there are to give.
    pub(super) const fn size(&self) -> u128 {
        self.size
    }

    /// Which of them this is; `None`: none of them.
    pub(super) fn place(&self, ip: IpAddr) -> Option<u128> {
        self.net.contains(&ip).then(|| number(ip).checked_sub(self.first))?.filter(|place| *place < self.size)
    }

    /// All of them, beginning with that which belongs to a name.
    pub(super) fn from(&self, name: &str) -> impl Iterator<Item = IpAddr> + use<> {
        let Self { net, first, size } = *self;
        let start = u128::from(hash(name)) % size;
        (0..size).map(move |step| {
            let place = (start + step) % size;
            address(&net, first + place)
        })
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

fn address(net: &IpNet, number: u128) -> IpAddr {
    match net {
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

/// FNV-1a, with its high bits mixed into the low ones. It never changes: other nodes and later versions know it.
fn hash(name: &str) -> u64 {
    let fnv = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(net: &str) -> Vec<String> {
        let mut all: Vec<IpAddr> = Range::new(net.parse().unwrap()).from("web").collect();
        all.sort();
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_that_stand_for_something_else_are_not_in_it() {
        assert_eq!(all("240.1.0.8/30"), ["240.1.0.9", "240.1.0.10"]);
        assert_eq!(all("240.1.0.8/31"), ["240.1.0.8", "240.1.0.9"]);
        assert_eq!(all("240.1.0.8/32"), ["240.1.0.8"]);
        assert_eq!(all("fd00::/126"), ["fd00::1", "fd00::2", "fd00::3"]);
        let range = Range::new("240.1.0.0/24".parse().unwrap());
        let place = |ip: &str| range.place(ip.parse().unwrap());
        assert_eq!((place("240.1.0.0"), place("240.1.0.1"), place("240.1.0.254")), (None, Some(0), Some(253)));
        assert_eq!((place("240.1.0.255"), place("240.2.0.1"), place("fd00::1")), (None, None, None));
    }

    #[test]
    fn the_largest_ranges_are_no_trouble() {
        for net in ["0.0.0.0/0", "::/0", "fd00::/8"] {
            assert!(Range::new(net.parse().unwrap()).from("web").next().is_some(), "{net}");
        }
    }

    #[test]
    fn a_name_has_the_same_address_for_ever() {
        let first = |net: &str, name| Range::new(net.parse().unwrap()).from(name).next().unwrap().to_string();
        assert_eq!(first("240.10.0.0/16", "shop"), "240.10.247.142");
        assert_eq!(first("fd00:6d65:7368::/64", "shop"), "fd00:6d65:7368:0:dde8:59a4:7eec:a3d4");
    }
}
