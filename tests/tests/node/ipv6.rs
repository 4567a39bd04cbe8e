//! Services with addresses of IPv6, in pods that have both families, and in pods that have IPv6 alone.

use crate::stage::{Server, ask, captured, connections, sum};
use mesh_tests::{Client, Daemon, Pod, Value, World, backend, holds, json, world::addr};
use std::collections::BTreeMap;

/// An HTTP service, one that echoes, and one that says who answers.
const WEB: &str = "[fd96::10]:80";
const ECHO: &str = "[fd96::20]:7";
const WHO: &str = "[fd96::30]:17";

/// Connections to an endpoint of a service, as they are counted: those opened, closed, and open.
fn opened(mesh: &Daemon, service: &str, endpoint: &str) -> [f64; 3] {
    let metrics = mesh.metrics();
    ["opened_total", "closed_total", "active"].map(|what| {
        metrics.count(&format!("mesh_tcp_connections_{what}"), &[("service", service), ("endpoint", endpoint)])
    })
}

/// Nothing of a service went wrong, nor past mesh.
fn is_flawless(mesh: &Daemon, service: &str) {
    let metrics = mesh.metrics();
    for metric in [
        "mesh_tcp_connect_failures_total",
        "mesh_tcp_connects_refused_total",
        "mesh_connects_local_trouble_total",
        "mesh_connects_untracked_total",
    ] {
        assert_eq!(metrics.count(metric, &[("service", service)]), 0.0, "{metric} of {service}");
    }
}

fn tally(answers: &[String]) -> BTreeMap<&str, usize> {
    answers.iter().fold(BTreeMap::new(), |mut all, who| {
        *all.entry(who.as_str()).or_default() += 1;
        all
    })
}

/// A connection of a pod's process to the echo, which carries so many bytes each way, and is listed with its pod.
fn echoes(mesh: &Daemon, pod: &Pod, bytes: usize) -> Client {
    let mut client = pod.inside.client(ECHO);
    client.exchange(bytes);
    let rows = || {
        let ours = |row: &Value| row["client"]["pid"] == client.pid();
        connections(mesh, "echo.shop").into_iter().filter(ours).collect::<Vec<_>>()
    };
    let counted = |row: &Value| row["sent_bytes"] == bytes && row["received_bytes"] == bytes;
    let row = holds("listed", rows, |rows| rows.len() == 1 && counted(&rows[0])).remove(0);
    assert_eq!(row["client"]["pod"], format!("shop/{}", pod.name()), "{row:#}");
    assert_eq!(row["client"]["cgroup"], pod.inside.cgroup().name(), "{row:#}");
    assert_eq!(row["client"]["address"], client.local.to_string(), "{row:#}");
    assert_eq!(client.local.ip().to_string(), pod.address_v6());
    assert_eq!((&row["original_destination"], &row["path"]), (&json!(ECHO), &json!("direct")));
    client
}

#[test]
fn services_of_ipv6_alone_are_reached_by_pods_of_both_families_and_of_ipv6_alone() {
    let stage = stage!("fd96::");
    let (first, second) = (stage.server("server-1", 11), stage.server_of_ipv6("server-2", 12));
    let (both, alone) = (stage.pod("client-1", 21), stage.pod_of_ipv6("client-2", 22));
    stage.route_v6(&[&first, &second]);
    let mut mesh = stage.daemon();
    // One that comes later is like those that were there.
    let late = stage.pod_of_ipv6("client-3", 23);
    let clients = [&both, &alone, &late];
    let at = |server: &Server, port: u16| format!("[{}]:{port}", server.pod.address_v6());

    // In the kernel: each server in its turn.
    for pod in clients {
        assert_eq!(tally(&pod.inside.ask_times(WHO, 20)), BTreeMap::from([("server-1", 10), ("server-2", 10)]));
        let said = pod.inside.connect_program(WHO).done();
        assert!(said.contains(WHO), "an application sees what it dialled: {said}");
    }
    for server in [&first, &second] {
        let counted = || opened(&mesh, "who.shop", &at(server, 1717));
        let [one, ..] = holds("all are closed", counted, |[opened, closed, active]| opened == closed && *active == 0.0);
        assert!((31.0..=32.0).contains(&one), "63 over two: {one}");
    }
    assert_eq!(sum(&mesh, "mesh_tcp_connections_opened_total", "who.shop"), 63.0);
    is_flawless(&mesh, "who.shop");

    // Whose connection it is, and every byte of it.
    let mut open: Vec<_> = clients.iter().zip([100_000, 23_456, 7]).map(|(pod, n)| echoes(&mesh, pod, n)).collect();

    // Through the daemon, in the pod's own namespace: the endpoint sees the pod, not the node.
    for pod in clients {
        let before = sum(&mesh, "http_requests_total", "web.shop");
        let servers = [(); 10].map(|()| {
            let [server, seen, way] = captured(&pod.inside, WEB);
            assert_eq!([seen.as_str(), way.as_str()], [pod.address_v6(), "1.1 mesh"]);
            server
        });
        assert_eq!(tally(&servers).len(), 2, "{servers:?}");
        // Those before the daemon listened in a new namespace went past it.
        assert_eq!(sum(&mesh, "http_requests_total", "web.shop") - before, 10.0, "{}", pod.name());
    }
    let responses = [&first, &second].map(|server| {
        let endpoint = at(server, 8080);
        mesh.metrics()
            .count("http_responses_total", &[("service", "web.shop"), ("endpoint", &endpoint), ("status", "200")])
    });
    assert_eq!(responses.iter().sum::<f64>(), 30.0, "{responses:?}");
    is_flawless(&mesh, "web.shop");

    // Without the daemon as well.
    mesh.kill();
    for (pod, client) in clients.iter().zip(&mut open) {
        client.exchange(1_000);
        let [server, seen, way] = ask(&pod.inside, WEB).unwrap();
        assert!(server.starts_with("server-"));
        assert_eq!([seen.as_str(), way.as_str()], [pod.address_v6(), "direct"], "past the daemon");
    }
    mesh.start();
    drop(open);
    holds("all are closed", || sum(&mesh, "mesh_tcp_connections_active", "echo.shop"), |n| *n == 0.0);
    let bytes = ["mesh_tcp_sent_bytes_total", "mesh_tcp_received_bytes_total"].map(|m| sum(&mesh, m, "echo.shop"));
    assert_eq!(bytes, [126_463.0; 2]);
    for pod in clients {
        assert_eq!(captured(&pod.inside, WEB)[1], pod.address_v6());
    }
}

