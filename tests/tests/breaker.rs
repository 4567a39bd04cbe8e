//! The circuit breaker in the kernel: with the daemon there, stopped, and dead.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Backend, Daemon, Value, World, eventually, holds, json, service, skip, world, world::addr};
use socket2::{Domain, SockRef};
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

const VIP: &str = "10.96.0.10:80";
const VIP6: &str = "[fd00::10]:80";
const LIVE: &str = "10.1.0.1:8080";
const DEAD: &str = "10.1.0.2:8080";

/// What has become of the daemon when connections come.
#[derive(Clone, Copy, Debug)]
enum Daemons {
    There,
    Stopped,
    Dead,
}

const ALL: [Daemons; 3] = [Daemons::There, Daemons::Stopped, Daemons::Dead];

impl Daemons {
    fn befall(self, mesh: &mut Daemon) {
        match self {
            Self::There => {}
            Self::Stopped => mesh.freeze(true),
            Self::Dead => mesh.kill(),
        }
    }

    fn undo(self, mesh: &mut Daemon) {
        match self {
            Self::There => {}
            Self::Stopped => mesh.freeze(false),
            Self::Dead => mesh.start(),
        }
    }
}

fn breaker(mut service: Value, breaker: Value) -> Value {
    service["circuit_breaker"] = breaker;
    service
}

/// How many of `n` connects one after the other are refused.
fn refused(world: &World, vip: &str, n: usize) -> usize {
    let refused = (0..n).filter(|_| match world.dial(vip) {
        Ok(_) => false,
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::ConnectionRefused, "{e}");
            true
        }
    });
    refused.count()
}

fn circuit(mesh: &Daemon, service: &str, endpoint: &str) -> Value {
    let circuits = mesh.json(&["circuit", "list", service]);
    circuits.as_array().unwrap().iter().find(|c| c["endpoint"] == endpoint).cloned().unwrap()
}

fn is(mesh: &Daemon, endpoint: &str, state: &str) {
    eventually(&format!("the circuit of {endpoint} is {state}"), || {
        let circuit = circuit(mesh, "web", endpoint);
        if circuit["state"] == state { Ok(()) } else { Err(circuit) }
    });
}

/// Nothing speaks against `endpoint` of the service `web`.
fn nothing_counted(mesh: &Daemon, endpoint: &str) {
    let circuit = circuit(mesh, "web", endpoint);
    assert_eq!((&circuit["state"], &circuit["consecutive_failures"]), (&json!("closed"), &json!(0)), "{circuit}");
}

/// All connections to `LIVE` of the service `web` are over, and what came of them is told.
fn all_ended(mesh: &Daemon) {
    holds("ended", || mesh.endpoint("web", LIVE)["active_connections"].clone(), |active| *active == 0);
}

/// A server at `LIVE` that speaks first, to each client when somebody else waits at the barrier too.
fn greeter(world: &World) -> (Backend, Arc<Barrier>) {
    let begin = Arc::new(Barrier::new(2));
    let now = begin.clone();
    let greet = move |mut stream: TcpStream| {
        now.wait();
        // Nobody may be there to take it.
        let _ = stream.write_all(b"hello");
    };
    (Backend::new(world.netns(), LIVE, greet), begin)
}

/// A server that accepts and resets at once.
fn resetting(world: &World, address: &str) -> Backend {
    Backend::new(world.netns(), address, |stream: TcpStream| {
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    })
}

#[test]
fn five_refused_connects_and_not_one_more_reach_a_dead_endpoint() {
    for (daemon, vip, live, dead) in ALL.into_iter().map(|daemon| (daemon, VIP, LIVE, DEAD)).chain([(
        Daemons::There,
        VIP6,
        "[fd01::1]:8080",
        "[fd01::2]:8080",
    )]) {
        let world = world!();
        let _backend = world.backend("B1", live);
        let mut mesh = world.daemon(json!([service("web", &[vip], &[live, dead])]));
        daemon.befall(&mut mesh);
        assert_eq!(refused(&world, vip, 200), 5, "{daemon:?} {vip}");
        daemon.undo(&mut mesh);
        is(&mesh, dead, "open");
        assert_eq!(mesh.endpoint("web", dead)["connections_total"], 5, "{daemon:?} {vip}");
        assert_eq!(mesh.service("web")["endpoints"]["open"], 1);
        assert_eq!(mesh.service("web")["circuit"], "closed", "the other one serves");
    }
}

