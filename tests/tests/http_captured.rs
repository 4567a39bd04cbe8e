//! Connections to the VIP of an HTTP service, caught in the client's own network namespace.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{
    Backend, Cgroup, Daemon, Value, Wire, World, container::keep, daemon::Setup, eventually, get, holds, http_with,
    json, process, world,
};
use std::{
    io::{ErrorKind, Read, Write},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

const VIP: &str = "10.96.0.10:80";
const ENDPOINT: &str = "10.1.0.1:8080";

/// An endpoint in a pod, which says whose it is and which way a request came to it.
fn endpoint(pod: &World, name: &'static str) -> Backend {
    Backend::new(pod.netns(), ENDPOINT, move |stream| {
        thread::spawn(move || {
            let mut wire = Wire::over(stream);
            while let Ok(request) = wire.request() {
                let body = format!("{name} {}", request.header("via").unwrap_or("direct"));
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                if wire.stream().write_all(format!("{head}{body}").as_bytes()).is_err() {
                    return;
                }
            }
        });
    })
}

fn setup(cgroup: &Cgroup, more: &Value) -> Setup {
    let mut web = http_with("web", &[ENDPOINT], more.clone());
    web["addresses"] = json!([VIP]);
    // Nobody else is to find a proxy at the usual port.
    Setup::new(cgroup.path(), json!([web])).with(|config| config["proxy"] = json!({ "http": "", "workers": 2 }))
}

fn daemon(world: &World, more: &Value) -> Daemon {
    setup(world.cgroup(), more).start()
}

/// One request on a new connection of a pod to the VIP.
fn ask(pod: &World) -> Result<String, String> {
    let mut wire = Wire::over(pod.dial(VIP).map_err(|e| e.to_string())?.into());
    wire.try_answer_to(&get("web", "/")).map(|answer| answer.text()).map_err(|e| e.to_string())
}

/// Asks until the request is proxied: the first connection of a new namespace goes direct.
fn until_captured(pod: &World) -> String {
    eventually("connections of the pod are caught", || match ask(pod) {
        Ok(said) if said.ends_with("mesh") => Ok(said),
        other => Err(format!("{other:?}")),
    })
}

#[test]
fn clients_in_three_namespaces_each_reach_their_own_endpoint_through_the_proxy() {
    let world = world!();
    let names = ["one", "two", "three"];
    let pods: Vec<World> = names.iter().map(|name| world.pod(name)).collect();
    let _endpoints: Vec<Backend> = pods.iter().zip(names).map(|(pod, name)| endpoint(pod, name)).collect();
    let mesh = daemon(&world, &json!({}));
    for (pod, name) in pods.iter().zip(names) {
        assert!(until_captured(pod).starts_with(name), "a pod's endpoint is the one in its own namespace");
    }
    thread::scope(|scope| {
        for (pod, name) in pods.iter().zip(names) {
            scope.spawn(move || {
                let mut wire = Wire::over(pod.dial(VIP).unwrap().into());
                for _ in 0..50 {
                    assert_eq!(wire.ask(get("web", "/")).text(), format!("{name} 1.1 mesh"));
                }
            });
        }
    });
    // The kernel picked for what went past the daemon, and for nothing else.
    let endpoint = mesh.endpoint("web", ENDPOINT);
    assert!(endpoint["responses_total"].as_u64().unwrap() >= 150, "{endpoint}");
    let direct = mesh.service("web")["connects_passed_total"]["no_listener"].as_u64().unwrap_or(0);
    assert_eq!(endpoint["picked_total"], direct, "{endpoint}");
}

/// The warnings of `mesh status` that have these words.
fn warnings(mesh: &Daemon, words: &str) -> Vec<String> {
    let status = mesh.json(&["status"]);
    let all = status["warnings"].as_array().unwrap().iter().map(|warning| warning.as_str().unwrap().to_owned());
    all.filter(|warning| warning.contains(words)).collect()
}

#[test]
fn a_port_that_is_taken_in_a_pod_is_a_warning_until_it_is_free() {
    let world = world!();
    let pod = world.pod("one");
    let mut mesh = setup(world.cgroup(), &json!({})).idle();
    let port = format!("127.0.0.1:{}", mesh.config()["proxy"]["port"]);
    let taken = pod.backend("somebody", &port);
    let _endpoint = endpoint(&pod, "one");
    mesh.start();
    holds("direct", || ask(&pod), |said| *said == Ok("one direct".to_owned())).unwrap();
    let told = holds("a warning", || warnings(&mesh, &format!("{port} is taken there")), |told| told.len() == 1);
    assert!(told[0].contains(&format!("network namespace {}", pod.netns().inode())), "{told:?}");
    drop(taken);
    // It looks again when services change, and every ten seconds.
    let mut services = mesh.config()["services"].clone();
    services[0]["connect_timeout"] = json!("2s");
    mesh.set_services(services);
    assert_eq!(until_captured(&pod), "one 1.1 mesh");
    assert_eq!(warnings(&mesh, &port), [""; 0]);
}

#[test]
fn in_its_own_namespace_the_proxy_waits_for_clients_that_come_and_go() {
    let world = world!();
    let _endpoint = endpoint(&world, "world");
    // Nobody is in there but for a moment.
    let inner = world.cgroup().below("inner");
    let asks = || {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--max-time", "20", "http://10.96.0.10/"]);
        process::place(&mut curl, Some(inner.path()), Some(&**world.netns())).unwrap();
        process::run(&mut curl).stdout
    };
    let mut mesh = setup(&inner, &json!({})).in_netns(world.netns()).start();
    assert_eq!(asks(), "world 1.1 mesh", "the very first one");
    // The connection is the daemon's, which the kernel does not see where it is.
    let endpoint = mesh.endpoint("web", ENDPOINT);
    assert_eq!(["active_connections", "connections_total"].map(|name| endpoint[name].clone()), [1, 1]);
    assert!(endpoint["sent_bytes_total"].as_u64() > Some(100), "{endpoint}");
    assert!(endpoint["received_bytes_total"].as_u64() > Some(20), "{endpoint}");
    let web = mesh.config()["services"].clone();
    mesh.set_services(json!([]));
    assert_eq!(asks(), "", "nothing is there");
    mesh.set_services(web);
    assert_eq!(asks(), "world 1.1 mesh", "as soon as there is an HTTP service");
    assert_eq!(mesh.metrics().count("mesh_connects_passed_total", &[("service", "web")]), 0.0);
    // What was counted stays, also of a daemon that is killed with a connection in hand.
    let before = mesh.endpoint("web", ENDPOINT);
    mesh.kill();
    mesh.start();
    let after = mesh.endpoint("web", ENDPOINT);
    for name in ["connections_total", "sent_bytes_total", "received_bytes_total"] {
        assert_eq!(after[name], before[name], "{name}");
    }
}

#[test]
fn a_daemon_that_may_not_enter_pods_says_so() {
    let world = world!();
    let pod = world.pod("one");
    let _endpoint = endpoint(&pod, "one");
    let mut web = http_with("web", &[ENDPOINT], json!({}));
    web["addresses"] = json!([VIP]);
    // All that interception needs.
    let setup = world.setup(json!([web])).prepared(|command| keep(command, &["NET_ADMIN", "PERFMON", "BPF"]));
    let mesh = setup.start();
    assert_eq!(warnings(&mesh, "entered"), [""; 0]);
    assert_eq!(ask(&pod), Ok("one direct".to_owned()));
    let told = holds("a warning", || warnings(&mesh, "cannot be entered"), |told| told.len() == 1);
    assert!(told[0].contains("CAP_SYS_ADMIN and CAP_SYS_PTRACE"), "{told:?}");
    assert_eq!(ask(&pod), Ok("one direct".to_owned()));
}

#[test]
fn what_is_no_request_is_counted_for_the_service_that_was_dialled() {
    let world = world!();
    let pod = world.pod("pod");
    let _endpoint = endpoint(&pod, "pod");
    let mesh = daemon(&world, &json!({}));
    until_captured(&pod);
    let mut wire = Wire::over(pod.dial(VIP).unwrap().into());
    wire.send("GET / HTTP/9.9\r\n\r\n");
    assert_eq!(wire.head().unwrap().status(), 400);
    let labels = [("service", "web"), ("reason", "bad_request")];
    let rejected = || mesh.metrics().count("mesh_requests_rejected_total", &labels);
    holds("it is counted", rejected, |n| *n == 1.0);
    assert_eq!(mesh.metrics().count("http_responses_total", &[("service", "web"), ("status", "400")]), 1.0);
    let lines = holds("it is logged", || requests(&mesh), |lines| lines.iter().any(|line| line["status"] == 400));
    let line = lines.iter().find(|line| line["status"] == 400).unwrap();
    assert_eq!([&line["service"], &line["method"], &line["path"]], [&json!("web"), &Value::Null, &Value::Null]);
}

#[test]
fn a_killed_daemon_refuses_no_new_connection() {
    let world = world!();
    let pod = world.pod("pod");
    let _endpoint = endpoint(&pod, "pod");
    let mut mesh = daemon(&world, &json!({}));
    until_captured(&pod);
    mesh.kill();
    for _ in 0..20 {
        assert_eq!(ask(&pod).unwrap(), "pod direct");
    }
    mesh.start();
    until_captured(&pod);
}

#[test]
fn where_the_service_says_refuse_nothing_goes_past_the_proxy() {
    let world = world!();
    let pod = world.pod("pod");
    let endpoint = endpoint(&pod, "pod");
    let mut mesh = daemon(&world, &json!({ "when_daemon_down": "refuse" }));
    until_captured(&pod);
    mesh.kill();
    let accepted = endpoint.accepted();
    for _ in 0..5 {
        assert!(ask(&pod).is_err());
    }
    assert_eq!(endpoint.accepted(), accepted);
    mesh.start();
    until_captured(&pod);
}

#[test]
fn the_explicit_proxy_serves_on_when_nobody_is_captured_in_its_namespace_any_more() {
    let world = world!();
    let _endpoint = endpoint(&world, "world");
    let mut web = http_with("web", &[ENDPOINT], json!({}));
    web["addresses"] = json!([VIP]);
    let proxy = |config: &mut Value| config["proxy"] = json!({ "http": "127.0.0.1:3000", "workers": 2 });
    let mut mesh = world.setup(json!([web])).with(proxy).in_netns(world.netns()).start();
    until_captured(&world);
    // Nothing is captured, and the listeners for it go.
    mesh.set_services(json!([]));
    eventually("nobody listens for what is captured", || match world.dial("127.0.0.1:15001") {
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("{other:?}")),
    });
    mesh.set_services(json!([web]));
    let mut wire = Wire::over(world.dial("127.0.0.1:3000").unwrap().into());
    assert_eq!(wire.ask(get("web", "/")).text(), "world 1.1 mesh");
}

