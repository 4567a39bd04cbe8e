//! Who watches a service is told what changes.

use crate::{E1, E2, VIP, ask, endpoints, put, registered, start, started, userspace};
use mesh_tests::{Daemon, Value, holds, json, service};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::Path,
    process::Stdio,
    thread,
    time::Duration,
};

/// Events of `/v1/watch/services/NAME`: (id, kind, data).
struct Watch(BufReader<Box<dyn Read>>);

impl Watch {
    fn start(stream: impl Read + Write + 'static, service: &str, after: Option<u64>) -> Self {
        let mut stream = stream;
        let after = after.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        write!(stream, "GET /v1/watch/services/{service} HTTP/1.1\r\nhost: x\r\n{after}\r\n").unwrap();
        let mut reader = BufReader::new(Box::new(stream) as Box<dyn Read>);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        assert!(head.contains(" 200 ") && head.contains("text/event-stream"), "{head}");
        Self(reader)
    }

    fn tcp(mesh: &Daemon, service: &str, after: Option<u64>) -> Self {
        let stream = TcpStream::connect(mesh.admin()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self::start(stream, service, after)
    }

    fn next(&mut self) -> (u64, String, Value) {
        let (mut id, mut kind, mut data) = (None, None, None);
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the end");
            let line = line.trim_end();
            // Sizes of chunks stand in between.
            match line.split_once(": ") {
                Some(("id", value)) => id = value.parse().ok(),
                Some(("event", value)) => kind = Some(value.to_owned()),
                Some(("data", value)) => data = serde_json::from_str(value).ok(),
                _ => {}
            }
            if let (Some(id), Some(kind), Some(data)) = (id, &kind, &data) {
                return (id, kind.clone(), Value::clone(data));
            }
        }
    }
}

#[test]
fn who_watches_is_told_what_changes_and_goes_on_where_it_was() {
    let mut mesh = started(userspace());
    let mut watch = Watch::tcp(&mesh, "web", None);
    let socket = UnixStream::connect(mesh.socket_path()).unwrap();
    let mut at_the_socket = Watch::start(socket, "web", None);
    let (first, kind, data) = watch.next();
    assert_eq!((kind.as_str(), &data), ("snapshot", &json!([])));
    assert_eq!(at_the_socket.next().1, "snapshot");
    mesh.cli(&["register", "web", E1, "--weight", "2"]).done();
    let (id, kind, data) = watch.next();
    assert_eq!((id, kind.as_str()), (first + 1, "endpoint"));
    let expected = json!({ "service": "web", "address": E1, "weight": 2, "zone": null, "region": null, "node": null,
        "health": "unknown", "circuit": "closed", "draining": false });
    assert_eq!(data, expected);
    let as_listed = mesh.endpoint("web", E1);
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&as_listed[field], value, "{field}");
    }
    assert_eq!(at_the_socket.next().2, expected);
    drop(watch);
    // While it is away, and after.
    // The other one sees each change before the next: two at a time may be told as one.
    mesh.cli(&["endpoints", "drain", "web", E1]).done();
    assert_eq!(at_the_socket.next().2["draining"], true);
    mesh.cli(&["circuit", "trip", "web", E1]).done();
    assert_eq!(at_the_socket.next().2["circuit"], "open");
    mesh.cli(&["register", "web", E2, "--ttl", "1s"]).done();
    let mut watch = Watch::tcp(&mesh, "web", Some(id));
    let mut next = || watch.next();
    let seen: Vec<_> = (0..4).map(|_| next()).collect();
    let ids: Vec<u64> = seen.iter().map(|(id, ..)| *id).collect();
    assert_eq!(ids, [id + 1, id + 2, id + 3, id + 4]);
    assert_eq!((&seen[0].2["draining"], &seen[0].2["circuit"]), (&json!(true), &json!("closed")));
    assert_eq!((&seen[1].2["draining"], &seen[1].2["circuit"]), (&json!(true), &json!("open")));
    assert_eq!((seen[2].1.as_str(), &seen[2].2["address"]), ("endpoint", &json!(E2)));
    assert_eq!((seen[3].1.as_str(), &seen[3].2), ("removed", &json!({ "service": "web", "address": E2 })));
    // The service goes and comes back.
    mesh.cli(&["deregister", "web", E1]).done();
    assert_eq!(watch.next().1, "removed");
    mesh.set_services(json!([]));
    assert_eq!(watch.next().1, "vanished");
    assert_eq!(mesh.http("GET", "/v1/watch/services/web").status, 404);
    mesh.set_services(json!([service("web", &[VIP], &[E1])]));
    assert_eq!(watch.next().1, "returned");
    let (last, kind, _) = watch.next();
    assert_eq!(kind, "endpoint");
    // Another daemon knows nothing of these numbers.
    assert!(mesh.terminate().success());
    start(&mut mesh);
    let (newer, kind, _) = Watch::tcp(&mesh, "web", Some(last)).next();
    assert!(kind == "snapshot" && newer > last, "{kind} {newer} {last}");
    let unknown = mesh.http("GET", "/v1/watch/services/nobody");
    assert_eq!((unknown.status, unknown.body.contains("\"not_found\"")), (404, true), "{unknown:?}");
}

