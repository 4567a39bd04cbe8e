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
    conditions::Conditions,
    ids::Ids,
    order::in_order,
    recipe::{Recipe, Standing, recipe},
    terms::terms,
};
use crate::{
    model::{self, Node, Protocol, Service, Snapshot},
    policy::{self, Precision},
};
use mesh_common::{
    addr::Address,
    endpoint::{EndpointRow, Slot},
    service::{Policy, ServiceRow, Set, Shown, SlotRange, View, VipKey, name_hash},
};
use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
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
    /// Shows other slots, or picks among them in another way.
    View(u32, Set, View, Shown),
    /// Changes what holds for a service besides its views.
    Terms(u32, ServiceRow),
    /// Says how much an endpoint weighs, and its marks.
    Weigh(u32, u16, u16),
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
    /// Where this node is.
    node: Node,
    /// What is known of endpoints besides facts.
    pub(super) conditions: Conditions,
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
    /// How it is picked; not known of an adopted one that shows nothing.
    policy: Policy,
    ranges: Ranges,
    /// Of the recipe it was laid out by; not known of an adopted one.
    recipe: Option<u64>,
    /// Of its terms; not known of an adopted one.
    terms: Option<u64>,
    /// Whether it is to be laid out again as soon as there is room for all of its weights' precision.
    coarse: bool,
    /// By address.
    endpoints: Vec<Placed>,
}

/// The ranges of a service's views, by [`Set`] and [`View`].
type Ranges = [[SlotRange; 3]; 3];

/// How a service would be shared out on another node.
#[derive(Clone, Debug, Default)]
pub struct Elsewhere {
    /// How its endpoints would stand.
    pub standings: HashMap<SocketAddr, Standing>,
    /// Their weights: of those that come first, and of all.
    pub weights: [Vec<(SocketAddr, u64)>; 2],
}

/// What an endpoint gets of a service, whatever family it is dialled by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its row, and the tag of that.
    pub slot: Slot,
    /// How near it is.
    pub tier: policy::Tier,
    /// Its weight by all that is known.
    pub attended: u64,
    /// Its weight among all that are in selection.
    pub all: u64,
}

/// An endpoint as it lies in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) address: SocketAddr,
    pub(super) slot: Slot,
    /// Its weight and marks, as its row has them.
    weight: u16,
    marks: u16,
}

