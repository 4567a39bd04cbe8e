//! The daemon behind the operator's door.

use super::{
    daemon::{Daemon, NotReloaded, Reloaded, State},
    explain::Asked,
    secrets::{MASK, Secrets, is_named_so},
    succession::Succession,
};
use crate::{
    api::{
        BoxFuture, Changed, Door, EventSource, HandOver, Health, HealthComponent, Kind, Logs, Mode, Policy as Word,
        Reader, Readiness, Refusal, Request, Response, Viewer,
    },
    config,
    kernel::Kernel,
    model::{BreakerOverride, Endpoint, OverrideError, Policy, Service},
    telemetry::metrics,
};
use mesh_common::settings::flags;
use std::{net::SocketAddr, ops::ControlFlow, path::PathBuf, sync::Arc};

/// Answers at the door.
#[derive(Debug)]
pub(super) struct Doorkeeper(pub(super) Arc<Daemon>, pub(super) Arc<Succession>);

impl Door for Doorkeeper {
    fn without_secrets(&self, answer: Response) -> Response {
        let secrets = Secrets::default();
        match answer {
            Response::Config(config) => Response::Config(secrets.without(config)),
            Response::Status(mut status) => {
                secrets.clean_status(&mut status);
                Response::Status(status)
            }
            Response::Registry(mut instances) => {
                let metadata = instances.iter_mut().flat_map(|instance| &mut instance.metadata);
                metadata.filter(|(name, _)| is_named_so(name)).for_each(|(_, value)| *value = MASK.to_owned());
                Response::Registry(instances)
            }
            other => other,
        }
    }

    fn handle(&self, request: Request) -> BoxFuture<'_, Result<Response, Refusal>> {
        let daemon = Arc::clone(&self.0);
        Box::pin(async move {
            daemon.refuse_circles(&request)?;
            let doubts = |service: &str, address, weight| daemon.not_as_registered(service, address, weight);
            // Thousands of them say again and again that they are alive: that must cost next to nothing.
            let request = match daemon.registry.handle(request, &doubts).await {
                Ok(answer) => return answer,
                Err(other) => other,
            };
            // Reading files and large tables may block; other requests go on meanwhile.
            let done = tokio::task::spawn_blocking(move || daemon.answer(request)).await;
            done.map_err(|e| Refusal::internal(format!("the request was not finished: {e}")))?
        })
    }

    fn metrics(&self, sink: &mut dyn FnMut(Vec<u8>) -> ControlFlow<()>) -> Result<(), Refusal> {
        let printed = metrics::encode(&self.0.report(), sink);
        printed.map_err(|e| Refusal::internal(format!("the metrics cannot be printed: {e}")))
    }

    fn health(&self) -> Health {
        let component = |ok, detail| HealthComponent { ok, detail };
        let dataplane = match &self.0.kernel {
            Ok(kernel) => match kernel.detached() {
                None => component(true, Some(at_work(kernel))),
                Some(why) => component(false, Some(format!("programs are {why}"))),
            },
            Err(why) => component(false, Some(why.clone())),
        };
        let (works, why) = self.0.interception();
        let why = why.or_else(|| works.is_none().then(|| "not probed yet".to_owned()));
        let interception = component(works != Some(false), why);
        let mut components = vec![("dataplane", dataplane), ("interception", interception)];
        components.extend(self.0.http.health());
        components.push(("registry", self.0.registry.health()));
        if let Some(others) = self.0.others() {
            let (others, warnings) = (others.len(), self.0.warnings_of_others(&others));
            let detail = match warnings.is_empty() {
                true => format!("{others} programs of others at our hooks"),
                false => warnings.join("; "),
            };
            components.push(("other_programs", component(warnings.is_empty(), Some(detail))));
        }
        // The state's lock is not waited for: this answers when everything else is stuck.
        Health { ok: true, components: components.into_iter().map(|(name, it)| (name.to_owned(), it)).collect() }
    }

    fn ready(&self) -> Readiness {
        self.0.readiness()
    }

    fn live(&self) -> Viewer {
        self.0.screen.look()
    }

    fn take_over(&self) -> Result<HandOver, Refusal> {
        self.1.begin(&self.0)
    }

    fn watch(&self, service: String, after: Option<u64>) -> BoxFuture<'_, Result<Reader, Refusal>> {
        let daemon = Arc::clone(&self.0);
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(move || daemon.watch(&service, after)).await;
            done.map_err(|e| Refusal::internal(format!("the request was not finished: {e}")))?
        })
    }

    fn follow_logs(
        &self,
        mut wanted: Logs,
        after: Option<u64>,
    ) -> BoxFuture<'_, Result<Box<dyn EventSource>, Refusal>> {
        let daemon = Arc::clone(&self.0);
        Box::pin(async move {
            if let Some(endpoint) = &mut wanted.endpoint {
                endpoint.set_ip(endpoint.ip().to_canonical());
            }
            let done = tokio::task::spawn_blocking(move || daemon.follow_logs(wanted, after)).await;
            let follower = done.map_err(|e| Refusal::internal(format!("the request was not finished: {e}")))??;
            Ok(Box::new(follower) as Box<dyn EventSource>)
        })
    }
}

