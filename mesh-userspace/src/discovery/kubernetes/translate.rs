//! What a Service and its EndpointSlices mean here.
//!
//! A Service has several ports, and each is a service of its own here: another protocol, another set of endpoints. Pure.

use super::objects::{Service, ServicePort, Slice, SliceEndpoint};
use crate::{
    discovery::{Description, Instance, Said, Source},
    model::{self, Endpoint, Protocol},
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

/// What a service is called besides its own name, after that: with the cluster's domain, and without.
const SUFFIXES: [&str; 2] = [".svc", ".svc.cluster.local"];

/// How long a client that is to come back does so, where a Service does not say: in seconds, as Kubernetes has it.
const AFFINITY: u32 = 10_800;

/// Where this node is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Here {
    /// Its name.
    pub(super) node: String,
    /// Its zone; empty: not known.
    pub(super) zone: String,
}

/// What became of a Service.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Translated {
    /// By key, each port.
    pub(super) ports: Vec<(String, Said)>,
    /// What was left out, and why.
    pub(super) skipped: Vec<String>,
}

/// The services that a Service is, one a port; none where it is none of ours.
pub(super) fn translate(service: &Service, slices: &[&Slice], here: &Here) -> Translated {
    let (metadata, spec) = (&service.metadata, &service.spec);
    let mut translated = Translated::default();
    let key = metadata.key();
    let ignored = metadata.annotations.get("ignore").is_some_and(|v| v.trim() == "true");
    if spec.kind == "ExternalName" || ignored || metadata.labels.other_proxy.is_some() {
        tracing::debug!(service = key, "not taken: an ExternalName, ignored, or another proxy's");
        return translated;
    }
    let mut vips = Vec::new();
    let single = [spec.cluster_ip.clone()];
    let cluster_ips = if spec.cluster_ips.is_empty() { &single[..] } else { &spec.cluster_ips };
    for text in cluster_ips.iter().filter(|text| !text.is_empty() && *text != "None") {
        match text.parse::<IpAddr>() {
            Ok(ip) => vips.push(ip),
            Err(_) => translated.skipped.push(format!("the address {text:?} of the Service {key}: no IP address")),
        }
    }
    for port in spec.ports.iter().filter(|port| port.protocol.is_empty() || port.protocol == "TCP") {
        let Some(number) = u16::try_from(port.port).ok().filter(|port| *port > 0) else {
            translated.skipped.push(format!("port {} of the Service {key}: not 1 to 65535", port.port));
            continue;
        };
        let own = format!("{}.{}", metadata.name, metadata.namespace);
        let first = translated.ports.is_empty();
        let (key, hosts) = if first {
            (key.clone(), SUFFIXES.iter().map(|suffix| format!("{own}{suffix}")).collect())
        } else {
            let word = if port.name.is_empty() { number.to_string() } else { port.name.clone() };
            let hosts = ["", SUFFIXES[0], SUFFIXES[1]].map(|suffix| format!("{own}{suffix}:{number}"));
            (format!("{key}:{word}"), hosts.to_vec())
        };
        let (protocol, settings) = settings(service, port);
        if let Some(Err(bad)) = Source::Kubernetes.service(&key).map(|name| model::check_service_name(&name)) {
            translated.skipped.push(format!("port {number} of the Service {key}: its name would be no name: {bad}"));
            continue;
        }
        let addresses = vips.iter().map(|ip| SocketAddr::new(*ip, number)).collect();
        let description = Some(Description { addresses, hosts, protocol, settings });
        let instances = endpoints(service, port, slices, here);
        translated.ports.push((key, Said { instances, description }));
    }
    translated
}

/// How connections to a port are treated: what annotations say, then what follows from fields.
fn settings(service: &Service, port: &ServicePort) -> (Option<Protocol>, BTreeMap<String, String>) {
    let spec = &service.spec;
    let mut settings = service.metadata.annotations.clone();
    settings.remove("ignore");
    let said = |settings: &BTreeMap<String, String>, key: &str| {
        let section = key.split('.').next().unwrap_or_default();
        settings.contains_key(key) || settings.contains_key(section)
    };
    let mut unless_said = |key: &str, value: String| {
        if !said(&settings, key) {
            settings.insert(key.to_owned(), value);
        }
    };
    // Kubernetes checks them itself, and tells what it finds.
    unless_said("health_check.type", "none".to_owned());
    // As kube-proxy has it, and network policies that name one family: a Service with addresses of both has endpoints of
    // both, each pod twice.
    if spec.cluster_ips.len() > 1 {
        unless_said("load_balancing.same_family", "true".to_owned());
    }
    if spec.session_affinity == "ClientIP" {
        let seconds = spec.session_affinity_config.client_ip.timeout_seconds.unwrap_or(AFFINITY);
        unless_said("load_balancing.affinity", format!("{seconds}s"));
    }
    match spec.traffic_distribution.as_str() {
        "PreferClose" | "PreferSameZone" => unless_said("locality.prefer", "zone".to_owned()),
        "PreferSameNode" => unless_said("locality.prefer", "node".to_owned()),
        _ => {}
    }
    let (protocol, prior_knowledge) = protocol(port);
    if service.metadata.annotations.contains_key("protocol") {
        return (None, settings);
    }
    if prior_knowledge {
        unless_said("upstream", "http2".to_owned());
    }
    (protocol, settings)
}