/// `n` clients whose sockets are of IPv6 and of nothing else: who answered each.
fn ask_v6only(pod: &World, n: usize) -> Vec<String> {
    let vip = addr(WHO);
    let one = |_| {
        let mut socket = pod.tcp(socket2::Domain::IPV6);
        socket.set_only_v6(true).unwrap();
        socket.connect(&vip.into()).unwrap();
        backend::answer(&mut socket).unwrap()
    };
    (0..n).map(one).collect()
}

#[test]
fn services_of_both_families_are_reached_by_either_vip() {
    let stage = stage!("10.96.0.", "fd96::");
    let (first, second) = (stage.server("server-1", 11), stage.server("server-2", 12));
    let client = stage.pod("client-1", 21);
    stage.route(&[&first, &second]);
    stage.route_v6(&[&first, &second]);
    let mesh = stage.daemon();
    let service = mesh.service("who.shop");
    assert_eq!(service["addresses"], json!(["10.96.0.30:17", WHO]), "{service:#}");
    assert_eq!(service["endpoints"]["total"], 4, "each server by both of its addresses: {service:#}");

    let endpoints = [&first, &second]
        .map(|server| [format!("{}:1717", server.pod.address()), format!("[{}]:1717", server.pod.address_v6())]);
    let count = || endpoints.each_ref().map(|server| server.each_ref().map(|at| opened(&mesh, "who.shop", at)[0]));
    let half = BTreeMap::from([("server-1", 4), ("server-2", 4)]);
    assert_eq!(tally(&client.inside.ask_times("10.96.0.30:17", 8)), half);
    assert_eq!(count(), [[4.0, 0.0]; 2], "an IPv4 VIP has endpoints of IPv4");
    assert_eq!(tally(&client.inside.ask_times(WHO, 8)), half);
    assert_eq!(count(), [[4.0, 4.0]; 2], "an IPv6 VIP has those of IPv6");
    assert_eq!(tally(&ask_v6only(&client.inside, 8)), half);
    assert_eq!(count(), [[4.0, 8.0]; 2], "also of sockets that are of IPv6 alone");
    is_flawless(&mesh, "who.shop");

    let before = sum(&mesh, "http_requests_total", "web.shop");
    for vip in ["10.96.0.10:80", WEB] {
        for _ in 0..8 {
            let [_, seen, _] = captured(&client.inside, vip);
            assert!([client.address(), client.address_v6()].contains(&seen.as_str()), "{vip}: {seen}");
        }
    }
    assert_eq!(sum(&mesh, "http_requests_total", "web.shop") - before, 16.0);
    is_flawless(&mesh, "web.shop");
}

#[test]
fn a_pod_without_ipv4_is_held_against_no_endpoint_of_a_service_that_has_both() {
    let stage = stage!("10.96.0.", "fd96::");
    let (first, second) = (stage.server("server-1", 11), stage.server("server-2", 12));
    let (client, other) = (stage.pod_of_ipv6("client-1", 21), stage.pod("client-2", 22));
    stage.route(&[&first, &second]);
    stage.route_v6(&[&first, &second]);
    let mesh = stage.daemon();

    let half = BTreeMap::from([("server-1", 4), ("server-2", 4)]);
    assert_eq!(tally(&ask_v6only(&client.inside, 8)), half);
    assert_eq!(tally(&client.inside.ask_times(WHO, 8)), half, "it meets no endpoint that it has no route to");
    captured(&client.inside, WEB);
    for _ in 0..16 {
        let _ = ask(&client.inside, WEB);
    }
    for service in ["web.shop", "who.shop"] {
        for endpoint in mesh.json(&["endpoints", service]).as_array().unwrap() {
            let said = (&endpoint["circuit"], &endpoint["connect_failures_total"]);
            assert_eq!(said, (&json!("closed"), &json!(0)), "{endpoint:#}");
        }
    }
    assert_eq!(tally(&other.inside.ask_times(WHO, 8)), half);
}
