//! The rules that look at several values at once, and what is allowed but worth a warning.

use super::{
    Config, Host, bounds, discovery_rules, limits,
    merge::{self, Merged},
    report::{Lack, Place, Report},
    route_rules,
    settings::Protocol,
    types::Service,
};
use crate::model;
use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
};

/// The services of `config` and of `merged` are the same, in the same order.
pub(super) fn check(config: &Config, merged: &Merged<'_>, host: &Host, report: &mut Report) {
    admin(config, merged, report);
    room(config, merged, report);
    durations(config, merged, report);
    dataplane(config, merged, report);
    limits::check(config, merged, report);
    proxy(config, merged, report);
    discovery_rules::check(config, merged, report);
    route_rules::check(config, merged, report);
    let own: HashSet<_> = host.addresses.iter().map(std::net::IpAddr::to_canonical).collect();
    let mut owners: HashMap<SocketAddr, (usize, usize)> = HashMap::with_capacity(config.services.len());
    for (index, (service, source)) in config.services.iter().zip(&merged.services).enumerate() {
        for (i, vip) in service.addresses.iter().enumerate() {
            if model::is_probe(vip.0) {
                let (at, field) = source.item("addresses", i);
                let problem = format!("{} is the address that the daemon probes interception with", vip.0);
                report.mistake(at, field, problem, Some("use another one".to_owned()));
                continue;
            }
            if let Some((other, j)) = owners.get(&vip.0) {
                let (first, _) = merged.services[*other].item("addresses", *j);
                let (at, field) = source.item("addresses", i);
                let owner = &config.services[*other].name;
                let problem = format!("{} already belongs to the service {owner}, {}", vip.0, report.name(first, at));
                report.mistake(at, field, problem, Some("an address and port belong to one service".to_owned()));
                continue;
            }
            owners.insert(vip.0, (index, i));
            let remark = if vip.0.ip().is_loopback() {
                "is a loopback address"
            } else if own.contains(&vip.0.ip()) {
                "is an address of this node"
            } else {
                continue;
            };
            let (at, field) = source.item("addresses", i);
            let problem = format!("{} {remark}: what listens there can no longer be reached from this node", vip.0);
            report.warning(at, field, problem, None);
        }
        endpoints(service, source, report);
        // Kubernetes may bring addresses, and the pool has some for everyone.
        let described = config.discovery.vip_pool.0.is_some() || service.kubernetes.is_some();
        reachable(service, described, source, report);
    }
    for (service, source) in config.services.iter().zip(&merged.services) {
        for (i, endpoint) in service.endpoints.iter().enumerate() {
            if let Some((owner, _)) = owners.get(&endpoint.address.0) {
                let (at, field) = source.key("endpoints", i, "address");
                let owner = &config.services[*owner].name;
                let problem = format!("{} is an address of the service {owner}", endpoint.address.0);
                let remedy = "connections go to that very address: they are not balanced a second time";
                report.warning(at, field, problem, Some(remedy.to_owned()));
            }
        }
    }
}

fn admin(config: &Config, merged: &Merged<'_>, report: &mut Report) {
    let (listen, metrics) = (config.admin.listen.0, config.admin.metrics_listen.0);
    if metrics == Some(listen) && listen.port() != 0 {
        let (at, field) = merged.field("admin.metrics_listen");
        let remedy = "use another port, or leave it out: admin.listen has the metrics too".to_owned();
        report.mistake(at, field, format!("{listen} is admin.listen already"), Some(remedy));
    }
    if !listen.ip().is_loopback() {
        let (at, field) = merged.field("admin.listen");
        let problem = format!("everyone who reaches {listen} can read services, endpoints and configuration");
        report.warning(at, field, problem, Some("admin.metrics_listen serves metrics and health only".to_owned()));
    }
}

fn proxy(config: &Config, merged: &Merged<'_>, report: &mut Report) {
    let (proxy, admin) = (&config.proxy, &config.admin);
    if let Some(http) = proxy.http.0 {
        let loopback = http.ip().is_loopback() || http.ip().is_unspecified();
        let taken = [
            ("admin.listen", http == admin.listen.0),
            ("admin.metrics_listen", Some(http) == admin.metrics_listen.0),
            ("where captured connections arrive (proxy.port)", loopback && http.port() == proxy.port),
        ];
        if let Some((what, _)) = taken.into_iter().find(|(_, taken)| *taken && http.port() != 0) {
            let problem = format!("{http} is {what} already");
            let remedy = Some("use another port, or \"\" to do without".to_owned());
            match merged.written("proxy.http") {
                Some((at, field)) => report.mistake(at, field, problem, remedy),
                // Nobody asked for it: as where the port is taken by someone else, the daemon does without.
                None => {
                    let (at, field) = merged.field("proxy.http");
                    report.warning(at, field, problem, remedy);
                }
            }
        }
        if !http.ip().is_loopback() {
            let (at, field) = merged.field("proxy.http");
            let problem = format!("everyone who reaches {http} can send requests to every service");
            report.warning(at, field, problem, None);
        }
    }
}

