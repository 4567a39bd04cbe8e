//! The rules of discovery that look at several values at once.

use super::{Config, Enabled, merge::Merged, report::Report};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub(super) fn check(config: &Config, merged: &Merged<'_>, report: &mut Report) {
    let discovery = &config.discovery;
    let etcd = &discovery.etcd;
    if etcd.cert_file.as_os_str().is_empty() != etcd.key_file.as_os_str().is_empty() {
        let (at, field) = merged.field("discovery.etcd");
        report.mistake(at, field, "cert_file and key_file belong together", Some("give both, or none".to_owned()));
    }
    if etcd.username.is_empty() != etcd.password_file.as_os_str().is_empty() {
        let (at, field) = merged.field("discovery.etcd");
        let remedy = Some("give both, or none".to_owned());
        report.mistake(at, field, "username and password_file belong together", remedy);
    }
    listens(config, merged, report);
    names(config, merged, report);
    for (service, source) in config.services.iter().zip(&merged.services) {
        let named = |name: &Option<Box<str>>| name.as_deref().is_some_and(|name| !name.is_empty());
        if named(&service.etcd)
            && etcd.endpoints.is_empty()
            && let Some((at, field)) = source.written("etcd")
        {
            let remedy = Some("say where etcd is in discovery.etcd.endpoints".to_owned());
            report.warning(at, field, "no endpoints come from etcd: it is not used", remedy);
        }
        if named(&service.kubernetes)
            && discovery.kubernetes.enabled == Enabled::False
            && let Some((at, field)) = source.written("kubernetes")
        {
            let remedy = Some("leave discovery.kubernetes.enabled out, or write true".to_owned());
            report.warning(at, field, "no endpoints come from Kubernetes: it is not used", remedy);
        }
    }
}

/// Whether services can be given addresses, and names be answered.
fn names(config: &Config, merged: &Merged<'_>, report: &mut Report) {
    let discovery = &config.discovery;
    if let Some(pool) = discovery.vip_pool.0 {
        let (at, field) = merged.field("discovery.vip_pool");
        if let Some((_, what)) = NO_VIPS.iter().find(|(net, _)| overlap(net, &pool.0)) {
            let remedy = Some("take a range that nobody uses, such as 240.10.0.0/16".to_owned());
            report.mistake(at, field, format!("{pool} has {what} in it"), remedy);
        } else if let Some(cidr) = config.dataplane.bypass.cidrs.iter().find(|cidr| overlap_net(&cidr.0, &pool.0)) {
            let problem = format!("addresses in {cidr} are left alone (dataplane.bypass.cidrs), some of {pool} too");
            report.warning(at, field, problem, None);
        }
    }
    let Some(listen) = discovery.dns_listen.0 else { return };
    let (at, field) = merged.field("discovery.dns_listen");
    let registry = discovery.registry.listen.0.map(|listen| ("discovery.registry.listen", listen));
    if listen.port() == 0 {
        let problem = format!("expected a port that resolvers can be told, such as 53, found {listen}");
        report.mistake(at, field, problem, None);
    } else if let Some(what) = taken(config, registry, listen) {
        report.mistake(at, field, format!("{listen} is {what} already"), Some("use another port".to_owned()));
    } else if !listen.ip().is_loopback() {
        let problem = format!("everyone who reaches {listen} can look up any name there");
        report.warning(at, field, problem, Some("listen at a loopback address, or keep strangers out".to_owned()));
    }
}

/// Addresses that can be nobody's VIP.
const NO_VIPS: [(&str, &str); 8] = [
    ("0.0.0.0/8", "0.0.0.0"),
    ("127.0.0.0/8", "loopback addresses"),
    ("169.254.0.0/16", "link-local addresses"),
    ("224.0.0.0/4", "multicast addresses"),
    ("255.255.255.255/32", "the broadcast address"),
    ("::/96", "loopback addresses"),
    ("fe80::/10", "link-local addresses"),
    ("ff00::/8", "multicast addresses"),
];

fn overlap(net: &str, other: &IpNet) -> bool {
    net.parse().is_ok_and(|net| overlap_net(&net, other))
}

fn overlap_net(net: &IpNet, other: &IpNet) -> bool {
    net.contains(other) || other.contains(net)
}

/// Whether what listens on TCP does so where nothing else does.
fn listens(config: &Config, merged: &Merged<'_>, report: &mut Report) {
    let Some(listen) = config.discovery.registry.listen.0 else { return };
    let (at, field) = merged.field("discovery.registry.listen");
    if let Some(what) = taken(config, None, listen) {
        let remedy = Some("use another port, or leave it out: the admin socket takes registrations too".to_owned());
        report.mistake(at, field, format!("{listen} is {what} already"), remedy);
    } else if !listen.ip().is_loopback() && config.discovery.registry.token_file.as_os_str().is_empty() {
        let problem = format!("everyone who reaches {listen} can register instances of any service");
        report.warning(at, field, problem, Some("set discovery.registry.token_file".to_owned()));
    }
}

/// What listens on TCP already where something is to listen, `besides` what is no part of discovery.
fn taken(config: &Config, besides: Option<(&'static str, SocketAddr)>, listen: SocketAddr) -> Option<&'static str> {
    const CAPTURED: &str = "where captured connections arrive (proxy.port)";
    let captured = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let captured = captured.map(|ip| (CAPTURED, SocketAddr::new(ip, config.proxy.port)));
    let admin = [
        Some(("admin.listen", config.admin.listen.0)),
        config.admin.metrics_listen.0.map(|listen| ("admin.metrics_listen", listen)),
        config.proxy.http.0.map(|listen| ("proxy.http", listen)),
        besides,
    ];
    let mut others = admin.into_iter().flatten().chain(captured);
    others.find(|(_, other)| meet(*other, listen)).map(|(what, _)| what)
}

/// Whether two cannot listen at these addresses both: one stands for all addresses, that of the other among them.
fn meet(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    let (a_ip, b_ip) = (a.ip(), b.ip());
    a.port() == b.port() && a.port() != 0 && (a_ip == b_ip || covers(a_ip, b_ip) || covers(b_ip, a_ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_stands_for_all_takes_those_of_the_others() {
        let meet = |a: &str, b: &str| meet(a.parse().unwrap(), b.parse().unwrap());
        for (a, b) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("[::]:80", "0.0.0.0:80"),
        ] {
            assert!(meet(a, b) && meet(b, a), "{a} {b}");
        }
        for (a, b) in [
            ("127.0.0.1:80", "127.0.0.2:80"),
            ("127.0.0.1:80", "127.0.0.1:81"),
            ("0.0.0.0:80", "[::1]:80"),
            ("127.0.0.1:0", "127.0.0.1:0"),
        ] {
            assert!(!meet(a, b) && !meet(b, a), "{a} {b}");
        }
    }
}
