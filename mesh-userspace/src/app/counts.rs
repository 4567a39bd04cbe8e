//! What was counted of services and endpoints, by the kernel and by the proxy.

use super::daemon::{Daemon, State};
use crate::{
    datapath::Datapath,
    kernel::Tables,
    model::Health,
    policy::Tier,
    proxy::{self, EndpointState, Table},
    telemetry::metrics::Picked,
};
use mesh_common::{
    endpoint::{EndpointCounts, EndpointTimes},
    reason::ServiceCounts,
    service::Policy,
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

/// What the proxy has seen of an endpoint.
#[derive(Default)]
pub(super) struct Seen {
    /// Requests that are on their way.
    pub(super) active: u64,
    /// How long its answers take to begin: an average; `None`: not measured.
    pub(super) latency_ms: Option<f64>,
    pub(super) responses: u64,
    /// Those with a status of 500 or more.
    pub(super) responses_5xx: u64,
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

    /// A number that only the kernel's programs count; `None`: there are none, so that a zero would be made up.
    pub(super) fn by_kernel<T>(&self, counted: T) -> Option<T> {
        self.kernel.is_some().then_some(counted)
    }

    pub(super) fn times(&self, service: &str, address: SocketAddr) -> EndpointTimes {
        let times = self.kernel.map(|(tables, datapath)| datapath.endpoint_times(tables, service, address));
        times.unwrap_or_default()
    }

    /// What was picked, for connections and for requests, apart: the kernel's counters outlive those of the proxy.
    /// `connects`: whether the kernel has any to tell, which costs a system call.
    pub(super) fn picks(&self, service: &str, connects: bool) -> Vec<Picked> {
        let own = self.requests(service).map(|service| service.state().picks.counts().collect::<Vec<_>>());
        let own = own.unwrap_or_default().into_iter();
        let mut picks: Vec<Picked> = own.map(|(policy, tier, n)| (policy.word(), tier.word(), "request", n)).collect();
        let kernel = self.kernel.filter(|_| connects).map(|(tables, datapath)| datapath.picks(tables, service));
        for (policy, tiers) in Policy::ALL.into_iter().zip(kernel.iter().flatten()) {
            for (tier, n) in Tier::ALL.into_iter().zip(tiers).filter(|(_, n)| **n > 0) {
                picks.push((policy.word(), tier.word(), "connect", *n));
            }
        }
        picks
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

    /// What the proxy has seen of an endpoint.
    pub(super) fn requests_to(&self, service: &str, address: SocketAddr) -> Seen {
        let endpoint = self.requests(service).and_then(|s| s.endpoint(address));
        endpoint.map_or_else(Seen::default, |e: &Arc<EndpointState>| {
            let latency_ms = e.latency.get(self.now).map(|us| us / 1000.0);
            let (responses, responses_5xx) = e.responses.sums();
            Seen { active: e.active.load(Ordering::Relaxed).into(), latency_ms, responses, responses_5xx }
        })
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
