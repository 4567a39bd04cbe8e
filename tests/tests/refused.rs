//! A kernel that refuses part of what the daemon asks for: the daemon says what is missing, does without, and shows no
//! number that nobody counts.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{
    Backend, Daemon, Value, Wire, World, daemon::Setup, get, holds, http_with, json, process, refusal, refusal::Call,
    service, world,
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

const VIP: &str = "10.96.0.10:80";
const VIP6: &str = "[fd00::10]:80";
const E1: &str = "10.1.0.1:8080";
const E2: &str = "10.1.0.2:8080";
const SIX: &str = "[fd01::1]:8080";
const EPERM: &str = "Operation not permitted";

const ECHO_VIP: &str = "10.96.0.17:7";
const ECHO: &str = "10.1.0.17:7";

// enum bpf_attach_type
const CONNECT4: u32 = 10;
const ITERATOR: u32 = 28;
const PEERNAME4: u32 = 29;
const PEERNAME6: u32 = 30;
const RELEASE: u32 = 34;

// enum bpf_cmd
const LINK_UPDATE: u32 = 29;
const ENABLE_STATS: u32 = 32;

/// The programs without which a daemon does what it can.
const OPTIONAL: [&str; 4] = ["mesh_live", "mesh_peername4", "mesh_peername6", "mesh_release"];

fn web() -> Value {
    json!([service("web", &[VIP], &[E1, E2]), service("six", &[VIP6], &[SIX])])
}

fn backends(world: &World) -> [Backend; 3] {
    [("B1", E1), ("B2", E2), ("B6", SIX)].map(|(name, address)| world.backend(name, address))
}

/// A daemon whose kernel refuses these calls.
fn refusing(setup: Setup, refused: impl Fn(&Call) -> bool + Send + Sync + 'static) -> Setup {
    let refused: Arc<dyn Fn(&Call) -> bool + Send + Sync> = Arc::new(refused);
    setup.prepared(move |command| refusal::refuse(command, &refused))
}

/// Refuses these programs.
fn programs(names: &'static [&'static str]) -> impl Fn(&Call) -> bool {
    move |call| matches!(call, Call::Program(name, _) if names.contains(&name.as_str()))
}

/// Connects are balanced, and the daemon knows it.
#[track_caller]
fn balances(world: &World, mesh: &Daemon) {
    let answers: BTreeSet<String> = world.ask_times(VIP, 4).into_iter().collect();
    assert_eq!(answers, ["B1", "B2"].map(str::to_owned).into());
    assert_eq!(world.ask(VIP6).unwrap(), "B6");
    holds("a probe is translated", || mesh.json(&["status"])["interception_ok"].clone(), |ok| *ok == true);
    assert_eq!(mesh.http("GET", "/ready").status, 200);
    assert_eq!(mesh.json(&["status"])["mode"], "ebpf");
}

/// Whoever asks is told that these programs and no others are missing, and what is lost.
#[track_caller]
fn without(mesh: &Daemon, names: &[&str], lost: &str) {
    let status = mesh.json(&["status"]);
    let all = status["programs"].as_array().unwrap();
    assert_eq!(all.len(), 7, "{status:#}");
    let metrics = mesh.metrics();
    for program in all {
        let name = program["name"].as_str().unwrap();
        let missing = names.contains(&name);
        assert_eq!(program["attached"], !missing, "{program}");
        let why = program["missing_reason"].as_str().unwrap_or_default();
        assert_eq!(why.contains(EPERM), missing, "{program}");
        let attached = metrics.sum("mesh_bpf_program_attached", &[("program", name)]);
        assert_eq!(attached, Some(if missing { 0.0 } else { 1.0 }), "{name}");
    }
    let (health, log) = (mesh.http_json("/health")["components"]["dataplane"].clone(), mesh.log());
    assert_eq!(health["ok"], true, "{health}");
    assert_eq!(health["detail"].as_str().unwrap().contains("left out"), !names.is_empty(), "{health}");
    for name in names {
        let said = |text: &str| text.contains(&format!("program {name} (")) && text.contains(lost);
        let warnings = status["warnings"].as_array().unwrap();
        assert!(
            warnings.iter().any(|w| said(w.as_str().unwrap()) && w.as_str().unwrap().contains(EPERM)),
            "{status:#}"
        );
        assert!(log.lines().any(said), "{log}");
        assert!(health["detail"].as_str().unwrap().contains(name), "{health}");
    }
    mesh.cli(&["status"]).says(names).done();
}

