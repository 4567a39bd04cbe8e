//! Ends and beginnings under load: the daemon's, the endpoints', and those of configurations.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{
    Nginx, Proxy, Scripted, Value, Wire, daemon::Setup, eventually, get, http_with, json, program, programs, server,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Clients that ask without pause, on kept connections, until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<(u64, Vec<String>)>>,
}

impl Load {
    fn start(proxy: &Proxy, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = || {
            let (stop, address) = (stop.clone(), proxy.address());
            thread::spawn(move || ask_on(&address, &stop))
        };
        Self { clients: (0..clients).map(|_| client()).collect(), stop }
    }

    /// How many were answered with 200, and what else there was.
    fn stop(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        let (mut answered, mut failures) = (0, Vec::new());
        for client in self.clients {
            let (well, ill) = client.join().unwrap();
            answered += well;
            failures.extend(ill);
        }
        (answered, failures)
    }
}

fn ask_on(address: &str, stop: &AtomicBool) -> (u64, Vec<String>) {
    let (mut answered, mut failures) = (0, Vec::new());
    let mut wire = Wire::connect(address);
    while !stop.load(Ordering::SeqCst) {
        match wire.try_answer_to(&get("web", "/")) {
            Ok(answer) if answer.status() == 200 => {
                answered += 1;
                if answer.header("connection") == Some("close") {
                    wire = Wire::connect(address);
                }
            }
            Ok(answer) => failures.push(format!("{} {:?}", answer.status(), answer.reason())),
            Err(e) => {
                failures.push(e.to_string());
                wire = Wire::connect(address);
            }
        }
    }
    (answered, failures)
}

fn service(addresses: &[String], more: Value) -> Value {
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    json!([http_with("web", &addresses, more)])
}

#[test]
fn a_daemon_that_is_told_to_stop_finishes_what_it_has_begun() {
    let server = Scripted::each(|connection, _| {
        thread::sleep(Duration::from_secs(2));
        connection.answer(200, "whole");
    });
    let mut proxy = Proxy::new(service(&[server.address()], json!({})));
    let (mut busy, mut idle) = (proxy.dial(), proxy.dial());
    idle.patience(Duration::from_secs(5));
    busy.send(get("web", "/"));
    eventually("it is asked", || server.requests().first().map(|_| ()).ok_or("not yet"));
    let client = thread::spawn(move || {
        let answer = busy.answer();
        (answer, busy.rest())
    });
    let begin = Instant::now();
    assert!(proxy.terminate().success(), "{}", proxy.log());
    let (answer, rest) = client.join().unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "whole"));
    assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
    assert_eq!((rest.as_slice(), idle.rest().as_slice()), (&b""[..], &b""[..]));
    assert!(begin.elapsed() < Duration::from_secs(8), "nothing is waited for in vain: {:?}", begin.elapsed());
}

#[test]
fn what_does_not_finish_in_time_is_broken_off() {
    let server = Scripted::each(|connection, _| {
        thread::sleep(Duration::from_secs(20));
        connection.answer(200, "too late");
    });
    let services = service(&[server.address()], json!({ "request_timeout": "0s" }));
    let mut proxy = Proxy::with(services, |config| config["proxy"]["drain_timeout"] = json!("500ms"));
    let mut wire = proxy.dial();
    wire.send(get("web", "/"));
    eventually("it is asked", || server.requests().first().map(|_| ()).ok_or("not yet"));
    let begin = Instant::now();
    proxy.terminate();
    let took = begin.elapsed();
    assert!(took > Duration::from_millis(400) && took < Duration::from_secs(5), "{took:?}");
    assert!(!String::from_utf8_lossy(&wire.rest()).contains("200 OK"));
}

#[test]
fn reloads_under_load_fail_no_request() {
    let servers = [Scripted::named("A"), Scripted::named("B"), Scripted::named("C")];
    let addresses: Vec<String> = servers.iter().map(Scripted::address).collect();
    let mut proxy = Proxy::new(service(&addresses, json!({})));
    let load = Load::start(&proxy, 4);
    for round in 0..6 {
        thread::sleep(Duration::from_millis(150));
        // Endpoints come and go, settings change.
        let kept: Vec<String> =
            addresses.iter().enumerate().filter(|(n, _)| *n != round % 3).map(|(_, a)| a.clone()).collect();
        let policy = ["round_robin", "random", "least_connections"][round % 3];
        proxy.set_services(service(&kept, json!({ "load_balancing": { "policy": policy } })));
    }
    let (answered, failures) = load.stop();
    assert!(failures.is_empty(), "{failures:?}");
    assert!(answered > 200, "{answered}");
}

