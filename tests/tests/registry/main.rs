//! The registry of a node: instances come, stay as long as they are heard of, and go; and who watches is told.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Daemon, Value, daemon::Setup, eventually, holds, http, json, ports::Port, service, world};
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
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

const VIP: &str = "10.96.0.10:80";
const E1: &str = "10.1.0.1:8080";
const E2: &str = "10.1.0.2:8080";

/// A daemon that leaves the kernel alone, with a service that has no endpoints.
fn userspace() -> Setup {
    Setup::userspace(json!([service("web", &[VIP], &[])])).with(|c| c["proxy"] = json!({ "http": "" }))
}

/// Starts it. (It is never ready: nothing is intercepted.)
fn start(mesh: &mut Daemon) {
    mesh.spawn();
    mesh.wait_for("/health", 200);
}

fn started(setup: Setup) -> Daemon {
    let mut mesh = setup.idle();
    start(&mut mesh);
    mesh
}

/// Lets another process take over; it is this daemon from then on.
fn take_over(mesh: &mut Daemon) {
    let successor = mesh.successor();
    let status = mesh.wait();
    assert!(status.success(), "{status}\n{}", mesh.log());
    mesh.follow(successor);
    mesh.wait_for("/health", 200);
}

/// A request to the admin socket.
fn ask(mesh: &Daemon, method: &str, path: &str, body: &str) -> http::Response {
    http::unix(&mesh.socket_path(), method, path, body).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
}

fn put(mesh: &Daemon, path: &str, body: &Value) -> http::Response {
    ask(mesh, "PUT", &format!("/v1/registry/{path}"), &body.to_string())
}

/// The ids that are registered, as `SERVICE/ID`.
fn registered(mesh: &Daemon) -> Vec<String> {
    let list: Value = serde_json::from_str(&mesh.http("GET", "/v1/registry").body).unwrap();
    let name = |i: &Value| format!("{}/{}", i["service"].as_str().unwrap(), i["id"].as_str().unwrap());
    list.as_array().unwrap().iter().map(name).collect()
}

