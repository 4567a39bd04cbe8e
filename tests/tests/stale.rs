//! A daemon that is gone for long: `dataplane.stale_after` and `dataplane.when_stale`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Backend, Daemon, Value, World, holds, json, service, world};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    io::{Read, Write},
    thread,
    time::{Duration, Instant},
};

const VIP: &str = "10.96.0.10:80";
const VIP6: &str = "[fd00::10]:80";
const E1: &str = "10.1.0.1:8080";
const AFTER: Duration = Duration::from_secs(1);
/// A heartbeat may be this old when the daemon goes; one that comes late, some of them.
const BEAT: Duration = Duration::from_millis(250);

/// Daemon and backends, in a world where the VIP exists for real.
fn start(world: &World, after: Duration, when_stale: Value) -> (Daemon, [Backend; 4]) {
    world.netns().ip("address add 10.96.0.10/32 dev lo");
    world.netns().ip("address add fd00::10/128 dev lo nodad");
    let backends =
        [world.backend("REAL", VIP), world.backend("REAL6", VIP6), world.backend("B1", E1), world.echo("10.1.0.7:7")];
    let services = json!([service("web", &[VIP, VIP6], &[E1]), service("echo", &["10.96.0.7:7"], &["10.1.0.7:7"])]);
    let setup = world.setup(services).with(|config| {
        config["dataplane"]["stale_after"] = json!(format!("{}s", after.as_secs()));
        config["dataplane"]["when_stale"] = when_stale;
    });
    (setup.start(), backends)
}

/// Asks until connects pass untouched. Returns how many did.
fn passes(world: &World, gone_since: Instant) -> u64 {
    loop {
        let answer = world.ask(VIP).unwrap();
        let gone = gone_since.elapsed();
        match answer.as_str() {
            "REAL" => {
                assert!(gone >= AFTER - 3 * BEAT, "after {gone:?} already");
                break;
            }
            "B1" => assert!(gone < AFTER + Duration::from_secs(10), "after {gone:?} still translated"),
            other => panic!("{other}"),
        }
    }
    assert_eq!(world.ask_times(VIP, 5), ["REAL"; 5]);
    assert_eq!(world.ask(VIP6).unwrap(), "REAL6");
    7
}

fn stale(mesh: &Daemon) -> f64 {
    mesh.metrics().count("mesh_connects_passed_total", &[("service", "web"), ("reason", "stale")])
}

#[test]
fn connects_pass_untouched_once_the_daemon_is_gone_for_too_long() {
    let world = world!();
    let (mut mesh, _backends) = start(&world, AFTER, json!("passthrough"));
    let mut open = world.dial("10.96.0.7:7").unwrap();
    let mut exchange = || {
        open.write_all(&[b'x'; 1000]).unwrap();
        open.read_exact(&mut [0; 1000]).unwrap();
    };
    let mut passed = 0;
    for terminated in [false, true] {
        assert_eq!(world.ask(VIP).unwrap(), "B1");
        let gone = Instant::now();
        if terminated {
            mesh.terminate();
        } else {
            mesh.kill();
        }
        passed += passes(&world, gone);
        // What was translated before goes on, and is counted.
        exchange();
        mesh.start();
        assert_eq!(world.ask(VIP).unwrap(), "B1", "a new daemon translates at once");
        assert_eq!(world.ask(VIP6).unwrap(), "B1");
        assert_eq!(stale(&mesh), passed as f64);
    }
    assert_eq!(mesh.service("web")["connects_passed_total"]["stale"], passed);
    let echo = mesh.endpoint("echo", "10.1.0.7:7");
    assert_eq!((&echo["sent_bytes_total"], &echo["active_connections"]), (&json!(2000), &json!(1)));
}

#[test]
fn a_daemon_that_hangs_is_gone_until_it_goes_on() {
    let world = world!();
    let (mesh, _backends) = start(&world, AFTER, json!("passthrough"));
    let pid = Pid::from_raw(mesh.pid().try_into().unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    let passed = passes(&world, Instant::now());
    kill(pid, Signal::SIGCONT).unwrap();
    // It answers only once it goes on, and its heart beats four times a second.
    assert_eq!(stale(&mesh), passed as f64);
    holds("it goes on", || world.ask(VIP).unwrap(), |who| who == "B1");
}

#[test]
fn a_living_daemon_is_never_stale() {
    let world = world!();
    // Long enough that no stall of this machine makes it seem dead.
    let after = 5 * AFTER;
    let (mesh, _backends) = start(&world, after, json!("passthrough"));
    let since = Instant::now();
    while since.elapsed() < after + 2 * AFTER {
        assert_eq!(world.ask(VIP).unwrap(), "B1");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(stale(&mesh), 0.0);
}

#[test]
fn connects_are_translated_on_with_what_was_known_last() {
    let world = world!();
    // Outside of a cluster, `auto` means the same.
    for when_stale in ["last_known", "auto"] {
        let world = world.sibling();
        let _b1 = world.backend("B1", "10.1.0.2:8080");
        let setup = world.setup(json!([service("web", &[VIP], &["10.1.0.2:8080"])])).with(|config| {
            config["dataplane"]["stale_after"] = json!("1s");
            config["dataplane"]["when_stale"] = json!(when_stale);
        });
        let mut mesh = setup.start();
        mesh.kill();
        thread::sleep(AFTER + BEAT);
        assert_eq!(world.ask_times(VIP, 5), ["B1"; 5]);
        mesh.start();
        assert_eq!(stale(&mesh), 0.0);
        assert_eq!(mesh.endpoint("web", "10.1.0.2:8080")["connections_total"], 5);
    }
}
