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
    change::{Change, Found, Limits, Plan, Problem},
    conditions::Conditions,
    ids::Ids,
    lay::{Laid, Placed, Steps},
    order::in_order,
};
use crate::{
    model::{Node, Protocol, Service, Snapshot},
    policy,
};
use mesh_common::{
    addr::Address,
    endpoint::Slot,
    service::{Shown, VipKey, name_hash},
};
use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// Remembers what the tables hold.
#[derive(Clone, Debug)]
pub struct Planner {
    pub(super) limits: Limits,
    /// Where this node is.
    pub(super) node: Node,
    /// What is known of endpoints besides facts.
    pub(super) conditions: Conditions,
    /// By [`name_hash`]: the tables know services by nothing else.
    pub(super) services: HashMap<u64, Laid>,
    vips: HashMap<VipKey, u32>,
    pub(super) service_ids: Ids,
    pub(super) endpoint_ids: Ids,
    pub(super) arena: Arena,
    pub(super) next_tag: u32,
    /// Endpoints that left, by their row, while that is nobody else's; and the other way round, by service and address.
    pub(super) left: HashMap<u32, (u64, SocketAddr)>,
    pub(super) rows_left: HashMap<(u64, SocketAddr), (Slot, u32)>,
    /// Rows found in use that no service refers to; freed by the next plan.
    orphans: Vec<Change>,
}

impl Planner {
    /// A planner for empty tables.
    #[must_use]
    pub fn new(limits: Limits, node: Node) -> Self {
        Self::adopt(limits, node, &Found { vips: &[], services: &[], endpoints: &[], highest_tag: 0 }, 0)
    }

    /// A planner for tables that an earlier daemon left: rows of the same service and address are used on, and so
    /// their counters go on.
    #[must_use]
    pub fn adopt(limits: Limits, node: Node, found: &Found<'_>, now: u64) -> Self {
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
                policy: Shown::from_word(row.views[0][0]).policy,
                ranges: row.views.map(|set| set.map(|word| Shown::from_word(word).range)),
                recipe: None,
                terms: None,
                coarse: false,
                endpoints: Vec::new(),
                facts: None,
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
                    let slot = Slot::new(*id, row.tag);
                    laid.endpoints.push(Placed { address, slot, weight: row.weight, marks: row.marks });
                }
                _ => orphans.push(Change::FreeEndpoint(*id)),
            }
        }
        for laid in services.values_mut() {
            laid.endpoints.sort_unstable_by_key(|e| e.address);
        }
        Self {
            limits,
            node,
            conditions: Conditions::default(),
            vips: found.vips.iter().copied().collect(),
            service_ids: Ids::new(limits.services, found.services.iter().map(|(id, _)| *id), now),
            endpoint_ids: Ids::new(limits.endpoints, found.endpoints.iter().map(|(id, _)| *id), now),
            arena: Arena::new(limits.slots, services.values().flat_map(|laid| laid.ranges.into_iter().flatten())),
            services,
            next_tag: found.highest_tag.wrapping_add(1).max(1),
            left: HashMap::new(),
            rows_left: HashMap::new(),
            orphans,
        }
    }

    /// Says where this node is, from the next plan on.
    pub fn set_node(&mut self, node: Node) {
        self.node = node;
        self.services.values_mut().for_each(|laid| laid.facts = None);
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
            // Of a large cluster nearly all stays as it is, whatever changes.
            let laid = match self.lies(service, name) {
                Some(id) => Some(id),
                None => self.lay(service, name, now, &idle, &mut steps, &mut plan),
            };
            let Some(id) = laid else { continue };
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
        plan.changes.extend(steps.weights.into_iter().chain(steps.freed_services).chain(steps.freed_endpoints));
        self.vips = vips;
        let _ = self.conditions.take_changed();
        self.conditions.retain(|service, address| {
            snapshot.service(service).is_some_and(|s| s.endpoints.iter().any(|e| e.address == address))
        });
        // Time heals only what waits for rows that rest.
        if plan.problems.iter().any(|p| matches!(p, Problem::NoSlots(..) | Problem::NoEndpointRow(..))) {
            plan.again_at = Some(now + REST);
        }
        plan
    }

    /// The row of a service that lies as its facts, and what is known of its endpoints, want it.
    fn lies(&self, service: &Arc<Service>, name: u64) -> Option<u32> {
        let laid = self.services.get(&name)?;
        let same = laid.facts.as_ref().is_some_and(|facts| Arc::ptr_eq(facts, service));
        (same && !self.conditions.is_moving(&service.name)).then_some(laid.id)
    }

    /// The writes that follow from what was learned of endpoints since: as a plan of the same snapshot, and quicker.
    pub fn refresh(&mut self, snapshot: &Snapshot, now: u64) -> Plan {
        let mut plan = Plan::default();
        let mut steps = Steps::default();
        self.arena.begin();
        for name in self.due(snapshot, now) {
            // One that is gone, or is not laid out with these endpoints, is the matter of a whole plan: rows would be new.
            let Some(service) = snapshot.service(&name).map(Arc::clone) else { continue };
            let same =
                |laid: &Laid| laid.endpoints.iter().map(|e| e.address).eq(service.endpoints.iter().map(|e| e.address));
            if self.services.get(&name_hash(&name)).is_some_and(same) {
                self.lay(&service, name_hash(&name), now, &|_| false, &mut steps, &mut plan);
            }
        }
        let views = steps.services.into_values().flatten();
        plan.changes = steps.slots.into_iter().chain(views).chain(steps.weights).collect();
        if plan.problems.iter().any(|p| matches!(p, Problem::NoSlots(..))) {
            plan.again_at = Some(now + REST);
        }
        plan
    }

    /// Services to be laid out again: of which something was learned, or whose endpoints are warmer by now.
    fn due(&mut self, snapshot: &Snapshot, now: u64) -> Vec<Box<str>> {
        let mut due: Vec<Box<str>> = self.conditions.take_changed().into_iter().collect();
        let mut warm = Vec::new();
        for (name, endpoints) in self.conditions.warming() {
            let Some(service) = snapshot.service(name) else { continue };
            due.push(name.into());
            let over = service.settings.slow_start;
            for (address, condition) in endpoints {
                let age = condition.warms_since.map(|since| Duration::from_nanos(now.saturating_sub(since)));
                if age.is_some_and(|age| policy::next_step(age, over).is_none()) {
                    warm.push((Box::<str>::from(name), *address));
                }
            }
        }
        for (name, address) in warm {
            self.conditions.set(&name, address, |condition| condition.warms_since = None);
        }
        let _ = self.conditions.take_changed();
        due.sort_unstable();
        due.dedup();
        due
    }

    /// Whether [`Planner::refresh`] has something to do.
    #[must_use]
    pub fn wants_refresh(&self) -> bool {
        self.conditions.has_changed() || self.conditions.warming().next().is_some()
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

/// The key of a VIP in the tables.
#[must_use]
pub(super) fn vip_key(protocol: Protocol, vip: SocketAddr) -> VipKey {
    match protocol {
        Protocol::Tcp | Protocol::Http | Protocol::Grpc | Protocol::Auto => {
            VipKey::tcp(Address::from(vip.ip()), vip.port().to_be())
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
