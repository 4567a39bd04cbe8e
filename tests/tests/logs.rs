//! `mesh logs`, `mesh log-level`: what became of requests and connections.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{
    Backend, Daemon, Proxy, Scripted, Value, eventually, get, holds, http_service, json, post, service, shape, world,
};
use socket2::SockRef;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, ChildStdout, Stdio},
    time::Duration,
};

const VIP: &str = "10.96.0.10:80";
const VIP6: &str = "[fd00::10]:80";
const E1: &str = "10.1.0.1:8080";
/// Where nobody listens.
const GONE: &str = "10.1.0.9:8080";

/// The lines that are kept, with these arguments.
fn logs(mesh: &Daemon, arguments: &[&str]) -> Vec<Value> {
    mesh.json(&[&["logs"], arguments].concat()).as_array().unwrap().clone()
}

/// So many lines, once they are there.
fn so_many(mesh: &Daemon, count: usize, arguments: &[&str]) -> Vec<Value> {
    holds(&format!("{count} lines of {arguments:?}"), || logs(mesh, arguments), |lines| lines.len() == count)
}

/// An endpoint that answers with the status that a path ends with, and else with 200.
fn statuses() -> Scripted {
    Scripted::each(|connection, request| {
        let status = request.target().rsplit('/').next().and_then(|s| s.split('?').next()?.parse().ok());
        connection.answer(status.unwrap_or(200), "body");
    })
}

fn paths(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["path"].as_str().unwrap()).collect()
}

#[test]
fn requests_are_kept_and_shown_in_the_shape_of_the_contract() {
    let endpoint = statuses();
    let mesh = one_worker(json!([http_service("web", &[&endpoint.address()])]));
    assert_eq!(mesh.ask(post("web", "/a?b=c", "four")).status(), 200);
    assert_eq!(mesh.ask(get("nobody", "/")).status(), 404);
    let lines = so_many(&mesh, 2, &[]);
    let fields = [
        ("time", "text"),
        ("kind", "text"),
        ("service", "text|null"),
        ("endpoint", "text|null"),
        ("client", "text"),
        ("method", "text"),
        ("path", "text"),
        ("status", "integer"),
        ("duration_ms", "number"),
        ("sent_bytes", "integer"),
        ("received_bytes", "integer"),
        ("attempts", "integer"),
        ("trace_id", "text"),
        ("reason", "text|null"),
    ];
    lines.iter().for_each(|line| shape::check(line, &fields));
    let (answered, unknown) = (&lines[0], &lines[1]);
    let expected = json!({
        "kind": "request", "service": "web", "endpoint": endpoint.address(), "method": "POST", "path": "/a?b=c",
        "status": 200, "sent_bytes": 4, "received_bytes": 4, "attempts": 1, "reason": null, "connection": null,
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&answered[field], value, "{field}: {answered}");
    }
    assert!(answered["duration_ms"].as_f64().unwrap() > 0.0, "{answered}");
    assert_eq!((&unknown["service"], &unknown["reason"]), (&Value::Null, &json!("unknown_service")), "{unknown}");
    // HTTP says the same, and stderr too.
    assert_eq!(mesh.http_json("/v1/logs"), Value::Array(lines.clone()));
    // Another thread writes it there.
    let written = || mesh.log().lines().filter_map(|line| serde_json_of(line, "request")).collect::<Vec<Value>>();
    let written = holds("both are written", written, |written| written.len() == 2);
    for line in &lines {
        let written = written.iter().find(|written| written["trace_id"] == line["trace_id"]).unwrap();
        for (field, value) in line.as_object().unwrap() {
            assert_eq!(&written[field], value, "{field}");
        }
    }
    // Its trace is that of the request that the endpoint got.
    let traceparent = endpoint.requests()[0].header("traceparent").unwrap().to_owned();
    assert_eq!(answered["trace_id"].as_str(), traceparent.split('-').nth(1));
    let table = mesh.cli(&["logs"]).done();
    assert!(table.starts_with("TIME ") && table.contains("POST /a?b=c"), "{table}");
    assert!(mesh.metrics().count("mesh_log_lines_total", &[]) >= 2.0);
}