/// The changes of one plan, by their place in the order.
#[derive(Default)]
struct Steps {
    endpoints: Vec<Change>,
    slots: Vec<Change>,
    /// By the service's row.
    services: HashMap<u32, Vec<Change>>,
    weights: Vec<Change>,
    freed_services: Vec<Change>,
    freed_endpoints: Vec<Change>,
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
            if old.is_none() && known.is_some() && !service.settings.slow_start.is_zero() {
                self.conditions.set(&service.name, endpoint.address, |c| c.warms_since = Some(now));
            }
            let Some(placed) = old.copied().or_else(|| self.new_endpoint(endpoint, id, now, idle, &mut rows)) else {
                let problem = Problem::NoEndpointRow(service.name.clone(), endpoint.address, self.limits.endpoints);
                plan.problems.push(problem);
                continue;
            };
            endpoints.push(placed);
        }
        let recipe = recipe(service, &endpoints, &self.node, self.conditions.of(&service.name), now);
        let fingerprint = recipe.fingerprint(&endpoints);
        let laid_out = match &known {
            Some(laid) if laid.recipe == Some(fingerprint) && !laid.coarse => Ok((laid.ranges, Precision::Full)),
            // Laid out coarsely before: exactly if there is room now, else it stays where it lies.
            Some(laid) if laid.recipe == Some(fingerprint) => {
                let full = self.lay_views(&recipe, &endpoints, Precision::Full, now, &mut steps.slots);
                Ok(full.map_or((laid.ranges, Precision::Coarse), |ranges| (ranges, Precision::Full)))
            }
            _ => self.lay_slots(&recipe, &endpoints, now, &mut steps.slots),
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
        weigh(service, &recipe, &mut endpoints, &mut rows, &mut steps.weights);
        steps.endpoints.extend(rows);
        let terms = ServiceRow { name, ..terms(service) };
        let terms_fingerprint = fingerprint_of(&terms);
        let shown = |range: SlotRange| Shown { range, policy };
        let changes = match &known {
            None => {
                let views = ranges.map(|set| set.map(|range| shown(range).word()));
                vec![Change::Service(id, ServiceRow { views, ..terms })]
            }
            Some(laid) => {
                let mut changes = Vec::new();
                if laid.terms != Some(terms_fingerprint) {
                    changes.push(Change::Terms(id, terms));
                }
                // The last set first: a connect that finds nothing in the others looks there, and must find the new one.
                for (set, view) in Set::ALL.into_iter().rev().flat_map(|set| View::ALL.map(|view| (set, view))) {
                    let (old, new) = (laid.ranges[set as usize][view as usize], ranges[set as usize][view as usize]);
                    if old != new || laid.policy != policy {
                        changes.push(Change::View(id, set, view, shown(new)));
                    }
                }
                if laid.ranges != ranges {
                    self.free_ranges(laid.ranges, now);
                }
                let gone = laid.endpoints.iter().filter(|old| find(&endpoints, old.address).is_none());
                for old in gone {
                    self.endpoint_ids.free(old.slot.id(), now);
                    steps.freed_endpoints.push(Change::FreeEndpoint(old.slot.id()));
                }
                changes
            }
        };
        if !changes.is_empty() {
            steps.services.entry(id).or_default().extend(changes);
        }
        let (recipe, terms) = (Some(fingerprint), Some(terms_fingerprint));
        self.services.insert(name, Laid { id, policy, ranges, recipe, terms, coarse, endpoints });
        Some(id)
    }

    fn new_endpoint(
        &mut self,
        endpoint: &model::Endpoint,
        service: u32,
        now: u64,
        idle: &impl Fn(u32) -> bool,
        rows: &mut Vec<Change>,
    ) -> Option<Placed> {
        let id = self.endpoint_ids.take(now, idle)?;
        let tag = self.next_tag;
        self.next_tag = self.next_tag.wrapping_add(1).max(1);
        let address = Address::from(endpoint.address.ip());
        let port = endpoint.address.port().to_be();
        rows.push(Change::Endpoint(id, EndpointRow { address, port, used: 1, tag, service, weight: 0, marks: 0 }));
        Some(Placed { address: endpoint.address, slot: Slot::new(id, tag), weight: 0, marks: 0 })
    }

    /// Lays the views out, coarsely if there is no room for more. The error is the length of a range that was not to be
    /// had.
    fn lay_slots(
        &mut self,
        recipe: &Recipe,
        endpoints: &[Placed],
        now: u64,
        changes: &mut Vec<Change>,
    ) -> Result<(Ranges, Precision), u32> {
        let full = self.lay_views(recipe, endpoints, Precision::Full, now, changes);
        let ranges = full.map(|ranges| (ranges, Precision::Full));
        ranges.or_else(|_| Ok((self.lay_views(recipe, endpoints, Precision::Coarse, now, changes)?, Precision::Coarse)))
    }

    /// Views that show the same share a range.
    fn lay_views(
        &mut self,
        recipe: &Recipe,
        endpoints: &[Placed],
        precision: Precision,
        now: u64,
        changes: &mut Vec<Change>,
    ) -> Result<Ranges, u32> {
        let mut ranges = Ranges::default();
        let mut laid: Vec<(SlotRange, Vec<Slot>)> = Vec::new();
        for (set, view) in Set::ALL.into_iter().flat_map(|set| View::ALL.map(|view| (set, view))) {
            let range = match recipe.original(set, view) {
                Err((set, view)) => ranges[set as usize][view as usize],
                Ok(parts) if parts.is_empty() => SlotRange::default(),
                Ok(parts) => {
                    let slots = recipe.slots(parts, endpoints, precision);
                    let count = u32::try_from(slots.len()).unwrap_or(u32::MAX);
                    let Some(range) = self.arena.take(count, now) else {
                        for (range, _) in laid {
                            self.arena.give_back(range);
                        }
                        return Err(count);
                    };
                    laid.push((range, slots));
                    range
                }
            };
            ranges[set as usize][view as usize] = range;
        }
        changes.extend(laid.into_iter().map(|(range, slots)| Change::Slots(range.base, slots)));
        Ok(ranges)
    }

    fn free_ranges(&mut self, ranges: Ranges, now: u64) {
        let mut seen = Vec::with_capacity(3);
        for range in ranges.into_iter().flatten() {
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

    /// How the endpoints of a service stand at `now`, by address.
    #[must_use]
    pub fn standings(&self, service: &Service, now: u64) -> HashMap<SocketAddr, Standing> {
        let Some(laid) = self.services.get(&name_hash(&service.name)) else { return HashMap::new() };
        let recipe = recipe(service, &laid.endpoints, &self.node, self.conditions.of(&service.name), now);
        laid.endpoints.iter().map(|placed| placed.address).zip(recipe.standings).collect()
    }

    /// As [`Planner::standings`] if this node were another one; and by which weights its connects would be shared out,
    /// first choice and all, behind a VIP of this view.
    #[must_use]
    pub fn elsewhere(&self, service: &Service, node: &Node, view: View, now: u64) -> Elsewhere {
        let Some(laid) = self.services.get(&name_hash(&service.name)) else { return Elsewhere::default() };
        let recipe = recipe(service, &laid.endpoints, node, self.conditions.of(&service.name), now);
        let weights = |set| {
            let parts = recipe.parts(set, view).iter();
            parts.map(|(index, weight)| (laid.endpoints[*index].address, *weight)).collect()
        };
        let weights = [weights(Set::Attended), weights(Set::All)];
        let standings = laid.endpoints.iter().map(|placed| placed.address).zip(recipe.standings).collect();
        Elsewhere { standings, weights }
    }

    /// The endpoints of a service that have rows, with what each gets now: by all that is known, and of all.
    #[must_use]
    pub fn shares(&self, service: &Service, now: u64) -> Vec<Share> {
        let Some(laid) = self.services.get(&name_hash(&service.name)) else { return Vec::new() };
        let recipe = recipe(service, &laid.endpoints, &self.node, self.conditions.of(&service.name), now);
        let standings = laid.endpoints.iter().zip(&recipe.standings);
        let share = |(placed, standing): (&Placed, &Standing)| Share {
            address: placed.address,
            slot: placed.slot,
            tier: standing.tier,
            attended: 0,
            all: 0,
        };
        let mut shares: Vec<Share> = standings.map(share).collect();
        for (index, weight) in recipe.parts(Set::Attended, View::Any) {
            shares[*index].attended = *weight;
        }
        for (index, weight) in recipe.parts(Set::All, View::Any) {
            shares[*index].all = *weight;
        }
        shares
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

/// Brings weights and marks of endpoint rows up to the recipe: in rows that are new, and of those in use.
fn weigh(service: &Service, recipe: &Recipe, placed: &mut [Placed], new: &mut [Change], changes: &mut Vec<Change>) {
    let weights = recipe.weights();
    let (mut facts, mut new) = (service.endpoints.iter(), new.iter_mut().peekable());
    for (index, (place, standing)) in placed.iter_mut().zip(&recipe.standings).enumerate() {
        // All by address: facts, placed endpoints, and the new rows among those.
        let configured = facts.by_ref().find(|e| e.address == place.address).map_or(0, |e| e.weight);
        let row = new.next_if(|change| matches!(change, Change::Endpoint(id, _) if *id == place.slot.id()));
        let weight = weights.as_ref().and_then(|weights| weights.get(&index).copied()).unwrap_or(configured);
        let marks = standing.marks();
        if (place.weight, place.marks) == (weight, marks) {
            continue;
        }
        (place.weight, place.marks) = (weight, marks);
        match row {
            Some(Change::Endpoint(_, row)) => (row.weight, row.marks) = (weight, marks),
            _ => changes.push(Change::Weigh(place.slot.id(), weight, marks)),
        }
    }
}

fn fingerprint_of(terms: &ServiceRow) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytemuck::bytes_of(terms).hash(&mut hasher);
    hasher.finish()
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

/// How the kernel picks for connections: it does not know how soon endpoints answer, but how much they have to do.
fn kernel_policy(policy: model::Policy) -> Policy {
    match policy {
        model::Policy::RoundRobin => Policy::RoundRobin,
        model::Policy::Random => Policy::Random,
        model::Policy::LeastConnections | model::Policy::PeakEwma => Policy::LeastConnections,
        model::Policy::Maglev => Policy::Maglev,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
