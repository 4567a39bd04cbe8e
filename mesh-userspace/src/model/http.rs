//! What HTTP services have besides what all services have.

use std::{hash::Hash, time::Duration};

/// How much memory the regular expression of a path may take, compiled, in bytes.
pub const REGEX_SIZE: usize = 256 * 1024;

/// The regular expression that matches a whole path where `pattern` does.
#[must_use]
pub fn whole_path(pattern: &str) -> String {
    format!(r"\A(?:{pattern})\z")
}

/// How requests to a service are treated. The defaults are the product's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Http {
    /// From the end of the request to the head of the response; zero: for ever.
    pub request_timeout: Duration,
    /// `protocol: auto`: a client that says nothing for this long speaks TCP.
    pub detect_timeout: Duration,
    /// How long an HTTP connection without requests is kept; zero: for ever.
    pub idle_http: Duration,
    /// How long a relayed TCP connection without bytes is kept; zero: for ever.
    pub idle_tcp: Duration,
    /// What is hashed, where a policy hashes.
    pub hash: HashOn,
    /// How much is admitted at a time.
    pub limits: Limits,
    /// How many requests a second are admitted.
    pub rate_limit: RateLimit,
    /// When a request is tried again.
    pub retries: Retries,
    /// What endpoints are spoken to.
    pub upstream: Upstream,
    /// What becomes of new connections while no daemon takes them.
    pub when_daemon_down: WhenDown,
    /// What counts as a failure of an endpoint.
    pub counted: Counted,
    /// Which part of an endpoint's requests may fail.
    pub success_rate: SuccessRate,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(5),
            detect_timeout: Duration::from_millis(100),
            idle_http: Duration::from_secs(60),
            idle_tcp: Duration::ZERO,
            hash: HashOn::default(),
            limits: Limits::default(),
            rate_limit: RateLimit::default(),
            retries: Retries::default(),
            upstream: Upstream::Auto,
            when_daemon_down: WhenDown::Direct,
            counted: Counted::default(),
            success_rate: SuccessRate::default(),
        }
    }
}

/// What of a request is hashed: the first of these that it has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HashOn {
    /// The value of this header, lower case; empty: of none.
    pub header: String,
    /// The value of this cookie; empty: of none.
    pub cookie: String,
    /// The client's address.
    pub source: bool,
}

impl Default for HashOn {
    fn default() -> Self {
        Self { header: String::new(), cookie: String::new(), source: true }
    }
}

/// What a service admits at a time, on this node; 0: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Upstream connections.
    pub max_connections: u32,
    /// Requests that wait for an upstream connection.
    pub max_pending_requests: u32,
    /// Requests on their way.
    pub max_requests: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_connections: 0, max_pending_requests: 1024, max_requests: 0 }
    }
}

/// How many requests a second a service gets, on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RateLimit {
    /// Requests a second; 0: no limit.
    pub requests_per_second: u32,
    /// How many may come at once after a pause; 0: as many as in a second.
    pub burst: u32,
}

/// When a request is tried again, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Retries {
    /// Extra tries of a request, each on an endpoint that it has not tried.
    pub attempts: u32,
    /// What is a reason to try again.
    pub on: RetryOn,
    /// How long one try may take to the head of the response; zero: as long as the request.
    pub per_try_timeout: Duration,
    /// The pause before the first extra try at most; doubled each time.
    pub backoff_base: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
    /// Tries in thousandths of requests that are allowed at a time.
    pub budget_ratio: u32,
    /// Tries a second that are allowed besides.
    pub budget_min_per_second: u32,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: 1,
            on: RetryOn { connect_failure: true, refused_stream: true, reset_before_request: true, ..RetryOn::NONE },
            per_try_timeout: Duration::ZERO,
            backoff_base: Duration::from_millis(25),
            backoff_max: Duration::from_millis(250),
            budget_ratio: 200,
            budget_min_per_second: 10,
        }
    }
}

/// Reasons to try again. The first two are safe for every request: the endpoint has not begun with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RetryOn {
    /// There was no connection.
    pub connect_failure: bool,
    /// `REFUSED_STREAM`, or a `GOAWAY` that leaves the request out.
    pub refused_stream: bool,
    /// A connection that was kept ended before a byte of the answer: most likely the endpoint had closed it already.
    /// Only what is idempotent is tried again.
    pub reset_before_request: bool,
    /// The connection ended before the head of the answer.
    pub reset: bool,
    /// Any 5xx.
    pub server_error: bool,
    /// 502, 503 or 504.
    pub gateway_error: bool,
    /// A try took too long.
    pub timeout: bool,
}

