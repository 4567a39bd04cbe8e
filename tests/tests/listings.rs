//! What an operator reads: tables for people, JSON in the shapes that the contract fixes.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Backend, Daemon, Value, World, eventually, holds, json, process, service, shape, weighted, world};
use std::{fs, io, process::Command};

const VIP: &str = "10.96.0.10:80";
const E1: &str = "10.1.0.1:8080";
const E2: &str = "10.1.0.2:8080";

/// A daemon with service `web` on two backends.
fn web(world: &World) -> (Daemon, [Backend; 2]) {
    let backends = [world.backend("B1", E1), world.backend("B2", E2)];
    (world.daemon(json!([service("web", &[VIP], &[E1, E2])])), backends)
}

#[test]
fn services_have_the_shape_of_the_contract() {
    let world = world!();
    let _b = world.backend("B1", E1);
    let mesh = world.daemon(json!([
        service("zebra", &[], &[]),
        service("web", &[VIP, "[fd00::10]:80"], &[E2, E1]),
        service("a.b-c", &["10.96.0.11:80"], &[E1]),
    ]));
    let services = mesh.json(&["services"]);
    shape::check_each(
        &services,
        &[
            ("name", "text"),
            ("addresses", "list"),
            ("protocol", "text"),
            ("policy", "text"),
            ("circuit", "text|null"),
            ("endpoints", "object"),
        ],
    );
    let names: Vec<_> = services.as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a.b-c", "web", "zebra"]);
    let web = mesh.service("web");
    shape::check(
        &web["endpoints"],
        &[("total", "integer"), ("healthy", "integer"), ("open", "integer"), ("draining", "integer")],
    );
    assert_eq!(web["addresses"], json!([VIP, "[fd00::10]:80"]));
    assert_eq!((&web["protocol"], &web["policy"]), (&json!("tcp"), &json!("round_robin")));
    assert_eq!(web["endpoints"]["total"], 2);
    assert_eq!(mesh.http_json("/v1/services"), services, "HTTP says what the command line says");
}

#[test]
fn endpoints_have_the_shape_of_the_contract() {
    let world = world!();
    let _b = world.backend("B1", E1);
    let mut second = service("web", &[VIP], &["[fd01::1]:8080", "10.1.0.10:8080", E1]);
    second["endpoints"][0]["zone"] = json!("eu-west-1a");
    let mesh = world.daemon(json!([second, service("api", &["10.96.0.11:80"], &[E2])]));
    world.ask(VIP).unwrap();
    let endpoints = mesh.json(&["endpoints"]);
    shape::check_each(
        &endpoints,
        &[
            ("service", "text"),
            ("address", "text"),
            ("weight", "integer"),
            ("zone", "text|null"),
            ("health", "text"),
            ("circuit", "text"),
            ("draining", "flag"),
            ("active_connections", "integer"),
            ("active_requests", "integer|null"),
            ("connections_total", "integer"),
            ("connect_failures_total", "integer"),
            ("sent_bytes_total", "integer"),
            ("received_bytes_total", "integer"),
            ("latency_ewma_ms", "number|null"),
        ],
    );
    let rows = endpoints.as_array().unwrap();
    let order: Vec<_> = rows.iter().map(|e| (e["service"].as_str().unwrap(), e["address"].as_str().unwrap())).collect();
    let sorted = [("api", E2), ("web", E1), ("web", "10.1.0.10:8080"), ("web", "[fd01::1]:8080")];
    assert_eq!(order, sorted, "by name, then by address (as an address, not as text)");
    assert_eq!(mesh.endpoint("web", "[fd01::1]:8080")["zone"], "eu-west-1a");
    assert_eq!(mesh.endpoint("web", E1)["zone"], Value::Null, "absent is null");
    for row in rows {
        assert!(["healthy", "unhealthy", "unknown"].iter().any(|w| row["health"] == *w), "{row}");
        assert_eq!(row["circuit"], "closed");
    }
    assert_eq!(mesh.json(&["endpoints", "api"]).as_array().unwrap().len(), 1);
    shape::check_each(&mesh.http_json("/v1/endpoints"), &[("service", "text"), ("address", "text")]);
}

