//! Circuits.

use super::{CircuitState, Time};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// A row of `mesh circuit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Circuit {
    /// The service.
    pub service: String,
    /// The endpoint of it.
    pub endpoint: SocketAddr,
    /// Its circuit. One that is held open by an operator is open.
    pub state: CircuitState,
    /// Failures in a row.
    pub consecutive_failures: u64,
    /// Openings in a row: how often it opened since it was last closed.
    pub openings: u64,
    /// When probes are let through; null: it is not open, or it is held open.
    pub retry_at: Option<Time>,
    /// Whether an operator holds it open.
    pub forced: bool,
}