#[test]
fn without_a_getpeername_program_applications_of_its_family_see_the_endpoint() {
    let world = world!();
    let _backends = backends(&world);
    let seen = |vip| world.connect_program(vip).done().lines().next().unwrap_or_default().to_owned();
    for (refused, expected) in [(&["mesh_peername4"], [E1, VIP6]), (&["mesh_peername6"], [VIP, SIX])] {
        let services = json!([service("web", &[VIP], &[E1]), service("six", &[VIP6], &[SIX])]);
        let mesh = refusing(world.setup(services), programs(refused)).start();
        assert_eq!([seen(VIP), seen(VIP6)], expected);
        without(&mesh, refused, "applications see the endpoint's address");
        holds("a probe is translated", || mesh.json(&["status"])["interception_ok"].clone(), |ok| *ok == true);
    }
}

#[test]
fn without_the_release_program_connects_that_could_not_be_made_are_no_number() {
    let world = world!();
    let _backends = backends(&world);
    let mut services = web();
    services.as_array_mut().unwrap().push(service("far", &["10.96.0.11:80"], &["10.2.0.1:8080"]));
    let mesh = refusing(world.setup(services), programs(&["mesh_release"])).start();
    balances(&world, &mesh);
    for _ in 0..10 {
        assert_eq!(world.dial("10.96.0.11:80").unwrap_err().raw_os_error(), Some(libc::ENETUNREACH));
    }
    without(&mesh, &["mesh_release"], "no route, no local port");
    assert_eq!(mesh.service("far")["connects_local_trouble_total"], Value::Null);
    assert_eq!(mesh.metrics().sum("mesh_connects_local_trouble_total", &[]), None);
    let far = mesh.endpoint("far", "10.2.0.1:8080");
    assert_eq!((&far["circuit"], &far["connect_failures_total"]), (&json!("closed"), &json!(0)), "no endpoint's fault");
    // All else is counted.
    assert_eq!(mesh.metrics().sum("mesh_tcp_connections_closed_total", &[("service", "web")]), Some(4.0));
    assert_eq!(mesh.metrics().count("mesh_tcp_received_bytes_total", &[("service", "web")]), 32.0);
    // Programs that log more come in the place of those that are there.
    mesh.cli(&["log-level", "mesh_ebpf=debug"]).done();
    balances(&world, &mesh);
    without(&mesh, &["mesh_release"], "no route, no local port");
}

#[test]
fn without_the_iterator_connections_are_listed_and_counted_when_they_close() {
    let world = world!();
    let _echo = world.echo(E1);
    let mesh = refusing(world.setup(json!([service("web", &[VIP], &[E1])])), programs(&["mesh_live"])).start();
    without(&mesh, &["mesh_live"], "counted when they close only");
    let mut client = world.client(VIP);
    client.exchange(100_000);
    let carried = |row: &Value| row["sent_bytes"] == 100_000 && row["received_bytes"] == 100_000;
    let rows = || mesh.json(&["connections"]).as_array().unwrap().clone();
    let rows = holds("the open one is listed", rows, |rows| rows.len() == 1 && carried(&rows[0]));
    assert_eq!(rows[0]["client"]["pid"], client.pid());
    let bytes = || ["sent_bytes_total", "received_bytes_total"].map(|key| mesh.endpoint("web", E1)[key].clone());
    assert_eq!(bytes(), [json!(0), json!(0)], "as every status says");
    drop(client);
    holds("it counts", bytes, |bytes| *bytes == [json!(100_000), json!(100_000)]);
}

/// A kernel that refuses nothing, or what a test says, from one start of a daemon to the next.
type Mood = Arc<Mutex<fn(&Call) -> bool>>;

fn moody(setup: Setup) -> (Setup, Mood) {
    let mood: Mood = Arc::new(Mutex::new(|_| false));
    let judge = Arc::clone(&mood);
    (refusing(setup, move |call| (judge.lock().unwrap())(call)), mood)
}

fn picked(mesh: &Daemon) -> u64 {
    [E1, E2].map(|endpoint| mesh.endpoint("web", endpoint)["picked_total"].as_u64().unwrap()).iter().sum()
}

