//! What is seen of requests: metrics, circuits, listings and explanations, without a kernel program.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Backend, Daemon, Value, World, holds, json, metrics::Metrics, service, world};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

const PROXY: &str = "127.0.0.1:3000";
const VIP: &str = "10.96.0.10:80";
const E1: &str = "10.1.0.1:8080";
const E2: &str = "10.1.0.2:8080";
/// Where nobody listens.
const GONE: &str = "10.1.0.9:8080";

/// A backend that answers `/status/N` with that status, anything else with 200, and says its name.
fn backend(world: &World, name: &'static str, address: &str) -> Backend {
    Backend::new(world.netns(), address, move |stream| {
        thread::spawn(move || serve(name, &stream));
    })
}

fn serve(name: &str, stream: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
            if line == "\r\n" {
                break;
            }
            head.push(line.to_ascii_lowercase());
        }
        let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
        reader.read_exact(&mut vec![0; length.unwrap_or(0)]).ok()?;
        let path = head.first()?.split(' ').nth(1)?;
        let status = path.strip_prefix("/status/").unwrap_or("200");
        let body = format!("I am {name}\n");
        let length = body.len();
        (&*stream)
            .write_all(format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n{body}").as_bytes())
            .ok()?;
    }
}

/// An HTTP service.
fn http(name: &str, endpoints: &[&str]) -> Value {
    let mut service = service(name, &[], endpoints);
    service["protocol"] = json!("http");
    service
}

/// A daemon in userspace mode with these services, once its proxy serves.
fn daemon(world: &World, services: Value) -> Daemon {
    let setup = world.setup(services).in_netns(world.netns()).with(|c| c["dataplane"]["mode"] = json!("userspace"));
    let mut mesh = setup.idle();
    mesh.spawn();
    mesh.wait_for("/health", 200);
    let components = || mesh.http_json("/health")["components"].clone();
    holds("the proxy serves", components, |c| c["workers"]["ok"] == true && c["explicit_proxy"]["ok"] == true);
    mesh
}

