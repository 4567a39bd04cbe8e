//! What was counted of services and endpoints, by the kernel and by the proxy.

use super::daemon::{Daemon, State};
use crate::{
    datapath::Datapath,
    kernel::Tables,
    model::Health,
    proxy::{self, EndpointState, Table},
};
use mesh_common::{
    endpoint::{EndpointCounts, EndpointTimes, Picks},
    reason::ServiceCounts,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The counters at one moment. Those of the kernel are zeroes where there is no kernel.
pub(super) struct Counts<'a> {
    kernel: Option<(&'a Tables, &'a Datapath)>,
    pub(super) datapath: Option<&'a Datapath>,
    table: Arc<Table>,
    /// On the clock of the proxy.
    now: Duration,
}

impl<'a> Counts<'a> {
    pub(super) fn new(daemon: &'a Daemon, state: &'a State) -> Self {
        let shared = &daemon.http.shared;
        Self {
            kernel: daemon.tables().zip(state.datapath.as_ref()),
            datapath: state.datapath.as_ref(),
            table: shared.table.load_full(),
            now: shared.now(),
        }
    }

    pub(super) fn endpoint(&self, service: &str, address: SocketAddr) -> EndpointCounts {
        if let Some((tables, datapath)) = self.kernel {
            return datapath.endpoint_counts(tables, service, address);
        }
        let own = self.requests(service).and_then(|s| s.endpoint(address));
        let counts = |e: &Arc<EndpointState>| EndpointCounts {
            transitions: e.transitions.each_ref().map(read),
            ..e.connections.counts()
        };
        own.map(counts).unwrap_or_default()
    }

    pub(super) fn times(&self, service: &str, address: SocketAddr) -> EndpointTimes {
        let times = self.kernel.map(|(tables, datapath)| datapath.endpoint_times(tables, service, address));
        times.unwrap_or_default()
    }

    pub(super) fn picks(&self, service: &str) -> Option<Box<Picks>> {
        self.kernel.map(|(tables, datapath)| Box::new(datapath.picks(tables, service)))
    }

    pub(super) fn health(&self, service: &str, address: SocketAddr) -> Health {
        self.datapath.map_or(Health::Unknown, |datapath| datapath.health(service, address))
    }

    pub(super) fn service(&self, service: &str) -> ServiceCounts {
        let counts = self.kernel.map(|(tables, datapath)| datapath.service_counts(tables, service));
        counts.unwrap_or_default()
    }

    /// A service as the proxy knows it; `None`: there are no requests to it.
    pub(super) fn requests(&self, service: &str) -> Option<&Arc<proxy::Service>> {
        self.table.service(service)
    }

    /// Requests that are on their way to an endpoint, and how long its answers take to begin (an average, in
    /// milliseconds).
    pub(super) fn requests_to(&self, service: &str, address: SocketAddr) -> (u64, Option<f64>) {
        let endpoint = self.requests(service).and_then(|s| s.endpoint(address));
        endpoint.map_or((0, None), |e: &Arc<EndpointState>| {
            let latency = e.latency.get(self.now).map(|us| us / 1000.0);
            (e.active.load(Ordering::Relaxed).into(), latency)
        })
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
