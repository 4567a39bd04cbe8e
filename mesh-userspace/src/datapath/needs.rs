//! How much room services need, known without laying them out.

use super::{layout::length, plan::Limits};
use crate::model::{Endpoint, Service};
use std::borrow::Borrow;

/// How many rows `services` take up.
#[must_use]
pub fn needs<S: Borrow<Service>>(services: &[S]) -> Limits {
    let sum = |count: &dyn Fn(&Service) -> usize| {
        u32::try_from(services.iter().map(S::borrow).map(count).sum::<usize>()).unwrap_or(u32::MAX)
    };
    let slots = services.iter().map(S::borrow).map(|service| {
        let (v4, v6): (Vec<_>, Vec<_>) = service.endpoints.iter().partition(|e| e.address.is_ipv4());
        let (v4, v6): (Vec<u16>, Vec<u16>) = (weights(&v4), weights(&v6));
        let any = if v4.is_empty() || v6.is_empty() { 0 } else { length(v4.iter().chain(&v6).copied()) };
        u64::from(length(v4)) + u64::from(length(v6)) + u64::from(any)
    });
    Limits {
        services: sum(&|_| 1),
        vips: sum(&|s| s.addresses.len()),
        endpoints: sum(&|s| s.endpoints.len()),
        slots: u32::try_from(slots.sum::<u64>()).unwrap_or(u32::MAX),
    }
}

fn weights(endpoints: &[&Endpoint]) -> Vec<u16> {
    endpoints.iter().map(|e| e.weight).collect()
}
