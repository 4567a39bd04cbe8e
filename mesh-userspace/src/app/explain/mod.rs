//! What a connection to an address, or a request, would meet now: asked of the rows that the connect hook reads, and of
//! what workers look requests up in.

mod alone;
mod request;
mod route;

use super::{
    answer::{health, policy as policy_word},
    daemon::{Daemon, State, now},
    transitions::{self, Circuits},
};
use crate::{
    api::{Candidate, CircuitState, Decision, Explanation, Kind, Mode, Refusal},
    datapath::{Share, Standing, share, view},
    kernel::Kernel,
    model::{Endpoint, Health, Node, Service, Snapshot},
    policy::{self, Tier, route::without_port},
};
use alone::{past, silence};
use mesh_common::{breaker, reason::Reason, service::View};
use route::Question;
use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// The address dialled.
    pub(super) address: SocketAddr,
    /// The `Host` of the request.
    pub(super) host: Option<&'a str>,
    /// The path of the request, with or without a query.
    pub(super) path: Option<&'a str>,
    /// The zone of the client, instead of the node's own.
    pub(super) zone: Option<&'a str>,
}

/// What becomes of a connection or a request, and why.
struct Verdict {
    decision: Decision,
    /// The word in metrics; `None` when it is forwarded.
    reason: Option<&'static str>,
    sentence: String,
    /// The route that a request takes.
    route: Option<String>,
    /// The services whose endpoints matter.
    parts: Vec<Part>,
}

/// A service, and what its endpoints get.
struct Part {
    service: Arc<Service>,
    /// The part of connections or requests that it gets.
    share: f64,
    /// The part of those that each endpoint gets.
    shares: BTreeMap<SocketAddr, f64>,
}

impl Verdict {
    fn passed(reason: &'static str, sentence: String) -> Self {
        Self { decision: Decision::Passed, reason: Some(reason), sentence, route: None, parts: Vec::new() }
    }

    fn refused(reason: Reason) -> Self {
        let sentence = format!("refused at once with ECONNREFUSED: {}", refusal_sentence(reason));
        Self { decision: Decision::Refused, reason: Some(reason.word()), sentence, route: None, parts: Vec::new() }
    }

    fn forwarded(service: &Arc<Service>, shares: BTreeMap<SocketAddr, f64>) -> Self {
        let (name, policy) = (&service.name, service.policy.word());
        let plural = if shares.len() == 1 { "" } else { "s" };
        let sentence = format!("goes to one of {} endpoint{plural} of {name}, picked by {policy}", shares.len());
        let parts = vec![Part { service: Arc::clone(service), share: 1.0, shares }];
        Self { decision: Decision::Forwarded, reason: None, sentence, route: None, parts }
    }
}

/// Whose affair it is.
enum Whose {
    /// A connection to this service's VIP, or to nobody's.
    Connection(Option<Arc<Service>>),
    /// A request for this service, or for nobody's, with this host.
    Request(Option<Arc<Service>>, String),
}

