//! What can be configured: the one declaration from which files are checked and decoded, `dump` is written and the
//! JSON Schema is made. The first line of each field's description is also its help in an editor.

use super::{
    address::{EndpointAddress, Listen, MaybeListen, Vip},
    byte_size::ByteSize,
    cidr::Cidr,
    collector::MaybeCollector,
    decimal::Rate,
    discovery::{Discovery, DnsName, KubernetesName, MaybeFile, SrvName},
    duration::Duration,
    http::{HostName, MaybeService},
    names::{Label, LogLevel, NodeName, ServiceName},
    path::{Cgroup, CgroupPath, Directory, SocketPath},
    route::Route,
    settings::Settings,
    size::Size,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
    sync::Arc,
};

/// The configuration of the mesh daemon: mesh.yaml and conf.d/*.yaml beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// Who this node is. A change needs a restart.
    pub node: Node,
    /// Where operators reach the daemon. A change needs a restart.
    pub admin: Admin,
    /// How connections are intercepted. A change needs a restart.
    pub dataplane: Dataplane,
    /// How the daemon takes requests. A change needs a restart.
    pub proxy: Proxy,
    /// What every service inherits; each key may stand in a service too.
    pub defaults: Settings,
    /// Where services and endpoints come from besides the files.
    pub discovery: Discovery,
    /// The services of this file. Files merge them by name, field by field; a list is replaced as a whole.
    pub services: Vec<Service>,
    /// What the daemon tells about itself.
    pub telemetry: Telemetry,
}

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Node {
    /// The name of the node. Empty: `$NODE_NAME`, else the host name.
    #[schemars(with = "NodeName")]
    pub name: String,
    /// The region it is in; empty: not known.
    #[schemars(with = "Label")]
    pub region: String,
    /// The zone it is in; empty: not known, and `locality.prefer: zone` has no effect.
    #[schemars(with = "Label")]
    pub zone: String,
    /// Directory of what must outlive the daemon, lock and state; made with mode 0700.
    #[schemars(with = "Directory")]
    pub state_dir: PathBuf,
}

impl Default for Node {
    fn default() -> Self {
        Self { name: String::new(), region: String::new(), zone: String::new(), state_dir: "/var/lib/mesh".into() }
    }
}

/// Where operators reach the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Admin {
    /// Address of the read-only HTTP server with everything. Port 0: any free port. One that others can reach is a warning.
    pub listen: Listen,
    /// Address of a second HTTP server with `/metrics`, `/health` and `/ready` only. Empty: none.
    pub metrics_listen: MaybeListen,
    /// Unix socket for reading and writing, mode 0600.
    #[schemars(with = "SocketPath")]
    pub socket: PathBuf,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: Listen(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9901)),
            metrics_listen: MaybeListen(None),
            socket: "/run/mesh/admin.sock".into(),
        }
    }
}

/// How connections are intercepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Dataplane {
    /// Where balancing happens.
    pub mode: Mode,
    /// Directory of the cgroup2 file system whose processes are served. `auto`: the root of the mount, every process.
    pub cgroup: Cgroup,
    /// Directory on a bpf file system for what must outlive the daemon in the kernel; one for each daemon of a machine.
    #[schemars(with = "Directory")]
    pub bpffs: PathBuf,
    /// `SO_MARK` of the daemon's own sockets, which the hooks let pass; it should be no one else's. Decimal or hexadecimal.
    pub mark: NonZeroU32,
    /// How long the daemon may be silent before the kernel goes on without what only it knows, such as health. More than
    /// `stale_after` is a warning: it has no effect.
    pub heartbeat_timeout: Duration,
    /// How long the daemon may be gone before `when_stale` tells what happens.
    pub stale_after: Duration,
    /// What the kernel does when the daemon has been gone for longer than `stale_after`.
    pub when_stale: WhenStale,
    /// What is never translated.
    pub bypass: Bypass,
    /// Whether runs and time of each program are counted; costs 20 to 30 ns a run.
    pub program_stats: bool,
    /// Services there is room for. `auto`: from the configuration at start, with head-room.
    pub max_services: Size<1_048_576>,
    /// Endpoints, of all services together, there is room for. `auto`: from the configuration at start, with head-room.
    pub max_endpoints: Size<16_777_216>,
    /// Slots, 8 bytes each, in which the endpoints of all services are laid out by weight. `auto`: from the configuration
    /// at start, with head-room.
    pub max_slots: Size<134_217_728>,
}

