//! What the daemon knows, in the shapes of the contract.

use super::{
    counts::Counts,
    daemon::{Daemon, FILES, State},
    others,
    transitions::{self, Circuits},
};
use crate::{
    api::{self, CircuitState, ConfigStatus, EndpointHealth, Memory, Mode, Refusal, Source, Status, Time},
    config,
    datapath::{Datapath, Limits},
    discovery,
    kernel::{Kernel, OtherProgram},
    model::{self, Endpoint, Health, Service},
    proxy::{self, ServiceState},
};
use mesh_common::{
    endpoint::{EndpointCounts, EndpointTimes},
    names,
    reason::{Failure, Reason},
};
use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

impl Daemon {
    pub(super) fn services(&self, name: Option<&str>) -> Result<Vec<api::Service>, Refusal> {
        self.count_live();
        let state = self.state();
        let counts = Counts::new(self, &state);
        let circuits = Circuits::new(self, &state);
        let wanted = wanted(state.snapshot.services(), name)?;
        Ok(wanted.iter().map(|service| self.service(service, &counts, &circuits)).collect())
    }

    pub(super) fn service(&self, service: &Service, counts: &Counts<'_>, circuits: &Circuits<'_>) -> api::Service {
        let total: Vec<EndpointCounts> =
            service.endpoints.iter().map(|e| counts.endpoint(&service.name, e.address)).collect();
        let state = |e: &Endpoint| transitions::shown(circuits.word(&service.name, e.address), e.tripped);
        let states: Vec<CircuitState> = service.endpoints.iter().map(state).collect();
        let sum = |value: fn(&EndpointCounts) -> u64| total.iter().map(value).sum();
        let reasons = counts.service(&service.name);
        let by_reason = |wanted: fn(Reason) -> bool| -> Option<BTreeMap<String, u64>> {
            let reasons = Reason::ALL.into_iter().filter(|r| wanted(*r)).map(|r| (r, reasons[r as usize]));
            counts.by_kernel(reasons.filter(|(_, n)| *n > 0).map(|(r, n)| (r.word().to_owned(), n)).collect())
        };
        let not_intercepted = self.not_intercepted(service, counts.datapath);
        let responses_5xx_total = counts.requests(&service.name).map_or(0, |service| {
            let own = &service.state().own_responses;
            service.endpoints().map(|(_, e)| &e.responses).chain([own]).map(|responses| responses.sums().1).sum()
        });
        let requests = counts.requests(&service.name).map(|s| s.state());
        let of_requests = |value: fn(&ServiceState) -> u64| requests.map_or(0, |state| value(state));
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let mut addresses = service.addresses.clone();
        addresses.sort();
        api::Service {
            name: service.name.clone(),
            addresses,
            protocol: protocol(service.protocol),
            policy: policy(service.policy),
            circuit: transitions::of_service(states.iter().copied()),
            endpoints: api::EndpointCounts {
                total: count(service.endpoints.len()),
                // What is not known is used.
                healthy: count(
                    service
                        .endpoints
                        .iter()
                        .filter(|e| counts.health(&service.name, e.address) != Health::Unhealthy)
                        .count(),
                ),
                open: count(states.iter().filter(|circuit| **circuit == CircuitState::Open).count()),
                draining: count(service.endpoints.iter().filter(|e| e.draining).count()),
            },
            intercepted: not_intercepted.is_none(),
            not_intercepted_reason: not_intercepted,
            // Without a kernel there are those of the proxy.
            active_connections: match &self.kernel {
                Ok(_) => sum(EndpointCounts::active),
                Err(_) => of_requests(|s| s.connections.load(Ordering::Relaxed).into()),
            },
            connections_total: sum(|c| c.opened),
            connect_failures_total: sum(EndpointCounts::failed),
            retransmits_total: counts.by_kernel(sum(|c| c.retransmits)),
            connects_local_trouble_total: self
                .kernel()
                .is_some_and(Kernel::settles_all)
                .then_some(reasons[Reason::LocalTrouble as usize]),
            sent_bytes_total: sum(|c| c.sent),
            received_bytes_total: sum(|c| c.received),
            connects_refused_total: by_reason(Reason::refuses),
            connects_passed_total: by_reason(Reason::passes),
            active_requests: of_requests(|s| s.active.load(Ordering::Relaxed).into()),
            requests_total: of_requests(|s| s.requests.iter().map(|n| n.load(Ordering::Relaxed)).sum()),
            responses_5xx_total,
            requests_rejected_total: requests.map(|s| by_word(s.rejected.counts())).unwrap_or_default(),
        }
    }

