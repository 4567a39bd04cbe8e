//! What can be typed.

use super::register::{Deregister, Register};
use crate::api::{ConnectionOrder, DurationBound, Methods, PathPattern, Policy, Since, Statuses, TraceStart};
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

/// A service mesh for one node: TCP services balanced in the kernel.
#[derive(Debug, Parser)]
#[command(name = "mesh", version, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) options: Options,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The admin socket of the daemon to talk to [env: MESH_ADMIN_SOCKET] [default: /run/mesh/admin.sock]
    // Not clap's `env`: an empty variable means that it is not set.
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) admin_socket: Option<PathBuf>,

    /// When to colour tables; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(super) color: Color,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    Auto,
    Always,
    Never,
}

/// How a listing is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
    Yaml,
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Listing {
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(super) output: Format,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run the node daemon in the foreground
    ///
    /// It logs to stderr. SIGTERM stops it, SIGHUP reloads its configuration. Translation in the kernel goes on while
    /// it is stopped; `mesh unload` ends that.
    Run {
        /// The configuration [env: MESH_CONFIG] [default: /etc/mesh/mesh.yaml]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Take over from the running daemon without a gap, if one runs behind the configured admin.socket
        #[arg(long)]
        takeover: bool,
    },

    /// Say whether the daemon can start here and intercept connections, and what to do where not; needs no daemon
    ///
    /// It loads every program and sends a real connection through them, in a cgroup of its own that is removed again.
    /// A daemon that runs is not disturbed. Exit code 1: something that is required is missing.
    Check {
        /// The configuration [env: MESH_CONFIG] [default: /etc/mesh/mesh.yaml]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        listing: Listing,
    },

    /// Check, print, or reload the configuration
    #[command(subcommand)]
    Config(ConfigVerb),

    /// Show the daemon as a whole: programs, tables, sources, configuration
    Status {
        #[command(flatten)]
        listing: Listing,
    },

    /// List services, or show one with its endpoints
    Services {
        /// Only this one, with its endpoints
        name: Option<String>,
        /// Show it again every second until interrupted; with a name and -o json print what changes, one line an event
        #[arg(long)]
        watch: bool,
        #[command(flatten)]
        listing: Listing,
    },

    /// List endpoints, or take them out of selection, put them back, change their weight
    #[command(args_conflicts_with_subcommands = true)]
    Endpoints {
        /// Only those of this service
        service: Option<String>,
        #[command(flatten)]
        listing: Listing,
        #[command(subcommand)]
        change: Option<EndpointVerb>,
    },

    /// List live connections: whose they are, where they go, what they carried until now
    Connections {
        /// Only those of this service
        #[arg(long, value_name = "SERVICE")]
        service: Option<String>,
        /// Only those to this endpoint
        #[arg(long, value_name = "ADDRESS", value_parser = address)]
        endpoint: Option<SocketAddr>,
        /// The largest first, of age the oldest: sent, received, age, or rtt [default: by service, endpoint, client]
        #[arg(long, value_name = "BY", value_parser = orders(), hide_possible_values = true)]
        sort: Option<ConnectionOrder>,
        /// No more than so many
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        limit: Option<u32>,
        /// Show them again every second until interrupted, with what they carry a second
        #[arg(long)]
        watch: bool,
        #[command(flatten)]
        listing: Listing,
    },

    /// Show what became of requests and connections: the newest lines of the log, or those that come
    Logs(Box<LogsArguments>),

    /// Show how much which module of the daemon logs, or change it until the daemon restarts
    LogLevel {
        /// What to change: a module and its level, off, error, warn, info, debug or trace; a level alone is that of all
        /// others
        #[arg(value_name = "MODULE=LEVEL")]
        directive: Option<String>,
        #[command(flatten)]
        listing: Listing,
    },

    /// Put what a maintainer would ask for into one archive, without secrets
    ///
    /// It holds the configuration, what the daemon answers about everything, its metrics and log, and what this host is.
    /// Where no daemon runs it says so in the archive.
    Bugreport {
        /// The archive, which must not be there yet [default: mesh-bugreport-TIME.tar.gz here]
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// The configuration [env: MESH_CONFIG] [default: /etc/mesh/mesh.yaml]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },

    /// Watch services, endpoints and connections live, on the whole screen
    ///
    /// `?` shows the keys.
    Top {
        /// How long to wait between two looks, from 1s to 1h
        #[arg(long, value_name = "TIME", value_parser = interval, default_value = "1s")]
        interval: Duration,
    },

    /// Say what a connection to an address would meet now, and why
    Explain {
        /// The address dialled
        #[arg(value_name = "ADDRESS", value_parser = address)]
        address: SocketAddr,
        /// The host an HTTP request names
        #[arg(long, value_name = "HOST")]
        host: Option<String>,
        /// The path an HTTP request names
        #[arg(long, value_name = "PATH")]
        path: Option<String>,
        /// The client's zone, instead of the node's own
        #[arg(long, value_name = "ZONE")]
        zone: Option<String>,
        #[command(flatten)]
        listing: Listing,
    },

    /// List requests whose traces were kept, the newest first; or show one trace, what took how long
    ///
    /// Kept are those that were sampled, those that failed, and those that were tried more than once.
    Traces {
        /// This trace, 32 hexadecimal digits
        #[arg(value_name = "ID", value_parser = trace_id, conflicts_with_all = ["service", "limit"])]
        id: Option<String>,
        /// Only those of requests for this service
        #[arg(long, value_name = "SERVICE")]
        service: Option<String>,
        /// No more than so many [default: 50 in a table, else all that are kept]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        limit: Option<u32>,
        #[command(flatten)]
        listing: Listing,
    },

    /// Change how a service is balanced
    #[command(subcommand)]
    Lb(LbVerb),

    /// List circuits, hold them open, close them, or change when they open
    #[command(args_conflicts_with_subcommands = true)]
    Circuit {
        #[command(flatten)]
        listing: Listing,
        #[command(subcommand)]
        verb: Option<CircuitVerb>,
    },

    /// Register an instance of a service
    ///
    /// It counts for its TTL; register it again in time, or let --keep do so.
    // Boxed: it is larger than all others.
    Register(Box<Register>),

    /// Take an instance of a service out again
    Deregister(Box<Deregister>),

    /// The kill switch: make every hook pass everything untouched, or translate again
    #[command(subcommand)]
    Bypass(BypassVerb),

    /// Remove everything that the daemon ever put into the kernel; needs no daemon
    Unload {
        /// The configuration that says where it is [env: MESH_CONFIG] [default: /etc/mesh/mesh.yaml]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Even while a daemon runs
        #[arg(long)]
        force: bool,
    },

    /// Print a completion script
    Completions {
        /// For this shell
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub(super) struct LogsArguments {
    /// Only those of this service
    #[arg(long, value_name = "SERVICE")]
    pub(super) service: Option<String>,
    /// Only those to this endpoint
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub(super) endpoint: Option<SocketAddr>,
    /// Only answers with this status: 503, 5xx, 400-499, or several with commas between
    #[arg(long, value_name = "STATUS")]
    pub(super) status: Option<Statuses>,
    /// Only requests with this method, or one of several with commas between
    #[arg(long, value_name = "METHOD")]
    pub(super) method: Option<Methods>,
    /// Only requests with a path that begins with this, or contains it where it has no / in front; * stands for anything
    #[arg(long, value_name = "PATH")]
    pub(super) path: Option<PathPattern>,
    /// Only what took so long: '>100ms', '>=1s', '<1s'
    #[arg(long, value_name = "BOUND")]
    pub(super) duration: Option<DurationBound>,
    /// Only those of this trace, by its id or the beginning of it
    #[arg(long, value_name = "ID")]
    pub(super) trace: Option<TraceStart>,
    /// Only what was over since then: 5m ago, or a time such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "WHEN")]
    pub(super) since: Option<Since>,
    /// No more than so many, the newest [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: Option<u32>,
    /// Then show those that come, until interrupted
    #[arg(short, long)]
    pub(super) follow: bool,
    #[command(flatten)]
    pub(super) listing: Listing,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Check a file and report every mistake in it; needs no daemon
    Validate {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print the JSON Schema of the configuration; needs no daemon
    Schema,
    /// Print the running configuration with defaults filled in
    Dump {
        /// How to print; a table is YAML
        #[arg(short, long, value_name = "FORMAT", default_value = "yaml")]
        output: Format,
    },
    /// Load the configuration again: whole, or not at all
    Reload,
}

#[derive(Debug, Subcommand)]
pub(super) enum EndpointVerb {
    /// Take an endpoint out of selection; its connections finish
    Drain(Target),
    /// Put a drained endpoint back
    Undrain(Target),
    /// Change an endpoint's share
    Weight {
        #[command(flatten)]
        target: EndpointName,
        /// Its new weight, 0 to 65535; 0 gets nothing
        #[arg(value_name = "N", value_parser = weight, allow_hyphen_values = true)]
        weight: u16,
        #[command(flatten)]
        persist: Persist,
    },
}

#[derive(Debug, Args)]
pub(super) struct Target {
    #[command(flatten)]
    pub(super) name: EndpointName,
    #[command(flatten)]
    pub(super) persist: Persist,
}

#[derive(Debug, Args)]
pub(super) struct EndpointName {
    /// The service it serves
    #[arg(value_name = "SERVICE")]
    pub(super) service: String,
    /// Where it listens
    #[arg(value_name = "ADDRESS", value_parser = address)]
    pub(super) address: SocketAddr,
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Persist {
    /// Keep the change over a restart, in conf.d/99-runtime.yaml beside the configuration
    #[arg(long)]
    pub(super) persist: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum LbVerb {
    /// Set a service's balancing policy at once
    Set {
        /// The service
        #[arg(value_name = "SERVICE")]
        service: String,
        /// round_robin, random, least_connections, maglev, or peak_ewma
        #[arg(value_name = "POLICY", value_parser = policies())]
        policy: Policy,
        #[command(flatten)]
        persist: Persist,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum CircuitVerb {
    /// List the circuits of all endpoints; the same as no word at all
    List {
        /// Only those of this service
        service: Option<String>,
        #[command(flatten)]
        listing: Listing,
    },
    /// Hold a circuit open: the endpoint gets no new connections until it is reset or the daemon restarts
    Trip(CircuitName),
    /// Close a circuit, and hold it no longer
    Reset(CircuitName),
    /// Change when the circuits of a service open, and for how long
    #[command(group = ArgGroup::new("change").required(true).multiple(true)
        .args(["failure_threshold", "reset_timeout"]))]
    Set {
        /// The service
        #[arg(value_name = "SERVICE")]
        service: String,
        /// So many failures in a row open a circuit, 0 to 1000; 0: it never opens by itself
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
        failure_threshold: Option<u32>,
        /// How long a circuit stays open at first, such as 30s: 100ms to 24h
        #[arg(long, value_name = "D", value_parser = reset_timeout)]
        reset_timeout: Option<Duration>,
        #[command(flatten)]
        persist: Persist,
    },
}

#[derive(Debug, Args)]
pub(super) struct CircuitName {
    /// The service
    #[arg(value_name = "SERVICE")]
    pub(super) service: String,
    /// Where the endpoint listens [default: all endpoints of the service]
    #[arg(value_name = "ADDRESS", value_parser = address)]
    pub(super) address: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum BypassVerb {
    /// Pass every connection untouched
    On,
    /// Translate again
    Off,
}

/// `ip:port`, with a reason that helps when it is none.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    Err(if let Ok(ip) = text.parse::<std::net::IpAddr>() {
        format!("the port is missing: {}", SocketAddr::new(ip, 80))
    } else if let Some(Ok(ip)) = text.rsplit_once(':').map(|(host, _)| host.parse::<std::net::Ipv6Addr>()) {
        format!("an IPv6 address with a port stands in brackets: [{ip}]:80")
    } else {
        "expected ip:port, like 10.0.0.1:80 or [fd00::1]:80; names are not looked up".to_owned()
    })
}

fn trace_id(text: &str) -> Result<String, String> {
    let is_one = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_one.then(|| text.to_ascii_lowercase()).ok_or_else(|| "expected 32 hexadecimal digits".to_owned())
}

pub(super) fn weight(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "expected a whole number from 0 to 65535".to_owned())
}

fn reset_timeout(text: &str) -> Result<Duration, String> {
    duration(
        text,
        Duration::from_millis(100)..=Duration::from_secs(24 * 3600),
        "from 100ms to 24h, such as 250ms, 5s or 1m30s",
    )
}

fn interval(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(1)..=Duration::from_secs(3600), "from 1s to 1h, such as 1s, 2500ms or 1m")
}

fn duration(text: &str, allowed: RangeInclusive<Duration>, expected: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).ok().filter(|time| allowed.contains(time));
    let time = time.ok_or_else(|| format!("expected a duration {expected}"))?;
    // Finer is not kept.
    Ok(Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
}

fn orders() -> impl clap::builder::TypedValueParser<Value = ConnectionOrder> {
    use clap::builder::{PossibleValuesParser, TypedValueParser as _};
    PossibleValuesParser::new(ConnectionOrder::ALL.iter().map(|order| order.word()))
        .try_map(|word| word.parse::<ConnectionOrder>())
}

fn policies() -> impl clap::builder::TypedValueParser<Value = Policy> {
    use clap::builder::{PossibleValuesParser, TypedValueParser as _};
    PossibleValuesParser::new(Policy::ALL.iter().map(|policy| policy.word())).try_map(|word| word.parse::<Policy>())
}
