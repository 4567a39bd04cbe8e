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
    /// Services among which the requests are shared out by weight. Empty: the service itself.
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
    /// In place of the service's own.
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
    /// The whole path, without the query. Empty: any.
    #[schemars(with = "RoutePath")]
    pub path: String,
    /// The path or a parent of it: `/v2` matches `/v2` and `/v2/x`, not `/v2x`. Empty: any.
    #[schemars(with = "RoutePath")]
    pub path_prefix: String,
    /// A regular expression for the whole path ([syntax](https://docs.rs/regex/latest/regex/#syntax)), compiled at most
    /// 256 KiB. Empty: any.
    #[schemars(with = "PathRegex")]
    pub path_regex: String,
    /// The method, such as `GET`. Empty: any.
    #[schemars(with = "Method")]
    pub method: String,
    /// The host, without its port; `"*.example.org"` matches every name below. Empty: any.
    #[schemars(with = "HostPattern")]
    pub host: String,
    /// Headers with their values, all of which a request has to have; of several values of a header each counts.
    #[serde(with = "pairs")]
    #[schemars(with = "MatchedHeaders")]
    pub headers: Pairs,
    /// Parameters with their values, all of which the query has to have, compared after decoding.
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
    /// Its part; not every weight may be 0.
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
    /// Replaces what `path_prefix` matched, or the whole path where the route matches otherwise. Empty: it stays.
    #[schemars(with = "RoutePath")]
    pub path_prefix: String,
    /// Replaces the host. Empty: it stays.
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
    /// Headers in place of what there is. Not those about the connection or the length of the message.
    #[serde(with = "pairs")]
    #[schemars(with = "ChangedHeaders")]
    pub set: Pairs,
    /// Headers besides what there is.
    #[serde(with = "pairs")]
    #[schemars(with = "ChangedHeaders")]
    pub add: Pairs,
    /// Names of headers that are taken away: removed first, then `set`, then `add`.
    #[schemars(with = "Vec<ChangedHeader>")]
    pub remove: Vec<String>,
}

/// An answer that sends the client elsewhere; what is empty is as in the request, but not both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Redirect {
    /// Its status: 301, 302, 303, 307 or 308.
    #[schemars(range(min = 301, max = 308))]
    pub status: u16,
    /// The host, with or without a port, that the client is sent to. Empty: it stays.
    #[schemars(with = "HostPort")]
    pub host: String,
    /// The path that the client is sent to. Empty: it stays.
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
    /// A service that gets copies of requests; its answers are thrown away. Empty: none.
    #[schemars(with = "MaybeService")]
    pub service: String,
    /// How many of a hundred requests are copied, in thousandths.
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
    /// How long a request waits.
    pub delay: Duration,
    /// How many of a hundred requests wait, in thousandths.
    pub delay_percent: Percent,
    /// Requests are answered with this status, 200 to 599, and go nowhere; 0: none.
    #[schemars(range(min = 0, max = 599))]
    pub abort_status: u16,
    /// How many of a hundred requests get it, in thousandths.
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
    /// How long one try may take to the head of the response.
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
    /// The pause before the first extra try at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    pub base: Option<Duration>,
    /// The longest pause; not less than `base`.
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
