//! What does each endpoint of a service get, on this node or on another one? By what the planner remembers.

use super::{
    lay::find,
    plan::Planner,
    recipe::{Standing, recipe},
};
use crate::model::{Node, Service};
use mesh_common::{
    endpoint::Slot,
    service::{Set, View, name_hash},
};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
};

/// What an endpoint gets of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its row, and the tag of that.
    pub slot: Slot,
    /// How it stands: how near it is, and what else bears on its weight.
    pub standing: Standing,
    /// Its weight by all that is known.
    pub attended: u64,
    /// Its weight among all that are in selection.
    pub all: u64,
}

impl Planner {
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

    /// The endpoints of a service that have rows, by address, with what each gets at `now` behind a VIP of this view:
    /// here, or on another `node`.
    #[must_use]
    pub fn shares(&self, service: &Service, node: Option<&Node>, view: View, now: u64) -> Vec<Share> {
        let Some(laid) = self.services.get(&name_hash(&service.name)) else { return Vec::new() };
        let node = node.unwrap_or(&self.node);
        let recipe = recipe(service, &laid.endpoints, node, self.conditions.of(&service.name), now);
        let rows = laid.endpoints.iter().zip(&recipe.standings);
        let mut shares: Vec<Share> = rows
            .map(|(placed, standing)| Share {
                address: placed.address,
                slot: placed.slot,
                standing: *standing,
                attended: 0,
                all: 0,
            })
            .collect();
        for (index, weight) in recipe.parts(Set::Attended, view) {
            shares[*index].attended = *weight;
        }
        for (index, weight) in recipe.parts(Set::All, view) {
            shares[*index].all = *weight;
        }
        shares
    }

    /// A mark of how a service lies: while that stays, and its facts do, its shares are the same. `None`: it may lie
    /// otherwise than they say.
    #[must_use]
    pub fn mark(&self, service: &str) -> Option<u64> {
        let laid = self.services.get(&name_hash(service))?;
        let mut hasher = DefaultHasher::new();
        (laid.id, laid.recipe?, laid.terms?).hash(&mut hasher);
        for placed in &laid.endpoints {
            (placed.address, placed.slot.0, placed.marks).hash(&mut hasher);
        }
        Some(hasher.finish())
    }
}
