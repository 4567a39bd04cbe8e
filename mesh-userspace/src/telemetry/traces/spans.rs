//! A trace as its spans: one of the request, one of each pick of an endpoint, one of each try.
//!
//! Names and attributes are those of OpenTelemetry's conventions for HTTP where there are any, else `mesh.*`.

use crate::proxy::{METHODS, Trace, Try};
use ::http::Version;
use std::time::{Duration, SystemTime};

/// Which side of a call a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Who was asked.
    Server,
    /// Who asks.
    Client,
    /// Neither.
    Internal,
}

impl Kind {
    /// The word in JSON and tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::Internal => "internal",
        }
    }
}

/// A value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Text from whoever sent the request, or of ours.
    Text(String),
    /// A number.
    Number(i64),
    /// Whether something is so.
    Truth(bool),
}

/// Something that took time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// What it is.
    pub name: String,
    /// Which side.
    pub kind: Kind,
    /// Its id.
    pub id: u64,
    /// That of the span it is part of; 0: of none.
    pub parent: u64,
    /// When it began.
    pub start: SystemTime,
    /// How long it took.
    pub duration: Duration,
    /// What there is to know, each once.
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it failed; `None`: it did not.
    pub error: Option<String>,
}

impl Span {
    fn add(&mut self, key: &'static str, value: impl Into<Value>) {
        self.attributes.push((key, value.into()));
    }

    fn add_if(&mut self, key: &'static str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.add(key, value);
        }
    }

    fn failed(&mut self, why: Option<String>) {
        if let Some(why) = why {
            self.add("error.type", why.clone());
            self.error = Some(why);
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Truth(truth)
    }
}

/// The spans of a trace, by their beginnings; the first is that of the request.
#[must_use]
pub fn spans(trace: &Trace) -> Vec<Span> {
    let mut spans = Vec::with_capacity(1 + 2 * trace.tries.len());
    spans.push(of_request(trace));
    for (number, tried) in trace.tries.iter().enumerate() {
        spans.push(of_pick(trace, number, tried));
        spans.push(of_try(trace, number, tried));
    }
    if let (true, Some(reason @ ("no_endpoint" | "circuit_open"))) = (trace.tries.is_empty(), trace.line.reason) {
        spans.push(of_failed_pick(trace, reason));
    }
    spans
}

fn of_request(trace: &Trace) -> Span {
    let line = &trace.line;
    let method = line.method.as_ref().map_or("", ::http::Method::as_str);
    let known = METHODS.contains(&method);
    let name = if known { method } else { "HTTP" };
    let mut span = Span {
        name: line.service.as_ref().map_or_else(|| name.to_owned(), |service| format!("{name} {service}")),
        kind: Kind::Server,
        id: trace.span,
        parent: trace.parent,
        start: line.time,
        duration: line.duration,
        attributes: Vec::with_capacity(16),
        error: None,
    };
    span.add_if("mesh.service", line.service.as_deref());
    add_method(&mut span, method);
    // What CONNECT asks for is no path.
    let target =
        line.path.as_deref().filter(|target| method != "CONNECT" || target.starts_with('/')).unwrap_or_default();
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    span.add("url.scheme", "http");
    span.add("url.path", path);
    span.add_if("url.query", query);
    span.add_if("http.response.status_code", line.status.map(|status| i64::from(status.as_u16())));
    span.add("http.request.body.size", line.sent_bytes);
    span.add("http.response.body.size", line.received_bytes);
    span.add("network.protocol.name", "http");
    span.add(
        "network.protocol.version",
        match trace.version {
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2",
            _ => "1.1",
        },
    );
    if let Some(client) = line.client {
        span.add("client.address", client.ip().to_string());
        span.add("client.port", i64::from(client.port()));
    }
    span.add_if("rpc.grpc.status_code", trace.grpc_status.map(i64::from));
    span.add_if("mesh.reason", line.reason);
    span.add("mesh.attempts", i64::from(line.attempts));
    // That a client asked for what it does not get is no failure of the server (conventions for HTTP spans).
    if trace.failed && !line.status.is_some_and(|status| status.is_client_error()) {
        span.failed(Some(why(trace)));
    }
    span
}

