//! What to change in the tables, and in which order, so that every connect meets the old set or the new one.
//!
//! Pure: the planner remembers what the tables hold, compares that with a snapshot, and says what to write. The order
//! makes every prefix of a plan consistent, so that a daemon may die between any two writes:
//!
//! 1. endpoint rows that nothing refers to yet,
//! 2. slots in ranges that no view shows yet,
//! 3. VIPs that go,
//! 4. service by service: its row or its views, each view one word, and then the VIPs that lead to it now,
//! 5. service and endpoint rows that nothing refers to any more.
//!
//! A VIP that moves from one service to another finds the new one complete and leaves the old one before that
//! changes. Only services that exchange VIPs in a circle while their endpoints change as well cannot be ordered so:
//! for the time of a few writes such a VIP shows its old or new owner's other set, complete all the same.

use super::{
    arena::{Arena, REST},
    ids::Ids,
    layout::{Precision, layout},
    order::in_order,
};
use crate::model::{self, Protocol, Service, Snapshot};
use mesh_common::{
    addr::Address,
    endpoint::{EndpointRow, Slot},
    service::{Policy, ServiceRow, SlotRange, View, VipKey, name_hash},
};
use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

/// How many rows each table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Service rows.
    pub services: u32,
    /// VIPs.
    pub vips: u32,
    /// Endpoint rows.
    pub endpoints: u32,
    /// Slots.
    pub slots: u32,
}

/// One write to the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Starts the use of an endpoint row.
    Endpoint(u32, EndpointRow),
    /// Fills slots from this index on.
    Slots(u32, Vec<Slot>),
    /// Starts the use of a service row.
    Service(u32, ServiceRow),
    /// Shows another range of slots.
    View(u32, View, SlotRange),
    /// Picks in another way.
    Policy(u32, Policy),
    /// An address is no VIP any more.
    NoVip(VipKey),
    /// Leads a VIP to a service.
    Vip(VipKey, u32),
    /// Ends the use of a service row.
    FreeService(u32),
    /// Ends the use of an endpoint row.
    FreeEndpoint(u32),
}

/// Something that did not fit. Traffic goes on with what did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No service row is free.
    #[error("service {0:?} is not intercepted: all {1} service rows are in use; raise dataplane.max_services")]
    NoServiceRow(String, u32),
    /// No endpoint row is free.
    #[error(
        "endpoint {1} of service {0:?} gets no connections: all {2} endpoint rows are in use; raise dataplane.max_endpoints"
    )]
    NoEndpointRow(String, SocketAddr, u32),
    /// The arena has no range of this length.
    #[error(
        "service {0:?} stays as it is in the kernel, or out of it: no {1} slots are free in one piece; raise \
         dataplane.max_slots if this stays"
    )]
    NoSlots(String, u32),
    /// The VIP table is full.
    #[error("VIP {1} of service {0:?} is not intercepted: all {2} VIP rows are in use; raise dataplane.max_services")]
    NoVipRow(String, SocketAddr, u32),
    /// Two names have one hash.
    #[error("service {0:?} is not intercepted: its name has the same hash as another service's; rename it")]
    SameHash(String),
}

/// The writes that lead from what the tables hold to a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be done in this order.
    pub changes: Vec<Change>,
    /// What did not fit.
    pub problems: Vec<Problem>,
    /// When to plan again, if something may fit once freed rows have rested (same clock as the plan's `now`).
    pub again_at: Option<u64>,
}

/// What an earlier daemon left in the tables.
pub struct Found<'a> {
    /// VIPs and their services.
    pub vips: &'a [(VipKey, u32)],
    /// Used service rows.
    pub services: &'a [(u32, ServiceRow)],
    /// Used endpoint rows.
    pub endpoints: &'a [(u32, EndpointRow)],
    /// The highest tag in any row.
    pub highest_tag: u32,
}