/// The addresses of a service's endpoints; none of one that is not there.
fn endpoints(mesh: &Daemon, service: &str) -> Vec<String> {
    let rows = mesh.json(&["endpoints"]);
    let of = rows.as_array().unwrap().iter().filter(|row| row["service"] == service);
    of.map(|row| row["address"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_connection_goes_to_an_instance_as_soon_as_it_is_registered_and_not_after() {
    let world = world!();
    let _backends = [world.backend("B1", E1), world.backend("B2", E2)];
    let mesh = world.daemon(json!([service("web", &[VIP], &[])]));
    assert!(world.ask(VIP).is_err(), "nobody serves it");
    for _ in 0..10 {
        let said = mesh.cli(&["register", "web", E1]).done();
        assert_eq!(said, format!("web: {E1} is registered: weight 1, ttl 1m\n"));
        assert_eq!(world.ask(VIP).unwrap(), "B1", "at once");
        let response = put(&mesh, "web/second", &json!({ "address": E2, "weight": 3, "zone": "z" }));
        assert_eq!(response.status, 201, "{response:?}");
        let mut answers = world.ask_times(VIP, 4);
        answers.sort();
        assert_eq!(answers, ["B1", "B2", "B2", "B2"]);
        assert_eq!(put(&mesh, "web/second", &json!({ "address": E2, "weight": 0 })).status, 200);
        assert_eq!(world.ask_times(VIP, 4), ["B1"; 4]);
        mesh.cli(&["deregister", "web", E1]).done();
        assert_eq!(ask(&mesh, "DELETE", "/v1/registry/web/second", "").status, 200);
        assert!(world.ask(VIP).is_err(), "nobody serves it any more");
    }
    mesh.cli(&["deregister", "web", E1]).ended(1).refused(&["no instance", E1]);
}

#[test]
fn an_instance_that_is_not_heard_of_is_dropped_and_one_that_is_stays() {
    let world = world!();
    let _backends = [world.backend("B1", E1), world.backend("B2", E2)];
    let mesh = world.daemon(json!([service("web", &[VIP], &[])]));
    mesh.cli(&["register", "web", E1, "--ttl", "2s", "--id", "silent"]).done();
    mesh.cli(&["register", "web", E2, "--ttl", "2s", "--id", "alive"]).done();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        let path = "/v1/registry/web/alive/heartbeat";
        assert_eq!(ask(&mesh, "POST", path, "").status, 200);
        assert_eq!(registered(&mesh).contains(&"web/silent".to_owned()), began.elapsed() < Duration::from_secs(2));
        thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(world.ask_times(VIP, 4), ["B2"; 4]);
    let gone = ask(&mesh, "POST", "/v1/registry/web/silent/heartbeat", "");
    assert_eq!(gone.status, 404, "{gone:?}");
}

#[test]
fn a_service_that_only_the_registry_knows_is_a_service() {
    let mesh = started(userspace());
    mesh.cli(&["register", "shop", "10.0.0.5:80", "--metadata", "version=1.2", "--ttl", "90s"]).done();
    assert_eq!(mesh.service("shop")["endpoints"]["total"], 1);
    mesh.cli(&["services"]).says(&["shop"]);
    let list: Value = serde_json::from_str(&mesh.http("GET", "/v1/registry/shop").body).unwrap();
    let one = &list[0];
    assert_eq!((&one["id"], &one["metadata"]["version"]), (&json!("10.0.0.5:80"), &json!("1.2")), "{list}");
    assert_eq!((&one["ttl"], &one["zone"], &one["weight"]), (&json!("1m30s"), &Value::Null, &json!(1)), "{list}");
    assert!((60_000.0..=90_000.0).contains(&one["ttl_remaining_ms"].as_f64().unwrap()), "{list}");
    assert!(one["registered_at"].as_str().unwrap().ends_with('Z'), "{list}");
    assert_eq!(mesh.http("GET", "/v1/registry/web").body, "[]\n", "a service without instances");
    assert_eq!(mesh.http("GET", "/v1/registry/nobody").status, 404);
    let source = mesh_tests::ask::find(&mesh.json(&["status"])["sources"], "name", "registry");
    assert_eq!((&source["synced"], source["last_update"].is_string()), (&json!(true), true));
    mesh.cli(&["deregister", "shop", "10.0.0.5:80"]).done();
    assert!(mesh.json(&["services"]).as_array().unwrap().iter().all(|s| s["name"] != "shop"));
}

#[test]
fn what_makes_no_sense_is_refused_with_its_reason() {
    let mesh = started(userspace());
    let big = json!({ "address": E1, "metadata": { "k": "v".repeat(70_000) } });
    for (path, body, status, words) in [
        ("web/a", json!({}), 400, "address: it is missing"),
        ("web/a", json!({ "address": "web:80" }), 400, "names are not looked up"),
        ("web/a", json!({ "address": "10.0.0.1:0" }), 400, "port 0"),
        ("web/a", json!({ "address": "10.0.0.1:65536" }), 400, "address: expected ip:port"),
        ("web/a", json!({ "address": "0.0.0.0:80" }), 400, "not a unicast address"),
        ("web/a", json!({ "address": "224.0.0.1:80" }), 400, "not a unicast address"),
        ("web/a", json!({ "address": "127.0.0.1:15001" }), 400, "where this daemon itself listens"),
        ("web/a", json!({ "address": E1, "wieght": 2 }), 400, "unknown field \\\"wieght\\\""),
        ("web/a", json!({ "address": E1, "weight": 65536 }), 400, "0 to 65535"),
        ("web/a", json!({ "address": E1, "ttl": "0s" }), 400, "1s to 24h"),
        ("web/a", json!({ "address": E1, "ttl": "25h" }), 400, "ttl: expected a duration from 1s to 24h"),
        ("web/a", json!({ "address": E1, "ttl": "87600h" }), 400, "ttl: expected a duration from 1s to 24h"),
        ("web/a", json!({ "address": VIP }), 400, "10.96.0.10:80: a VIP of the service web"),
        ("web/a", json!({ "address": E1, "metadata": { "a\nb": "" } }), 400, "without control characters"),
        ("a..b/a", json!({ "address": E1 }), 400, "service: expected a name whose parts"),
        ("10.0.0.1/a", json!({ "address": E1 }), 400, "service: expected a name that does not read as an address"),
        ("web/a", json!({ "address": E1, "ttl": 60 }), 400, "ttl: expected a duration"),
        ("web/a", json!({ "address": E1, "ttl": "soon" }), 400, "ttl: expected a duration"),
        ("web/a", json!({ "address": E1, "zone": "a\nb" }), 400, "zone: "),
        ("web/a", big, 413, "64 KiB"),
        ("Web_Shop/a", json!({ "address": E1 }), 400, "for example web-shop"),
        ("web/a%20b", json!({ "address": E1 }), 400, "id: expected"),
        ("web/a%2Fb", json!({ "address": E1 }), 400, "id: expected"),
    ] {
        let response = put(&mesh, path, &body);
        assert_eq!(
            response.status,
            status,
            "{path} {}: {response:?}",
            &body.to_string()[..80.min(body.to_string().len())]
        );
        assert!(response.body.contains(words), "{words}: {response:?}");
    }
    assert_eq!(ask(&mesh, "PUT", "/v1/registry/web/a", "{").status, 400);
    let twice = format!(r#"{{"address":"{E1}","address":"{E2}"}}"#);
    let response = ask(&mesh, "PUT", "/v1/registry/web/a", &twice);
    assert!(response.status == 400 && response.body.contains("stands twice"), "{response:?}");
    assert_eq!(registered(&mesh), [""; 0]);
    mesh.cli(&["register", "Web", E1]).ended(1).refused(&["for example web"]);
    mesh.cli(&["register", "web", "10.0.0.1"]).ended(2);
    let nobody = json!({ "address": E1 }).to_string();
    assert_eq!(http::tcp(&mesh.admin(), "PUT", "/v1/registry/web/a", &nobody).unwrap().status, 403);
    mesh.cli(&["--admin-socket", "/nonexistent/s", "register", "web", E1]).ended(3);
}

#[test]
fn instances_survive_a_restart_and_a_crash_with_a_whole_ttl() {
    let mut mesh = started(userspace());
    let said = json!({ "address": E1, "weight": 3, "zone": "z", "metadata": { "k": "v" }, "ttl": "20s" });
    assert_eq!(put(&mesh, "web/a", &said).status, 201);
    let before: Value = serde_json::from_str(&mesh.http("GET", "/v1/registry/web/a").body).unwrap();
    assert!(mesh.terminate().success());
    start(&mut mesh);
    assert_eq!(endpoints(&mesh, "web"), [E1], "from the first moment on");
    let after: Value = serde_json::from_str(&mesh.http("GET", "/v1/registry/web/a").body).unwrap();
    for field in ["address", "weight", "zone", "metadata", "ttl", "registered_at"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert!(after["ttl_remaining_ms"].as_f64().unwrap() > 15_000.0, "{after}");
    assert_eq!(put(&mesh, "web/b", &json!({ "address": E2 })).status, 201);
    let file = mesh.dir().join("state/registry.json");
    eventually("it is written down", || match fs::read_to_string(&file).unwrap_or_default() {
        text if text.contains(E2) => Ok(()),
        text => Err(text),
    });
    mesh.kill();
    start(&mut mesh);
    assert_eq!(endpoints(&mesh, "web"), [E1, E2]);
}

#[test]
fn a_torn_or_foreign_file_is_set_aside_and_said() {
    let mut mesh = userspace().idle();
    let state = mesh.dir().join("state");
    fs::create_dir(&state).unwrap();
    for (text, aside) in [
        ("{\"version\":1,\"instances\":[{\"serv", "registry.json.bad"),
        ("not ours at all\n", "registry.json.bad.2"),
        ("", "registry.json.bad.3"),
    ] {
        fs::write(state.join("registry.json"), text).unwrap();
        start(&mut mesh);
        assert_eq!(fs::read_to_string(state.join(aside)).unwrap(), text);
        assert!(mesh.log().contains(&format!("it is {} now", state.join(aside).display())), "{}", mesh.log());
        trouble(&mesh, aside);
        mesh.cli(&["register", "web", E1]).done();
        assert_eq!(endpoints(&mesh, "web"), [E1]);
        assert!(mesh.terminate().success());
    }
    start(&mut mesh);
    no_trouble(&mesh);
}

/// The registry says wherever it is asked how it is that something is wrong with it.
fn trouble(mesh: &Daemon, words: &str) {
    eventually("it says so", || {
        let source = mesh_tests::ask::find(&mesh.json(&["status"])["sources"], "name", "registry");
        let said = source["error"].as_str().is_some_and(|error| error.contains(words));
        if said { Ok(()) } else { Err(source.to_string()) }
    });
    let component = mesh.http_json("/health")["components"]["registry"].clone();
    let detail = component["detail"].as_str().unwrap_or_default();
    assert!(component["ok"] == false && detail.contains(words), "{component}");
    assert!(mesh.metrics().count("mesh_discovery_errors_total", &[("source", "registry")]) >= 1.0);
}

fn no_trouble(mesh: &Daemon) {
    eventually("nothing is wrong", || {
        let source = mesh_tests::ask::find(&mesh.json(&["status"])["sources"], "name", "registry");
        if source["error"].is_null() { Ok(()) } else { Err(source.to_string()) }
    });
    assert_eq!(mesh.http_json("/health")["components"]["registry"]["ok"], true);
}

#[test]
fn what_is_wrong_with_the_registry_stands_where_it_is_asked_how_it_is() {
    let port = Port::new();
    let mut mesh = userspace().idle();
    let token = mesh.dir().join("token");
    fs::write(&token, "secret\n").unwrap();
    mesh.configure(|c| c["discovery"] = json!({ "registry": { "listen": port.address(), "token_file": token } }));
    start(&mut mesh);
    no_trouble(&mesh);
    fs::rename(&token, mesh.dir().join("away")).unwrap();
    trouble(&mesh, "token: No such file or directory");
    fs::rename(mesh.dir().join("away"), &token).unwrap();
    no_trouble(&mesh);
    // Nobody can write there: not even root can make a file where a directory is.
    let obstacle = mesh.dir().join("state/registry.json.new");
    fs::create_dir(&obstacle).unwrap();
    mesh.cli(&["register", "web", E1]).done();
    trouble(&mesh, "not written down");
    fs::remove_dir(&obstacle).unwrap();
    no_trouble(&mesh);
}

#[test]
fn a_second_daemon_leaves_the_state_of_the_first_one_alone() {
    let mesh = started(userspace());
    let state = mesh.dir().join("state");
    let mut second = userspace().with(|c| c["node"]["state_dir"] = json!(state)).idle();
    let files = ["registry.json", "vips.json", "discovered.json"].map(|name| state.join(name));
    files.iter().for_each(|file| fs::write(file, "not yet whole").unwrap());
    second.spawn();
    assert_eq!(second.wait().code(), Some(1), "{}", second.log());
    assert!(second.log().contains("belongs to a running daemon"), "{}", second.log());
    assert!(!second.log().contains("json.bad"), "{}", second.log());
    assert!(!state.join("registry.json.bad").exists() && !state.join("vips.json.bad").exists());
}

#[test]
fn an_instance_is_deregistered_by_its_address_whatever_it_is_called() {
    let mesh = started(userspace());
    mesh.cli(&["register", "web", E1, "--id", "one"]).done();
    mesh.cli(&["register", "web", E2, "--id", "other"]).done();
    mesh.cli(&["deregister", "web", E1]).says(&["web: 10.1.0.1:8080 (one) is deregistered"]);
    assert_eq!(registered(&mesh), ["web/other"]);
    for id in ["a", "b"] {
        mesh.cli(&["register", "web", E1, "--id", id]).done();
    }
    mesh.cli(&["deregister", "web", E1]).ended(1).refused(&["several instances", E1, "a, b", "--id"]);
    mesh.cli(&["deregister", "web", E1, "--id", "a"]).done();
    mesh.cli(&["deregister", "web", E1]).done();
    assert_eq!(registered(&mesh), ["web/other"]);
    mesh.cli(&["deregister", "web", E1]).ended(1).refused(&["no instance", E1]);
    mesh.cli(&["deregister", "nobody", E1]).ended(1).refused(&["no instance", E1]);
}

/// `mesh register --keep`, at work.
struct Keeper {
    child: Child,
    stderr: std::path::PathBuf,
}

impl Keeper {
    fn start(mesh: &Daemon, address: &str, ttl: &str) -> Self {
        let stderr = mesh.dir().join(format!("keeper-{}", address.replace(':', "-")));
        let mut command = mesh.command(&["register", "web", address, "--ttl", ttl, "--keep"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(fs::File::create(&stderr).unwrap());
        Self { child: command.spawn().unwrap(), stderr }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Its exit code, and what it said on both streams.
    fn end(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        let code = self.child.wait().unwrap().code();
        (code, said + &fs::read_to_string(&self.stderr).unwrap())
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap()
    }
}

#[test]
fn whoever_is_kept_stays_and_goes_at_once_when_told_to_or_later_when_killed() {
    let mesh = started(userspace());
    let keepers = [E1, E2, "10.1.0.3:8080"].map(|address| Keeper::start(&mesh, address, "2s"));
    holds("all are there", || endpoints(&mesh, "web").len(), |n| *n == 3);
    thread::sleep(Duration::from_secs(5));
    assert_eq!(endpoints(&mesh, "web").len(), 3, "two TTLs later");
    let [interrupted, terminated, killed] = keepers;
    for (keeper, signal, address) in [(interrupted, Signal::SIGINT, E1), (terminated, Signal::SIGTERM, E2)] {
        keeper.signal(signal);
        let (code, said) = keeper.end();
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains(&format!("{address} is deregistered")), "{said}");
        assert!(!endpoints(&mesh, "web").contains(&address.to_owned()), "at once");
    }
    killed.signal(Signal::SIGKILL);
    let began = Instant::now();
    killed.end();
    assert_eq!(endpoints(&mesh, "web").len(), 1, "nobody said that it is gone");
    holds("it is dropped", || endpoints(&mesh, "web").len(), |n| *n == 0);
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}

#[test]
fn whoever_is_kept_comes_back_with_the_daemon_even_if_that_has_forgotten_all() {
    let mut mesh = started(userspace());
    let keeper = Keeper::start(&mesh, E1, "3s");
    holds("it is there", || endpoints(&mesh, "web").len(), |n| *n == 1);
    assert!(mesh.terminate().success());
    fs::remove_file(mesh.dir().join("state/registry.json")).unwrap();
    eventually("it says so", || if keeper.said().contains("trying again") { Ok(()) } else { Err(keeper.said()) });
    start(&mut mesh);
    holds("it is there again", || endpoints(&mesh, "web").len(), |n| *n == 1);
    eventually("it says so", || if keeper.said().contains("did not know it") { Ok(()) } else { Err(keeper.said()) });
    keeper.signal(Signal::SIGTERM);
    assert_eq!(keeper.end().0, Some(0));
}

/// PUT over TCP with more headers; the status.
fn put_at(address: &str, id: &str, header: &str) -> u16 {
    let mut stream = TcpStream::connect(address).unwrap();
    let body = json!({ "address": E1 }).to_string();
    let length = body.len();
    let head = format!("PUT /v1/registry/web/{id} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}");
    stream.write_all(format!("{head}content-length: {length}\r\n\r\n{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn registrations_over_tcp_need_the_token_and_the_listener_follows_the_configuration() {
    let (port, other) = (Port::new(), Port::new());
    let setup = userspace();
    let mut mesh = setup.idle();
    let token = mesh.dir().join("token");
    fs::write(&token, "secret\n").unwrap();
    mesh.configure(|c| {
        c["discovery"] = json!({ "registry": { "listen": port.address(), "token_file": token, "ttl": "7s" } });
    });
    start(&mut mesh);
    assert_eq!(put_at(&port.address(), "a", ""), 401);
    assert_eq!(put_at(&port.address(), "a", "authorization: Bearer wrong\r\n"), 401);
    assert_eq!(put_at(&port.address(), "a", "Authorization: Bearer secret\r\n"), 201);
    assert_eq!(http::tcp(&port.address(), "GET", "/v1/status", "").unwrap().status, 401);
    let one: Value = serde_json::from_str(&mesh.http("GET", "/v1/registry/web/a").body).unwrap();
    assert_eq!(one["ttl"], "7s", "as configured");
    // The file changes, nothing else.
    fs::write(mesh.dir().join("new"), "another\n").unwrap();
    fs::rename(mesh.dir().join("new"), &token).unwrap();
    assert_eq!(put_at(&port.address(), "a", "authorization: Bearer secret\r\n"), 401);
    assert_eq!(put_at(&port.address(), "a", "authorization: Bearer another\r\n"), 200);
    // The listener moves, and a port that is taken is a reload refused.
    let taken = std::net::TcpListener::bind(other.address()).unwrap();
    mesh.configure(|c| c["discovery"]["registry"] = json!({ "listen": other.address() }));
    mesh.cli(&["config", "reload"]).ended(1).refused(&["discovery.registry.listen"]);
    assert_eq!(put_at(&port.address(), "a", "authorization: Bearer another\r\n"), 200, "the old one stays");
    drop(taken);
    mesh.reload();
    assert_eq!(put_at(&other.address(), "b", ""), 201);
    assert_eq!(http::tcp(&other.address(), "GET", "/v1/status", "").unwrap().status, 404);
    holds("nobody at the old one", || TcpStream::connect(port.address()).is_err(), |gone| *gone);
}

#[test]
fn a_successor_knows_every_instance_and_nobody_is_turned_away() {
    let port = Port::new();
    let setup = userspace().with(|c| c["discovery"] = json!({ "registry": { "listen": port.address() } }));
    let mut mesh = started(setup);
    let keeper = Keeper::start(&mesh, E2, "3s");
    holds("it is there", || endpoints(&mesh, "web").len(), |n| *n == 1);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let address = port.address();
    thread::scope(|scope| {
        let asker = scope.spawn(|| {
            let mut counts = [0, 0];
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                match put_at(&address, "again", "") {
                    200 | 201 => counts[0] += 1,
                    503 => counts[1] += 1,
                    other => panic!("{other}"),
                }
            }
            counts
        });
        for n in 0..5 {
            let id = format!("{n}");
            assert_eq!(put(&mesh, &format!("web/{id}"), &json!({ "address": format!("10.1.1.{n}:80") })).status, 201);
            take_over(&mut mesh);
            assert!(registered(&mesh).contains(&format!("web/{id}")), "registered just before");
            assert!(endpoints(&mesh, "web").contains(&E2.to_owned()));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let [taken, put_off] = asker.join().unwrap();
        assert!(taken > 0, "{taken} taken, {put_off} put off");
    });
    keeper.signal(Signal::SIGINT);
    let (code, said) = keeper.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("did not know it"), "{said}");
}

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
    mesh.cli(&["endpoints", "drain", "web", E1]).done();
    mesh.cli(&["circuit", "trip", "web", E1]).done();
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

#[test]
fn a_service_is_said_to_have_no_endpoints_only_while_it_has_none() {
    let mesh = started(userspace());
    let lacks = || {
        let status = mesh.json(&["status"]);
        let warnings = status["warnings"].as_array().unwrap();
        warnings.iter().any(|warning| warning.as_str().unwrap().contains("the service web has no endpoints"))
    };
    assert!(lacks());
    for _ in 0..2 {
        assert_eq!(put(&mesh, "web/one", &json!({ "address": E1 })).status, 201);
        assert!(!lacks());
        assert_eq!(ask(&mesh, "DELETE", "/v1/registry/web/one", "").status, 200);
        assert!(lacks());
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
