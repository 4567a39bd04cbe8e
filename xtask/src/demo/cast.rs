//! Who plays: the services of the demo, their VIPs and their backends; and the configuration that says so.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;

use super::actors::Speech;

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
    pub(super) vips: [SocketAddr; 2],
    pub(super) backends: Vec<Backend>,
}

/// One service that speaks HTTP and one that speaks a protocol of its own. Nobody owns the VIPs: 240/4 is reserved, and
/// fd00::/8 is for private use.
pub(super) fn services() -> Result<[Service; 2], String> {
    let web = free_port(8080, 3)?;
    let echo = free_port(7000, 2)?;
    let backend = |number, port, name, weight, colour| Backend { name, address: address(number, port), weight, colour };
    Ok([
        Service {
            name: "web",
            speech: Speech::Http,
            policy: "round_robin",
            vips: vips(80, 0x80, 80),
            backends: vec![
                backend(1, web, "red", 3, "31"),
                backend(2, web, "green", 2, "32"),
                backend(3, web, "blue", 1, "34"),
            ],
        },
        Service {
            name: "echo",
            speech: Speech::Line,
            policy: "random",
            vips: vips(7, 7, 7),
            backends: vec![backend(1, echo, "one", 1, "33"), backend(2, echo, "two", 1, "35")],
        },
    ])
}

fn vips(v4: u8, v6: u16, port: u16) -> [SocketAddr; 2] {
    let v6 = Ipv6Addr::new(0xfd00, 0x240, 0, 0, 0, 0, 0, v6);
    [(Ipv4Addr::new(240, 0, 0, v4), port).into(), (v6, port).into()]
}

/// Not 127.0.0.1, where the ephemeral ports of clients are: a backend that is down must find its port free again.
fn address(number: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 1, number), port).into()
}

/// A port from `first` on that is free on the first `count` backend addresses.
fn free_port(first: u16, count: u8) -> Result<u16, String> {
    let free = |port: &u16| (1..=count).all(|number| TcpListener::bind(address(number, *port)).is_ok());
    (first..first + 500).find(free).ok_or_else(|| format!("no free port from {first} on"))
}

/// What `mesh run --config` reads.
pub(super) fn configuration(
    services: &[Service],
    home: &Path,
    cgroup: &Path,
    bpffs: &Path,
    admin: SocketAddr,
) -> String {
    let mut text = format!(
        "node: {{ name: demo, state_dir: {home}/state }}\n\
         admin: {{ listen: \"{admin}\", socket: {home}/admin.sock }}\n\
         dataplane: {{ mode: ebpf, cgroup: {cgroup}, bpffs: {bpffs} }}\n\
         services:\n",
        home = home.display(),
        cgroup = cgroup.display(),
        bpffs = bpffs.display(),
    );
    for service in services {
        let vips = service.vips.map(|vip| format!("\"{vip}\"")).join(", ");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  - name: {}\n    addresses: [{vips}]", service.name);
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
        let text = configuration(&services, paths[0], paths[1], paths[2], "127.0.0.1:9".parse().unwrap());
        assert!(text.starts_with("node: { name: demo, state_dir: /h/state }\n"));
        assert!(text.contains("    addresses: [\"240.0.0.80:80\", \"[fd00:240::80]:80\"]\n"));
        for backend in services.iter().flat_map(|service| &service.backends) {
            assert!(text.contains(&format!("\"{}\", weight: {} ", backend.address, backend.weight)));
        }
    }
}
