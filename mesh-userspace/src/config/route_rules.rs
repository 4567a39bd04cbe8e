//! The rules for hosts and routes, which look at several values and at other services.

use super::{
    Config, bounds,
    field::Step::{self, Index, Key},
    merge::{self, Merged},
    pairs::Pairs,
    report::Report,
    route::Route,
    settings::Protocol,
    types::Service,
};
use std::collections::HashMap;

/// The services of `config` and of `merged` are the same, in the same order.
pub(super) fn check(config: &Config, merged: &Merged<'_>, report: &mut Report) {
    // Most configurations have neither.
    if config.services.iter().all(|service| service.hosts.is_empty() && service.routes.is_empty()) {
        return;
    }
    let names: HashMap<&str, usize> = config.services.iter().map(|s| s.name.as_str()).zip(0..).collect();
    hosts(config, merged, &names, report);
    for (service, source) in config.services.iter().zip(&merged.services) {
        for (index, route) in service.routes.iter().enumerate() {
            Rule { service, source, index, names: &names, report }.check(route);
        }
        if let Some((at, field)) = source.written("routes")
            && service.settings.protocol == Protocol::Tcp
            && !service.routes.is_empty()
        {
            let problem = format!("routes have no effect: the protocol of the service {} is tcp", service.name);
            report.warning(at, field, problem, Some("write protocol: http, grpc or auto".to_owned()));
        }
    }
}

/// A host belongs to one service.
fn hosts(config: &Config, merged: &Merged<'_>, names: &HashMap<&str, usize>, report: &mut Report) {
    let mut owners: HashMap<String, (usize, usize)> = HashMap::new();
    for (index, service) in config.services.iter().enumerate() {
        for (i, host) in service.hosts.iter().enumerate() {
            let source = &merged.services[index];
            let host = host.to_ascii_lowercase();
            let named = names.get(host.as_str()).filter(|named| **named != index);
            let (problem, remedy) = if let Some(named) = named {
                let (first, _) = merged.services[*named].itself();
                let (at, _) = source.item("hosts", i);
                (
                    format!("{host} is the name of another service, {}", report.name(first, at)),
                    "a host belongs to one service",
                )
            } else if let Some((other, j)) = owners.get(&host) {
                let (first, _) = merged.services[*other].item("hosts", *j);
                let (at, _) = source.item("hosts", i);
                let first = report.name(first, at);
                if *other == index {
                    (format!("{host} stands twice in this service, first in {first}"), "keep one")
                } else {
                    let owner = &config.services[*other].name;
                    (format!("{host} already belongs to the service {owner}, {first}"), "a host belongs to one service")
                }
            } else {
                owners.insert(host, (index, i));
                continue;
            };
            let (at, field) = source.item("hosts", i);
            report.mistake(at, field, problem, Some(remedy.to_owned()));
        }
    }
}

/// One route under the rules.
struct Rule<'r, 't> {
    service: &'r Service,
    source: &'r merge::Service<'t>,
    index: usize,
    names: &'r HashMap<&'r str, usize>,
    report: &'r mut Report,
}

const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