#[test]
fn status_has_the_shape_of_the_contract() {
    let world = world!();
    let (mesh, _backends) = web(&world);
    // Once it is settled, so that two answers are the same.
    let status = mesh_tests::holds("probed", || mesh.json(&["status"]), |s| s["interception_ok"] == true);
    shape::check(
        &status,
        &[
            ("node", "text"),
            ("version", "text"),
            ("uptime_s", "number"),
            ("mode", "text"),
            ("bypass", "flag"),
            ("interception_ok", "flag|null"),
            ("config", "object"),
            ("programs", "list"),
            ("maps", "list"),
            ("sources", "list"),
            ("services", "integer"),
            ("endpoints", "integer"),
            ("connections", "integer"),
            ("other_programs", "list"),
        ],
    );
    shape::check(&status["config"], &[("path", "text"), ("loaded_at", "text"), ("error", "text|null")]);
    shape::check_each(
        &status["programs"],
        &[
            ("name", "text"),
            ("hook", "text"),
            ("attached", "flag"),
            ("missing_reason", "text|null"),
            ("runs", "integer|null"),
            ("mean_ns", "number|null"),
        ],
    );
    shape::check_each(
        &status["maps"],
        &[("name", "text"), ("entries", "integer|null"), ("capacity", "integer|null"), ("bytes", "integer|null")],
    );
    shape::check_each(
        &status["sources"],
        &[("name", "text"), ("synced", "flag"), ("last_update", "text|null"), ("error", "text|null")],
    );
    assert_eq!(status["node"], "test-node");
    assert_eq!(status["mode"], "ebpf");
    assert_eq!(status["config"]["path"], json!(mesh.config_path()));
    assert_eq!(status["config"]["error"], Value::Null);
    assert!(shape::is_time(&status["config"]["loaded_at"]), "{status}");
    assert_eq!((&status["services"], &status["endpoints"]), (&json!(1), &json!(2)));
    let hooks = status["programs"].as_array().unwrap();
    for required in ["connect4", "connect6", "sock_ops"] {
        let named = |p: &&Value| p["hook"].as_str().unwrap().contains(required);
        let program = hooks.iter().find(named).unwrap_or_else(|| panic!("no {required} in {hooks:?}"));
        assert_eq!(program["attached"], true, "{program}");
    }
    for program in hooks {
        assert_eq!(program["attached"] == false, program["missing_reason"].is_string(), "{program}");
        assert_eq!(program["runs"], Value::Null, "without dataplane.program_stats");
    }
    let steady = |mut status: Value| {
        let object = status.as_object_mut().unwrap();
        ["uptime_s", "connections", "maps", "memory"].iter().for_each(|changing| drop(object.remove(*changing)));
        status
    };
    // What a source said may be newer in the second answer: two that follow one another are the same soon.
    eventually("HTTP says what the command line says", || {
        let (one, other) = (steady(mesh.json(&["status"])), steady(mesh.http_json("/v1/status")));
        if one == other { Ok(()) } else { Err(format!("{one} is not {other}")) }
    });
}

#[test]
fn program_stats_count_runs() {
    let world = world!();
    let _b1 = world.backend("B1", E1);
    let setup = world.setup(json!([service("web", &[VIP], &[E1])]));
    let mut mesh = setup.with(|c| c["dataplane"]["program_stats"] = json!(true)).start();
    let runs = |mesh: &Daemon| {
        let status = mesh.json(&["status"]);
        let programs = status["programs"].as_array().unwrap();
        programs.iter().find(|p| p["hook"].as_str().unwrap().contains("connect4")).unwrap().clone()
    };
    for round in 1..=3 {
        let _ = world.ask_times(VIP, 10);
        holds(
            "runs, those of replaced programs with them",
            || runs(&mesh),
            |p| p["runs"].as_u64().is_some_and(|n| n >= 10 * round) && p["mean_ns"].as_f64().is_some_and(|n| n > 0.0),
        );
        mesh.terminate();
        mesh.start();
    }
}