impl Daemon {
    /// What a connection to an address, or a request there, would meet now: from here, or from a node in another zone.
    ///
    /// # Errors
    /// It is asked about requests to a service that has none, or that nobody can make.
    pub(super) fn explain(&self, asked: &Asked<'_>) -> Result<Explanation, Refusal> {
        if let Some(path) = asked.path.filter(|path| !path.starts_with('/')) {
            return Err(Refusal::invalid(format!("path: expected one that begins with /, found {path:?}")));
        }
        // Apart: what is asked below locks the state itself.
        let snapshot = Arc::clone(&self.state().snapshot);
        let whose = self.whose(asked, &snapshot)?;
        let (owner, mut verdict) = match &whose {
            Whose::Connection(owner) => (owner, self.connection(asked, owner.as_ref())),
            Whose::Request(entry, host) => {
                let question = Question::new(host, asked.path.unwrap_or("/"));
                (entry, self.requested(&self.state(), entry.as_ref(), &question, asked.zone))
            }
        };
        if let (true, Some(owner), Whose::Connection(_)) = (verdict.parts.is_empty(), owner, &whose) {
            // They are of interest all the same.
            verdict.parts.push(Part { service: Arc::clone(owner), share: 1.0, shares: BTreeMap::new() });
        }
        let state = self.state();
        let is_request = matches!(whose, Whose::Request(..));
        let candidates =
            verdict.parts.iter().flat_map(|part| self.candidates(&state, asked, part, &verdict, is_request));
        let policies = match verdict.parts.as_slice() {
            [part] => Some(&part.service),
            _ => owner.as_ref(),
        };
        Ok(Explanation {
            address: asked.address,
            endpoints: candidates.collect(),
            service: owner.as_ref().map(|s| s.name.clone()),
            route: verdict.route.clone(),
            policy: policies.map(|s| policy_word(s.policy)),
            decision: verdict.decision,
            reason: verdict.reason.map(str::to_owned),
            explanation: verdict.sentence.clone(),
        })
    }

    /// Whether a connection is asked about or a request, and whose it is.
    fn whose(&self, asked: &Asked<'_>, snapshot: &Snapshot) -> Result<Whose, Refusal> {
        let &Asked { address, host, path, .. } = asked;
        let owner = snapshot.owner(address).cloned();
        let is_request = host.is_some() || path.is_some();
        if let Some(service) = owner.as_ref().filter(|service| is_request && !service.protocol.is_proxied()) {
            return Err(no_requests(service));
        }
        let spoken_to = self.http.place().is_ok_and(|proxy| {
            proxy.port() == address.port() && (proxy.ip() == address.ip() || proxy.ip().is_unspecified())
        });
        if (spoken_to && owner.is_none()) || (is_request && self.kernel.is_err()) {
            // The explicit proxy goes by the host alone.
            let host = host.map_or_else(|| address.to_string(), str::to_owned);
            let found = self.http.shared.table.load().host(&host).map(|service| service.name().to_string());
            return match (found.and_then(|name| snapshot.service(&name).cloned()), called(snapshot, &host)) {
                (None, Some(service)) => Err(no_requests(service)),
                (entry, _) => Ok(Whose::Request(entry, host)),
            };
        }
        match owner {
            Some(service)
                if service.protocol.is_proxied()
                    && self.untouched(address, &service).is_none()
                    && self.tables().is_none_or(|tables| silence(&tables.settings(), now()).is_none()) =>
            {
                let host = host.map_or_else(|| address.to_string(), str::to_owned);
                Ok(Whose::Request(Some(service), host))
            }
            owner => Ok(Whose::Connection(owner)),
        }
    }

    /// What a connection meets.
    fn connection(&self, asked: &Asked<'_>, owner: Option<&Arc<Service>>) -> Verdict {
        let address = asked.address;
        let Some(service) = owner else {
            let sentence = format!("{address} is no service address: the connection goes there, untouched");
            return Verdict::passed("no_service", sentence);
        };
        if let Some(untouched) = self.untouched(address, service) {
            return untouched;
        }
        let Some(tables) = self.tables() else {
            return Verdict::passed("not_intercepted", "nothing is intercepted on this node".to_owned());
        };
        let verdict = match share(tables, address, now()) {
            Share::NoVip => Verdict::refused(Reason::NoEndpoint),
            Share::Refused(reason) => Verdict::refused(reason),
            Share::Endpoints(shares) => Verdict::forwarded(service, shares),
        };
        let state = self.state();
        let verdict = match (asked.zone, state.datapath.as_ref()) {
            (Some(zone), Some(datapath)) if verdict.decision == Decision::Forwarded => {
                let node = in_zone(zone, &state.node(), service);
                let view = view(address, service.settings.same_family);
                let closed = |at| datapath.circuit(tables, &service.name, at).state() == breaker::State::Closed;
                Verdict::forwarded(service, datapath.elsewhere(service, &node, view, closed, now()).1)
            }
            _ => verdict,
        };
        match silence(&tables.settings(), now()).filter(|_| service.protocol.is_proxied()) {
            Some(silence) => past(service, &silence, verdict),
            None => verdict,
        }
    }