/// How many programs are attached, and which are not.
fn at_work(kernel: &Kernel) -> String {
    let missing = kernel.programs().into_iter().filter(|program| program.missing.is_some());
    let missing: Vec<String> = missing.map(|program| format!("{} ({})", program.name, program.hook)).collect();
    let without = if missing.is_empty() { String::new() } else { format!("; left out: {}", missing.join(", ")) };
    format!("{} programs attached{without}", kernel.attached())
}

impl Daemon {
    /// Whether the node can be relied upon. Must not block.
    pub(super) fn readiness(&self) -> Readiness {
        let mut reasons = Vec::new();
        match &self.kernel {
            Err(why) => reasons.push(format!("no programs are attached: {why}; {}", self.http.reached())),
            Ok(kernel) => match kernel.detached() {
                Some(why) => reasons.push(format!("programs are {why}")),
                // Whoever switched it off knows; in observe mode nothing is to be intercepted.
                None if self.bypass() || self.mode == Mode::Observe => {}
                None => {
                    if let (Some(false), Some(why)) = self.interception() {
                        reasons.push(format!("interception does not work: {why}"));
                    }
                }
            },
        }
        if let Err(why) = self.http.liveness() {
            reasons.push(why);
        }
        reasons.extend(self.unsynced().iter().cloned());
        if self.is_stopping() {
            reasons.push("the daemon is stopping".to_owned());
        }
        Readiness { ready: reasons.is_empty(), reasons }
    }

    fn answer(&self, request: Request) -> Result<Response, Refusal> {
        match canonical(request) {
            Request::Status => Ok(Response::Status(Box::new(self.status()))),
            Request::Services { name } => self.services(name.as_deref()).map(Response::Services),
            Request::Endpoints { service } => self.endpoints(service.as_deref()).map(Response::Endpoints),
            Request::Connections(wanted) => self.connections(&wanted).map(Response::Connections),
            Request::Logs(wanted) => self.logs(&wanted).map(Response::Logs),
            Request::LogLevels => Ok(Response::LogLevels(self.log_levels())),
            Request::SetLogLevel { directive } => self.set_log_level(&directive).map(Response::Changed),
            Request::Explain { address, host, path, zone } => {
                let (host, path, zone) = (host.as_deref(), path.as_deref(), zone.as_deref());
                let explained = self.explain(&Asked { address, host, path, zone })?;
                Ok(Response::Explanation(Box::new(explained)))
            }
            Request::Traces(wanted) => self.traces(&wanted).map(Response::Traces),
            Request::Trace { id } => self.trace(&id).map(|found| Response::Trace(Box::new(found))),
            Request::ConfigDump => self.dump().map(Response::Config),
            Request::ConfigReload => self.reload_now().map(Response::Changed),
            Request::EndpointDrain { service, address, persist } => {
                self.change_endpoint(&service, address, persist, EndpointChange::Draining(true))
            }
            Request::EndpointUndrain { service, address, persist } => {
                self.change_endpoint(&service, address, persist, EndpointChange::Draining(false))
            }
            Request::EndpointWeight { service, address, weight, persist } => {
                self.change_endpoint(&service, address, persist, EndpointChange::Weight(weight))
            }
            Request::LbSet { service, policy, persist } => self.set_policy(&service, policy, persist),
            Request::Circuits { service } => self.circuits(service.as_deref()).map(Response::Circuits),
            Request::CircuitTrip { service, address } => self.trip_circuit(&service, address),
            Request::CircuitReset { service, address } => self.reset_circuit(&service, address),
            Request::CircuitSet { service, failure_threshold, reset_timeout, persist } => {
                self.set_breaker(&service, BreakerOverride { failure_threshold, reset_timeout }, persist)
            }
            Request::Bypass { on } => self.set_bypass(on),
            Request::Registry { service } => self.registered(service.as_deref()).map(Response::Registry),
            Request::Instance { service, id } => {
                self.registered_instance(&service, &id).map(|found| Response::Instance(Box::new(found)))
            }
            Request::Register(_) | Request::Heartbeat { .. } | Request::Deregister { .. } => {
                Err(Refusal::internal("the registry did not take it"))
            }
        }
    }

