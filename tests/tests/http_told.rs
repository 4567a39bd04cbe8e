//! What is told of a request, to its client, in the log and in metrics: the same, and what was.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{
    Nginx, Proxy, Scripted, Value, get, holds, http_service, http_with, json, post, program, programs, server,
};
use std::{thread, time::Duration};

/// Lines of the log, once there are so many.
fn lines(proxy: &Proxy, count: usize) -> Vec<Value> {
    holds("lines", || proxy.json(&["logs"]).as_array().unwrap().clone(), |lines| lines.len() == count)
}

fn responses(proxy: &Proxy, service: &str, status: &str) -> f64 {
    proxy.metrics().count("http_responses_total", &[("service", service), ("status", status)])
}

#[test]
fn answers_without_a_body_have_none_over_http2() {
    let curl = program!("curl");
    let mut web = http_service("web", &[]);
    web["routes"] = json!([{ "fault": { "abort_status": 204, "abort_percent": 100 } }]);
    let proxy = Proxy::new(json!([web]));
    let head = |host: &str| {
        let host = format!("host: {host}");
        programs::run(&curl, &["-sS", "--http2-prior-knowledge", "-I", "-H", &host, &proxy.url("/")]).done()
    };
    assert!(head("nobody").contains("x-mesh-reason: unknown_service"), "{}", head("nobody"));
    let empty =
        programs::run(&curl, &["-sS", "--http2-prior-knowledge", "-i", "-H", "host: web", &proxy.url("/")]).done();
    assert!(empty.starts_with("HTTP/2 204") && empty.contains("x-mesh-reason: fault"), "{empty}");
    let tunnel = programs::run(&curl, &["-sS", "--http2-prior-knowledge", "-X", "CONNECT", "-i", &proxy.url("/")]);
    assert!(!tunnel.stdout.contains("200"), "{tunnel}");
}

#[test]
fn a_slow_upload_takes_nothing_of_the_time_for_another_try() {
    let busy = Scripted::each(|connection, _| {
        connection.answer(503, "busy");
    });
    let good = Scripted::named("B2");
    let more = json!({ "retries": { "attempts": 3, "on": ["5xx"] }, "request_timeout": "1s" });
    let proxy = Proxy::new(json!([http_with("web", &[&busy.address(), &good.address()], more)]));
    // Whichever is first: one of the two meets the busy one.
    for _ in 0..2 {
        let mut wire = proxy.dial();
        wire.send("PUT / HTTP/1.1\r\nhost: web\r\ncontent-length: 6\r\n\r\nabc");
        thread::sleep(Duration::from_millis(1500));
        wire.send("def");
        let answer = wire.answer();
        assert_eq!((answer.status(), answer.text().as_str()), (200, "B2"), "{answer:?}");
    }
    let lines = lines(&proxy, 2);
    assert!(lines.iter().all(|line| line["sent_bytes"] == 6), "{lines:#?}");
    assert!(lines.iter().any(|line| line["attempts"] == 2), "{lines:#?}");
}

#[test]
fn an_answer_that_breaks_before_its_first_byte_is_the_proxys_everywhere() {
    let server = Scripted::new(|connection| {
        if connection.request().is_some() {
            // In one piece: of a head that comes alone, the client has heard before it breaks.
            connection.wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nno length\r\n");
        }
    });
    let proxy = Proxy::new(json!([http_with("web", &[&server.address()], json!({ "retries": { "attempts": 0 } }))]));
    let answer = proxy.get("web");
    assert_eq!((answer.status(), answer.reason()), (502, Some("bad_response")), "{answer:?}");
    let line = lines(&proxy, 1).remove(0);
    let said = [&line["service"], &line["status"], &line["reason"]];
    assert_eq!(said, [&json!("web"), &json!(502), &json!("bad_response")], "{line:#}");
    assert_eq!(responses(&proxy, "web", "502"), 1.0);
    let labels = [("service", "web"), ("reason", "bad_response")];
    assert_eq!(proxy.metrics().count("mesh_requests_rejected_total", &labels), 1.0);
}

#[test]
fn clients_that_go_away_are_told_of_as_such() {
    let server = Scripted::new(|connection| {
        let Some(request) = connection.request() else { return };
        if request.target() == "/stream" {
            connection.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nfirst");
            // Until the proxy ends it.
            connection.request();
        }
    });
    let proxy = Proxy::new(json!([http_service("web", &[&server.address()])]));
    let mut reader = proxy.dial();
    reader.send(get("web", "/stream"));
    assert_eq!(reader.head().unwrap().status(), 200);
    reader.reset();
    let line = lines(&proxy, 1).remove(0);
    assert_eq!((&line["status"], &line["reason"]), (&json!(200), &json!("downstream_reset")), "{line:#}");

    let mut writer = proxy.dial();
    writer.send("PUT /stream HTTP/1.1\r\nhost: web\r\ncontent-length: 1000\r\n\r\nhalf of it");
    holds("it arrives", || server.accepted(), |n| *n >= 2);
    drop(writer);
    let line = lines(&proxy, 2).into_iter().find(|line| line["method"] == "PUT").unwrap();
    assert_eq!((&line["status"], &line["reason"]), (&Value::Null, &json!("downstream_reset")), "{line:#}");
    assert_eq!(proxy.rejected("bad_request"), 0.0);
}

#[test]
fn what_is_no_request_is_in_the_log_with_its_client() {
    let proxy = Proxy::new(json!([http_service("web", &["127.0.0.1:9"])]));
    proxy.refuses("GET / HTTP/1.1\r\n\r\n", 400, "bad_request");
    proxy.refuses("what is this\r\n\r\n", 400, "not_http");
    let mut lines = lines(&proxy, 2);
    lines.sort_by_key(|line| line["reason"].to_string());
    for (line, reason) in lines.iter().zip(["bad_request", "not_http"]) {
        assert_eq!((&line["kind"], &line["status"], &line["reason"]), (&json!("request"), &json!(400), &json!(reason)));
        assert!(line["client"].as_str().unwrap().starts_with("127.0.0.1:"), "{line:#}");
        assert_eq!((&line["method"], &line["service"]), (&Value::Null, &Value::Null), "{line:#}");
    }
}

#[test]
fn a_mirror_is_spoken_to_as_it_is_said() {
    let (one, two) = (Scripted::named("B1"), server!(Nginx::http2("N")));
    let mut web = http_service("web", &[&one.address()]);
    web["routes"] = json!([{ "mirror": { "service": "copy", "percent": 100 } }]);
    let copy = http_with("copy", &[&two.address()], json!({ "upstream": "http2" }));
    let proxy = Proxy::new(json!([web, copy]));
    for _ in 0..3 {
        assert_eq!(proxy.get("web").text(), "B1");
        assert_eq!(proxy.ask(post("web", "/", "body")).text(), "B1");
    }
    holds(
        "copies are answered",
        || proxy.metrics().count("http_responses_total", &[("service", "copy")]),
        |n| *n == 6.0,
    );
    assert_eq!(proxy.endpoint("copy", &two.address())["circuit"], "closed");
}
