//! Services and endpoints as facts: what discovery says, what operators changed, and one immutable snapshot of both.

mod http;
mod overrides;
mod probe;
mod rules;
mod service;
mod settings;
mod snapshot;
#[cfg(test)]
pub(crate) mod tests;

pub use http::{
    Counted, Fault, HashOn, HeaderChanges, Http, Limits, Match, Mirror, REGEX_SIZE, RateLimit, Redirect, Retries,
    RetryOn, Rewrite, Route, SuccessRate, Target, Upstream, WhenDown, whole_path,
};
pub use overrides::{BreakerOverride, Override, OverrideError, Overrides};
pub use probe::{PROBE_V4, PROBE_V6, is_probe};
pub use rules::{BadName, LONGEST_NAME, check_endpoint, check_place, check_service_name};
pub use service::{Endpoint, Policy, Protocol, Service};
pub use settings::{Breaker, Health, HealthCheck, HealthProbe, Locality, Node, Prefer, Settings};
pub use snapshot::Snapshot;
