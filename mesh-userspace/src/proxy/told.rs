//! What is told of a request when it is over: a line for the request log, and a trace for those that are kept.

use super::trace;
use crate::model::Policy;
use http::{Method, StatusCode, Version};
use std::{
    fmt::{self, Display},
    net::SocketAddr,
    num::NonZero,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// One request, as the request log has it; or a connection that passed through the proxy unread.
#[derive(Clone, Debug)]
pub struct Line {
    /// When its head was there.
    pub time: SystemTime,
    /// The service it was for; `None`: nobody's.
    pub service: Option<Arc<str>>,
    /// The endpoint that answered, or was tried last.
    pub endpoint: Option<SocketAddr>,
    /// The client; `None`: it was refused before it had an address.
    pub client: Option<SocketAddr>,
    /// The method; `None`: it is a connection.
    pub method: Option<Method>,
    /// The path as the client sent it, with its query; of `CONNECT` whom it was to. `None`: it is a connection.
    pub path: Option<Box<str>>,
    /// The status of the answer; `None`: the client went away before there was one, or it is a connection.
    pub status: Option<StatusCode>,
    /// From its head to the end of the answer; from the first byte of a connection to its end.
    pub duration: Duration,
    /// When that was, on the clock that all workers share: what ended first, whatever the time of day did.
    pub ended: Duration,
    /// Bytes of the request's body; of a connection or tunnel all that the client sent.
    pub sent_bytes: u64,
    /// Bytes of the answer's body; of a connection or tunnel all that the client was sent.
    pub received_bytes: u64,
    /// How often it was sent to an endpoint, or connected to one.
    pub attempts: u32,
    /// The trace it is part of.
    pub trace_id: Option<TraceId>,
    /// Why the proxy answered itself, or what broke the answer off.
    pub reason: Option<&'static str>,
}

/// The id of a trace; 0 is none (W3C Trace Context, section 3.2.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(NonZero<u128>);

impl TraceId {
    /// `None`: it is 0.
    #[must_use]
    pub fn new(id: u128) -> Option<Self> {
        NonZero::new(id).map(Self)
    }

    /// It in 32 hexadecimal digits.
    #[must_use]
    pub fn digits(self) -> [u8; 32] {
        trace::digits(self.0.get())
    }
}

impl Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A request whose trace is kept. Times are from its beginning on.
#[derive(Clone, Debug)]
pub struct Trace {
    /// What the request log says of it.
    pub line: Line,
    /// The trace it is part of.
    pub id: u128,
    /// The client's span; 0: the trace begins here.
    pub parent: u64,
    /// What tracing systems said of it on its way here (`tracestate`), 512 bytes at most.
    pub state: Option<Box<str>>,
    /// The span of the request.
    pub span: u64,
    /// Whether it was to be recorded before it was known how it ends.
    pub is_sampled: bool,
    /// Whether it ended as it should not have.
    pub failed: bool,
    /// As what the client sent it.
    pub version: Version,
    /// What gRPC says of the answer.
    pub grpc_status: Option<u16>,
    /// How endpoints of its service are picked; `None`: it was for none.
    pub policy: Option<Policy>,
    /// How many endpoints that has.
    pub endpoints: usize,
    /// Its tries, in order.
    pub tries: Vec<Try>,
}

/// A try of a request at one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Try {
    /// Its span.
    pub span: u64,
    /// The endpoint.
    pub endpoint: SocketAddr,
    /// How near that is, in a word.
    pub tier: &'static str,
    /// When it was picked.
    pub picked: Duration,
    /// When the try began.
    pub began: Duration,
    /// When the head of its answer was there, and the status; `None`: there was none.
    pub answered: Option<(Duration, StatusCode)>,
    /// When it was over.
    pub ended: Duration,
    /// Why it failed; `None`: it did not, or it has an answer that says so.
    pub failed: Option<&'static str>,
    /// By which connection it went.
    pub used: Used,
}

/// By which connection a request went to an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Whether that had served requests before; `None`: there was none, or nobody knows.
    pub kept: Option<bool>,
    /// One before it was lost without a word of the endpoint, and the request was sent again by this one.
    pub again: bool,
}