impl RetryOn {
    /// Nothing.
    pub const NONE: Self = Self {
        connect_failure: false,
        refused_stream: false,
        reset_before_request: false,
        reset: false,
        server_error: false,
        gateway_error: false,
        timeout: false,
    };
}

/// What endpoints are spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Upstream {
    /// What the client spoke.
    #[default]
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, without asking (prior knowledge).
    Http2,
}

/// What becomes of new connections while no daemon takes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WhenDown {
    /// They go to an endpoint, picked in the kernel.
    #[default]
    Direct,
    /// They are refused.
    Refuse,
}

/// What counts as a failure of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Counted {
    /// No connection.
    pub connect_failure: bool,
    /// A connection that ended before the answer was whole.
    pub reset: bool,
    /// No answer in time.
    pub timeout: bool,
    /// 5xx.
    pub server_error: bool,
}

impl Default for Counted {
    fn default() -> Self {
        Self { connect_failure: true, reset: true, timeout: true, server_error: true }
    }
}

/// Which part of an endpoint's requests has to succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SuccessRate {
    /// In thousandths; its circuit opens below. 0: never.
    pub floor: u32,
    /// Over this time.
    pub window: Duration,
    /// With fewer requests nothing is concluded.
    pub min_requests: u32,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self { floor: 800, window: Duration::from_secs(10), min_requests: 100 }
    }
}

/// A route: which requests it is for, and what becomes of them. Of a service's routes the first that matches counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Route {
    /// Which requests.
    pub matches: Match,
    /// Where they go, by weight; empty: the service itself. Not looked at with a redirect.
    pub to: Vec<Target>,
    /// What is changed in them.
    pub rewrite: Rewrite,
    /// Headers of the request that are changed.
    pub request_headers: HeaderChanges,
    /// Headers of the response that are changed.
    pub response_headers: HeaderChanges,
    /// Answered by this instead.
    pub redirect: Option<Redirect>,
    /// Where a copy goes; the answers to it are thrown away.
    pub mirror: Option<Mirror>,
    /// Faults for tests.
    pub fault: Fault,
    /// In place of the service's own ([`Http::request_timeout`]).
    pub request_timeout: Option<Duration>,
    /// In place of the service's own.
    pub retries: Option<Retries>,
}

/// Which requests; what is empty matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Match {
    /// The whole path, without the query.
    pub path: String,
    /// The path or a parent of it: `/v2` matches `/v2` and `/v2/x`, not `/v2x`.
    pub path_prefix: String,
    /// A regular expression for the whole path.
    pub path_regex: String,
    /// The method, upper case.
    pub method: String,
    /// The host without its port, lower case; `*.example.org` matches every name below.
    pub host: String,
    /// Headers (lower case) with their values, all of which a request has to have.
    pub headers: Vec<(String, String)>,
    /// Parameters of the query, all of which it has to have.
    pub query: Vec<(String, String)>,
}

/// A service that gets a part of a route's requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Its name.
    pub service: String,
    /// Its part; 0 gets nothing.
    pub weight: u32,
}

/// What a route changes in the target of a request; empty: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rewrite {
    /// Replaces what `path_prefix` matched, or the whole path where a route matches otherwise.
    pub path_prefix: String,
    /// Replaces the host.
    pub host: String,
}

/// Changes of headers: first `remove`, then `set`, then `add`. Names are lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeaderChanges {
    /// In place of what there is.
    pub set: Vec<(String, String)>,
    /// Besides what there is.
    pub add: Vec<(String, String)>,
    /// Taken away.
    pub remove: Vec<String>,
}

/// An answer that sends the client elsewhere. What is empty is as in the request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// The host.
    pub host: String,
    /// The path.
    pub path: String,
}

/// Where copies of requests go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mirror {
    /// The service.
    pub service: String,
    /// How many of a hundred requests are copied, in thousandths of a percent (0 to 100,000).
    pub percent: u32,
}

/// Faults that a route makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fault {
    /// How long a request waits.
    pub delay: Duration,
    /// How many of a hundred wait, in thousandths of a percent.
    pub delay_percent: u32,
    /// The status of the answer in place of the service's; 0: none.
    pub abort_status: u16,
    /// How many of a hundred get it, in thousandths of a percent.
    pub abort_percent: u32,
}