/// Remembers what the tables hold.
#[derive(Clone, Debug)]
pub struct Planner {
    limits: Limits,
    /// By [`name_hash`]: the tables know services by nothing else.
    services: HashMap<u64, Laid>,
    vips: HashMap<VipKey, u32>,
    service_ids: Ids,
    endpoint_ids: Ids,
    arena: Arena,
    next_tag: u32,
    /// Rows found in use that no service refers to; freed by the next plan.
    orphans: Vec<Change>,
}

/// A service as it lies in the tables.
#[derive(Clone, Debug)]
struct Laid {
    id: u32,
    policy: Policy,
    ranges: [SlotRange; 3],
    /// Whether it is to be laid out again as soon as there is room for all of its weights' precision.
    coarse: bool,
    /// By address.
    endpoints: Vec<Placed>,
}

/// An endpoint as it lies in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Placed {
    address: SocketAddr,
    slot: Slot,
    /// What it was laid out with; not known of an adopted one.
    weight: Option<u16>,
}

/// The changes of one plan, by their place in the order.
#[derive(Default)]
struct Steps {
    endpoints: Vec<Change>,
    slots: Vec<Change>,
    /// By the service's row.
    services: HashMap<u32, Vec<Change>>,
    freed_services: Vec<Change>,
    freed_endpoints: Vec<Change>,
}

