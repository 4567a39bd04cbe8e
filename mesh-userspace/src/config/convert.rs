//! Configuration ↔ facts.

use super::{Config, Endpoint, EndpointAddress, Policy, Protocol, Service, Vip};
use crate::model;
use std::sync::Arc;

impl Config {
    /// The services as facts.
    #[must_use]
    pub fn services(&self) -> Vec<model::Service> {
        self.services.iter().map(model::Service::from).collect()
    }

    /// As [`Config::services`], but names, addresses and endpoints are gone from the configuration afterwards: a hundred
    /// thousand services are not kept twice. [`Config::with_services`] puts them in again.
    ///
    /// They are copied all the same. What [`load`](super::load) leaves lies scattered among what it needed meanwhile,
    /// which could not be given back otherwise; the copies lie close together.
    #[must_use]
    pub fn take_services(&mut self) -> Vec<Arc<model::Service>> {
        let facts = self.services.iter().map(|service| Arc::new(model::Service::from(service))).collect();
        // Only now: a copy would be put where the service before it lay.
        for service in &mut self.services {
            (service.name, service.addresses, service.endpoints) = Default::default();
        }
        facts
    }

    /// The whole configuration again, with the services that were taken out of it.
    #[must_use]
    pub fn with_services(&self, facts: &[Arc<model::Service>]) -> Self {
        let mut whole = self.clone();
        for (service, fact) in whole.services.iter_mut().zip(facts) {
            service.name.clone_from(&fact.name);
            service.addresses = fact.addresses.iter().copied().map(Vip).collect();
            service.endpoints = fact.endpoints.iter().map(Endpoint::from).collect();
        }
        whole
    }
}

impl From<&Service> for model::Service {
    fn from(service: &Service) -> Self {
        Self {
            name: service.name.clone(),
            addresses: service.addresses.iter().map(|vip| vip.0).collect(),
            protocol: service.settings.protocol.into(),
            policy: service.settings.load_balancing.policy.into(),
            settings: Arc::default(),
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
