//! Active health checks: which endpoints answer. Imports `model` only.
//!
//! Endpoints with the same address and equal settings, of whatever services, share one check; its results go to each.

mod changes;
mod checker;
mod engine;
mod probe;
mod roster;
pub mod schedule;
pub mod state;
#[cfg(test)]
mod tests;

pub use checker::{Checker, Counters, Report};

use crate::model::{Health, HealthCheck};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// One endpoint that is to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The service it serves.
    pub service: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// How it is checked.
    pub check: Arc<HealthCheck>,
}

/// A verdict that is different from the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The service.
    pub service: Arc<str>,
    /// The endpoint.
    pub address: SocketAddr,
    /// The new verdict.
    pub health: Health,
    /// Why the last check failed, if the verdict is [`Health::Unhealthy`].
    pub reason: Option<String>,
}

/// Where results go, and what the checks ask of the rest of the daemon. Called on the checks' own thread: a call that
/// takes long delays checks, and one that waits for a thread which waits in [`Checker::stop`] never returns.
pub trait Sink: Send + Sync + 'static {
    /// These verdicts changed, within the last 20 ms or so.
    fn changed(&self, changes: Vec<Change>);
    /// An endpoint passed `in_a_row` times in a row, at least its `healthy_threshold`; called for each such pass.
    fn passed(&self, service: &str, address: SocketAddr, in_a_row: u32);
    /// Whether real traffic got through to an endpoint at most `since` ago: then a check is not made and counts as
    /// passed. Asked for TCP checks only, as a connection says nothing about HTTP.
    fn succeeded_since(&self, service: &str, address: SocketAddr, since: Duration) -> bool;
}