    fn reload_now(&self) -> Result<Changed, Refusal> {
        drop(self.state_to_change()?);
        match self.reload("asked by an operator") {
            Ok(Reloaded::Same) => Ok(Changed::new("configuration unchanged")),
            Ok(Reloaded::Changed { services: (before, after), warnings }) => {
                Ok(Changed { message: format!("configuration reloaded: services {before} → {after}"), warnings })
            }
            Err(NotReloaded { why, later: false }) => {
                Err(Refusal::invalid(format!("the running configuration stays: {why}")))
            }
            Err(NotReloaded { why, later: true }) => Err(Refusal::new(Kind::Unavailable, why)),
        }
    }

    fn change_endpoint(
        &self,
        service: &str,
        address: SocketAddr,
        persist: bool,
        change: EndpointChange,
    ) -> Result<Response, Refusal> {
        let mut state = self.state_to_change()?;
        let mut endpoints = state.snapshot.service(service).map(|s| s.endpoints.clone()).unwrap_or_default();
        let mut was = 0;
        if let Some(endpoint) = endpoints.iter_mut().find(|e| e.address == address) {
            if let Some(why) = change.is_already(endpoint).filter(|_| !persist) {
                return Err(Refusal::new(Kind::Conflict, format!("{service}: endpoint {address} {why}")));
            }
            was = endpoint.weight;
            change.apply(endpoint);
        }
        let written = if persist { self.persist_endpoint(&mut state, service, address, change)? } else { None };
        let problems = self
            .change(&mut state, |overrides, services| match change {
                EndpointChange::Draining(draining) => overrides.set_draining(services, service, address, draining),
                EndpointChange::Weight(weight) => overrides.set_weight(services, service, address, weight),
            })
            .map_err(refusal)?;
        drop(state);
        let message = match change {
            EndpointChange::Draining(true) => {
                format!("{service}: endpoint {address} is draining: its connections finish, it gets no new ones")
            }
            EndpointChange::Draining(false) => format!("{service}: endpoint {address} is back in selection"),
            EndpointChange::Weight(weight) => format!("{service}: endpoint {address} weight {was} → {weight}"),
        };
        let mut changed = changed(message, written);
        changed.warnings = problems;
        changed.warnings.extend(nothing_left(service, &endpoints));
        Ok(Response::Changed(changed))
    }

    fn set_policy(&self, service: &str, policy: Word, persist: bool) -> Result<Response, Refusal> {
        let new = match policy {
            Word::RoundRobin => Policy::RoundRobin,
            Word::Random => Policy::Random,
            Word::LeastConnections => Policy::LeastConnections,
            Word::Maglev => Policy::Maglev,
            Word::PeakEwma => Policy::PeakEwma,
        };
        let mut state = self.state_to_change()?;
        if new == Policy::PeakEwma
            && let Some(tcp) = state.snapshot.service(service).filter(|s| !s.protocol.is_proxied())
        {
            let why = format!(
                "{service}: {} measures requests, but the protocol of the service is {}; write protocol: http in its \
                 configuration first, or set a policy such as {}",
                new.word(),
                tcp.protocol.word(),
                Policy::LeastConnections.word(),
            );
            return Err(Refusal::new(Kind::Conflict, why));
        }
        let before = state.snapshot.service(service).map(|s| s.policy.word());
        let mut written = None;
        if persist && let Some(fact) = fact_to_persist(&mut state, service)? {
            written = Some(self.persist(service, config::Change::Policy(new))?);
            fact.policy = new;
        }
        let set = self.change(&mut state, |overrides, services| overrides.set_policy(services, service, new));
        let problems = set.map_err(refusal)?;
        drop(state);
        let message = format!("{service}: policy {} → {}", before.unwrap_or("none"), new.word());
        Ok(Response::Changed(Changed { warnings: problems, ..changed(message, written) }))
    }

    /// Writes a change of an endpoint, before it is made: one that cannot be kept is not made at all. What is written
    /// is what the files say with this one change, not what else was changed for the time being.
    fn persist_endpoint(
        &self,
        state: &mut State,
        service: &str,
        address: SocketAddr,
        change: EndpointChange,
    ) -> Result<Option<PathBuf>, Refusal> {
        let Some(fact) = fact_to_persist(state, service)? else { return Ok(None) };
        let mut endpoints = fact.endpoints.clone();
        let Some(endpoint) = endpoints.iter_mut().find(|e| e.address == address) else {
            let why = format!("{address} of {service} does not come from the files");
            return Err(Refusal::new(Kind::Conflict, format!("--persist is not possible: {why}; {WITHOUT}")));
        };
        change.apply(endpoint);
        let written = self.persist(service, config::Change::Endpoints(endpoints.clone()))?;
        // The files say so from now on, also to the next change that comes before they are read again.
        fact.endpoints = endpoints;
        Ok(Some(written))
    }

