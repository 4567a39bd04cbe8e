//! Everything known about services at one moment.

use super::{Overrides, Service};
use std::net::SocketAddr;

/// All services at one moment, operators' changes applied, sorted by name. Never changed, only replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    services: Vec<Service>,
}

impl Snapshot {
    /// The facts of `services` with `overrides` laid over them.
    #[must_use]
    pub fn new(services: &[Service], overrides: &Overrides) -> Self {
        let mut services: Vec<Service> = services.iter().map(|s| overrides.apply(s)).collect();
        services.sort_by(|a, b| a.name.cmp(&b.name));
        for service in &mut services {
            service.endpoints.sort_by_key(|e| e.address);
        }
        Self { services }
    }

    /// Every service, by name.
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// The service of this name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.binary_search_by(|s| s.name.as_str().cmp(name)).ok().map(|i| &self.services[i])
    }

    /// The service that owns this VIP.
    #[must_use]
    pub fn owner(&self, vip: SocketAddr) -> Option<&Service> {
        self.services.iter().find(|s| s.addresses.contains(&vip))
    }
}