    /// Why connections to a VIP are left alone; `None`: they are not.
    fn untouched(&self, address: SocketAddr, service: &Service) -> Option<Verdict> {
        let tables = match &self.kernel {
            Ok(kernel) => kernel.tables(),
            Err(why) => {
                let reached =
                    if service.protocol.is_proxied() { format!("; {}", self.http.reached()) } else { String::new() };
                let sentence = format!("nothing is intercepted on this node: {why}{reached}");
                return Some(Verdict::passed("not_intercepted", sentence));
            }
        };
        let passed = |reason, sentence: &str| Some(Verdict::passed(reason, sentence.to_owned()));
        if let Some(detached) = self.kernel().and_then(Kernel::detached) {
            return passed("not_intercepted", &format!("nothing is intercepted on this node: programs are {detached}"));
        }
        if self.bypass() {
            let sentence = "bypass is on: the connection goes to the VIP itself, untouched";
            return passed(Reason::Bypass.word(), sentence);
        }
        if self.mode == Mode::Observe {
            let sentence = "dataplane.mode is observe: the connect is counted and not translated";
            return passed(Reason::Observe.word(), sentence);
        }
        if self.state().datapath.as_ref().is_some_and(|datapath| datapath.is_bypassed(address)) {
            let sentence = "it is in dataplane.bypass.cidrs: the connection goes to the VIP itself, untouched";
            return passed(Reason::Bypass.word(), sentence);
        }
        let missing = share(tables, address, now()) == Share::NoVip;
        missing.then(|| {
            let sentence = "it is a service address, and not in the kernel's tables; `mesh status` says why";
            Verdict::passed("not_in_kernel", sentence.to_owned())
        })
    }

    /// The endpoints of one service, each with why it is chosen or not.
    fn candidates(
        &self,
        state: &State,
        asked: &Asked<'_>,
        part: &Part,
        verdict: &Verdict,
        is_request: bool,
    ) -> Vec<Candidate> {
        let service = &part.service;
        let circuits = Circuits::new(self, state);
        let standings = state.datapath.as_ref().map(|datapath| match asked.zone {
            Some(zone) if verdict.decision == Decision::Forwarded => {
                let node = in_zone(zone, &state.node(), service);
                datapath.elsewhere(service, &node, View::Any, |_| true, now()).0
            }
            _ => datapath.standings(service, now()),
        });
        let standings = standings.unwrap_or_default();
        let is_attended = is_request || self.tables().is_some_and(|tables| tables.settings().is_attended(now()));
        let candidate = |e: &Endpoint| {
            let share = part.share * part.shares.get(&e.address).copied().unwrap_or(0.0);
            let circuit = transitions::shown(circuits.word(&service.name, e.address), e.tripped);
            let standing = standings.get(&e.address).copied().unwrap_or_default();
            let unhealthy = standing.health == Health::Unhealthy;
            let why = unhealthy.then(|| self.health_error(&service.name, e.address)).flatten();
            let mismatch = !is_request
                && match view(asked.address, service.settings.same_family) {
                    View::V4 => e.address.is_ipv6(),
                    View::V6 => e.address.is_ipv4(),
                    View::Any => false,
                };
            let seen = Seen { endpoint: e, standing, circuit, share, is_attended, mismatch, why };
            Candidate {
                service: Some(service.name.clone()),
                address: e.address,
                weight: e.weight,
                tier: (standing.tier != Tier::Any).then(|| standing.tier.word().to_owned()),
                health: health(standing.health),
                circuit,
                draining: e.draining,
                candidate: share > 0.0,
                reason: seen.reason(verdict.decision, &standings),
                share,
            }
        };
        service.endpoints.iter().map(candidate).collect()
    }
}

