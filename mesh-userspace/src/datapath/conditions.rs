//! What is known of endpoints besides facts: what health checks say, whose circuit is open, who is still warming up.
//!
//! Sparse: an endpoint about which there is nothing to say takes no room.

use crate::model::Health;
use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
};

/// What is known of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) health: Health,
    /// Whether its circuit is open.
    pub(super) is_open: bool,
    /// Since when it warms up, in nanoseconds.
    pub(super) warms_since: Option<u64>,
}

/// What is known of the endpoints of one service, by address.
pub(super) type OfService = HashMap<SocketAddr, Condition>;

/// What is known of all endpoints.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions {
    services: HashMap<Box<str>, OfService>,
    /// Services of which something changed since they were laid out.
    changed: BTreeSet<Box<str>>,
}

impl Conditions {
    /// What is known of the endpoints of a service; `None`: nothing.
    pub(super) fn of(&self, service: &str) -> Option<&OfService> {
        self.services.get(service)
    }

    /// What is known of one endpoint.
    pub(super) fn get(&self, service: &str, address: SocketAddr) -> Condition {
        self.of(service).and_then(|endpoints| endpoints.get(&address)).copied().unwrap_or_default()
    }

    /// Changes what is known of an endpoint; whether that is something new.
    pub(super) fn set(&mut self, service: &str, address: SocketAddr, change: impl FnOnce(&mut Condition)) -> bool {
        let before = self.get(service, address);
        let mut after = before;
        change(&mut after);
        if after == before {
            return false;
        }
        if after != Condition::default() {
            self.services.entry(service.into()).or_default().insert(address, after);
        } else if let Some(endpoints) = self.services.get_mut(service) {
            endpoints.remove(&address);
            if endpoints.is_empty() {
                self.services.remove(service);
            }
        }
        self.changed.insert(service.into());
        true
    }

    /// Services of which something changed since this was asked last.
    pub(super) fn take_changed(&mut self) -> BTreeSet<Box<str>> {
        std::mem::take(&mut self.changed)
    }

    /// Whether anything changed since.
    pub(super) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Whether something changed of a service since it was laid out, or does with time.
    pub(super) fn is_moving(&self, service: &str) -> bool {
        self.changed.contains(service) || self.of(service).is_some_and(|e| e.values().any(|c| c.warms_since.is_some()))
    }

    /// Forgets endpoints that are not `there` any more.
    pub(super) fn retain(&mut self, there: impl Fn(&str, SocketAddr) -> bool) {
        self.services.retain(|service, endpoints| {
            endpoints.retain(|address, _| there(service, *address));
            !endpoints.is_empty()
        });
    }

    /// Endpoints whose circuits are open.
    pub(super) fn open(&self) -> Vec<(Box<str>, SocketAddr)> {
        let all = self.services.iter().flat_map(|(name, endpoints)| endpoints.iter().map(move |(at, c)| (name, at, c)));
        all.filter(|(_, _, condition)| condition.is_open).map(|(name, at, _)| (name.clone(), *at)).collect()
    }

    /// Endpoints of which health checks said something.
    pub(super) fn judged(&self) -> Vec<(Box<str>, SocketAddr)> {
        let all = self.services.iter().flat_map(|(name, endpoints)| endpoints.iter().map(move |(at, c)| (name, at, c)));
        let judged = all.filter(|(_, _, condition)| condition.health != Health::Unknown);
        judged.map(|(name, at, _)| (name.clone(), *at)).collect()
    }

    /// Services with endpoints that warm up.
    pub(super) fn warming(&self) -> impl Iterator<Item = (&str, &OfService)> {
        let services = self.services.iter().map(|(name, endpoints)| (&**name, endpoints));
        services.filter(|(_, endpoints)| endpoints.values().any(|c| c.warms_since.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_kept_until_there_is_nothing_to_say() {
        let mut conditions = Conditions::default();
        let at: SocketAddr = "10.0.0.1:80".parse().unwrap();
        assert!(conditions.set("web", at, |c| c.health = Health::Unhealthy));
        assert!(!conditions.set("web", at, |c| c.health = Health::Unhealthy), "nothing new");
        assert_eq!(conditions.take_changed().into_iter().collect::<Vec<_>>(), ["web".into()]);
        assert!(conditions.set("web", at, |c| c.health = Health::Unknown));
        assert!(conditions.of("web").is_none() && conditions.has_changed());
    }
}
