//! What the daemon says about interception is what happens.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_common::settings::{Settings, flags};
use mesh_tests::{Daemon, Value, World, holds, json, kernel, process, service, world};
use nix::sched::{CloneFlags, unshare};
use std::{fs, os::unix::process::CommandExt, path::PathBuf, thread, time::Duration};

const VIP: &str = "10.96.0.10:80";
const E1: &str = "10.1.0.1:8080";

fn web() -> Value {
    json!([service("web", &[VIP], &[E1])])
}

fn ok(mesh: &Daemon) -> Value {
    mesh.json(&["status"])["interception_ok"].clone()
}

/// Waits until the daemon says this about interception.
#[track_caller]
fn becomes(mesh: &Daemon, expected: bool) {
    holds("interception_ok", || ok(mesh), |seen| *seen == expected);
}

fn health(mesh: &Daemon, component: &str) -> Value {
    mesh.http_json("/health")["components"][component].clone()
}

/// Has the daemon probe now: it does so whenever bypass is switched.
fn probe_now(mesh: &Daemon) {
    mesh.cli(&["bypass", "on"]).done();
    mesh.cli(&["bypass", "off"]).done();
}

/// Makes every hook pass everything, behind the daemon's back.
fn sabotage(mesh: &Daemon, on: bool) {
    let path = mesh.pins().into_iter().find(|p| p.ends_with("SETTINGS")).unwrap();
    let mut row = [0; size_of::<Settings>()];
    row[..8].copy_from_slice(&(if on { flags::OBSERVE } else { 0 }).to_ne_bytes());
    kernel::write_row(&path, &row).unwrap();
}

#[test]
fn a_probe_proves_interception_soon_after_the_start_and_shows_nowhere_else() {
    let world = world!();
    let _b1 = world.backend("B1", E1);
    let mesh = world.daemon(web());
    becomes(&mesh, true);
    assert_eq!(mesh.metrics().sum("mesh_interception_ok", &[]), Some(1.0));
    assert_eq!(health(&mesh, "interception")["ok"], true);
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    let status = mesh.json(&["status"]);
    assert_eq!((&status["services"], &status["endpoints"]), (&json!(1), &json!(1)));
    assert_eq!(status["warnings"], json!([]));
    let entries = |name: &str| mesh_tests::ask::find(&status["maps"], "name", name)["entries"].clone();
    assert_eq!(["SERVICES", "ENDPOINTS", "VIPS"].map(entries), [1, 1, 1].map(|n| json!(n)));
    assert_eq!(mesh.json(&["services"]).as_array().unwrap().len(), 1);
    assert_eq!(mesh.json(&["endpoints"]).as_array().unwrap().len(), 1);
    assert!(!mesh.http("GET", "/metrics").body.contains("127.109"));
    assert_eq!(mesh.endpoint("web", E1)["connections_total"], 1, "and none of the probe's");
    assert!(mesh.log().contains("interception works"), "{}", mesh.log());
    holds("its cgroup is gone", || world.cgroup().path().join("mesh-probe").exists(), |there| !there);
}

#[test]
fn a_daemon_in_a_cgroup_namespace_of_its_own_probes_as_any_other() {
    let world = world!();
    // As containers are started: it sees nothing above its own cgroup. Where cgroup2 is mounted with `nsdelegate`, as by
    // systemd and in the virtual machines of `cargo xtask vm`, it could move nobody out of there.
    let own = world.sibling();
    let path = own.cgroup().path().to_owned();
    let mesh = world.setup(web()).prepared(move |command| {
        process::place(command, Some(&path), None).unwrap();
        // SAFETY: between fork and exec one system call is made.
        unsafe {
            command.pre_exec(|| Ok(unshare(CloneFlags::CLONE_NEWCGROUP)?));
        }
    });
    let mesh = mesh.start();
    becomes(&mesh, true);
    assert_eq!(mesh.json(&["status"])["warnings"], json!([]));
}

#[test]
fn programs_that_are_attached_and_do_not_translate_are_found_out() {
    let world = world!();
    let mesh = world.daemon(web());
    becomes(&mesh, true);
    sabotage(&mesh, true);
    probe_now(&mesh);
    becomes(&mesh, false);
    let status = mesh.json(&["status"]);
    assert_eq!(status["programs"].as_array().unwrap().iter().filter(|p| p["attached"] != true).count(), 0);
    assert!(
        status["warnings"][0].as_str().unwrap().contains("interception: a probe connection to 127.109.101.115:104")
    );
    assert_eq!(mesh.metrics().sum("mesh_interception_ok", &[]), Some(0.0));
    assert_eq!(health(&mesh, "interception")["ok"], false);
    let ready = mesh.http("GET", "/ready");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("interception does not work"), "{ready:?}");
    sabotage(&mesh, false);
    becomes(&mesh, true);
    assert_eq!(mesh.http("GET", "/ready").status, 200);
    let said = mesh.log().matches("interception does NOT work").count();
    assert_eq!(said, 1, "said once: {}", mesh.log());
}

#[test]
fn bypass_is_no_interception_and_no_reason_not_to_be_ready() {
    let world = world!();
    let mesh = world.daemon(web());
    becomes(&mesh, true);
    mesh.cli(&["bypass", "on"]).done();
    assert_eq!(ok(&mesh), false);
    assert_eq!(mesh.http("GET", "/ready").status, 200);
    mesh.cli(&["bypass", "off"]).done();
    becomes(&mesh, true);
}

