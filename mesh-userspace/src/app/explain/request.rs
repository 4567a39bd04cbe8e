//! What a request would meet: its route, the services that leads to, and their endpoints.

use super::{
    Part, Verdict, in_zone,
    route::{Choice, Question, choose},
};
use crate::{
    api::Decision,
    app::{
        daemon::{Daemon, State, now},
        transitions::Circuits,
    },
    model::{Route, Service, Snapshot},
    proxy::Reason,
};
use mesh_common::{breaker, service::View};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

impl Daemon {
    /// What becomes of a request to `entry`; `None`: it is for no service.
    pub(super) fn requested(
        &self,
        state: &State,
        entry: Option<&Arc<Service>>,
        question: &Question<'_>,
        zone: Option<&str>,
    ) -> Verdict {
        let Some(entry) = entry else {
            let host = question.host;
            return answered(Reason::UnknownService, &format!("no HTTP service is called {host:?}"));
        };
        let choice = choose(&entry.routes, question);
        let route = match &choice {
            None => None,
            Some(Choice { index: None, passed_over, .. }) => {
                let sentence = format!("none of {}'s routes is for it\n{}", entry.name, passed_over.join("\n"));
                return answered(Reason::NoRoute, &sentence);
            }
            Some(Choice { index: Some(index), .. }) => entry.routes.get(*index),
        };
        let mut verdict = match route.and_then(|route| route.redirect.as_ref()) {
            Some(redirect) => Verdict {
                decision: Decision::Answered,
                reason: Some(Reason::Redirect.word()),
                sentence: format!("answered with {}: {}", redirect.status, redirected(redirect)),
                route: None,
                parts: Vec::new(),
            },
            None => self.led(state, entry, route, zone),
        };
        if let Some(Choice { name, effects, passed_over, .. }) = choice {
            let mut lines = vec![std::mem::take(&mut verdict.sentence)];
            lines.extend(name.iter().map(|name| match effects.as_slice() {
                [] => format!("by route {name}"),
                effects => format!("by route {name}; {}", effects.join("; ")),
            }));
            lines.extend(passed_over);
            verdict.sentence = lines.join("\n");
            verdict.route = name;
        }
        verdict
    }

    /// What becomes of a request that goes to a service by a route, or without one.
    fn led(&self, state: &State, entry: &Arc<Service>, route: Option<&Route>, zone: Option<&str>) -> Verdict {
        let mut parts = Vec::new();
        let mut said = Vec::new();
        let mut refused = None;
        for (name, share) in targets(entry, route) {
            let part = percent(share);
            let Some(target) = known(&state.snapshot, name) else {
                said.push(format!("{part} to {name}, which is no HTTP service here"));
                refused.get_or_insert(Reason::NoEndpoint);
                continue;
            };
            let shares = match self.shares(state, target, zone) {
                Ok(shares) => {
                    let plural = if shares.len() == 1 { "" } else { "s" };
                    let (count, policy) = (shares.len(), target.policy.word());
                    said.push(format!("{part} to one of {count} endpoint{plural} of {name}, picked by {policy}"));
                    shares
                }
                Err(reason) => {
                    let (status, word) = (reason.status().as_u16(), reason.word());
                    said.push(format!("{part} to {name}: answered with {status} ({word}), {}", why(reason)));
                    refused.get_or_insert(reason);
                    BTreeMap::new()
                }
            };
            parts.push(Part { service: Arc::clone(target), share, shares });
        }
        let served = parts.iter().any(|part| !part.shares.is_empty());
        let sentence = match said.as_slice() {
            [one] => {
                let one = one.strip_prefix("100 % to ").unwrap_or(one);
                if served { format!("goes to {one}") } else { format!("for {one}") }
            }
            more => format!("goes {}", more.join("; ")),
        };
        Verdict {
            decision: if served { Decision::Forwarded } else { Decision::Refused },
            reason: refused.filter(|_| !served).map(Reason::word),
            sentence,
            route: None,
            parts,
        }
    }

    /// The part of a service's requests that each endpoint gets.
    fn shares(
        &self,
        state: &State,
        service: &Service,
        zone: Option<&str>,
    ) -> Result<BTreeMap<SocketAddr, f64>, Reason> {
        let Some(datapath) = &state.datapath else { return Err(Reason::NoEndpoint) };
        let own = state.node();
        let node = zone.map_or_else(|| own.clone(), |zone| in_zone(zone, &own, service));
        let circuits = Circuits::new(self, state);
        let closed = |address| circuits.word(&service.name, address).state() == breaker::State::Closed;
        let shares = datapath.elsewhere(service, &node, View::Any, closed, now()).1;
        if !shares.is_empty() {
            return Ok(shares);
        }
        let held = |e: &crate::model::Endpoint| e.tripped || e.is_in_selection();
        Err(if service.endpoints.iter().any(held) { Reason::CircuitOpen } else { Reason::NoEndpoint })
    }
}

/// The services that get a route's requests, with the part of each.
fn targets<'a>(entry: &'a Service, route: Option<&'a Route>) -> Vec<(&'a str, f64)> {
    let to = route.map(|route| route.to.as_slice()).unwrap_or_default();
    let total: u64 = to.iter().map(|target| u64::from(target.weight)).sum();
    if total == 0 {
        return vec![(&entry.name, 1.0)];
    }
    let weighted = to.iter().filter(|target| target.weight > 0);
    weighted.map(|target| (target.service.as_str(), f64::from(target.weight) / total as f64)).collect()
}

fn known<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Arc<Service>> {
    snapshot.service(name).filter(|service| service.protocol.is_proxied())
}

fn redirected(redirect: &crate::model::Redirect) -> String {
    let or = |text: &str, same: &str| if text.is_empty() { same.to_owned() } else { text.to_owned() };
    format!("the client is sent to {}, {}", or(&redirect.host, "the same host"), or(&redirect.path, "the same path"))
}

/// The proxy answers itself.
fn answered(reason: Reason, sentence: &str) -> Verdict {
    let (status, word) = (reason.status().as_u16(), reason.word());
    Verdict {
        decision: Decision::Refused,
        reason: Some(word),
        sentence: format!("answered with {status} ({word}): {sentence}"),
        route: None,
        parts: Vec::new(),
    }
}

fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::CircuitOpen => "since the circuit of every endpoint that could be chosen is open",
        _ => "since no endpoint can be chosen (none there, all draining, or all of weight 0)",
    }
}

/// A part of one.
fn percent(share: f64) -> String {
    format!("{} %", (share * 1000.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Protocol, Target, tests::service};

    #[test]
    fn targets_have_parts_by_weight_and_a_route_without_any_leads_to_the_service_itself() {
        let service = Service { protocol: Protocol::Http, ..service("web", &[]) };
        let target = |service: &str, weight| Target { service: service.to_owned(), weight };
        let route = Route { to: vec![target("v2", 10), target("web", 90), target("v3", 0)], ..Route::default() };
        assert_eq!(targets(&service, Some(&route)), [("v2", 0.1), ("web", 0.9)]);
        assert_eq!(targets(&service, Some(&Route::default())), [("web", 1.0)]);
        assert_eq!(targets(&service, None), [("web", 1.0)]);
        assert_eq!([percent(1.0), percent(0.125), percent(1.0 / 3.0)], ["100 %", "12.5 %", "33.3 %"]);
    }
}
