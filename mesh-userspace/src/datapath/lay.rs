//! How is one service laid out: which rows, which slots, which views?

use super::{
    arena::REST,
    change::{Change, Plan, Problem},
    plan::Planner,
    recipe::{Recipe, recipe},
    terms::terms,
};
use crate::{
    model::{self, Service},
    policy::Precision,
};
use mesh_common::{
    addr::Address,
    endpoint::{EndpointRow, Slot},
    service::{Policy, ServiceRow, Set, Shown, SlotRange, View},
};
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::Arc,
};

/// A service as it lies in the tables.
#[derive(Clone, Debug)]
pub(super) struct Laid {
    pub(super) id: u32,
    /// How it is picked; not known of an adopted one that shows nothing.
    pub(super) policy: Policy,
    pub(super) ranges: Ranges,
    /// Of the recipe it was laid out by; not known of an adopted one.
    pub(super) recipe: Option<u64>,
    /// Of its terms; not known of an adopted one.
    pub(super) terms: Option<u64>,
    /// Whether it is to be laid out again as soon as there is room for all of its weights' precision.
    pub(super) coarse: bool,
    /// By address.
    pub(super) endpoints: Vec<Placed>,
    /// What it was laid out by, if it lies as that wants it: then the same facts again change nothing.
    pub(super) facts: Option<Arc<Service>>,
}

/// The ranges of a service's views, by [`Set`] and [`View`].
pub(super) type Ranges = [[SlotRange; 3]; 3];

/// An endpoint as it lies in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) address: SocketAddr,
    pub(super) slot: Slot,
    /// Its weight and marks, as its row has them.
    pub(super) weight: u16,
    pub(super) marks: u16,
}

/// The changes of one plan, by their place in the order.
#[derive(Default)]
pub(super) struct Steps {
    pub(super) endpoints: Vec<Change>,
    pub(super) slots: Vec<Change>,
    /// By the service's row.
    pub(super) services: HashMap<u32, Vec<Change>>,
    pub(super) weights: Vec<Change>,
    pub(super) freed_services: Vec<Change>,
    pub(super) freed_endpoints: Vec<Change>,
}

impl Planner {
    /// Plans one service; its row's id, unless it does not fit.
    pub(super) fn lay(
        &mut self,
        service: &Arc<Service>,
        name: u64,
        now: u64,
        idle: &impl Fn(u32) -> bool,
        steps: &mut Steps,
        plan: &mut Plan,
    ) -> Option<u32> {
        let (policy, problems) = (kernel_policy(service.policy), plan.problems.len());
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
            let Some(placed) = old.copied().or_else(|| self.new_endpoint(endpoint, (name, id), now, idle, &mut rows))
            else {
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
                    match change {
                        Change::Endpoint(id, _) => self.endpoint_ids.free(id, now),
                        Change::Again(row, EndpointRow { address, port, tag, .. }) => {
                            let address = SocketAddr::new(address.into(), u16::from_be(port));
                            self.leave(name, id, address, Slot::new(row, tag), now);
                        }
                        _ => {}
                    }
                }
                return match known {
                    Some(laid) => {
                        // It does not lie as what is known of it would have it.
                        self.services.insert(name, Laid { recipe: None, facts: None, ..laid });
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
                    self.leave(name, id, old.address, old.slot, now);
                    steps.freed_endpoints.push(Change::FreeEndpoint(old.slot.id()));
                }
                changes
            }
        };
        if !changes.is_empty() {
            steps.services.entry(id).or_default().extend(changes);
        }
        let (recipe, terms) = (Some(fingerprint), Some(terms_fingerprint));
        let facts = (!coarse && plan.problems.len() == problems).then(|| Arc::clone(service));
        self.services.insert(name, Laid { id, policy, ranges, recipe, terms, coarse, endpoints, facts });
        Some(id)
    }

    fn new_endpoint(
        &mut self,
        endpoint: &model::Endpoint,
        (name, service): (u64, u32),
        now: u64,
        idle: &impl Fn(u32) -> bool,
        rows: &mut Vec<Change>,
    ) -> Option<Placed> {
        let address = Address::from(endpoint.address.ip());
        let port = endpoint.address.port().to_be();
        let row = |tag| EndpointRow { address, port, used: 1, tag, service, weight: 0, marks: 0 };
        let placed = |slot| Placed { address: endpoint.address, slot, weight: 0, marks: 0 };
        if let Some((slot, of)) = self.rows_left.remove(&(name, endpoint.address)) {
            self.left.remove(&slot.id());
            if of == service && self.endpoint_ids.take_back(slot.id()) {
                rows.push(Change::Again(slot.id(), row(slot.tag())));
                return Some(placed(slot));
            }
        }
        let id = self.endpoint_ids.take(now, idle)?;
        if let Some(before) = self.left.remove(&id) {
            self.rows_left.remove(&before);
        }
        let tag = self.next_tag;
        self.next_tag = self.next_tag.wrapping_add(1).max(1);
        rows.push(Change::Endpoint(id, row(tag)));
        Some(placed(Slot::new(id, tag)))
    }

    /// An endpoint leaves a service, whose row is `service`. Should it come back while nobody else has its own row, then that
    /// serves it on.
    fn leave(&mut self, name: u64, service: u32, address: SocketAddr, slot: Slot, now: u64) {
        self.endpoint_ids.free(slot.id(), now);
        self.left.insert(slot.id(), (name, address));
        self.rows_left.insert((name, address), (slot, service));
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

    pub(super) fn free_ranges(&mut self, ranges: Ranges, now: u64) {
        let mut seen = Vec::with_capacity(3);
        for range in ranges.into_iter().flatten() {
            if !seen.contains(&range) {
                self.arena.free(range, now);
                seen.push(range);
            }
        }
    }
}

pub(super) fn find(endpoints: &[Placed], address: SocketAddr) -> Option<&Placed> {
    endpoints.binary_search_by_key(&address, |e| e.address).ok().map(|i| &endpoints[i])
}

/// Brings weights and marks of endpoint rows up to the recipe: in rows that are new, and of those in use.
fn weigh(service: &Service, recipe: &Recipe, placed: &mut [Placed], new: &mut [Change], changes: &mut Vec<Change>) {
    let weights = recipe.weights();
    let (mut facts, mut new) = (service.endpoints.iter(), new.iter_mut().peekable());
    for (index, (place, standing)) in placed.iter_mut().zip(&recipe.standings).enumerate() {
        // All by address: facts, placed endpoints, and the new rows among those.
        let configured = facts.by_ref().find(|e| e.address == place.address).map_or(0, |e| e.weight);
        let row = new.next_if(
            |change| matches!(change, Change::Endpoint(id, _) | Change::Again(id, _) if *id == place.slot.id()),
        );
        let weight = weights.as_ref().and_then(|weights| weights.get(&index).copied()).unwrap_or(configured);
        let marks = standing.marks();
        if (place.weight, place.marks) == (weight, marks) {
            continue;
        }
        (place.weight, place.marks) = (weight, marks);
        match row {
            Some(Change::Endpoint(_, row) | Change::Again(_, row)) => (row.weight, row.marks) = (weight, marks),
            _ => changes.push(Change::Weigh(place.slot.id(), weight, marks)),
        }
    }
}

fn fingerprint_of(terms: &ServiceRow) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytemuck::bytes_of(terms).hash(&mut hasher);
    hasher.finish()
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
