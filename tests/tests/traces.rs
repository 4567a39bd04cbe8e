//! Traces of requests: what is recorded, what goes on in headers, what a collector gets, and what happens without one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{
    Backend, Certificates, Collector, Message, Proxy, Scripted, Value, Wire,
    collector::{Arrived, Manner},
    eventually, get, holds, http_with, json,
    ports::Port,
    python, server,
    wire::identity,
    world,
};
use std::{
    collections::BTreeSet,
    io::Write,
    sync::{Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SAMPLED: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const NOT_SAMPLED: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// A GET of this path with these header lines.
fn with(path: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("GET {path} HTTP/1.1\r\nhost: web\r\n{lines}\r\n")
}

/// A service of these endpoints, whose traces are kept and sent as `tracing` says; one worker, so that turns are taken.
fn over(endpoints: &[&str], tracing: Value, more: Value) -> Proxy {
    let mut web = http_with("web", endpoints, more);
    web["circuit_breaker"] = json!({ "failure_threshold": 0, "success_rate": { "floor": 0 } });
    Proxy::with(json!([web]), |config| {
        config["proxy"]["workers"] = json!(1);
        config["telemetry"] = json!({ "tracing": tracing, "access_log": { "enabled": false } });
    })
}

/// The parent that an endpoint was told of, as trace, span and flags.
fn told(request: &Message) -> (String, String, String) {
    let parent = request.header("traceparent").unwrap_or_else(|| panic!("{request:?}"));
    let parts: Vec<&str> = parent.split('-').collect();
    let [_, trace, span, flags] = parts[..] else { panic!("{parent}") };
    (trace.to_owned(), span.to_owned(), flags.to_owned())
}

fn traces(proxy: &Proxy, more: &[&str]) -> Vec<Value> {
    let listed = proxy.cli(&[&["traces", "-o", "json"], more].concat()).json();
    listed.as_array().unwrap().clone()
}

/// Waits until so many traces are listed.
fn listed(proxy: &Proxy, count: usize) -> Vec<Value> {
    holds(&format!("{count} traces are listed"), || traces(proxy, &[]), |found| found.len() == count)
}

fn named<'s>(spans: &'s [Arrived], name: &str) -> Vec<&'s Arrived> {
    spans.iter().filter(|span| span.span.name == name).collect()
}

#[test]
fn a_collector_gets_each_request_with_its_tries_by_http_and_by_grpc() {
    for collector in [Collector::http(Manner::default()), Collector::grpc(Manner::default())] {
        let server = Scripted::named("S");
        let proxy = over(&[&server.address()], json!({ "otlp": collector.url(), "sample_rate": 0 }), json!({}));
        assert_eq!(proxy.ask(with("/a/b?c=d", &[SAMPLED, "tracestate: mine=1"])).text(), "S");
        let (trace, parent, flags) = told(&server.requests()[0]);
        assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"));
        assert_eq!(server.requests()[0].all("tracestate"), ["mine=1"]);

        let spans = collector.requests(1);
        let (requests, attempts, picks) = (named(&spans, "GET web"), named(&spans, "attempt"), named(&spans, "pick"));
        let ([request], [attempt], [pick]) = (&requests[..], &attempts[..], &picks[..]) else { panic!("{spans:?}") };
        assert_eq!((request.trace().as_str(), request.parent().as_str()), (TRACE, "00f067aa0ba902b7"));
        assert_eq!((attempt.trace(), attempt.parent()), (TRACE.to_owned(), request.id()));
        assert_eq!(attempt.id(), parent, "what the endpoint does is part of the try");
        assert_eq!((pick.trace(), pick.parent()), (TRACE.to_owned(), request.id()));
        assert_eq!((request.span.kind, attempt.span.kind, pick.span.kind), (2, 3, 1), "server, client, internal");
        assert_eq!((request.error(), attempt.error()), (None, None));
        for (key, value) in [
            ("http.request.method", "GET"),
            ("url.path", "/a/b"),
            ("url.query", "c=d"),
            ("http.response.status_code", "200"),
            ("http.response.body.size", "1"),
            ("client.address", "127.0.0.1"),
            ("network.protocol.version", "1.1"),
            ("mesh.service", "web"),
            ("mesh.attempts", "1"),
        ] {
            assert_eq!(request.get(key), value, "{key}: {request:?}");
        }
        assert_eq!((attempt.get("mesh.endpoint"), attempt.get("mesh.connection")), (&*server.address(), "new"));
        assert_eq!((pick.get("mesh.policy"), pick.get("mesh.candidates")), ("round_robin", "1"));
        let (begin, end) = (request.span.start_time_unix_nano, request.span.end_time_unix_nano);
        assert!(begin <= attempt.span.start_time_unix_nano && attempt.span.end_time_unix_nano <= end, "{spans:?}");
        for (key, value) in [("service.name", "mesh"), ("host.name", "test-node"), ("service.instance.id", "test-node")]
        {
            assert_eq!(request.resource.get(key).map(String::as_str), Some(value), "{:?}", request.resource);
        }
        assert!(request.resource.contains_key("service.version"));
        let metrics = || proxy.metrics();
        holds("what was sent is counted", metrics, |m| m.count("mesh_traces_exported_total", &[]) == 1.0);
        assert_eq!(metrics().count("mesh_traces_dropped_total", &[]), 0.0);
    }
}

