//! The admin HTTP: what machines read.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{
    Backend, Daemon, Proxy, World, holds, http, http_with, json, metrics::Metrics, ports::Port, service, world,
};

const VIP: &str = "10.96.0.10:80";
const E1: &str = "10.1.0.1:8080";
const E2: &str = "10.1.0.2:8080";

/// A daemon with service `web` on two backends.
fn web(world: &World) -> (Daemon, [Backend; 2]) {
    let backends = [world.backend("B1", E1), world.backend("B2", E2)];
    (world.daemon(json!([service("web", &[VIP], &[E1, E2])])), backends)
}

#[test]
fn the_admin_port_answers_the_documented_paths() {
    let world = world!();
    let (mesh, _backends) = web(&world);
    for path in ["/v1/status", "/v1/services", "/v1/endpoints", "/v1/config", "/health"] {
        let _ = mesh.http_json(path);
    }
    assert_eq!(mesh.http("GET", "/ready").status, 200);
    assert_eq!(mesh.http("GET", "/nothing/here").status, 404);
    let metrics = mesh.http("GET", "/metrics");
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain"), "{metrics:?}");
    let metrics = mesh.metrics();
    for name in ["mesh_build_info", "mesh_config_reload_failures_total", "process_resident_memory_bytes"] {
        assert!(metrics.sum(name, &[]).is_some(), "{name}");
    }
}

#[test]
fn every_metric_has_help_a_type_and_the_promised_labels() {
    let world = world!();
    let (mesh, _backends) = web(&world);
    let _ = world.ask_times(VIP, 4);
    holds("the first probe", || mesh.metrics().sum("mesh_interception_ok", &[]), Option::is_some);
    let text = mesh.http("GET", "/metrics").body;
    let metrics = mesh.metrics();
    for sample in metrics.samples() {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|s| sample.name.strip_suffix(s));
        let typed = |name: &str| text.contains(&format!("# TYPE {name} "));
        assert!(typed(&sample.name) || base.is_some_and(typed), "# TYPE of {}", sample.name);
        if sample.name.starts_with("mesh_tcp_") {
            assert!(sample.labels.contains_key("service"), "{sample:?}");
        }
    }
    let labels = [("service", "web"), ("endpoint", E1)];
    for name in [
        "mesh_tcp_connections_opened_total",
        "mesh_tcp_connections_closed_total",
        "mesh_tcp_connections_active",
        "mesh_tcp_sent_bytes_total",
        "mesh_tcp_received_bytes_total",
        "mesh_tcp_retransmits_total",
    ] {
        assert!(metrics.sum(name, &labels).is_some(), "{name} {labels:?}");
    }
}

#[test]
fn a_long_scrape_comes_in_chunks_and_has_every_endpoint_once() {
    let world = world!();
    let at: Vec<Vec<String>> = (0..100).map(|s| (1..=10).map(|e| format!("10.2.{s}.{e}:80")).collect()).collect();
    let services = at.iter().enumerate().map(|(n, endpoints)| {
        let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
        service(&format!("s{n}"), &[&format!("10.97.0.{}:80", n + 1)], &endpoints)
    });
    let mesh = world.daemon(services.collect());
    let by_socket = http::unix(&mesh.socket_path(), "GET", "/metrics", "").unwrap();
    for response in [mesh.http("GET", "/metrics"), by_socket] {
        assert_eq!((response.status, response.header("transfer-encoding")), (200, Some("chunked")));
        let metrics = Metrics::parse(&response.body);
        let active = metrics.samples().iter().filter(|s| s.name == "mesh_tcp_connections_active");
        let mut told: Vec<&str> = active.map(|s| s.labels["endpoint"].as_str()).collect();
        let mut wanted: Vec<&str> = at.iter().flatten().map(String::as_str).collect();
        told.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(told, wanted);
        assert!(metrics.sum("process_resident_memory_bytes", &[]).is_some(), "the last family is there");
    }
    let head = mesh.http("HEAD", "/metrics");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[test]
fn the_admin_port_changes_nothing() {
    let world = world!();
    let (mesh, _backends) = web(&world);
    let before = (mesh.json(&["services"]), mesh.json(&["endpoints"]), mesh.http("GET", "/v1/config").body);
    // Among them the bodies and paths by which the admin socket takes changes.
    let target = json!({ "service": "web", "address": E1, "persist": false });
    let weight = json!({ "service": "web", "address": E1, "weight": 7, "persist": false });
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        for (path, body) in [
            ("/v1/endpoints/drain", target.clone()),
            ("/v1/endpoints/undrain", target.clone()),
            ("/v1/endpoints/weight", weight.clone()),
            ("/v1/lb", json!({ "service": "web", "policy": "random", "persist": false })),
            ("/v1/bypass", json!({ "on": true })),
            ("/v1/config/reload", json!({})),
            ("/v1/services", json!([])),
            ("/v1/config", json!({})),
            ("/v1/status", json!({})),
            ("/", json!({})),
        ] {
            let status = http::tcp(&mesh.admin(), method, path, &body.to_string()).unwrap().status;
            assert!((400..500).contains(&status), "{method} {path}: {status}");
        }
    }
    let after = (mesh.json(&["services"]), mesh.json(&["endpoints"]), mesh.http("GET", "/v1/config").body);
    assert_eq!(before, after);
    assert_eq!(mesh.json(&["status"])["bypass"], false);
}

