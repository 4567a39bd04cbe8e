//! Facts for tests.

use super::{Endpoint, Policy, Protocol, Service};
use std::sync::Arc;

/// A service of these endpoints, with the product's settings.
pub(crate) fn service(name: &str, endpoints: &[&str]) -> Service {
    Service {
        name: name.to_owned(),
        addresses: Vec::new(),
        hosts: Vec::new(),
        routes: Arc::default(),
        protocol: Protocol::Tcp,
        policy: Policy::RoundRobin,
        settings: Arc::default(),
        endpoints: endpoints.iter().filter_map(|a| a.parse().ok()).map(Endpoint::new).collect(),
    }
}
