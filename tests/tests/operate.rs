//! What an operator types to change a running daemon, and what it answers.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Backend, Daemon, Value, World, holds, json, process, service, world};
use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::Command,
};

const VIP: &str = "10.96.0.10:80";
const E1: &str = "10.1.0.1:8080";
const E2: &str = "10.1.0.2:8080";

/// A daemon with service `web` on two backends.
fn web(world: &World) -> (Daemon, [Backend; 2]) {
    let backends = [world.backend("B1", E1), world.backend("B2", E2)];
    (world.daemon(json!([service("web", &[VIP], &[E1, E2])])), backends)
}

fn endpoint_field(mesh: &Daemon, address: &str, field: &str) -> Value {
    mesh.endpoint("web", address)[field].clone()
}

#[test]
fn drain_and_undrain_say_what_they_changed() {
    let world = world!();
    let (mesh, [b1, _b2]) = web(&world);
    mesh.cli(&["endpoints", "drain", "web", E1]).says(&["web", E1]).done();
    assert_eq!(endpoint_field(&mesh, E1, "draining"), true);
    assert_eq!(mesh.service("web")["endpoints"]["draining"], 1);
    let _ = world.ask_times(VIP, 10);
    assert_eq!(b1.accepted(), 0);
    mesh.cli(&["endpoints", "undrain", "web", E1]).says(&["web", E1]).done();
    assert_eq!(endpoint_field(&mesh, E1, "draining"), false);
    let _ = world.ask_times(VIP, 10);
    assert_eq!(b1.accepted(), 5);
}

#[test]
fn weight_says_what_it_changed() {
    let world = world!();
    let (mesh, [b1, b2]) = web(&world);
    mesh.cli(&["endpoints", "weight", "web", E2, "3"]).says(&["web", E2, "3"]).done();
    assert_eq!(endpoint_field(&mesh, E2, "weight"), 3);
    let _ = world.ask_times(VIP, 8);
    assert_eq!((b1.accepted(), b2.accepted()), (2, 6));
    mesh.cli(&["endpoints", "weight", "web", E2, "65535"]).done();
    assert_eq!(endpoint_field(&mesh, E2, "weight"), 65535);
}

#[test]
fn changes_that_make_no_sense_are_refused_with_a_reason() {
    let world = world!();
    let (mesh, _backends) = web(&world);
    let before = (mesh.json(&["services"]), mesh.json(&["endpoints"]));
    for (arguments, words) in [
        (&["endpoints", "drain", "nothing", E1][..], &["nothing"][..]),
        (&["endpoints", "drain", "web", "10.9.9.9:1"], &["10.9.9.9:1"]),
        (&["endpoints", "undrain", "web", "10.9.9.9:1"], &["10.9.9.9:1"]),
        (&["endpoints", "weight", "web", "10.9.9.9:1", "5"], &["10.9.9.9:1"]),
        (&["lb", "set", "nothing", "random"], &["nothing"]),
        (&["circuit", "trip", "nothing"], &["nothing"]),
        (&["circuit", "trip", "web", "10.9.9.9:1"], &["10.9.9.9:1"]),
        (&["circuit", "reset", "web", E1], &["nothing to reset"]),
        (&["circuit", "set", "nothing", "--failure-threshold", "1"], &["nothing"]),
    ] {
        mesh.cli(arguments).ended(1).refused(words);
    }
    for (arguments, words) in [
        (&["endpoints", "weight", "web", E1, "65536"][..], &["65535"][..]),
        (&["endpoints", "weight", "web", E1, "-1"], &[]),
        (&["endpoints", "weight", "web", E1, "heavy"], &["heavy"]),
        (&["endpoints", "drain", "web", "not-an-address"], &["not-an-address"]),
        (&["endpoints", "drain", "web"], &[]),
        (&["lb", "set", "web", "alphabetical"], &["alphabetical", "round_robin", "random"]),
        (&["lb", "set", "web", "peak_ewma"], &["peak_ewma", "tcp"]),
        (&["lb", "set", "web"], &[]),
        (&["services", "nothing"], &["nothing"]),
        (&["endpoints", "nothing"], &["nothing"]),
        (&["explain", "not-an-address"], &["not-an-address"]),
    ] {
        mesh.cli(arguments).refused(words);
    }
    assert_eq!((mesh.json(&["services"]), mesh.json(&["endpoints"])), before, "nothing was changed");
}