#[test]
fn of_many_clients_at_once_no_more_than_are_under_way_reach_a_dead_endpoint() {
    let world = world!();
    let _backend = world.backend("B1", LIVE);
    let mesh = world.daemon(json!([service("web", &[VIP], &[LIVE, DEAD])]));
    let sockets: Vec<Vec<_>> = (0..64).map(|_| (0..8).map(|_| world.tcp(Domain::IPV4)).collect()).collect();
    thread::scope(|scope| {
        for sockets in sockets {
            scope.spawn(move || sockets.iter().for_each(|socket| drop(socket.connect(&addr(VIP).into()))));
        }
    });
    let reached = mesh.endpoint("web", DEAD)["connections_total"].as_u64().unwrap();
    assert!((5..=5 + 64).contains(&reached), "{reached}");
}

#[test]
fn an_endpoint_that_is_back_gets_connections_after_the_reset_time() {
    for daemon in ALL {
        let world = world!();
        let _backend = world.backend("B1", LIVE);
        let web = breaker(service("web", &[VIP], &[LIVE, DEAD]), json!({ "reset_timeout": "1s" }));
        let mut mesh = world.daemon(json!([web]));
        daemon.befall(&mut mesh);
        let begun = Instant::now();
        // In turns: none comes after the opening, and the time between is no shorter than the one that is measured.
        assert_eq!(refused(&world, VIP, 10), 5, "{daemon:?}");
        let back = world.backend("B2", DEAD);
        eventually("the endpoint gets connections again", || {
            let _ = world.ask(VIP).map_err(|e| e.to_string())?;
            if back.accepted() > 0 { Ok(()) } else { Err("none yet".to_owned()) }
        });
        let after = begun.elapsed();
        assert!(after > Duration::from_millis(890) && after < Duration::from_secs(20), "{daemon:?}: {after:?}");
        daemon.undo(&mut mesh);
        is(&mesh, DEAD, "closed");
        let turned = |to| {
            let labels = [("service", "web"), ("endpoint", DEAD), ("to", to)];
            mesh.metrics().count("mesh_circuit_transitions_total", &labels)
        };
        assert_eq!([turned("open"), turned("half_open"), turned("closed")], [1.0; 3], "{daemon:?}");
    }
}

#[test]
fn a_probe_that_fails_opens_for_longer() {
    let world = world!();
    let _backend = world.backend("B1", LIVE);
    let web = breaker(service("web", &[VIP], &[LIVE, DEAD]), json!({ "reset_timeout": "300ms" }));
    let mesh = world.daemon(json!([web]));
    assert_eq!(refused(&world, VIP, 10), 5);
    assert_eq!(circuit(&mesh, "web", DEAD)["consecutive_failures"], 5);
    assert!(circuit(&mesh, "web", DEAD)["retry_at"].is_string());
    let mut probes = 0;
    eventually("three openings in a row", || {
        probes += refused(&world, VIP, 4);
        let circuit = circuit(&mesh, "web", DEAD);
        if circuit["openings"] == 3 { Ok(()) } else { Err(circuit) }
    });
    assert_eq!(probes, 2, "one for each half-open time");
    assert_eq!(mesh.metrics().count("mesh_circuit_state", &[("service", "web"), ("endpoint", DEAD)]), 2.0);
    assert_eq!(mesh.metrics().count("mesh_circuit_state", &[("service", "web"), ("endpoint", LIVE)]), 0.0);
}

