//! Safety valves: timeouts, limits and rates.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{Deaf, Proxy, Scripted, Value, Wire, eventually, get, http_with, json, post, python};
use std::{
    thread,
    time::{Duration, Instant},
};

/// A service without retries and circuits, so that what is asked here is what happens.
fn alone(address: &str, more: Value) -> Value {
    let mut web = http_with("web", &[address], json!({ "retries": { "attempts": 0 } }));
    web["circuit_breaker"] = json!({ "failure_threshold": 0, "success_rate": { "floor": 0 } });
    for (key, value) in more.as_object().unwrap() {
        web[key] = value.clone();
    }
    json!([web])
}

/// Fails the test unless `what` takes between these times, in milliseconds.
#[track_caller]
fn takes<T>(least: u64, most: u64, what: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = what();
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(least) && took <= Duration::from_millis(most), "{took:?}");
    result
}

#[test]
fn an_answer_that_does_not_come_in_time_is_504() {
    let server = Scripted::slow();
    let proxy = Proxy::new(alone(&server.address(), json!({ "request_timeout": "300ms" })));
    // Less than it would be by default.
    takes(290, 4500, || proxy.refuses(get("web", "/10000"), 504, "request_timeout"));
    assert_eq!(proxy.ask(get("web", "/0")).text(), "done");
}

#[test]
fn the_time_begins_at_the_end_of_the_request_and_ends_with_the_head() {
    let server = Scripted::new(|connection| {
        connection.request();
        connection.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n");
        thread::sleep(Duration::from_millis(1500));
        connection.wire.send("late");
    });
    let proxy = Proxy::new(alone(&server.address(), json!({ "request_timeout": "1s" })));
    let mut wire = proxy.dial();
    wire.send("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\na");
    thread::sleep(Duration::from_millis(1500));
    wire.send("b");
    assert_eq!(wire.answer().text(), "late");
}

#[test]
fn zero_seconds_switch_the_timeout_off() {
    let server = Scripted::slow();
    let proxy = Proxy::with(alone(&server.address(), json!({ "request_timeout": "0s" })), |config| {
        config["defaults"]["request_timeout"] = json!("100ms");
    });
    assert_eq!(proxy.ask(get("web", "/500")).text(), "done");
}

#[test]
fn an_endpoint_that_takes_no_connection_is_504_after_the_connect_timeout() {
    let deaf = Deaf::new();
    let proxy = Proxy::new(alone(&deaf.address(), json!({ "connect_timeout": "300ms" })));
    takes(290, 8000, || proxy.refuses(get("web", "/"), 504, "connect_timeout"));
    takes(290, 8000, || assert_eq!(proxy.ask(post("web", "/", "body")).status(), 504));
}

#[test]
fn an_endpoint_that_refuses_connections_is_503_at_once() {
    let mut server = Scripted::slow();
    let proxy = Proxy::new(alone(&server.address(), json!({})));
    server.close();
    takes(0, 1000, || proxy.refuses(get("web", "/"), 503, "connect_failure"));
}

#[test]
fn an_endpoint_that_breaks_off_or_talks_nonsense_is_502() {
    let server = Scripted::new(|connection| {
        let Some(request) = connection.request() else { return };
        match request.target() {
            "/reset" => connection.reset(),
            "/nonsense" => drop(connection.wire.send("what?\r\n\r\n")),
            "/half" => drop(connection.wire.send("HTTP/1.1 200 OK\r\ncontent-le")),
            _ => {}
        }
    });
    let proxy = Proxy::new(alone(&server.address(), json!({})));
    proxy.refuses(get("web", "/reset"), 502, "upstream_reset");
    proxy.refuses(get("web", "/close"), 502, "upstream_reset");
    proxy.refuses(get("web", "/half"), 502, "upstream_reset");
    proxy.refuses(get("web", "/nonsense"), 502, "bad_response");
}

#[test]
fn requests_over_the_limit_are_refused_at_once() {
    let server = Scripted::slow();
    let more = json!({ "limits": { "max_requests": 2 }, "request_timeout": "0s" });
    let proxy = Proxy::new(alone(&server.address(), more));
    let mut held: Vec<Wire> = (0..2).map(|_| proxy.dial()).collect();
    for wire in &mut held {
        wire.send(get("web", "/3000"));
    }
    eventually("both are on their way", || if server.requests().len() == 2 { Ok(()) } else { Err("not yet") });
    takes(0, 2000, || proxy.refuses(get("web", "/0"), 503, "max_requests"));
    for wire in &mut held {
        assert_eq!(wire.answer().text(), "done");
    }
    assert_eq!(proxy.ask(get("web", "/0")).text(), "done", "and room is made again");
}

#[test]
fn connections_over_the_limit_wait_and_waiting_over_the_limit_is_refused() {
    let server = Scripted::slow();
    let more = json!({ "limits": { "max_connections": 1, "max_pending_requests": 1 }, "request_timeout": "0s" });
    let proxy = Proxy::with(alone(&server.address(), more), |config| config["proxy"]["workers"] = json!(1));
    let (mut first, mut second) = (proxy.dial(), proxy.dial());
    first.send(get("web", "/3000"));
    eventually("the first is on its way", || if server.requests().len() == 1 { Ok(()) } else { Err("not yet") });
    second.send(get("web", "/1"));
    thread::sleep(Duration::from_millis(150));
    takes(0, 2000, || proxy.refuses(get("web", "/2"), 503, "max_pending_requests"));
    assert_eq!(first.answer().text(), "done");
    assert_eq!(second.answer().text(), "done");
    assert_eq!(server.accepted(), 1, "never a second connection");
}

