//! Shapes whose commands are not built yet.

use super::{CircuitState, Time};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// A row of `mesh circuit`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Circuit {
    /// The service.
    pub service: String,
    /// The endpoint of it.
    pub endpoint: SocketAddr,
    /// State of its breaker.
    pub state: CircuitState,
    /// Failures in a row.
    pub consecutive_failures: u64,
    /// Openings in a row.
    pub openings: u64,
    /// When probes are let through; null: it is not open.
    pub retry_at: Option<Time>,
    /// Whether an operator holds it.
    pub forced: bool,
}