    /// Why connects to a service's VIPs are left alone; `None`: they are translated.
    fn not_intercepted(&self, service: &Service, datapath: Option<&Datapath>) -> Option<String> {
        if let Err(why) = &self.kernel {
            return Some(match service.protocol.is_proxied() {
                true => format!("{why}: {}", self.http.reached()),
                false => why.clone(),
            });
        }
        if self.mode == Mode::Observe {
            return Some("dataplane.mode is observe: connects are counted, not translated".to_owned());
        }
        if self.bypass() {
            return Some("bypass is on".to_owned());
        }
        if let Some(why) = self.kernel().and_then(Kernel::detached) {
            return Some(format!("the programs are {why}"));
        }
        if service.addresses.is_empty() {
            return Some("it has no address".to_owned());
        }
        if datapath.is_some_and(|datapath| service.addresses.iter().all(|vip| datapath.is_bypassed(*vip))) {
            return Some("its addresses are in dataplane.bypass.cidrs".to_owned());
        }
        let held = datapath.is_some_and(|datapath| datapath.holds(&service.name));
        (!held).then(|| "it did not fit into the kernel's tables; `mesh status` says why".to_owned())
    }

    pub(super) fn endpoints(&self, service: Option<&str>) -> Result<Vec<api::Endpoint>, Refusal> {
        self.count_live();
        let state = self.state();
        let counts = Counts::new(self, &state);
        let circuits = Circuits::new(self, &state);
        let wanted = wanted(state.snapshot.services(), service)?;
        let endpoints = wanted.iter().flat_map(|s| {
            let (counts, circuits) = (&counts, &circuits);
            s.endpoints.iter().map(move |e| endpoint(s, e, counts, circuits, &counts.times(&s.name, e.address)))
        });
        Ok(endpoints.collect())
    }

    /// Where services come from, sorted by name.
    fn sources(&self, state: &State) -> Vec<Source> {
        let ago = |at: Duration| Time::now().before(self.started.elapsed().saturating_sub(at));
        let others = state.facts.sources().iter().map(|(source, seen)| Source {
            name: source.word().to_owned(),
            synced: seen.synced,
            last_update: seen.last_update.map(ago),
            error: seen.error.clone().or_else(|| match source {
                discovery::Source::Registry => self.registry.trouble(),
                _ => None,
            }),
            stale_since: seen.lost_at.map(ago),
        });
        let files = Source {
            name: FILES.to_owned(),
            synced: true,
            last_update: Some(state.loaded_at),
            error: state.error.clone(),
            stale_since: None,
        };
        let mut sources: Vec<_> = others.chain([files]).collect();
        sources.sort_by(|a, b| a.name.cmp(&b.name));
        sources
    }