#[test]
fn a_collector_is_reached_by_tls_and_only_one_that_can_be_trusted() {
    let made = server!(Certificates::new());
    made.authority("ca");
    made.authority("other");
    made.signed("server", "ca");
    let server = Scripted::named("S");
    for scheme in ["http", "grpc"] {
        let collector = Collector::secured(scheme, &identity(&made.at("server.pem"), &made.at("server.key")));
        let tracing = |ca: &str| json!({ "otlp": collector.url(), "ca_file": made.at(ca), "sample_rate": 0 });
        let mut proxy = over(&[&server.address()], tracing("other.pem"), json!({}));
        proxy.ask(with("/", &[SAMPLED, "tracestate: a=1", "tracestate: b=2"]));
        let metrics = || proxy.metrics();
        holds("it is not trusted", metrics, |m| m.count("mesh_trace_export_failures_total", &[]) > 0.0);
        assert!(proxy.log().contains("takes no traces: connect: invalid peer certificate"), "{}", proxy.log());
        assert_eq!(collector.messages(), 0);
        proxy.configure(|config| config["telemetry"]["tracing"] = tracing("ca.pem"));
        proxy.reload();
        let spans = collector.requests(1);
        assert!(spans.iter().all(|span| span.trace() == TRACE && span.span.trace_state == "a=1,b=2"), "{spans:?}");
    }
}

#[test]
fn what_nobody_has_decided_is_sampled_as_the_rate_says() {
    let server = Scripted::named("S");
    let proxy = over(&[&server.address()], json!({ "sample_rate": 1 }), json!({}));
    let mut wire = proxy.dial();
    for n in 0..5 {
        assert_eq!(wire.ask(with(&format!("/{n}"), &[])).status(), 200);
    }
    let found = listed(&proxy, 5);
    let paths: Vec<&str> = found.iter().map(|trace| trace["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/4", "/3", "/2", "/1", "/0"], "the newest first");
    for (trace, request) in found.iter().rev().zip(server.requests()) {
        assert_eq!((trace["trace_id"].as_str().unwrap(), "01"), (&*told(&request).0, &*told(&request).2));
        assert_eq!((&trace["service"], &trace["status"], &trace["attempts"]), (&json!("web"), &json!(200), &json!(1)));
    }
    assert_eq!(traces(&proxy, &["--limit", "2"]).len(), 2);
    assert_eq!(wire.ask(with("/x", &[NOT_SAMPLED])).status(), 200);
    assert_eq!(wire.ask(with("/y", &["b3: 0"])).status(), 200);
    assert_eq!(wire.ask(with("/z", &[])).status(), 200);
    assert_eq!(listed(&proxy, 6)[0]["path"], "/z", "a client that says no is heard");
}

