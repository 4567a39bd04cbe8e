//! How much room services need, known without laying them out.

use super::change::Limits;
use crate::{
    model::{Endpoint, Policy, Service},
    policy::length,
};
use std::borrow::Borrow;

/// How many rows `services` take up.
#[must_use]
pub fn needs<S: Borrow<Service>>(services: &[S]) -> Limits {
    let sum = |count: &dyn Fn(&Service) -> usize| {
        u32::try_from(services.iter().map(S::borrow).map(count).sum::<usize>()).unwrap_or(u32::MAX)
    };
    let slots = services.iter().map(S::borrow).map(|service| {
        let (v4, v6): (Vec<_>, Vec<_>) = service.endpoints.iter().partition(|e| e.address.is_ipv4());
        let any = if v4.is_empty() || v6.is_empty() { Vec::new() } else { service.endpoints.iter().collect() };
        let views: u64 = [v4, v6, any].iter().map(|view| u64::from(slots(service, view))).sum();
        // Near endpoints, and all of them.
        let placed = service.endpoints.iter().any(|e| !(e.zone.is_empty() && e.region.is_empty() && e.node.is_empty()));
        if placed { 2 * views } else { views }
    });
    Limits {
        services: sum(&|_| 1),
        vips: sum(&|s| s.addresses.len()),
        endpoints: sum(&|s| s.endpoints.len()),
        slots: u32::try_from(slots.sum::<u64>()).unwrap_or(u32::MAX),
    }
}

/// How many slots one view takes up.
fn slots(service: &Service, endpoints: &[&Endpoint]) -> u32 {
    match service.policy {
        _ if endpoints.is_empty() => 0,
        Policy::Maglev => service.settings.maglev_size,
        Policy::RoundRobin | Policy::Random | Policy::LeastConnections | Policy::PeakEwma => {
            length(endpoints.iter().map(|e| u64::from(e.weight)))
        }
    }
}