/// Why a request that has failed did so, in one word.
fn why(trace: &Trace) -> String {
    let grpc = trace.grpc_status.filter(|status| *status != 0);
    match (trace.line.reason, trace.line.status, grpc) {
        (Some(reason), ..) => reason.to_owned(),
        (None, None, _) => CANCELLED.to_owned(),
        (None, Some(_), Some(grpc)) => format!("grpc_status_{grpc}"),
        (None, Some(status), None) => status.as_u16().to_string(),
    }
}

/// The client went away.
const CANCELLED: &str = "cancelled";

fn add_method(span: &mut Span, method: &str) {
    if METHODS.contains(&method) {
        return span.add("http.request.method", method);
    }
    span.add("http.request.method", "_OTHER");
    span.add("http.request.method_original", method);
}

fn of_pick(trace: &Trace, number: usize, tried: &Try) -> Span {
    let mut span = pick(trace, tried.span, tried.picked);
    span.add("mesh.endpoint", tried.endpoint.to_string());
    span.add("mesh.tier", tried.tier);
    // None is tried twice.
    span.add("mesh.candidates", (trace.endpoints.saturating_sub(number)) as u64);
    span
}

fn of_failed_pick(trace: &Trace, reason: &str) -> Span {
    let mut span = pick(trace, trace.span, trace.line.duration);
    span.add("mesh.candidates", trace.endpoints as u64);
    span.failed(Some(reason.to_owned()));
    span
}

/// The span of a pick, which belongs to the span `of`: it takes no time that could be told.
fn pick(trace: &Trace, of: u64, at: Duration) -> Span {
    let mut span = Span {
        name: "pick".to_owned(),
        kind: Kind::Internal,
        id: beside(of),
        parent: trace.span,
        start: trace.line.time + at,
        duration: Duration::ZERO,
        attributes: Vec::with_capacity(5),
        error: None,
    };
    span.add_if("mesh.policy", trace.policy.map(|policy| policy.word()));
    span
}

/// Another id, always the same one for the same id, and as random.
const fn beside(id: u64) -> u64 {
    match id ^ 0x7069_636b_7069_636b {
        0 => 1,
        other => other,
    }
}

fn of_try(trace: &Trace, number: usize, tried: &Try) -> Span {
    let is_last = number + 1 == trace.tries.len();
    let mut span = Span {
        name: "attempt".to_owned(),
        kind: Kind::Client,
        id: tried.span,
        parent: trace.span,
        start: trace.line.time + tried.began,
        duration: tried.ended.saturating_sub(tried.began),
        attributes: Vec::with_capacity(12),
        error: None,
    };
    span.add("mesh.endpoint", tried.endpoint.to_string());
    span.add("mesh.attempt", number as u64 + 1);
    span.add_if("http.request.resend_count", (number > 0).then_some(number as u64));
    add_method(&mut span, trace.line.method.as_ref().map_or("", ::http::Method::as_str));
    span.add("server.address", tried.endpoint.ip().to_string());
    span.add("server.port", i64::from(tried.endpoint.port()));
    let status = tried.answered.map(|(_, status)| status);
    span.add_if("http.response.status_code", status.map(|status| i64::from(status.as_u16())));
    let waited = tried.answered.map(|(at, _)| at.saturating_sub(tried.began).as_micros());
    span.add_if("mesh.first_byte_us", waited.map(|us| u64::try_from(us).unwrap_or(u64::MAX)));
    span.add_if("mesh.connection", tried.used.kept.map(|kept| if kept { "reused" } else { "new" }));
    span.add_if("mesh.resent", tried.used.again.then_some(true));
    let grpc = trace.grpc_status.filter(|status| is_last && *status != 0);
    span.failed(match (tried.failed, status, trace.line.reason) {
        (Some(why), ..) => Some(why.to_owned()),
        // It was broken off after its head.
        (None, Some(_), Some(reason)) if is_last => Some(reason.to_owned()),
        (None, Some(status), _) if status.is_client_error() || status.is_server_error() => {
            Some(status.as_u16().to_string())
        }
        (None, Some(_), _) => grpc.map(|grpc| format!("grpc_status_{grpc}")),
        (None, None, _) => (trace.line.status.is_none()).then(|| CANCELLED.to_owned()),
    });
    span
}
