//! Services as they stand in a configuration.

use crate::{Value, json};

/// A TCP service whose endpoints all have the default weight.
#[must_use]
pub fn service(name: &str, addresses: &[&str], endpoints: &[&str]) -> Value {
    let endpoints: Vec<Value> = endpoints.iter().map(|address| json!({ "address": address })).collect();
    json!({ "name": name, "addresses": addresses, "endpoints": endpoints })
}

/// A TCP service whose endpoints have these weights.
#[must_use]
pub fn weighted(name: &str, addresses: &[&str], endpoints: &[(&str, u32)]) -> Value {
    let entry = |(address, weight): &(&str, u32)| json!({ "address": address, "weight": weight });
    let endpoints: Vec<Value> = endpoints.iter().map(entry).collect();
    json!({ "name": name, "addresses": addresses, "endpoints": endpoints })
}

/// An HTTP service without a VIP.
#[must_use]
pub fn http_service(name: &str, endpoints: &[&str]) -> Value {
    let mut http = service(name, &[], endpoints);
    http["protocol"] = json!("http");
    http
}

/// As [`http_service`], with more fields.
#[must_use]
pub fn http_with(name: &str, endpoints: &[&str], more: Value) -> Value {
    let mut http = http_service(name, endpoints);
    for (key, value) in more.as_object().into_iter().flatten() {
        http[key] = value.clone();
    }
    http
}
