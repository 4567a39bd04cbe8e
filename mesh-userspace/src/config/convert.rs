//! Configuration ↔ facts.

use super::{
    CheckType, CircuitBreaker, Config, Discovery, Enabled, Endpoint, EndpointAddress, HealthCheck, Locality, Node,
    Policy, Prefer, Protocol, Registry, Service, Settings, StatusRange, Vip, convert_http, intern::Intern,
};
use crate::{
    discovery::{self, Drawn, Source},
    model,
};
use std::{net::IpAddr, sync::Arc};

impl Config {
    /// The services as facts. Those with equal settings share them.
    #[must_use]
    pub fn services(&self) -> Vec<model::Service> {
        let mut settings = Intern::default();
        let none: Arc<[model::Route]> = Arc::default();
        let service = |service: &Service| model::Service {
            name: service.name.clone(),
            addresses: service.addresses.iter().map(|vip| vip.0).collect(),
            hosts: service.hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            routes: match &*service.routes {
                [] => Arc::clone(&none),
                routes => routes.iter().map(|route| convert_http::route(route, &service.settings)).collect(),
            },
            protocol: service.settings.protocol.into(),
            policy: service.settings.load_balancing.policy.into(),
            settings: settings.get(model::Settings::from(&*service.settings)),
            endpoints: service.endpoints.iter().map(model::Endpoint::from).collect(),
        };
        self.services.iter().map(service).collect()
    }

    /// As [`Config::services`], but names, addresses, hosts and endpoints are gone from the configuration afterwards: a hundred
    /// thousand services are not kept twice. [`Config::with_services`] puts them in again.
    ///
    /// They are copied all the same. What [`load`](super::load) leaves lies scattered among what it needed meanwhile,
    /// which could not be given back otherwise; the copies lie close together.
    #[must_use]
    pub fn take_services(&mut self) -> Vec<Arc<model::Service>> {
        let facts = self.services().into_iter().map(Arc::new).collect();
        // Only now: a copy would be put where the service before it lay.
        for service in &mut self.services {
            (service.name, service.addresses, service.endpoints) = Default::default();
            service.hosts = Box::default();
        }
        facts
    }

    /// The whole configuration again, with the services that were taken out of it.
    #[must_use]
    pub fn with_services(&self, facts: &[Arc<model::Service>]) -> Self {
        let mut whole = self.clone();
        for (service, fact) in whole.services.iter_mut().zip(facts) {
            service.name.clone_from(&fact.name);
            service.addresses = fact.addresses.iter().copied().map(Vip).collect();
            service.hosts = fact.hosts.iter().cloned().collect();
            service.endpoints = fact.endpoints.iter().map(Endpoint::from).collect();
        }
        whole
    }

    /// What services draw from.
    #[must_use]
    pub fn drawn(&self, facts: &[Arc<model::Service>]) -> Drawn {
        let mut drawn = Drawn::new();
        for (service, fact) in self.services.iter().zip(facts) {
            let named = |name: &Option<Box<str>>| name.as_deref().filter(|name| !name.is_empty()).map(str::to_owned);
            let keys: Vec<(Source, String)> = [
                named(&service.etcd).map(|name| (Source::Etcd, name)),
                named(&service.kubernetes).map(|name| (Source::Kubernetes, name)),
                named(&service.dns).map(|name| (Source::Dns, name)),
                named(&service.srv).map(|name| (Source::Dns, format!("srv:{name}"))),
            ]
            .into_iter()
            .flatten()
            .collect();
            if !keys.is_empty() {
                drawn.insert(fact.name.clone(), keys);
            }
        }
        drawn
    }

    /// Where this node is.
    #[must_use]
    pub fn node(&self) -> model::Node {
        let node = &self.node;
        model::Node { name: node.name.clone(), zone: node.zone.clone(), region: node.region.clone() }
    }
}

impl Discovery {
    /// The registry's settings.
    #[must_use]
    pub fn registry(&self) -> discovery::Registry {
        let Registry { ttl, listen, token_file } = &self.registry;
        discovery::Registry { ttl: ttl.get(), listen: listen.0, token_file: path(token_file) }
    }

    /// How names are looked up. `host` tells the addresses of this host.
    #[must_use]
    pub fn resolve(&self, host: impl FnOnce() -> Vec<IpAddr>) -> discovery::Resolve {
        let own = self.dns_listen.0.map(|listen| discovery::Own::new(listen, host));
        discovery::Resolve { refresh: self.dns.refresh.get(), servers: self.servers(), own }
    }

    /// The etcd cluster; `None`: none.
    #[must_use]
    pub fn etcd(&self) -> Option<discovery::Etcd> {
        let etcd = &self.etcd;
        (!etcd.endpoints.is_empty()).then(|| discovery::Etcd {
            endpoints: etcd.endpoints.iter().map(|url| url.trim_end_matches('/').to_owned()).collect(),
            prefix: etcd.prefix.clone(),
            username: etcd.username.clone(),
            password_file: path(&etcd.password_file),
            ca_file: path(&etcd.ca_file),
            cert_file: path(&etcd.cert_file),
            key_file: path(&etcd.key_file),
        })
    }

