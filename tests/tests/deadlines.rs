//! `connect_timeout`, for applications that know nothing of it; and black holes.
#![allow(clippy::unwrap_used, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{Value, World, eventually, json, service, world, world::addr};
use socket2::{Domain, SockRef};
use std::{
    io::{Read, Write},
    time::{Duration, Instant},
};

const VIP: &str = "10.96.0.10:80";
const LIVE: &str = "10.1.0.1:8080";
const HOLE: &str = "10.9.0.1:80";

fn with(mut service: Value, key: &str, value: Value) -> Value {
    service[key] = value;
    service
}

/// How long a connect took, and its error.
fn timed(world: &World, vip: &str) -> (Duration, Option<i32>) {
    let begun = Instant::now();
    let error = world.dial(vip).err().and_then(|e| e.raw_os_error());
    (begun.elapsed(), error)
}

#[test]
fn a_connect_into_a_black_hole_times_out_when_it_was_configured_to() {
    let world = world!();
    world.netns().black_hole("10.9.0.0/16");
    for ms in [200, 1000] {
        let web = with(service("web", &[VIP], &[HOLE]), "connect_timeout", json!(format!("{ms}ms")));
        let web = with(web, "circuit_breaker", json!({ "failure_threshold": 0 }));
        let _mesh = world.daemon(json!([web]));
        let all: Vec<_> = (0..4).map(|_| timed(&world, VIP)).collect();
        let least = Duration::from_millis(ms - 10);
        assert!(all.iter().all(|(took, error)| *error == Some(libc::ETIMEDOUT) && *took >= least), "{ms} ms: {all:?}");
        // A fifth more at most, unless a busy machine takes its time to wake somebody.
        let most = Duration::from_millis(ms * 6 / 5 + 60);
        assert!(all.iter().any(|(took, _)| *took < most), "{ms} ms: {all:?}");
    }
}

#[test]
fn a_black_hole_is_open_within_seconds_and_costs_nobody_more_than_the_timeout() {
    let world = world!();
    world.netns().black_hole("10.9.0.0/16");
    let _backend = world.backend("B1", LIVE);
    let mesh = world.daemon(json!([service("web", &[VIP], &[LIVE, HOLE])]));
    let begun = Instant::now();
    let mut worst = Duration::ZERO;
    eventually("the circuit of the black hole is open", || {
        worst = worst.max(timed(&world, VIP).0);
        let circuit = mesh.json(&["circuit", "list", "web"]).as_array().unwrap()[1].clone();
        if circuit["state"] == "open" { Ok(()) } else { Err(circuit) }
    });
    // Without a limit it takes minutes.
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(worst < Duration::from_secs(5), "{worst:?}");
    let reached = || mesh.endpoint("web", HOLE)["connections_total"].clone();
    let before = reached();
    let _ = world.ask_times(VIP, 50);
    assert_eq!(reached(), before, "nobody goes there any more");
}

#[test]
fn a_black_hole_is_passed_over_over_ipv6_and_without_the_daemon_too() {
    let (vip, live, hole) = ("[fd00::10]:80", "[fd01::1]:8080", "[fd02::1]:80");
    let world = world!();
    world.netns().black_hole("fd02::/64");
    let _backend = world.backend("B1", live);
    let web = with(service("web", &[vip], &[live, hole]), "connect_timeout", json!("400ms"));
    let mut mesh = world.daemon(json!([web]));
    mesh.kill();
    let connects: Vec<(Duration, Option<i32>)> = (0..40).map(|_| timed(&world, vip)).collect();
    let failed: Vec<_> = connects.iter().filter(|(_, error)| error.is_some()).collect();
    assert!(failed.iter().all(|(took, error)| *error == Some(libc::ETIMEDOUT) && took.as_secs() < 5), "{failed:?}");
    assert_eq!(failed.len(), 1, "its SYN was repeated, and it timed out: two signs");
    mesh.start();
    assert_eq!(mesh.json(&["circuit", "list", "web"])[1]["state"], "open");
}

#[test]
fn two_clients_whose_syns_are_repeated_see_a_black_hole_before_anybody_times_out() {
    let world = world!();
    world.netns().black_hole("10.9.0.0/16");
    let web = with(service("web", &[VIP], &[HOLE]), "connect_timeout", json!("10s"));
    let mesh = world.daemon(json!([web]));
    // The quickest of some: to ask may take long on a busy machine.
    let sooner = (0..5).any(|_| {
        let begun = Instant::now();
        let clients: Vec<_> = (0..2).map(|_| world.tcp(Domain::IPV4)).collect();
        for client in &clients {
            client.set_nonblocking(true).unwrap();
            assert_eq!(client.connect(&addr(VIP).into()).unwrap_err().raw_os_error(), Some(libc::EINPROGRESS));
        }
        eventually("the circuit is open", || {
            let circuit = mesh.json(&["circuit", "list", "web"]).as_array().unwrap()[0].clone();
            if circuit["state"] == "open" { Ok(()) } else { Err(circuit) }
        });
        let took = begun.elapsed();
        drop(clients);
        mesh.cli(&["circuit", "reset", "web"]).done();
        took < Duration::from_millis(900)
    });
    assert!(sooner, "sooner than the kernel's own second");
}

#[test]
fn one_client_before_a_full_queue_opens_nothing() {
    let world = world!();
    let full = world.netns().enter(|| {
        let listener = socket2::Socket::new(Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&addr(LIVE).into()).unwrap();
        listener.listen(0).unwrap();
        listener
    });
    let web = with(service("web", &[VIP], &[LIVE]), "connect_timeout", json!("10s"));
    let mesh = world.daemon(json!([web]));
    let _first = world.dial(VIP).unwrap();
    let second = world.tcp(Domain::IPV4);
    second.set_nonblocking(true).unwrap();
    let _ = second.connect(&addr(VIP).into());
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(mesh.json(&["circuit", "list", "web"])[0]["state"], "closed");
    drop(full);
}

#[test]
fn an_established_connection_has_the_timeout_that_its_application_set() {
    let world = world!();
    let _echo = world.echo(LIVE);
    let web = with(service("web", &[VIP], &[LIVE]), "connect_timeout", json!("300ms"));
    let _mesh = world.daemon(json!([web]));
    for wanted in [0, 100, 60_000] {
        let mut client = world.tcp(Domain::IPV4);
        let wanted = Duration::from_millis(wanted);
        SockRef::from(&client).set_tcp_user_timeout(Some(wanted)).unwrap();
        client.connect(&addr(VIP).into()).unwrap();
        let left = SockRef::from(&client).tcp_user_timeout().unwrap().unwrap_or_default();
        assert_eq!(left, wanted);
        if wanted.is_zero() {
            std::thread::sleep(Duration::from_millis(500));
            client.write_all(b"still there?").unwrap();
            let mut answer = [0; 12];
            client.read_exact(&mut answer).unwrap();
        }
    }
}

#[test]
fn a_socket_whose_connect_failed_has_its_own_timeout_again() {
    let world = world!();
    let _mesh = world.daemon(json!([service("web", &[VIP], &["10.1.0.2:1"])]));
    let client = world.tcp(Domain::IPV4);
    assert!(client.connect(&addr(VIP).into()).is_err());
    assert_eq!(SockRef::from(&client).tcp_user_timeout().unwrap().unwrap_or_default(), Duration::ZERO);
}
