//! Traces of requests.

use super::Time;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::SocketAddr};

/// A row of `mesh traces`: a request whose trace was kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceSummary {
    /// The trace that it is part of, 32 hexadecimal digits. Two requests may be part of the same one.
    pub trace_id: String,
    /// Whom it was for; null: nobody here.
    pub service: Option<String>,
    /// Who answered, or was tried last.
    pub endpoint: Option<SocketAddr>,
    /// The method.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// The answer's; null: the client went away before there was one.
    pub status: Option<u16>,
    /// When its head was there.
    pub start: Time,
    /// Until the end of the answer.
    pub duration_ms: f64,
    /// How often it was sent to an endpoint.
    pub attempts: u64,
    /// Whether it was sampled; else it is kept for how it went.
    #[serde(default)]
    pub sampled: bool,
    /// Why the proxy answered itself, or what broke the answer off; null: neither.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What `mesh traces ID` shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Its id, 32 hexadecimal digits.
    pub trace_id: String,
    /// What this node did of it, by their beginnings.
    pub spans: Vec<Span>,
}

/// A part of a trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// What it is.
    pub name: String,
    /// `server`: a request that came here; `client`: a try at an endpoint; `internal`.
    #[serde(default)]
    pub kind: String,
    /// Its id, 16 hexadecimal digits.
    pub span_id: String,
    /// That of the span it is part of, which may be somebody else's; null: of none.
    pub parent_id: Option<String>,
    /// When it began.
    pub start: Time,
    /// From the beginning of the first span to that of this one.
    #[serde(default)]
    pub offset_ms: f64,
    /// How long it took.
    pub duration_ms: f64,
    /// Why it failed, in a word; null: it did not.
    #[serde(default)]
    pub error: Option<String>,
    /// What there is to know, by the names of OpenTelemetry where it has any.
    pub attributes: BTreeMap<String, serde_json::Value>,
}
