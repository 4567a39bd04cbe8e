//! Configuration ↔ facts.

use super::{Config, Endpoint, EndpointAddress, Policy, Protocol, Service};
use crate::model;

impl Config {
    /// The services as facts.
    #[must_use]
    pub fn services(&self) -> Vec<model::Service> {
        self.services.iter().map(model::Service::from).collect()
    }
}

impl From<&Service> for model::Service {
    fn from(service: &Service) -> Self {
        Self {
            name: service.name.clone(),
            addresses: service.addresses.iter().map(|vip| vip.0).collect(),
            protocol: service.settings.protocol.into(),
            policy: service.settings.load_balancing.policy.into(),
            settings: std::sync::Arc::default(),
            endpoints: service.endpoints.iter().map(model::Endpoint::from).collect(),
        }
    }
}

impl From<&Endpoint> for model::Endpoint {
    fn from(endpoint: &Endpoint) -> Self {
        let Endpoint { address, weight, zone, region, node, draining } = endpoint.clone();
        Self { address: address.0, weight, zone, region, node, draining, tripped: false }
    }
}

impl From<&model::Endpoint> for Endpoint {
    fn from(endpoint: &model::Endpoint) -> Self {
        let model::Endpoint { address, weight, zone, region, node, draining, tripped: _ } = endpoint.clone();
        Self { address: EndpointAddress(address), weight, zone, region, node, draining }
    }
}

impl From<Protocol> for model::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
        }
    }
}

impl From<Policy> for model::Policy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::RoundRobin => Self::RoundRobin,
            Policy::Random => Self::Random,
            Policy::LeastConnections => Self::LeastConnections,
            Policy::Maglev => Self::Maglev,
        }
    }
}

impl From<model::Policy> for Policy {
    fn from(policy: model::Policy) -> Self {
        match policy {
            model::Policy::RoundRobin => Self::RoundRobin,
            model::Policy::Random => Self::Random,
            model::Policy::LeastConnections => Self::LeastConnections,
            model::Policy::Maglev => Self::Maglev,
        }
    }
}
