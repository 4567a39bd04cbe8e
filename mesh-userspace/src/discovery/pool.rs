//! Addresses for services that have none, out of a range of the operator's.
//!
//! A service's address follows from its name, so that nodes which know the same services mostly agree, and it is kept: over
//! restarts, and for a service that is gone and may come back, until there is no other address left to give.

mod lease;
mod range;

pub use lease::Given;
use lease::Leases;
use range::Range;

use crate::model::Service;
use ipnet::IpNet;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// The port of HTTP, at which services of it can be dialled wherever their endpoints listen.
const HTTP: u16 = 80;

/// The most ports of one service's VIP.
const MOST_PORTS: usize = 128;

/// How many services are named of those that go without.
const NAMED: usize = 3;

/// Gives addresses to services.
#[derive(Debug, Default)]
pub(super) struct Pool {
    range: Option<Range>,
    leases: Leases,
    /// The ports of those services that are there. They stay as long as the service does, over restarts too.
    ports: HashMap<String, BTreeSet<u16>>,
    /// What was made of services: each as it came, and with its VIPs.
    made: HashMap<String, (Arc<Service>, Arc<Service>)>,
    problems: Vec<String>,
    changed: bool,
}

impl Pool {
    /// Gives from this range from now on; `None`: gives nothing. What was given is remembered as far as it is in the range.
    pub(super) fn configure(&mut self, range: Option<IpNet>) {
        self.range = range.map(Range::new);
    }

    /// Puts in what an earlier daemon gave.
    pub(super) fn remember(&mut self, given: Vec<Given>) {
        let ports = |given: &Given| given.ports.iter().copied().filter(|port| *port != 0).take(MOST_PORTS).collect();
        self.ports = given.iter().map(|given| (given.service.clone(), ports(given))).collect();
        self.leases = given.into_iter().collect();
    }

    /// All that was given, in the order of names, if it is not what it was when this was asked last.
    pub(super) fn take_changed(&mut self) -> Option<Vec<Given>> {
        std::mem::take(&mut self.changed).then(|| self.leases.all(&self.ports))
    }

    /// What could not be given.
    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Adds VIPs to those services that have none.
    pub(super) fn settle(&mut self, services: &mut [Arc<Service>]) {
        self.problems.clear();
        let Some(range) = self.range else {
            self.made.clear();
            self.ports.clear();
            return;
        };
        let (vips, endpoints) = taken(services, &range);
        self.changed |= self.leases.revoke(|ip| range.place(ip).is_none() || vips.contains(&ip));
        // A service may be its own endpoint by mistake, by way of its name: that moves nobody.
        let taken: HashSet<IpAddr> = vips.into_iter().chain(endpoints).filter(|ip| !self.leases.holds(*ip)).collect();
        let wanting: HashSet<&str> =
            services.iter().filter(|s| s.addresses.is_empty()).map(|s| s.name.as_str()).collect();
        self.changed |= self.leases.note(&wanting);
        self.give(&range, &taken, &wanting);
        self.ports.retain(|name, _| wanting.contains(name.as_str()));
        self.made.retain(|name, _| wanting.contains(name.as_str()));
        drop(wanting);
        for service in services.iter_mut().filter(|service| service.addresses.is_empty()) {
            self.equip(service);
            if service.addresses.len() == MOST_PORTS {
                let name = &service.name;
                self.problems.push(format!("{name}: its endpoints have many ports: only {MOST_PORTS} lead to it"));
            }
        }
    }

    /// Gives an address to each service that wants one and has none.
    fn give(&mut self, range: &Range, taken: &HashSet<IpAddr>, wanting: &HashSet<&str>) {
        let mut new: Vec<&str> = wanting.iter().copied().filter(|name| self.leases.of(name).is_none()).collect();
        new.sort_unstable();
        let mut without = Vec::new();
        for name in new {
            let full = range.size() <= self.leases.len().saturating_add(taken.len()) as u128;
            let free = |ip: IpAddr| !taken.contains(&ip) && !self.leases.holds(ip);
            let ip = match full {
                false => range.from(name).find(|ip| free(*ip)),
                true => self.leases.reclaim(),
            };
            match ip {
                Some(ip) => {
                    self.leases.give(name, ip);
                    self.changed = true;
                }
                None => without.push(name),
            }
        }
        if !without.is_empty() {
            let named = without[..without.len().min(NAMED)].join(", ");
            let more = match without.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let why = "no address is left for them; give discovery.vip_pool a larger range";
            self.problems.push(format!("{named}{more}: {why} than {}", range.net()));
        }
    }

    /// Puts a service's VIPs in.
    fn equip(&mut self, service: &mut Arc<Service>) {
        let Some(ip) = self.leases.of(&service.name) else { return };
        if let Some((before, made)) = self.made.get(&service.name)
            && Arc::ptr_eq(before, service)
            && made.addresses.first().is_none_or(|vip| vip.ip() == ip)
        {
            *service = Arc::clone(made);
            return;
        }
        let mut now: BTreeSet<u16> = service.endpoints.iter().map(|e| e.address.port()).collect();
        now.extend(service.protocol.is_proxied().then_some(HTTP));
        let ports = self.ports.entry(service.name.clone()).or_default();
        let before = ports.clone();
        ports.extend(&now);
        if ports.len() > MOST_PORTS {
            // Those of long ago first; then whichever.
            *ports = now.into_iter().take(MOST_PORTS).collect();
        }
        self.changed |= *ports != before;
        let addresses = ports.iter().map(|port| SocketAddr::new(ip, *port)).collect();
        let made = Arc::new(Service { addresses, ..Service::clone(service) });
        let before = std::mem::replace(service, Arc::clone(&made));
        self.made.insert(made.name.clone(), (before, made));
    }
}

/// Addresses of the range that services have themselves, and those that endpoints listen at.
fn taken(services: &[Arc<Service>], range: &Range) -> (HashSet<IpAddr>, HashSet<IpAddr>) {
    let vips = services.iter().flat_map(|service| service.addresses.iter().map(|vip| vip.ip()));
    let endpoints = services.iter().flat_map(|service| service.endpoints.iter().map(|e| e.address.ip()));
    let inside = |ip: &IpAddr| range.place(*ip).is_some();
    (vips.filter(inside).collect(), endpoints.filter(inside).collect())
}

#[cfg(test)]
mod tests;
