//! Services and endpoints as facts: what discovery says, what operators changed, and one immutable snapshot of both.

mod overrides;
mod service;
mod snapshot;

pub use overrides::{Override, OverrideError, Overrides};
pub use service::{Endpoint, Policy, Protocol, Service};
pub use snapshot::Snapshot;
