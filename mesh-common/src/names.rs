//! Names of maps and programs: what the object calls them is what their pins and `bpftool` show.
//!
//! The kernel keeps 15 characters of a name.

/// Version of the rows' layout and of the maps' meaning. Part of the pin path, so that a daemon with another
/// layout gets its own set beside the old one.
pub const LAYOUT: u32 = 4;

/// VIP key → service id, a hash.
pub const VIPS: &str = "VIPS";
/// Service id → service row.
pub const SERVICES: &str = "SERVICES";
/// The slot arena.
pub const SLOTS: &str = "SLOTS";
/// Endpoint id → endpoint row.
pub const ENDPOINTS: &str = "ENDPOINTS";
/// Service id → what the kernel remembers about it.
pub const SERVICE_STATES: &str = "SERVICE_STATES";
/// Endpoint id → its circuit, and what else the kernel remembers about it.
pub const ENDPOINT_STATES: &str = "ENDPOINT_STATES";
/// Service id → connects not forwarded, by reason.
pub const SERVICE_COUNTS: &str = "SERVICE_COUNTS";
/// Service id → picks, by policy and tier.
pub const PICKS: &str = "PICKS";
/// Endpoint id → what the kernel counts for it.
pub const ENDPOINT_COUNTS: &str = "ENDPOINT_COUNTS";
/// Endpoint id → how long things took there.
pub const ENDPOINT_TIMES: &str = "ENDPOINT_TIMES";
/// Client of a service → where it went last; the least recently used go first.
pub const CLIENTS: &str = "CLIENTS";
/// Cgroups whose processes are left alone, a hash of their ids.
pub const BYPASSED: &str = "BYPASSED";
/// The settings row.
pub const SETTINGS: &str = "SETTINGS";
/// Socket → connection record (socket storage).
pub const CONNECTIONS: &str = "CONNECTIONS";
/// Network namespace and family → the daemon's listener there, a hash of sockets: an entry is gone with its socket.
pub const LISTENERS: &str = "LISTENERS";
/// Client's address of a connection to the daemon → what the client dialled; the least recently used go first.
pub const ORIGINALS: &str = "ORIGINALS";

/// What programs tell the daemon as it happens: a ring buffer, not pinned.
pub const EVENTS: &str = "EVENTS";
/// Connections that ended, for the log: a ring buffer, not pinned.
pub const ENDED: &str = "ENDED";
/// Connects that were refused since the daemon looked last, for the log: a hash, not pinned.
pub const REFUSED: &str = "REFUSED";
/// What there was no room to tell of, by [`untold`](crate::event::untold): words, not pinned.
pub const UNTOLD: &str = "UNTOLD";
/// Network namespace → when its lack of a listener was told last. Not pinned.
pub const TOLD: &str = "TOLD";

/// Position of a program → runs and nanoseconds of the programs that it replaced. The daemon's own.
pub const PROGRAM_RUNS: &str = "PROGRAM_RUNS";

/// Every pinned map that programs use.
pub const MAPS: [&str; 16] = [
    VIPS,
    SERVICES,
    SLOTS,
    ENDPOINTS,
    SERVICE_STATES,
    ENDPOINT_STATES,
    SERVICE_COUNTS,
    PICKS,
    ENDPOINT_COUNTS,
    ENDPOINT_TIMES,
    CLIENTS,
    BYPASSED,
    SETTINGS,
    CONNECTIONS,
    LISTENERS,
    ORIGINALS,
];