/// A request through the explicit proxy: the status, and what the answer says.
fn ask(world: &World, method: &str, host: &str, path: &str) -> (u16, String) {
    let proxy: SocketAddr = PROXY.parse().unwrap();
    let mut stream = world.netns().enter(|| TcpStream::connect(proxy)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no HTTP: {answer:?}")), answer)
}

fn ask_times(world: &World, n: usize, method: &str, host: &str, path: &str, status: u16) {
    for _ in 0..n {
        let (found, answer) = ask(world, method, host, path);
        assert_eq!(found, status, "{method} {host} {path}: {answer}");
    }
}

/// Waits until a counter is exactly `n`.
fn counted(mesh: &Daemon, name: &str, labels: &[(&str, &str)], n: u32) {
    holds(&format!("{name} {labels:?} is {n}"), || mesh.metrics().count(name, labels), |found| *found == f64::from(n));
}

#[test]
fn requests_of_every_kind_are_counted_exactly() {
    let world = world!();
    let _backend = backend(&world, "B1", E1);
    let mut routed = http("routed", &[E1]);
    routed["routes"] = json!([
        { "match": { "path": "/away" }, "redirect": { "host": "elsewhere" } },
        { "match": { "path_prefix": "/web" }, "to": [{ "service": "web", "weight": 1 }] },
    ]);
    let mesh = daemon(&world, json!([http("web", &[E1]), http("idle", &[E1]), http("empty", &[]), routed]));
    ask_times(&world, 12, "GET", "web", "/", 200);
    ask_times(&world, 5, "POST", "web", "/", 200);
    ask_times(&world, 1, "BREW", "web", "/", 200);
    ask_times(&world, 3, "GET", "web", "/status/404", 404);
    ask_times(&world, 2, "GET", "web", "/status/503", 503);
    ask_times(&world, 4, "GET", "nobody", "/", 404);
    ask_times(&world, 6, "GET", "empty", "/", 503);
    ask_times(&world, 1, "GET", "routed", "/away", 302);
    ask_times(&world, 2, "GET", "routed", "/nowhere", 404);
    ask_times(&world, 7, "GET", "routed", "/web/x", 200);

    // The last thing that is counted of a request is how long it took.
    counted(&mesh, "http_request_duration_seconds_count", &[("service", "web")], 30);
    counted(&mesh, "http_request_duration_seconds_count", &[("service", "empty")], 6);
    counted(&mesh, "http_request_duration_seconds_count", &[("service", "routed")], 3);
    let text = mesh.http("GET", "/metrics").body;
    let metrics = Metrics::parse(&text);
    let is = |name: &str, labels: &[(&str, &str)], n: u32| {
        assert_eq!(metrics.sum(name, labels), Some(f64::from(n)), "{name} {labels:?}\n{text}");
    };
    is("http_requests_total", &[("service", "web"), ("method", "GET")], 24);
    is("http_requests_total", &[("service", "web"), ("method", "POST")], 5);
    is("http_requests_total", &[("service", "web"), ("method", "other")], 1);
    is("http_requests_total", &[("service", "routed")], 3);
    is("http_responses_total", &[("service", "web"), ("endpoint", E1), ("status", "200")], 25);
    is("http_responses_total", &[("service", "web"), ("endpoint", E1), ("status", "404")], 3);
    is("http_responses_total", &[("service", "web"), ("endpoint", E1), ("status", "503")], 2);
    is("http_responses_total", &[("service", "web")], 30);
    is("http_responses_total", &[("service", "empty"), ("endpoint", ""), ("status", "503")], 6);
    is("http_responses_total", &[("service", "routed"), ("endpoint", ""), ("status", "302")], 1);
    is("http_responses_total", &[("service", "routed"), ("endpoint", ""), ("status", "404")], 2);
    is("mesh_requests_rejected_total", &[("service", ""), ("reason", "unknown_service")], 4);
    is("mesh_requests_rejected_total", &[("service", "empty"), ("reason", "no_endpoint")], 6);
    is("mesh_requests_rejected_total", &[("service", "routed"), ("reason", "no_route")], 2);
    is("mesh_requests_rejected_total", &[("service", "routed"), ("reason", "redirect")], 1);
    is("mesh_requests_active", &[("service", "web")], 0);
    is("mesh_retries_total", &[("service", "web")], 0);
    let requests = |of: &str| text.lines().filter(|l| l.starts_with("http_") && l.contains(of)).count();
    assert_eq!(requests("\"idle\""), 0, "a service that was never asked costs nothing:\n{text}");
    for sample in metrics.samples() {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|s| sample.name.strip_suffix(s));
        let typed = |name: &str| text.contains(&format!("# TYPE {name} "));
        assert!(typed(&sample.name) || base.is_some_and(typed), "# TYPE of {}", sample.name);
    }

    let web = mesh.service("web");
    assert_eq!(
        (&web["protocol"], &web["requests_total"], &web["active_requests"]),
        (&json!("http"), &json!(30), &json!(0))
    );
    let endpoint = mesh.endpoint("web", E1);
    assert_eq!(endpoint["active_requests"], 0);
    assert!(endpoint["latency_ewma_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{endpoint}");
    assert_eq!(mesh.endpoint("idle", E1)["latency_ewma_ms"], Value::Null);
    assert_eq!(mesh.service("routed")["requests_rejected_total"], json!({ "no_route": 2, "redirect": 1 }));
}

#[test]
fn a_request_on_its_way_is_active_and_its_connections_are_open() {
    let world = world!();
    let slow = Backend::new(world.netns(), E1, |stream| {
        thread::spawn(move || {
            // Until the client gives up.
            let _ = (&stream).read_to_end(&mut Vec::new());
        });
    });
    let mesh = daemon(&world, json!([http("web", &[E1])]));
    let proxy: SocketAddr = PROXY.parse().unwrap();
    let mut client = world.netns().enter(|| TcpStream::connect(proxy)).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").unwrap();
    counted(&mesh, "mesh_requests_active", &[("service", "web")], 1);
    counted(&mesh, "mesh_upstream_connections", &[("service", "web")], 1);
    counted(&mesh, "mesh_downstream_connections", &[], 1);
    holds("the backend has it", || slow.accepted(), |n| *n == 1);
    assert_eq!(mesh.endpoint("web", E1)["active_requests"], 1);
    assert_eq!(mesh.service("web")["active_requests"], 1);
    assert_eq!(mesh.json(&["status"])["proxy"]["connections"], 1);
    drop(client);
    counted(&mesh, "mesh_downstream_connections", &[], 0);
    counted(&mesh, "mesh_requests_active", &[("service", "web")], 0);
}

#[test]
fn circuits_open_by_themselves_and_obey_operators_without_a_kernel() {
    let world = world!();
    let (_b1, _b2) = (backend(&world, "B1", E1), backend(&world, "B2", E2));
    let mesh = daemon(&world, json!([http("web", &[E1, E2, GONE])]));
    let state = |at: &str| mesh.metrics().sum("mesh_circuit_state", &[("service", "web"), ("endpoint", at)]);
    let circuit = |at: &str| mesh_tests::ask::find(&mesh.json(&["circuit", "list", "web"]), "endpoint", at);
    assert_eq!([E1, E2, GONE].map(state), [Some(0.0); 3]);
    // One of three tries meets nobody, and is made again elsewhere.
    ask_times(&world, 30, "GET", "web", "/", 200);
    assert_eq!([E1, E2, GONE].map(state), [Some(0.0), Some(0.0), Some(2.0)]);
    let opened = [("service", "web"), ("endpoint", GONE), ("to", "open")];
    counted(&mesh, "mesh_circuit_transitions_total", &opened, 1);
    counted(&mesh, "mesh_retries_total", &[("service", "web"), ("outcome", "success")], 5);
    let open = circuit(GONE);
    assert_eq!(
        (&open["state"], &open["consecutive_failures"], &open["forced"]),
        (&json!("open"), &json!(5), &json!(false))
    );
    assert!(open["retry_at"].is_string(), "{open}");
    assert_eq!(mesh.endpoint("web", GONE)["circuit"], "open");
    assert_eq!(mesh.service("web")["endpoints"]["open"], 1);
    mesh.cli(&["circuit", "reset", "web", GONE]).says(&["is closed"]).done();
    assert_eq!((circuit(GONE)["state"].clone(), state(GONE)), (json!("closed"), Some(0.0)));
    mesh.cli(&["circuit", "reset", "web", GONE]).ended(1).refused(&["nothing to reset"]);

    mesh.cli(&["endpoints", "drain", "web", GONE]).done();
    mesh.cli(&["circuit", "trip", "web", E1]).done();
    assert_eq!((circuit(E1)["state"].clone(), circuit(E1)["forced"].clone()), (json!("open"), json!(true)));
    let who = |n: usize| -> Vec<String> {
        (0..n)
            .map(|_| ask(&world, "GET", "web", "/").1.trim_end().rsplit(' ').next().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(who(6), ["B2"; 6]);
    mesh.cli(&["circuit", "trip", "web", E2]).done();
    assert_eq!(ask(&world, "GET", "web", "/").0, 503);
    counted(&mesh, "mesh_requests_rejected_total", &[("service", "web"), ("reason", "circuit_open")], 1);
    mesh.cli(&["circuit", "reset", "web"]).done();
    mesh.cli(&["endpoints", "weight", "web", E1, "0"]).done();
    assert_eq!(who(4), ["B2"; 4]);
    mesh.cli(&["endpoints", "weight", "web", E1, "1"]).done();
    mesh.cli(&["lb", "set", "web", "peak_ewma"]).done();
    assert_eq!(mesh.service("web")["policy"], "peak_ewma");

    mesh.cli(&["endpoints", "undrain", "web", GONE]).done();
    mesh.cli(&["lb", "set", "web", "round_robin"]).done();
    mesh.cli(&["circuit", "set", "web", "--failure-threshold", "1"]).done();
    ask_times(&world, 6, "GET", "web", "/", 200);
    assert_eq!(circuit(GONE)["state"], "open", "one failure is enough now");
}

#[test]
fn a_circuit_that_goes_with_its_endpoint_leaves_its_place_to_others() {
    let world = world!();
    let _b1 = backend(&world, "B1", E1);
    let mut mesh = daemon(&world, json!([http("web", &[E1, GONE])]));
    mesh.cli(&["circuit", "set", "web", "--failure-threshold", "1"]).done();
    ask_times(&world, 4, "GET", "web", "/", 200);
    assert_eq!(mesh.endpoint("web", GONE)["circuit"], "open");
    // Of two endpoints one may be open: there is a place for the next one only if the last has left it.
    let gone_too = "10.1.0.8:8080";
    mesh.set_services(json!([http("web", &[E1, gone_too])]));
    ask_times(&world, 4, "GET", "web", "/", 200);
    assert_eq!(mesh.endpoint("web", gone_too)["circuit"], "open");
}

#[test]
fn explain_says_which_route_a_request_takes_and_why() {
    let world = world!();
    let mut web = http("web", &[E1, E2]);
    web["addresses"] = json!([VIP]);
    web["hosts"] = json!(["web.internal"]);
    web["routes"] = json!([
        { "match": { "path_prefix": "/v2", "headers": { "x-canary": "1" } }, "to": [{ "service": "new", "weight": 1 }] },
        { "match": { "path_prefix": "/v2" },
          "to": [{ "service": "new", "weight": 1 }, { "service": "web", "weight": 3 }], "rewrite": { "path_prefix": "/" } },
        { "match": { "path": "/old" }, "redirect": { "status": 301, "path": "/v2" } },
        { "match": { "host": "web.internal" } },
    ]);
    let tcp = service("db", &["10.96.0.20:5432"], &[E1]);
    let mesh = daemon(&world, json!([web, http("new", &[GONE]), tcp]));
    let explain = |options: &[&str]| mesh.json(&[&["explain", PROXY][..], options].concat());
    let told = explain(&["--host", "web", "--path", "/v2/x"]);
    assert_eq!(
        (&told["service"], &told["decision"], &told["policy"]),
        (&json!("web"), &json!("forwarded"), &json!("round_robin"))
    );
    assert_eq!(told["route"], "2: path_prefix /v2");
    let text = told["explanation"].as_str().unwrap();
    for part in [
        "25 % to one of 1 endpoint of new",
        "75 % to one of 2 endpoints of web",
        "its path becomes /x",
        "route 1 is not for it, which wants header x-canary: 1",
    ] {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
    let shares: Vec<(&str, &str, f64)> = told["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["service"].as_str().unwrap(), e["address"].as_str().unwrap(), e["share"].as_f64().unwrap()))
        .collect();
    assert_eq!(shares, [("new", GONE, 0.25), ("web", E1, 0.375), ("web", E2, 0.375)]);
    mesh.cli(&["explain", PROXY, "--host", "web", "--path", "/v2/x"])
        .says(&["2: path_prefix /v2", "new", "25 %"])
        .done();

    let told = explain(&["--host", "web.internal:3000", "--path", "/"]);
    assert_eq!((&told["service"], &told["route"]), (&json!("web"), &json!("4: host web.internal")));
    let told = explain(&["--host", "web", "--path", "/old"]);
    assert_eq!((&told["decision"], &told["reason"]), (&json!("answered"), &json!("redirect")));
    let told = explain(&["--host", "web", "--path", "/nothing"]);
    assert_eq!((&told["decision"], &told["reason"]), (&json!("refused"), &json!("no_route")));
    let told = explain(&["--host", "nobody"]);
    assert_eq!(
        (&told["decision"], &told["reason"], &told["service"]),
        (&json!("refused"), &json!("unknown_service"), &Value::Null)
    );
    // A VIP is a name of its service too, where nothing is intercepted.
    let told = mesh.json(&["explain", VIP, "--path", "/v2"]);
    assert_eq!((&told["service"], &told["route"]), (&json!("web"), &json!("2: path_prefix /v2")));
    let told = mesh.json(&["explain", VIP]);
    assert_eq!((&told["decision"], &told["reason"]), (&json!("passed"), &json!("not_intercepted")));
    assert!(told["explanation"].as_str().unwrap().contains(PROXY), "{told:#}");
    for refused in [&["explain", "10.96.0.20:5432", "--path", "/"][..], &["explain", PROXY, "--host", "db"]] {
        mesh.cli(refused).ended(1).refused(&["db is a tcp service", "protocol: http"]);
    }
    mesh.cli(&["explain", VIP, "--path", "v2"]).ended(1).refused(&["path: expected one that begins with /", "\"v2\""]);
    mesh.cli(&["circuit", "trip", "web"]).done();
    mesh.cli(&["endpoints", "drain", "new", GONE]).done();
    let told = explain(&["--host", "web.internal", "--path", "/"]);
    assert_eq!((&told["decision"], &told["reason"]), (&json!("refused"), &json!("circuit_open")));
    assert_eq!(told["endpoints"][0]["reason"], "its circuit is held open by an operator");
}

/// Numbers of a service, and of its endpoints, that only programs in the kernel count.
const OF_THE_KERNEL: [&str; 4] =
    ["retransmits_total", "connects_refused_total", "connects_passed_total", "connects_local_trouble_total"];

#[test]
fn what_nobody_counts_in_userspace_mode_is_null_and_a_dash() {
    let world = world!();
    let _b1 = backend(&world, "B1", E1);
    let mesh = daemon(&world, json!([http("web", &[E1]), service("db", &["10.96.0.20:5432"], &[E1])]));
    ask_times(&world, 3, "GET", "web", "/", 200);
    for name in ["web", "db"] {
        let service = mesh.service(name);
        for field in OF_THE_KERNEL {
            assert_eq!(service.get(field), Some(&Value::Null), "{field}: {service}");
        }
        let endpoint = mesh.endpoint(name, E1);
        for field in ["retransmits_total", "picked_total"] {
            assert_eq!(endpoint.get(field), Some(&Value::Null), "{field}: {endpoint}");
        }
    }
    // What the proxy counts is told beside it.
    assert_eq!(mesh.endpoint("web", E1)["responses_total"], 3);
    assert!(mesh.service("web")["connections_total"].as_u64().unwrap() > 0);
    let table = mesh.cli(&["endpoints", "web"]).ended(0).stdout;
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let (titles, row) = (lines.next().unwrap(), lines.next().unwrap());
    // Before it stand no words of two parts, unlike behind it.
    let at = titles.iter().position(|title| *title == "SENT").unwrap();
    let again = titles.iter().position(|title| *title == "RETRANSMITS").unwrap();
    assert_eq!(row[again + 2], "-", "bytes are two words: {table}");
    assert_eq!(again, at + 2, "{table}");
}

#[test]
fn userspace_mode_says_how_services_are_reached_and_is_not_ready() {
    let world = world!();
    let _b1 = backend(&world, "B1", E1);
    let mut web = http("web", &[E1]);
    web["addresses"] = json!([VIP]);
    let mut mesh = daemon(&world, json!([web, service("db", &["10.96.0.20:5432"], &[E1])]));
    ask_times(&world, 1, "GET", "web", "/", 200);
    let status = mesh.json(&["status"]);
    assert_eq!((&status["mode"], &status["interception_ok"]), (&json!("userspace"), &json!(false)));
    assert_eq!((&status["proxy"]["http"], &status["proxy"]["workers_ok"]), (&json!(PROXY), &json!(true)));
    mesh.cli(&["status"]).says(&["requests at 127.0.0.1:3000"]).done();
    let why = |name: &str| mesh.service(name)["not_intercepted_reason"].as_str().unwrap_or_default().to_owned();
    assert!(why("web").contains("proxy.http 127.0.0.1:3000"), "{}", why("web"));
    assert!(!why("db").contains("proxy.http") && why("db").contains("userspace"), "{}", why("db"));
    let ready = mesh.http("GET", "/ready");
    assert_eq!(ready.status, 503);
    assert!(ready.body.contains("no programs are attached") && ready.body.contains(PROXY), "{}", ready.body);

    // Stopped in their tracks they are found silent, as soon as anybody looks.
    mesh.freeze(true);
    thread::sleep(Duration::from_millis(3500));
    mesh.freeze(false);
    holds("workers live again", || mesh.http_json("/health")["components"]["workers"]["ok"].clone(), |ok| *ok == true);
    assert!(mesh.terminate().success());

    // Nobody's port: the daemon runs without an explicit proxy, and says so.
    let taken = Backend::identity("TAKEN", world.netns(), PROXY);
    mesh.spawn();
    mesh.wait_for("/health", 200);
    let proxy = || mesh.http_json("/health")["components"]["explicit_proxy"].clone();
    holds("the proxy tells", proxy, |c| c["ok"] == false && c["detail"].as_str().is_some_and(|d| d.contains(PROXY)));
    assert_eq!(mesh.json(&["status"])["proxy"]["http"], Value::Null);
    mesh.cli(&["status"]).says(&["NOT at proxy.http"]).done();
    drop(taken);
}

#[test]
fn without_a_kernel_the_proxy_counts_bytes_and_picks_of_requests_and_tunnels() {
    let world = world!();
    let _backend = backend(&world, "one", E1);
    let mut web = http("web", &[E1]);
    web["load_balancing"] = json!({ "policy": "peak_ewma" });
    let mesh = daemon(&world, json!([web]));
    let count = |name| mesh.metrics().count(name, &[("service", "web"), ("endpoint", E1)]);
    assert_eq!([count("mesh_tcp_sent_bytes_total"), count("mesh_tcp_received_bytes_total")], [0.0; 2]);
    let mut stream = world.dial(PROXY).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").unwrap();
    let mut answer = [0; 1024];
    let n = stream.read(&mut answer).unwrap();
    assert!(n > 0);
    // What the endpoint sent: the head of `serve` and its body.
    let answered = "HTTP/1.1 200 x\r\ncontent-length: 9\r\n\r\nI am one\n".len();
    holds("bytes are counted", || count("mesh_tcp_received_bytes_total"), |n| *n == answered as f64);
    let asked = count("mesh_tcp_sent_bytes_total");
    assert!(asked > 60.0, "a head with what the proxy adds: {asked}");
    let mut tunnel = world.dial(PROXY).unwrap();
    tunnel.write_all(b"CONNECT web:80 HTTP/1.1\r\nhost: web:80\r\n\r\n").unwrap();
    let n = tunnel.read(&mut answer).unwrap();
    assert!(answer[..n].starts_with(b"HTTP/1.1 200"));
    let request = b"GET / HTTP/1.1\r\n\r\n";
    tunnel.write_all(request).unwrap();
    let n = tunnel.read(&mut answer).unwrap();
    assert_eq!(n, answered);
    drop(tunnel);
    assert_eq!(count("mesh_tcp_sent_bytes_total"), asked + request.len() as f64);
    assert_eq!(count("mesh_tcp_received_bytes_total"), 2.0 * answered as f64);
    let picks = [("service", "web"), ("policy", "peak_ewma"), ("tier", "any")];
    assert_eq!(mesh.metrics().count("mesh_picks_total", &picks), 2.0);
    let log = holds("the tunnel is logged", || mesh.log(), |log| log.contains("CONNECT"));
    let line = log.lines().find(|line| line.contains("CONNECT")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["endpoint"], &line["status"]), (&json!(E1), &json!(200)), "{line}");
    assert_eq!((&line["sent_bytes"], &line["received_bytes"]), (&json!(request.len()), &json!(answered)), "{line}");
}