impl Default for Dataplane {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            cgroup: Cgroup::Auto,
            bpffs: "/sys/fs/bpf/mesh".into(),
            // "mesh" in ASCII; NonZeroU32::new is not usable as a constant expression without unwrapping.
            mark: NonZeroU32::MIN.saturating_add(0x6d65_7368 - 1),
            heartbeat_timeout: Duration::from_millis(3_000),
            stale_after: Duration::from_millis(600_000),
            when_stale: WhenStale::Auto,
            bypass: Bypass::default(),
            program_stats: false,
            max_services: Size::Auto,
            max_endpoints: Size::Auto,
            max_slots: Size::Auto,
        }
    }
}

/// Where balancing happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// In the kernel where it can be, else as userspace.
    #[default]
    Auto,
    /// In the kernel, or the daemon exits with the remedy.
    Ebpf,
    /// Without the kernel's hooks.
    Userspace,
    /// Count what would be translated, translate nothing.
    Observe,
}

impl Mode {
    /// The word in configuration, JSON and tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ebpf => "ebpf",
            Self::Userspace => "userspace",
            Self::Observe => "observe",
        }
    }
}

/// What is never translated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Bypass {
    /// Cgroups whose processes are left alone, with all below them: absolute paths, or paths below the cgroup2 root; at
    /// most 1024. One that is not there yet is looked for every 2 s.
    #[schemars(with = "Vec<CgroupPath>")]
    pub cgroups: Vec<String>,
    /// VIPs in these ranges are left alone (counted as `bypass`).
    pub cidrs: Vec<Cidr>,
}

/// What the kernel does when the daemon has been gone for long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenStale {
    /// In a Kubernetes cluster (`KUBERNETES_SERVICE_HOST` is set) `passthrough`, else `last_known`.
    #[default]
    Auto,
    /// Connects to VIPs pass untouched (counted as `stale`), so that they mean again what kube-proxy, or whoever else knows
    /// them, makes of them.
    Passthrough,
    /// Go on with what was known last.
    LastKnown,
}

/// How the daemon takes requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Proxy {
    /// Port at which captured connections arrive, on `127.0.0.1` and `::1` of each client's network namespace.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// Address of the explicit proxy for known services. Empty: none. One that others can reach is a warning.
    pub http: MaybeListen,
    /// Threads that take requests; 0: one for each core.
    #[schemars(range(min = 0, max = 1024))]
    pub workers: u32,
    /// How long requests may take to finish when the daemon stops.
    pub drain_timeout: Duration,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            port: 15001,
            http: MaybeListen(Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 3000))),
            workers: 0,
            drain_timeout: Duration::from_millis(30_000),
        }
    }
}

/// A named set of interchangeable endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Service {
    /// The name. Each part between dots has at most 63 bytes, and starts and ends with a letter or digit; nothing that reads
    /// as an address.
    #[schemars(with = "ServiceName")]
    pub name: String,
    /// VIPs: the addresses applications dial. Any unicast address and port; each belongs to one service.
    #[serde(default)]
    pub addresses: Vec<Vip>,
    /// Names by which requests ask for it at `proxy.http` besides its own, without port. Each belongs to one service.
    #[serde(default)]
    #[schemars(with = "Vec<HostName>")]
    pub hosts: Box<[String]>,
    /// Its own settings over those it inherits: after loading, what holds for it. Equal ones are shared.
    #[serde(flatten)]
    pub settings: Arc<Settings>,
    /// Who serves it; an address stands once.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// Name with a port, `checkout.internal:8080`, whose addresses are endpoints too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DnsName")]
    pub dns: Option<Box<str>>,
    /// Name, `_http._tcp.checkout.internal`, whose SRV records are endpoints too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SrvName")]
    pub srv: Option<Box<str>>,
    /// Name in etcd of the service whose instances are endpoints too. Left out: its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "MaybeService")]
    pub etcd: Option<Box<str>>,
    /// Service in Kubernetes, `shop/checkout` or `shop/checkout:PORT`, that this one stands for: its endpoints and addresses
    /// are this one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "KubernetesName")]
    pub kubernetes: Option<Box<str>>,
    /// What becomes of its requests, the first that matches; none: they go to the service itself.
    #[serde(default)]
    #[schemars(with = "Vec<Route>")]
    pub routes: Box<[Route]>,
}