#[test]
fn explain_says_what_a_connection_would_meet() {
    let world = world!();
    let mesh =
        world.daemon(json!([weighted("web", &[VIP], &[(E1, 1), (E2, 3), ("[fd01::1]:8080", 1), ("10.1.0.4:1", 0)])]));
    mesh.cli(&["endpoints", "drain", "web", E1]).done();
    let told = mesh.json(&["explain", VIP]);
    shape::check(
        &told,
        &[
            ("address", "text"),
            ("service", "text"),
            ("route", "text|null"),
            ("policy", "text"),
            ("decision", "text"),
            ("endpoints", "list"),
        ],
    );
    shape::check_each(
        &told["endpoints"],
        &[
            ("address", "text"),
            ("weight", "integer"),
            ("tier", "text|integer|null"),
            ("health", "text"),
            ("circuit", "text"),
            ("draining", "flag"),
            ("candidate", "flag"),
            ("reason", "text|null"),
            ("share", "number|null"),
        ],
    );
    assert_eq!((&told["address"], &told["service"]), (&json!(VIP), &json!("web")));
    let rows = told["endpoints"].as_array().unwrap();
    let candidates: Vec<_> = rows.iter().filter(|e| e["candidate"] == true).map(|e| &e["address"]).collect();
    assert_eq!(candidates, [E2], "not the draining one, not the v6 one, not the one of weight 0: {told:#}");
    for row in rows.iter().filter(|e| e["candidate"] == false) {
        assert!(row["reason"].as_str().is_some_and(|r| !r.is_empty()), "it says why not: {row}");
    }
    mesh.cli(&["explain", VIP]).says(&["web", E1, E2]).done();
}

#[test]
fn explain_gives_shares_in_proportion_to_the_weights() {
    let world = world!();
    let mesh = world.daemon(json!([weighted("web", &[VIP], &[(E1, 1), (E2, 3)])]));
    let told = mesh.json(&["explain", VIP]);
    let share = |n: usize| told["endpoints"][n]["share"].as_f64().unwrap();
    assert!((share(1) / share(0) - 3.0).abs() < 0.01, "{told:#}");
}

#[test]
fn explain_says_so_where_an_address_is_no_service() {
    let world = world!();
    let (mesh, _backends) = web(&world);
    let told = mesh.json(&["explain", "10.96.0.10:81"]);
    assert_eq!(told["service"], Value::Null, "{told}");
    assert_eq!(told["endpoints"], json!([]));
    assert!(!told["decision"].as_str().unwrap().is_empty());
}

