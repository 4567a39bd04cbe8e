//! Services and their endpoints.

use super::{CircuitState, EndpointHealth, Policy, Protocol};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::SocketAddr};

/// A row of `mesh services`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// VIPs, sorted.
    pub addresses: Vec<SocketAddr>,
    /// How its connections are treated.
    pub protocol: Protocol,
    /// How an endpoint is picked.
    pub policy: Policy,
    /// Open when none of its endpoints admits a connection because of its circuit.
    pub circuit: CircuitState,
    /// Its endpoints in numbers.
    pub endpoints: EndpointCounts,
    /// Whether connections to its VIPs are acted upon on this node.
    #[serde(default)]
    pub intercepted: bool,
    /// Why not; null if they are.
    #[serde(default)]
    pub not_intercepted_reason: Option<String>,
    /// Connections of all its endpoints open now.
    #[serde(default)]
    pub active_connections: u64,
    /// Connections to all its endpoints that TCP ever began to open.
    #[serde(default)]
    pub connections_total: u64,
    /// Connects that failed, at any of its endpoints and for any reason.
    #[serde(default)]
    pub connect_failures_total: u64,
    /// Segments that clients sent again. Null: nobody counts them, without programs in the kernel.
    #[serde(default)]
    pub retransmits_total: Option<u64>,
    /// Connects that were forwarded and that TCP never began: no route, no free local port. No endpoint's fault. Null:
    /// they are not all counted.
    #[serde(default)]
    pub connects_local_trouble_total: Option<u64>,
    /// Bytes that clients sent.
    #[serde(default)]
    pub sent_bytes_total: u64,
    /// Bytes that clients received.
    #[serde(default)]
    pub received_bytes_total: u64,
    /// Connects answered with `ECONNREFUSED` by the hooks, by reason; reasons that never happened may be left out. Null:
    /// there are no hooks.
    #[serde(default)]
    pub connects_refused_total: Option<BTreeMap<String, u64>>,
    /// Connects that went untouched to the VIP itself, by reason; null as above.
    #[serde(default)]
    pub connects_passed_total: Option<BTreeMap<String, u64>>,
    /// Requests on their way now; 0 of a service that has no requests.
    #[serde(default)]
    pub active_requests: u64,
    /// Requests that came for it, those of other services' routes included.
    #[serde(default)]
    pub requests_total: u64,
    /// Responses with a status of 500 or more: of its endpoints as they are now, and of the daemon's own.
    #[serde(default)]
    pub responses_5xx_total: u64,
    /// Requests that the daemon answered itself, by reason.
    #[serde(default)]
    pub requests_rejected_total: BTreeMap<String, u64>,
}

/// How many endpoints a service has, and in which condition. One endpoint may count in several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointCounts {
    /// All.
    pub total: u64,
    /// Those that health checks do not hold back: healthy ones, and unknown ones, which are used as well.
    pub healthy: u64,
    /// Those whose circuit is open.
    pub open: u64,
    /// Those taken out of selection by an operator.
    pub draining: u64,
}

/// A row of `mesh endpoints`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The service it serves.
    pub service: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share among the service's endpoints; 0 gets nothing.
    pub weight: u16,
    /// The zone it runs in; null: not known.
    pub zone: Option<String>,
    /// What health checks say.
    pub health: EndpointHealth,
    /// Its circuit.
    pub circuit: CircuitState,
    /// Out of selection, its connections finish.
    pub draining: bool,
    /// Connections open now.
    pub active_connections: u64,
    /// Requests under way now; always 0 where the daemon sees no requests.
    pub active_requests: u64,
    /// Connections that TCP ever began to open.
    pub connections_total: u64,
    /// Connects that failed, for any reason.
    pub connect_failures_total: u64,
    /// Bytes that clients sent to it.
    pub sent_bytes_total: u64,
    /// Bytes that clients received from it.
    pub received_bytes_total: u64,
    /// Moving average of its latency; null: not measured.
    pub latency_ewma_ms: Option<f64>,
    /// The region it runs in; null: not known.
    #[serde(default)]
    pub region: Option<String>,
    /// The node it runs on; null: not known.
    #[serde(default)]
    pub node: Option<String>,
    /// Segments that clients sent again. Null: nobody counts them, without programs in the kernel.
    #[serde(default)]
    pub retransmits_total: Option<u64>,
    /// Mean time from the SYN to the established connection; null: none was established yet.
    #[serde(default)]
    pub connect_ms: Option<f64>,
    /// Connects that the kernel sent to it, whatever came of them. What the proxy picks it for is not among them: that is
    /// in `responses_total` and `connections_total`. Null: there are no programs in the kernel.
    #[serde(default)]
    pub picked_total: Option<u64>,
    /// Connections that ended, those that were never established included.
    #[serde(default)]
    pub connections_closed_total: u64,
    /// Responses that it gave; always 0 where the daemon sees none.
    #[serde(default)]
    pub responses_total: u64,
    /// Those with a status of 500 or more.
    #[serde(default)]
    pub responses_5xx_total: u64,
    /// `connect_failures_total` by reason; reasons that never happened may be left out.
    #[serde(default)]
    pub connect_failures: BTreeMap<String, u64>,
}

/// What a changing request changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// What is different now, old and new: `checkout: policy round_robin → random`. May have several lines.
    pub message: String,
    /// What the operator should know about the new state, like that no endpoint is left.
    #[serde(default)]
    pub warnings: Vec<String>,
}

impl Changed {
    /// A change without warnings.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), warnings: Vec::new() }
    }
}
