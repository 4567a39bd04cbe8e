//! Starting, ending, crashing, coming back, and leaving nothing behind.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Backend, Value, World, hammer::Tally, holds, json, process, service, world};
use std::{
    io::{self, Read, Write},
    process::Command,
};

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

#[test]
fn no_connect_fails_over_restarts_and_crashes() {
    let world = world!();
    let _backends = two(&world);
    let mut mesh = world.daemon(web(&[E1, E2]));
    let hammers = [VIP; 3].map(|vip| world.hammer(&[vip]));
    for round in 0..6 {
        if round % 2 == 0 {
            mesh.terminate();
        } else {
            mesh.kill();
        }
        mesh.start();
    }
    let mut total = Tally::default();
    hammers.into_iter().for_each(|h| total.add(h.stop()));
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
fn observe_counts_and_translates_nothing() {
    let world = world!();
    world.netns().ip("address add 10.96.0.10/32 dev lo");
    let _real = world.backend("REAL", VIP);
    let backends = two(&world);
    let setup = world.setup(json!([service("web", &[VIP], &[E1, E2]), service("none", &["10.96.0.11:80"], &[])]));
    let mesh = setup.with(|c| c["dataplane"]["mode"] = json!("observe")).start();
    assert_eq!(mesh.json(&["status"])["mode"], "observe");
    let mut client = world.dial(VIP).unwrap();
    assert_eq!(client.peer_addr().unwrap().as_socket().unwrap().to_string(), VIP);
    assert_eq!(mesh_tests::backend::answer(&mut client).unwrap(), "REAL");
    assert_eq!(world.dial("10.96.0.11:80").unwrap_err().raw_os_error(), Some(libc::ENETUNREACH), "nor refused");
    assert_eq!(backends.each_ref().map(Backend::accepted), [0, 0]);
    for service in ["web", "none"] {
        let labels = [("service", service), ("reason", "observe")];
        holds(service, || mesh.metrics().count("mesh_connects_passed_total", &labels), |n| *n == 1.0);
    }
}

#[test]
fn userspace_mode_attaches_nothing_and_is_not_ready() {
    let world = world!();
    let _backends = two(&world);
    let mut mesh = world.setup(web(&[E1])).with(|c| c["dataplane"]["mode"] = json!("userspace")).idle();
    mesh.spawn();
    mesh.wait_for("/health", 200);
    assert_eq!(mesh.http("GET", "/ready").status, 503);
    let status = mesh.json(&["status"]);
    assert_eq!((&status["mode"], &status["interception_ok"]), (&json!("userspace"), &json!(false)));
    assert_eq!(world.dial(VIP).unwrap_err().raw_os_error(), Some(libc::ENETUNREACH));
    assert_eq!(mesh.left_behind(), (Vec::new(), 0));
    assert_eq!(mesh.service("web")["endpoints"]["total"], 1);
}

/// The `mesh` binary where a user without rights can run it, in a directory of that user's.
fn for_nobody(mesh: &mesh_tests::Daemon) -> Command {
    let binary = mesh.dir().join("mesh");
    std::fs::copy(process::mesh(), &binary).unwrap();
    for path in [mesh.dir(), &binary, &mesh.config_path()] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    let mut command = Command::new(binary);
    command.args(["run", "--config", &mesh.config_path().to_string_lossy()]);
    std::os::unix::process::CommandExt::uid(&mut command, 65534);
    std::os::unix::process::CommandExt::gid(&mut command, 65534);
    command
}

#[test]
fn ebpf_mode_without_rights_ends_with_1_and_the_remedy() {
    let world = world!();
    let mesh = world.setup(web(&[E1])).with(|c| c["dataplane"]["mode"] = json!("ebpf")).idle();
    let outcome = process::run(&mut for_nobody(&mesh)).ended(1);
    assert!(outcome.stderr.contains("CAP_") || outcome.stderr.contains("root"), "a remedy: {outcome}");
    assert!(!outcome.stderr.contains("panicked"), "{outcome}");
}

#[test]
fn auto_mode_without_rights_runs_as_userspace() {
    let world = world!();
    let mesh = world.setup(web(&[E1])).idle();
    let mut child = for_nobody(&mesh).stdin(std::process::Stdio::null()).spawn().unwrap();
    let status = mesh_tests::poll::within(mesh_tests::poll::PATIENCE, || {
        let response = mesh_tests::http::tcp(&mesh.admin(), "GET", "/v1/status", "").map_err(|e| e.to_string())?;
        serde_json::from_str::<Value>(&response.body).map_err(|e| e.to_string())
    });
    let ready = mesh_tests::http::tcp(&mesh.admin(), "GET", "/ready", "").map(|r| r.status);
    child.kill().unwrap();
    child.wait().unwrap();
    let status = status.unwrap();
    assert_eq!((&status["mode"], &status["interception_ok"]), (&json!("userspace"), &json!(false)));
    assert_eq!(ready.unwrap(), 503);
}

#[test]
fn a_cgroup_that_is_none_ends_the_start_with_1_and_its_name() {
    let world = world!();
    for path in ["/sys/fs/cgroup/unified/no/such/cgroup", "/tmp"] {
        let setup = world.setup(web(&[E1]));
        let mesh = setup
            .with(|c| c["dataplane"] = json!({ "mode": "ebpf", "cgroup": path, "bpffs": c["dataplane"]["bpffs"] }));
        let mut mesh = mesh.idle();
        mesh.spawn();
        assert_eq!(mesh.wait().code(), Some(1), "{}", mesh.log());
        assert!(mesh.log().contains(path) && mesh.log().contains("dataplane.cgroup"), "{}", mesh.log());
        assert!(mesh.pins().is_empty(), "a start that fails leaves nothing");
    }
}

#[test]
fn a_start_with_a_bad_configuration_ends_with_1_and_every_mistake() {
    let world = world!();
    let mut mesh = world.setup(web(&[E1])).idle();
    let good = mesh.config().clone();
    mesh.configure(|c| c["services"] = json!([{ "name": "UPPER", "addresses": ["0.0.0.0:80"] }]));
    mesh.spawn();
    assert_eq!(mesh.wait().code(), Some(1));
    assert!(mesh.log().contains("UPPER") && mesh.log().contains("0.0.0.0"), "{}", mesh.log());
    mesh.configure(|c| *c = good);
    let missing = mesh.dir().join("missing.yaml");
    let mut command = mesh.command(&["run", "--config", &missing.to_string_lossy()]);
    process::run(&mut command).ended(1).refused(&["missing.yaml"]);
}

#[test]
fn a_taken_admin_port_ends_the_start_with_1_and_its_address() {
    let world = world!();
    let mut mesh = world.setup(web(&[E1])).idle();
    let taken = std::net::TcpListener::bind(mesh.admin()).unwrap();
    mesh.spawn();
    assert_eq!(mesh.wait().code(), Some(1), "{}", mesh.log());
    assert!(mesh.log().contains(&mesh.admin()), "{}", mesh.log());
    assert_eq!(world.dial(VIP).unwrap_err().kind(), io::ErrorKind::NetworkUnreachable, "nothing is intercepted");
    drop(taken);
    mesh.start();
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
