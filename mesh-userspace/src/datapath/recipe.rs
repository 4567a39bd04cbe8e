//! How the endpoints of one service are to lie among its slots: by whom each view is shared, in each set.

use super::{conditions::OfService, lay::Placed};
use crate::{
    model::{Health, Node, Policy, Service},
    policy::{self, Candidate, Precision, Tier, layout},
};
use mesh_common::{
    endpoint::{Slot, marks},
    select::LOOKS,
    service::{Set, View},
};
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

/// Parts of a view: which endpoint of the service (by its place among the placed ones), and its weight.
type Parts = Vec<(usize, u64)>;

/// What a service's slots are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recipe {
    /// By [`Set`] and [`View`].
    parts: [[Parts; 3]; 3],
    /// The size of Maglev tables; `None`: by weight, spread evenly.
    maglev: Option<u32>,
    /// Whether a choice compares endpoints by their weights.
    compares: bool,
    /// How each endpoint stands.
    pub(super) standings: Vec<Standing>,
}

/// How an endpoint stands: what its row says besides its address, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// How near it is.
    pub tier: Tier,
    /// What health checks say.
    pub health: Health,
    /// Whether health is ignored, because nobody is healthy.
    pub panic: bool,
    /// Thousandths of its share that it gets while it warms up.
    pub warmth: u16,
    /// Whether it is in selection, health and circuit apart.
    pub is_in: bool,
}

impl Standing {
    /// The bits of its row.
    pub(super) fn marks(&self) -> u16 {
        let healthy = self.panic || self.health != Health::Unhealthy;
        let mark = |mark, on| if on { mark } else { 0 };
        self.tier as u16 | mark(marks::IN, self.is_in) | mark(marks::HEALTHY, healthy)
    }
}

/// What the endpoints of `service`, of which those in `placed` have rows, are to have.
pub(super) fn recipe(
    service: &Service,
    placed: &[Placed],
    node: &Node,
    conditions: Option<&OfService>,
    now: u64,
) -> Recipe {
    let settings = &service.settings;
    let mut standings = Vec::with_capacity(placed.len());
    let mut candidates = Vec::with_capacity(placed.len());
    let mut facts = service.endpoints.iter();
    for place in placed {
        // Both by address, and the placed ones are some of them.
        let Some(endpoint) = facts.by_ref().find(|e| e.address == place.address) else { break };
        let condition = conditions.and_then(|c| c.get(&endpoint.address)).copied().unwrap_or_default();
        let age = condition.warms_since.map(|since| Duration::from_nanos(now.saturating_sub(since)));
        let standing = Standing {
            tier: policy::tier(endpoint, node, settings.locality.prefer),
            health: condition.health,
            panic: false,
            warmth: age.map_or(1000, |age| policy::warmth(age, settings.slow_start)),
            is_in: endpoint.is_in_selection(),
        };
        candidates.push(Candidate {
            weight: if standing.is_in { endpoint.weight } else { 0 },
            tier: standing.tier,
            healthy: standing.health != Health::Unhealthy,
            admits: !condition.is_open,
            warmth: standing.warmth,
        });
        standings.push(standing);
    }
    let mut parts: [[Parts; 3]; 3] = Default::default();
    let v4 = placed.iter().filter(|place| place.address.is_ipv4()).count();
    for view in View::ALL {
        if view == View::Any && (v4 == 0 || v4 == placed.len()) {
            // All of one family: the same as that one's.
            let same = if v4 == 0 { View::V6 } else { View::V4 };
            parts.iter_mut().for_each(|set| set[view as usize] = set[same as usize].clone());
            continue;
        }
        let seen: Vec<usize> = (0..candidates.len()).filter(|i| shows(view, &placed[*i])).collect();
        let chosen: Vec<Candidate> = seen.iter().map(|i| candidates[*i]).collect();
        let weights = policy::weigh(&chosen, settings.locality.spill_below);
        for (set, weights) in Set::ALL.into_iter().zip([weights.attended, weights.alone, weights.all]) {
            let present = seen.iter().copied().zip(weights).filter(|(_, weight)| *weight > 0);
            parts[set as usize][view as usize] = present.collect();
        }
        if weights.panic {
            seen.iter().for_each(|i| standings[*i].panic = true);
        }
    }
    let maglev = (service.policy == Policy::Maglev).then_some(settings.maglev_size);
    Recipe { parts, maglev, compares: service.policy == Policy::LeastConnections, standings }
}