#[test]
fn the_admin_socket_answers_what_the_port_answers() {
    let world = world!();
    let (mesh, _backends) = web(&world);
    for path in ["/v1/services", "/v1/endpoints", "/v1/config"] {
        let socket = http::unix(&mesh.socket_path(), "GET", path, "").unwrap();
        assert_eq!((socket.status, socket.body), (200, mesh.http("GET", path).body), "{path}");
    }
}

#[test]
fn what_a_configuration_keeps_secret_is_told_at_the_socket_only() {
    let route = json!({
        "match": { "path_prefix": "/", "headers": { "x-api-key": "key-seven" } },
        "to": [{ "service": "web" }],
        "headers": { "request": { "set": { "authorization": "Bearer abcdefgh" } } },
    });
    let web = http_with("web", &[E1], json!({ "routes": [route], "health_check": { "path": "/hz?key=of-health" } }));
    let mut mesh = Proxy::new(json!([web]));
    mesh.cli(&["register", "shop", E2, "--metadata", "token=of-shop"]).done();
    let secrets = ["key-seven", "abcdefgh", "of-health", "of-shop", "of-etcd"];
    let told = |text: &str| secrets.map(|secret| text.contains(secret));
    let at_socket = |path| http::unix(&mesh.socket_path(), "GET", path, "").unwrap().body;
    assert_eq!(told(&at_socket("/v1/config")), [true, true, true, false, false]);
    assert!(at_socket("/v1/registry").contains("of-shop"));
    for path in ["/v1/config", "/v1/registry"] {
        let body = mesh.http("GET", path).body;
        assert_eq!(told(&body), [false; 5], "{body}");
        assert!(body.contains("***"), "{body}");
    }
    // A mistake quotes what it finds.
    mesh.configure(|config| config["discovery"] = json!({ "etcd": { "endpoints": ["http://u:of-etcd@host"] } }));
    mesh.cli(&["config", "reload"]).ended(1).refused(&["of-etcd"]);
    let status = mesh.http("GET", "/v1/status").body;
    assert!(status.contains("discovery.etcd") && !status.contains("of-etcd"), "{status}");
}

#[test]
fn broken_requests_do_not_harm_the_admin_port() {
    use std::io::{Read, Write};
    let world = world!();
    let (mesh, _backends) = web(&world);
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    for nonsense in ["\r\n\r\n", "GET\r\n\r\n", "\u{0}\u{1}\u{2}", "GET /metrics HTTP/9.9\r\n\r\n", long.as_str()] {
        let mut stream = std::net::TcpStream::connect(mesh.admin()).unwrap();
        let _ = stream.write_all(nonsense.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(mesh.http("GET", "/health").status, 200);
    assert_eq!(mesh.metrics().sum("mesh_build_info", &[]), Some(1.0));
}

#[test]
fn metrics_listen_serves_three_paths_and_no_more() {
    let world = world!();
    let port = Port::new();
    let setup = world.setup(json!([service("web", &[VIP], &[E1])]));
    let mesh = setup.with(|c| c["admin"]["metrics_listen"] = json!(port.address())).start();
    let status = |path: &str| http::tcp(&port.address(), "GET", path, "").unwrap().status;
    for path in ["/metrics", "/health", "/ready"] {
        assert_eq!(status(path), 200, "{path}");
    }
    for path in ["/", "/v1/status", "/v1/services", "/v1/endpoints", "/v1/config"] {
        assert_eq!(status(path), 404, "{path}");
    }
    assert_eq!(mesh.http("GET", "/v1/status").status, 200);
}

#[test]
fn health_names_every_component() {
    let world = world!();
    let (mesh, _backends) = web(&world);
    let health = mesh.http_json("/health");
    assert!(health.as_object().is_some_and(|o| !o.is_empty()), "{health}");
}

#[test]
fn idle_and_slow_clients_hold_up_nobody() {
    use std::{io::Write, net::TcpStream, os::unix::net::UnixStream};
    let world = world!();
    let (mesh, _backends) = web(&world);
    let idle: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(mesh.admin()).unwrap()).collect();
    idle.iter().step_by(2).for_each(|mut stream| stream.write_all(b"GET /met").unwrap());
    let at_the_socket: Vec<UnixStream> = (0..50).map(|_| UnixStream::connect(mesh.socket_path()).unwrap()).collect();
    assert_eq!(mesh.http("GET", "/ready").status, 200);
    mesh.cli(&["endpoints", "drain", "web", E1]).done();
    assert_eq!(world.ask(VIP).unwrap(), "B2");
    drop((idle, at_the_socket));
}