/// The service that a host means, whatever its protocol.
fn called<'a>(snapshot: &'a Snapshot, host: &str) -> Option<&'a Arc<Service>> {
    if let Ok(vip) = host.parse() {
        return snapshot.owner(vip);
    }
    let name = without_port(host).to_ascii_lowercase();
    let services = snapshot.services();
    snapshot.service(&name).or_else(|| services.iter().find(|s| s.hosts.contains(&name)))
}

/// What is said of requests to a service that has none.
fn no_requests(service: &Service) -> Refusal {
    let (name, protocol) = (&service.name, service.protocol.word());
    let message = format!(
        "{name} is a {protocol} service: its connections are not read, so there is no host, path or route; leave out \
         --host and --path, or write protocol: http in its configuration"
    );
    Refusal::new(Kind::Conflict, message)
}

/// A node in `zone`: this one if it is there; else one of which no more is known than endpoints of that zone tell.
fn in_zone(zone: &str, own: &Node, service: &Service) -> Node {
    if zone == own.zone {
        return own.clone();
    }
    let region = service.endpoints.iter().find(|e| e.zone == zone).map(|e| e.region.clone()).unwrap_or_default();
    Node { name: String::new(), zone: zone.to_owned(), region }
}

/// An endpoint, and all that bears on whether it can be picked.
struct Seen<'a> {
    endpoint: &'a Endpoint,
    standing: Standing,
    circuit: CircuitState,
    share: f64,
    is_attended: bool,
    /// Whether it is of a family that the socket cannot reach.
    mismatch: bool,
    /// What its last health check said, if that failed.
    why: Option<String>,
}

impl Seen<'_> {
    /// Why it can be picked, or cannot.
    fn reason(&self, decision: Decision, all: &HashMap<SocketAddr, Standing>) -> String {
        let Self { endpoint, standing, circuit, share, is_attended, mismatch, why } = self;
        let unhealthy = standing.health == Health::Unhealthy;
        let reason = if endpoint.draining {
            "draining"
        } else if endpoint.weight == 0 {
            "weight 0"
        } else if endpoint.tripped {
            "its circuit is held open by an operator"
        } else if *mismatch {
            if endpoint.address.is_ipv6() {
                "IPv6 endpoint behind an IPv4 VIP (family_mismatch)"
            } else {
                "IPv4 endpoint behind an IPv6 VIP, with load_balancing.same_family (family_mismatch)"
            }
        } else if decision == Decision::Passed {
            "connections are not translated"
        } else if *circuit == CircuitState::Open {
            "its circuit is open"
        } else if *circuit == CircuitState::HalfOpen {
            "its circuit is half-open: only probes pass"
        } else if *share > 0.0 && standing.panic {
            "in selection: no endpoint is healthy, so health is ignored"
        } else if *share > 0.0 && standing.warmth < policy::WARM {
            return format!("in selection, warming up: {} % of its share", standing.warmth / 10);
        } else if *share > 0.0 {
            "in selection"
        } else if unhealthy && *is_attended {
            return why.as_ref().map_or_else(|| "unhealthy".to_owned(), |why| format!("unhealthy: {why}"));
        } else if all.values().any(|other| other.is_in && other.tier < standing.tier) {
            "nearer endpoints take everything"
        } else {
            "not in the kernel's tables; see `mesh status`"
        };
        reason.to_owned()
    }
}

fn refusal_sentence(reason: Reason) -> &'static str {
    match reason {
        Reason::CircuitOpen => "the circuit of every endpoint that could be chosen is open",
        Reason::NoEndpoint => "no endpoint can be chosen (none there, all draining, or all of weight 0)",
        Reason::FamilyMismatch => "the VIP is of one family, and all of its endpoints are of the other",
        _ => "the tables are being changed",
    }
}
