//! The daemon's surface as one enum, and who answers it.

use super::{
    feed::{self, Reader},
    live::Viewer,
    logs::Logs,
    takeover::HandOver,
    types::{
        Changed, Circuit, Connection, ConnectionOrder, Endpoint, Explanation, LogLevels, LogLine, Policy, Registered,
        RegistryInstance, Service, Status, Trace, TraceSummary,
    },
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, net::SocketAddr, ops::ControlFlow, pin::Pin, time::Duration};

/// Everything that can be asked of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The daemon as a whole.
    Status,
    /// Services, all or one. An unknown name is [`Kind::NotFound`].
    Services {
        /// Only this one.
        name: Option<String>,
    },
    /// Endpoints, of all services or one. An unknown name is [`Kind::NotFound`].
    Endpoints {
        /// Only of this one.
        service: Option<String>,
    },
    /// Live connections. A service or endpoint that is not known is [`Kind::NotFound`].
    Connections(Connections),
    /// Circuits of endpoints, of all services or one. An unknown name is [`Kind::NotFound`].
    Circuits {
        /// Only of this one.
        service: Option<String>,
    },
    /// Lines of the log of requests and connections. A service that nothing is known of is [`Kind::NotFound`].
    Logs(Box<Logs>),
    /// How much which module logs.
    LogLevels,
    /// Changes how much a module logs.
    SetLogLevel {
        /// `MODULE=LEVEL`, or `LEVEL` for all that have none of their own.
        directive: String,
    },
    /// What a connection would meet now.
    Explain {
        /// The address dialled.
        address: SocketAddr,
        /// The `Host` of the request.
        host: Option<String>,
        /// The path of the request.
        path: Option<String>,
        /// The zone of the client, instead of the node's own.
        zone: Option<String>,
    },
    /// Traces of requests, the newest first. A service that is not known is [`Kind::NotFound`].
    Traces(Traces),
    /// One trace, in full. One that is not there is [`Kind::NotFound`].
    Trace {
        /// Its id, 32 hexadecimal digits.
        id: String,
    },
    /// The running configuration, defaults filled in.
    ConfigDump,
    /// Loads the configuration again, whole or not at all.
    ConfigReload,
    /// Takes an endpoint out of selection.
    EndpointDrain {
        /// Of this service.
        service: String,
        /// Where it listens.
        address: SocketAddr,
        /// Whether the change survives a restart.
        persist: bool,
    },
    /// Puts it back.
    EndpointUndrain {
        /// Of this service.
        service: String,
        /// Where it listens.
        address: SocketAddr,
        /// Whether the change survives a restart.
        persist: bool,
    },
    /// Sets its weight.
    EndpointWeight {
        /// Of this service.
        service: String,
        /// Where it listens.
        address: SocketAddr,
        /// 0 gets nothing.
        weight: u16,
        /// Whether the change survives a restart.
        persist: bool,
    },
    /// Sets a service's policy.
    LbSet {
        /// The service.
        service: String,
        /// How its endpoints are picked from now on.
        policy: Policy,
        /// Whether the change survives a restart.
        persist: bool,
    },
    /// Holds circuits open, until they are reset or the daemon restarts.
    CircuitTrip {
        /// The service.
        service: String,
        /// That of this endpoint; `None`: those of all its endpoints.
        address: Option<SocketAddr>,
    },
    /// Closes circuits, and holds them no longer.
    CircuitReset {
        /// The service.
        service: String,
        /// That of this endpoint; `None`: those of all its endpoints.
        address: Option<SocketAddr>,
    },
    /// Changes when a service's circuits open. One of the two has to be there.
    CircuitSet {
        /// The service.
        service: String,
        /// So many failures in a row open a circuit, 0 to 1000; 0: it never opens by itself.
        failure_threshold: Option<u32>,
        /// How long a circuit stays open at first, 100 ms to 24 h, in whole milliseconds.
        reset_timeout: Option<Duration>,
        /// Whether the change survives a restart.
        persist: bool,
    },
    /// The kill switch.
    Bypass {
        /// Whether every hook passes everything untouched.
        on: bool,
    },
    /// Instances in the registry, all or those of a service. An unknown name is [`Kind::NotFound`].
    Registry {
        /// Only those of this one.
        service: Option<String>,
    },
    /// One instance in the registry. An unknown one is [`Kind::NotFound`].
    Instance {
        /// Of this service.
        service: String,
        /// What it is called.
        id: String,
    },
    /// Registers an instance, or changes it.
    Register(Registration),
    /// An instance is alive. An unknown one is [`Kind::NotFound`]: it has to register again.
    Heartbeat {
        /// Of this service.
        service: String,
        /// What it is called.
        id: String,
    },
    /// Deregisters an instance. An unknown one is [`Kind::NotFound`].
    Deregister {
        /// Of this service.
        service: String,
        /// What it is called.
        id: String,
    },
}