#[test]
fn as_many_probes_as_configured_must_succeed() {
    let world = world!();
    let _backend = world.backend("B1", LIVE);
    let limits = json!({ "reset_timeout": "500ms", "half_open_requests": 3 });
    let mesh = world.daemon(json!([breaker(service("web", &[VIP], &[LIVE, DEAD]), limits)]));
    assert_eq!(refused(&world, VIP, 10), 5);
    let back = world.backend("B2", DEAD);
    eventually("the first probe", || {
        let _ = world.ask(VIP).map_err(|e| e.to_string())?;
        if back.accepted() > 0 { Ok(()) } else { Err("none yet".to_owned()) }
    });
    assert_eq!(circuit(&mesh, "web", DEAD)["state"], "half_open", "one of three");
    let _ = world.ask_times(VIP, 6);
    is(&mesh, DEAD, "closed");
}

#[test]
fn no_more_than_half_of_the_endpoints_are_open() {
    let world = world!();
    let dead = ["10.1.0.1:1", "10.1.0.2:1", "10.1.0.3:1", "10.1.0.4:1"];
    let mesh = world.daemon(json!([service("web", &[VIP], &dead)]));
    assert_eq!(refused(&world, VIP, 100), 100);
    let open = |wanted| {
        let circuits = mesh.json(&["circuit", "list", "web"]);
        circuits.as_array().unwrap().iter().filter(|c| c["state"] == wanted).count()
    };
    assert_eq!((open("open"), open("closed")), (2, 2));
}

#[test]
fn a_service_without_a_way_out_refuses_at_once_but_for_a_try_each_interval() {
    for daemon in ALL {
        let world = world!();
        let web = breaker(service("web", &[VIP], &[DEAD]), json!({ "probe_interval": "500ms" }));
        let mut mesh = world.daemon(json!([web]));
        daemon.befall(&mut mesh);
        let (begun, mut dialled) = (Instant::now(), 0);
        while begun.elapsed() < Duration::from_millis(1800) {
            assert_eq!(refused(&world, VIP, 1), 1);
            dialled += 1;
            thread::sleep(Duration::from_millis(2));
        }
        let _back = world.backend("B1", DEAD);
        let gone = Instant::now();
        eventually("it is back", || world.ask(VIP));
        assert!(
            gone.elapsed() < Duration::from_secs(10),
            "not after the time that an open circuit takes: {:?}",
            gone.elapsed()
        );
        daemon.undo(&mut mesh);
        let reached = mesh.endpoint("web", DEAD)["connect_failures_total"].as_u64().unwrap();
        assert!((7..=10).contains(&reached), "five, and one each half second: {reached} ({daemon:?})");
        let open = mesh.service("web")["connects_refused_total"]["circuit_open"].as_u64().unwrap();
        assert!(open + reached >= dialled, "by the one or the other: {open} and {reached} of {dialled}");
        is(&mesh, DEAD, "closed");
    }
}

#[test]
fn one_that_accepts_and_resets_is_as_good_as_dead() {
    let world = world!();
    let _backend = world.backend("B1", LIVE);
    let resetting = resetting(&world, DEAD);
    let mesh = world.daemon(json!([service("web", &[VIP], &[LIVE, DEAD])]));
    for _ in 0..40 {
        let _ = world.ask(VIP);
    }
    is(&mesh, DEAD, "open");
    // One that it leaves open for a second, because it does not get to run, is of use.
    assert!((5..=9).contains(&resetting.accepted()), "{}", resetting.accepted());
}

#[test]
fn a_byte_that_comes_back_clears_the_run() {
    let world = world!();
    let _live = world.backend("B1", LIVE);
    let mut flaky = world.backend("B2", DEAD);
    let mesh = world.daemon(json!([service("web", &[VIP], &[LIVE, DEAD])]));
    for _ in 0..3 {
        flaky.close();
        assert_eq!(refused(&world, VIP, 8), 4);
        flaky.open();
        for _ in 0..2 {
            let _ = world.ask(VIP).unwrap();
        }
    }
    assert_eq!(circuit(&mesh, "web", DEAD)["state"], "closed");
    assert_eq!(circuit(&mesh, "web", DEAD)["consecutive_failures"], 0);
}

