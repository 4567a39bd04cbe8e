//! Who plays: the services of the demo, their VIPs and their backends; and the configuration that says so.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;

use super::actors::Speech;
use crate::ports::{self, Port};

/// A program that answers with its name.
pub(super) struct Backend {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    pub(super) weight: u64,
    /// Of its bar, as an escape sequence.
    pub(super) colour: &'static str,
}

pub(super) struct Service {
    pub(super) name: &'static str,
    pub(super) speech: Speech,
    pub(super) policy: &'static str,
    /// Whether mesh looks at requests, or at connections.
    pub(super) requests: bool,
    /// More of its configuration, as it stands there.
    settings: &'static str,
    pub(super) vips: Vec<SocketAddr>,
    pub(super) backends: Vec<Backend>,
    _port: Port,
}

/// A request with a header goes to another version; one that an endpoint does not answer goes to another endpoint.
const SHOP: &str = "    \
    retries: { attempts: 2, on: [connect_failure, reset_before_request, reset] }
    routes:
      - match: { headers: { x-canary: \"1\" } }
        to: [{ service: shop-canary }]
      - to: [{ service: shop }]
";

/// Two services of connections, one that speaks HTTP and one that speaks a protocol of its own; and one of requests, with
/// a new version of it. Nobody owns the VIPs: 240/4 is reserved, and
/// fd00::/8 is for private use.
pub(super) fn services() -> Result<[Service; 4], String> {
    let web = ports::reserve(18080, &[1, 2, 3].map(loopback))?;
    let echo = ports::reserve(17000, &[1, 2].map(loopback))?;
    let shop = ports::reserve(18180, &[1, 2, 3].map(loopback))?;
    let canary = ports::reserve(18280, &[loopback(4)])?;
    let backend = |number, port: &Port, name, weight, colour| {
        let address = (loopback(number), port.number).into();
        Backend { name, address, weight, colour }
    };
    Ok([
        Service {
            name: "web",
            speech: Speech::Http,
            policy: "round_robin",
            requests: false,
            settings: "",
            vips: vips(80, 0x80, 80),
            backends: vec![
                backend(1, &web, "red", 3, "31"),
                backend(2, &web, "green", 2, "32"),
                backend(3, &web, "blue", 1, "34"),
            ],
            _port: web,
        },
        Service {
            name: "echo",
            speech: Speech::Line,
            policy: "random",
            requests: false,
            settings: "",
            vips: vips(7, 7, 7),
            backends: vec![backend(1, &echo, "one", 1, "33"), backend(2, &echo, "two", 1, "35")],
            _port: echo,
        },
        Service {
            name: "shop",
            speech: Speech::Http,
            policy: "round_robin",
            requests: true,
            settings: SHOP,
            vips: vips(88, 0x88, 80),
            backends: vec![
                backend(1, &shop, "apple", 2, "31"),
                backend(2, &shop, "pear", 1, "32"),
                backend(3, &shop, "plum", 1, "35"),
            ],
            _port: shop,
        },
        Service {
            name: "shop-canary",
            speech: Speech::Http,
            policy: "round_robin",
            requests: true,
            settings: "",
            vips: Vec::new(),
            backends: vec![backend(4, &canary, "canary", 1, "33")],
            _port: canary,
        },
    ])
}

/// One of each family, where the kernel has both.
fn vips(v4: u8, v6: u16, port: u16) -> Vec<SocketAddr> {
    let v4 = Ipv4Addr::new(240, 0, 0, v4).into();
    let v6 = has_v6().then(|| Ipv6Addr::new(0xfd00, 0x240, 0, 0, 0, 0, 0, v6).into());
    std::iter::once(v4).chain(v6).map(|address: IpAddr| (address, port).into()).collect()
}

/// Whether there are IPv6 sockets at all. A VIP asks for no more: no route, and no interface with an address.
pub(super) fn has_v6() -> bool {
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok()
}

/// Not 127.0.0.1, where the ephemeral ports of clients are: a backend that is down must find its port free again.
fn loopback(number: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 1, number).into()
}

/// What `mesh run --config` reads. Circuits are tried again sooner than by default, so that the story is short; and
/// nobody checks endpoints, so that it shows what the kernel sees by itself.
pub(super) fn configuration(
    services: &[Service],
    home: &Path,
    cgroup: &Path,
    bpffs: &Path,
    admin: SocketAddr,
    proxy: u16,
) -> String {
    let mut text = format!(
        "node: {{ name: demo, state_dir: {home}/state }}\n\
         admin: {{ listen: \"{admin}\", socket: {home}/admin.sock }}\n\
         dataplane: {{ mode: ebpf, cgroup: {cgroup}, bpffs: {bpffs} }}\n\
         proxy: {{ port: {proxy}, http: \"\" }}\n\
         defaults:\n  \
           health_check: {{ type: none }}\n  \
           circuit_breaker: {{ reset_timeout: 1s, max_reset_timeout: 2s }}\n\
         services:\n",
        home = home.display(),
        cgroup = cgroup.display(),
        bpffs = bpffs.display(),
    );
    for service in services {
        let vips: Vec<String> = service.vips.iter().map(|vip| format!("\"{vip}\"")).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  - name: {}\n    addresses: [{}]", service.name, vips.join(", "));
        if service.requests {
            text.push_str("    protocol: http\n");
        }
        text.push_str(service.settings);
        let _ = writeln!(text, "    load_balancing: {{ policy: {} }}\n    endpoints:", service.policy);
        for backend in &service.backends {
            let _ = writeln!(text, "      - {{ address: \"{}\", weight: {} }}", backend.address, backend.weight);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_every_vip_and_every_backend() {
        let services = services().unwrap();
        let paths = ["/h", "/c", "/b"].map(Path::new);
        let text = configuration(&services, paths[0], paths[1], paths[2], "127.0.0.1:9".parse().unwrap(), 15001);
        assert!(text.starts_with("node: { name: demo, state_dir: /h/state }\n"));
        assert!(text.contains("    addresses: [\"240.0.0.80:80\""));
        assert_eq!(text.contains("\"[fd00:240::80]:80\"]\n"), has_v6());
        for backend in services.iter().flat_map(|service| &service.backends) {
            assert!(text.contains(&format!("\"{}\", weight: {} ", backend.address, backend.weight)));
        }
    }
}