/// Durations that the daemon has once.
fn durations(config: &Config, merged: &Merged<'_>, report: &mut Report) {
    for bounds in bounds::CONFIG {
        if let Err((problem, remedy)) = bounds.judge(config) {
            let (at, field) = merged.field(bounds.path);
            report.mistake(at, field, problem, remedy);
        }
    }
    let tracing = &config.telemetry.tracing;
    let shows_certificate = tracing.otlp.0.as_ref().is_some_and(|collector| collector.trust.is_some());
    if !tracing.ca_file.as_os_str().is_empty() && !shows_certificate {
        let (at, field) = merged.field("telemetry.tracing.ca_file");
        let problem = "nobody shows a certificate: telemetry.tracing.otlp is without TLS";
        report.mistake(at, field, problem, Some("write https:// or grpcs:// there, or leave this out".to_owned()));
    }
}

fn dataplane(config: &Config, merged: &Merged<'_>, report: &mut Report) {
    let (stale_after, heartbeat_timeout) = (config.dataplane.stale_after, config.dataplane.heartbeat_timeout);
    if heartbeat_timeout > stale_after {
        let (at, field) = merged.field("dataplane.heartbeat_timeout");
        let problem = format!("{heartbeat_timeout} is more than stale_after, {stale_after}, and has no effect");
        report.warning(at, field, problem, Some("a daemon gone for that long is already stale".to_owned()));
    }
    if config.dataplane.bypass.cgroups.len() > MAX_BYPASSED_CGROUPS {
        let (at, field) = merged.field("dataplane.bypass.cgroups");
        let found = config.dataplane.bypass.cgroups.len();
        let remedy = "name a cgroup above them".to_owned();
        report.mistake(at, field, format!("expected at most {MAX_BYPASSED_CGROUPS}, found {found}"), Some(remedy));
    }
}

/// What the kernel's table of them holds.
const MAX_BYPASSED_CGROUPS: usize = 1024;

/// Room that was given in numbers has to suffice for what is configured.
fn room(config: &Config, merged: &Merged<'_>, report: &mut Report) {
    let endpoints = config.services.iter().map(|s| s.endpoints.len()).sum();
    let rooms = [
        ("dataplane.max_services", config.dataplane.max_services.exact(), config.services.len(), "services"),
        ("dataplane.max_endpoints", config.dataplane.max_endpoints.exact(), endpoints, "endpoints"),
    ];
    for (path, room, needed, what) in rooms {
        if let Some(room) = room
            && usize::try_from(room).is_ok_and(|room| room < needed)
        {
            let (at, field) = merged.field(path);
            let problem = format!("expected room for {needed} {what}, found {room}");
            report.mistake(at, field, problem, Some("raise it, or write auto".to_owned()));
        }
    }
}

fn endpoints(service: &Service, source: &merge::Service<'_>, report: &mut Report) {
    let mut twice = |first: usize, second: usize, address: SocketAddr| {
        let (first, _): (Place, _) = source.key("endpoints", first, "address");
        let (at, field) = source.key("endpoints", second, "address");
        let problem = format!("{address} stands twice in this service, first in {}", report.name(first, at));
        report.mistake(
            at,
            field,
            problem,
            Some("keep one, and raise its weight if it was meant to count twice".to_owned()),
        );
    };
    let addresses = || service.endpoints.iter().map(|e| e.address.0).enumerate();
    if service.endpoints.len() <= 16 {
        for (i, address) in addresses() {
            if let Some((first, _)) = addresses().take(i).find(|(_, a)| *a == address) {
                twice(first, i, address);
            }
        }
    } else {
        let mut seen = HashMap::with_capacity(service.endpoints.len());
        for (i, address) in addresses() {
            let first = *seen.entry(address).or_insert(i);
            if first != i {
                twice(first, i, address);
            }
        }
    }
}

/// Whether anyone can use the service.
fn reachable(service: &Service, described: bool, source: &merge::Service<'_>, report: &mut Report) {
    let mut warn = |lack, problem, remedy| report.lacks(source.itself(), &service.name, lack, problem, remedy);
    let draws = service.draws();
    if service.addresses.is_empty() && service.settings.protocol == Protocol::Tcp && !described {
        warn(Lack::Address, "has no addresses", "no connection reaches it until it has one");
    } else if draws {
        // Endpoints come later.
    } else if service.endpoints.is_empty() && service.routes.is_empty() {
        warn(Lack::Endpoint, "has no endpoints", "connections to it are refused until it has one");
    } else if service.addresses.iter().any(|vip| vip.0.is_ipv4())
        && service.endpoints.iter().all(|e| e.address.0.is_ipv6())
    {
        let remedy = "IPv4 connections to it are refused (family_mismatch)";
        warn(Lack::Ipv4Endpoint, "has an IPv4 address and only IPv6 endpoints", remedy);
    } else if service.settings.load_balancing.same_family
        && service.addresses.iter().any(|vip| vip.0.is_ipv6())
        && service.endpoints.iter().all(|e| e.address.0.is_ipv4())
    {
        let problem = "has an IPv6 address, load_balancing.same_family and only IPv4 endpoints";
        warn(Lack::Ipv6Endpoint, problem, "IPv6 connections to it are refused (family_mismatch)");
    }
}
