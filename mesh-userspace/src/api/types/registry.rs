//! The registry, and services as they are watched.

use super::{CircuitState, EndpointHealth, Time};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::SocketAddr};

/// An instance that is registered: `GET /v1/registry`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegistryInstance {
    /// The service it serves.
    pub service: String,
    /// What it is called; unique within its service.
    pub id: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share of connections.
    pub weight: u16,
    /// Its zone; null: not known.
    pub zone: Option<String>,
    /// Whatever it wants others to know.
    pub metadata: BTreeMap<String, String>,
    /// For how long it counts without being heard of, as it is registered: `60s`.
    pub ttl: String,
    /// How much of that is left.
    pub ttl_remaining_ms: f64,
    /// Since when it is registered without a break.
    pub registered_at: Time,
}

/// What a registration did. Fields of [`Changed`](super::Changed), and more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// What is different now.
    pub message: String,
    /// What the operator should know.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Whether there was no such instance before (the answer is 201 then, 200 else).
    pub created: bool,
    /// For how long it counts without being heard of: `60s`.
    pub ttl: String,
}

/// An endpoint as it is watched: what decides whether it is chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchedEndpoint {
    /// The service it serves.
    pub service: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share of connections.
    pub weight: u16,
    /// Its zone; null: not known.
    pub zone: Option<String>,
    /// Its region; null: not known.
    pub region: Option<String>,
    /// The node it runs on; null: not known.
    pub node: Option<String>,
    /// What health checks say.
    pub health: EndpointHealth,
    /// Its circuit.
    pub circuit: CircuitState,
    /// Whether it gets no new connections because it is to go.
    pub draining: bool,
}