#[test]
fn what_a_daemon_cannot_attach_it_does_without_and_the_next_one_may() {
    let world = world!();
    let _backends = backends(&world);
    let (setup, mood) = moody(world.setup(web()));
    let mut mesh = setup.idle();
    *mood.lock().unwrap() = |call| matches!(call, Call::Link(ITERATOR | PEERNAME4 | PEERNAME6 | RELEASE));
    mesh.start();
    balances(&world, &mesh);
    without(&mesh, &OPTIONAL, "");
    assert_eq!(world.cgroup().attached_programs(), 3);
    mesh.terminate();
    *mood.lock().unwrap() = |_| false;
    mesh.start();
    balances(&world, &mesh);
    without(&mesh, &[], "");
    assert_eq!(world.cgroup().attached_programs(), 6);
    mesh.terminate();
    // What an earlier daemon's program did is not done by anybody: it would work on what may be others' tables.
    *mood.lock().unwrap() = |call| programs(&OPTIONAL)(call);
    mesh.start();
    balances(&world, &mesh);
    without(&mesh, &OPTIONAL, "");
    assert_eq!(world.cgroup().attached_programs(), 3);
    assert_eq!(picked(&mesh), 12, "counters go on");
}

#[test]
fn where_nothing_can_be_intercepted_mode_ebpf_ends_with_the_remedy_and_leaves_nothing() {
    let world = world!();
    type Refused = Box<dyn Fn(&Call) -> bool + Send + Sync>;
    let cases: [(Refused, &str); 8] = [
        (Box::new(programs(&["mesh_connect4"])), "program mesh_connect4 (cgroup/connect4)"),
        (Box::new(programs(&["mesh_connect6"])), "program mesh_connect6 (cgroup/connect6)"),
        (Box::new(programs(&["mesh_sock_ops"])), "program mesh_sock_ops (sock_ops)"),
        (Box::new(|call| matches!(call, Call::Program(..))), "lets this process load no eBPF program"),
        // As in a container with the usual seccomp profile.
        (Box::new(|_| true), "lets this process load no eBPF program"),
        (Box::new(|call| matches!(call, Call::Map(name) if name == "VIPS")), "failed to create map `VIPS`"),
        (Box::new(|call| *call == Call::Link(CONNECT4)), "attaching mesh_connect4 to the cgroup"),
        (Box::new(|call| matches!(call, Call::Link(_))), "attaching mesh_sock_ops to the cgroup"),
    ];
    for (refused, why) in cases {
        let setup = world.setup(web()).with(|c| c["dataplane"]["mode"] = json!("ebpf"));
        let mut mesh = refusing(setup, refused).idle();
        mesh.spawn();
        assert_eq!(mesh.wait().code(), Some(1), "{why}: {}", mesh.log());
        let log = mesh.log();
        let said = log.lines().find(|line| line.starts_with("mesh: dataplane.mode ebpf: ")).unwrap_or_default();
        for word in [why, EPERM, "mesh check", "dataplane.mode userspace"] {
            assert!(said.contains(word), "{word}: {log}");
        }
        assert_eq!(mesh.left_behind(), (Vec::new(), 0), "{why}");
    }
}

#[test]
fn where_runs_are_not_counted_none_are_shown() {
    let world = world!();
    let _backends = backends(&world);
    let setup = world.setup(web()).with(|c| c["dataplane"]["program_stats"] = json!(true));
    let mesh = refusing(setup, |call| *call == Call::Other(ENABLE_STATS)).start();
    balances(&world, &mesh);
    without(&mesh, &[], "");
    let status = mesh.json(&["status"]);
    assert!(status["programs"].as_array().unwrap().iter().all(|p| p["runs"].is_null() && p["mean_ns"].is_null()));
    assert_eq!(status["warnings"].as_array().unwrap().len(), 1, "{status:#}");
    assert!(status["warnings"][0].as_str().unwrap().contains("switching program statistics on"), "{status:#}");
    assert_eq!(mesh.metrics().sum("mesh_bpf_program_runs_total", &[]), None);
}

/// What only the kernel counts.
const OF_THE_KERNEL: [&str; 7] = [
    "mesh_tcp_connects_refused_total",
    "mesh_connects_passed_total",
    "mesh_connects_local_trouble_total",
    "mesh_connects_untracked_total",
    "mesh_endpoint_picked_total",
    "mesh_tcp_retransmits_total",
    "mesh_bpf_program_attached",
];