#[test]
fn a_daemon_killed_under_load_costs_only_what_it_had_in_hand() {
    let world = world!();
    let pod = world.pod("pod");
    let _endpoint = endpoint(&pod, "pod");
    let mut mesh = daemon(&world, &json!({}));
    until_captured(&pod);
    let killed = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            // Every connection is new. Those that break, of all that began before and after the daemon was gone.
            let (mut broken, mut after) = ([0, 0], 0);
            while after < 200 {
                let gone = killed.load(Ordering::SeqCst);
                broken[usize::from(gone)] += usize::from(ask(&pod).is_err());
                after += usize::from(gone);
            }
            broken
        });
        thread::sleep(Duration::from_millis(60));
        mesh.kill();
        killed.store(true, Ordering::SeqCst);
        let [before, after] = asking.join().unwrap();
        // The one that is open at the kill breaks, and a few that come while the listener dies after its connections.
        assert!(before <= 3 && after == 0, "{before} before its end, {after} after");
    });
}

#[test]
fn explain_says_who_serves_the_requests_of_a_captured_client() {
    let world = world!();
    let pod = world.pod("pod");
    let _endpoint = endpoint(&pod, "pod");
    let mesh = daemon(&world, &json!({}));
    until_captured(&pod);
    for arguments in [&["explain", VIP][..], &["explain", VIP, "--host", "web", "--path", "/x"]] {
        let explained = mesh.json(arguments);
        assert_eq!(explained["service"], "web", "{explained}");
        assert_eq!(explained["decision"], "forwarded", "{explained}");
        assert_eq!(explained["endpoints"][0]["address"], ENDPOINT, "{explained}");
    }
    assert!(mesh.json(&["status"])["interception_ok"].is_boolean(), "and the daemon still answers");
}

