//! What workers look things up in: one immutable table of services, replaced as a whole.

use super::{
    circuit::{Circuits, Turned},
    routing::Routes,
    state::{EndpointState, ServiceState, States},
};
use crate::{
    model,
    policy::{self, Precision, Tier},
};
use foldhash::HashMap;
use mesh_common::{breaker, endpoint::Slot, service::Policy as Pick};
use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering, mpsc},
};

/// An endpoint as it is at the moment: how much it gets of what.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its row in the kernel's tables; `None`: there is none.
    pub row: Option<Slot>,
    /// How near it is.
    pub tier: Tier,
    /// Its weight by all that is known: health, locality, slow start. 0: nothing.
    pub attended: u64,
    /// Its weight among all that are in selection.
    pub all: u64,
}

/// What a table is made of, of one service.
#[derive(Debug)]
pub struct Entry {
    /// The facts.
    pub facts: Arc<model::Service>,
    /// When circuits open, and for how long.
    pub limits: breaker::Limits,
    /// Where circuits are, if the kernel has them.
    pub circuits: Option<Arc<dyn Circuits>>,
    /// The index of its row in the kernel's tables.
    pub row: Option<u32>,
    /// While this and the facts stay, so does all the rest; `None`: it may change.
    pub mark: Option<u64>,
    /// Its endpoints, by address.
    pub endpoints: Vec<Share>,
}

/// All services that requests can be sent to.
#[derive(Debug, Default)]
pub struct Table {
    by_name: HashMap<Arc<str>, Arc<Service>>,
    /// By names of `hosts`, lower case.
    by_host: HashMap<Box<str>, Arc<Service>>,
    by_vip: HashMap<SocketAddr, Arc<Service>>,
    /// All services, those of connections too.
    all: Arc<model::Snapshot>,
}

/// A service as workers see it.
#[derive(Debug)]
pub struct Service {
    pub(super) name: Arc<str>,
    pub(super) facts: Arc<model::Service>,
    /// What becomes of its requests; `None`: they go to itself.
    pub(super) routes: Option<Routes>,
    pub(super) endpoints: Box<[Endpoint]>,
    /// Places among `endpoints`, in the order of turns: first those of the attended set, then those of all.
    pub(super) slots: Box<[u32]>,
    /// How many of them are of the attended set.
    pub(super) attended: u32,
    pub(super) pick: Pick,
    pub(super) limits: breaker::Limits,
    pub(super) circuits: Option<Arc<dyn Circuits>>,
    pub(super) row: Option<u32>,
    mark: Option<u64>,
    /// How it is told that circuits turned; `None`: it is not.
    pub(super) turned: Option<mpsc::Sender<Turned>>,
    /// What admits requests; `None`: all are.
    pub(super) rate: Option<Arc<policy::Bucket>>,
    pub(super) state: Arc<ServiceState>,
}

/// An endpoint as workers see it.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    pub(super) row: Option<Slot>,
    pub(super) tier: Tier,
    /// What a choice of two compares by, 16 bits.
    pub(super) weight: u16,
    /// Its successes and failures; `None`: no part of them opens its circuit.
    pub(super) success: Option<Arc<policy::SuccessRate>>,
    pub(super) state: Arc<EndpointState>,
}

impl Service {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What is remembered of it.
    #[must_use]
    pub fn state(&self) -> &Arc<ServiceState> {
        &self.state
    }

    /// What is remembered of one of its endpoints.
    #[must_use]
    pub fn endpoint(&self, address: SocketAddr) -> Option<&Arc<EndpointState>> {
        let at = self.endpoints.binary_search_by_key(&address, |e| e.address).ok()?;
        Some(&self.endpoints[at].state)
    }

    /// Whether it is as these facts and this mark have it.
    #[must_use]
    pub fn is_still(&self, facts: &Arc<model::Service>, mark: Option<u64>) -> bool {
        mark.is_some() && self.mark == mark && (Arc::ptr_eq(&self.facts, facts) || self.facts == *facts)
    }

    /// Its endpoints, with what is remembered of each.
    pub fn endpoints(&self) -> impl Iterator<Item = (SocketAddr, &Arc<EndpointState>)> {
        self.endpoints.iter().map(|e| (e.address, &e.state))
    }

    /// How its requests are treated.
    pub(super) fn http(&self) -> &model::Http {
        &self.facts.settings.http
    }

