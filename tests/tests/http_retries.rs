//! What is tried again, where, how often; and what never is.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{Deaf, Message, Proxy, Scripted, Value, get, http_with, json, post, python};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// A service whose circuits stay out of the way. With one worker and taking turns the second try is the second endpoint.
fn over(addresses: &[&str], retries: Value, more: Value) -> Proxy {
    let mut web = http_with("web", addresses, more);
    web["circuit_breaker"] = json!({ "failure_threshold": 0, "success_rate": { "floor": 0 } });
    if retries.is_object() {
        web["retries"] = retries;
    }
    Proxy::with(json!([web]), |config| config["proxy"]["workers"] = json!(1))
}

fn defaults() -> (Value, Value) {
    (Value::Null, json!({}))
}

/// Breaks each connection off at the first request, once it was read.
fn breaking(reads_body: bool) -> Scripted {
    Scripted::new(move |connection| {
        if reads_body {
            connection.request()
        } else {
            connection.head()
        };
        connection.reset();
    })
}

fn retried(proxy: &Proxy) -> f64 {
    proxy.metrics().count("mesh_retries_total", &[("service", "web")])
}

#[test]
fn a_connect_that_fails_is_tried_at_another_endpoint_whatever_the_method() {
    let (mut gone, well) = (Scripted::named("gone"), Scripted::named("well"));
    let (retries, more) = defaults();
    let proxy = over(&[&gone.address(), &well.address()], retries, more);
    gone.close();
    let mut wire = proxy.dial();
    for _ in 0..10 {
        assert_eq!(wire.ask(get("web", "/")).text(), "well");
        assert_eq!(wire.ask(post("web", "/", "body")).text(), "well");
    }
    assert!(well.requests().iter().filter(|r| r.method() == "POST").all(|r| r.text() == "body"));
    assert!(retried(&proxy) >= 5.0);
}

#[test]
fn a_connect_that_takes_too_long_is_tried_elsewhere() {
    let (deaf, well) = (Deaf::new(), Scripted::named("well"));
    let proxy = over(&[&deaf.address(), &well.address()], Value::Null, json!({ "connect_timeout": "200ms" }));
    for _ in 0..4 {
        assert_eq!(proxy.get("web").text(), "well");
    }
}

#[test]
fn a_kept_connection_that_has_ended_costs_no_request() {
    // Each connection ends after one request, without a word.
    let server = Scripted::new(|connection| {
        connection.request();
        connection.answer(200, "once");
    });
    let (retries, more) = defaults();
    let proxy = over(&[&server.address()], retries, more);
    let mut wire = proxy.dial();
    for n in 0..50 {
        let answer = wire.ask(get("web", "/"));
        assert_eq!(answer.text(), "once", "request {n}: {answer:?}");
    }
    for n in 0..30 {
        // One that comes to the endpoint before the end of the connection was perhaps read: nobody can tell.
        server.wait_until_idle();
        thread::sleep(Duration::from_millis(5));
        let answer = wire.ask(post("web", "/", "body"));
        assert_eq!(answer.text(), "once", "request {n}: {answer:?}");
    }
}

#[test]
fn a_post_that_crosses_the_end_of_its_connection_never_arrives_twice() {
    // The end of each connection meets the next request at another place of its way.
    let turn = AtomicU64::new(0);
    let server = Scripted::new(move |connection| {
        connection.request();
        connection.answer(200, "once");
        let pause = Duration::from_micros(turn.fetch_add(7, Ordering::Relaxed) % 400);
        let begin = Instant::now();
        while begin.elapsed() < pause {}
    });
    let (retries, more) = defaults();
    let proxy = over(&[&server.address()], retries, more);
    let mut wire = proxy.dial();
    for n in 1..=400 {
        let before = server.requests().len();
        let answer = wire.ask(post("web", "/", &format!("body {n}")));
        let seen = server.requests().len() - before;
        // One that had come before the end was perhaps read: nobody but the endpoint knows.
        let expected = [(200, None, 1), (502, Some("upstream_reset"), 0)];
        assert!(expected.contains(&(answer.status(), answer.reason(), seen)), "request {n}: {answer:?}, seen {seen}");
    }
    // One that crosses the end is followed by one on a new connection.
    assert!(server.requests().len() >= 200, "{}", server.requests().len());
}