#[test]
fn a_circuit_is_held_open_until_it_is_reset() {
    let world = world!();
    let (mesh, _backends) = web(&world);
    let forced = |mesh: &Daemon| -> Vec<bool> {
        let rows = mesh.json(&["circuit"]);
        rows.as_array().unwrap().iter().map(|row| row["forced"].as_bool().unwrap()).collect()
    };
    assert!(forced(&mesh).iter().all(|forced| !forced));
    mesh.cli(&["circuit", "trip", "web", E1]).says(&["circuit of", E1, "held open"]).done();
    assert_eq!(forced(&mesh).iter().filter(|forced| **forced).count(), 1);
    mesh.cli(&["circuit", "trip", "web", E1]).ended(1).refused(&["already"]);
    mesh.cli(&["circuit", "trip", "web"]).says(&["no endpoint of web is left"]).done();
    assert!(forced(&mesh).iter().all(|forced| *forced));
    mesh.cli(&["circuit", "reset", "web"]).says(&["closed"]).done();
    assert!(forced(&mesh).iter().all(|forced| !forced));
    mesh.cli(&["circuit", "reset", "web"]).ended(1).refused(&["nothing to reset"]);
    let said = ["failure_threshold 5 → 2", "reset_timeout 30s → 10m", "max_reset_timeout"];
    mesh.cli(&["circuit", "set", "web", "--failure-threshold", "2", "--reset-timeout", "10m"]).says(&said).done();
    mesh.cli(&["circuit", "set", "web"]).ended(2);
}

#[test]
fn wrong_usage_ends_with_2_and_help_with_0() {
    let world = world!();
    let mesh = world.setup(json!([])).idle();
    for wrong in [&["frobnicate"][..], &["services", "--frobnicate"], &["bypass"], &["services", "-o", "xml"]] {
        mesh.cli(wrong).ended(2);
    }
    for help in [&["--help"][..], &["run", "--help"], &["endpoints", "--help"]] {
        mesh.cli(help).says(&["Usage"]).done();
    }
    mesh.cli(&["--version"]).says(&["mesh"]).done();
}

#[test]
fn runtime_changes_end_with_the_daemon_unless_persisted() {
    let world = world!();
    let (mut mesh, _backends) = web(&world);
    mesh.cli(&["endpoints", "weight", "web", E1, "9"]).done();
    mesh.cli(&["lb", "set", "web", "random"]).done();
    mesh.reload();
    assert_eq!(endpoint_field(&mesh, E1, "weight"), 9, "they outlive a reload");
    assert_eq!(mesh.service("web")["policy"], "random");
    mesh.terminate();
    mesh.start();
    assert_eq!(endpoint_field(&mesh, E1, "weight"), 1);
    assert_eq!(mesh.service("web")["policy"], "round_robin");
    assert!(!mesh.dir().join("conf.d").exists());
}

#[test]
fn persisted_changes_are_written_beside_the_configuration_and_hold() {
    let world = world!();
    let (mut mesh, [b1, _b2]) = web(&world);
    // Read after it by name, and all the same not what holds.
    mesh.write_fragment(
        "zz.yaml",
        &json!({ "services": [{ "name": "web", "load_balancing": { "policy": "maglev" } }] }).to_string(),
    );
    mesh.reload();
    mesh.cli(&["endpoints", "weight", "web", E2, "3", "--persist"]).says(&["99-runtime.yaml"]).done();
    mesh.cli(&["endpoints", "drain", "web", E1, "--persist"]).done();
    mesh.cli(&["lb", "set", "web", "random", "--persist"]).done();
    let written = mesh.dir().join("conf.d/99-runtime.yaml");
    assert!(fs::read_to_string(&written).unwrap().contains("web"));
    mesh.cli(&["config", "validate", &mesh.config_path().to_string_lossy()]).done();
    mesh.terminate();
    mesh.start();
    assert_eq!(endpoint_field(&mesh, E2, "weight"), 3);
    assert_eq!(endpoint_field(&mesh, E1, "draining"), true);
    assert_eq!(mesh.service("web")["policy"], "random");
    assert_eq!(mesh.json(&["endpoints", "web"]).as_array().unwrap().len(), 2, "the set itself is as configured");
    let _ = world.ask_times(VIP, 10);
    assert_eq!(b1.accepted(), 0);
}

