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

/// `mesh check`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Whether the daemon can start.
    pub ok: bool,
    /// What was looked at.
    pub findings: Vec<Finding>,
}

/// One thing that `mesh check` looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What.
    pub check: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// Whether the daemon needs it.
    pub required: bool,
    /// What was seen.
    pub detail: String,
    /// What to do; null: nothing.
    pub remedy: Option<String>,
}