/// What a port speaks, as far as it is said; and whether it is HTTP/2 and nothing else.
fn protocol(port: &ServicePort) -> (Option<Protocol>, bool) {
    if !port.app_protocol.is_empty() {
        return match port.app_protocol.to_ascii_lowercase().as_str() {
            "http" | "kubernetes.io/ws" | "grpc-web" => (Some(Protocol::Http), false),
            "kubernetes.io/h2c" | "h2c" | "http2" => (Some(Protocol::Http), true),
            "grpc" => (Some(Protocol::Grpc), false),
            "tcp" | "tls" | "https" | "kubernetes.io/wss" => (Some(Protocol::Tcp), false),
            _ => (None, false),
        };
    }
    // As Istio has it: the protocol, alone or with a dash and anything after it.
    match port.name.split('-').next().unwrap_or_default() {
        "http" => (Some(Protocol::Http), false),
        "http2" => (Some(Protocol::Http), true),
        "grpc" if port.name.starts_with("grpc-web") => (Some(Protocol::Http), false),
        "grpc" => (Some(Protocol::Grpc), false),
        "tcp" | "tls" | "https" => (Some(Protocol::Tcp), false),
        _ => (None, false),
    }
}

/// Who serves a port.
fn endpoints(service: &Service, port: &ServicePort, slices: &[&Slice], here: &Here) -> Vec<Instance> {
    let spec = &service.spec;
    let local = spec.internal_traffic_policy == "Local";
    let mut found: BTreeMap<SocketAddr, (&SliceEndpoint, bool)> = BTreeMap::new();
    for slice in slices {
        let numbers = slice.ports.iter().filter(|(name, _)| **name == *port.name).map(|(_, number)| *number);
        for number in numbers {
            for endpoint in &slice.endpoints {
                let Some(draining) = standing(endpoint, spec.publish_not_ready_addresses) else { continue };
                if local && *endpoint.node != *here.node {
                    continue;
                }
                // One that moves from slice to slice stands in both for a while: that counts by which it is used.
                let address = SocketAddr::new(endpoint.address, number);
                let known = found.entry(address).or_insert((endpoint, draining));
                if known.1 && !draining {
                    *known = (endpoint, draining);
                }
            }
        }
    }
    // A distribution is a preference, from which others help out; its hints only repeat it.
    if !local && spec.traffic_distribution.is_empty() {
        heed_hints(&mut found, &here.zone);
    }
    let instance = |(address, (endpoint, draining)): (SocketAddr, (&SliceEndpoint, bool))| Instance {
        id: if endpoint.pod.is_empty() { address.to_string() } else { endpoint.pod.to_string() },
        endpoint: Endpoint {
            zone: endpoint.zone.to_string(),
            node: endpoint.node.to_string(),
            draining,
            ..Endpoint::new(address)
        },
    };
    found.into_iter().map(instance).collect()
}

/// Whether an endpoint is draining; `None`: it is no endpoint.
fn standing(endpoint: &SliceEndpoint, publish_not_ready: bool) -> Option<bool> {
    match endpoint {
        SliceEndpoint { ready: true, terminating: false, .. } => Some(false),
        _ if publish_not_ready => Some(false),
        SliceEndpoint { terminating: true, serving: true, .. } => Some(true),
        _ => None,
    }
}

/// As kube-proxy does: only those meant for this zone, if all that are ready are meant for some, and one for this.
fn heed_hints(found: &mut BTreeMap<SocketAddr, (&SliceEndpoint, bool)>, zone: &str) {
    let is_meant = |endpoint: &SliceEndpoint| endpoint.zones.iter().any(|z| **z == *zone);
    let ready = || found.values().filter(|(_, draining)| !draining).map(|(endpoint, _)| *endpoint);
    if !zone.is_empty() && ready().all(|e| !e.zones.is_empty()) && ready().any(is_meant) {
        found.retain(|_, (endpoint, draining)| *draining || is_meant(endpoint));
    }
}

#[cfg(test)]
#[path = "translate_tests.rs"]
mod tests;
