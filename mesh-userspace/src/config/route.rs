//! Routes of an HTTP service: which requests, and what becomes of them.

use super::{
    decimal::{Percent, Ratio},
    duration::Duration,
    http::{ChangedHeader, HostPattern, HostPort, MaybeService, Method, PathRegex, RoutePath},
    names::ServiceName,
    pairs::{self, ChangedHeaders, MatchedHeaders, MatchedQuery, Pairs},
    requests::RetryReason,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which requests, and what becomes of them. The first route of a service that matches counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Route {
    /// Which requests; what is empty matches all.
    pub r#match: Match,
    /// Services among which the requests are shared out by weight; empty: the service itself.
    pub to: Vec<Target>,
    /// What is changed in the target of the request; what is empty stays.
    pub rewrite: Rewrite,
    /// Which headers are changed.
    pub headers: Headers,
    /// Instead of `to`: an answer that sends the client elsewhere.
    #[serde(skip_serializing_if = "Redirect::is_nothing")]
    pub redirect: Redirect,
    /// Where copies of requests go; the answers to them are thrown away.
    #[serde(skip_serializing_if = "Mirror::is_nothing")]
    pub mirror: Mirror,
    /// Faults for tests.
    pub fault: Fault,
    /// In place of the service's own: 10ms to 24h; 0s: for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    pub request_timeout: Option<Duration>,
    /// In place of the service's own, key by key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RouteRetries")]
    pub retries: Option<RouteRetries>,
}

/// Which requests; what is empty matches all. One of path, `path_prefix` and `path_regex` at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Match {
    /// The whole path, without the query.
    #[schemars(with = "RoutePath")]
    pub path: String,
    /// The path or a parent of it: /v2 matches /v2 and /v2/x, not /v2x.
    #[schemars(with = "RoutePath")]
    pub path_prefix: String,
    /// A regular expression for the whole path.
    #[schemars(with = "PathRegex")]
    pub path_regex: String,
    /// The method, such as GET.
    #[schemars(with = "Method")]
    pub method: String,
    /// The host, without its port; *.example.org matches every name below.
    #[schemars(with = "HostPattern")]
    pub host: String,
    /// Headers with their values, all of which a request has to have.
    #[serde(with = "pairs")]
    #[schemars(with = "MatchedHeaders")]
    pub headers: Pairs,
    /// Parameters of the query with their values, all of which it has to have.
    #[serde(with = "pairs")]
    #[schemars(with = "MatchedQuery")]
    pub query: Pairs,
}

/// A service that gets a part of a route's requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Target {
    /// Its name.
    #[schemars(with = "ServiceName")]
    pub service: String,
    /// Its part; 0 gets nothing.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

/// What is changed in the target of a request; what is empty stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Rewrite {
    /// Replaces what `path_prefix` matched, or the whole path where the route matches otherwise.
    #[schemars(with = "RoutePath")]
    pub path_prefix: String,
    /// Replaces the host.
    #[schemars(with = "HostPort")]
    pub host: String,
}

/// Which headers are changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Headers {
    /// Of the request.
    pub request: HeaderChanges,
    /// Of the response.
    pub response: HeaderChanges,
}

/// Changes of headers: first remove, then set, then add.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HeaderChanges {
    /// In place of what there is.
    #[serde(with = "pairs")]
    #[schemars(with = "ChangedHeaders")]
    pub set: Pairs,
    /// Besides what there is.
    #[serde(with = "pairs")]
    #[schemars(with = "ChangedHeaders")]
    pub add: Pairs,
    /// Taken away.
    #[schemars(with = "Vec<ChangedHeader>")]
    pub remove: Vec<String>,
}

/// An answer that sends the client elsewhere; what is empty is as in the request, but not both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    #[schemars(range(min = 301, max = 308))]
    pub status: u16,
    /// The host, with or without a port.
    #[schemars(with = "HostPort")]
    pub host: String,
    /// The path.
    #[schemars(with = "RoutePath")]
    pub path: String,
}

impl Default for Redirect {
    fn default() -> Self {
        Self { status: 302, host: String::new(), path: String::new() }
    }
}

impl Redirect {
    /// Whether it leads nowhere else.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.host.is_empty() && self.path.is_empty()
    }
}

/// Where copies of requests go.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Mirror {
    /// The service; empty: none.
    #[schemars(with = "MaybeService")]
    pub service: String,
    /// How many of a hundred requests are copied.
    pub percent: Percent,
}

impl Default for Mirror {
    fn default() -> Self {
        Self { service: String::new(), percent: Percent::from_parts(100_000) }
    }
}

impl Mirror {
    /// Whether nothing is copied.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.service.is_empty()
    }
}

/// Faults for tests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Fault {
    /// How long a request waits: at most 10m.
    pub delay: Duration,
    /// How many of a hundred requests wait.
    pub delay_percent: Percent,
    /// The status of the answer in place of the service's: 200 to 599; 0: none.
    #[schemars(range(min = 0, max = 599))]
    pub abort_status: u16,
    /// How many of a hundred requests get it.
    pub abort_percent: Percent,
}

/// What a route has in place of the service's own; what is left out is as the service has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RouteRetries {
    /// Extra tries of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 0, max = 10))]
    pub attempts: Option<u32>,
    /// Reasons to try again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<RetryReason>")]
    pub on: Option<Vec<RetryReason>>,
    /// How long one try may take to the head of the response: 10ms to 1h; 0s: as long as the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    pub per_try_timeout: Option<Duration>,
    /// The pauses before extra tries.
    pub backoff: RouteBackoff,
    /// How many extra tries are made at most.
    pub budget: RouteBudget,
}

/// The pauses before extra tries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RouteBackoff {
    /// The pause before the first extra try at most: 1ms to 1m; 0s: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    pub base: Option<Duration>,
    /// The longest pause: base to 10m.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    pub max: Option<Duration>,
}

/// How many extra tries are made at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RouteBudget {
    /// This part of the requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Ratio")]
    pub ratio: Option<Ratio>,
    /// And so many a second besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32", range(min = 0, max = 1_000_000))]
    pub min_per_second: Option<u32>,
}