/// A line of the daemon's stderr, if it is one of these.
fn serde_json_of(line: &str, target: &str) -> Option<Value> {
    line.parse::<Value>().ok().filter(|line| line["target"] == target)
}

#[test]
fn every_filter_picks_what_it_says() {
    let endpoint = statuses();
    let services = ["web", "api"].map(|name| http_service(name, &[&endpoint.address()]));
    let mesh = one_worker(json!(services));
    for (service, path) in [("web", "/a/200"), ("web", "/a/503"), ("api", "/b/404"), ("api", "/b/500?x=a")] {
        mesh.ask(get(service, path));
    }
    mesh.ask(post("web", "/c/204", ""));
    so_many(&mesh, 5, &[]);
    let picked = |arguments: &[&str]| {
        let lines = logs(&mesh, arguments);
        paths(&lines).into_iter().map(|path| path.split('/').nth(2).unwrap()[..3].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(picked(&[]), ["200", "503", "404", "500", "204"], "the newest last");
    assert_eq!(picked(&["--limit", "2"]), ["500", "204"]);
    assert_eq!(picked(&["--service", "api"]), ["404", "500"]);
    assert_eq!(picked(&["--status", "5xx"]), ["503", "500"]);
    assert_eq!(picked(&["--status", "404,500-599"]), ["503", "404", "500"]);
    assert_eq!(picked(&["--method", "post"]), ["204"]);
    assert_eq!(picked(&["--path", "/a"]), ["200", "503"]);
    assert_eq!(picked(&["--path", "x=a"]), ["500"]);
    assert_eq!(picked(&["--path", "/*/50*"]), ["503", "500"]);
    assert_eq!(picked(&["--endpoint", &endpoint.address(), "--service", "web", "--status", "2xx"]), ["200", "204"]);
    assert_eq!(picked(&["--endpoint", "10.9.9.9:9"]), [""; 0]);
    assert_eq!(picked(&["--duration", "<1h"]).len(), 5);
    assert_eq!(picked(&["--duration", ">1h"]), [""; 0]);
    assert_eq!(picked(&["--since", "1h"]).len(), 5);
    assert_eq!(picked(&["--since", "2100-01-01T00:00:00Z"]), [""; 0]);
    let trace = logs(&mesh, &["--method", "POST"])[0]["trace_id"].as_str().unwrap().to_owned();
    assert_eq!(picked(&["--trace", &trace]), ["204"]);
    assert_eq!(mesh.http_json("/v1/logs?status=5xx&path=%2Fa&limit=1")[0]["path"], "/a/503");
    // YAML has the same, and nothing is a word and no row.
    assert!(mesh.cli(&["logs", "--limit", "1", "-o", "yaml"]).done().contains("path: /c/204"));
    let nothing = mesh.cli(&["logs", "--status", "418"]).ended(0);
    assert_eq!((nothing.stdout.as_str(), nothing.stderr.trim()), ("", "no lines"));
}

#[test]
fn what_is_no_filter_is_refused_with_what_is_expected() {
    let mesh = Proxy::new(json!([http_service("web", &[])]));
    for (option, query, value, why) in [
        ("--status", "status", "6", "expected a status such as 503"),
        ("--method", "method", "G T", "expected a method such as GET"),
        ("--duration", "duration", "100ms", "expected a bound such as"),
        ("--trace", "trace", "xyz", "expected the id of a trace"),
        ("--since", "since", "yesterday", "expected how long ago, such as 5m"),
        ("--limit", "limit", "0", ""),
        ("--endpoint", "endpoint", "web", ""),
    ] {
        mesh.cli(&["logs", option, value]).ended(2).refused(&[why]);
        for path in ["/v1/logs", "/v1/watch/logs"] {
            let answer = mesh.http("GET", &format!("{path}?{query}={}", value.replace(' ', "%20")));
            assert_eq!(answer.status, 400, "{path} {query}: {answer:?}");
            assert!(answer.body.contains(why), "{path} {query}: {}", answer.body);
        }
    }
    assert_eq!(mesh.http("GET", "/v1/logs?pid=1").status, 400);
    assert_eq!(mesh.http("POST", "/v1/logs").status, 405);
    mesh.cli(&["logs", "--service", "wep"]).ended(1).refused(&["no service is named \"wep\""]);
    mesh.cli(&["logs", "--service", "wep", "--follow"]).ended(1).refused(&["no service is named \"wep\""]);
}

/// A proxy whose lines come in the order in which requests end.
fn one_worker(services: Value) -> Proxy {
    Proxy::with(services, |c| c["proxy"]["workers"] = json!(1))
}

/// A command that goes on, read line by line.
struct Following {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Following {
    fn start(mesh: &Daemon, arguments: &[&str]) -> Self {
        let mut command = mesh.command(&[&["logs", "--follow"], arguments].concat());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn next(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    fn path(&mut self) -> String {
        self.next().parse::<Value>().unwrap()["path"].as_str().unwrap().to_owned()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn whoever_follows_sees_what_is_kept_and_then_what_comes_over_a_restart_too() {
    let endpoint = statuses();
    let mut mesh = one_worker(json!([http_service("web", &[&endpoint.address()])]));
    for n in 1..=3 {
        mesh.ask(get("web", &format!("/{n}/200")));
    }
    so_many(&mesh, 3, &[]);
    let mut json = Following::start(&mesh, &["--limit", "2", "--status", "2xx", "-o", "json"]);
    assert_eq!([json.path(), json.path()], ["/2/200", "/3/200"]);
    let mut table = Following::start(&mesh, &["--limit", "1"]);
    assert!(table.next().starts_with("TIME "));
    assert!(table.next().ends_with("GET /3/200"));
    mesh.ask(get("web", "/4/503"));
    mesh.ask(get("web", "/5/200"));
    assert_eq!(json.path(), "/5/200");
    assert!(table.next().ends_with("GET /4/503") && table.next().ends_with("GET /5/200"));
    assert!(mesh.terminate().success());
    mesh.start();
    mesh.ask(get("web", "/6/200"));
    assert_eq!(json.path(), "/6/200");
}

#[test]
fn events_can_be_followed_and_resumed_over_http() {
    let endpoint = statuses();
    let mesh = one_worker(json!([http_service("web", &[&endpoint.address()])]));
    let follow = |query: &str, after: Option<&str>| {
        let mut stream = TcpStream::connect(mesh.admin()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let after = after.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        stream.write_all(format!("GET /v1/watch/logs{query} HTTP/1.1\r\nhost: x\r\n{after}\r\n").as_bytes()).unwrap();
        BufReader::new(stream)
    };
    /// The next event: its id, its kind and its data.
    fn next(reader: &mut BufReader<TcpStream>) -> (String, String, Value) {
        let mut field = |name: &str| loop {
            let mut line = String::new();
            assert!(reader.read_line(&mut line).unwrap() > 0, "it ended before {name}");
            if let Some(value) = line.strip_prefix(name) {
                return value.trim().to_owned();
            }
        };
        (field("id: "), field("event: "), field("data: ").parse().unwrap())
    }
    mesh.ask(get("web", "/1/200"));
    so_many(&mesh, 1, &[]);
    let mut reader = follow("", None);
    let (first, kind, line) = next(&mut reader);
    assert_eq!((kind.as_str(), &line["path"]), ("line", &json!("/1/200")));
    assert_eq!(line, mesh.http_json("/v1/logs")[0], "an event is what a listing has");
    mesh.ask(get("web", "/2/200"));
    assert_eq!(next(&mut reader).2["path"], "/2/200");
    drop(reader);
    mesh.ask(get("web", "/3/503"));
    so_many(&mesh, 3, &[]);
    let mut again = follow("", Some(&first));
    assert_eq!([next(&mut again).2["path"].clone(), next(&mut again).2["path"].clone()], ["/2/200", "/3/503"]);
    assert_eq!(
        next(&mut follow("?status=503", Some("1"))).2["path"],
        "/3/503",
        "of a daemon before: from the newest on"
    );
}

#[test]
fn a_connection_is_logged_when_it_ends_with_every_byte_and_whose_it_was() {
    let world = world!();
    let _echo = world.echo(E1);
    let mesh = world.daemon(json!([service("web", &[VIP, VIP6], &[E1])]));
    for (vip, bytes) in [(VIP, 0), (VIP, 1), (VIP, 100_000), (VIP6, 54_321)] {
        let mut client = world.client(vip);
        let pid = client.pid();
        if bytes > 0 {
            client.exchange(bytes);
        }
        let (ip, port) = (client.local.ip().to_canonical(), client.local.port());
        drop(client);
        let lines = holds(
            "its end is logged",
            || logs(&mesh, &["--limit", "1"]),
            |lines| {
                lines
                    .first()
                    .is_some_and(|line| line["client"] == json!(std::net::SocketAddr::new(ip, port).to_string()))
            },
        );
        let line = &lines[0];
        let expected = json!({
            "kind": "connection", "service": "web", "endpoint": E1, "method": null, "path": null, "status": null,
            "sent_bytes": bytes, "received_bytes": bytes, "attempts": 1, "trace_id": null,
        });
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&line[field], value, "{field}: {line}");
        }
        let connection = &line["connection"];
        assert_eq!((&connection["pid"], &connection["command"]), (&json!(pid), &json!("mesh-test-peer")), "{line}");
        assert_eq!(connection["cgroup"], json!(world.cgroup().name()), "{line}");
        assert_eq!(
            (&connection["original_destination"], &connection["retransmits"]),
            (&json!(vip), &json!(0)),
            "{line}"
        );
        let connect = connection["connect_ms"].as_f64().unwrap();
        assert!(connect > 0.0 && connect < line["duration_ms"].as_f64().unwrap(), "{line}");
    }
    assert_eq!(so_many(&mesh, 4, &["--service", "web"]).len(), 4, "one a connection, and none of the daemon's own");
    let written: Vec<Value> = mesh.log().lines().filter_map(|line| serde_json_of(line, "connection")).collect();
    assert_eq!(written.len(), 4);
    let sum = |field: &str| written.iter().map(|line| line[field].as_u64().unwrap()).sum::<u64>();
    let counted = mesh.endpoint("web", E1);
    assert_eq!(json!(sum("sent_bytes")), counted["sent_bytes_total"]);
    assert_eq!(json!(sum("received_bytes")), counted["received_bytes_total"]);
    assert!(mesh.cli(&["logs"]).done().contains("connection mesh-test-peer["));
}

#[test]
fn a_connection_that_did_not_end_well_says_how() {
    let world = world!();
    let reset = Backend::new(world.netns(), E1, |stream| {
        let mut first = [0];
        let _ = (&stream).read(&mut first);
        if first[0] == b'r' {
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        } else {
            let _ = (&stream).write_all(b"x");
            let _ = (&stream).read(&mut first);
        }
    });
    let mesh = world.daemon(json!([service("web", &[VIP], &[E1]), service("gone", &[VIP6], &[GONE])]));
    let newest = |reason: &Value| {
        let lines = holds(
            &format!("{reason}"),
            || logs(&mesh, &["--limit", "1"]),
            |l| l.first().is_some_and(|l| &l["reason"] == reason),
        );
        lines[0].clone()
    };
    assert!(world.dial(VIP6).is_err());
    let refused = newest(&json!("refused"));
    assert_eq!((&refused["service"], &refused["endpoint"]), (&json!("gone"), &json!(GONE)), "{refused}");
    assert!(refused["connection"]["connect_ms"].is_null() && refused["duration_ms"].is_number(), "{refused}");
    // The endpoint cuts it off.
    let stream: TcpStream = world.dial(VIP).unwrap().into();
    (&stream).write_all(b"r").unwrap();
    assert!((&stream).read(&mut [0]).is_err());
    drop(stream);
    assert_eq!(newest(&json!("upstream_reset"))["sent_bytes"], 1);
    // The client does.
    let stream: TcpStream = world.dial(VIP).unwrap().into();
    (&stream).write_all(b"y").unwrap();
    (&stream).read_exact(&mut [0]).unwrap();
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    let cut = newest(&json!("downstream_reset"));
    assert_eq!((&cut["sent_bytes"], &cut["received_bytes"]), (&json!(1), &json!(1)), "{cut}");
    // Both in good order.
    let stream: TcpStream = world.dial(VIP).unwrap().into();
    (&stream).write_all(b"y").unwrap();
    (&stream).read_exact(&mut [0]).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!((&stream).read(&mut [0]).unwrap(), 0);
    drop(stream);
    newest(&Value::Null);
    drop(reset);
}

#[test]
fn a_connection_that_stays_open_is_logged_meanwhile_if_it_carried_something() {
    let world = world!();
    let _echo = world.echo(E1);
    let setup = world.setup(json!([service("web", &[VIP], &[E1])]));
    let mesh = setup.with(|c| c["telemetry"] = json!({ "access_log": { "open_interval": "1s" } })).start();
    let mut client = world.client(VIP);
    client.exchange(1000);
    let open = |count: usize| {
        let lines = holds(&format!("{count} lines"), || logs(&mesh, &[]), |lines| lines.len() >= count);
        assert!(lines.iter().all(|line| line["kind"] == "open"), "{lines:?}");
        lines.last().unwrap().clone()
    };
    let first = open(1);
    assert_eq!((&first["sent_bytes"], &first["received_bytes"]), (&json!(1000), &json!(1000)), "{first}");
    assert!(first["duration_ms"].as_f64().unwrap() >= 1000.0, "{first}");
    // Nothing goes over it, so there is nothing to tell.
    std::thread::sleep(Duration::from_millis(3500));
    let before = logs(&mesh, &[]).len();
    assert_eq!(before, 1);
    client.exchange(10);
    let second = open(2);
    assert_eq!(
        (&second["sent_bytes"], &second["time"]),
        (&json!(1010), &first["time"]),
        "from its beginning: {second}"
    );
    drop(client);
    let lines = holds("it ends", || logs(&mesh, &[]), |lines| lines.last().unwrap()["kind"] == "connection");
    assert_eq!(lines.last().unwrap()["sent_bytes"], 1010);
}

#[test]
fn what_is_switched_off_or_not_sampled_is_not_logged_and_a_reload_changes_that() {
    let world = world!();
    let _echo = world.echo(E1);
    let setup = world.setup(json!([service("web", &[VIP], &[E1])]));
    let log = |c: &mut Value, log: Value| c["telemetry"] = json!({ "access_log": log });
    let mut mesh = setup.with(|c| log(c, json!({ "enabled": false }))).start();
    let connect = || {
        let mut client = world.client(VIP);
        client.exchange(1);
    };
    let closed = |mesh: &Daemon, n: u64| {
        holds("closed", || mesh.endpoint("web", E1), |e| e["connections_closed_total"] == json!(n));
    };
    connect();
    closed(&mesh, 1);
    mesh.configure(|c| log(c, json!({ "sample_rate": 0 })));
    mesh.reload();
    connect();
    closed(&mesh, 2);
    mesh.configure(|c| log(c, json!({ "stderr": false })));
    mesh.reload();
    connect();
    let lines = so_many(&mesh, 1, &[]);
    assert_eq!(lines[0]["kind"], "connection");
    mesh.configure(|c| log(c, json!({ "keep": 0 })));
    mesh.reload();
    assert_eq!(logs(&mesh, &[]), [Value::Null; 0], "what was kept is gone");
    connect();
    let written = || mesh.log().lines().filter_map(|line| serde_json_of(line, "connection")).count();
    holds("it is written", written, |n| *n == 1);
    assert_eq!(logs(&mesh, &[]), [Value::Null; 0]);
    // A rate in between: what is told is told by chance, but neither nothing nor all of 200.
    mesh.configure(|c| log(c, json!({ "sample_rate": 0.5, "stderr": false })));
    mesh.reload();
    for _ in 0..200 {
        world.dial(VIP).unwrap();
    }
    closed(&mesh, 204);
    let sampled = eventually("some are told", || match logs(&mesh, &["--limit", "1000"]).len() {
        0 => Err("none"),
        n => Ok(n),
    });
    assert!(sampled < 200, "{sampled}");
}

#[test]
fn whoever_stopped_reading_stderr_holds_up_no_request_and_costs_lines_that_are_counted() {
    let endpoint = statuses();
    let mut mesh = Proxy::new(json!([http_service("web", &[&endpoint.address()])]));
    assert!(mesh.terminate().success());
    // As an init system whose log is full: nobody reads what the daemon writes.
    let config = mesh.config_path();
    let mut daemon = mesh.command(&["run", "--config", config.to_str().unwrap()]);
    let mut daemon = daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the proxy takes connections", || TcpStream::connect(mesh.address()));
    let mut wire = mesh.dial();
    let path = format!("/{}/200", "x".repeat(4000));
    let mut asked = 0;
    let dropped = || mesh.metrics().count("mesh_log_lines_dropped_total", &[("at", "stderr")]);
    // Room for 4 MiB, and for what a pipe takes.
    while dropped() == 0.0 {
        for _ in 0..200 {
            assert_eq!(wire.ask(get("web", &path)).status(), 200);
        }
        asked += 200;
        assert!(asked < 100_000, "nothing is dropped");
    }
    // They are kept all the same.
    let lines = holds("all are told", || mesh.metrics().count("mesh_log_lines_total", &[]), |n| *n >= f64::from(asked));
    assert!(lines >= f64::from(asked));
    assert_eq!(paths(&logs(&mesh, &["--limit", "1"])), [path.as_str()]);
    // Nor does it hold up the end.
    let mut stderr = daemon.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        let mut text = Vec::new();
        stderr.read_to_end(&mut text).map(|_| text)
    });
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(daemon.id().cast_signed()), nix::sys::signal::Signal::SIGTERM)
        .unwrap();
    assert!(daemon.wait().unwrap().success());
    let text = String::from_utf8(reader.join().unwrap().unwrap()).unwrap();
    // The last one may be cut off by the end, which waits for no reader for long.
    let lines: Vec<&str> = text.lines().collect();
    let torn = lines[..lines.len() - 1].iter().filter(|line| line.parse::<Value>().is_err()).count();
    assert_eq!(torn, 0, "lines are whole or not there");
}

#[test]
fn a_hostile_path_cannot_end_a_line_or_move_a_cursor() {
    let endpoint = statuses();
    let proxy = |format: &str| {
        let format = format.to_owned();
        Proxy::with(json!([http_service("web", &[&endpoint.address()])]), move |c| {
            c["telemetry"] = json!({ "log": { "format": format } });
        })
    };
    for format in ["json", "text"] {
        let mesh = proxy(format);
        // Raw control characters are no HTTP; what is encoded or beyond ASCII comes through as it is.
        let hostile = "/%0a%1b[2J\"\u{9b}31m{\"a\":1}/200";
        let status = mesh.ask(format!("GET {hostile} HTTP/1.1\r\nhost: web\r\n\r\n")).status();
        assert!([200, 400].contains(&status), "{status}");
        mesh.ask(format!("GET /{} HTTP/1.1\r\nhost: web\r\n\r\n", "y".repeat(20_000)));
        let lines = holds("they are logged", || logs(&mesh, &[]), |lines| !lines.is_empty());
        for text in [mesh.cli(&["logs"]).done(), mesh.cli(&["logs", "-o", "yaml"]).done(), mesh.log()] {
            let control = text.chars().find(|c| c.is_control() && *c != '\n');
            assert_eq!(control, None, "{format}: {text:?}");
        }
        assert!(lines.iter().all(|line| line["path"].as_str().is_none_or(|path| path.len() < 4200)), "cut");
    }
}

#[test]
fn levels_are_shown_and_changed_while_it_runs_by_module() {
    let endpoint = statuses();
    let mut mesh = Proxy::with(json!([http_service("web", &[&endpoint.address()])]), |c| {
        c["telemetry"] = json!({ "log": { "level": "warn" } });
    });
    let levels = |mesh: &Daemon| mesh.json(&["log-level"]);
    assert_eq!(levels(&mesh), json!({ "level": "warn", "modules": [] }));
    let written = |mesh: &Daemon| mesh.log().lines().filter_map(|line| serde_json_of(line, "request")).count();
    mesh.get("web");
    so_many(&mesh, 1, &[]);
    assert_eq!(written(&mesh), 0, "requests are of level info");
    let changed = mesh.cli(&["log-level", "request=info"]).done();
    assert!(changed.contains("request: log level warn → info"), "{changed}");
    mesh.get("web");
    holds("it is written", || written(&mesh), |n| *n == 1);
    mesh.cli(&["log-level", "proxy=debug"]).done();
    let expected =
        json!([{ "module": "mesh_userspace::proxy", "level": "debug" }, { "module": "request", "level": "info" }]);
    assert_eq!(levels(&mesh)["modules"], expected);
    assert_eq!(mesh.http_json("/v1/log-level")["modules"], expected);
    assert!(mesh.cli(&["log-level"]).done().contains("all others"));
    // A reload that says nothing about it leaves it as it is, one that does does not.
    mesh.set_services(json!([]));
    assert_eq!(levels(&mesh)["modules"], expected);
    mesh.configure(|c| c["telemetry"]["log"]["level"] = json!("error"));
    mesh.reload();
    assert_eq!(levels(&mesh), json!({ "level": "error", "modules": [] }));
    mesh.cli(&["log-level", "debug"]).done();
    assert_eq!(levels(&mesh)["level"], "debug");
    for (wrong, why) in
        [("proxy=loud", "is no level"), ("loud", "is no level"), ("nosuch=info", "no module is called \"nosuch\"")]
    {
        mesh.cli(&["log-level", wrong]).ended(1).refused(&[why]);
    }
    let refused = mesh.http("POST", "/v1/log-level/set");
    assert_eq!(refused.status, 403, "only at the admin socket: {refused:?}");
}

#[test]
fn the_programs_in_the_kernel_follow_their_level_while_they_work() {
    let world = world!();
    let _backend = world.backend("B", E1);
    let mesh = world.daemon(json!([service("web", &[VIP], &[E1])]));
    let mut open = world.dial(VIP).unwrap();
    let pins = mesh.pins();
    let told = || mesh.log().matches("connect: service").count();
    assert_eq!(world.ask(VIP).unwrap(), "B");
    assert_eq!(told(), 0);
    let hammer = world.hammer(&[VIP]);
    for round in 0..2 {
        let changed = mesh.cli(&["log-level", "mesh_ebpf=debug"]).ended(0);
        assert!(!changed.stderr.contains("as before"), "{changed}");
        assert_eq!(world.ask(VIP).unwrap(), "B");
        holds("a connect is told of", told, |told| *told > 0);
        mesh.cli(&["log-level", "mesh_ebpf=info"]).done();
        // What was told before the change comes out within a second.
        let settled = eventually("it is silent", || {
            let before = told();
            std::thread::sleep(Duration::from_millis(1200));
            if told() == before { Ok(before) } else { Err(before) }
        });
        assert_eq!(world.ask(VIP).unwrap(), "B", "round {round}");
        assert_eq!(told(), settled);
    }
    hammer.stop().assert_flawless();
    assert_eq!(mesh.pins(), pins, "nothing else is pinned");
    // A connection of before is counted by the programs of now.
    assert_eq!(mesh_tests::backend::answer(&mut open).unwrap(), "B");
    drop(open);
    holds("all are closed", || mesh.endpoint("web", E1), |e| e["active_connections"] == 0);
    assert!(mesh.json(&["status"])["programs"].as_array().unwrap().iter().all(|p| p["attached"] == true));
}