#[test]
fn bypass_lets_everything_pass_untouched() {
    let world = world!();
    world.netns().ip("address add 10.96.0.10/32 dev lo");
    let _real = world.backend("REAL", VIP);
    let (mesh, _backends) = web(&world);
    assert_eq!(mesh.json(&["status"])["bypass"], false);
    for round in 1..=2 {
        mesh.cli(&["bypass", "on"]).says(&["bypass"]).done();
        assert_eq!(world.ask_times(VIP, 5), ["REAL"; 5]);
        assert_eq!(mesh.json(&["status"])["bypass"], true);
        let labels = [("service", "web"), ("reason", "bypass")];
        let counted = || mesh.metrics().count("mesh_connects_passed_total", &labels);
        holds("passed connects are counted", counted, |n| *n == f64::from(5 * round));
        mesh.cli(&["bypass", "off"]).says(&["bypass"]).done();
        assert_eq!(mesh.json(&["status"])["bypass"], false);
        assert!(world.ask_times(VIP, 4).iter().all(|who| who.starts_with('B')));
    }
}

#[test]
fn connections_of_before_keep_the_address_they_dialled_during_bypass() {
    let world = world!();
    let (mesh, _backends) = web(&world);
    let client = world.dial(VIP).unwrap();
    mesh.cli(&["bypass", "on"]).done();
    assert_eq!(client.peer_addr().unwrap().as_socket().unwrap().to_string(), VIP);
}

#[test]
fn without_a_daemon_commands_end_with_3() {
    let world = world!();
    let mesh = world.setup(json!([])).idle();
    for arguments in [
        &["status"][..],
        &["services"],
        &["endpoints"],
        &["explain", VIP],
        &["bypass", "on"],
        &["lb", "set", "web", "random"],
        &["endpoints", "drain", "web", E1],
        &["config", "reload"],
        &["config", "dump"],
    ] {
        let outcome = mesh.cli(arguments).ended(3);
        assert!(outcome.stderr.contains("admin.sock"), "it names the socket: {outcome}");
    }
    let elsewhere = mesh.dir().join("nowhere.sock");
    mesh.cli(&["--admin-socket", &elsewhere.to_string_lossy(), "status"]).ended(3).says(&["nowhere.sock"]);
}

#[test]
fn a_user_who_may_not_use_the_socket_is_told_so() {
    let world = world!();
    let (mesh, _backends) = web(&world);
    let mode = fs::metadata(mesh.socket_path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Everything on the way to the socket is open, the socket itself is not.
    let open = |path: &std::path::Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    open(mesh.dir());
    let binary = mesh.dir().join("mesh-for-all");
    fs::copy(process::mesh(), &binary).unwrap();
    open(&binary);
    let mut command = Command::new(&binary);
    command.arg("status").env("MESH_ADMIN_SOCKET", mesh.socket_path()).uid(65534).gid(65534);
    let outcome = process::run(&mut command).ended(3);
    assert!(outcome.stderr.to_lowercase().contains("permi"), "{outcome}");
}

#[test]
fn completions_are_written_for_the_usual_shells() {
    let world = world!();
    let mesh = world.setup(json!([])).idle();
    for shell in ["bash", "zsh", "fish"] {
        mesh.cli(&["completions", shell]).says(&["mesh", "endpoints"]).done();
    }
    mesh.cli(&["completions", "brainfuck"]).ended(2);
}