#[test]
fn where_nothing_can_be_intercepted_mode_auto_serves_requests_and_says_that_it_does_no_more() {
    let world = world!();
    let _http = Backend::new(world.netns(), E1, |stream| {
        let mut wire = Wire::over(stream);
        if wire.request().is_ok() {
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nB1");
        }
    });
    type Refused = Box<dyn Fn(&Call) -> bool + Send + Sync>;
    let cases: [(Refused, &str); 2] = [
        (Box::new(|call| matches!(call, Call::Program(..))), "load no eBPF program"),
        (Box::new(|call| *call == Call::Link(CONNECT4)), "mesh_connect4"),
    ];
    for (refused, why) in cases {
        let web = http_with("web", &[E1], json!({ "addresses": [VIP] }));
        let services = json!([web, service("db", &["10.96.0.11:80"], &[E2])]);
        let mut mesh = refusing(world.setup(services).in_netns(world.netns()), refused).idle();
        mesh.spawn();
        mesh.wait_for("/health", 200);
        let ask = || world.dial("127.0.0.1:3000").map(|s| Wire::over(s.into()).ask(get("web", "/")).text());
        let _ = holds("requests are served", || ask().map_err(|e| e.to_string()), |said| *said == Ok("B1".to_owned()));
        assert_eq!(world.dial(VIP).unwrap_err().raw_os_error(), Some(libc::ENETUNREACH));
        let ready = mesh.http("GET", "/ready");
        assert_eq!((ready.status, ready.body.contains(why)), (503, true), "{ready:?}");
        let status = mesh.json(&["status"]);
        assert_eq!((&status["mode"], &status["interception_ok"]), (&json!("userspace"), &json!(false)));
        let dataplane = mesh.http_json("/health")["components"]["dataplane"].clone();
        assert_eq!(dataplane["ok"], false);
        assert!(dataplane["detail"].as_str().unwrap().contains(why), "{dataplane}");
        for name in ["web", "db"] {
            let service = mesh.service(name);
            assert!(service["not_intercepted_reason"].as_str().unwrap().contains(why), "{service}");
            for field in ["connects_local_trouble_total", "connects_refused_total", "retransmits_total"] {
                assert_eq!(service.get(field), Some(&Value::Null), "{field}: {service}");
            }
        }
        let metrics = mesh.metrics();
        for name in OF_THE_KERNEL {
            assert_eq!(metrics.sum(name, &[]), None, "{name}");
        }
        assert_eq!(metrics.sum("mesh_interception_ok", &[]), Some(0.0));
        assert_eq!(metrics.sum("mesh_tcp_connections_opened_total", &[("service", "web")]), Some(1.0), "by the proxy");
        assert!(mesh.log().contains("no connection is intercepted, running as dataplane.mode userspace"));
        assert_eq!(mesh.left_behind(), (Vec::new(), 0));
    }
}

#[test]
fn what_an_earlier_daemon_attached_goes_on_under_one_that_can_attach_nothing() {
    let world = world!();
    let _backends = backends(&world);
    let (setup, mood) = moody(world.setup(web()));
    let mut mesh = setup.start();
    balances(&world, &mesh);
    let moods: [fn(&Call) -> bool; 2] =
        [|call| matches!(call, Call::Program(..)), |call| matches!(call, Call::Link(_) | Call::Other(LINK_UPDATE))];
    for (refused, expected) in moods.into_iter().zip([8, 12]) {
        mesh.terminate();
        *mood.lock().unwrap() = refused;
        mesh.spawn();
        mesh.wait_for("/health", 200);
        let answers: BTreeSet<String> = world.ask_times(VIP, 4).into_iter().collect();
        assert_eq!(answers, ["B1", "B2"].map(str::to_owned).into(), "they translate on");
        let status = mesh.json(&["status"]);
        assert_eq!(status["mode"], "userspace");
        let warnings = status["warnings"].to_string();
        assert!(warnings.contains("programs of an earlier daemon are still attached"), "{status:#}");
        assert_eq!(world.cgroup().attached_programs(), 6);
        mesh.terminate();
        *mood.lock().unwrap() = |_| false;
        mesh.start();
        assert_eq!(picked(&mesh), expected, "and count on");
        let closed = || mesh.metrics().count("mesh_tcp_connections_closed_total", &[("service", "web")]);
        holds("all of it", closed, |closed| *closed == expected as f64);
    }
}

