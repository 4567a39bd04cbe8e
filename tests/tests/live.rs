//! What is counted while connections are open, how long they took, and trouble that is not their endpoint's.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Daemon, holds, json, metrics::Metrics, service, world, world::addr};
use socket2::{Domain, Socket};
use std::{
    io::{Read, Write},
    thread,
    time::Duration,
};

const VIP: &str = "10.96.0.10:80";
const E1: &str = "10.1.0.1:8080";
const OF_E1: [(&str, &str); 2] = [("service", "web"), ("endpoint", E1)];

fn exchange(mut client: &Socket, bytes: usize) {
    client.write_all(&vec![b'x'; bytes]).unwrap();
    client.read_exact(&mut vec![0; bytes]).unwrap();
}

/// A counter among the metrics.
#[expect(clippy::cast_sign_loss, reason = "counters are not negative")]
fn count(metrics: &Metrics, name: &str, labels: &[(&str, &str)]) -> u64 {
    metrics.count(name, labels) as u64
}

/// Sent and received bytes as the endpoint, the service, and the metrics have them.
fn bytes(mesh: &Daemon) -> [(u64, u64); 3] {
    let (endpoint, service, metrics) = (mesh.endpoint("web", E1), mesh.service("web"), mesh.metrics());
    let of = |row: &mesh_tests::Value| {
        (row["sent_bytes_total"].as_u64().unwrap(), row["received_bytes_total"].as_u64().unwrap())
    };
    let metric = |name: &str| count(&metrics, name, &OF_E1);
    [of(&endpoint), of(&service), (metric("mesh_tcp_sent_bytes_total"), metric("mesh_tcp_received_bytes_total"))]
}

#[test]
fn bytes_of_open_connections_are_in_every_total_at_once_and_once_only() {
    let world = world!();
    let _echo = world.echo(E1);
    let mesh = world.daemon(json!([service("web", &[VIP], &[E1])]));
    let clients: Vec<Socket> = (0..10).map(|_| world.dial(VIP).unwrap()).collect();
    let mut expected = 0;
    for round in 1..=5 {
        for (n, client) in clients.iter().enumerate() {
            exchange(client, 1000 * round + n);
            expected += (1000 * round + n) as u64;
        }
        holds("the bytes of open connections", || bytes(&mesh), |seen| *seen == [(expected, expected); 3]);
        let listed = mesh.json(&["connections"]);
        let listed: u64 = listed.as_array().unwrap().iter().map(|row| row["sent_bytes"].as_u64().unwrap()).sum();
        assert_eq!(listed, expected, "and the listing says the same");
    }
    drop(clients);
    holds("closed", || mesh.endpoint("web", E1)["active_connections"].as_u64(), |active| *active == Some(0));
    assert_eq!(bytes(&mesh), [(expected, expected); 3], "the end of a connection adds nothing twice");
}

/// The counts of a histogram: each bucket's with its bound, the total, and the sum in seconds.
fn histogram(metrics: &Metrics, name: &str) -> (Vec<(f64, f64)>, f64, f64) {
    let of_e1 = |s: &&mesh_tests::metrics::Sample| OF_E1.iter().all(|(k, v)| s.labels.get(*k).is_some_and(|l| l == v));
    let buckets = metrics.samples().iter().filter(|s| s.name == format!("{name}_bucket")).filter(of_e1);
    let buckets = buckets.map(|s| (s.labels["le"].parse().unwrap(), s.value)).collect();
    (buckets, metrics.count(&format!("{name}_count"), &OF_E1), metrics.count(&format!("{name}_sum"), &OF_E1))
}

#[test]
fn histograms_have_every_connection_once() {
    let world = world!();
    let _echo = world.echo(E1);
    let idle = "10.1.0.2:8080";
    let mesh = world.daemon(json!([service("web", &[VIP], &[E1]), service("idle", &["10.96.0.11:80"], &[idle])]));
    let connect = "mesh_tcp_connect_duration_seconds";
    let rtt = "mesh_tcp_rtt_seconds";
    assert_eq!(histogram(&mesh.metrics(), connect).0, [], "nothing of an endpoint that nobody talked to");
    let clients: Vec<Socket> = (0..20).map(|_| world.dial(VIP).unwrap()).collect();
    clients.iter().for_each(|client| exchange(client, 100));
    let (buckets, count, sum) = histogram(&mesh.metrics(), connect);
    assert_eq!((buckets.len(), count), (19, 20.0));
    assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{buckets:?}");
    assert_eq!((buckets[0].0, buckets[17].0, buckets[18]), (0.000_016, 2.097_152, (f64::INFINITY, 20.0)));
    assert!(sum > 0.0 && sum < 20.0 * 2.0, "{sum} s for 20 connects over loopback");
    let mean = mesh.endpoint("web", E1)["connect_ms"].as_f64().unwrap();
    assert!((mean - sum * 1000.0 / 20.0).abs() < 0.001, "{mean} ms, {sum} s");
    drop(clients);
    holds("closed", || histogram(&mesh.metrics(), rtt).1, |count| *count == 20.0);
    let (buckets, _, sum) = histogram(&mesh.metrics(), rtt);
    assert!(buckets.last().unwrap().1 == 20.0 && sum > 0.0, "{buckets:?} {sum}");
    assert_eq!(mesh.metrics().sum(&format!("{connect}_count"), &[("endpoint", idle)]), None);
    assert_eq!(mesh.endpoint("idle", idle)["connect_ms"], mesh_tests::Value::Null);
}

