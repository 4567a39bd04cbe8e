//! What workers look things up in: one immutable table of services, replaced as a whole.

use super::{
    circuit::Circuits,
    routing::Routes,
    state::{EndpointState, ServiceState, States},
};
use crate::{
    model,
    policy::{self, Precision, Tier},
};
use mesh_common::{breaker, endpoint::Slot, service::Policy as Pick};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
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

    /// Its endpoints, with what is remembered of each.
    pub fn endpoints(&self) -> impl Iterator<Item = (SocketAddr, &Arc<EndpointState>)> {
        self.endpoints.iter().map(|e| (e.address, &e.state))
    }

    /// How its requests are treated.
    pub(super) fn http(&self) -> &model::Http {
        &self.facts.settings.http
    }

    fn new(entry: Entry, states: &States) -> Self {
        let Entry { facts, limits, circuits, row, endpoints: shares } = entry;
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
            model::Policy::RoundRobin => Pick::RoundRobin,
            model::Policy::Random => Pick::Random,
            model::Policy::LeastConnections | model::Policy::PeakEwma => Pick::LeastConnections,
            model::Policy::Maglev => Pick::Maglev,
        };
        let routes = (!facts.routes.is_empty()).then(|| Routes::new(&facts));
        let (slots, rate) = (slots.into_boxed_slice(), state.bucket(facts.settings.http.rate_limit));
        Self { rate, name, facts, routes, endpoints, slots, attended, pick, limits, circuits, row, state }
    }
}

/// In which order endpoints (by their places) take turns, by some weight.
fn places(facts: &model::Service, shares: &[Share], weight: impl Fn(&Share) -> u64) -> Vec<u32> {
    let present = (0_u32..).zip(shares).map(|(i, share)| (i, weight(share))).filter(|(_, weight)| *weight > 0);
    if facts.policy == model::Policy::Maglev {
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
        let mut table = Self { all, ..Self::default() };
        for entry in entries {
            let service = Arc::new(Service::new(entry, states));
            service.state.retain(|address| service.endpoint(address).is_some());
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
        if let Ok(vip) = host.parse::<SocketAddr>() {
            return self.by_vip.get(&vip);
        }
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if let Ok(ip) = bare.parse() {
            return self.by_vip.get(&SocketAddr::new(ip, 80));
        }
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
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
