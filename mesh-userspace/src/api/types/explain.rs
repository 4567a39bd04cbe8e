//! What a connection to an address, or a request there, would meet.

use super::{CircuitState, Decision, EndpointHealth, Policy};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// `mesh explain`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The address asked about.
    pub address: SocketAddr,
    /// The service that owns it; null: none does.
    pub service: Option<String>,
    /// The route that a request takes, its number and what it matches; null: none, the service itself.
    pub route: Option<String>,
    /// How an endpoint is picked; null without a service.
    pub policy: Option<Policy>,
    /// What becomes of the connection or request.
    pub decision: Decision,
    /// The word for why, as in logs and metrics; null when nothing is unusual.
    #[serde(default)]
    pub reason: Option<String>,
    /// Decision and reason in a sentence.
    #[serde(default)]
    pub explanation: String,
    /// Every endpoint of the service, sorted by address; of the services that the route leads to, one after the other.
    pub endpoints: Vec<Candidate>,
}

/// An endpoint that a connection may get, or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The service it serves: where a route leads elsewhere, not the one that was asked for.
    #[serde(default)]
    pub service: Option<String>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its weight.
    pub weight: u16,
    /// How near it is; null: locality has no say.
    pub tier: Option<String>,
    /// What health checks say.
    pub health: EndpointHealth,
    /// Its circuit.
    pub circuit: CircuitState,
    /// Taken out of selection.
    pub draining: bool,
    /// Whether it can be picked.
    pub candidate: bool,
    /// Why it can or cannot.
    pub reason: String,
    /// The part of new connections or requests that it gets, 0 to 1.
    pub share: f64,
}
