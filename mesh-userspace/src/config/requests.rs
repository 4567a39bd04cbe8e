//! What HTTP services have besides what all services have: the part of [`Settings`](super::Settings) that is about
//! requests.

use super::{
    decimal::Ratio,
    duration::Duration,
    http::{CookieName, MaybeHeader},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is hashed: the first of these that a request has.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HashOf {
    /// HTTP: the value of this header; empty: of none.
    #[schemars(with = "MaybeHeader")]
    pub header: String,
    /// HTTP: the value of this cookie; empty: of none.
    #[schemars(with = "CookieName")]
    pub cookie: String,
    /// The address of the client, as of TCP connections always. `false` without header and cookie is a mistake: nothing
    /// would be left to hash.
    pub source: bool,
}

impl Default for HashOf {
    fn default() -> Self {
        Self { header: String::new(), cookie: String::new(), source: true }
    }
}

/// How long connections are kept on which nothing happens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct IdleTimeout {
    /// `protocol: auto`: how long relayed TCP connections without bytes are kept.
    pub tcp: Duration,
    /// How long HTTP connections without requests are kept.
    pub http: Duration,
}

impl Default for IdleTimeout {
    fn default() -> Self {
        Self { tcp: Duration::default(), http: Duration::from_millis(60_000) }
    }
}

/// What counts as a failure of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    /// No connection.
    ConnectFailure,
    /// A connection that ended before the answer was whole.
    Reset,
    /// No answer in time.
    Timeout,
    /// An answer with a status from 500 to 599.
    #[serde(rename = "5xx")]
    ServerError,
}

/// Which part of an endpoint's requests has to succeed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SuccessRate {
    /// Its circuit also opens where less than this part of its requests succeed, in thousandths; 0: never.
    pub floor: Ratio,
    /// Over this time.
    pub window: Duration,
    /// With fewer requests in that time nothing is concluded.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_requests: u32,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self { floor: Ratio::from_parts(800), window: Duration::from_millis(10_000), min_requests: 100 }
    }
}

/// How much a service admits at a time, on this node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Limits {
    /// Upstream connections of this node to the service; 0: no limit.
    #[schemars(range(min = 0))]
    pub max_connections: u32,
    /// Requests that wait for an upstream connection; 0: no limit.
    #[schemars(range(min = 0))]
    pub max_pending_requests: u32,
    /// Requests on their way; 0: no limit.
    #[schemars(range(min = 0))]
    pub max_requests: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_connections: 0, max_pending_requests: 1024, max_requests: 0 }
    }
}

/// How many requests a second a service admits, on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RateLimit {
    /// Requests a second; 0: no limit.
    #[schemars(range(min = 0, max = 10_000_000))]
    pub requests_per_second: u32,
    /// How many may come at once after a pause; 0: as many as in a second.
    #[schemars(range(min = 0, max = 10_000_000))]
    pub burst: u32,
}

/// When a request is tried again, each time on an endpoint that it has not tried.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Retries {
    /// Extra tries of a request; 0: none.
    #[schemars(range(min = 0, max = 10))]
    pub attempts: u32,
    /// Reasons to try again.
    pub on: Vec<RetryReason>,
    /// How long one try may take to the head of the response.
    pub per_try_timeout: Duration,
    /// The pauses before extra tries.
    pub backoff: Backoff,
    /// How many extra tries a service makes at most.
    pub budget: Budget,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: 1,
            on: vec![RetryReason::ConnectFailure, RetryReason::RefusedStream, RetryReason::ResetBeforeRequest],
            per_try_timeout: Duration::default(),
            backoff: Backoff::default(),
            budget: Budget::default(),
        }
    }
}

/// A reason to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RetryReason {
    /// There was no connection.
    ConnectFailure,
    /// The endpoint refused the stream (HTTP/2).
    RefusedStream,
    /// A connection that was kept had ended when the request was to be sent on it.
    ResetBeforeRequest,
    /// The connection ended before the head of the response.
    Reset,
    /// An answer with a status from 500 to 599.
    #[serde(rename = "5xx")]
    ServerError,
    /// An answer with status 502, 503 or 504.
    GatewayError,
    /// A try took too long.
    Timeout,
}

/// The pauses before extra tries: at random up to base, then twice that, and so on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Backoff {
    /// The pause before the first extra try is at random up to this, then up to twice this, and so on.
    pub base: Duration,
    /// The longest pause; not less than `base`.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(25), max: Duration::from_millis(250) }
    }
}

/// How many extra tries a service makes at most.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Budget {
    /// Extra tries of a service are at most this part of its requests of the last 10 s, in thousandths.
    pub ratio: Ratio,
    /// And so many a second besides.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub min_per_second: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { ratio: Ratio::from_parts(200), min_per_second: 10 }
    }
}

/// What endpoints are spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Upstream {
    /// What the client spoke.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, without asking (prior knowledge).
    Http2,
}

/// What becomes of new connections to an HTTP service while no daemon takes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenDown {
    /// They go to an endpoint, picked in the kernel.
    #[default]
    Direct,
    /// They are refused.
    Refuse,
}
