//! Who registers and stays: by `mesh register --keep`, over TCP, and from one daemon to the next.

use crate::{E1, E2, endpoints, put, registered, start, started, take_over, userspace};
use mesh_tests::{Daemon, Value, eventually, holds, http, json, ports::Port};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

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
