//! Starting, ending, crashing, coming back, and leaving nothing behind.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Backend, Value, World, hammer::Tally, holds, json, process, service, world};
use std::io::{Read, Write};

const VIP: &str = "10.96.0.10:80";
const E1: &str = "10.1.0.1:8080";
const E2: &str = "10.1.0.2:8080";

fn two(world: &World) -> [Backend; 2] {
    [world.backend("B1", E1), world.backend("B2", E2)]
}

fn web(endpoints: &[&str]) -> Value {
    json!([service("web", &[VIP], endpoints)])
}

#[test]
fn connections_are_balanced_on_while_the_daemon_is_stopped() {
    let world = world!();
    let backends = two(&world);
    let mut mesh = world.daemon(web(&[E1, E2]));
    assert!(mesh.terminate().success(), "SIGTERM ends it with exit code 0");
    let _ = world.ask_times(VIP, 10);
    assert_eq!(backends.each_ref().map(Backend::accepted), [5, 5]);
    let client = world.dial(VIP).unwrap();
    assert_eq!(client.peer_addr().unwrap().as_socket().unwrap().to_string(), VIP, "getpeername, too");
}

#[test]
fn connections_are_balanced_on_after_a_crash() {
    let world = world!();
    let backends = two(&world);
    let mut mesh = world.daemon(web(&[E1, E2]));
    mesh.kill();
    let _ = world.ask_times(VIP, 10);
    assert_eq!(backends.each_ref().map(Backend::accepted), [5, 5]);
    mesh.start();
    assert_eq!(mesh.json(&["services"]).as_array().unwrap().len(), 1, "it starts again beside a stale socket");
}

/// `MESH_TEST_REPLACEMENTS` says how many times the programs are replaced; 6 are enough for every day.
#[test]
fn no_connect_fails_over_restarts_and_crashes() {
    let replacements = std::env::var("MESH_TEST_REPLACEMENTS").map_or(6, |n| n.parse().expect("a number"));
    let world = world!();
    let _backends = two(&world);
    let mut mesh = world.daemon(web(&[E1, E2]));
    let hammers = [VIP; 3].map(|vip| world.hammer(&[vip]));
    for round in 0..replacements {
        if round % 2 == 0 {
            mesh.terminate();
        } else {
            mesh.kill();
        }
        mesh.start();
    }
    let mut total = Tally::default();
    hammers.into_iter().for_each(|h| total.add(h.stop()));
    eprintln!("{replacements} replacements, {} connects, {} failed", total.connects, total.failures.len());
    total.assert_flawless();
    assert_eq!(total.answered(VIP), ["B1", "B2"]);
}

#[test]
fn counters_survive_a_restart_and_count_on_while_it_is_away() {
    let world = world!();
    let _backends = two(&world);
    let mut mesh = world.daemon(web(&[E1, E2]));
    let totals =
        |mesh: &mesh_tests::Daemon| [E1, E2].map(|e| mesh.endpoint("web", e)["connections_total"].as_u64().unwrap());
    let _ = world.ask_times(VIP, 10);
    holds("before", || totals(&mesh), |n| *n == [5, 5]);
    mesh.terminate();
    mesh.start();
    assert_eq!(totals(&mesh), [5, 5], "after a restart");
    mesh.kill();
    let _ = world.ask_times(VIP, 10);
    mesh.start();
    holds("with those of meanwhile", || totals(&mesh), |n| *n == [10, 10]);
    let opened = mesh.metrics().count("mesh_tcp_connections_opened_total", &[("service", "web")]);
    assert_eq!(opened, 20.0);
}

#[test]
fn a_configuration_changed_while_it_was_away_holds_after_the_start() {
    let world = world!();
    let _backends = two(&world);
    let gone = "10.96.0.11:80";
    let mut mesh = world.daemon(json!([service("web", &[VIP], &[E1]), service("gone", &[gone], &[E1])]));
    assert_eq!(world.ask(gone).unwrap(), "B1");
    mesh.terminate();
    mesh.configure(|c| {
        c["services"] = json!([service("web", &[VIP], &[E2]), service("new", &["10.96.0.12:80"], &[E1])])
    });
    mesh.start();
    assert_eq!(world.ask_times(VIP, 4), ["B2"; 4]);
    assert_eq!(world.ask("10.96.0.12:80").unwrap(), "B1");
    assert_eq!(world.ask(gone).unwrap_err().raw_os_error(), Some(libc::ENETUNREACH), "no ghost of a service");
}

