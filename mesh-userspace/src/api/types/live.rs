//! A moment of the whole node, as those see it who watch it live.

use super::{Endpoint, Service, Status, Time};
use crate::api::Readiness;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// Everything at one moment: the data of a `snapshot`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// When this was.
    pub time: Time,
    /// The daemon as a whole.
    pub status: Status,
    /// What `/ready` says.
    pub ready: Readiness,
    /// Everything together.
    pub totals: Totals,
    /// Every service, sorted by name.
    pub services: Vec<LiveService>,
    /// The endpoints of as many services as fit, sorted by service, then address.
    pub endpoints: Vec<LiveEndpoint>,
    /// How many endpoints did not fit.
    pub endpoints_left_out: u64,
}

/// A service, and what is asked of it now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LiveService {
    /// As in `/v1/services`.
    #[serde(flatten)]
    pub service: Service,
    /// Since the moment before.
    #[serde(flatten)]
    pub rates: Rates,
    /// From the head of a request to the end of its answer; null: there was none lately.
    pub request_percentiles: Option<Percentiles>,
    /// From the SYN to the established connection; null: there was none lately, or no kernel measured it.
    pub connect_percentiles: Option<Percentiles>,
}

/// An endpoint, and what is asked of it now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LiveEndpoint {
    /// As in `/v1/endpoints`.
    #[serde(flatten)]
    pub endpoint: Endpoint,
    /// Since the moment before.
    #[serde(flatten)]
    pub rates: Rates,
    /// From the SYN to the established connection; null: there was none lately, or no kernel measured it.
    pub connect_percentiles: Option<Percentiles>,
}

/// What happens a second, to a tenth; null: there was no moment before to compare with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Requests; of an endpoint its responses.
    pub requests_per_s: Option<f64>,
    /// Responses with a status of 500 or more.
    pub responses_5xx_per_s: Option<f64>,
    /// Connections that TCP began to open.
    pub connections_per_s: Option<f64>,
    /// Connects that failed.
    pub connect_failures_per_s: Option<f64>,
    /// Bytes that clients sent.
    pub sent_bytes_per_s: Option<f64>,
    /// Bytes that clients received.
    pub received_bytes_per_s: Option<f64>,
}

/// How long things took: the time within which so many of a hundred were done, as a histogram tells it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half of them.
    pub p50_ms: f64,
    /// 90 of 100.
    pub p90_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
}

/// All services together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Since the moment before.
    #[serde(flatten)]
    pub rates: Rates,
    /// Requests, ever.
    pub requests_total: u64,
    /// Responses with a status of 500 or more, ever.
    pub responses_5xx_total: u64,
    /// Connections, ever.
    pub connections_total: u64,
    /// Connects that failed, ever.
    pub connect_failures_total: u64,
    /// Bytes that clients sent, ever.
    pub sent_bytes_total: u64,
    /// Bytes that clients received, ever.
    pub received_bytes_total: u64,
    /// Requests on their way now.
    pub active_requests: u64,
    /// Connections open now.
    pub active_connections: u64,
    /// Endpoints whose circuit is open.
    pub open_circuits: u64,
    /// Endpoints that health checks hold back.
    pub unhealthy: u64,
    /// Endpoints taken out of selection.
    pub draining: u64,
}

/// What tells an endpoint from all others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EndpointKey {
    /// The service it serves.
    pub service: String,
    /// Where it listens.
    pub address: SocketAddr,
}