    fn new(entry: Entry, states: &States) -> Self {
        let Entry { facts, limits, circuits, row, mark, endpoints: shares } = entry;
        let name: Arc<str> = facts.name.as_str().into();
        let state = states.service(&name);
        let most = shares.iter().map(|share| share.attended).max().unwrap_or(1).max(1);
        let scaled = |weight: u64| {
            let scaled = u128::from(weight) * u128::from(u16::MAX) / u128::from(most.max(u64::from(u16::MAX)));
            u16::try_from(scaled).unwrap_or(u16::MAX)
        };
        let success_rate = facts.settings.http.success_rate;
        let endpoint = |share: &Share| {
            let state = state.endpoint(share.address);
            Endpoint {
                address: share.address,
                row: share.row,
                tier: share.tier,
                weight: scaled(share.attended),
                success: (success_rate.floor > 0).then(|| state.success_rate(success_rate.window)),
                state,
            }
        };
        let endpoints: Box<[Endpoint]> = shares.iter().map(endpoint).collect();
        let mut slots = places(&facts, &shares, |share| share.attended);
        let attended = u32::try_from(slots.len()).unwrap_or(u32::MAX);
        slots.extend(places(&facts, &shares, |share| share.all));
        let pick = match facts.policy {
            _ if keeps_clients(&facts) => Pick::Maglev,
            model::Policy::RoundRobin => Pick::RoundRobin,
            model::Policy::Random => Pick::Random,
            model::Policy::LeastConnections | model::Policy::PeakEwma => Pick::LeastConnections,
            model::Policy::Maglev => Pick::Maglev,
        };
        let routes = (!facts.routes.is_empty()).then(|| Routes::new(&facts));
        let (slots, rate) = (slots.into_boxed_slice(), state.bucket(facts.settings.http.rate_limit));
        let turned = states.teller();
        Self { rate, name, facts, routes, endpoints, slots, attended, pick, limits, circuits, row, mark, turned, state }
    }
}

/// Whether the same client gets the same endpoint. Workers need not remember for that, nor tell one another, where the
/// endpoint follows from who the client is: so `affinity` is kept as `maglev` is.
fn keeps_clients(facts: &model::Service) -> bool {
    facts.policy == model::Policy::Maglev || !facts.settings.affinity.is_zero()
}

/// In which order endpoints (by their places) take turns, by some weight.
fn places(facts: &model::Service, shares: &[Share], weight: impl Fn(&Share) -> u64) -> Vec<u32> {
    let present = (0_u32..).zip(shares).map(|(i, share)| (i, weight(share))).filter(|(_, weight)| *weight > 0);
    if keeps_clients(facts) {
        let (at, members): (Vec<u32>, Vec<(u64, u64)>) =
            present.map(|(i, weight)| (i, (policy::maglev::key(shares[i as usize].address), weight))).unzip();
        let table = policy::maglev::table(&members, facts.settings.maglev_size);
        return table.into_iter().map(|member| at[member as usize]).collect();
    }
    let weighted: Vec<(Slot, u64)> = present.map(|(i, weight)| (Slot::new(i, 0), weight)).collect();
    policy::layout(&weighted, Precision::Full).into_iter().map(Slot::id).collect()
}

impl Table {
    /// The table of these services, of `all` that there are. What `states` remember of others is forgotten.
    #[must_use]
    pub fn new(entries: Vec<Entry>, all: Arc<model::Snapshot>, states: &States) -> Self {
        Self::after(Vec::new(), entries, all, states)
    }

    /// As [`Table::new`], with services that an earlier table of the same `states` had, besides those of `entries`.
    #[must_use]
    pub fn after(kept: Vec<Arc<Service>>, entries: Vec<Entry>, all: Arc<model::Snapshot>, states: &States) -> Self {
        let made = entries.into_iter().map(|entry| {
            let service = Arc::new(Service::new(entry, states));
            service.state.retain(|address| service.endpoint(address).is_some());
            service
        });
        let mut table = Self { all, ..Self::default() };
        for service in kept.into_iter().chain(made) {
            for host in &service.facts.hosts {
                table.by_host.insert(host.as_str().into(), Arc::clone(&service));
            }
            for vip in &service.facts.addresses {
                table.by_vip.insert(*vip, Arc::clone(&service));
            }
            table.by_name.insert(Arc::clone(&service.name), service);
        }
        states.retain(|name| table.by_name.contains_key(name));
        table
    }