#[test]
fn answers_to_a_client_that_has_hung_up_count_for_nothing() {
    let world = world!();
    let (_greeter, hung_up) = greeter(&world);
    let mesh = world.daemon(json!([service("web", &[VIP], &[LIVE])]));
    for _ in 0..10 {
        let client = world.dial(VIP).unwrap();
        // More than the other side takes: the greeting comes before what was sent is acknowledged, and is then
        // refused as if it were a reset.
        client.set_nonblocking(true).unwrap();
        while (&client).write(&[0; 65536]).is_ok() {}
        drop(client);
        hung_up.wait();
    }
    all_ended(&mesh);
    nothing_counted(&mesh, LIVE);
}

#[test]
fn answers_to_a_client_that_no_longer_listens_count_for_nothing() {
    let world = world!();
    let (_greeter, shut) = greeter(&world);
    let mesh = world.daemon(json!([service("web", &[VIP], &[LIVE])]));
    for _ in 0..10 {
        let client = world.dial(VIP).unwrap();
        client.shutdown(Shutdown::Both).unwrap();
        shut.wait();
        all_ended(&mesh);
    }
    nothing_counted(&mesh, LIVE);
}

#[test]
fn connections_that_are_destroyed_on_this_machine_count_for_nothing() {
    let world = world!();
    let _echo = world.echo(LIVE);
    let mesh = world.daemon(json!([service("web", &[VIP], &[LIVE])]));
    for _ in 0..8 {
        let mut client = world.dial(VIP).unwrap();
        world.netns().destroy_sockets("dst 10.1.0.1 dport = 8080");
        match client.read(&mut [0]) {
            Err(e) if e.raw_os_error() == Some(libc::ECONNABORTED) => {}
            other => skip!("this kernel destroys no sockets: {other:?}"),
        }
    }
    all_ended(&mesh);
    nothing_counted(&mesh, LIVE);
}

#[test]
fn connections_from_before_do_not_speak_for_an_endpoint_that_takes_no_new_ones() {
    let world = world!();
    let mut closing = Backend::echo(world.netns(), DEAD);
    let mesh = world.daemon(json!([service("web", &[VIP], &[DEAD])]));
    let mut old = world.client(VIP);
    old.exchange(1000);
    closing.close();
    for n in 0..5 {
        assert_eq!(refused(&world, VIP, 1), 1);
        // Its counters are read where connections are.
        assert_eq!(mesh.endpoint("web", DEAD)["connect_failures_total"], n + 1);
    }
    assert_eq!(circuit(&mesh, "web", DEAD)["consecutive_failures"], 5);
    is(&mesh, DEAD, "open");
}

#[test]
fn who_reads_all_and_closes_in_good_order_clears_the_run_without_a_word() {
    let world = world!();
    let read = |mut stream: TcpStream| drop(io::copy(&mut stream, &mut io::sink()));
    let mut silent = Backend::new(world.netns(), LIVE, read);
    let mesh = world.daemon(json!([service("web", &[VIP], &[LIVE])]));
    silent.close();
    assert_eq!(refused(&world, VIP, 4), 4);
    silent.open();
    let mut client = world.dial(VIP).unwrap();
    client.write_all(b"a line for the log").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop(client);
    holds("cleared", || circuit(&mesh, "web", LIVE)["consecutive_failures"].clone(), |failures| *failures == 0);
}

#[test]
fn connects_that_cannot_leave_this_machine_count_for_nothing() {
    let world = world!();
    world.netns().black_hole("10.9.0.0/16");
    world.netns().clog();
    let mesh = world.daemon(json!([service("web", &[VIP], &["10.9.0.1:80"])]));
    for _ in 0..2 {
        assert_eq!(world.dial(VIP).unwrap_err().raw_os_error(), Some(libc::ETIMEDOUT));
    }
    nothing_counted(&mesh, "10.9.0.1:80");
}