#[test]
fn explain_agrees_with_what_happens_where_nothing_can_serve() {
    let world = world!();
    let mesh =
        world.daemon(json!([service("six", &[VIP], &["[fd01::1]:8080"]), service("none", &["10.96.0.11:80"], &[])]));
    for (vip, reason) in [(VIP, "family_mismatch"), ("10.96.0.11:80", "no_endpoint")] {
        assert_eq!(world.dial(vip).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let told = mesh.json(&["explain", vip]);
        let said = format!("{} {}", told["decision"], told["reason"]);
        assert!(said.contains(reason), "{reason}: {told:#}");
    }
}

#[test]
fn config_dump_shows_the_running_configuration_with_defaults() {
    let world = world!();
    let (mesh, _backends) = web(&world);
    let dump = mesh.json(&["config", "dump"]);
    assert_eq!(dump["admin"]["listen"], json!(mesh.admin()));
    assert_eq!(dump["dataplane"]["mode"], "auto", "a default");
    assert_eq!(dump["services"][0]["name"], "web");
    assert_eq!(dump["services"][0]["endpoints"][0]["weight"], 1, "a default: {dump:#}");
    let text = mesh.cli(&["config", "dump", "-o", "yaml"]).says(&["dataplane:", "services:", "name: web"]).done();
    // What was dumped is itself a configuration.
    let file = mesh.dir().join("dumped.yaml");
    fs::write(&file, text).unwrap();
    mesh.cli(&["config", "validate", &file.to_string_lossy()]).done();
}

#[test]
fn listings_come_as_table_json_and_yaml() {
    let world = world!();
    let (mesh, _backends) = web(&world);
    for listing in [&["services"][..], &["endpoints"], &["status"], &["explain", VIP], &["services", "web"]] {
        let table = mesh.cli(listing).done();
        assert!(!table.is_empty() && !table.contains('\u{1b}'), "no colour where no terminal is: {table:?}");
        assert!(!mesh.cli(&[listing, &["-o", "table"]].concat()).done().is_empty());
        let yaml = mesh.cli(&[listing, &["-o", "yaml"]].concat()).done();
        assert!(serde_json::from_str::<Value>(&yaml).is_err() && yaml.contains(": "), "YAML: {yaml}");
        let _ = mesh.json(listing);
    }
    mesh.cli(&["services"]).says(&["web", VIP, "round_robin"]).done();
    mesh.cli(&["services", "web"]).says(&[E1, E2]).done();
    mesh.cli(&["endpoints", "web"]).says(&[E1, E2]).done();
    mesh.cli(&["services", "-o", "yaml"]).says(&["name: web", "policy: round_robin"]).done();
}

#[test]
fn tables_do_not_break_where_the_reader_goes_away() {
    let world = world!();
    let (mesh, _backends) = web(&world);
    let script =
        format!("{} endpoints | true; {} services | head -1", process::mesh().display(), process::mesh().display());
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).env("MESH_ADMIN_SOCKET", mesh.socket_path());
    let outcome = process::run(&mut shell).ended(0);
    assert!(!outcome.stderr.contains("panicked"), "{outcome}");
}

#[test]
fn watching_services_goes_on_until_interrupted() {
    let world = world!();
    let (mesh, _backends) = web(&world);
    let output = mesh.dir().join("watched");
    let mut command = mesh.command(&["services", "--watch"]);
    let file = fs::File::create(&output).unwrap();
    let mut child = command.stdin(std::process::Stdio::null()).stdout(file).spawn().unwrap();
    let read = || fs::read_to_string(&output).unwrap();
    eventually("a first table", || if read().contains("round_robin") { Ok(()) } else { Err(read()) });
    mesh.cli(&["lb", "set", "web", "random"]).done();
    eventually("the change is shown", || if read().contains("random") { Ok(()) } else { Err(read()) });
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn explain_takes_a_v4_mapped_address_as_a_socket_would() {
    let world = world!();
    let (mesh, _backends) = web(&world);
    let (plain, mapped) = (mesh.json(&["explain", VIP]), mesh.json(&["explain", "[::ffff:10.96.0.10]:80"]));
    assert_eq!((&mapped["service"], &mapped["endpoints"]), (&plain["service"], &plain["endpoints"]));
}

#[test]
fn the_log_is_json_unless_text_is_asked_for() {
    let world = world!();
    let (mesh, _backends) = web(&world);
    mesh.reload();
    let log = mesh.log();
    assert!(log.lines().count() > 1);
    for line in log.lines() {
        let entry: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        shape::check(&entry, &[("timestamp", "text"), ("level", "text"), ("message", "text")]);
    }
    drop(mesh);
    let setup = world.setup(json!([service("web", &[VIP], &[E1])]));
    let mesh = setup.with(|c| c["telemetry"] = json!({ "log": { "format": "text", "level": "warn" } })).start();
    assert!(!mesh.log().contains('{') && !mesh.log().contains("INFO"), "{}", mesh.log());
}