    /// The service of this name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.by_name.get(name)
    }

    /// The service that owns this VIP.
    #[must_use]
    pub fn owner(&self, vip: SocketAddr) -> Option<&Arc<Service>> {
        self.by_vip.get(&vip)
    }

    /// The service that owns this VIP, whatever its protocol.
    #[must_use]
    pub fn owner_of_any(&self, vip: SocketAddr) -> Option<&Arc<model::Service>> {
        self.all.owner(vip)
    }

    /// The service to which a tunnel may lead: also one of connections, which is looked at as it stands there. It has no
    /// circuits and no health here, where it has them only in the kernel.
    #[must_use]
    pub(super) fn connectable(&self, host: &str) -> Option<Arc<Service>> {
        if let Some(service) = self.host(host) {
            return Some(Arc::clone(service));
        }
        let named = || self.all.service(&host.rsplit_once(':').map_or(host, |(name, _)| name).to_ascii_lowercase());
        let facts = match host.parse() {
            Ok(vip) => self.all.owner(vip),
            Err(_) => named(),
        }?;
        let share = |endpoint: &model::Endpoint| {
            let weight = if endpoint.is_in_selection() { u64::from(endpoint.weight) } else { 0 };
            Share { address: endpoint.address, row: None, tier: Tier::Any, attended: weight, all: weight }
        };
        let endpoints = facts.endpoints.iter().map(share).collect();
        let entry = Entry {
            facts: Arc::clone(facts),
            limits: breaker::Limits::default(),
            circuits: None,
            row: None,
            mark: None,
            endpoints,
        };
        Some(Arc::new(Service::new(entry, &States::default())))
    }

    /// All services, in no particular order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.by_name.values()
    }

    /// The service that a `Host` or `:authority` means: its name, one of its hosts, or a VIP. A name may carry any port,
    /// a VIP without one means port 80.
    #[must_use]
    pub fn host(&self, host: &str) -> Option<&Arc<Service>> {
        let has_colon = host.bytes().any(|byte| byte == b':');
        // As an address does or begins, and hardly a name.
        if has_colon || host.starts_with(|first: char| first == '[' || first.is_ascii_digit()) {
            if let Ok(vip) = host.parse::<SocketAddr>() {
                return self.by_vip.get(&vip);
            }
            let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
            if let Ok(ip) = bare.parse() {
                return self.by_vip.get(&SocketAddr::new(ip, 80));
            }
        }
        // A port of a service may be a service of its own.
        if has_colon && let Some(service) = self.by_host.get(&*host.to_ascii_lowercase()) {
            return Some(service);
        }
        let name = if has_colon { host.rsplit_once(':').map_or(host, |(name, _)| name) } else { host };
        let name = name.strip_suffix('.').unwrap_or(name);
        // Nearly always lower case already.
        let found = |name: &str| self.by_name.get(name).or_else(|| self.by_host.get(name));
        match name.bytes().any(|b| b.is_ascii_uppercase()) {
            true => found(&name.to_ascii_lowercase()),
            false => found(name),
        }
    }
}

/// A request on its way, as long as it is.
#[derive(Debug)]
pub(super) struct Active(Arc<ServiceState>);

impl Active {
    /// Counts a request, unless the service has as many as it admits.
    pub(super) fn enter(state: &Arc<ServiceState>, most: u32) -> Option<Self> {
        let before = state.active.fetch_add(1, Ordering::AcqRel);
        let active = Self(Arc::clone(state));
        (most == 0 || before < most).then_some(active)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, mark: Option<u64>) -> Entry {
        let address: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let facts = model::Service {
            name: name.to_owned(),
            addresses: vec![SocketAddr::new(address.ip(), u16::from(name.as_bytes()[0]))],
            hosts: vec![format!("{name}.internal")],
            routes: Arc::default(),
            protocol: model::Protocol::Http,
            policy: model::Policy::RoundRobin,
            settings: Arc::default(),
            endpoints: vec![model::Endpoint::new(address)],
        };
        let endpoints = vec![Share { address, row: None, tier: Tier::Any, attended: 1, all: 1 }];
        Entry { facts: Arc::new(facts), limits: breaker::Limits::default(), circuits: None, row: None, mark, endpoints }
    }

    #[test]
    fn services_that_did_not_change_are_the_same_in_the_next_table_and_are_found_by_every_name() {
        let states = States::default();
        let first =
            Table::new(vec![entry("a", Some(1)), entry("b", Some(1)), entry("c", Some(1))], Arc::default(), &states);
        let before = Arc::clone(first.service("a").unwrap());
        before.state().requests[0].fetch_add(1, Ordering::Relaxed);
        assert!(before.is_still(&entry("a", None).facts, Some(1)), "facts are compared, not where they lie");
        assert!(!before.is_still(&before.facts, Some(2)) && !before.is_still(&before.facts, None));
        let mut other = (*before.facts).clone();
        other.policy = model::Policy::Random;
        assert!(!before.is_still(&Arc::new(other), Some(1)));
        let next = Table::after(vec![Arc::clone(&before)], vec![entry("b", Some(2))], Arc::default(), &states);
        for found in [next.service("a"), next.host("A.internal:80"), next.owner("10.0.0.1:97".parse().unwrap())] {
            assert!(Arc::ptr_eq(found.unwrap(), &before));
        }
        let old = first.service("b").unwrap();
        let new = next.service("b").unwrap();
        assert!(!Arc::ptr_eq(new, old) && Arc::ptr_eq(new.state(), old.state()), "what is remembered goes on");
        assert!(next.service("c").is_none() && next.services().count() == 2);
    }
}