impl Service {
    /// Whether it has endpoints from elsewhere than the files.
    #[must_use]
    pub fn draws(&self) -> bool {
        let named = |name: &Option<Box<str>>| name.as_deref().is_some_and(|name| !name.is_empty());
        named(&self.dns) || named(&self.srv) || named(&self.etcd) || named(&self.kubernetes)
    }
}

/// One address that serves a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Endpoint {
    /// Where it listens. `127.0.0.0/8` and `::1` mean the client's own network namespace.
    pub address: EndpointAddress,
    /// Its share among the service's endpoints; 0 gets nothing.
    #[serde(default = "one")]
    pub weight: u16,
    /// The zone it runs in; empty: not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(with = "Label")]
    pub zone: String,
    /// The region it runs in; empty: not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(with = "Label")]
    pub region: String,
    /// The node it runs on; empty: not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(with = "Label")]
    pub node: String,
    /// Out of selection: its connections finish, it gets no new ones.
    #[serde(default, skip_serializing_if = "is_false")]
    pub draining: bool,
}

fn one() -> u16 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// What the daemon tells about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Telemetry {
    /// The memory for what is kept of logs and traces; each may take one half.
    pub memory: ByteSize,
    /// Which requests are traced.
    pub tracing: Tracing,
    /// The log of requests and connections.
    pub access_log: AccessLog,
    /// The daemon's own log, on stderr.
    pub log: Log,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            memory: ByteSize::from_mib(32),
            tracing: Tracing::default(),
            access_log: AccessLog::default(),
            log: Log::default(),
        }
    }
}

/// Which requests are traced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Tracing {
    /// The part of requests without a decision of the client's that is sampled, in millionths.
    pub sample_rate: Rate,
    /// The collector that gets the traces. Empty: none.
    pub otlp: MaybeCollector,
    /// File with the certificates of who may have signed the collector's. Empty: the system's.
    #[schemars(with = "MaybeFile")]
    pub ca_file: PathBuf,
    /// How many traces stay on the node, the newest.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub keep: u32,
}

impl Default for Tracing {
    fn default() -> Self {
        Self { sample_rate: Rate::from_parts(100_000), otlp: MaybeCollector(None), ca_file: PathBuf::new(), keep: 2000 }
    }
}

/// The log of requests and connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AccessLog {
    /// Whether requests and connections are logged.
    pub enabled: bool,
    /// The part of them that is logged, in millionths.
    pub sample_rate: Rate,
    /// How many lines stay on the node, the newest, as far as `telemetry.memory` goes; 0: none.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub keep: u32,
    /// Whether they are logged on stderr.
    pub stderr: bool,
    /// How often a connection that stays open is logged, if it carried something.
    pub open_interval: Duration,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            enabled: true,
            sample_rate: Rate::from_parts(1_000_000),
            keep: 10_000,
            stderr: true,
            open_interval: Duration::from_millis(60_000),
        }
    }
}

/// The daemon's own log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Log {
    /// How a message is written.
    pub format: LogFormat,
    /// What is logged: `error`, `warn`, `info`, `debug` or `trace`; or `MODULE=LEVEL`; or several, separated by commas.
    #[schemars(with = "LogLevel")]
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Json, level: "info".to_owned() }
    }
}

/// How a message of the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}