#[test]
fn what_the_client_does_itself_counts_for_nothing() {
    let world = world!();
    world.netns().black_hole("10.9.0.0/16");
    let _echo = world.echo(LIVE);
    let hole = "10.9.0.1:80";
    let mesh = world.daemon(json!([service("web", &[VIP], &[hole]), service("echo", &[VIP6], &[LIVE])]));
    for _ in 0..8 {
        // Given up before anybody could answer.
        let client = world.tcp(Domain::IPV4);
        client.set_nonblocking(true).unwrap();
        assert_eq!(client.connect(&addr(VIP).into()).unwrap_err().raw_os_error(), Some(libc::EINPROGRESS));
        drop(client);
        // Reset by ourselves.
        let client = world.dial(VIP6).unwrap();
        client.set_linger(Some(Duration::ZERO)).unwrap();
    }
    for (service, endpoint) in [("web", hole), ("echo", LIVE)] {
        let circuit = circuit(&mesh, service, endpoint);
        assert_eq!((&circuit["state"], &circuit["consecutive_failures"]), (&json!("closed"), &json!(0)), "{service}");
    }
}

#[test]
fn operators_hold_circuits_open_and_close_them() {
    let world = world!();
    let backends = [world.backend("B1", LIVE), world.backend("B2", DEAD)];
    let mesh = world.daemon(json!([service("web", &[VIP], &[LIVE, DEAD])]));
    mesh.cli(&["circuit", "trip", "web", DEAD]).says(&["web", DEAD]).done();
    let before = backends[1].accepted();
    let _ = world.ask_times(VIP, 10);
    assert_eq!(backends[1].accepted(), before, "it gets nothing");
    let held = circuit(&mesh, "web", DEAD);
    assert_eq!((&held["state"], &held["forced"], &held["retry_at"]), (&json!("open"), &json!(true), &Value::Null));
    mesh.cli(&["circuit", "trip", "web"]).done();
    let error = world.dial(VIP).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(mesh.service("web")["connects_refused_total"]["circuit_open"], 1);
    assert_eq!(mesh.service("web")["circuit"], "open");
    mesh.cli(&["circuit", "reset", "web"]).done();
    let answers = world.ask_times(VIP, 10);
    assert_eq!(answers.iter().filter(|who| *who == "B2").count(), 5);
    let metrics = mesh.metrics();
    for endpoint in [LIVE, DEAD] {
        for to in ["open", "closed"] {
            let labels = [("service", "web"), ("endpoint", endpoint), ("to", to)];
            assert_eq!(metrics.count("mesh_circuit_transitions_total", &labels), 1.0, "{endpoint} {to}");
        }
    }
}

#[test]
fn resetting_closes_a_circuit_that_traffic_opened_and_thresholds_change_at_once() {
    let world = world!();
    let _backend = world.backend("B1", LIVE);
    let mesh = world.daemon(json!([service("web", &[VIP], &[LIVE, DEAD])]));
    mesh.cli(&["circuit", "set", "web", "--failure-threshold", "2"]).says(&["failure_threshold 5 → 2"]).done();
    assert_eq!(refused(&world, VIP, 40), 2);
    mesh.cli(&["circuit", "reset", "web", DEAD]).done();
    is(&mesh, DEAD, "closed");
    assert_eq!(refused(&world, VIP, 40), 2);
    mesh.cli(&["circuit", "set", "web", "--failure-threshold", "0"]).done();
    is(&mesh, DEAD, "closed");
    assert_eq!(refused(&world, VIP, 40), 20, "0: it never opens");
}

