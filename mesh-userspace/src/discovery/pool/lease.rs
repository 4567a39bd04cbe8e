//! Which service was given which address.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

/// An address that was given to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The service.
    pub service: String,
    /// The address.
    pub address: IpAddr,
    /// When it was last seen that the service is gone: a number that rises; `None`: the service is there.
    pub left: Option<u64>,
    /// The ports of its VIPs; none of a service that is gone.
    pub ports: BTreeSet<u16>,
}

/// The most services that are gone whose addresses are kept for them.
const MOST_GONE: usize = 16_384;

/// All addresses that were given, each to one service.
#[derive(Debug, Default)]
pub(super) struct Leases {
    of: HashMap<String, Lease>,
    holders: HashMap<IpAddr, String>,
    turn: u64,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    address: IpAddr,
    left: Option<u64>,
}

impl FromIterator<Given> for Leases {
    /// Of two that claim one address, or one service, the first has it.
    fn from_iter<I: IntoIterator<Item = Given>>(given: I) -> Self {
        let mut leases = Self::default();
        for Given { service, address, left, ports: _ } in given {
            if !leases.of.contains_key(&service) && !leases.holders.contains_key(&address) {
                leases.turn = leases.turn.max(left.unwrap_or(0));
                leases.holders.insert(address, service.clone());
                leases.of.insert(service, Lease { address, left });
            }
        }
        leases
    }
}

impl Leases {
    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    /// The address of a service.
    pub(super) fn of(&self, service: &str) -> Option<IpAddr> {
        self.of.get(service).map(|lease| lease.address)
    }

    /// Whether somebody has this address.
    pub(super) fn holds(&self, ip: IpAddr) -> bool {
        self.holders.contains_key(&ip)
    }

    /// In the order of names, with these ports.
    pub(super) fn all(&self, ports: &HashMap<String, BTreeSet<u16>>) -> Vec<Given> {
        let given = |(service, lease): (&String, &Lease)| Given {
            service: service.clone(),
            address: lease.address,
            left: lease.left,
            ports: ports.get(service).cloned().unwrap_or_default(),
        };
        let mut all: Vec<Given> = self.of.iter().map(given).collect();
        all.sort_by(|a, b| a.service.cmp(&b.service));
        all
    }

    /// Takes back what must not be given. Returns whether there was any.
    pub(super) fn revoke(&mut self, wrong: impl Fn(IpAddr) -> bool) -> bool {
        let before = self.of.len();
        self.of.retain(|_, lease| !wrong(lease.address));
        self.holders.retain(|ip, _| !wrong(*ip));
        self.of.len() < before
    }

    /// Notes which services are there. Returns whether others were before. Of those that are gone, the last ones are kept.
    pub(super) fn note(&mut self, there: &HashSet<&str>) -> bool {
        let turn = self.turn + 1;
        let (mut changed, mut gone) = (false, 0);
        for (service, lease) in &mut self.of {
            let left = if there.contains(service.as_str()) { None } else { Some(lease.left.unwrap_or(turn)) };
            changed |= left != lease.left;
            lease.left = left;
            gone += usize::from(left.is_some());
        }
        self.turn += u64::from(changed);
        if let Some(excess @ 1..) = gone.checked_sub(MOST_GONE) {
            self.forget(excess);
        }
        changed
    }

    /// Takes back the addresses of so many services that are gone for longest: whoever may register could else make names
    /// up until there is no memory left.
    fn forget(&mut self, excess: usize) {
        let gone = self.of.iter().filter_map(|(service, lease)| Some((lease.left?, service.clone())));
        let mut gone: Vec<(u64, String)> = gone.collect();
        gone.sort_unstable();
        for (_, service) in gone.into_iter().take(excess) {
            if let Some(lease) = self.of.remove(&service) {
                self.holders.remove(&lease.address);
            }
        }
    }

    pub(super) fn give(&mut self, service: &str, address: IpAddr) {
        self.holders.insert(address, service.to_owned());
        self.of.insert(service.to_owned(), Lease { address, left: None });
    }

    /// Takes back the address of the service that is gone for longest; `None`: all are there.
    pub(super) fn reclaim(&mut self) -> Option<IpAddr> {
        let gone = self.of.iter().filter_map(|(service, lease)| Some((lease.left?, service)));
        let (_, service) = gone.min()?;
        let service = service.clone();
        let lease = self.of.remove(&service)?;
        self.holders.remove(&lease.address);
        Some(lease.address)
    }
}