#[test]
fn an_open_connection_outlives_restart_crash_and_unload() {
    let world = world!();
    let _echo = world.echo("10.1.0.7:7");
    let mut mesh = world.daemon(json!([service("echo", &["10.96.0.7:7"], &["10.1.0.7:7"])]));
    let mut client = world.dial("10.96.0.7:7").unwrap();
    let mut works = |when: &str| {
        client.write_all(b"hello").unwrap();
        let mut back = [0; 5];
        client.read_exact(&mut back).unwrap_or_else(|e| panic!("{when}: {e}"));
    };
    works("before");
    mesh.terminate();
    mesh.start();
    works("after a restart");
    let active = || mesh.endpoint("echo", "10.1.0.7:7")["active_connections"].clone();
    assert_eq!(active(), 1);
    mesh.kill();
    works("after a crash");
    mesh.unload(&[]).done();
    works("after unload");
}

#[test]
fn connections_opened_before_a_restart_are_counted_when_they_end() {
    let world = world!();
    let _echo = world.echo("10.1.0.7:7");
    let mut mesh = world.daemon(json!([service("echo", &["10.96.0.7:7"], &["10.1.0.7:7"])]));
    let mut clients: Vec<_> = (0..3).map(|_| world.dial("10.96.0.7:7").unwrap()).collect();
    let exchange = |client: &mut socket2::Socket| {
        client.write_all(&[b'x'; 1000]).unwrap();
        client.read_exact(&mut [0; 1000]).unwrap();
    };
    clients.iter_mut().for_each(exchange);
    mesh.terminate();
    drop(clients.pop());
    mesh.start();
    clients.iter_mut().for_each(exchange);
    drop(clients.pop());
    mesh.kill();
    mesh.start();
    clients.iter_mut().for_each(exchange);
    drop(clients);
    let counters = || {
        let names = ["connections_total", "active_connections", "sent_bytes_total", "received_bytes_total"];
        names.map(|name| mesh.endpoint("echo", "10.1.0.7:7")[name].as_u64().unwrap())
    };
    holds("everything is counted once", counters, |seen| *seen == [3, 0, 6000, 6000]);
}

#[test]
fn unload_removes_everything_and_says_so() {
    let world = world!();
    let _backends = two(&world);
    let mut mesh = world.daemon(web(&[E1]));
    assert!(!mesh.pins().is_empty());
    assert!(world.cgroup().attached_programs() >= 3, "connect4, connect6 and sock_ops at least");
    mesh.terminate();
    assert!(world.cgroup().attached_programs() >= 3);
    assert!(!mesh.unload(&[]).done().is_empty());
    assert_eq!(mesh.left_behind(), (Vec::new(), 0));
    assert_eq!(world.dial(VIP).unwrap_err().raw_os_error(), Some(libc::ENETUNREACH));
    mesh.unload(&[]).done();
    mesh.start();
    assert_eq!(world.ask(VIP).unwrap(), "B1", "and it can start again");
}

#[test]
fn unload_refuses_while_a_daemon_runs_unless_forced() {
    let world = world!();
    let _backends = two(&world);
    let mut mesh = world.daemon(web(&[E1]));
    mesh.unload(&[]).ended(1).refused(&[&mesh.pid().to_string(), "--force"]);
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    mesh.unload(&["--force"]).done();
    assert_eq!(mesh.left_behind(), (Vec::new(), 0));
    mesh.terminate();
    assert_eq!(mesh.left_behind(), (Vec::new(), 0), "and the daemon puts nothing back as it ends");
}

#[test]
fn a_second_daemon_on_the_same_cgroup_is_refused_naming_the_first() {
    let world = world!();
    let _backends = two(&world);
    let mesh = world.daemon(web(&[E1]));
    // With names of its own for everything but the cgroup.
    let mut second = world.setup(web(&[E2])).beside_another().idle();
    second.spawn();
    assert_eq!(second.wait().code(), Some(1), "{}", second.log());
    assert!(second.log().contains(&mesh.pid().to_string()), "{}", second.log());
    // With the very same configuration.
    let mut same = mesh.command(&["run", "--config", &mesh.config_path().to_string_lossy()]);
    process::run(&mut same).ended(1).refused(&[&mesh.pid().to_string()]);
    assert_eq!(world.ask_times(VIP, 4), ["B1"; 4]);
    mesh.cli(&["status"]).done();
}

