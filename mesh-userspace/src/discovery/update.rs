//! What a source says.

use crate::model::{Endpoint, Protocol};
use std::{collections::BTreeMap, net::SocketAddr, panic};
use tokio::{sync::mpsc, task::JoinError};

/// A source of facts. In this order they are believed about an address that several know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The registry of this node.
    Registry,
    /// A prefix of an etcd cluster.
    Etcd,
    /// The API of a Kubernetes cluster.
    Kubernetes,
    /// Names of the DNS.
    Dns,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Registry, Self::Etcd, Self::Kubernetes, Self::Dns];

    /// The word in JSON, metrics and logs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Etcd => "etcd",
            Self::Kubernetes => "kubernetes",
            Self::Dns => "dns",
        }
    }

    /// The source of a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.word() == word)
    }

    /// Whether what there is comes from whoever registers, and may call itself anything.
    #[must_use]
    pub const fn is_of_registrants(self) -> bool {
        matches!(self, Self::Registry | Self::Etcd)
    }

    /// The service to which something belongs that no service of the files asked for; `None`: to none.
    ///
    /// Keys of the registry and of etcd are names of services. Those of Kubernetes are `NAMESPACE/NAME`, or
    /// `NAMESPACE/NAME:PORT` for each further port of a Kubernetes service, and make `NAME.NAMESPACE` or
    /// `NAME.NAMESPACE.PORT`. A name of the DNS is looked up because a service asked for it.
    #[must_use]
    pub fn service(self, key: &str) -> Option<String> {
        match self {
            Self::Registry | Self::Etcd => Some(key.to_owned()),
            Self::Kubernetes => {
                let (namespace, name) = key.split_once('/')?;
                Some(match name.split_once(':') {
                    Some((name, port)) => format!("{name}.{namespace}.{port}"),
                    None => format!("{name}.{namespace}"),
                })
            }
            Self::Dns => None,
        }
    }
}

/// One of those who serve a service, as a source knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// What the source calls it; unique within a service of a source.
    pub id: String,
    /// Where and what it is.
    pub endpoint: Endpoint,
}

/// All that a source knows of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Who serves it. Of two with one address that with the lesser id counts.
    pub instances: Vec<Instance>,
    /// What the source knows of the service itself; `None`: only who serves it.
    pub description: Option<Description>,
}

/// What a source knows of a service besides who serves it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Its VIPs.
    pub addresses: Vec<SocketAddr>,
    /// Its names besides its own, lower case.
    pub hosts: Vec<String>,
    /// How its connections are treated; `None`: as `defaults` has it.
    pub protocol: Option<Protocol>,
    /// Keys of a service in the configuration, dotted, with their values as YAML: `load_balancing.policy`, `maglev`.
    /// Files come first, then this, then `defaults`.
    pub settings: BTreeMap<String, String>,
}

/// What a source says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The source begins to tell all it knows; what it does not name until [`Change::Synced`] is gone.
    Listing,
    /// All that it knows of one service.
    Service {
        /// What the source calls the service.
        key: String,
        /// `None`: it does not know the service any more.
        said: Option<Said>,
        /// Whether nobody having been left, or the service being gone, is an event that was seen (and believed at once),
        /// or just what an answer looked like (and held back for `discovery.empty_grace` after a full one).
        certain: bool,
    },
    /// The source has told all it knows, and is in touch.
    Synced,
    /// It lost touch. What it said stays in force.
    Lost(String),
    /// One record was left out, and the rest taken: what, and why.
    Skipped(String),
    /// Where this node is, as far as the source knows.
    Place {
        /// Its zone; empty: not known.
        zone: String,
        /// Its region; empty: not known.
        region: String,
    },
}

/// Breaks a source off with a part of it that was to work for ever, and says what that said.
pub(super) fn break_off(part: Result<(), JoinError>) {
    if let Some(Ok(said)) = part.err().map(JoinError::try_into_panic) {
        panic::resume_unwind(said);
    }
}

/// What a source says, and which one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Who says it.
    pub source: Source,
    /// What.
    pub change: Change,
}

/// How a source tells what it knows.
#[derive(Clone, Debug)]
pub struct Teller {
    source: Source,
    updates: mpsc::Sender<Update>,
}

impl Teller {
    /// For this source.
    #[must_use]
    pub fn new(source: Source, updates: mpsc::Sender<Update>) -> Self {
        Self { source, updates }
    }

    /// Says something. Waits while too much of what was said before is not taken yet.
    pub async fn say(&self, change: Change) {
        // Nobody listens any more where the daemon ends: this source does, soon.
        let _ = self.updates.send(Update { source: self.source, change }).await;
    }

    /// All that the source knows of a service: an event.
    pub async fn service(&self, key: impl Into<String>, said: Option<Said>) {
        self.say(Change::Service { key: key.into(), said, certain: true }).await;
    }

    /// All that the source knows of a service: an answer, which may be wrong about nobody being left.
    pub async fn answer(&self, key: impl Into<String>, said: Option<Said>) {
        self.say(Change::Service { key: key.into(), said, certain: false }).await;
    }

    /// The source lost touch.
    pub async fn lost(&self, why: impl ToString) {
        self.say(Change::Lost(why.to_string())).await;
    }

    /// One record was left out.
    pub async fn skipped(&self, why: impl ToString) {
        self.say(Change::Skipped(why.to_string())).await;
    }
}