#[test]
fn a_trace_that_is_not_sampled_goes_by_untouched() {
    let server = Scripted::named("S");
    let proxy = over(&[&server.address()], json!({ "sample_rate": 1 }), json!({}));
    proxy.ask(with("/", &[NOT_SAMPLED, "tracestate: a=1", "tracestate: b=2"]));
    let request = &server.requests()[0];
    assert_eq!(request.all("traceparent"), [&NOT_SAMPLED["traceparent: ".len()..]]);
    assert_eq!(request.all("tracestate"), ["a=1", "b=2"]);
    proxy.ask(with("/", &["traceparent: 00-nonsense", "tracestate: a=1"]));
    let request = &server.requests()[1];
    assert_eq!((told(request).0.len(), request.header("tracestate")), (32, None), "it begins anew");
}

#[test]
fn b3_goes_on_as_it_came_and_as_w3c() {
    let server = Scripted::named("S");
    let proxy = over(&[&server.address()], json!({ "sample_rate": 0 }), json!({}));
    proxy.ask(with("/", &["b3: a3ce929d0e0e4736-00f067aa0ba902b7-1"]));
    proxy.ask(with(
        "/",
        &["X-B3-TraceId: 4bf92f3577b34da6a3ce929d0e0e4736", "X-B3-SpanId: 00f067aa0ba902b7", "X-B3-Sampled: 1"],
    ));
    let requests = server.requests();
    let (trace, span, flags) = told(&requests[0]);
    assert_eq!((trace.as_str(), flags.as_str()), ("0000000000000000a3ce929d0e0e4736", "01"));
    let b3 = requests[0].header("b3").unwrap();
    assert!(b3.starts_with(&format!("a3ce929d0e0e4736-{span}-1-")), "{b3}");
    let (trace, span, _) = told(&requests[1]);
    assert_eq!((trace.as_str(), requests[1].header("x-b3-traceid")), (TRACE, Some(TRACE)));
    assert_eq!((requests[1].header("x-b3-spanid"), requests[1].header("x-b3-sampled")), (Some(&*span), Some("1")));
    assert_eq!(listed(&proxy, 2)[0]["trace_id"], TRACE);
}