#[test]
fn an_endpoint_begins_with_empty_histograms_even_in_a_used_row() {
    let world = world!();
    let _backends = [E1, "10.1.0.2:8080"].map(|at| world.echo(at));
    let setup = world.setup(json!([service("web", &[VIP], &[E1])]));
    // One row: the next endpoint can only get the first one's.
    let mut mesh = setup.with(|c| c["dataplane"]["max_endpoints"] = json!(1)).start();
    drop(world.dial(VIP).unwrap());
    holds("counted", || histogram(&mesh.metrics(), "mesh_tcp_rtt_seconds").1, |count| *count == 1.0);
    mesh.set_services(json!([service("web", &[VIP], &[])]));
    // A freed row rests for ten seconds.
    thread::sleep(Duration::from_secs(11));
    mesh.set_services(json!([service("web", &[VIP], &["10.1.0.2:8080"])]));
    let of_new = [("service", "web"), ("endpoint", "10.1.0.2:8080")];
    let counts = |mesh: &Daemon| {
        let metrics = mesh.metrics();
        ["mesh_tcp_connect_duration_seconds_count", "mesh_tcp_rtt_seconds_count"]
            .map(|name| metrics.count(name, &of_new))
    };
    assert_eq!(counts(&mesh), [0.0, 0.0]);
    drop(world.dial(VIP).unwrap());
    holds("only its own", || counts(&mesh), |counts| *counts == [1.0, 1.0]);
}

/// (local trouble of the service, failures of the endpoint, connections opened to it), once they are `wanted`.
fn trouble(mesh: &Daemon, wanted: (u64, u64, u64)) {
    let look = || {
        let metrics = mesh.metrics();
        let count = |name: &str| count(&metrics, name, &[("service", "web")]);
        (
            count("mesh_connects_local_trouble_total"),
            count("mesh_tcp_connect_failures_total"),
            count("mesh_tcp_connections_opened_total"),
        )
    };
    holds("local trouble, failures, opened", look, |seen| *seen == wanted);
    assert_eq!(mesh.service("web")["connects_local_trouble_total"], wanted.0);
    assert_eq!(mesh.json(&["endpoints", "web"])[0]["connect_failures_total"], wanted.1);
}

#[test]
fn a_connect_without_a_route_is_local_trouble() {
    let world = world!();
    let mesh = world.daemon(json!([service("web", &[VIP], &["10.66.0.1:80"])]));
    for n in 1..=3 {
        assert_eq!(world.dial(VIP).unwrap_err().raw_os_error(), Some(libc::ENETUNREACH));
        trouble(&mesh, (n, 0, 0));
    }
    mesh.cli(&["services", "web"]).says(&["Local trouble", "3 connects"]);
}

#[test]
fn a_connect_from_an_address_in_use_is_local_trouble() {
    let world = world!();
    let _echo = world.echo(E1);
    let mesh = world.daemon(json!([service("web", &[VIP], &[E1])]));
    let bound = || {
        let client = world.tcp(Domain::IPV4);
        client.set_reuse_address(true).unwrap();
        client.bind(&addr("10.1.0.9:5000").into()).unwrap();
        client
    };
    let (first, second) = (bound(), bound());
    first.connect(&addr(VIP).into()).unwrap();
    assert_eq!(second.connect(&addr(VIP).into()).unwrap_err().raw_os_error(), Some(libc::EADDRNOTAVAIL));
    drop(second);
    trouble(&mesh, (1, 0, 1));
    exchange(&first, 10);
    holds("and the other one goes on", || bytes(&mesh), |seen| *seen == [(10, 10); 3]);
}
