//! A cluster, a node of it, and what runs there.

use mesh_tests::{
    Daemon, Kube, Node, Pod, Value, Wire, World, get, holds, json,
    kube::{endpoint, pod, service, slice, with_ips},
    node::HOST,
    programs::Talker,
};
use std::io;

/// A pod, and the servers in it, which end before it.
pub(crate) struct Server {
    pub(crate) processes: Vec<Talker>,
    pub(crate) pod: Pod,
}

impl Server {
    fn new(pod: Pod) -> Self {
        let mut server = Self { processes: Vec::new(), pod };
        server.start();
        server
    }

    pub(crate) fn start(&mut self) {
        let kinds = [("http", 8080), ("echo", 7007), ("identity", 1717)];
        self.processes = kinds.map(|(kind, port)| self.pod.serve(kind, port)).into();
    }
}

/// A node with a cluster behind it, and no daemon yet.
pub(crate) struct Stage {
    pub(crate) kube: Kube,
    pub(crate) node: Node,
}

impl Stage {
    /// Three services: an HTTP service at 10, one that echoes at 20, and one that says who answers at 30. `networks`: the
    /// beginning of their addresses, one for each family that they have.
    pub(crate) fn new(networks: &[&str]) -> Result<Self, String> {
        let node = Node::new()?;
        let kube = Kube::inside(node.host.netns());
        for (name, number, port) in [("web", 10, ("http", 80)), ("echo", 20, ("tcp", 7)), ("who", 30, ("tcp", 17))] {
            let ips: Vec<String> = networks.iter().map(|network| format!("{network}{number}")).collect();
            let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
            kube.apply("services", with_ips(service(name, ips[0], &[port]), &ips));
        }
        Ok(Self { kube, node })
    }

    pub(crate) fn daemon(&self) -> Daemon {
        let setup = self.node.host.setup(json!([])).in_netns(self.node.host.netns());
        let setup = setup.environment("KUBECONFIG", self.kube.kubeconfig()).inside();
        setup
            // However busy the machine is, workers are not given up.
            .with(|c| c["dataplane"]["heartbeat_timeout"] = json!("60s"))
            .with(|c| c["discovery"] = json!({ "kubernetes": { "enabled": true }, "dns_listen": format!("{HOST}:53") }))
            .start()
    }

    /// A pod that comes now, and that the cluster knows.
    pub(crate) fn pod(&self, name: &'static str, number: u8) -> Pod {
        self.known(self.node.pod(name, number))
    }

    /// One that has no IPv4.
    pub(crate) fn pod_of_ipv6(&self, name: &'static str, number: u8) -> Pod {
        self.known(self.node.pod_of_ipv6(name, number))
    }

    fn known(&self, made: Pod) -> Pod {
        self.kube.apply("pods", pod(made.name(), made.uid()));
        made
    }

    pub(crate) fn server(&self, name: &'static str, number: u8) -> Server {
        Server::new(self.pod(name, number))
    }

    /// One in a pod that has no IPv4.
    pub(crate) fn server_of_ipv6(&self, name: &'static str, number: u8) -> Server {
        Server::new(self.pod_of_ipv6(name, number))
    }

    /// The IPv4 endpoints of all services are in these pods.
    pub(crate) fn route(&self, servers: &[&Server]) {
        self.route_to("abc12", servers.iter().map(|server| server.pod.address()));
    }

    /// Their IPv6 endpoints are.
    pub(crate) fn route_v6(&self, servers: &[&Server]) {
        self.route_to("def34", servers.iter().map(|server| server.pod.address_v6()));
    }

    fn route_to<'a>(&self, suffix: &str, addresses: impl Iterator<Item = &'a str>) {
        let endpoints: Vec<Value> = addresses.map(endpoint).collect();
        for (name, port) in [("web", ("http", 8080)), ("echo", ("tcp", 7007)), ("who", ("tcp", 1717))] {
            self.kube.apply("endpointslices", slice(&format!("{name}-{suffix}"), name, &[port], &endpoints));
        }
    }
}

/// A stage with services at the addresses that begin so, or a skip.
macro_rules! stage {
    ($($network:literal),+) => {
        match $crate::stage::Stage::new(&[$($network),+]) {
            Ok(stage) => stage,
            Err(reason) => mesh_tests::skip!("{reason}"),
        }
    };
}

/// One request to a VIP of `web` on a new connection: which server answered, whom it saw, and which way the request came.
pub(crate) fn ask(client: &World, vip: &str) -> Result<[String; 3], String> {
    let answer = || -> io::Result<String> {
        let mut wire = Wire::over(client.dial(vip)?.into());
        wire.try_answer_to(&get("web.shop", "/")).map(|answer| answer.text())
    };
    let said = answer().map_err(|e| e.to_string())?;
    let mut words = said.splitn(3, ' ').map(str::to_owned);
    Ok(std::array::from_fn(|_| words.next().unwrap_or_default()))
}

/// Asks until the daemon listens where the client is: before, connections go past it.
pub(crate) fn captured(client: &World, vip: &str) -> [String; 3] {
    let is_proxied = |said: &Result<[String; 3], String>| said.as_ref().is_ok_and(|[.., way]| way == "1.1 mesh");
    holds("requests are proxied", || ask(client, vip), is_proxied).unwrap()
}

/// The connections of a service.
pub(crate) fn connections(mesh: &Daemon, service: &str) -> Vec<Value> {
    mesh.json(&["connections", "--service", service]).as_array().unwrap().clone()
}

pub(crate) fn sum(mesh: &Daemon, metric: &str, service: &str) -> f64 {
    mesh.metrics().count(metric, &[("service", service)])
}