    /// The Kubernetes cluster; `None`: none. `in_cluster`: the daemon runs in one.
    #[must_use]
    pub fn kubernetes(&self, node: &Node, in_cluster: bool) -> Option<discovery::Kubernetes> {
        let used = match self.kubernetes.enabled {
            Enabled::Auto => in_cluster,
            Enabled::True => true,
            Enabled::False => false,
        };
        used.then(|| discovery::Kubernetes {
            namespaces: self.kubernetes.namespaces.clone(),
            selector: self.kubernetes.selector.clone(),
            node: node.name.clone(),
            zone: node.zone.clone(),
        })
    }

    /// Names and addresses for services.
    #[must_use]
    pub fn names(&self) -> discovery::Names {
        discovery::Names {
            pool: self.vip_pool.0.map(|cidr| cidr.0),
            listen: self.dns_listen.0,
            servers: self.servers(),
        }
    }

    fn servers(&self) -> Vec<std::net::SocketAddr> {
        self.dns.servers.iter().map(|server| server.0).collect()
    }
}

/// A path that was given; `None`: none.
fn path(path: &std::path::Path) -> Option<std::path::PathBuf> {
    (!path.as_os_str().is_empty()).then(|| path.to_path_buf())
}

impl From<&Settings> for model::Settings {
    fn from(settings: &Settings) -> Self {
        Self {
            maglev_size: settings.load_balancing.maglev_size,
            affinity: settings.load_balancing.affinity.get(),
            same_family: settings.load_balancing.same_family,
            connect_timeout: settings.connect_timeout.get(),
            health_check: health_check(&settings.health_check),
            breaker: (&settings.circuit_breaker).into(),
            locality: (&settings.locality).into(),
            slow_start: settings.slow_start.get(),
            http: settings.into(),
        }
    }
}

fn health_check(check: &HealthCheck) -> Option<model::HealthCheck> {
    let probe = match check.r#type {
        CheckType::None => return None,
        CheckType::Tcp => model::HealthProbe::Tcp,
        CheckType::Grpc => model::HealthProbe::Grpc,
        CheckType::Http => model::HealthProbe::Http {
            path: check.path.clone(),
            host: check.host.clone(),
            expected_status: check.expected_status.iter().copied().map(StatusRange::get).collect(),
        },
    };
    Some(model::HealthCheck {
        probe,
        interval: check.interval.get(),
        timeout: check.timeout.get(),
        unhealthy_threshold: check.unhealthy_threshold,
        healthy_threshold: check.healthy_threshold,
    })
}

impl From<&CircuitBreaker> for model::Breaker {
    fn from(breaker: &CircuitBreaker) -> Self {
        Self {
            failure_threshold: breaker.failure_threshold,
            reset_timeout: breaker.reset_timeout.get(),
            max_reset_timeout: breaker.max_reset_timeout.get(),
            half_open_requests: breaker.half_open_requests,
            max_open_percent: breaker.max_open_percent,
            probe_interval: breaker.probe_interval.get(),
        }
    }
}

impl From<&Locality> for model::Locality {
    fn from(locality: &Locality) -> Self {
        let prefer = match locality.prefer {
            Prefer::None => model::Prefer::None,
            Prefer::Node => model::Prefer::Node,
            Prefer::Zone => model::Prefer::Zone,
            Prefer::Region => model::Prefer::Region,
        };
        Self { prefer, spill_below: locality.spill_below.thousandths() }
    }
}

impl From<&Endpoint> for model::Endpoint {
    fn from(endpoint: &Endpoint) -> Self {
        let Endpoint { address, weight, zone, region, node, draining } = endpoint.clone();
        Self { address: address.0, weight, zone, region, node, draining, tripped: false }
    }
}

impl From<&model::Endpoint> for Endpoint {
    fn from(endpoint: &model::Endpoint) -> Self {
        let model::Endpoint { address, weight, zone, region, node, draining, tripped: _ } = endpoint.clone();
        Self { address: EndpointAddress(address), weight, zone, region, node, draining }
    }
}

impl From<Protocol> for model::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Http => Self::Http,
            Protocol::Grpc => Self::Grpc,
            Protocol::Auto => Self::Auto,
        }
    }
}

impl From<Policy> for model::Policy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::RoundRobin => Self::RoundRobin,
            Policy::Random => Self::Random,
            Policy::LeastConnections => Self::LeastConnections,
            Policy::Maglev => Self::Maglev,
            Policy::PeakEwma => Self::PeakEwma,
        }
    }
}

impl From<model::Policy> for Policy {
    fn from(policy: model::Policy) -> Self {
        match policy {
            model::Policy::RoundRobin => Self::RoundRobin,
            model::Policy::Random => Self::Random,
            model::Policy::LeastConnections => Self::LeastConnections,
            model::Policy::Maglev => Self::Maglev,
            model::Policy::PeakEwma => Self::PeakEwma,
        }
    }
}