#[test]
fn who_registered_a_service_can_watch_it_at_once_also_where_it_had_gone() {
    let mesh = started(userspace());
    let instance = json!({ "address": E1 });
    assert_eq!(put(&mesh, "fresh/one", &instance).status, 201);
    let mut watch = Watch::tcp(&mesh, "fresh", None);
    assert_eq!(watch.next().1, "snapshot");
    for turn in 0..20 {
        assert_eq!(ask(&mesh, "DELETE", "/v1/registry/fresh/one", "").status, 200);
        while watch.next().1 != "vanished" {}
        assert_eq!(put(&mesh, "fresh/one", &instance).status, 201);
        let (_, kind, data) = Watch::tcp(&mesh, "fresh", None).next();
        assert_eq!((kind.as_str(), &data[0]["address"]), ("snapshot", &json!(E1)), "{turn}");
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn the_command_line_prints_one_line_an_event_and_outlives_the_daemon() {
    let mut mesh = started(userspace());
    let output = mesh.dir().join("watched");
    let mut command = mesh.command(&["services", "web", "--watch", "-o", "json"]);
    let mut child = command.stdin(Stdio::null()).stdout(fs::File::create(&output).unwrap()).spawn().unwrap();
    holds("a snapshot", || lines(&output).len(), |n| *n == 1);
    mesh.cli(&["register", "web", E1]).done();
    holds("an event", || lines(&output).len(), |n| *n == 2);
    assert!(mesh.terminate().success());
    start(&mut mesh);
    holds("a snapshot", || lines(&output).len(), |n| *n == 3);
    let seen: Vec<Value> = lines(&output).iter().map(|line| line["event"].clone()).collect();
    assert_eq!(seen, ["snapshot", "endpoint", "snapshot"]);
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    assert!(child.wait().unwrap().success());
    mesh.cli(&["services", "nobody", "--watch", "-o", "json"]).ended(1).refused(&["nobody"]);
}

#[test]
fn many_instances_and_many_watchers_are_all_served() {
    let mesh = started(userspace());
    let mut watchers: Vec<Watch> = (0..200).map(|_| Watch::tcp(&mesh, "web", None)).collect();
    watchers.iter_mut().for_each(|watch| assert_eq!(watch.next().1, "snapshot"));
    thread::scope(|scope| {
        for part in 0..8 {
            let mesh = &mesh;
            scope.spawn(move || {
                for n in 0..100 {
                    let body = json!({ "address": format!("10.2.{part}.{n}:80") });
                    assert_eq!(put(mesh, &format!("web/{part}-{n}"), &body).status, 201);
                }
            });
        }
    });
    assert_eq!(registered(&mesh).len(), 800);
    holds("all are endpoints", || endpoints(&mesh, "web").len(), |n| *n == 800);
    for watch in &mut watchers {
        let mut known = std::collections::BTreeSet::new();
        while known.len() < 800 {
            match watch.next() {
                (_, kind, data) if kind == "snapshot" => {
                    known = data.as_array().unwrap().iter().map(|e| e["address"].to_string()).collect();
                }
                (_, kind, data) => {
                    assert_eq!(kind, "endpoint");
                    assert!(known.insert(data["address"].to_string()), "twice: {data}");
                }
            }
        }
    }
}