#[test]
fn two_daemons_side_by_side_do_not_touch_one_another() {
    let world = world!();
    let other = world.sibling();
    let _backends = two(&world);
    let mut mesh = world.daemon(web(&[E1]));
    let mut neighbour = other.daemon(web(&[E2]));
    assert_eq!((world.ask(VIP).unwrap(), other.ask(VIP).unwrap()), ("B1".into(), "B2".into()));
    mesh.cli(&["endpoints", "drain", "web", E1]).done();
    assert!(world.dial(VIP).is_err());
    assert_eq!(other.ask(VIP).unwrap(), "B2");
    mesh.cli(&["bypass", "on"]).done();
    assert_eq!(other.ask(VIP).unwrap(), "B2");
    holds("counted", || neighbour.endpoint("web", E2)["connections_total"].clone(), |n| *n == 3);
    mesh.terminate();
    mesh.unload(&[]).done();
    assert_eq!(other.ask(VIP).unwrap(), "B2");
    mesh.start();
    assert_eq!((world.ask(VIP).unwrap(), other.ask(VIP).unwrap()), ("B1".into(), "B2".into()));
    neighbour.kill();
    neighbour.unload(&[]).done();
    assert_eq!(world.ask(VIP).unwrap(), "B1");
}

#[test]
fn a_pin_that_was_lost_is_made_again_at_the_next_start() {
    let world = world!();
    let _backends = two(&world);
    let mut mesh = world.daemon(web(&[E1]));
    for pin in mesh.pins() {
        mesh.kill();
        std::fs::remove_file(&pin).unwrap();
        mesh.start();
        assert_eq!(world.ask(VIP).unwrap(), "B1", "without {}", pin.display());
        assert!(pin.exists(), "{}", pin.display());
    }
}

#[test]
fn a_crash_at_any_moment_of_a_start_can_be_started_over() {
    let world = world!();
    let _backends = two(&world);
    let mut mesh = world.setup(web(&[E1])).idle();
    for milliseconds in (0..100).step_by(5) {
        mesh.spawn();
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        mesh.kill();
    }
    mesh.start();
    assert_eq!(world.ask_times(VIP, 4), ["B1"; 4]);
}

#[test]
fn the_mode_may_change_at_a_restart() {
    let world = world!();
    let _backends = two(&world);
    let mut mesh = world.daemon(web(&[E1]));
    for _ in 0..2 {
        mesh.terminate();
        mesh.configure(|c| c["dataplane"]["mode"] = json!("observe"));
        mesh.start();
        assert_eq!(world.dial(VIP).unwrap_err().raw_os_error(), Some(libc::ENETUNREACH));
        mesh.terminate();
        mesh.configure(|c| c["dataplane"]["mode"] = json!("ebpf"));
        mesh.start();
        assert_eq!(world.ask(VIP).unwrap(), "B1");
    }
}

#[test]
fn bypass_ends_with_a_restart_only_if_the_daemon_says_so() {
    let world = world!();
    let _backends = two(&world);
    let mut mesh = world.daemon(web(&[E1]));
    mesh.cli(&["bypass", "on"]).done();
    mesh.terminate();
    assert_eq!(world.dial(VIP).unwrap_err().raw_os_error(), Some(libc::ENETUNREACH), "on, with no daemon");
    mesh.start();
    // Either is sensible; what it says must be what it does.
    let bypass = mesh.json(&["status"])["bypass"].clone();
    assert_eq!(bypass == true, world.dial(VIP).is_err(), "status says {bypass}");
}

#[test]
fn a_cgroup_made_again_under_its_old_name_is_attached_again() {
    let mut world = world!();
    let _backends = two(&world);
    let mut mesh = world.daemon(web(&[E1]));
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    mesh.terminate();
    world.renew_cgroup();
    assert_eq!(world.dial(VIP).unwrap_err().raw_os_error(), Some(libc::ENETUNREACH));
    mesh.start();
    assert_eq!(world.ask(VIP).unwrap(), "B1");
}

#[test]
fn another_cgroup_after_a_restart_is_the_only_one() {
    let world = world!();
    let other = world.sibling();
    let _backends = two(&world);
    let mut mesh = world.daemon(web(&[E1]));
    mesh.terminate();
    mesh.configure(|c| c["dataplane"]["cgroup"] = json!(other.cgroup().path()));
    mesh.start();
    assert_eq!(other.ask(VIP).unwrap(), "B1");
    assert_eq!(world.dial(VIP).unwrap_err().raw_os_error(), Some(libc::ENETUNREACH), "the old one is let go");
    assert_eq!(world.cgroup().attached_programs(), 0);
    mesh.terminate();
    mesh.unload(&[]).done();
    assert_eq!(other.cgroup().attached_programs(), 0);
}