#[test]
fn tables_that_are_full_still_have_room_for_the_probe() {
    let world = world!();
    let _b1 = world.backend("B1", E1);
    let setup = world.setup(web()).with(|c| {
        c["dataplane"]["max_services"] = json!(1);
        c["dataplane"]["max_endpoints"] = json!(1);
        c["dataplane"]["max_slots"] = json!(1);
    });
    let mesh = setup.start();
    becomes(&mesh, true);
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    let status = mesh.json(&["status"]);
    let row = mesh_tests::ask::find(&status["maps"], "name", "SERVICES");
    assert_eq!((&row["entries"], &row["capacity"]), (&json!(1), &json!(1)));
    assert_eq!(status["warnings"], json!([]));
}

#[test]
fn a_daemon_killed_while_it_probes_leaves_nothing_that_the_next_one_stumbles_over() {
    let world = world!();
    let _b1 = world.backend("B1", E1);
    let mut mesh = world.daemon(web());
    for milliseconds in 0..10 {
        mesh.kill();
        mesh.start();
        thread::sleep(Duration::from_millis(milliseconds));
    }
    becomes(&mesh, true);
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    assert_eq!(mesh.json(&["status"])["endpoints"], 1);
    mesh.terminate();
    assert_eq!(probe_cgroups(&world), [""; 0].map(PathBuf::from));
}

fn probe_cgroups(world: &World) -> Vec<PathBuf> {
    let entries = fs::read_dir(world.cgroup().path()).unwrap();
    entries.map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect()
}

#[test]
fn a_client_that_hangs_is_ended_and_does_not_hold_anything_up() {
    let world = world!();
    let mesh = world.daemon(web());
    becomes(&mesh, true);
    // Whoever joins stands still.
    fs::write(world.cgroup().path().join("cgroup.freeze"), "1").unwrap();
    probe_now(&mesh);
    becomes(&mesh, false);
    assert_eq!(mesh.http("GET", "/health").status, 200);
    assert_eq!(probe_cgroups(&world), [""; 0].map(PathBuf::from), "its process is gone, and so its cgroup");
    fs::write(world.cgroup().path().join("cgroup.freeze"), "0").unwrap();
    probe_now(&mesh);
    becomes(&mesh, true);
}

#[test]
fn stopping_does_not_wait_for_a_probe() {
    let world = world!();
    let mut mesh = world.daemon(web());
    becomes(&mesh, true);
    fs::write(world.cgroup().path().join("cgroup.freeze"), "1").unwrap();
    probe_now(&mesh);
    thread::sleep(Duration::from_millis(200));
    let began = std::time::Instant::now();
    assert!(mesh.terminate().success());
    assert!(began.elapsed() < Duration::from_millis(1700), "{:?}", began.elapsed());
    assert_eq!(probe_cgroups(&world), [""; 0].map(PathBuf::from));
}

#[test]
fn the_probe_s_addresses_are_no_service_s() {
    let world = world!();
    for vip in ["127.109.101.115:104", "[fe80::6d65:7368]:104"] {
        let mesh = world.setup(json!([service("web", &[vip], &[E1])])).idle();
        let path = mesh.config_path();
        mesh.cli(&["config", "validate", &path.to_string_lossy()]).refused(&["probes interception"]);
    }
}

#[test]
fn a_program_that_runs_before_ours_is_named() {
    let world = world!();
    let _before = kernel::stranger(world.cgroup().path(), "other_before").unwrap();
    let mesh = world.setup(web()).beside_another().start();
    let _after = kernel::stranger(world.cgroup().path(), "other_after").unwrap();
    let status = mesh.json(&["status"]);
    let others: Vec<_> = status["other_programs"].as_array().unwrap().iter().collect();
    let seen: Vec<_> = others.iter().map(|o| (&o["hook"], &o["name"], &o["runs_first"])).collect();
    let hook = json!("cgroup/connect4");
    let (before, after) = (json!("other_before"), json!("other_after"));
    assert_eq!(seen, [(&hook, &before, &json!(true)), (&hook, &after, &json!(false))]);
    assert!(others.iter().all(|o| o["id"].as_u64().unwrap() > 0));
    let warning = status["warnings"][0].as_str().unwrap();
    assert!(warning.contains("other_before") && warning.contains("runs before ours"), "{status:#}");
    assert_eq!(status["warnings"].as_array().unwrap().len(), 1, "the other one is in nobody's way: {status:#}");
    assert_eq!(health(&mesh, "other_programs")["ok"], false);
    mesh.cli(&["status"]).says(&["other_before", "before ours", "other_after", "after ours"]);
    becomes(&mesh, true);
}

#[test]
fn another_mesh_on_the_way_is_named() {
    let world = world!();
    let above = world.daemon(web());
    let below = world.cgroup().path().join("below");
    fs::create_dir(&below).unwrap();
    let mesh = mesh_tests::daemon::Setup::new(&below, web()).start();
    let warnings = mesh.json(&["status"])["warnings"].clone();
    let named = warnings.as_array().unwrap().iter().filter(|w| w.as_str().unwrap().contains("another mesh")).count();
    assert!(named >= 3, "{warnings:#}");
    assert_eq!(above.json(&["status"])["other_programs"], json!([]), "what is below does not run for all");
    becomes(&mesh, true);
    becomes(&above, true);
}
