//! A service and its endpoints, as one source states them.

use std::{net::SocketAddr, sync::Arc};

use super::{Route, Settings};

/// A named set of interchangeable endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What [`check_service_name`](super::check_service_name) allows, unique on the node.
    pub name: String,
    /// VIPs: the addresses applications dial. Each belongs to one service.
    pub addresses: Vec<SocketAddr>,
    /// Names by which HTTP requests ask for it besides its own, lower case.
    pub hosts: Vec<String>,
    /// What becomes of its requests, the first that matches; none: they go to the service itself.
    pub routes: Arc<[Route]>,
    /// How its connections are treated.
    pub protocol: Protocol,
    /// How an endpoint is picked.
    pub policy: Policy,
    /// How its connections are shared out and protected. Services with equal settings share them.
    pub settings: Arc<Settings>,
    /// Who serves it; an address stands once.
    pub endpoints: Vec<Endpoint>,
}

/// One address that serves a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share among the service's endpoints; 0 gets nothing.
    pub weight: u16,
    /// The zone it runs in; empty: not known.
    pub zone: String,
    /// The region it runs in; empty: not known.
    pub region: String,
    /// The node it runs on; empty: not known.
    pub node: String,
    /// Out of selection: its connections finish, it gets no new ones.
    pub draining: bool,
    /// Its circuit is held open by an operator, whatever traffic and checks say.
    pub tripped: bool,
}

impl Endpoint {
    /// An endpoint of weight 1 about which nothing more is known.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            weight: 1,
            zone: String::new(),
            region: String::new(),
            node: String::new(),
            draining: false,
            tripped: false,
        }
    }
}

impl Endpoint {
    /// Whether facts and operators let it be picked; health and circuits apart.
    #[must_use]
    pub const fn is_in_selection(&self) -> bool {
        self.weight > 0 && !self.draining && !self.tripped
    }
}

/// How a service's connections are treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Connections, balanced in the kernel.
    #[default]
    Tcp,
    /// Requests of HTTP/1.1 and HTTP/2, balanced by the daemon.
    Http,
    /// The same, of gRPC.
    Grpc,
    /// Requests if a connection begins with one, else a TCP connection.
    Auto,
}

impl Protocol {
    /// The word in configuration, JSON and tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::Auto => "auto",
        }
    }

    /// The protocol of a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Tcp, Self::Http, Self::Grpc, Self::Auto].into_iter().find(|protocol| protocol.word() == word)
    }

    /// Whether its connections go through the daemon.
    #[must_use]
    pub const fn is_proxied(self) -> bool {
        !matches!(self, Self::Tcp)
    }
}

/// How an endpoint is picked; every policy honours weights and draining.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Each in turn, heavier ones more often, spread evenly.
    #[default]
    RoundRobin,
    /// Any, with a probability in proportion to its weight.
    Random,
    /// Of two at random the one with fewer connections for its weight.
    LeastConnections,
    /// By a hash of the client: the same client gets the same endpoint, as far as endpoints stay.
    Maglev,
    /// Of two at random the one that answers sooner, requests under way considered. HTTP only.
    PeakEwma,
}

impl Policy {
    /// Every policy.
    pub const ALL: [Self; 5] = [Self::RoundRobin, Self::Random, Self::LeastConnections, Self::Maglev, Self::PeakEwma];

    /// The word in configuration, JSON and tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
            Self::LeastConnections => "least_connections",
            Self::Maglev => "maglev",
            Self::PeakEwma => "peak_ewma",
        }
    }
}