impl Planner {
    /// A planner for empty tables.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self::adopt(limits, &Found { vips: &[], services: &[], endpoints: &[], highest_tag: 0 }, 0)
    }

    /// A planner for tables that an earlier daemon left: rows of the same service and address are used on, and so
    /// their counters go on.
    #[must_use]
    pub fn adopt(limits: Limits, found: &Found<'_>, now: u64) -> Self {
        let mut services: HashMap<u64, Laid> = HashMap::with_capacity(found.services.len());
        let mut orphans = Vec::new();
        let mut names: HashMap<u32, u64> = HashMap::with_capacity(found.services.len());
        for (id, row) in found.services {
            if services.contains_key(&row.name) {
                orphans.push(Change::FreeService(*id));
                continue;
            }
            let laid = Laid {
                id: *id,
                policy: Policy::from_word(row.policy),
                ranges: row.views.map(SlotRange::from_word),
                coarse: false,
                endpoints: Vec::new(),
            };
            services.insert(row.name, laid);
            names.insert(*id, row.name);
        }
        let mut seen = HashSet::with_capacity(found.endpoints.len());
        for (id, row) in found.endpoints {
            let address = SocketAddr::new(IpAddr::from(row.address), u16::from_be(row.port));
            let owner = names.get(&row.service).and_then(|name| services.get_mut(name));
            match owner {
                Some(laid) if seen.insert((row.service, address)) => {
                    laid.endpoints.push(Placed { address, slot: Slot::new(*id, row.tag), weight: None });
                }
                _ => orphans.push(Change::FreeEndpoint(*id)),
            }
        }
        for laid in services.values_mut() {
            laid.endpoints.sort_unstable_by_key(|e| e.address);
        }
        Self {
            limits,
            vips: found.vips.iter().copied().collect(),
            service_ids: Ids::new(limits.services, found.services.iter().map(|(id, _)| *id), now),
            endpoint_ids: Ids::new(limits.endpoints, found.endpoints.iter().map(|(id, _)| *id), now),
            arena: Arena::new(limits.slots, services.values().flat_map(|laid| laid.ranges)),
            services,
            next_tag: found.highest_tag.wrapping_add(1).max(1),
            orphans,
        }
    }

    /// The writes that lead to `snapshot`. They are taken as done: apply them all, in order.
    ///
    /// `now` is in nanoseconds of a clock that never goes back; `idle` says whether no connection is open on an
    /// endpoint row that is not in use.
    pub fn plan(&mut self, snapshot: &Snapshot, now: u64, idle: impl Fn(u32) -> bool) -> Plan {
        let mut plan = Plan::default();
        let mut steps = Steps::default();
        self.arena.begin();
        for orphan in std::mem::take(&mut self.orphans) {
            match orphan {
                Change::FreeService(id) => {
                    self.service_ids.free(id, now);
                    steps.freed_services.push(orphan);
                }
                Change::FreeEndpoint(id) => {
                    self.endpoint_ids.free(id, now);
                    steps.freed_endpoints.push(orphan);
                }
                _ => {}
            }
        }
        let mut wanted = HashSet::with_capacity(snapshot.services().len());
        let mut vips = HashMap::with_capacity(self.vips.len());
        let mut vip_owners = Vec::new();
        for service in snapshot.services() {
            let name = name_hash(&service.name);
            if !wanted.insert(name) {
                plan.problems.push(Problem::SameHash(service.name.clone()));
                continue;
            }
            let Some(id) = self.lay(service, name, now, &idle, &mut steps, &mut plan) else { continue };
            for address in &service.addresses {
                vips.insert(vip_key(service.protocol, *address), id);
                vip_owners.push((&service.name, *address));
            }
        }
        self.remove_services(&wanted, now, &mut steps);
        self.fit_vips(&mut vips, &vip_owners, &mut plan.problems);
        let gone = self.vips.keys().filter(|key| !vips.contains_key(key)).map(|key| Change::NoVip(*key));
        plan.changes = steps.endpoints.into_iter().chain(steps.slots).chain(gone).collect();
        plan.changes.extend(in_order(steps.services, &self.vips, &vips));
        plan.changes.extend(steps.freed_services.into_iter().chain(steps.freed_endpoints));
        self.vips = vips;
        // Time heals only what waits for rows that rest.
        if plan.problems.iter().any(|p| matches!(p, Problem::NoSlots(..) | Problem::NoEndpointRow(..))) {
            plan.again_at = Some(now + REST);
        }
        plan
    }

    /// Plans one service; its row's id, unless it does not fit.
    fn lay(
        &mut self,
        service: &Service,
        name: u64,
        now: u64,
        idle: &impl Fn(u32) -> bool,
        steps: &mut Steps,
        plan: &mut Plan,
    ) -> Option<u32> {
        let policy = kernel_policy(service.policy);
        let known = self.services.remove(&name);
        let Some(id) = known.as_ref().map(|laid| laid.id).or_else(|| self.service_ids.take(now, |_| true)) else {
            plan.problems.push(Problem::NoServiceRow(service.name.clone(), self.limits.services));
            return None;
        };
        let mut endpoints = Vec::with_capacity(service.endpoints.len());
        let mut rows = Vec::new();
        for endpoint in &service.endpoints {
            let old = known.as_ref().and_then(|laid| find(&laid.endpoints, endpoint.address));
            let Some(slot) = old.map(|p| p.slot).or_else(|| self.new_endpoint(endpoint, id, now, idle, &mut rows))
            else {
                let problem = Problem::NoEndpointRow(service.name.clone(), endpoint.address, self.limits.endpoints);
                plan.problems.push(problem);
                continue;
            };
            let weight = if endpoint.draining { 0 } else { endpoint.weight };
            endpoints.push(Placed { address: endpoint.address, slot, weight: Some(weight) });
        }
        let laid_out = match &known {
            Some(laid) if laid.endpoints == endpoints && !laid.coarse => Ok((laid.ranges, Precision::Full)),
            // Laid out coarsely before: exactly if there is room now, else it stays where it lies.
            Some(laid) if laid.endpoints == endpoints => {
                let full = self.lay_views(&endpoints, Precision::Full, now, &mut steps.slots);
                Ok(full.map_or((laid.ranges, Precision::Coarse), |ranges| (ranges, Precision::Full)))
            }
            _ => self.lay_slots(&endpoints, now, &mut steps.slots),
        };
        let (ranges, coarse) = match laid_out {
            Ok((ranges, precision)) => (ranges, precision == Precision::Coarse),
            Err(count) => {
                plan.problems.push(Problem::NoSlots(service.name.clone(), count));
                for change in rows {
                    if let Change::Endpoint(id, _) = change {
                        self.endpoint_ids.free(id, now);
                    }
                }
                return match known {
                    Some(laid) => {
                        self.services.insert(name, laid);
                        Some(id)
                    }
                    None => {
                        self.service_ids.free(id, now);
                        None
                    }
                };
            }
        };
        if coarse {
            plan.again_at = Some(now + REST);
        }
        steps.endpoints.extend(rows);
        match &known {
            None => {
                let views = ranges.map(SlotRange::word);
                steps
                    .services
                    .entry(id)
                    .or_default()
                    .push(Change::Service(id, ServiceRow { views, policy: policy as u64, name }));
            }
            Some(laid) => {
                for (view, (old, new)) in View::ALL.into_iter().zip(laid.ranges.into_iter().zip(ranges)) {
                    if old != new {
                        steps.services.entry(id).or_default().push(Change::View(id, view, new));
                    }
                }
                if laid.policy != policy {
                    steps.services.entry(id).or_default().push(Change::Policy(id, policy));
                }
                if laid.ranges != ranges {
                    self.free_ranges(laid.ranges, now);
                }
                let gone = laid.endpoints.iter().filter(|old| find(&endpoints, old.address).is_none());
                for old in gone {
                    self.endpoint_ids.free(old.slot.id(), now);
                    steps.freed_endpoints.push(Change::FreeEndpoint(old.slot.id()));
                }
            }
        }
        self.services.insert(name, Laid { id, policy, ranges, coarse, endpoints });
        Some(id)
    }

    fn new_endpoint(
        &mut self,
        endpoint: &model::Endpoint,
        service: u32,
        now: u64,
        idle: &impl Fn(u32) -> bool,
        rows: &mut Vec<Change>,
    ) -> Option<Slot> {
        let id = self.endpoint_ids.take(now, idle)?;
        let tag = self.next_tag;
        self.next_tag = self.next_tag.wrapping_add(1).max(1);
        let address = Address::from(endpoint.address.ip());
        let row = EndpointRow { address, port: endpoint.address.port().to_be(), used: 1, tag, service, zero: 0 };
        rows.push(Change::Endpoint(id, row));
        Some(Slot::new(id, tag))
    }

    /// Lays the three views out, coarsely if there is no room for more. The error is the length of a range that was
    /// not to be had.
    fn lay_slots(
        &mut self,
        endpoints: &[Placed],
        now: u64,
        changes: &mut Vec<Change>,
    ) -> Result<([SlotRange; 3], Precision), u32> {
        let full = self.lay_views(endpoints, Precision::Full, now, changes);
        let ranges = full.map(|ranges| (ranges, Precision::Full));
        ranges.or_else(|_| Ok((self.lay_views(endpoints, Precision::Coarse, now, changes)?, Precision::Coarse)))
    }

    /// Views that show the same endpoints share a range.
    fn lay_views(
        &mut self,
        endpoints: &[Placed],
        precision: Precision,
        now: u64,
        changes: &mut Vec<Change>,
    ) -> Result<[SlotRange; 3], u32> {
        let weighted = |family: fn(&SocketAddr) -> bool| -> Vec<(Slot, u16)> {
            let seen = endpoints.iter().filter(|e| family(&e.address));
            seen.map(|e| (e.slot, e.weight.unwrap_or(0))).filter(|(_, w)| *w > 0).collect()
        };
        let sets = [weighted(SocketAddr::is_ipv4), weighted(SocketAddr::is_ipv6), weighted(|_| true)];
        let mut ranges: [SlotRange; 3] = [SlotRange::default(); 3];
        let mut laid: Vec<(SlotRange, Vec<Slot>)> = Vec::new();
        for view in 0..sets.len() {
            if sets[view].is_empty() {
                continue;
            }
            if let Some(same) = (0..view).find(|other| sets[*other] == sets[view]) {
                ranges[view] = ranges[same];
                continue;
            }
            let slots = layout(&sets[view], precision);
            let count = u32::try_from(slots.len()).unwrap_or(u32::MAX);
            let Some(range) = self.arena.take(count, now) else {
                for (range, _) in laid {
                    self.arena.give_back(range);
                }
                return Err(count);
            };
            laid.push((range, slots));
            ranges[view] = range;
        }
        changes.extend(laid.into_iter().map(|(range, slots)| Change::Slots(range.base, slots)));
        Ok(ranges)
    }

    fn free_ranges(&mut self, ranges: [SlotRange; 3], now: u64) {
        let mut seen = Vec::with_capacity(3);
        for range in ranges {
            if !seen.contains(&range) {
                self.arena.free(range, now);
                seen.push(range);
            }
        }
    }

    fn remove_services(&mut self, wanted: &HashSet<u64>, now: u64, steps: &mut Steps) {
        let gone: Vec<u64> = self.services.keys().filter(|name| !wanted.contains(name)).copied().collect();
        for name in gone {
            let Some(laid) = self.services.remove(&name) else { continue };
            self.free_ranges(laid.ranges, now);
            self.service_ids.free(laid.id, now);
            steps.freed_services.push(Change::FreeService(laid.id));
            for endpoint in laid.endpoints {
                self.endpoint_ids.free(endpoint.slot.id(), now);
                steps.freed_endpoints.push(Change::FreeEndpoint(endpoint.slot.id()));
            }
        }
    }

    /// Leaves out VIPs beyond the table's size. Whoever has a place keeps it; of the others, those that stand first
    /// get what is left.
    fn fit_vips(
        &self,
        wanted: &mut HashMap<VipKey, u32>,
        owners: &[(&String, SocketAddr)],
        problems: &mut Vec<Problem>,
    ) {
        if wanted.len() <= self.limits.vips as usize {
            return;
        }
        let kept = wanted.keys().filter(|key| self.vips.contains_key(key)).count();
        let mut left = (self.limits.vips as usize).saturating_sub(kept);
        for (service, address) in owners {
            let key = vip_key(Protocol::Tcp, *address);
            if self.vips.contains_key(&key) {
                continue;
            }
            if left > 0 {
                left -= 1;
            } else if wanted.remove(&key).is_some() {
                problems.push(Problem::NoVipRow((*service).clone(), *address, self.limits.vips));
            }
        }
    }

    /// The row of a service.
    #[must_use]
    pub fn service_row(&self, name: &str) -> Option<u32> {
        self.services.get(&name_hash(name)).map(|laid| laid.id)
    }

    /// The row of an endpoint of a service, and its tag.
    #[must_use]
    pub fn endpoint_row(&self, service: &str, address: SocketAddr) -> Option<Slot> {
        find(&self.services.get(&name_hash(service))?.endpoints, address).map(|placed| placed.slot)
    }

    /// How many rows there are.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Rows in use; those that rest are not.
    #[must_use]
    pub fn used(&self) -> Limits {
        Limits {
            services: self.service_ids.used(),
            vips: u32::try_from(self.vips.len()).unwrap_or(u32::MAX),
            endpoints: self.endpoint_ids.used(),
            slots: self.arena.used(),
        }
    }
}

fn find(endpoints: &[Placed], address: SocketAddr) -> Option<&Placed> {
    endpoints.binary_search_by_key(&address, |e| e.address).ok().map(|i| &endpoints[i])
}

/// The key of a VIP in the tables.
#[must_use]
pub(super) fn vip_key(protocol: Protocol, vip: SocketAddr) -> VipKey {
    match protocol {
        Protocol::Tcp => VipKey::tcp(Address::from(vip.ip()), vip.port().to_be()),
    }
}

fn kernel_policy(policy: model::Policy) -> Policy {
    match policy {
        model::Policy::RoundRobin => Policy::RoundRobin,
        model::Policy::Random | model::Policy::LeastConnections | model::Policy::Maglev => Policy::Random,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