#[test]
fn a_post_that_was_read_on_a_kept_connection_is_not_sent_again_however_that_ends() {
    for resets in [false, true] {
        let server = Scripted::new(move |connection| {
            // By then the system waits with its confirmations.
            for _ in 0..30 {
                connection.request();
                connection.answer(200, "well");
            }
            connection.request();
            if resets {
                connection.reset();
            }
        });
        let proxy = over(&[&server.address()], Value::Null, json!({}));
        let mut wire = proxy.dial();
        for n in 1..=4 {
            for _ in 0..30 {
                assert_eq!(wire.ask(post("web", "/", "body")).text(), "well");
            }
            let answer = wire.ask(post("web", "/", "body"));
            assert_eq!((answer.status(), answer.reason()), (502, Some("upstream_reset")), "{answer:?}");
            assert_eq!(server.requests().len(), n * 31, "each is seen once");
        }
    }
}

#[test]
fn a_refused_stream_is_tried_again() {
    let python = python!("h2");
    let refusing = python.serve("h2_server.py", &["refuse"]);
    let well = python.serve("h2_server.py", &["ok"]);
    let (retries, _) = defaults();
    let proxy = over(&[&refusing.address(), &well.address()], retries, json!({ "upstream": "http2" }));
    for n in 0..6 {
        let answer = if n % 2 == 0 { proxy.ask(post("web", "/", "body")) } else { proxy.get("web") };
        assert_eq!((answer.status(), answer.text().as_str()), (200, "hello over h2"), "request {n}");
    }
}

#[test]
fn a_post_that_was_read_never_reaches_a_second_endpoint() {
    for retries in [Value::Null, json!({ "attempts": 3, "on": ["reset", "reset_before_request", "connect_failure"] })] {
        for reads_body in [true, false] {
            let servers = [breaking(reads_body), breaking(reads_body)];
            let proxy = over(&[&servers[0].address(), &servers[1].address()], retries.clone(), json!({}));
            for n in 1..=6 {
                let answer = proxy.ask(post("web", "/", "body"));
                assert_eq!((answer.status(), answer.reason()), (502, Some("upstream_reset")), "{answer:?}");
                let seen: usize = servers.iter().map(|server| server.requests().len()).sum();
                assert_eq!(seen, n, "each is seen once");
            }
        }
    }
}

#[test]
fn a_get_is_tried_again_after_a_reset_where_the_service_says_so() {
    let (broken, well) = (breaking(true), Scripted::named("well"));
    let addresses = [broken.address(), well.address()];
    let proxy = over(&[&addresses[0], &addresses[1]], json!({ "attempts": 1, "on": ["reset"] }), json!({}));
    for _ in 0..10 {
        assert_eq!(proxy.get("web").text(), "well");
    }
    assert!(broken.requests().len() >= 4);
    // By default it may have been done already.
    let (retries, more) = defaults();
    let proxy = over(&[&addresses[0], &addresses[1]], retries, more);
    let failed = (0..10).filter(|_| proxy.get("web").status() == 502).count();
    assert_eq!(failed, 5);
}

#[test]
fn an_idempotent_request_with_a_small_body_is_sent_again_whole() {
    let failing = Scripted::each(|connection, _| {
        connection.answer(503, "ill");
    });
    let well = Scripted::mirror();
    let retries = json!({ "attempts": 1, "on": ["5xx"] });
    let proxy = over(&[&failing.address(), &well.address()], retries, json!({}));
    let body = "0123456789".repeat(6000);
    let put = format!("PUT / HTTP/1.1\r\nhost: web\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    for _ in 0..4 {
        assert_eq!(proxy.ask(&put).status(), 200);
        assert_eq!(well.requests().pop().unwrap().text(), body);
    }
    // A POST is not, and its answer is the endpoint's own.
    let failed = (0..4).filter(|_| proxy.ask(post("web", "/", "x")).text() == "ill").count();
    assert_eq!(failed, 2);
}

