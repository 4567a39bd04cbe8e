//! Everything that is exported as metrics, at one moment.

use super::{
    answer::entries,
    counts::Counts,
    daemon::{Daemon, FILES},
    transitions::Circuits,
};
use crate::{
    datapath::Datapath,
    model::{Endpoint, Health},
    policy::Tier,
    telemetry::{
        HttpReport,
        metrics::{EndpointReport, Report, ServiceReport},
    },
};
use mesh_common::breaker;
use std::sync::Arc;

impl Daemon {
    /// Everything that is exported as metrics.
    pub(super) fn report(&self) -> Report {
        self.count_live();
        let state = self.state();
        let counts = Counts::new(self, &state);
        let circuits = Circuits::new(self, &state);
        let services = state.snapshot.services().iter().map(|service| {
            let endpoint = |e: &Endpoint| EndpointReport {
                address: e.address.to_string(),
                counts: counts.endpoint(&service.name, e.address),
                circuit: circuits.known(&service.name, e.address).map(|word| match e.tripped {
                    true => breaker::State::Open,
                    false => word.state(),
                }),
                healthy: match counts.health(&service.name, e.address) {
                    Health::Unknown => None,
                    health => Some(health == Health::Healthy),
                },
                times: Some(counts.times(&service.name, e.address))
                    .filter(|times| times.connect.count() > 0)
                    .map(Box::new),
            };
            let endpoints: Vec<EndpointReport> = service.endpoints.iter().map(endpoint).collect();
            // A system call, so only where there is something to read.
            let picked = endpoints.iter().any(|e| e.counts.picked > 0);
            let picks = picked.then(|| counts.picks(&service.name)).flatten();
            ServiceReport { name: service.name.clone(), counts: counts.service(&service.name), picks, endpoints }
        });
        let services = services.collect();
        let requests = state.snapshot.services().iter().filter_map(|service| counts.requests(&service.name));
        let http = HttpReport {
            services: requests.filter(|service| service.state().was_asked()).map(Arc::clone).collect(),
            rejected: self.http.shared.rejected.counts().collect(),
            connections: self.http.runs().then(|| self.http.shared.connections() as u64),
        };
        let used = state.datapath.as_ref().map(Datapath::used);
        let programs = self.kernel().filter(|_| state.config.dataplane.program_stats).map(|k| k.programs());
        let maps = self.kernel().map(|kernel| kernel.maps()).unwrap_or_default();
        Report {
            services,
            http,
            tiers: Tier::ALL.into_iter().map(Tier::word).collect(),
            programs: programs
                .unwrap_or_default()
                .into_iter()
                .filter_map(|p| p.runs.map(|(runs, ns)| (p.name, runs, ns)))
                .collect(),
            maps: maps
                .into_iter()
                .map(|m| {
                    let entries = used.as_ref().and_then(|used| entries(m.name, used));
                    (m.name, entries, u64::from(m.capacity), m.bytes)
                })
                .collect(),
            sources: vec![(FILES, true, state.updates, state.reload_failures)],
            reload_failures: state.reload_failures,
            interception_ok: self.interception().0,
            bypass: self.bypass(),
            problems: state.datapath.as_ref().map_or(0, |d| d.problems().len() as u64),
        }
    }
}