#[test]
fn requests_that_failed_are_kept_whatever_the_rate() {
    let (heard, has_heard) = mpsc::channel();
    let has_heard = Mutex::new(has_heard);
    let server = Scripted::each(move |connection, request| match request.target() {
        "/error" => {
            connection.answer(500, "");
        }
        "/half" => {
            connection.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf");
            // Of what breaks before the client has heard of it, the proxy makes an answer of its own.
            let _ = has_heard.lock().unwrap().recv();
            connection.reset();
            let _ = connection.wire.stream().shutdown(std::net::Shutdown::Both);
        }
        "/slow" => thread::sleep(Duration::from_secs(5)),
        "/missing" => {
            connection.answer(404, "");
        }
        _ => {
            connection.answer(200, "");
        }
    });
    let more = json!({
        "request_timeout": "1s",
        "retries": { "attempts": 0 },
        "routes": [
            { "match": { "path": "/away" }, "redirect": { "host": "elsewhere" } },
            { "match": { "path": "/fault" }, "to": [{ "service": "web" }], "fault": { "abort_status": 418, "abort_percent": 100 } },
            { "match": { "path": "/unrouted", "method": "PUT" }, "to": [{ "service": "web" }] },
            { "match": { "path_prefix": "/", "method": "GET", "headers": {} }, "to": [{ "service": "web" }] },
        ],
    });
    let proxy = over(&[&server.address()], json!({ "sample_rate": 0 }), more);
    for (path, status, reason) in [
        ("/error", json!(500), json!(null)),
        ("/slow", json!(504), json!("request_timeout")),
        ("/half", json!(200), json!("upstream_reset")),
        ("/fault", json!(418), json!("fault")),
    ] {
        let mut wire = proxy.dial();
        wire.send(with(path, &[]));
        wire.head().unwrap();
        if path == "/half" {
            heard.send(()).unwrap();
        }
        let newest = || traces(&proxy, &["--limit", "1"]);
        let found = holds(&format!("{path} is kept"), newest, |found| found.first().is_some_and(|t| t["path"] == path));
        assert_eq!((&found[0]["status"], &found[0]["reason"], &found[0]["sampled"]), (&status, &reason, &json!(false)));
    }
    let before = traces(&proxy, &[]).len();
    for (path, status) in [("/well", 200), ("/missing", 404), ("/away", 302)] {
        assert_eq!(proxy.ask(with(path, &[])).status(), status);
    }
    assert_eq!(proxy.ask(get("nobody", "/x")).status(), 404);
    let found = listed(&proxy, before + 1);
    assert_eq!(
        (&found[0]["path"], &found[0]["reason"], &found[0]["service"]),
        (&json!("/x"), &json!("unknown_service"), &json!(null))
    );
    // A client that does not wait.
    let mut wire = proxy.dial();
    wire.send(with("/slow", &[]));
    thread::sleep(Duration::from_millis(50));
    wire.reset();
    let found = listed(&proxy, before + 2);
    assert_eq!((&found[0]["path"], &found[0]["status"]), (&json!("/slow"), &json!(null)));
}

#[test]
fn requests_that_were_tried_again_are_kept_with_every_try() {
    let collector = Collector::http(Manner::default());
    let bad = Scripted::each(|connection, _| {
        connection.answer(503, "");
    });
    let good = Scripted::named("good");
    let retries = json!({ "retries": { "attempts": 1, "on": ["5xx"], "backoff": { "base": "30ms", "max": "30ms" } } });
    let tracing = json!({ "otlp": collector.url(), "sample_rate": 0 });
    let proxy = over(&[&bad.address(), &good.address()], tracing, retries);
    let mut wire = proxy.dial();
    for _ in 0..2 {
        assert_eq!(wire.ask(with("/", &[])).text(), "good");
    }
    assert_eq!(bad.requests().len(), 1, "one of two met the bad one");
    let spans = collector.requests(1);
    let (requests, attempts) = (named(&spans, "GET web"), named(&spans, "attempt"));
    let ([request], [first, second]) = (&requests[..], &attempts[..]) else { panic!("{spans:?}") };
    assert_eq!((request.error(), request.get("mesh.attempts"), request.parent().as_str()), (None, "2", ""));
    assert_eq!(
        (first.error(), first.get("mesh.endpoint"), first.get("mesh.attempt")),
        (Some("503"), &*bad.address(), "1")
    );
    assert_eq!((second.error(), second.get("mesh.endpoint")), (None, &*good.address()));
    assert_eq!(second.get("http.request.resend_count"), "1");
    assert!(first.span.end_time_unix_nano < second.span.start_time_unix_nano, "between them it waits");
    let of_bad = told(&bad.requests()[0]);
    let of_good = good.requests().iter().map(told).find(|told| told.0 == request.trace()).unwrap();
    assert_eq!((of_bad.1, of_good.1), (first.id(), second.id()), "each endpoint is told of its own try");
    assert_eq!((of_bad.2, of_good.2), ("00".to_owned(), "00".to_owned()), "that it is kept changes no decision");
}