/// The lines of the request log.
fn requests(mesh: &Daemon) -> Vec<Value> {
    let log = mesh.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"] == "request").collect()
}

#[test]
fn a_connection_that_is_no_http_is_logged_when_it_ends_with_what_went_over_it() {
    let world = world!();
    let pod = world.pod("pod");
    let _endpoint = pod.echo(ENDPOINT);
    let mesh = daemon(&world, &json!({ "protocol": "auto", "detect_timeout": "100ms" }));
    // Nobody is captured before the daemon listens there, and direct connections are in no log.
    let lines = eventually("a connection is logged", || {
        let mut stream: std::net::TcpStream = pod.dial(VIP).unwrap().into();
        stream.write_all(b"\x16\x03 no http").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).unwrap();
        assert_eq!(text, b"\x16\x03 no http");
        // Lines come within a quarter of a second.
        thread::sleep(Duration::from_secs(1));
        let lines = requests(&mesh);
        if lines.is_empty() { Err("nothing") } else { Ok(lines) }
    });
    let line = &lines[0];
    assert_eq!((&line["service"], &line["endpoint"]), (&json!("web"), &json!(ENDPOINT)), "{line}");
    assert_eq!((&line["sent_bytes"], &line["received_bytes"], &line["attempts"]), (&json!(10), &json!(10), &json!(1)));
    assert!(line["method"].is_null() && line["status"].is_null() && line["reason"].is_null(), "{line}");
    assert!(line["duration_ms"].as_f64().unwrap() > 0.0 && line["client"].is_string(), "{line}");
    assert_eq!(lines.len(), 1, "{lines:?}");
    // One that is cut off says so.
    let stream: std::net::TcpStream = pod.dial(VIP).unwrap().into();
    (&stream).write_all(b"\x16\x03 no http").unwrap();
    (&stream).read_exact(&mut [0; 10]).unwrap();
    let socket = socket2::SockRef::from(&stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    let lines = holds("it is logged too", || requests(&mesh), |lines| lines.len() == 2);
    assert_eq!(lines[1]["reason"], "downstream_reset", "{lines:?}");
    let picks = mesh.metrics().sum("mesh_picks_total", &[("service", "web")]).unwrap_or(0.0);
    assert!(picks >= 2.0, "{picks}");
    // Its upstream connections are counted by the kernel, if at all, and not by the proxy as well.
    drop(mesh);
}

