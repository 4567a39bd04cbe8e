//! Configurations that change while the daemon runs: applied whole or not at all.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Daemon, Value, World, eventually, holds, json, service, shape, world};
use std::{fs, os::unix::fs::symlink};

const VIP: &str = "10.96.0.10:80";
const E1: &str = "10.1.0.1:8080";
const E2: &str = "10.1.0.2:8080";

fn web(endpoint: &str) -> Value {
    json!([service("web", &[VIP], &[endpoint])])
}

/// The addresses of a service's endpoints.
fn endpoints(mesh: &Daemon, service: &str) -> Vec<String> {
    let rows = mesh.json(&["endpoints", service]);
    rows.as_array().unwrap().iter().map(|e| e["address"].as_str().unwrap().to_owned()).collect()
}

fn failures(mesh: &Daemon) -> f64 {
    mesh.metrics().sum("mesh_config_reload_failures_total", &[]).unwrap()
}

/// `mesh_config_ok`.
fn is_in_force(mesh: &Daemon) -> f64 {
    mesh.metrics().sum("mesh_config_ok", &[]).unwrap()
}

fn config_error(mesh: &Daemon) -> Value {
    mesh.json(&["status"])["config"]["error"].clone()
}

fn answers(world: &World, who: &str) {
    eventually(&format!("{who} answers"), || match world.ask(VIP) {
        Ok(answer) if answer == who => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn a_reload_by_command_is_applied_when_the_command_ends() {
    let world = world!();
    let _backends = [world.backend("B1", E1), world.backend("B2", E2)];
    let mut mesh = world.daemon(web(E1));
    for n in 0..20 {
        let (endpoint, who) = if n % 2 == 0 { (E2, "B2") } else { (E1, "B1") };
        mesh.set_services(web(endpoint));
        assert_eq!(world.ask(VIP).unwrap(), who);
    }
    assert_eq!(failures(&mesh), 0.0);
}

#[test]
fn a_reload_by_signal_is_applied() {
    let world = world!();
    let _backends = [world.backend("B1", E1), world.backend("B2", E2)];
    let mut mesh = world.daemon(web(E1));
    mesh.configure(|c| c["services"] = web(E2));
    mesh.hang_up();
    answers(&world, "B2");
}

#[test]
fn a_changed_file_is_picked_up_without_being_told() {
    let world = world!();
    let _backends = [world.backend("B1", E1), world.backend("B2", E2)];
    let mut mesh = world.daemon(web(E1));
    let before = mesh.json(&["status"])["config"]["loaded_at"].clone();
    // A new file under the old name, as editors and deployment tools do.
    mesh.configure(|c| c["services"] = web(E2));
    answers(&world, "B2");
    assert_ne!(mesh.json(&["status"])["config"]["loaded_at"], before);
    // The same file written over.
    let mut config = mesh.config().clone();
    config["services"] = web(E1);
    fs::write(mesh.config_path(), config.to_string()).unwrap();
    answers(&world, "B1");
}

#[test]
fn a_file_swapped_behind_a_symlink_is_picked_up() {
    let world = world!();
    let _backends = [world.backend("B1", E1), world.backend("B2", E2)];
    let setup = world.setup(web(E1));
    let (mut first, mut second) = (setup.config.clone(), setup.config.clone());
    let mut mesh = setup.idle();
    first["services"] = web(E1);
    second["services"] = web(E2);
    // As Kubernetes mounts a ConfigMap: mesh.yaml → ..data/mesh.yaml, and ..data → a directory that is replaced.
    for (version, config) in [("v1", first), ("v2", second)] {
        fs::create_dir(mesh.dir().join(version)).unwrap();
        fs::write(mesh.dir().join(version).join("mesh.yaml"), config.to_string()).unwrap();
    }
    symlink("v1", mesh.dir().join("..data")).unwrap();
    fs::remove_file(mesh.config_path()).unwrap();
    symlink("..data/mesh.yaml", mesh.config_path()).unwrap();
    mesh.start();
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    symlink("v2", mesh.dir().join("..data_tmp")).unwrap();
    fs::rename(mesh.dir().join("..data_tmp"), mesh.dir().join("..data")).unwrap();
    answers(&world, "B2");
}

#[test]
fn a_bad_reload_keeps_the_running_configuration_and_is_reported() {
    let world = world!();
    let _backends = [world.backend("B1", E1), world.backend("B2", E2)];
    let mut mesh = world.daemon(web(E1));
    for bad in [
        "services: [",
        "serivces: []\n",
        "services:\n  - name: web\n    addresses: [\"10.96.0.10:0\"]\n",
        "- not a mapping\n",
        "services:\n  - { name: web, addresses: [\"10.96.0.10:80\"], protocol: smoke }\n",
    ] {
        let before = failures(&mesh);
        mesh.write_text(bad);
        mesh.cli(&["config", "reload"]).ended(1).refused(&["mesh.yaml"]);
        assert!(config_error(&mesh).is_string(), "{bad}");
        assert!(failures(&mesh) > before, "{bad}");
        assert_eq!(is_in_force(&mesh), 0.0, "{bad}");
        assert_eq!(world.ask(VIP).unwrap(), "B1", "{bad}");
        assert_eq!(mesh.http("GET", "/ready").status, 200, "{bad}");
    }
    mesh.set_services(web(E2));
    assert_eq!(config_error(&mesh), Value::Null);
    assert_eq!(is_in_force(&mesh), 1.0);
    assert_eq!(world.ask(VIP).unwrap(), "B2");
}

#[test]
fn a_reload_with_one_mistake_applies_nothing_of_it() {
    let world = world!();
    let _backends = [world.backend("B1", E1), world.backend("B2", E2)];
    let mut mesh = world.daemon(web(E1));
    let mut wrong = service("wrong", &["10.96.0.11:80"], &[E1]);
    wrong["endpoints"][0]["weight"] = json!(70_000);
    mesh.configure(|c| c["services"] = json!([service("web", &[VIP], &[E2]), wrong]));
    mesh.cli(&["config", "reload"]).ended(1).refused(&["65535"]);
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    assert_eq!(mesh.json(&["services"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_bad_file_is_reported_without_a_command() {
    let world = world!();
    let _b1 = world.backend("B1", E1);
    let mesh = world.daemon(web(E1));
    mesh.write_text("services: [");
    let error = holds("reported", || config_error(&mesh), Value::is_string);
    assert!(error.as_str().unwrap().contains("mesh.yaml"), "{error}");
    assert!(failures(&mesh) >= 1.0);
    eventually("logged", || if mesh.log().contains("mesh.yaml") { Ok(()) } else { Err(mesh.log()) });
    assert_eq!(world.ask(VIP).unwrap(), "B1");
}

#[test]
fn a_vanished_file_keeps_the_running_configuration() {
    let world = world!();
    let _b1 = world.backend("B1", E1);
    let mesh = world.daemon(web(E1));
    fs::remove_file(mesh.config_path()).unwrap();
    mesh.cli(&["config", "reload"]).ended(1).refused(&["mesh.yaml"]);
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    // `unload` reads where the pins are.
    mesh.write_text(&mesh.config().to_string());
}

#[test]
fn sections_that_need_a_restart_are_refused_by_name() {
    let world = world!();
    let _backends = [world.backend("B1", E1), world.backend("B2", E2)];
    let mut mesh = world.daemon(web(E1));
    let good = mesh.config().clone();
    for (section, key, value) in [
        ("dataplane", "mark", json!(99)),
        ("dataplane", "mode", json!("observe")),
        ("admin", "metrics_listen", json!("127.0.0.1:1")),
        ("node", "name", json!("renamed")),
    ] {
        mesh.configure(|c| {
            c[section][key] = value;
            c["services"] = web(E2);
        });
        mesh.cli(&["config", "reload"]).ended(1).refused(&[section]);
        assert!(config_error(&mesh).as_str().unwrap().contains(section));
        assert_eq!(world.ask(VIP).unwrap(), "B1", "nothing of it is applied");
        mesh.configure(|c| *c = good.clone());
        mesh.reload();
    }
    assert_eq!(config_error(&mesh), Value::Null);
}

#[test]
fn fragments_are_merged_in_name_order_field_by_field() {
    let world = world!();
    let _backends = [world.backend("B1", E1), world.backend("B2", E2)];
    let mesh = world.setup(web(E1)).idle();
    let fragment = |services: Value| json!({ "services": services }).to_string();
    mesh.write_fragment("20-later.yaml", &fragment(json!([{ "name": "web", "endpoints": [{ "address": E2 }] }])));
    mesh.write_fragment(
        "10-sooner.yaml",
        &fragment(json!([
            { "name": "web", "endpoints": [{ "address": "10.1.0.9:1" }], "load_balancing": { "policy": "random" } },
            service("added", &["10.96.0.11:80"], &[E1]),
        ])),
    );
    mesh.write_fragment("30-notes.txt", "this is no YAML: [");
    mesh.write_fragment("40-old.yaml.bak", "this is no YAML: [");
    let mut mesh = mesh;
    mesh.start();
    assert_eq!(endpoints(&mesh, "web"), [E2], "the later fragment wins");
    assert_eq!(mesh.service("web")["policy"], "random", "what it does not say stays");
    assert_eq!(mesh.service("web")["addresses"], json!([VIP]), "as does what the main file says");
    assert_eq!(endpoints(&mesh, "added"), [E1]);
    fs::remove_file(mesh.dir().join("conf.d/20-later.yaml")).unwrap();
    holds("a removed fragment is noticed", || endpoints(&mesh, "web"), |e| *e == ["10.1.0.9:1"]);
    mesh.write_fragment("20-later.yaml", &fragment(json!([{ "name": "web", "endpoints": [{ "address": E1 }] }])));
    holds("a new one is, too", || endpoints(&mesh, "web"), |e| *e == [E1]);
    assert_eq!(world.ask(VIP).unwrap(), "B1");
}

#[test]
fn a_mistake_in_a_fragment_names_the_fragment() {
    let world = world!();
    let mesh = world.daemon(web(E1));
    mesh.write_fragment("50-wrong.yaml", "services:\n  - name: web\n    endponits: []\n");
    mesh.cli(&["config", "reload"]).ended(1).refused(&["50-wrong.yaml", "3:5", "endponits"]);
    assert!(config_error(&mesh).as_str().unwrap().contains("50-wrong.yaml"));
    fs::remove_file(mesh.dir().join("conf.d/50-wrong.yaml")).unwrap();
    mesh.reload();
}

#[test]
fn two_services_may_not_end_up_with_one_address() {
    let world = world!();
    let _b1 = world.backend("B1", E1);
    let mesh = world.daemon(web(E1));
    let thief = json!({ "services": [service("thief", &[VIP], &[E2])] }).to_string();
    mesh.write_fragment("10-thief.yaml", &thief);
    mesh.cli(&["config", "reload"]).ended(1).refused(&[VIP, "thief", "web"]);
    assert_eq!(world.ask(VIP).unwrap(), "B1");
}

#[test]
fn a_vip_may_move_from_one_service_to_another() {
    let world = world!();
    let _backends = [world.backend("B1", E1), world.backend("B2", E2)];
    let mut mesh = world.daemon(json!([service("a", &[VIP], &[E1]), service("b", &["10.96.0.11:80"], &[E2])]));
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    mesh.set_services(json!([service("a", &["10.96.0.11:80"], &[E1]), service("b", &[VIP], &[E2])]));
    assert_eq!(world.ask(VIP).unwrap(), "B2");
    assert_eq!(world.ask("10.96.0.11:80").unwrap(), "B1");
}

#[test]
fn a_reload_says_when_it_was() {
    let world = world!();
    let mut mesh = world.daemon(web(E1));
    let loaded = |mesh: &Daemon| mesh.json(&["status"])["config"]["loaded_at"].clone();
    let first = loaded(&mesh);
    mesh.set_services(web(E2));
    let second = loaded(&mesh);
    assert!(shape::is_time(&first) && shape::is_time(&second));
    assert!(second.as_str().unwrap() > first.as_str().unwrap(), "{first} {second}");
}

#[test]
fn counters_and_connections_outlive_a_reload() {
    let world = world!();
    let _backends = [world.backend("B1", E1), world.backend("B2", E2)];
    let mut mesh = world.daemon(json!([service("web", &[VIP], &[E1, E2])]));
    let _ = world.ask_times(VIP, 10);
    let total = |mesh: &Daemon| mesh.endpoint("web", E1)["connections_total"].clone();
    holds("counted", || total(&mesh), |n| *n == 5);
    for weight in 2..6 {
        mesh.configure(|c| c["services"][0]["endpoints"][1]["weight"] = json!(weight));
        mesh.reload();
    }
    mesh.set_services(json!([service("web", &[VIP, "10.96.0.11:80"], &[E1, E2, "10.1.0.3:8080"])]));
    assert_eq!(total(&mesh), 5);
}