#[test]
fn one_trace_is_shown_as_a_waterfall_and_unknown_ones_are_refused() {
    let server = Scripted::each(|connection, _| {
        thread::sleep(Duration::from_millis(20));
        connection.answer(200, "");
    });
    let proxy = over(&[&server.address()], json!({ "sample_rate": 0 }), json!({}));
    let evil = format!("/{}?q=%1b[2J", "x".repeat(8000));
    assert_eq!(proxy.ask(with(&evil, &[SAMPLED])).status(), 200);
    listed(&proxy, 1);
    let shown = proxy.cli(&["traces", TRACE]).done();
    for words in
        ["Trace    4bf9", "\nGET web ", "\n  attempt 127.0.0.1:", "█", "http.response.status_code", "mesh.connection"]
    {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    let table = proxy.cli(&["traces"]).done();
    assert!(table.contains(TRACE) && table.lines().all(|line| line.len() < 300), "{table}");
    let detail = proxy.cli(&["traces", TRACE, "-o", "json"]).json();
    assert_eq!((&detail["trace_id"], detail["spans"].as_array().unwrap().len()), (&json!(TRACE), 3));
    let request = &detail["spans"][0];
    assert_eq!(
        (&request["name"], &request["parent_id"], &request["kind"]),
        (&json!("GET web"), &json!("00f067aa0ba902b7"), &json!("server"))
    );
    assert!(
        request["duration_ms"].as_f64().unwrap() >= 15.0 && request["start"].as_str().unwrap().ends_with('Z'),
        "{request}"
    );
    assert_eq!(
        request["attributes"]["url.path"].as_str().unwrap().chars().count(),
        4097,
        "4096 bytes, and that there is more"
    );
    assert!(proxy.cli(&["traces", TRACE, "-o", "yaml"]).done().contains("span_id:"));

    assert_eq!(proxy.http_json(&format!("/v1/traces/{TRACE}")), detail);
    assert_eq!(proxy.http_json("/v1/traces?service=web&limit=1")[0]["trace_id"], TRACE);
    let other = "0af7651916cd43dd8448eb211c80319c";
    let refused = proxy.try_http("GET", &format!("/v1/traces/{other}")).unwrap();
    assert!(refused.status == 404 && refused.body.contains("no trace 0af7"), "{refused:?}");
    proxy.cli(&["traces", other]).ended(1).says(&["no trace", other]);
    proxy.cli(&["traces", "short"]).ended(2).says(&["32 hexadecimal digits"]);
    assert_eq!(proxy.try_http("GET", "/v1/traces/short").unwrap().status, 400);
    assert_eq!(proxy.try_http("POST", "/v1/traces").unwrap().status, 405);
    assert_eq!(traces(&proxy, &["--service", "web"]).len(), 1);
    proxy.cli(&["traces", "--service", "nobody"]).ended(1).says(&["no service nobody"]);
}

#[test]
fn pipelined_requests_have_a_trace_each_and_a_tunnel_has_one_for_all() {
    let server = Scripted::new(|connection| {
        while let Some(request) = connection.request() {
            if request.header("upgrade").is_none() {
                connection.answer(200, "");
                continue;
            }
            connection.wire.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
            let mut bytes = [0; 4];
            let _ = std::io::Read::read_exact(&mut connection.wire.stream(), &mut bytes);
            connection.wire.send(bytes);
            return;
        }
    });
    let proxy = over(&[&server.address()], json!({ "sample_rate": 1 }), json!({}));
    let mut wire = proxy.dial();
    wire.send(format!("{}{}{}", with("/1", &[]), with("/2", &[SAMPLED]), with("/3", &[])));
    (0..3).for_each(|_| assert_eq!(wire.answer().status(), 200));
    let found = listed(&proxy, 3);
    let ids: BTreeSet<&str> = found.iter().map(|trace| trace["trace_id"].as_str().unwrap()).collect();
    assert!(ids.len() == 3 && ids.contains(TRACE), "{found:?}");

    let mut wire = proxy.dial();
    assert_eq!(wire.ask(with("/tunnel", &["connection: upgrade", "upgrade: echo"])).status(), 101);
    wire.send("ping");
    wire.finish();
    let found = listed(&proxy, 4);
    let tunnel = &found[0];
    assert_eq!(
        (&tunnel["path"], &tunnel["status"], &tunnel["reason"]),
        (&json!("/tunnel"), &json!(101), &json!(null)),
        "{tunnel}"
    );
    let id = tunnel["trace_id"].as_str().unwrap();
    let request = proxy.cli(&["traces", id, "-o", "json"]).json()["spans"][0].clone();
    assert_eq!(request["attributes"]["http.response.body.size"], 4, "{request}");
}

#[test]
fn a_copy_for_a_mirror_has_no_span_and_carries_the_trace_of_its_original() {
    let collector = Collector::grpc(Manner::default());
    let (server, shadow) = (Scripted::named("S"), Scripted::named("shadow"));
    let mut web = http_with("web", &[&server.address()], json!({}));
    web["routes"] =
        json!([{ "match": {}, "to": [{ "service": "web" }], "mirror": { "service": "shadow", "percent": 100 } }]);
    let services = json!([web, http_with("shadow", &[&shadow.address()], json!({}))]);
    let proxy = Proxy::with(services, |config| {
        config["telemetry"] = json!({ "tracing": { "otlp": collector.url(), "sample_rate": 1 } });
    });
    proxy.ask(with("/", &[]));
    let copies = holds("the copy arrives", || shadow.requests(), |requests| requests.len() == 1);
    assert_eq!(told(&copies[0]), told(&server.requests()[0]));
    let spans = collector.requests(1);
    assert_eq!(spans.len(), 3, "{spans:?}");
}

#[test]
fn grpc_that_failed_in_its_trailers_is_kept() {
    let python = python!("grpc, grpc_health");
    let server = python.serve("grpc_server.py", &["G1"]);
    let mut checkout = http_with("checkout", &[&server.address()], json!({}));
    checkout["protocol"] = json!("grpc");
    let proxy = Proxy::with(json!([checkout]), |config| {
        config["telemetry"] = json!({ "tracing": { "sample_rate": 0 } });
    });
    python.run("grpc_client.py", &[&proxy.address(), "checkout", "described"]).done();
    python.run("grpc_client.py", &[&proxy.address(), "checkout", "say", "fail INTERNAL"]).done();
    let found = listed(&proxy, 1);
    let id = found[0]["trace_id"].as_str().unwrap();
    let spans = proxy.cli(&["traces", id, "-o", "json"]).json();
    let request = &spans["spans"][0];
    assert_eq!(request["attributes"]["network.protocol.version"], "2", "{request}");
    assert!(request["error"].as_str().unwrap().starts_with("grpc_status_"), "{request}");
}

/// What collectors do that get nothing done.
fn useless() -> Vec<(&'static str, String, Box<dyn std::any::Any>)> {
    let nobody = Port::new();
    let hangs = Scripted::new(|connection| while connection.request().is_some() {});
    let closes = Scripted::new(|_| {});
    let slow = Collector::http(Manner { pause: Duration::from_secs(20), ..Manner::default() });
    let address = |address: String| format!("grpc://{address}");
    vec![
        ("nobody", address(nobody.address()), Box::new(nobody)),
        ("hangs", address(hangs.address()), Box::new(hangs)),
        ("closes", format!("http://{}", closes.address()), Box::new(closes)),
        ("slow", slow.url(), Box::new(slow)),
    ]
}

#[test]
fn a_collector_that_takes_nothing_holds_up_nothing_and_costs_no_more_than_its_share() {
    for (what, url, _kept) in useless() {
        let server = Scripted::named("S");
        let proxy = over(&[&server.address()], json!({ "otlp": url, "sample_rate": 1, "keep": 10 }), json!({}));
        let mut wire = proxy.dial();
        let requests = 5000;
        for n in 0..requests {
            assert_eq!(wire.ask(with(&format!("/{n}/{}", "x".repeat(n % 100)), &[])).status(), 200, "{what}");
        }
        let count = |name: &str, labels: &[(&str, &str)]| proxy.metrics().count(name, labels);
        holds("all are kept", || count("mesh_traces_kept_total", &[]), |kept| *kept == f64::from(requests as u32));
        holds(
            &format!("{what}: more than may wait are dropped"),
            || count("mesh_traces_dropped_total", &[("reason", "overflow")]),
            |dropped| *dropped > 0.0,
        );
        assert_eq!(count("mesh_traces_exported_total", &[]), 0.0, "{what}");
        assert_eq!(traces(&proxy, &[]).len(), 10, "{what}");
    }
}

#[test]
fn hostile_paths_take_no_more_memory_than_traces_may() {
    let server = Scripted::named("S");
    let proxy = {
        let web = http_with("web", &[&server.address()], json!({}));
        Proxy::with(json!([web]), |config| {
            config["telemetry"] = json!({
                "memory": "4MiB", "tracing": { "sample_rate": 1, "keep": 1_000_000 }, "access_log": { "enabled": false },
            });
        })
    };
    let flood = |from: usize, count: usize| {
        let mut wire = proxy.dial();
        for n in from..from + count {
            let answer = wire.ask(with(&format!("/{n}/{}", "%1b".repeat(2700)), &[]));
            assert_eq!(answer.status(), 200);
        }
    };
    flood(0, 2000);
    let before = proxy.resident_kib();
    flood(2000, 8000);
    let after = proxy.resident_kib();
    assert!(after < before + 8 * 1024, "{before} KiB, then {after} KiB");
    let kept = traces(&proxy, &[]).len();
    assert!((100..2000).contains(&kept), "{kept}");
}

#[test]
fn a_collector_that_comes_later_gets_what_still_waits() {
    let port = Port::new();
    let server = Scripted::named("S");
    let tracing = json!({ "otlp": format!("grpc://{}", port.address()), "sample_rate": 1 });
    let proxy = over(&[&server.address()], tracing, json!({}));
    (0..5).for_each(|_| assert_eq!(proxy.ask(with("/", &[])).status(), 200));
    let failures = || proxy.metrics().count("mesh_trace_export_failures_total", &[]);
    holds("sending fails", failures, |failures| *failures > 0.0);
    eventually("the log says so", || {
        if proxy.log().contains("takes no traces: connect") { Ok(()) } else { Err(proxy.log()) }
    });
    let collector = Collector::at(port, "grpc");
    let spans = collector.requests(5);
    let ids: BTreeSet<String> = spans.iter().map(Arrived::id).collect();
    assert_eq!((ids.len(), spans.len()), (15, 15), "each once");
}

#[test]
fn what_a_collector_will_never_take_is_dropped_and_what_it_takes_in_part_is_said() {
    let server = Scripted::named("S");
    for scheme in ["http", "grpc"] {
        let new = |manner| if scheme == "http" { Collector::http(manner) } else { Collector::grpc(manner) };
        let refusing = new(Manner { refuses: true, ..Manner::default() });
        let mut proxy = over(&[&server.address()], json!({ "otlp": refusing.url(), "sample_rate": 1 }), json!({}));
        proxy.ask(with("/", &[]));
        let refused = || proxy.metrics().count("mesh_traces_dropped_total", &[("reason", "refused")]);
        holds("it is dropped", refused, |refused| *refused == 1.0);
        // A reload names another one.
        let picky = new(Manner { rejects: 2, ..Manner::default() });
        proxy.configure(|config| config["telemetry"]["tracing"]["otlp"] = json!(picky.url()));
        proxy.reload();
        proxy.ask(with("/", &[]));
        assert_eq!(picky.requests(1).len(), 3);
        let rejected = || proxy.metrics().count("mesh_trace_spans_rejected_total", &[]);
        holds("what it took no notice of is counted", rejected, |rejected| *rejected == 2.0);
        proxy.ask(with("/", &[]));
        holds("and counted on", rejected, |rejected| *rejected == 4.0);
        let log = proxy.log();
        assert_eq!(log.matches("took no notice of 2 spans: no room").count(), 1, "{log}");
    }
}

#[test]
fn what_waits_is_sent_before_the_daemon_ends_and_an_end_waits_for_no_collector() {
    let collector = Collector::http(Manner::default());
    let server = Scripted::named("S");
    let mut proxy = over(&[&server.address()], json!({ "otlp": collector.url(), "sample_rate": 1 }), json!({}));
    let mut wire = proxy.dial();
    let began = Instant::now();
    for _ in 0..1500 {
        wire.ask(with("/", &[]));
    }
    drop(wire);
    assert!(proxy.terminate().success());
    assert_eq!(collector.spans().len(), 3 * 1500);
    // One every 200 ms, and those that are full.
    let (messages, took) = (collector.messages(), began.elapsed());
    assert!(messages as u128 <= took.as_millis() / 200 + 10, "in batches: {messages} in {took:?}");

    let hangs = Scripted::new(|connection| while connection.request().is_some() {});
    let otlp = format!("http://{}", hangs.address());
    let mut proxy = over(&[&server.address()], json!({ "otlp": otlp, "sample_rate": 1 }), json!({}));
    proxy.ask(with("/", &[]));
    holds("it hangs", || hangs.requests().len(), |requests| *requests > 0);
    // Which takes three seconds; the harness waits for thirty.
    assert!(proxy.terminate().success());
    assert!(proxy.log().contains("ended before a collector had them"), "{}", proxy.log());
}

#[test]
fn without_tracing_nothing_is_kept_and_traces_go_by() {
    let server = Scripted::named("S");
    let proxy = over(&[&server.address()], json!({ "sample_rate": 1, "keep": 0 }), json!({}));
    proxy.ask(with("/", &[SAMPLED]));
    proxy.ask(with("/", &[]));
    assert_eq!(server.requests()[0].all("traceparent"), [&SAMPLED["traceparent: ".len()..]]);
    assert_eq!(told(&server.requests()[1]).2, "01");
    let nothing = proxy.cli(&["traces"]).says(&["no traces"]);
    assert_eq!(nothing.done(), "");
    assert_eq!(proxy.metrics().count("mesh_traces_kept_total", &[]), 0.0);
}

#[test]
fn requests_of_captured_clients_are_traced_and_the_collectors_own_are_not() {
    const VIP: &str = "10.96.0.10:80";
    const ENDPOINT: &str = "10.1.0.1:8080";
    let world = world!();
    let collector = Collector::http(Manner::default());
    let _endpoint = Backend::new(world.netns(), ENDPOINT, |stream| {
        thread::spawn(move || {
            let mut wire = Wire::over(stream);
            while let Ok(request) = wire.request() {
                let body = request.header("traceparent").unwrap_or("none").to_owned();
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                if wire.stream().write_all(format!("{head}{body}").as_bytes()).is_err() {
                    return;
                }
            }
        });
    });
    let mut web = http_with("web", &[ENDPOINT], json!({}));
    web["addresses"] = json!([VIP]);
    let mesh = world
        .setup(json!([web]))
        .with(|config| {
            config["proxy"] = json!({ "http": "", "workers": 2 });
            config["telemetry"] = json!({ "tracing": { "otlp": collector.url(), "sample_rate": 1 } });
        })
        .start();
    let parent = eventually("the client is captured", || {
        let mut wire = Wire::over(world.dial(VIP).map_err(|e| e.to_string())?.into());
        match wire.try_answer_to(&get("web", "/")).map(|answer| answer.text()) {
            Ok(parent) if parent != "none" => Ok(parent),
            other => Err(format!("{other:?}")),
        }
    });
    let spans = collector.requests(1);
    let attempt = named(&spans, "attempt")[0];
    assert_eq!(parent, format!("00-{}-{}-01", attempt.trace(), attempt.id()));
    assert_eq!(mesh.cli(&["traces", "--service", "web", "-o", "json"]).json().as_array().unwrap().len(), 1);
}