/// An instance that is to be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The service it serves.
    pub service: String,
    /// What it is called; unique within its service.
    pub id: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share of connections; 0 gets none.
    pub weight: u16,
    /// Its zone; empty: not known.
    pub zone: String,
    /// Whatever it wants others to know; 64 KiB at most.
    pub metadata: BTreeMap<String, String>,
    /// For how long it counts without being heard of, `1s` to `24h`; `None`: as configured.
    pub ttl: Option<String>,
}

/// Which live connections are asked for, and in which order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Only those of this service.
    pub service: Option<String>,
    /// Only those to this endpoint.
    pub endpoint: Option<SocketAddr>,
    /// Which come first; `None`: by service, endpoint and client.
    pub sort: Option<ConnectionOrder>,
    /// No more than so many.
    pub limit: Option<u32>,
}

/// Which traces are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// Only those of requests for this service.
    pub service: Option<String>,
    /// No more than so many, the newest.
    pub limit: Option<u32>,
}

impl Request {
    /// Whether it changes anything. Such requests are taken at the admin socket only.
    #[must_use]
    pub const fn is_write(&self) -> bool {
        match self {
            Self::Status
            | Self::Services { .. }
            | Self::Endpoints { .. }
            | Self::Connections(_)
            | Self::Circuits { .. }
            | Self::Logs(_)
            | Self::LogLevels
            | Self::Explain { .. }
            | Self::Traces(_)
            | Self::Trace { .. }
            | Self::ConfigDump
            | Self::Registry { .. }
            | Self::Instance { .. } => false,
            Self::ConfigReload
            | Self::EndpointDrain { .. }
            | Self::EndpointUndrain { .. }
            | Self::EndpointWeight { .. }
            | Self::LbSet { .. }
            | Self::CircuitTrip { .. }
            | Self::CircuitReset { .. }
            | Self::CircuitSet { .. }
            | Self::Bypass { .. }
            | Self::SetLogLevel { .. }
            | Self::Register(_)
            | Self::Heartbeat { .. }
            | Self::Deregister { .. } => true,
        }
    }
}

/// What [`Door::handle`] answers, each to the request of its name.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Services`], sorted by name.
    Services(Vec<Service>),
    /// To [`Request::Endpoints`], sorted by service, then address.
    Endpoints(Vec<Endpoint>),
    /// To [`Request::Connections`], in the order asked for.
    Connections(Vec<Connection>),
    /// To [`Request::Circuits`], sorted by service, then address.
    Circuits(Vec<Circuit>),
    /// To [`Request::Logs`], as they ended, the newest last.
    Logs(Vec<LogLine>),
    /// To [`Request::LogLevels`].
    LogLevels(LogLevels),
    /// To [`Request::Explain`].
    Explanation(Box<Explanation>),
    /// To [`Request::Traces`], the newest first.
    Traces(Vec<TraceSummary>),
    /// To [`Request::Trace`].
    Trace(Box<Trace>),
    /// To [`Request::ConfigDump`]: the document, its keys in the order of the reference, no secrets.
    Config(serde_json::Value),
    /// To [`Request::Registry`], sorted by service, then address.
    Registry(Vec<RegistryInstance>),
    /// To [`Request::Instance`].
    Instance(Box<RegistryInstance>),
    /// To [`Request::Register`].
    Registered(Registered),
    /// To every other request that writes.
    Changed(Changed),
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Which kind of failure it is.
    pub kind: Kind,
    /// What is wrong and what to do about it, for the operator to read.
    pub message: String,
}

