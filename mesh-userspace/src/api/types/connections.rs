//! Connections, as the kernel knows them.

use super::Path;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// A row of `mesh connections`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// The service dialled.
    pub service: String,
    /// The endpoint chosen.
    pub endpoint: SocketAddr,
    /// Who dialled.
    pub client: Client,
    /// What was dialled.
    pub original_destination: SocketAddr,
    /// Which way it goes.
    pub path: Path,
    /// State of TCP.
    pub state: String,
    /// Bytes the client sent.
    pub sent_bytes: u64,
    /// Bytes the client received.
    pub received_bytes: u64,
    /// Round trip; null: not measured.
    pub rtt_us: Option<u64>,
    /// Segments sent again.
    pub retransmits: u64,
    /// How long it has been.
    pub age_ms: f64,
}

/// The process at the near end of a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Client {
    /// Its own address; null: not bound yet.
    pub address: Option<SocketAddr>,
    /// Its process.
    pub pid: Option<u32>,
    /// The process's name.
    pub command: Option<String>,
    /// The process's cgroup.
    pub cgroup: Option<String>,
    /// The network namespace.
    pub netns: Option<String>,
}
