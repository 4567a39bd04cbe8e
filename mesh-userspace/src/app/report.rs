//! Everything that is exported as metrics, at one moment.

use super::{
    answer::entries,
    counts::Counts,
    daemon::{Daemon, FILES},
    transitions::Circuits,
};
use crate::{
    config::Mode,
    datapath::Datapath,
    discovery::{Source, SourceState},
    kernel::{Kernel, Untold},
    model::{Endpoint, Health},
    telemetry::{
        HttpReport,
        metrics::{EndpointReport, LogsReport, Report, ServiceReport, SourceReport, Uncounted},
    },
};
use mesh_common::breaker;
use std::sync::{Arc, PoisonError};

impl Daemon {
    /// Everything that is exported as metrics.
    pub(super) fn report(&self) -> Report {
        self.count_live();
        let mut state = self.state();
        state.departed.expire(self.started.elapsed());
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
            let picks = counts.picks(&service.name, picked);
            ServiceReport { name: service.name.clone(), counts: counts.service(&service.name), picks, endpoints }
        });
        let mut services: Vec<ServiceReport> = services.collect();
        state.departed.add_to(&mut services, self.tables());
        let (gone, responses) = state.departed.requests();
        let requests = state.snapshot.services().iter().filter_map(|service| counts.requests(&service.name));
        let http = HttpReport {
            services: requests.filter(|service| service.state().was_asked()).chain(gone).map(Arc::clone).collect(),
            departed: responses,
            rejected: self.http.shared.rejected.counts().collect(),
            connections: self.http.runs().then(|| self.http.shared.connections() as u64),
        };
        let used = state.datapath.as_ref().map(Datapath::used);
        let programs = self.kernel().map(Kernel::programs).unwrap_or_default();
        let maps = self.kernel().map(|kernel| kernel.maps()).unwrap_or_default();
        Report {
            services,
            http,
            uncounted: match self.kernel() {
                None => Uncounted::Kernel,
                Some(kernel) if !kernel.settles_all() => Uncounted::LocalTrouble,
                Some(_) => Uncounted::Nothing,
            },
            attached: programs.iter().map(|p| (p.name, p.missing.is_none())).collect(),
            programs: programs.into_iter().filter_map(|p| p.runs.map(|(runs, ns)| (p.name, runs, ns))).collect(),
            maps: maps
                .into_iter()
                .map(|m| {
                    let entries = used.as_ref().and_then(|used| entries(m.name, used));
                    (m.name, entries, u64::from(m.capacity), m.bytes)
                })
                .collect(),
            sources: {
                let of_files = SourceReport {
                    name: FILES,
                    synced: true,
                    lost: false,
                    updates: state.updates,
                    errors: state.reload_failures,
                };
                let other = |(source, state): (&Source, &SourceState)| SourceReport {
                    name: source.word(),
                    synced: state.synced,
                    lost: state.lost_at.is_some(),
                    updates: state.updates,
                    errors: match source {
                        Source::Registry => state.errors.saturating_add(self.registry.errors()),
                        _ => state.errors,
                    },
                };
                state.facts.sources().iter().map(other).chain([of_files]).collect()
            },
            reload_failures: state.reload_failures,
            configuration_refused: state.error.is_some(),
            interception_ok: self.interception().0,
            interception_wanted: !matches!(state.config.dataplane.mode, Mode::Userspace | Mode::Observe),
            bypass: self.bypass(),
            traces: self.http.tracing.report(),
            problems: state.datapath.as_ref().map_or(0, |d| d.problems().len() as u64),
            logs: {
                let (lines, bytes) = self.logs.ring.size();
                let Untold { ended, refused } = *self.untold.lock().unwrap_or_else(PoisonError::into_inner);
                LogsReport {
                    told: self.logs.told(),
                    dropped: [
                        ("queue", self.logs.dropped()),
                        ("stderr", self.levels.outlet().dropped()),
                        ("kernel", ended),
                        ("refused", refused),
                    ],
                    kept: (lines as u64, bytes as u64),
                }
            },
        }
    }
}
