//! What every service inherits and may state for itself: the other half of the declaration in `types`.

use super::{
    duration::Duration,
    fraction::Fraction,
    http::{HealthHost, HealthPath},
    requests::{Counted, HashOf, IdleTimeout, Limits, RateLimit, Retries, SuccessRate, Upstream, WhenDown},
    status::StatusRange,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What every service inherits and may state for itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Settings {
    /// How connections are treated.
    pub protocol: Protocol,
    /// How an endpoint is picked.
    pub load_balancing: LoadBalancing,
    /// How long a connection may take to be established before its application gets `ETIMEDOUT`.
    pub connect_timeout: Duration,
    /// HTTP: how long an answer may take, from the end of the request to the head of the response. A shorter `grpc-timeout`
    /// of the request wins. Upgrades and `CONNECT` have none.
    pub request_timeout: Duration,
    /// `protocol: auto`: a client that says nothing for this long speaks TCP.
    pub detect_timeout: Duration,
    /// HTTP: how long connections are kept on which nothing happens.
    pub idle_timeout: IdleTimeout,
    /// How endpoints are checked.
    pub health_check: HealthCheck,
    /// When endpoints that fail get no more connections, and when they get them again.
    pub circuit_breaker: CircuitBreaker,
    /// HTTP: how much is admitted at a time, on this node.
    pub limits: Limits,
    /// HTTP: how many requests a second are admitted, on this node.
    pub rate_limit: RateLimit,
    /// HTTP: when a request is tried again.
    pub retries: Retries,
    /// Which endpoints are near, and when the others help out.
    pub locality: Locality,
    /// Over how long an endpoint that is new, or healthy again, grows to its full share; `0s`: at once.
    pub slow_start: Duration,
    /// HTTP: what endpoints are spoken to.
    pub upstream: Upstream,
    /// HTTP: what becomes of new connections while no daemon takes them.
    pub when_daemon_down: WhenDown,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            protocol: Protocol::default(),
            load_balancing: LoadBalancing::default(),
            connect_timeout: Duration::from_millis(1_000),
            request_timeout: Duration::from_millis(5_000),
            detect_timeout: Duration::from_millis(100),
            idle_timeout: IdleTimeout::default(),
            health_check: HealthCheck::default(),
            circuit_breaker: CircuitBreaker::default(),
            limits: Limits::default(),
            rate_limit: RateLimit::default(),
            retries: Retries::default(),
            locality: Locality::default(),
            slow_start: Duration::default(),
            upstream: Upstream::default(),
            when_daemon_down: WhenDown::default(),
        }
    }
}

/// How connections are treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP connections, balanced in the kernel.
    #[default]
    Tcp,
    /// Requests of HTTP/1.1 and HTTP/2, balanced by the daemon.
    Http,
    /// The same, of gRPC.
    Grpc,
    /// Requests if a connection begins with one, else a TCP connection.
    Auto,
}

/// How an endpoint is picked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LoadBalancing {
    /// The balancing policy; each honours weights, health, circuits, draining and locality.
    pub policy: Policy,
    /// Slots of the table by which `maglev` picks: a prime; more are more even and take more memory.
    #[schemars(range(min = 251, max = 1_048_573))]
    pub maglev_size: u32,
    /// What `maglev` hashes: the first of these that a request has.
    pub hash: HashOf,
    /// For how long after its last connection a client comes back to the same endpoint, whatever the policy; `0s`: not at
    /// all. Its requests, unless it is `0s`, go where `maglev` sends them.
    pub affinity: Duration,
    /// Whether connections to an IPv6 VIP go to IPv6 endpoints only, as in Kubernetes. Otherwise they go to those of both
    /// families, unless the socket is `IPV6_V6ONLY`. Requests go to those of both.
    pub same_family: bool,
}

impl Default for LoadBalancing {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            maglev_size: 16_381,
            hash: HashOf::default(),
            affinity: Duration::default(),
            same_family: false,
        }
    }
}