    pub(super) fn status(&self) -> Status {
        let state = self.state();
        let snapshot = Arc::clone(&state.snapshot);
        let counts = Counts::new(self, &state);
        let active = snapshot.services().iter().flat_map(|s| s.endpoints.iter().map(move |e| (s, e.address)));
        let connections = active.map(|(s, address)| counts.endpoint(&s.name, address).active()).sum();
        let used = state.datapath.as_ref().map(Datapath::used);
        let (main, _) = config::places(self.named.as_deref());
        let mut warnings = self.notes.clone();
        if self.bypass() {
            warnings.push("bypass is on: nothing is translated; `mesh bypass off` ends it".to_owned());
        }
        if let (_, Some(why)) = self.interception()
            && self.mode == Mode::Ebpf
            && !self.bypass()
        {
            warnings.push(format!("interception: {why}"));
        }
        let others = self.others().unwrap_or_default();
        warnings.extend(self.warnings_of_others(&others));
        warnings.extend(state.warnings());
        warnings.extend(state.facts.problems().map(str::to_owned));
        warnings.extend(state.facts.trouble());
        warnings.extend(self.names.problem());
        warnings.extend(self.http.troubles());
        warnings.extend(state.datapath.iter().flat_map(|d| d.problems().iter().cloned()));
        let maps = self.maps(used.as_ref());
        Status {
            node: state.config.node.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.started.elapsed().as_secs(),
            mode: self.mode,
            bypass: self.bypass(),
            interception_ok: self.interception().0,
            config: ConfigStatus {
                path: (state.had_main_file || main.exists())
                    .then(|| std::path::absolute(&main).unwrap_or(main).display().to_string()),
                loaded_at: Some(state.loaded_at),
                error: state.error.clone(),
            },
            programs: self.programs(),
            sources: self.sources(&state),
            services: snapshot.services().len() as u64,
            endpoints: snapshot.services().iter().map(|s| s.endpoints.len() as u64).sum(),
            // The kernel knows of all; without it there are those of the proxy.
            connections: if self.kernel.is_ok() { connections } else { self.http.shared.connections() as u64 },
            proxy: self.http.runs().then(|| self.http.status()),
            pid: Some(std::process::id()),
            cgroup: self.cgroup.as_ref().map(|path| path.display().to_string()),
            bpffs: self.kernel().map(|_| state.config.dataplane.bpffs.display().to_string()),
            memory: Some(Memory {
                resident_bytes: resident(),
                kernel_bytes: self.kernel().map(|_| maps.iter().filter_map(|m| m.bytes).sum()),
            }),
            maps,
            other_programs: others.into_iter().map(other_program).collect(),
            warnings,
        }
    }

    fn programs(&self) -> Vec<api::Program> {
        let mut programs: Vec<api::Program> = self
            .kernel()
            .map(|kernel| kernel.programs())
            .unwrap_or_default()
            .into_iter()
            .map(|p| api::Program {
                name: p.name.to_owned(),
                hook: p.hook.to_owned(),
                attached: p.missing.is_none(),
                missing_reason: p.missing,
                runs: p.runs.map(|(runs, _)| runs),
                mean_ns: p.runs.map(|(runs, ns)| ns.checked_div(runs).unwrap_or(0)),
            })
            .collect();
        programs.sort_by(|a, b| a.name.cmp(&b.name));
        programs
    }

    fn maps(&self, used: Option<&Limits>) -> Vec<api::Map> {
        let maps = self.kernel().map(|kernel| kernel.maps()).unwrap_or_default();
        let mut maps: Vec<api::Map> = maps
            .into_iter()
            .map(|map| api::Map {
                name: map.name.to_owned(),
                entries: used.and_then(|used| entries(map.name, used)),
                capacity: u64::from(map.capacity),
                bytes: Some(map.bytes),
            })
            .collect();
        maps.sort_by(|a, b| a.name.cmp(&b.name));
        maps
    }

    /// Programs of others at our hooks; `None`: there are none of ours, or the kernel does not say.
    pub(super) fn others(&self) -> Option<Vec<OtherProgram>> {
        self.kernel()?.others().ok()
    }

    /// What is worth a word about programs of others.
    pub(super) fn warnings_of_others(&self, others: &[OtherProgram]) -> Vec<String> {
        others.iter().filter_map(others::warning).collect()
    }
}

fn other_program(other: OtherProgram) -> api::OtherProgram {
    let OtherProgram { hook, id, name, runs_first, .. } = other;
    api::OtherProgram { hook: hook.to_owned(), id, name, runs_first }
}