#[test]
fn a_body_that_is_too_large_to_keep_is_not_sent_again() {
    let failing = Scripted::each(|connection, _| {
        connection.answer(503, "ill");
    });
    let well = Scripted::named("well");
    let proxy = over(&[&failing.address(), &well.address()], json!({ "attempts": 1, "on": ["5xx"] }), json!({}));
    let body = "0123456789".repeat(30_000);
    let put = format!("PUT / HTTP/1.1\r\nhost: web\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let answers: Vec<Message> = (0..6).map(|_| proxy.ask(&put)).collect();
    let ill = answers.iter().filter(|answer| answer.text() == "ill").count();
    assert_eq!(ill, 3, "half of them begin at the endpoint that is ill");
}

#[test]
fn gateway_errors_are_tried_again_and_other_5xx_are_not() {
    let status = Arc::new(AtomicUsize::new(503));
    let told = status.clone();
    let failing = Scripted::each(move |connection, _| {
        connection.answer(u16::try_from(told.load(Ordering::SeqCst)).unwrap(), "ill");
    });
    let well = Scripted::named("well");
    let retries = json!({ "attempts": 1, "on": ["gateway_error"] });
    let proxy = over(&[&failing.address(), &well.address()], retries, json!({}));
    for code in [502, 503, 504] {
        status.store(code, Ordering::SeqCst);
        assert!((0..4).all(|_| proxy.get("web").text() == "well"), "{code}");
    }
    status.store(500, Ordering::SeqCst);
    assert_eq!((0..4).filter(|_| proxy.get("web").text() == "ill").count(), 2);
}

#[test]
fn a_try_that_takes_too_long_is_followed_by_another() {
    let slow = Scripted::each(|connection, _| {
        thread::sleep(Duration::from_secs(10));
        connection.answer(200, "slow");
    });
    let well = Scripted::named("well");
    let retries = json!({ "attempts": 1, "on": ["timeout"], "per_try_timeout": "1s" });
    let proxy = over(&[&slow.address(), &well.address()], retries, json!({}));
    let begin = Instant::now();
    for _ in 0..4 {
        assert_eq!(proxy.get("web").text(), "well");
    }
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
}

#[test]
fn no_endpoint_is_tried_twice() {
    let failing: Vec<Scripted> = (0..3)
        .map(|_| {
            Scripted::each(|connection, _| {
                connection.answer(503, "ill");
            })
        })
        .collect();
    let addresses: Vec<String> = failing.iter().map(Scripted::address).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let retries = json!({ "attempts": 10, "on": ["5xx"], "backoff": { "base": "1ms", "max": "5ms" } });
    let proxy = over(&addresses, retries, json!({}));
    for n in 1..=3 {
        let answer = proxy.get("web");
        assert_eq!((answer.status(), answer.text().as_str()), (503, "ill"), "the last answer is the client's");
        assert!(failing.iter().all(|server| server.requests().len() == n), "each is asked once");
    }
}

#[test]
fn the_budget_bounds_extra_tries() {
    let failing: Vec<Scripted> = (0..2)
        .map(|_| {
            Scripted::each(|connection, _| {
                connection.answer(503, "ill");
            })
        })
        .collect();
    let retries = json!({ "attempts": 1, "on": ["5xx"], "backoff": { "base": "1ms", "max": "1ms" },
                          "budget": { "ratio": 0.1, "min_per_second": 1 } });
    let proxy = over(&[&failing[0].address(), &failing[1].address()], retries, json!({}));
    let mut wire = proxy.dial();
    for _ in 0..400 {
        wire.ask(get("web", "/"));
    }
    let tries: usize = failing.iter().map(|server| server.requests().len()).sum();
    assert!((401..=470).contains(&tries), "{tries} tries of 400 requests");
}

#[test]
fn tries_are_logged_and_counted_by_outcome() {
    let (mut gone, well) = (Scripted::named("gone"), Scripted::named("well"));
    let (retries, more) = defaults();
    let proxy = over(&[&gone.address(), &well.address()], retries, more);
    gone.close();
    proxy.ask(get("web", "/one"));
    proxy.ask(get("web", "/two"));
    let log = mesh_tests::eventually("both are logged", || {
        let log = proxy.log();
        if log.contains("/one") && log.contains("/two") { Ok(log) } else { Err(log) }
    });
    let tries = |path: &str| -> u64 {
        let line = log.lines().find(|line| line.contains(path)).unwrap();
        let row: Value = serde_json::from_str(line).unwrap();
        let found = [&row["attempts"], &row["fields"]["attempts"]].into_iter().find_map(Value::as_u64);
        found.unwrap_or_else(|| panic!("no attempts in {row}"))
    };
    assert_eq!(tries("/one") + tries("/two"), 3, "one of both was tried twice");
    assert_eq!(retried(&proxy), 1.0);
}