#[test]
fn a_circuit_that_requests_open_is_logged_and_counted_once_in_the_kernels_tables() {
    let world = world!();
    let pod = world.pod("pod");
    let mut breaker = json!({ "circuit_breaker": { "failure_threshold": 2, "reset_timeout": "30s", "max_open_percent": 100,
                              "probe_interval": "30s" } });
    breaker["retries"] = json!({ "attempts": 0 });
    // It keeps no connection by which a worker could go on after its end.
    let endpoint = Backend::new(pod.netns(), ENDPOINT, |stream| {
        let mut wire = Wire::over(stream);
        if let Ok(request) = wire.request() {
            let body = request.header("via").unwrap_or("direct").to_owned();
            let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = wire.stream().write_all(format!("{head}{body}").as_bytes());
        }
    });
    let mesh = daemon(&world, &breaker);
    until_captured(&pod);
    drop(endpoint);
    for _ in 0..6 {
        assert!(ask(&pod).is_ok(), "the proxy answers");
    }
    let to_open = || mesh.metrics().count("mesh_circuit_transitions_total", &[("service", "web"), ("to", "open")]);
    holds("it is counted", to_open, |n| *n > 0.0);
    let opens = |line: &&str| line.contains("circuit closed → open");
    holds("it is logged", || mesh.log(), |log| log.lines().any(|line| opens(&line)));
    thread::sleep(Duration::from_millis(300));
    assert_eq!(to_open(), 1.0);
    let log = mesh.log();
    let told: Vec<&str> = log.lines().filter(opens).collect();
    assert_eq!(told.len(), 1, "{log}");
    assert!(told[0].contains(ENDPOINT) && told[0].contains("\"web\""), "{}", told[0]);
}