#[test]
fn a_service_that_is_added_is_there_and_one_that_is_taken_away_is_not() {
    let (a, b) = (Scripted::named("A"), Scripted::named("B"));
    let mut proxy = Proxy::new(service(&[a.address()], json!({})));
    let mut wire = proxy.dial();
    assert_eq!(wire.ask(get("other", "/")).status(), 404);
    let mut services = service(&[a.address()], json!({}));
    services.as_array_mut().unwrap().push(mesh_tests::http_service("other", &[&b.address()]));
    proxy.set_services(services);
    eventually("the new one answers", || match wire.ask(get("other", "/")).text() {
        text if text == "B" => Ok(()),
        text => Err(text),
    });
    proxy.set_services(json!([]));
    eventually("both are gone", || match wire.ask(get("web", "/")).status() {
        404 => Ok(()),
        status => Err(status),
    });
}

#[test]
fn endpoints_that_are_killed_under_load_fail_no_get_with_retries() {
    let mut servers = [server!(Nginx::http1("A")), server!(Nginx::http1("B")), server!(Nginx::http1("C"))];
    let addresses: Vec<String> = servers.iter().map(Nginx::address).collect();
    let retries = json!({ "attempts": 2, "on": ["connect_failure", "reset_before_request", "reset", "refused_stream"],
                          "budget": { "ratio": 1.0, "min_per_second": 1000 } });
    let proxy = Proxy::new(service(&addresses, json!({ "retries": retries })));
    let load = Load::start(&proxy, 8);
    thread::sleep(Duration::from_millis(500));
    servers[0].kill();
    thread::sleep(Duration::from_millis(500));
    servers[1].kill();
    thread::sleep(Duration::from_millis(500));
    let (answered, failures) = load.stop();
    assert!(failures.is_empty(), "{failures:?}");
    assert!(answered > 200, "{answered}");
    assert!(proxy.metrics().count("mesh_retries_total", &[("service", "web")]) >= 1.0);
}

#[test]
fn wrk_sees_no_error_over_many_connections() {
    let (wrk, nginx) = (program!("wrk"), server!(Nginx::http1("N")));
    let proxy = Proxy::new(service(&[nginx.address()], json!({})));
    let arguments = ["-t1", "-c100", "-d1s", "-H", "Host: web", &proxy.url("/")];
    let said = programs::run(&wrk, &arguments).done();
    assert!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "{said}");
    assert!(said.contains("requests in"), "{said}");
}

#[test]
fn a_daemon_that_was_killed_starts_again_at_the_same_port() {
    let server = Scripted::named("S");
    let mut proxy = Proxy::new(service(&[server.address()], json!({})));
    let mut wire = proxy.dial();
    assert_eq!(wire.ask(get("web", "/")).text(), "S");
    proxy.kill();
    assert_eq!(wire.rest(), b"");
    server.wait_until_idle();
    proxy.start();
    assert_eq!(proxy.get("web").text(), "S");
}

#[test]
fn a_port_that_is_taken_is_warned_of_and_the_daemon_runs_without() {
    let server = Scripted::named("S");
    let other = Scripted::named("other");
    let services = service(&[server.address()], json!({}));
    let mut mesh =
        Setup::userspace(services).with(|config| config["proxy"] = json!({ "http": other.address() })).idle();
    mesh.spawn();
    mesh.wait_for("/health", 200);
    eventually("it is warned", || {
        let log = mesh.log();
        let warned = |line: &str| line.contains(&other.address()) && line.contains("WARN");
        if log.lines().any(warned) { Ok(()) } else { Err(log) }
    });
}

#[test]
fn settings_of_the_proxy_need_a_restart() {
    let server = Scripted::named("S");
    let mut proxy = Proxy::new(service(&[server.address()], json!({})));
    proxy.configure(|config| config["proxy"]["drain_timeout"] = json!("7s"));
    proxy.cli(&["config", "reload"]).refused(&["proxy"]);
    assert_eq!(proxy.get("web").text(), "S", "and it goes on as before");
}

#[test]
fn a_daemon_that_takes_over_fails_no_request() {
    let servers = [Scripted::named("A"), Scripted::named("B")];
    let addresses: Vec<String> = servers.iter().map(Scripted::address).collect();
    let mut proxy = Proxy::new(service(&addresses, json!({})));
    let load = Load::start(&proxy, 4);
    thread::sleep(Duration::from_millis(300));
    for _ in 0..2 {
        let successor = proxy.successor();
        assert!(proxy.wait().success(), "{}", proxy.log());
        proxy.follow(successor);
        proxy.wait_for("/health", 200);
        thread::sleep(Duration::from_millis(300));
    }
    let (answered, failures) = load.stop();
    assert!(failures.is_empty(), "{failures:?}");
    assert!(answered > 200, "{answered}");
}
