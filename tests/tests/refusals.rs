//! Connects that mesh refuses are lines of the log: whose they were, what was dialled, and why.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{
    Daemon, Proxy, Value, eventually, get, holds, http_service, json, service, shape, world, world::addr,
};
use socket2::{Domain, Socket};
use std::{
    io::{ErrorKind, Read},
    thread,
    time::{Duration, Instant},
};

const VIP: &str = "10.96.0.10:80";
const VIP6: &str = "[fd00::10]:80";
const OTHER: &str = "10.96.0.11:80";
const DEAD: &str = "10.1.0.9:8080";
const SIX: &str = "[fd01::1]:8080";
/// Rows that the kernel has for refused connects.
const ROOM: usize = mesh_common::event::MAX_REFUSED as usize;

/// The lines that tell of refused connects.
fn lines(mesh: &Daemon) -> Vec<Value> {
    let lines = mesh.json(&["logs", "--limit", "10000"]);
    lines.as_array().unwrap().iter().filter(|line| !line["connection"]["refusals"].is_null()).cloned().collect()
}

/// So many of them, once they are there.
fn so_many(mesh: &Daemon, count: usize) -> Vec<Value> {
    holds(&format!("{count} lines"), || lines(mesh), |lines| lines.len() == count)
}

fn sum(lines: &[Value]) -> u64 {
    lines.iter().map(|line| line["connection"]["refusals"].as_u64().unwrap()).sum()
}

/// A counter, which has no fraction.
fn whole(count: f64) -> u64 {
    format!("{count}").parse().unwrap()
}

/// As the kernel counted them, of this service.
fn counted(mesh: &Daemon, service: &str) -> u64 {
    whole(mesh.metrics().count("mesh_tcp_connects_refused_total", &[("service", service)]))
}

fn dropped(mesh: &Daemon) -> u64 {
    whole(mesh.metrics().count("mesh_log_lines_dropped_total", &[("at", "refused")]))
}

