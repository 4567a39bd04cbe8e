//! How a service's connections are shared out and protected. The defaults are the product's.

use super::Http;
use std::{ops::RangeInclusive, time::Duration};

/// What a service has besides its addresses, its policy and its endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Slots of a Maglev table, a prime; more are more even.
    pub maglev_size: u32,
    /// For how long after its last connect a client comes back to the same endpoint; zero: not at all.
    pub affinity: Duration,
    /// Whether connections to an IPv6 VIP go to IPv6 endpoints only.
    pub same_family: bool,
    /// How long a connection may take to be established before its application gets `ETIMEDOUT`; zero: as long as the
    /// kernel tries.
    pub connect_timeout: Duration,
    /// How endpoints are checked; `None`: they are not.
    pub health_check: Option<HealthCheck>,
    /// When endpoints that fail get no more connections.
    pub breaker: Breaker,
    /// Which endpoints are near, and when the others help out.
    pub locality: Locality,
    /// Over how long an endpoint that is new, or healthy again, grows to its full share; zero: at once.
    pub slow_start: Duration,
    /// How its requests are treated, where it is an HTTP service.
    pub http: Http,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            maglev_size: 16_381,
            affinity: Duration::ZERO,
            same_family: false,
            connect_timeout: Duration::from_secs(1),
            health_check: Some(HealthCheck::default()),
            breaker: Breaker::default(),
            locality: Locality::default(),
            slow_start: Duration::ZERO,
            http: Http::default(),
        }
    }
}

/// How an endpoint is checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HealthCheck {
    /// What is asked of it.
    pub probe: HealthProbe,
    /// From one check to the next; above zero. Each is moved a little, so that they do not come all at once.
    pub interval: Duration,
    /// How long an answer may take; above zero.
    pub timeout: Duration,
    /// So many failures in a row make a healthy endpoint unhealthy; above 0.
    pub unhealthy_threshold: u32,
    /// So many passes in a row make an unhealthy endpoint healthy; above 0. An endpoint that was never checked needs
    /// only one.
    pub healthy_threshold: u32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            probe: HealthProbe::Tcp,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            unhealthy_threshold: 3,
            healthy_threshold: 2,
        }
    }
}

/// What a health check asks of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HealthProbe {
    /// To accept a connection.
    Tcp,
    /// To answer `GET path` with an expected status.
    Http {
        /// The path, with its leading slash.
        path: String,
        /// The `Host` header; empty: the endpoint's address.
        host: String,
        /// The statuses that pass.
        expected_status: Vec<RangeInclusive<u16>>,
    },
    /// To answer `grpc.health.v1.Health/Check` with `SERVING`.
    Grpc,
}

/// When the circuit of an endpoint opens, and how it closes again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Breaker {
    /// So many failures in a row open it, at most 1000; 0: it never opens.
    pub failure_threshold: u32,
    /// How long it stays open at first; each opening in a row adds as much again.
    pub reset_timeout: Duration,
    /// The longest that it stays open.
    pub max_reset_timeout: Duration,
    /// So many probes decide whether it closes, 1 to 31.
    pub half_open_requests: u32,
    /// No more than this part of a service's endpoints is open at a time, but always one: 1 to 100.
    pub max_open_percent: u32,
    /// While no endpoint of a service admits connections, one is let through this often, first so long after a circuit opened.
    pub probe_interval: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failure_threshold: 5,
            reset_timeout: Duration::from_secs(30),
            max_reset_timeout: Duration::from_secs(300),
            half_open_requests: 1,
            max_open_percent: 50,
            probe_interval: Duration::from_secs(1),
        }
    }
}

/// Which endpoints are preferred, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Locality {
    /// How near an endpoint is to be.
    pub prefer: Prefer,
    /// While less than this part of the near endpoints (by weight) is usable, others help out; in thousandths, 1 to 1000.
    pub spill_below: u32,
}

impl Default for Locality {
    fn default() -> Self {
        Self { prefer: Prefer::Zone, spill_below: 700 }
    }
}

/// How near the preferred endpoints are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Prefer {
    /// It does not matter.
    None,
    /// On the same node.
    Node,
    /// In the same zone.
    #[default]
    Zone,
    /// In the same region.
    Region,
}

/// Where this node is, for what is near.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its zone; empty: not known, nothing is preferred.
    pub zone: String,
    /// Its region; empty: not known.
    pub region: String,
}

/// What health checks say of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Health {
    /// It is not checked, or not yet. It is used.
    #[default]
    Unknown,
    /// It passes.
    Healthy,
    /// It fails.
    Unhealthy,
}
