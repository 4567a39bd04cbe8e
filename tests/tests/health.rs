//! Health checks, and what they do to selection. The daemon is in the namespace of the backends here.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{Backend, Daemon, Value, World, eventually, json, service, world};
use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

const VIP: &str = "10.96.0.10:80";
const E1: &str = "10.1.0.1:8080";
const E2: &str = "10.1.0.2:8080";

fn checked(check: Value) -> Value {
    let mut web = service("web", &[VIP], &[E1, E2]);
    web["health_check"] = check;
    // What is asked here is what checks do.
    web["circuit_breaker"] = json!({ "failure_threshold": 0 });
    json!([web])
}

fn quick(kind: &str) -> Value {
    json!({ "type": kind, "interval": "100ms", "timeout": "300ms", "unhealthy_threshold": 2, "healthy_threshold": 2 })
}

fn daemon(world: &World, services: Value) -> Daemon {
    world.setup(services).in_netns(world.netns()).start()
}

fn is(mesh: &Daemon, endpoint: &str, health: &str) {
    eventually(&format!("{endpoint} is {health}"), || {
        let row = mesh.endpoint("web", endpoint);
        if row["health"] == health { Ok(()) } else { Err(row["health"].clone()) }
    });
}

/// A web server that answers with whatever status it is told.
fn web_server(world: &World, address: &str, status: &Arc<AtomicU16>) -> Backend {
    let status = status.clone();
    Backend::new(world.netns(), address, move |mut stream: TcpStream| {
        let mut request = [0; 1024];
        let _ = stream.read(&mut request);
        let status = status.load(Ordering::SeqCst);
        let _ = write!(stream, "HTTP/1.1 {status} Whatever\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    })
}

#[test]
fn an_endpoint_that_does_not_answer_leaves_selection_and_comes_back() {
    let world = world!();
    let _b1 = world.backend("B1", E1);
    let mut b2 = world.backend("B2", E2);
    let mesh = daemon(&world, checked(quick("tcp")));
    is(&mesh, E1, "healthy");
    is(&mesh, E2, "healthy");
    b2.close();
    is(&mesh, E2, "unhealthy");
    assert!(world.ask_times(VIP, 20).iter().all(|who| who == "B1"));
    let labels = [("service", "web"), ("endpoint", E2)];
    assert_eq!(mesh.metrics().count("mesh_endpoint_healthy", &labels), 0.0);
    assert_eq!(mesh.service("web")["endpoints"]["healthy"], 1);
    let explained = mesh.json(&["explain", VIP]);
    assert_eq!(
        (&explained["endpoints"][1]["candidate"], &explained["endpoints"][1]["health"]),
        (&json!(false), &json!("unhealthy"))
    );
    b2.open();
    is(&mesh, E2, "healthy");
    assert_eq!(world.ask_times(VIP, 20).iter().filter(|who| *who == "B2").count(), 10);
}

#[test]
fn all_unhealthy_means_that_health_is_ignored() {
    let world = world!();
    let _backends = [world.backend("B1", E1), world.backend("B2", E2)];
    // Checks ask for HTTP, which these do not speak.
    let mesh = daemon(&world, checked(quick("http")));
    is(&mesh, E1, "unhealthy");
    is(&mesh, E2, "unhealthy");
    assert_eq!(world.ask_times(VIP, 20).iter().filter(|who| *who == "B2").count(), 10);
    let explained = mesh.json(&["explain", VIP]);
    assert_eq!(explained["endpoints"][0]["candidate"], true);
}

#[test]
fn an_unhealthy_endpoint_gets_nothing_also_where_the_circuits_of_the_others_are_open() {
    let world = world!();
    let status = [200, 500].map(AtomicU16::new).map(Arc::new);
    let good = web_server(&world, E1, &status[0]);
    let _bad = web_server(&world, E2, &status[1]);
    let mut services = checked(quick("http"));
    services[0]["circuit_breaker"] = json!({ "failure_threshold": 2, "reset_timeout": "1m", "probe_interval": "1m" });
    // Checks close circuits early, and are slow to find out here.
    services[0]["health_check"] = json!({ "type": "http", "interval": "1s", "unhealthy_threshold": 100, "path": "/" });
    services[0]["health_check"]["healthy_threshold"] = json!(1);
    let mut mesh = daemon(&world, services.clone());
    services[0]["health_check"]["unhealthy_threshold"] = json!(2);
    mesh.set_services(services.clone());
    is(&mesh, E2, "unhealthy");
    is(&mesh, E1, "healthy");
    services[0]["health_check"]["unhealthy_threshold"] = json!(100);
    mesh.set_services(services);
    drop(good);
    let answers: Vec<_> = (0..12).map(|_| world.dial(VIP).map_err(|e| e.raw_os_error())).collect();
    assert!(answers.iter().all(|answer| matches!(answer, Err(Some(libc::ECONNREFUSED)))), "{answers:?}");
    assert_eq!(mesh.endpoint("web", E2)["picked_total"], 0);
}

#[test]
fn an_expected_status_passes_and_others_fail() {
    let world = world!();
    let status = [200, 200].map(AtomicU16::new).map(Arc::new);
    let _servers = [web_server(&world, E1, &status[0]), web_server(&world, E2, &status[1])];
    let mesh = daemon(&world, checked(quick("http")));
    is(&mesh, E1, "healthy");
    is(&mesh, E2, "healthy");
    status[1].store(503, Ordering::SeqCst);
    is(&mesh, E2, "unhealthy");
    is(&mesh, E1, "healthy");
    status[1].store(301, Ordering::SeqCst);
    is(&mesh, E2, "healthy");
}

#[test]
fn marks_count_only_while_the_daemon_is_there() {
    let world = world!();
    let _good = web_server(&world, E1, &Arc::new(AtomicU16::new(200)));
    let garbage = world.backend("B2", E2);
    let setup = world.setup(checked(quick("http"))).in_netns(world.netns());
    let mesh = setup.with(|c| c["dataplane"]["heartbeat_timeout"] = json!("1s")).start();
    is(&mesh, E1, "healthy");
    is(&mesh, E2, "unhealthy");
    mesh.freeze(true);
    // Nobody checks it meanwhile: whoever comes is a client.
    let before = garbage.accepted();
    eventually("the endpoint is used again, since nobody looks after its health", || {
        let _ = world.dial(VIP).map_err(|e| e.to_string())?;
        if garbage.accepted() > before + 1 { Ok(()) } else { Err("not yet".to_owned()) }
    });
    mesh.freeze(false);
    eventually("its mark counts again", || {
        if mesh.json(&["explain", VIP])["endpoints"][1]["candidate"] == false { Ok(()) } else { Err("not yet") }
    });
}

#[test]
fn one_that_accepts_and_never_answers_and_one_that_answers_without_end_are_judged_in_time() {
    let world = world!();
    let _silent = Backend::new(world.netns(), E1, |stream: TcpStream| {
        std::thread::sleep(std::time::Duration::from_secs(2));
        drop(stream);
    });
    let _endless = Backend::new(world.netns(), E2, |mut stream: TcpStream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n");
        let _ = stream.write_all(&vec![b'x'; 10_000_000]);
    });
    let mesh = daemon(&world, checked(quick("http")));
    is(&mesh, E1, "unhealthy");
    is(&mesh, E2, "healthy");
}

#[test]
fn passing_checks_close_an_open_circuit_early() {
    let world = world!();
    let _b1 = world.backend("B1", E1);
    let mut b2 = world.backend("B2", E2);
    let mut web = service("web", &[VIP], &[E1, E2]);
    web["health_check"] = json!({ "type": "tcp", "interval": "100ms", "timeout": "300ms", "unhealthy_threshold": 100 });
    let mesh = daemon(&world, json!([web]));
    is(&mesh, E2, "healthy");
    b2.close();
    for _ in 0..20 {
        let _ = world.dial(VIP);
    }
    assert_eq!(mesh.json(&["circuit", "list", "web"])[1]["state"], "open");
    b2.open();
    eventually("closed long before its 30 seconds", || {
        let circuit = mesh.json(&["circuit", "list", "web"])[1].clone();
        if circuit["state"] == "closed" { Ok(()) } else { Err(circuit) }
    });
}
