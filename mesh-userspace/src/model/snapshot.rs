//! Everything known about services at one moment.

use super::{Overrides, Service};
use std::{net::SocketAddr, sync::Arc};

/// All services at one moment, operators' changes applied, sorted by name. Never changed, only replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    services: Vec<Arc<Service>>,
}

impl Snapshot {
    /// The facts of `services` with `overrides` laid over them.
    #[must_use]
    pub fn new(services: &[Arc<Service>], overrides: &Overrides) -> Self {
        let changed = |service: &Arc<Service>| match overrides.apply(service) {
            Some(changed) => Arc::new(changed),
            None => Arc::clone(service),
        };
        let mut services: Vec<Arc<Service>> = services.iter().map(changed).collect();
        services.sort_by(|a, b| a.name.cmp(&b.name));
        for service in &mut services {
            if !service.endpoints.is_sorted_by_key(|e| e.address) {
                Arc::make_mut(service).endpoints.sort_by_key(|e| e.address);
            }
        }
        Self { services }
    }

    /// Every service, by name.
    #[must_use]
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }

    /// The service of this name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.binary_search_by(|s| s.name.as_str().cmp(name)).ok().map(|i| &self.services[i])
    }

    /// The service that owns this VIP.
    #[must_use]
    pub fn owner(&self, vip: SocketAddr) -> Option<&Arc<Service>> {
        self.services.iter().find(|s| s.addresses.contains(&vip))
    }
}