/// A connect of this process, which is refused.
fn dial(socket: &Socket, vip: &str) {
    assert_eq!(socket.connect(&addr(vip).into()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

/// What the daemon wrote to stderr of connections.
fn written(mesh: &Daemon) -> Vec<Value> {
    mesh.log().lines().filter_map(|line| line.parse::<Value>().ok()).filter(|l| l["target"] == "connection").collect()
}

#[test]
fn a_refused_connect_is_a_line_with_whose_it_was_what_it_dialled_and_why() {
    let world = world!();
    let mesh = world.daemon(json!([service("empty", &[VIP, VIP6], &[]), service("six", &[OTHER], &[SIX])]));
    let expected = [(VIP, "empty", "no_endpoint"), (VIP6, "empty", "no_endpoint"), (OTHER, "six", "family_mismatch")];
    for (count, (vip, name, reason)) in (1..).zip(expected) {
        let pid = world.refused(vip);
        let lines = so_many(&mesh, count);
        let line = lines.last().unwrap();
        let fields = [
            ("time", "text"),
            ("kind", "text"),
            ("service", "text"),
            ("endpoint", "null"),
            ("client", "null"),
            ("duration_ms", "number"),
            ("reason", "text"),
        ];
        shape::check(line, &fields);
        let expected = json!({
            "kind": "connection", "service": name, "endpoint": null, "client": null, "method": null, "path": null,
            "status": null, "duration_ms": 0.0, "sent_bytes": 0, "received_bytes": 0, "attempts": 0, "trace_id": null,
            "reason": reason,
            "connection": {
                "pid": pid, "command": "mesh-test-peer", "cgroup": world.cgroup().name(), "pod": null,
                "original_destination": vip, "connect_ms": null, "rtt_us": null, "retransmits": 0, "refusals": 1,
            },
        });
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&line[field], value, "{field}: {line}");
        }
    }
    assert_eq!((counted(&mesh, "empty"), counted(&mesh, "six"), dropped(&mesh)), (2, 1, 0));
    // The same over HTTP, on stderr, and for people.
    let kept = lines(&mesh);
    assert_eq!(mesh.http_json("/v1/logs?service=six")[0], kept[2]);
    assert_eq!(mesh.json(&["logs", "--service", "six"]), json!([kept[2]]));
    let written = written(&mesh);
    assert_eq!(written.len(), 3);
    for (line, written) in kept.iter().zip(&written) {
        line.as_object().unwrap().iter().for_each(|(field, value)| assert_eq!(&written[field], value, "{field}"));
    }
    let pid = &kept[2]["connection"]["pid"];
    let table = mesh.cli(&["logs"]).done();
    assert!(table.contains(&format!("family_mismatch  connection mesh-test-peer[{pid}] to {OTHER}\n")), "{table}");
}

#[test]
fn with_all_circuits_open_it_says_so_and_not_what_the_endpoint_said() {
    let world = world!();
    let mut web = service("web", &[VIP, VIP6], &[DEAD]);
    web["circuit_breaker"] = json!({ "failure_threshold": 1, "max_open_percent": 100, "probe_interval": "60s" });
    let mesh = world.daemon(json!([web]));
    let of = |vip: &str, reason: &str| {
        let pid = world.refused(vip);
        let all = || mesh.json(&["logs"]).as_array().unwrap().clone();
        let found = holds(&format!("{reason} of {pid}"), all, |lines| {
            lines.iter().any(|l| l["connection"]["pid"] == json!(pid))
        });
        let line = found.into_iter().find(|l| l["connection"]["pid"] == json!(pid)).unwrap();
        assert_eq!((&line["service"], &line["reason"]), (&json!("web"), &json!(reason)), "{line}");
        assert_eq!(line["connection"]["original_destination"], json!(vip), "{line}");
        line
    };
    // The endpoint's kernel refuses it: a connection that came to nothing.
    let asked = of(VIP, "refused");
    assert_eq!((&asked["endpoint"], &asked["connection"]["refusals"]), (&json!(DEAD), &Value::Null), "{asked}");
    // The first one while the service is wholly open is let through as a probe.
    world.dial(VIP).unwrap_err();
    for vip in [VIP, VIP6] {
        let spared = of(vip, "circuit_open");
        assert_eq!((&spared["endpoint"], &spared["connection"]["refusals"]), (&Value::Null, &json!(1)), "{spared}");
    }
}

#[test]
fn a_storm_is_a_line_a_second_that_says_how_many_and_for_how_long() {
    let world = world!();
    let mesh = world.daemon(json!([service("web", &[VIP], &[]), service("other", &[OTHER], &[])]));
    let (storm, calm) = (world.tcp(Domain::IPV4), world.tcp(Domain::IPV4));
    let began = Instant::now();
    let mut connects = 0;
    while began.elapsed() < Duration::from_millis(2500) {
        (0..100).for_each(|_| dial(&storm, VIP));
        connects += 100;
    }
    // It hides nobody else's.
    dial(&calm, OTHER);
    let told = || lines(&mesh).into_iter().filter(|line| line["service"] == "web").collect::<Vec<_>>();
    // A connect that comes while the daemon takes the row away may be missed.
    let all = holds("all are told", told, |lines| sum(lines) + lines.len() as u64 >= connects);
    let took = began.elapsed().as_secs() as usize;
    assert!((2..=took + 2).contains(&all.len()), "{} lines in {took} s", all.len());
    assert!(sum(&all) <= connects && connects > 5_000, "{} of {connects}", sum(&all));
    for line in &all {
        let ms = line["duration_ms"].as_f64().unwrap();
        assert!(ms <= 3000.0, "from the first to the last that it tells of: {line}");
        assert_eq!(line["connection"]["pid"], json!(std::process::id()));
    }
    assert_eq!((counted(&mesh, "web"), dropped(&mesh)), (connects, 0));
    let others = || lines(&mesh).into_iter().filter(|line| line["service"] == "other").collect::<Vec<_>>();
    assert_eq!(sum(&holds("the other one", others, |lines| !lines.is_empty())), 1);
    let table = mesh.cli(&["logs", "--service", "web"]).done();
    assert!(table.lines().any(|l| l.contains(&format!(" to {VIP}, ")) && l.ends_with(" times")), "{table}");
}

#[test]
fn more_at_once_than_there_is_room_for_are_refused_all_the_same_and_counted_as_not_told() {
    let world = world!();
    let vips: Vec<String> = (1..=ROOM + 200).map(|port| format!("10.96.0.10:{port}")).collect();
    let mesh = world.daemon(json!([service("web", &vips.iter().map(String::as_str).collect::<Vec<_>>(), &[])]));
    let socket = world.tcp(Domain::IPV4);
    let began = Instant::now();
    for _ in 0..4 {
        vips.iter().for_each(|vip| dial(&socket, vip));
    }
    let took = began.elapsed();
    let connects = 4 * vips.len() as u64;
    assert_eq!(counted(&mesh, "web"), connects);
    let state = || (sum(&lines(&mesh)), dropped(&mesh));
    let (told, missed) = holds("all are told, or counted", state, |(told, missed)| told + missed + 8 >= connects);
    assert!(told + missed <= connects && told >= ROOM as u64, "{told} and {missed} of {connects} in {took:?}");
    if took < Duration::from_millis(900) {
        assert!(missed > 0, "{took:?}");
    }
    // There is room again.
    let before = lines(&mesh).len();
    dial(&socket, &vips[ROOM + 100]);
    so_many(&mesh, before + 1);
}

#[test]
fn they_are_switched_off_with_the_log_but_not_thinned_out_with_it() {
    let world = world!();
    let log = |c: &mut Value, log: Value| c["telemetry"]["access_log"] = log;
    let setup = world.setup(json!([service("web", &[VIP], &[])]));
    let mut mesh =
        setup.with(|c| c["telemetry"] = json!({ "log": { "level": "info,connection=off" }, "access_log": {} })).start();
    let socket = world.tcp(Domain::IPV4);
    dial(&socket, VIP);
    so_many(&mesh, 1);
    assert_eq!(written(&mesh), [Value::Null; 0], "kept, and not written");
    mesh.cli(&["log-level", "connection=info"]).done();
    dial(&socket, VIP);
    holds("it is written", || written(&mesh).len(), |n| *n == 1);
    mesh.configure(|c| log(c, json!({ "sample_rate": 0.000_001 })));
    mesh.reload();
    dial(&socket, VIP);
    so_many(&mesh, 3);
    for off in [json!({ "sample_rate": 0 }), json!({ "enabled": false })] {
        mesh.configure(|c| log(c, off));
        mesh.reload();
        dial(&socket, VIP);
    }
    thread::sleep(Duration::from_millis(2500));
    mesh.configure(|c| log(c, json!({})));
    mesh.reload();
    dial(&socket, VIP);
    let newest = holds("the next one", || lines(&mesh), |lines| !lines.is_empty());
    assert_eq!(
        (newest.len(), sum(&newest)),
        (1, 1),
        "what was kept went with the log, and what was not told is not: {newest:?}"
    );
    assert_eq!(counted(&mesh, "web"), 6);
}

#[test]
fn a_daemon_that_is_away_is_no_matter_and_a_dead_one_misses_what_it_misses() {
    let world = world!();
    let _backend = world.backend("B", "10.1.0.1:8080");
    let mut web = service("web", &[OTHER], &["10.1.0.1:8080"]);
    (web["protocol"], web["when_daemon_down"]) = (json!("http"), json!("refuse"));
    let services = json!([service("empty", &[VIP], &[]), web]);
    let mut mesh = world.setup(services).with(|c| c["dataplane"]["heartbeat_timeout"] = json!("1s")).start();
    let socket = world.tcp(Domain::IPV4);
    mesh.freeze(true);
    thread::sleep(Duration::from_millis(1500));
    dial(&socket, VIP);
    dial(&socket, OTHER);
    mesh.freeze(false);
    let mut told: Vec<_> = so_many(&mesh, 2)
        .iter()
        .map(|l| [&l["service"], &l["reason"]].map(|v| v.as_str().unwrap().to_owned()))
        .collect();
    told.sort();
    assert_eq!(told, [["empty", "no_endpoint"], ["web", "daemon_down"]]);
    mesh.kill();
    (0..5000).for_each(|_| dial(&socket, VIP));
    mesh.start();
    dial(&socket, VIP);
    assert_eq!(sum(&so_many(&mesh, 1)), 1);
    // What is not told yet is when it ends, and its successor tells what comes then.
    let before = sum(&written(&mesh));
    dial(&socket, VIP);
    assert!(mesh.terminate().success());
    assert_eq!(sum(&written(&mesh)), before + 1);
    mesh.start();
    dial(&socket, VIP);
    so_many(&mesh, 1);
    mesh.take_over();
    dial(&socket, VIP);
    so_many(&mesh, 1);
    assert_eq!(counted(&mesh, "empty"), 5005, "and every one is counted");
}

#[test]
fn programs_that_log_more_tell_of_refusals_as_those_before() {
    let world = world!();
    let mesh = world.daemon(json!([service("web", &[VIP], &[])]));
    let socket = world.tcp(Domain::IPV4);
    for (count, level) in (1..).zip(["debug", "info"]) {
        let changed = mesh.cli(&["log-level", &format!("mesh_ebpf={level}")]).ended(0);
        assert!(!changed.stderr.contains("as before"), "{changed}");
        dial(&socket, VIP);
        so_many(&mesh, count);
    }
}

#[test]
fn what_the_proxy_refuses_is_a_line_of_its_own() {
    // By one worker, whose lines come in order.
    let mesh = Proxy::with(json!([http_service("empty", &[])]), |config| config["proxy"]["workers"] = json!(1));
    mesh.refuses(get("empty", "/"), 503, "no_endpoint");
    mesh.refuses("CONNECT nobody:80 HTTP/1.1\r\nhost: nobody:80\r\n\r\n", 403, "connect_forbidden");
    let all = holds("both are told", || mesh.json(&["logs"]).as_array().unwrap().clone(), |lines| lines.len() == 2);
    let told: Vec<_> =
        all.iter().map(|l| [&l["kind"], &l["path"], &l["status"], &l["reason"]].map(Value::clone)).collect();
    let expected = [("/", 503, "no_endpoint"), ("nobody:80", 403, "connect_forbidden")]
        .map(|(path, status, why)| [json!("request"), json!(path), json!(status), json!(why)]);
    assert_eq!(told, expected);
    assert!(all.iter().all(|line| line["client"].is_string() && line["connection"].is_null()), "{all:?}");
}

#[test]
fn a_captured_connection_that_is_no_http_and_finds_nobody_is_a_line_too() {
    let world = world!();
    let mut auto = service("auto", &[VIP], &[]);
    auto["protocol"] = json!("auto");
    let mesh = world.daemon(json!([auto]));
    // Once the daemon listens there it takes it before it knows what it is.
    let mut socket = eventually("it is captured", || world.dial(VIP));
    let _ = std::io::Write::write_all(&mut socket, b"\x16\x03\x01");
    let _ = socket.read(&mut [0; 16]);
    drop(socket);
    // Those before were refused in the kernel, and have no address.
    let captured = || {
        let all = mesh.json(&["logs"]);
        all.as_array().unwrap().iter().filter(|line| line["client"].is_string()).cloned().collect::<Vec<_>>()
    };
    let all = holds("it is told", captured, |lines| lines.len() == 1);
    let line = &all[0];
    assert_eq!(
        (&line["kind"], &line["service"], &line["reason"], &line["endpoint"]),
        (&json!("connection"), &json!("auto"), &json!("no_endpoint"), &Value::Null),
        "{line}"
    );
}
