//! The daemon as a whole.

use super::{Mode, Time};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// `mesh status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// The daemon's version.
    pub version: String,
    /// Seconds since the daemon started.
    pub uptime_s: u64,
    /// What it does with connections.
    pub mode: Mode,
    /// Whether the kill switch is on: every hook passes everything untouched.
    pub bypass: bool,
    /// Whether a probe connection was intercepted; null: not known.
    pub interception_ok: Option<bool>,
    /// The last load of the configuration.
    pub config: ConfigStatus,
    /// The kernel programs, sorted by name.
    pub programs: Vec<Program>,
    /// The kernel's tables, sorted by name.
    pub maps: Vec<Map>,
    /// Where services come from, sorted by name.
    pub sources: Vec<Source>,
    /// How many services.
    pub services: u64,
    /// How many endpoints.
    pub endpoints: u64,
    /// How many connections are open.
    pub connections: u64,
    /// Where and how requests are served; null: they are not.
    #[serde(default)]
    pub proxy: Option<ProxyStatus>,
    /// The daemon's process.
    #[serde(default)]
    pub pid: Option<u32>,
    /// The cgroup whose processes are intercepted.
    #[serde(default)]
    pub cgroup: Option<String>,
    /// Where programs and maps are pinned.
    #[serde(default)]
    pub bpffs: Option<String>,
    /// What the daemon uses.
    #[serde(default)]
    pub memory: Option<Memory>,
    /// Programs of others at the hooks that ours use, by hook, in the order in which they run.
    #[serde(default)]
    pub other_programs: Vec<OtherProgram>,
    /// What is not as it should be, but does not stop the work.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// The proxy that serves requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// Where the explicit proxy listens (`proxy.http`); null: nowhere.
    pub http: Option<SocketAddr>,
    /// Why it does not, where it should; null if it does.
    pub http_error: Option<String>,
    /// How many threads serve connections.
    pub workers: u64,
    /// Whether all of them live.
    pub workers_ok: bool,
    /// Connections of clients that are open.
    pub connections: u64,
}

/// The last load of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// The file; null: defaults, there was none.
    pub path: Option<String>,
    /// When the configuration now in force was loaded.
    pub loaded_at: Option<Time>,
    /// Why a later load was refused; null: none was.
    pub error: Option<String>,
}

/// A kernel program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// Its name in the kernel.
    pub name: String,
    /// Where it runs.
    pub hook: String,
    /// Whether it runs.
    pub attached: bool,
    /// Why it does not; null if it does.
    pub missing_reason: Option<String>,
    /// How often it ran; null unless `dataplane.program_stats`, and where the kernel does not count.
    pub runs: Option<u64>,
    /// How long a run took on average; null as `runs` is.
    pub mean_ns: Option<u64>,
}

/// A program of somebody else at a hook that one of ours uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherProgram {
    /// The hook.
    pub hook: String,
    /// The kernel's number for it.
    pub id: u32,
    /// Its name; empty: it has none.
    pub name: String,
    /// Whether it runs before ours.
    pub runs_first: bool,
}

/// A table in the kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Map {
    /// Its name in the kernel.
    pub name: String,
    /// Entries in use; null: cannot be counted.
    pub entries: Option<u64>,
    /// Entries it has room for.
    pub capacity: u64,
    /// Its memory; null: not known.
    pub bytes: Option<u64>,
}

/// Where services come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Whether it has told all it knows.
    pub synced: bool,
    /// When it last said something.
    pub last_update: Option<Time>,
    /// What is wrong with it now; null: nothing.
    pub error: Option<String>,
    /// Since when it is out of touch, and what it said before holds; null: it is in touch.
    #[serde(default)]
    pub stale_since: Option<Time>,
}

/// Memory of the daemon. Both are charged to its cgroup, but only the first shows as its resident size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Of the process.
    pub resident_bytes: Option<u64>,
    /// Of its tables and programs in the kernel.
    pub kernel_bytes: Option<u64>,
}