#[test]
fn what_the_btf_does_not_show_is_named_and_the_rest_works() {
    let world = world!();
    let (_backends, _echo) = (backends(&world), world.echo(ECHO));
    let names: [&[&str]; 7] = [
        &[],
        &["sk_err"],
        &["sk_shutdown"],
        &["skc_flags"],
        &["write_seq"],
        &["skc_ipv6only"],
        &["snd_una", "srtt_us"],
    ];
    for hidden in names {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().to_owned();
        let mut services = web();
        services.as_array_mut().unwrap().push(service("echo", &[ECHO_VIP], &[ECHO]));
        let mesh = world.setup(services).prepared(move |command| refusal::hide(command, hidden, &path)).start();
        balances(&world, &mesh);
        let mut client = world.client(ECHO_VIP);
        client.exchange(1000);
        let listed = || mesh.json(&["connections", "--service", "echo"]).as_array().unwrap().clone();
        let rows = holds("an open one is listed", listed, |rows| rows.len() == 1 && rows[0]["sent_bytes"] == 1000);
        assert_eq!(rows[0]["client"]["pid"], client.pid(), "{hidden:?}");
        let active = || mesh.endpoint("echo", ECHO)["active_connections"].clone();
        assert_eq!(active(), json!(1), "{hidden:?}");
        drop(client);
        let status = mesh.json(&["status"]);
        let warnings = status["warnings"].as_array().unwrap();
        let warned = |name: &str| {
            warnings
                .iter()
                .any(|w| w.as_str().unwrap().starts_with(&format!("the kernel's BTF does not show {name}: ")))
        };
        match hidden {
            // The iterator finds its place by the BTF.
            [] => {
                assert!(["sk_err", "skc_ipv6only", "snd_una"].into_iter().all(warned), "{status:#}");
                let live = mesh_tests::ask::find(&status["programs"], "name", "mesh_live");
                assert_eq!(live["attached"], false);
            }
            fields => {
                // The iterator needs what tells whether all was acknowledged, and all that it shows.
                let live = ["write_seq", "snd_una"].iter().any(|field| fields.contains(field));
                let left_out =
                    |w: &Value| w.as_str().unwrap().starts_with("program mesh_live (iter/tcp) is left out: ");
                assert_eq!(warnings.iter().any(left_out), live, "{status:#}");
                assert!(fields.iter().all(|f| warned(f)), "{status:#}");
                assert_eq!(warnings.len(), fields.len() + usize::from(live), "{status:#}");
            }
        }
        // None of this machine's connections is cut off, so none is counted short.
        let count = |name: &str| mesh.metrics().count(name, &[("service", "web")]);
        holds("bytes are counted", || count("mesh_tcp_received_bytes_total"), |n| *n == 32.0);
        assert_eq!(count("mesh_tcp_connections_closed_total"), 4.0);
    }
}

#[test]
fn check_tells_what_is_refused_and_whether_that_matters() {
    let world = world!();
    let mesh = world.setup(web()).idle();
    let check = |refused: Arc<dyn Fn(&Call) -> bool + Send + Sync>, code| {
        let mut command = mesh.command(&["check", "-o", "json"]);
        refusal::refuse(&mut command, &refused);
        let said: Value = process::run(&mut command).ended(code).stdout.parse().unwrap();
        said
    };
    let failed = |check: &Value| -> Vec<(String, bool)> {
        let findings = check["findings"].as_array().unwrap().iter().filter(|f| f["ok"] == false);
        findings.map(|f| (f["check"].as_str().unwrap().to_owned(), f["required"] == true)).collect()
    };
    let optional = check(Arc::new(programs(&OPTIONAL)), 0);
    let expected: BTreeSet<_> = OPTIONAL.map(|name| (format!("program {name}"), false)).into();
    let seen = failed(&optional);
    assert_eq!(seen.iter().cloned().collect::<BTreeSet<_>>(), expected, "{optional:#}");
    assert_eq!(seen.len(), expected.len(), "each once");
    let required = check(Arc::new(programs(&["mesh_connect6"])), 1);
    assert!(failed(&required).contains(&("program mesh_connect6".to_owned(), true)), "{required:#}");
    let nothing = check(Arc::new(|call| matches!(call, Call::Program(..))), 1);
    let maps = mesh_tests::ask::find(&nothing["findings"], "check", "maps");
    assert!(maps["detail"].as_str().unwrap().contains("load no eBPF program"), "{maps}");
    assert_eq!(mesh.left_behind(), (Vec::new(), 0));
}