fn shows(view: View, place: &Placed) -> bool {
    match view {
        View::V4 => place.address.is_ipv4(),
        View::V6 => place.address.is_ipv6(),
        View::Any => true,
    }
}

impl Recipe {
    /// Whoever has the same fingerprint lies the same way.
    pub(super) fn fingerprint(&self, placed: &[Placed]) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.maglev.hash(&mut hasher);
        for parts in self.parts.iter().flatten() {
            parts.len().hash(&mut hasher);
            parts.iter().for_each(|(index, weight)| (placed[*index].slot.0, weight).hash(&mut hasher));
        }
        hasher.finish()
    }

    /// The parts of a view, if none of the views before it (set by set) has the same.
    pub(super) fn original(&self, set: Set, view: View) -> Result<&Parts, (Set, View)> {
        let own = &self.parts[set as usize][view as usize];
        let places = Set::ALL.into_iter().flat_map(|set| View::ALL.map(|view| (set, view)));
        let before = places.take_while(|(s, v)| (*s, *v) != (set, view));
        match before.into_iter().find(|(s, v)| self.parts[*s as usize][*v as usize] == *own) {
            Some(same) => Err(same),
            None => Ok(own),
        }
    }

    /// The weights in force, where a choice compares them (least connections): scaled down to 16 bits.
    pub(super) fn weights(&self) -> Option<HashMap<usize, u16>> {
        if !self.compares {
            return None;
        }
        let parts = &self.parts[Set::Attended as usize][View::Any as usize];
        let most = parts.iter().map(|(_, weight)| *weight).max().unwrap_or(1).max(1);
        let scale = |weight: u64| {
            if most <= u64::from(u16::MAX) {
                return u16::try_from(weight).unwrap_or(u16::MAX);
            }
            let scaled = u128::from(weight) * u128::from(u16::MAX) / u128::from(most);
            u16::try_from(scaled).unwrap_or(u16::MAX).max(1)
        };
        Some(parts.iter().map(|(index, weight)| (*index, scale(*weight))).collect())
    }

    /// Who shares a view in a set: places among the placed endpoints, with weights.
    pub(super) fn parts(&self, set: Set, view: View) -> &[(usize, u64)] {
        &self.parts[set as usize][view as usize]
    }

    /// The slots of parts.
    pub(super) fn slots(&self, parts: &Parts, placed: &[Placed], precision: Precision) -> Vec<Slot> {
        let slot = |index: usize| placed[index].slot;
        if let Some(size) = self.maglev {
            let members: Vec<(u64, u64)> =
                parts.iter().map(|(i, weight)| (policy::maglev::key(placed[*i].address), *weight)).collect();
            let size = if precision == Precision::Full { size } else { size.min(COARSE_MAGLEV) };
            return policy::maglev::table(&members, size).into_iter().map(|at| slot(parts[at as usize].0)).collect();
        }
        let mut weighted: Vec<(usize, u64)> = parts.clone();
        if weighted.len() > LOOKS as usize {
            // Scattered: endpoints that fail together often have addresses that lie together, and a choice looks at
            // so many slots in a row.
            weighted.sort_by_key(|(index, _)| policy::maglev::key(placed[*index].address));
        }
        let weighted: Vec<(Slot, u64)> = weighted.into_iter().map(|(index, weight)| (slot(index), weight)).collect();
        layout(&weighted, precision)
    }
}

/// The size of Maglev tables while the arena is short.
const COARSE_MAGLEV: u32 = 1021;