    /// Writes a change to `conf.d`.
    pub(super) fn persist(&self, service: &str, change: config::Change) -> Result<PathBuf, Refusal> {
        let (_, directory) = config::places(self.named.as_deref());
        config::persist(&directory, service, change).map_err(|why| {
            let message = format!("nothing was changed, because --persist is not possible: {why}; try without it");
            Refusal::new(Kind::Conflict, message)
        })
    }

    fn set_bypass(&self, on: bool) -> Result<Response, Refusal> {
        let Some(tables) = self.tables() else {
            let why = self.kernel.as_ref().err().map_or("", String::as_str);
            return Err(Refusal::new(Kind::Conflict, format!("nothing is intercepted, so nothing to bypass: {why}")));
        };
        let _state = self.state_to_change()?;
        tables.set_flag(flags::BYPASS, on);
        tracing::warn!(on, "bypass switched");
        self.truth.doubt();
        Ok(Response::Changed(Changed::new(if on {
            "bypass on: every hook passes everything untouched, VIPs lead nowhere"
        } else {
            "bypass off: VIPs are translated"
        })))
    }

    fn dump(&self) -> Result<serde_json::Value, Refusal> {
        let config = self.state().whole_config();
        serde_json::to_value(config).map_err(|e| Refusal::internal(format!("the configuration cannot be written: {e}")))
    }

    pub(super) fn kernel(&self) -> Option<&Kernel> {
        self.kernel.as_ref().ok()
    }
}

/// The request with a v4-mapped address as the IPv4 address that it is to the hooks.
fn canonical(mut request: Request) -> Request {
    match &mut request {
        Request::Explain { address, .. }
        | Request::EndpointDrain { address, .. }
        | Request::EndpointUndrain { address, .. }
        | Request::EndpointWeight { address, .. } => address.set_ip(address.ip().to_canonical()),
        Request::CircuitTrip { address: Some(address), .. } | Request::CircuitReset { address: Some(address), .. } => {
            address.set_ip(address.ip().to_canonical());
        }
        Request::Connections(wanted) => {
            if let Some(endpoint) = &mut wanted.endpoint {
                endpoint.set_ip(endpoint.ip().to_canonical());
            }
        }
        Request::Logs(wanted) => {
            if let Some(endpoint) = &mut wanted.endpoint {
                endpoint.set_ip(endpoint.ip().to_canonical());
            }
        }
        _ => {}
    }
    request
}

/// What can be changed about an endpoint.
#[derive(Clone, Copy)]
enum EndpointChange {
    Draining(bool),
    Weight(u16),
}

impl EndpointChange {
    /// Why the change makes no sense on this endpoint.
    fn is_already(self, endpoint: &Endpoint) -> Option<&'static str> {
        match self {
            Self::Draining(true) if endpoint.draining => Some("is draining already"),
            Self::Draining(false) if !endpoint.draining => Some("is not draining"),
            _ => None,
        }
    }

    fn apply(self, endpoint: &mut Endpoint) {
        match self {
            Self::Draining(draining) => endpoint.draining = draining,
            Self::Weight(weight) => endpoint.weight = weight,
        }
    }
}

/// What is worth a word where none of a service's endpoints is left.
pub(super) fn nothing_left(service: &str, endpoints: &[Endpoint]) -> Option<String> {
    let left = endpoints.iter().any(|e| !e.draining && !e.tripped && e.weight > 0);
    (!left).then(|| format!("no endpoint of {service} is left: its connections are refused now"))
}

/// What was changed, logged as well: whoever reads the log later wants to know what an operator did.
pub(super) fn changed(message: String, written: Option<PathBuf>) -> Changed {
    tracing::info!("operator: {message}");
    match written {
        Some(path) => Changed::new(format!("{message}\nwritten to {}", path.display())),
        None => Changed::new(message),
    }
}

pub(super) fn refusal(error: OverrideError) -> Refusal {
    Refusal::not_found(error.to_string())
}

/// What to do about a change that cannot be kept.
const WITHOUT: &str = "change it where it comes from, or try without --persist";

/// What the files say of a service, to be changed for good; `None`: there is no such service.
///
/// # Errors
/// [`Refusal`], if the service is not from the files: what would be written there would be half a service.
pub(super) fn fact_to_persist<'s>(state: &'s mut State, service: &str) -> Result<Option<&'s mut Service>, Refusal> {
    let known = state.snapshot.service(service).is_some();
    match state.fact(service) {
        None if known => {
            let why = format!("{service} does not come from the files");
            Err(Refusal::new(Kind::Conflict, format!("--persist is not possible: {why}; {WITHOUT}")))
        }
        fact => Ok(fact),
    }
}