#[test]
fn thresholds_that_are_to_last_are_written_and_what_makes_no_sense_is_refused() {
    let world = world!();
    let mut mesh = world.daemon(json!([service("web", &[VIP], &[LIVE, DEAD])]));
    mesh.cli(&["circuit", "set", "web", "--failure-threshold", "3", "--persist"]).done();
    mesh.terminate();
    mesh.start();
    assert_eq!(refused(&world, VIP, 6), 6);
    let states = mesh.json(&["circuit", "list", "web"]);
    assert!(states.as_array().unwrap().iter().any(|c| c["state"] == "open"), "after three: {states}");
    let keys: Vec<&str> = states[0].as_object().unwrap().keys().map(String::as_str).collect();
    let shape = ["service", "endpoint", "state", "consecutive_failures", "openings", "retry_at", "forced"];
    assert!(shape.iter().all(|key| keys.contains(key)), "{keys:?}");
    for (arguments, code) in [
        (&["circuit", "trip", "nobody"][..], 1),
        (&["circuit", "trip", "web", "10.1.0.9:1"], 1),
        (&["circuit", "set", "web", "--failure-threshold", "5000"], 2),
        (&["circuit", "set", "web"], 2),
        (&["circuit", "set", "web", "--reset-timeout", "soon"], 2),
    ] {
        assert_eq!(mesh.cli(arguments).code, code, "{arguments:?}");
    }
}

#[test]
fn circuits_survive_the_daemon_and_its_successor() {
    let world = world!();
    let _backend = world.backend("B1", LIVE);
    let mut mesh = world.daemon(json!([service("web", &[VIP], &[LIVE, DEAD])]));
    assert_eq!(refused(&world, VIP, 20), 5);
    mesh.kill();
    mesh.start();
    is(&mesh, DEAD, "open");
    mesh.take_over();
    is(&mesh, DEAD, "open");
    assert_eq!(refused(&world, VIP, 20), 0);
}

#[test]
fn an_endpoint_that_is_taken_out_leaves_its_place_to_the_next_that_fails() {
    let world = world!();
    let _backend = world.backend("B1", LIVE);
    let other = "10.1.0.3:8080";
    let mesh = world.daemon(json!([service("web", &[VIP], &[LIVE, DEAD, other])]));
    let _ = world.dial(VIP);
    mesh.cli(&["endpoints", "drain", "web", other]).done();
    assert_eq!(refused(&world, VIP, 40), 5);
    mesh.cli(&["endpoints", "drain", "web", DEAD]).done();
    mesh.cli(&["endpoints", "undrain", "web", other]).done();
    assert!(refused(&world, VIP, 40) <= 5, "one of two may be open, and it is the one that is still in selection");
}

#[test]
fn a_client_does_not_stay_with_an_endpoint_that_fails_and_may_not_open() {
    let world = world!();
    let _backend = world.backend("B1", LIVE);
    let mut web = service("web", &[VIP], &["10.1.0.2:8080", "10.1.0.3:8080", LIVE]);
    web["load_balancing"] = json!({ "affinity": "60s" });
    let _mesh = world.daemon(json!([web]));
    // One circuit of three may be open: the client meets the other dead endpoint too, and then one that lives.
    let refused = refused(&world, VIP, 100);
    assert!(refused < 40, "{refused}");
    assert_eq!(world.ask(VIP).unwrap(), "B1");
}

#[test]
fn a_probe_into_a_black_hole_opens_for_longer_although_its_application_gives_up_first() {
    let world = world!();
    world.netns().black_hole("10.9.0.0/16");
    let _backend = world.backend("B1", LIVE);
    let web = breaker(service("web", &[VIP], &[LIVE, "10.9.0.1:80"]), json!({ "reset_timeout": "1s" }));
    let mesh = world.daemon(json!([web]));
    let impatient = || {
        let client = world.tcp(Domain::IPV4);
        client.connect_timeout(&addr(VIP).into(), Duration::from_millis(400))
    };
    eventually("two openings in a row", || {
        let _ = impatient();
        let circuit = circuit(&mesh, "web", "10.9.0.1:80");
        if circuit["openings"].as_u64() >= Some(2) { Ok(()) } else { Err(circuit) }
    });
}