#[test]
fn requests_over_the_rate_are_429_and_the_bucket_fills_again() {
    let server = Scripted::slow();
    let rate = json!({ "rate_limit": { "requests_per_second": 10, "burst": 5 } });
    let proxy = Proxy::with(alone(&server.address(), rate), |config| config["proxy"]["workers"] = json!(1));
    let mut wire = proxy.dial();
    let mut passed = 0;
    let begin = Instant::now();
    for _ in 0..30 {
        let answer = wire.ask(get("web", "/0"));
        match answer.status() {
            200 => passed += 1,
            _ => assert_eq!((answer.status(), answer.reason()), (429, Some("rate_limited")), "{answer:?}"),
        }
    }
    let more = u32::try_from(begin.elapsed().as_millis()).unwrap() / 100 + 1;
    assert!((5..=5 + more).contains(&passed), "{passed}");
    assert!(proxy.rejected("rate_limited") >= 1.0);
    thread::sleep(Duration::from_millis(350));
    assert_eq!(wire.ask(get("web", "/0")).status(), 200);
}

#[test]
fn the_rate_holds_over_all_workers() {
    let server = Scripted::slow();
    let rate = json!({ "rate_limit": { "requests_per_second": 20, "burst": 20 } });
    let proxy = Proxy::new(alone(&server.address(), rate));
    let begin = Instant::now();
    let mut wires: Vec<Wire> = (0..8).map(|_| proxy.dial()).collect();
    let passed = (0..160).filter(|n| wires[n % 8].ask(get("web", "/0")).status() == 200).count();
    let most = 20.0 + begin.elapsed().as_secs_f64() * 20.0;
    assert!(passed >= 18 && passed as f64 <= most * 1.15 + 2.0, "{passed} passed, {most} allowed");
}

#[test]
fn a_connection_without_requests_is_closed_after_the_idle_timeout() {
    let server = Scripted::slow();
    let proxy = Proxy::new(alone(&server.address(), json!({ "idle_timeout": { "http": "2s" } })));
    let mut wire = proxy.dial();
    assert_eq!(wire.ask(get("web", "/0")).text(), "done");
    thread::sleep(Duration::from_millis(150));
    assert_eq!(wire.ask(get("web", "/0")).text(), "done");
    server.wait_until_idle();
}

/// An endpoint that sends as much as anybody takes.
fn generous() -> Scripted {
    Scripted::new(|connection| {
        connection.request();
        connection.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n");
        let piece = vec![b'x'; 1 << 16];
        while connection.wire.send(&piece) {}
    })
}

#[test]
fn a_client_that_does_not_read_its_answer_is_left_after_the_idle_timeout() {
    let server = generous();
    let proxy = Proxy::new(alone(&server.address(), json!({ "idle_timeout": { "http": "1s" } })));
    let mut wire = proxy.dial();
    takes(800, 8000, || {
        wire.send(get("web", "/"));
        eventually("it is asked", || if server.requests().len() == 1 { Ok(()) } else { Err("not yet") });
        server.wait_until_idle();
    });
    mesh_tests::holds("it is counted", || proxy.rejected("slow_reader"), |n| *n == 1.0);
    let line = eventually("it is logged", || {
        let log = proxy.log();
        log.lines().find(|line| line.contains("slow_reader")).map(str::to_owned).ok_or(log)
    });
    assert!(line.contains("\"status\":200"), "{line}");
    // What was sent before may be read; its end is none.
    wire.head().unwrap();
    wire.rest();
    assert!(wire.received().len() < 1_000_000_000);
}

#[test]
fn a_client_that_reads_slowly_and_an_endpoint_that_says_little_are_waited_for() {
    let server = generous();
    let proxy = Proxy::new(alone(&server.address(), json!({ "idle_timeout": { "http": "3s" } })));
    let mut wire = proxy.dial();
    wire.send(get("web", "/"));
    wire.head().unwrap();
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(400));
        assert_eq!(wire.take(4 << 20).unwrap().len(), 4 << 20);
    }
    assert_eq!(proxy.rejected("slow_reader"), 0.0);
    let silent = Scripted::each(|connection, _| {
        connection.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf");
        thread::sleep(Duration::from_millis(4500));
        connection.wire.send("half");
    });
    let proxy = Proxy::new(alone(&silent.address(), json!({ "idle_timeout": { "http": "3s" } })));
    assert_eq!(proxy.get("web").text(), "halfhalf");
}

#[test]
fn a_client_of_http2_that_does_not_read_its_answers_is_left_too() {
    let python = python!("h2, hpack");
    let server = generous();
    let more = json!({ "upstream": "http1", "idle_timeout": { "http": "1s" } });
    let proxy = Proxy::new(alone(&server.address(), more));
    let said = python.run("h2_client.py", &[&proxy.address(), "web", "deaf", "6"]).json();
    assert_eq!(said["ended"], "reset", "{said}");
    server.wait_until_idle();
    mesh_tests::holds("it is counted", || proxy.rejected("slow_reader"), |n| *n >= 1.0);
}
