//! What a connection to an address would meet now: asked of the rows that the connect hook reads.

use super::{
    answer::{health, policy as policy_word},
    daemon::{Daemon, now},
    transitions::{self, Circuits},
};
use crate::{
    api::{Candidate, CircuitState, Decision, Explanation, Mode},
    datapath::{Share, Standing, share},
    model::{Endpoint, Health, Node, Service},
    policy::{self, Tier},
};
use mesh_common::reason::Reason;
use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

/// What becomes of a connection, and why.
struct Verdict {
    decision: Decision,
    /// The word in metrics; `None` when it is forwarded.
    reason: Option<&'static str>,
    sentence: String,
    /// The part of connections that each endpoint gets.
    shares: BTreeMap<SocketAddr, f64>,
}

impl Verdict {
    fn passed(reason: &'static str, sentence: String) -> Self {
        Self { decision: Decision::Passed, reason: Some(reason), sentence, shares: BTreeMap::new() }
    }

    fn refused(reason: Reason) -> Self {
        let sentence = format!("refused at once with ECONNREFUSED: {}", refusal_sentence(reason));
        Self { decision: Decision::Refused, reason: Some(reason.word()), sentence, shares: BTreeMap::new() }
    }

    fn forwarded(service: &Service, shares: BTreeMap<SocketAddr, f64>) -> Self {
        let (name, policy) = (&service.name, service.policy.word());
        let plural = if shares.len() == 1 { "" } else { "s" };
        let sentence = format!("goes to one of {} endpoint{plural} of {name}, picked by {policy}", shares.len());
        Self { decision: Decision::Forwarded, reason: None, sentence, shares }
    }
}

impl Daemon {
    /// What a connection to `address` would meet now: from here, or from a node in another zone.
    pub(super) fn explain(&self, address: SocketAddr, zone: Option<&str>) -> Explanation {
        let owner = self.state().snapshot.owner(address).cloned();
        let mut verdict = self.verdict(address, owner.as_deref());
        let state = self.state();
        let circuits = Circuits::new(self, &state);
        let standings = owner.as_ref().zip(state.datapath.as_ref());
        let mut standings = standings.map(|(service, datapath)| datapath.standings(service, now())).unwrap_or_default();
        if let (Some(zone), Some(service), Some(datapath), Some(tables)) =
            (zone, owner.as_deref(), state.datapath.as_ref(), self.tables())
            && verdict.decision == Decision::Forwarded
        {
            let node = in_zone(zone, &state.config.node(), service);
            let (there, shares) = datapath.elsewhere(tables, service, &node, address, now());
            standings = there;
            verdict = Verdict::forwarded(service, shares);
        }
        let is_attended = self.tables().is_some_and(|tables| tables.settings().is_attended(now()));
        let candidates = owner.iter().flat_map(|s| s.endpoints.iter().map(move |e| (s, e))).map(|(service, e)| {
            let share = verdict.shares.get(&e.address).copied().unwrap_or(0.0);
            let word = circuits.word(&service.name, e.address);
            let circuit = transitions::shown(word, e.tripped);
            let standing = standings.get(&e.address).copied().unwrap_or_default();
            let unhealthy = standing.health == Health::Unhealthy;
            let why = unhealthy.then(|| self.health_error(&service.name, e.address)).flatten();
            let seen = Seen { endpoint: e, standing, circuit, share, is_attended, why };
            Candidate {
                address: e.address,
                weight: e.weight,
                tier: (standing.tier != Tier::Any).then(|| standing.tier.word().to_owned()),
                health: health(standing.health),
                circuit,
                draining: e.draining,
                candidate: share > 0.0,
                reason: seen.reason(address, verdict.decision, &standings),
                share,
            }
        });
        Explanation {
            address,
            endpoints: candidates.collect(),
            service: owner.as_ref().map(|s| s.name.clone()),
            route: None,
            policy: owner.as_ref().map(|s| policy_word(s.policy)),
            decision: verdict.decision,
            reason: verdict.reason.map(str::to_owned),
            explanation: verdict.sentence,
        }
    }

    fn verdict(&self, address: SocketAddr, owner: Option<&Service>) -> Verdict {
        let Some(service) = owner else {
            let sentence = format!("{address} is no service address: the connection goes there, untouched");
            return Verdict::passed("no_service", sentence);
        };
        let tables = match &self.kernel {
            Ok(kernel) => kernel.tables(),
            Err(why) => {
                return Verdict::passed("not_intercepted", format!("nothing is intercepted on this node: {why}"));
            }
        };
        if self.bypass() {
            let sentence = "bypass is on: the connection goes to the VIP itself, untouched";
            return Verdict::passed(Reason::Bypass.word(), sentence.to_owned());
        }
        if self.mode == Mode::Observe {
            let sentence = "dataplane.mode is observe: the connect is counted and not translated";
            return Verdict::passed(Reason::Observe.word(), sentence.to_owned());
        }
        if self.state().datapath.as_ref().is_some_and(|datapath| datapath.is_bypassed(address)) {
            let sentence = "it is in dataplane.bypass.cidrs: the connection goes to the VIP itself, untouched";
            return Verdict::passed(Reason::Bypass.word(), sentence.to_owned());
        }
        match share(tables, address, now()) {
            Share::NoVip => {
                let sentence = "it is a service address, and not in the kernel's tables; `mesh status` says why";
                Verdict::passed("not_in_kernel", sentence.to_owned())
            }
            Share::Refused(reason) => Verdict::refused(reason),
            Share::Endpoints(shares) => Verdict::forwarded(service, shares),
        }
    }
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
    /// What its last health check said, if that failed.
    why: Option<String>,
}

impl Seen<'_> {
    /// Why it can be picked, or cannot.
    fn reason(&self, vip: SocketAddr, decision: Decision, all: &HashMap<SocketAddr, Standing>) -> String {
        let Self { endpoint, standing, circuit, share, is_attended, why } = self;
        let unhealthy = standing.health == Health::Unhealthy;
        let reason = if endpoint.draining {
            "draining"
        } else if endpoint.weight == 0 {
            "weight 0"
        } else if endpoint.tripped {
            "its circuit is held open by an operator"
        } else if vip.is_ipv4() && endpoint.address.is_ipv6() {
            "IPv6 endpoint behind an IPv4 VIP (family_mismatch)"
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
        Reason::FamilyMismatch => "its endpoints are IPv6 and the VIP is IPv4",
        _ => "the tables are being changed",
    }
}
