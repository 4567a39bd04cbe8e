//! Lines of the log of requests and connections, and how much is logged.

use super::Time;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// A row of `mesh logs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// When the head of the request was there, or the application dialled.
    pub time: Time,
    /// `request`; `connection`: one that ended; `open`: one that goes on.
    #[serde(default)]
    pub kind: String,
    /// Whom it was for; null: nobody here.
    pub service: Option<String>,
    /// Who answered, or was tried last.
    pub endpoint: Option<SocketAddr>,
    /// The client's address; null: it was refused before it had one.
    pub client: Option<SocketAddr>,
    /// The method; null: it is a connection.
    pub method: Option<String>,
    /// The path with its query, of `CONNECT` whom it was to; null: it is a connection.
    pub path: Option<String>,
    /// The answer's; null: there was none, or it is a connection.
    pub status: Option<u16>,
    /// Until it was over, or until now.
    pub duration_ms: f64,
    /// Bytes of the request's body; of a connection all that the client sent.
    pub sent_bytes: u64,
    /// Bytes of the answer's body; of a connection all that the client received.
    pub received_bytes: u64,
    /// How often it was sent to an endpoint.
    pub attempts: u32,
    /// The trace that it is part of.
    pub trace_id: Option<String>,
    /// Why the proxy answered itself, what broke the answer off, or how the connection ended other than well.
    pub reason: Option<String>,
    /// Of a client's own connection to an endpoint: whose it was, and how it went.
    #[serde(default)]
    pub connection: Option<LoggedConnection>,
}

/// What is known of a client's own connection to an endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoggedConnection {
    /// The process that dialled, as the host numbers it.
    pub pid: Option<u32>,
    /// Its name, of at most 15 bytes.
    pub command: Option<String>,
    /// Its cgroup, from the root of the hierarchy; null: it is gone.
    pub cgroup: Option<String>,
    /// Its pod, as NAMESPACE/NAME; null: none that is known.
    pub pod: Option<String>,
    /// What it dialled.
    pub original_destination: SocketAddr,
    /// From the SYN to the established connection; null: it never was.
    pub connect_ms: Option<f64>,
    /// Smoothed round-trip time; null: never measured.
    pub rtt_us: Option<u64>,
    /// Segments that the client sent again.
    pub retransmits: u64,
    /// Of connects that mesh refused: how many the line tells of; null: it was not refused.
    #[serde(default)]
    pub refusals: Option<u64>,
}

/// How much is logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevels {
    /// By modules that have no level of their own.
    pub level: String,
    /// Modules with a level of their own, by name.
    pub modules: Vec<ModuleLevel>,
}

/// The level of a module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleLevel {
    /// Its name.
    pub module: String,
    /// `off`, `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
}
