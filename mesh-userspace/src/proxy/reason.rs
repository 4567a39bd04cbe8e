//! Why the proxy answers in place of an endpoint: one word in the answer, in logs and in metrics.

use http::StatusCode;
use std::sync::atomic::{AtomicU64, Ordering};

/// Declares the reasons with their words and statuses.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $word:literal, $status:ident;)+) => {
        /// Why the proxy answered itself.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $variant,)+ }

        impl Reason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The word in `x-mesh-reason`, logs and metrics.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// The status of the answer.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)+ }
            }
        }
    };
}

reasons! {
    /// The request is malformed, or ambiguous.
    BadRequest = "bad_request", BAD_REQUEST;
    /// The first bytes are no HTTP.
    NotHttp = "not_http", BAD_REQUEST;
    /// Its head is too large.
    HeadTooLarge = "head_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE;
    /// The client took too long to send it.
    SlowRequest = "slow_request", REQUEST_TIMEOUT;
    /// Nobody here is called like that.
    UnknownService = "unknown_service", NOT_FOUND;
    /// None of the service's routes matches.
    NoRoute = "no_route", NOT_FOUND;
    /// CONNECT to an address that is no service's.
    ConnectForbidden = "connect_forbidden", FORBIDDEN;
    /// The route leads elsewhere.
    Redirect = "redirect", FOUND;
    /// A fault that the route asks for.
    Fault = "fault", SERVICE_UNAVAILABLE;
    /// The service has no endpoint that can be chosen.
    NoEndpoint = "no_endpoint", SERVICE_UNAVAILABLE;
    /// The circuit of every endpoint is open.
    CircuitOpen = "circuit_open", SERVICE_UNAVAILABLE;
    /// `rate_limit`.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS;
    /// `limits.max_requests`.
    MaxRequests = "max_requests", SERVICE_UNAVAILABLE;
    /// There are as many connections of clients as descriptors allow.
    TooManyConnections = "too_many_connections", SERVICE_UNAVAILABLE;
    /// The client does not read its answer.
    SlowReader = "slow_reader", REQUEST_TIMEOUT;
    /// `limits.max_pending_requests`.
    MaxPendingRequests = "max_pending_requests", SERVICE_UNAVAILABLE;
    /// No connection to the endpoint.
    ConnectFailure = "connect_failure", SERVICE_UNAVAILABLE;
    /// No connection to the endpoint in time.
    ConnectTimeout = "connect_timeout", GATEWAY_TIMEOUT;
    /// The connection ended before the answer.
    UpstreamReset = "upstream_reset", BAD_GATEWAY;
    /// No answer in time.
    RequestTimeout = "request_timeout", GATEWAY_TIMEOUT;
    /// It may not be passed on (`max-forwards`).
    MaxForwards = "max_forwards", OK;
    /// What the endpoint sent is no answer, or an ambiguous one.
    BadResponse = "bad_response", BAD_GATEWAY;
    /// The proxy is at its end, and this endpoint cannot be spoken to in the way that the request needs.
    Unsupported = "unsupported", NOT_IMPLEMENTED;
}

/// A counter for each reason.
#[derive(Debug)]
pub struct ByReason([AtomicU64; Reason::COUNT]);

impl Default for ByReason {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; Reason::COUNT])
    }
}

impl ByReason {
    /// One more.
    pub fn count(&self, reason: Reason) {
        self.0[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Every reason that was counted, with its number.
    pub fn counts(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        let counts = self.0.iter().map(|n| n.load(Ordering::Relaxed));
        Reason::ALL.iter().copied().zip(counts).filter(|(_, n)| *n > 0)
    }
}