impl Rule<'_, '_> {
    fn mistake(&mut self, keys: &[Step<'_>], problem: impl Into<String>, remedy: impl Into<String>) {
        let (at, field) = self.source.within("routes", self.index, keys);
        self.report.mistake(at, field, problem, Some(remedy.into()));
    }

    fn warning(&mut self, keys: &[Step<'_>], problem: impl Into<String>, remedy: impl Into<String>) {
        let (at, field) = self.source.within("routes", self.index, keys);
        self.report.warning(at, field, problem, Some(remedy.into()));
    }

    fn is_written(&self, keys: &[Step<'_>]) -> bool {
        self.source.has("routes", self.index, keys)
    }

    fn check(&mut self, route: &Route) {
        self.path(route);
        self.targets(route);
        self.answers(route);
        self.times(route);
    }

    fn path(&mut self, route: &Route) {
        let matches = &route.r#match;
        let paths =
            [("path", &matches.path), ("path_prefix", &matches.path_prefix), ("path_regex", &matches.path_regex)];
        let mut stated = paths.iter().filter(|(_, value)| !value.is_empty()).map(|(key, _)| *key);
        if let (Some(first), Some(second)) = (stated.next(), stated.next()) {
            let problem = format!("{first} is there as well: a request has one path");
            self.mistake(&[Key("match"), Key(second)], problem, "keep one, or make it two routes");
        }
        self.twice(&matches.headers, &[Key("match"), Key("headers")]);
        for (key, changes) in [("request", &route.headers.request), ("response", &route.headers.response)] {
            self.twice(&changes.set, &[Key("headers"), Key(key), Key("set")]);
            self.twice(&changes.add, &[Key("headers"), Key(key), Key("add")]);
        }
    }

    /// A header that is written in two ways.
    fn twice(&mut self, headers: &Pairs, keys: &[Step<'_>]) {
        for (i, (name, _)) in headers.iter().enumerate() {
            if headers.iter().take(i).any(|(other, _)| other.eq_ignore_ascii_case(name)) {
                let problem = "this header stands twice: upper and lower case are the same in names of headers";
                let keys: Vec<_> = keys.iter().copied().chain([Key(name)]).collect();
                self.mistake(&keys, problem, "keep one");
            }
        }
    }

    fn targets(&mut self, route: &Route) {
        for (i, target) in route.to.iter().enumerate() {
            self.known(&target.service, &[Key("to"), Index(i), Key("service")]);
        }
        if !route.to.is_empty() && route.to.iter().all(|target| target.weight == 0) {
            self.mistake(&[Key("to")], "no service gets anything: every weight is 0", "raise one");
        }
        self.known(&route.mirror.service, &[Key("mirror"), Key("service")]);
        if route.mirror.service.is_empty() && self.is_written(&[Key("mirror"), Key("percent")]) {
            self.warning(&[Key("mirror")], "nothing is copied: it names no service", "add service");
        }
    }

    /// Empty names no service.
    fn known(&mut self, service: &str, keys: &[Step<'_>]) {
        if !service.is_empty() && !self.names.contains_key(service) {
            let near = super::suggest::nearest(service, self.names.keys().copied());
            let remedy = match near {
                Some(near) => format!("did you mean {near}?"),
                None => "add it to services, unless discovery brings it".to_owned(),
            };
            self.warning(keys, format!("no service of the files is named {service}"), remedy);
        }
    }

    fn answers(&mut self, route: &Route) {
        let redirect = &route.redirect;
        if redirect.is_nothing() {
            if route.to.is_empty() && self.is_written(&[Key("redirect")]) {
                self.mistake(&[Key("redirect")], "it leads nowhere else", "add host or path");
            }
        } else if !route.to.is_empty() {
            let problem = "a request is either redirected or goes to a service, and there is a `to` as well";
            self.mistake(&[Key("redirect")], problem, "keep one of redirect and to");
        }
        if !REDIRECTS.contains(&redirect.status) {
            let problem = format!("expected one of 301, 302, 303, 307, 308, found {}", redirect.status);
            self.mistake(
                &[Key("redirect"), Key("status")],
                problem,
                "302 is for now, 301 for ever; 307 and 308 keep the method",
            );
        }
        let fault = &route.fault;
        if (1..200).contains(&fault.abort_status) {
            let problem = format!("expected 0 or 200 to 599, found {}", fault.abort_status);
            self.mistake(&[Key("fault"), Key("abort_status")], problem, "0 aborts nothing");
        }
        for (what, there, percent, name) in [
            ("delay", !fault.delay.is_zero(), fault.delay_percent, "delay_percent"),
            ("abort_status", fault.abort_status > 0, fault.abort_percent, "abort_percent"),
        ] {
            if there != (percent.parts() > 0) {
                let (given, missing) = if there { (what, name) } else { (name, what) };
                let problem = format!("it has no effect: {missing} is 0");
                self.warning(&[Key("fault"), Key(given)], problem, format!("add {missing}"));
            }
        }
    }

    fn times(&mut self, route: &Route) {
        for bounds in bounds::ROUTE {
            if let Err((problem, remedy)) = bounds.judge(route) {
                let keys: Vec<_> = bounds.path.split('.').map(Key).collect();
                let (at, field) = self.source.within("routes", self.index, &keys);
                self.report.mistake(at, field, problem, remedy);
            }
        }
        let Some(retries) = &route.retries else { return };
        let backoff = retries.over(&self.service.settings.retries).backoff;
        if backoff.max < backoff.base {
            let problem = format!("backoff.max, {}, is less than backoff.base, {}", backoff.max, backoff.base);
            self.mistake(&[Key("retries"), Key("backoff")], problem, "raise max");
        }
    }
}