/// A balancing policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Each in turn, heavier ones more often.
    #[default]
    RoundRobin,
    /// Any, in proportion to its weight.
    Random,
    /// Of two at random the one with fewer connections for its weight.
    LeastConnections,
    /// By a hash of the client: the same client gets the same endpoint as far as endpoints stay.
    Maglev,
    /// Of two at random the one that answers sooner, requests under way considered (not with `protocol: tcp`).
    PeakEwma,
}

/// How endpoints are checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HealthCheck {
    /// What is asked of an endpoint.
    pub r#type: CheckType,
    /// `http`: the path to get, and the query if there is one.
    #[schemars(with = "HealthPath")]
    pub path: String,
    /// `http`: the `Host` header. Empty: the address of the endpoint.
    #[schemars(with = "HealthHost")]
    pub host: String,
    /// `http`: the statuses that pass; at least one.
    pub expected_status: Vec<StatusRange>,
    /// From one check of an endpoint to the next.
    pub interval: Duration,
    /// How long an endpoint may take to answer. Longer than `interval` is a warning.
    pub timeout: Duration,
    /// So many failures in a row make an endpoint unhealthy.
    #[schemars(range(min = 1, max = 1000))]
    pub unhealthy_threshold: u32,
    /// So many passes in a row make an unhealthy endpoint healthy.
    #[schemars(range(min = 1, max = 1000))]
    pub healthy_threshold: u32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            r#type: CheckType::default(),
            path: "/".to_owned(),
            host: String::new(),
            expected_status: vec![StatusRange::new(200, 399)],
            interval: Duration::from_millis(5_000),
            timeout: Duration::from_millis(1_000),
            unhealthy_threshold: 3,
            healthy_threshold: 2,
        }
    }
}

/// What a health check asks of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckType {
    /// To accept a connection.
    #[default]
    Tcp,
    /// To answer a `GET` with an expected status.
    Http,
    /// To answer `grpc.health.v1.Health/Check` with `SERVING`.
    Grpc,
    /// Endpoints are not checked.
    None,
}

/// When endpoints that fail get no more connections, and when they get them again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CircuitBreaker {
    /// So many failures in a row open an endpoint's circuit; 0: it never opens by itself.
    #[schemars(range(min = 0, max = 1000))]
    pub failure_threshold: u32,
    /// How long a circuit stays open at first; each opening in a row adds as much again.
    pub reset_timeout: Duration,
    /// The longest that a circuit stays open; not less than `reset_timeout`.
    pub max_reset_timeout: Duration,
    /// So many probes decide whether a circuit closes again.
    #[schemars(range(min = 1, max = 31))]
    pub half_open_requests: u32,
    /// No more than this part of a service's endpoints has an open circuit at a time, but always one may.
    #[schemars(range(min = 1, max = 100))]
    pub max_open_percent: u32,
    /// While no endpoint of a service admits connections, one is let through this often, first so long after a circuit opened.
    pub probe_interval: Duration,
    /// HTTP: what counts as a failure. Of TCP services `connect_failure`, `reset` and `timeout` always do.
    pub count: Vec<Counted>,
    /// HTTP: which part of an endpoint's requests has to succeed.
    pub success_rate: SuccessRate,
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            failure_threshold: 5,
            reset_timeout: Duration::from_millis(30_000),
            max_reset_timeout: Duration::from_millis(300_000),
            half_open_requests: 1,
            max_open_percent: 50,
            probe_interval: Duration::from_millis(1_000),
            count: vec![Counted::ConnectFailure, Counted::Reset, Counted::Timeout, Counted::ServerError],
            success_rate: SuccessRate::default(),
        }
    }
}

/// Which endpoints are near, and when the others help out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Locality {
    /// How near an endpoint is to be.
    pub prefer: Prefer,
    /// While less than this part of the near endpoints, by weight, is usable, others help out; in thousandths.
    pub spill_below: Fraction,
}

/// How near the preferred endpoints are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Prefer {
    /// It does not matter.
    None,
    /// On the node of the client.
    Node,
    /// In its zone; where `node.zone` is empty it does not matter.
    #[default]
    Zone,
    /// In its region; where `node.region` is empty it does not matter.
    Region,
}
