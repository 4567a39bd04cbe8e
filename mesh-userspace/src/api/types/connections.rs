//! Connections, as the kernel knows them.

use super::Path;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// A row of `mesh connections`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// The service dialled; null: it was removed, and its name is not known any more.
    pub service: Option<String>,
    /// The endpoint chosen.
    pub endpoint: SocketAddr,
    /// Who dialled.
    pub client: Client,
    /// What was dialled.
    pub original_destination: SocketAddr,
    /// Which way it goes.
    pub path: Path,
    /// State of TCP at the client: `established`, `syn_sent`, `fin_wait1`, …
    pub state: String,
    /// Bytes the client sent and the endpoint's TCP acknowledged.
    pub sent_bytes: u64,
    /// Bytes the client received.
    pub received_bytes: u64,
    /// Smoothed round-trip time; null: not measured yet.
    pub rtt_us: Option<u64>,
    /// Segments sent again.
    pub retransmits: u64,
    /// How long ago the application dialled.
    pub age_ms: f64,
    /// From the SYN to the established connection; null: not established yet.
    #[serde(default)]
    pub connect_ms: Option<f64>,
    /// How often this socket was sent to an endpoint, this time included.
    #[serde(default)]
    pub attempt: u64,
}

/// The process at the near end of a connection: the one that dialled, though another may hold the socket by now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Client {
    /// Its own address; null: not bound yet.
    pub address: Option<SocketAddr>,
    /// Its process, as the host numbers it.
    pub pid: Option<u32>,
    /// The process's name, of at most 15 bytes.
    pub command: Option<String>,
    /// The process's cgroup, as a path from the root of the hierarchy; null: it is gone.
    pub cgroup: Option<String>,
    /// Its pod, as NAMESPACE/NAME; null: none that is known.
    #[serde(default)]
    pub pod: Option<String>,
    /// The network namespace, as the number that `lsns -t net` shows.
    pub netns: Option<u64>,
    /// The id of the cgroup: the inode of its directory.
    #[serde(default)]
    pub cgroup_id: u64,
    /// The cookie of the network namespace (`SO_NETNS_COOKIE`).
    #[serde(default)]
    pub netns_cookie: u64,
}