pub(super) fn wanted<'a>(services: &'a [Arc<Service>], name: Option<&str>) -> Result<&'a [Arc<Service>], Refusal> {
    let Some(name) = name else { return Ok(services) };
    match services.binary_search_by(|s| s.name.as_str().cmp(name)) {
        Ok(i) => Ok(&services[i..=i]),
        Err(_) => Err(Refusal::not_found(format!("no service is named {name:?}; `mesh services` lists them"))),
    }
}

pub(super) fn endpoint(
    service: &Service,
    endpoint: &Endpoint,
    all: &Counts<'_>,
    circuits: &Circuits<'_>,
    times: &EndpointTimes,
) -> api::Endpoint {
    let address = endpoint.address;
    let counts = all.endpoint(&service.name, address);
    let seen = all.requests_to(&service.name, address);
    let known = |text: &String| Some(text.clone()).filter(|t| !t.is_empty());
    let failures = Failure::ALL.into_iter().map(|f| (f.word().to_owned(), counts.failures[f as usize]));
    api::Endpoint {
        service: service.name.clone(),
        address,
        weight: endpoint.weight,
        zone: known(&endpoint.zone),
        health: health(all.health(&service.name, address)),
        circuit: transitions::shown(circuits.word(&service.name, address), endpoint.tripped),
        draining: endpoint.draining,
        active_connections: counts.active(),
        active_requests: seen.active,
        connections_total: counts.opened,
        connect_failures_total: counts.failed(),
        sent_bytes_total: counts.sent,
        received_bytes_total: counts.received,
        latency_ewma_ms: seen.latency_ms,
        retransmits_total: all.by_kernel(counts.retransmits),
        connect_ms: times.connect.mean_ns().map(|ns| ns as f64 / 1e6),
        region: known(&endpoint.region),
        node: known(&endpoint.node),
        picked_total: all.by_kernel(counts.picked),
        connections_closed_total: counts.closed,
        responses_total: seen.responses,
        responses_5xx_total: seen.responses_5xx,
        connect_failures: failures.filter(|(_, n)| *n > 0).collect(),
    }
}

/// How many entries of a map are in use.
pub(super) fn entries(map: &str, used: &Limits) -> Option<u64> {
    let entries = match map {
        names::VIPS => used.vips,
        names::SERVICES | names::SERVICE_STATES | names::SERVICE_COUNTS | names::PICKS => used.services,
        names::ENDPOINTS | names::ENDPOINT_STATES | names::ENDPOINT_COUNTS | names::ENDPOINT_TIMES => used.endpoints,
        names::SLOTS => used.slots,
        names::SETTINGS => 1,
        _ => return None,
    };
    Some(u64::from(entries))
}

/// Numbers by the word of their reason.
fn by_word(counts: impl Iterator<Item = (proxy::Reason, u64)>) -> BTreeMap<String, u64> {
    counts.map(|(reason, n)| (reason.word().to_owned(), n)).collect()
}

fn protocol(protocol: model::Protocol) -> api::Protocol {
    match protocol {
        model::Protocol::Tcp => api::Protocol::Tcp,
        model::Protocol::Http => api::Protocol::Http,
        model::Protocol::Grpc => api::Protocol::Grpc,
        model::Protocol::Auto => api::Protocol::Auto,
    }
}

pub(super) fn health(health: Health) -> EndpointHealth {
    match health {
        Health::Unknown => EndpointHealth::Unknown,
        Health::Healthy => EndpointHealth::Healthy,
        Health::Unhealthy => EndpointHealth::Unhealthy,
    }
}

pub(super) fn policy(policy: model::Policy) -> api::Policy {
    match policy {
        model::Policy::RoundRobin => api::Policy::RoundRobin,
        model::Policy::Random => api::Policy::Random,
        model::Policy::LeastConnections => api::Policy::LeastConnections,
        model::Policy::Maglev => api::Policy::Maglev,
        model::Policy::PeakEwma => api::Policy::PeakEwma,
    }
}

/// Resident memory of this process in bytes.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kib: u64 = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}