/// Which kind of failure a [`Refusal`] is: the HTTP status and the word in `{"error": {"kind": …}}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The request makes no sense as it stands.
    Invalid,
    /// It is too much.
    TooLarge,
    /// It names what is not there.
    NotFound,
    /// It makes no sense in the present state.
    Conflict,
    /// It is in the contract and not built yet.
    Unsupported,
    /// It cannot be done now, but may be later.
    Unavailable,
    /// The daemon failed.
    Internal,
}

impl Refusal {
    /// A refusal of this kind.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The request makes no sense as it stands.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// It names what is not there.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// `what` is in the contract and not built yet.
    #[must_use]
    pub fn unsupported(what: impl fmt::Display) -> Self {
        Self::new(Kind::Unsupported, format!("{what}: not supported yet"))
    }

    /// The daemon failed.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }
}

/// What `/health` says: 200 while the process works.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether the process works; a component that is not well does not have to mean that it does not.
    pub ok: bool,
    /// Every component by name.
    pub components: BTreeMap<String, HealthComponent>,
}

/// One component in [`Health`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthComponent {
    /// Whether it is well.
    pub ok: bool,
    /// What is wrong, or what is worth knowing.
    pub detail: Option<String>,
}

/// What `/ready` says: 200 once the node can be relied upon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether discovery has synced, programs are attached and the daemon is not draining.
    pub ready: bool,
    /// Why not; empty when ready.
    pub reasons: Vec<String>,
}

/// A future behind a pointer, so that [`Door`] can be one.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who answers. Every server holds the same one.
pub trait Door: Send + Sync + 'static {
    /// Does what is asked. It is run to its end even if the caller has gone, so a change is never left half made.
    fn handle(&self, request: Request) -> BoxFuture<'_, Result<Response, Refusal>>;

    /// The same answer without what a configuration keeps secret: for TCP, where everybody may ask.
    fn without_secrets(&self, answer: Response) -> Response;

    /// All metrics in Prometheus text format, piece by piece as they are written, until `sink` has enough. Called on a thread
    /// where blocking is allowed; `sink` may block.
    ///
    /// # Errors
    /// [`Refusal`], where they cannot be collected. What was handed over is not the whole then.
    fn metrics(&self, sink: &mut dyn FnMut(Vec<u8>) -> ControlFlow<()>) -> Result<(), Refusal>;

    /// Whether the process works. Must not block: it is asked when everything else is stuck.
    fn health(&self) -> Health;

    /// Whether the node can be relied upon. Must not block.
    fn ready(&self) -> Readiness;

    /// Lets another daemon take over. Must not block: what takes time is done by what is returned.
    ///
    /// # Errors
    /// [`Refusal`], while another takeover is under way, or where there is nothing to be taken over.
    fn take_over(&self) -> Result<HandOver, Refusal>;

    /// The endpoints of a service, and from then on what changes: from the event after `after` on, if that can be had, and
    /// else from a snapshot on. An unknown name is [`Kind::NotFound`].
    fn watch(&self, service: String, after: Option<u64>) -> BoxFuture<'_, Result<Reader, Refusal>>;

    /// The lines that are kept, as [`Request::Logs`] has them, and from then on those that come: from the one after
    /// `after` on, if that is given.
    fn follow_logs(&self, wanted: Logs, after: Option<u64>) -> BoxFuture<'_, Result<Box<dyn feed::Source>, Refusal>>;

    /// The whole node, and from then on what changes. Must not block.
    fn live(&self) -> Viewer;
}
