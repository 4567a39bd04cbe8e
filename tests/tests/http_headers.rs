//! Headers: which the proxy takes away, which it adds, and what it says in answers of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{Haproxy, Message, Proxy, Scripted, eventually, get, http_service, json, server};

fn before(server: &Scripted) -> Proxy {
    Proxy::new(json!([http_service("web", &[&server.address()])]))
}

/// What an endpoint sees of a GET with these lines among its headers.
#[track_caller]
fn seen(proxy: &Proxy, server: &Scripted, lines: &str) -> Message {
    let answer = proxy.ask(format!("GET / HTTP/1.1\r\nhost: web\r\n{lines}\r\n"));
    assert_eq!(answer.status(), 200, "{answer:?}");
    server.requests().pop().unwrap()
}

#[test]
fn headers_of_one_connection_stay_on_it() {
    let server = Scripted::each(|connection, _| {
        connection.wire.send(
            "HTTP/1.1 200 OK\r\nconnection: keep-alive, x-mine\r\nkeep-alive: timeout=5\r\nx-mine: 1\r\n\
             proxy-authenticate: Basic\r\nx-yours: 2\r\ncontent-length: 0\r\n\r\n",
        );
    });
    let proxy = before(&server);
    let request = "GET / HTTP/1.1\r\nhost: web\r\nconnection: x-secret, keep-alive\r\nx-secret: 1\r\nkeep-alive: 300\r\n\
                   proxy-connection: keep-alive\r\nproxy-authorization: Basic eDp5\r\nte: gzip\r\nx-open: 2\r\n\r\n";
    let answer = proxy.ask(request);
    let seen = server.requests().pop().unwrap();
    for name in ["x-secret", "keep-alive", "proxy-connection", "proxy-authorization", "te"] {
        assert_eq!(seen.header(name), None, "{name} of the request: {seen:?}");
    }
    assert_eq!(seen.header("x-open"), Some("2"));
    for name in ["keep-alive", "x-mine"] {
        assert_eq!(answer.header(name), None, "{name} of the answer: {answer:?}");
    }
    assert_eq!(answer.header("x-yours"), Some("2"));
}

#[test]
fn te_trailers_is_the_one_coding_that_is_passed_on() {
    let server = Scripted::named("S");
    let proxy = before(&server);
    let seen = seen(&proxy, &server, "te: trailers, deflate\r\nconnection: te\r\n");
    assert_eq!((seen.header("te"), seen.header("connection")), (Some("trailers"), Some("te")), "{seen:?}");
}

#[test]
fn an_endpoint_learns_who_asked_and_by_which_way() {
    let server = Scripted::named("S");
    let proxy = before(&server);
    let first = seen(&proxy, &server, "");
    assert_eq!(first.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(first.header("x-forwarded-proto"), Some("http"));
    assert!(first.header("via").unwrap().starts_with("1.1 "), "{first:?}");
    let id = first.header("x-request-id").unwrap();
    assert!(id.len() >= 16, "{id}");
    let second = seen(&proxy, &server, "");
    assert_ne!(second.header("x-request-id"), Some(id), "each request has its own");
}

#[test]
fn what_proxies_before_said_is_kept_and_added_to() {
    let server = Scripted::named("S");
    let proxy = before(&server);
    let lines = "x-forwarded-for: 192.0.2.1\r\nx-forwarded-proto: https\r\nx-request-id: mine\r\nvia: 2 first\r\n";
    let seen = seen(&proxy, &server, lines);
    assert_eq!(seen.all("x-forwarded-for").join(", "), "192.0.2.1, 127.0.0.1");
    assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
    assert_eq!(seen.all("x-request-id"), ["mine"]);
    let via = seen.all("via").join(", ");
    assert!(via.starts_with("2 first, 1.1 "), "{via}");
}

#[test]
fn an_answer_without_a_date_gets_one_and_so_do_those_of_the_proxy() {
    let server = Scripted::named("S");
    let proxy = before(&server);
    for answer in [proxy.get("web"), proxy.get("nobody")] {
        let dates = answer.all("date");
        assert!(dates.len() == 1 && dates[0].ends_with(" GMT") && dates[0].len() == 29, "{answer:?}");
    }
}

#[test]
fn a_request_that_may_not_be_passed_on_is_answered_by_the_proxy() {
    let server = Scripted::named("S");
    let proxy = before(&server);
    let asking = |method: &str, most: &str| {
        proxy.ask(format!("{method} / HTTP/1.1\r\nhost: web\r\nmax-forwards: {most}\r\n\r\n"))
    };
    let answer = asking("OPTIONS", "0");
    assert_eq!((answer.status(), answer.reason()), (200, Some("max_forwards")), "{answer:?}");
    assert_eq!(asking("TRACE", "0").status(), 501);
    assert!(server.requests().is_empty());
    for (method, expected) in [("OPTIONS", "6"), ("TRACE", "6"), ("GET", "7")] {
        assert_eq!(asking(method, "7").text(), "S");
        assert_eq!(server.requests().pop().unwrap().header("max-forwards"), Some(expected), "{method}");
    }
}

#[test]
fn nobody_gets_through_in_http2_or_from_http_1_0_by_an_upgrade() {
    let server = Scripted::named("S");
    let proxy = before(&server);
    for protocol in ["h2c", "H2C", "websocket, h2c", "h2c-16"] {
        let lines = format!("connection: upgrade, http2-settings\r\nupgrade: {protocol}\r\nhttp2-settings: AAMA\r\n");
        let seen = seen(&proxy, &server, &lines);
        for name in ["connection", "upgrade", "http2-settings"] {
            assert_eq!(seen.header(name), None, "{seen:?}");
        }
    }
    let old = "GET / HTTP/1.0\r\nhost: web\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    assert_eq!(proxy.ask(old).status(), 200);
    assert_eq!(server.requests().pop().unwrap().header("upgrade"), None);
}

#[test]
fn the_host_of_a_target_is_the_host() {
    let server = Scripted::named("S");
    let proxy = before(&server);
    let mut wire = proxy.dial();
    for (line, target) in [
        ("GET http://web/path?q HTTP/1.1\r\nhost: other", "/path?q"),
        ("GET http://web HTTP/1.1\r\nhost: other", "/"),
        ("OPTIONS http://web HTTP/1.1\r\nhost: other", "*"),
        ("OPTIONS http://web/ HTTP/1.1\r\nhost:", "/"),
        ("OPTIONS * HTTP/1.1\r\nhost: web", "*"),
    ] {
        assert_eq!(wire.ask(format!("{line}\r\n\r\n")).text(), "S", "{line}");
        let seen = server.requests().pop().unwrap();
        assert_eq!((seen.target(), &seen.all("host")[..]), (target, &["web"][..]), "{line}");
    }
    proxy.refuses("GET / HTTP/1.1\r\nhost:\r\n\r\n", 404, "unknown_service");
    proxy.refuses("GET / HTTP/1.1\r\nhost: web\r\nhost: web\r\n\r\n", 400, "bad_request");
    proxy.refuses("GET / HTTP/1.1\r\n\r\n", 400, "bad_request");
}

#[test]
fn an_endpoint_that_closes_its_connection_does_not_close_that_of_the_client() {
    let server = Scripted::new(|connection| {
        let target = connection.request().unwrap().target().to_owned();
        connection
            .wire
            .send(format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{target}", target.len()));
    });
    let proxy = before(&server);
    let mut wire = proxy.dial();
    wire.send(["/1", "/2", "/3"].map(|path| get("web", path)).concat());
    for path in ["/1", "/2", "/3"] {
        let answer = wire.answer();
        assert_eq!((answer.text().as_str(), answer.header("connection")), (path, None), "{answer:?}");
    }
}

#[test]
fn a_trace_goes_on() {
    let server = Scripted::named("S");
    let proxy = before(&server);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let lines = format!("traceparent: 00-{trace}-00f067aa0ba902b7-01\r\ntracestate: a=1,b=2\r\n");
    let seen = seen(&proxy, &server, &lines);
    let carried = seen.all("traceparent");
    assert_eq!(carried.len(), 1, "{seen:?}");
    let parts: Vec<&str> = carried[0].split('-').collect();
    assert_eq!((parts.len(), parts[0], parts[1]), (4, "00", trace), "{carried:?}");
    assert_eq!(seen.header("tracestate"), Some("a=1,b=2"));
}

#[test]
fn other_headers_pass_as_they_are() {
    let server = Scripted::each(|connection, _| {
        connection.wire.send(
            "HTTP/1.1 200 OK\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nserver: theirs\r\ndate: then\r\n\
             x-empty:\r\nx-bytes: \u{e4}\r\ncontent-length: 0\r\n\r\n",
        );
    });
    let proxy = before(&server);
    let mut wire = proxy.dial();
    wire.send(
        "GET / HTTP/1.1\r\nhost: web\r\ncookie: a=1; b=2\r\nX-Twice: 1\r\nx-twice: 2\r\nauthorization: Bearer x\r\n\
         x-empty:\r\nuser-agent: \u{e4}\r\n\r\n",
    );
    let answer = wire.answer();
    let seen = server.requests().pop().unwrap();
    assert_eq!(seen.header("cookie"), Some("a=1; b=2"));
    assert_eq!(seen.all("x-twice"), ["1", "2"]);
    assert_eq!(seen.header("authorization"), Some("Bearer x"));
    assert_eq!((seen.header("x-empty"), seen.header("user-agent")), (Some(""), Some("\u{e4}")));
    assert_eq!(answer.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!((answer.header("server"), answer.header("date")), (Some("theirs"), Some("then")));
    assert_eq!((answer.header("x-empty"), answer.header("x-bytes")), (Some(""), Some("\u{e4}")));
    assert_eq!(answer.reason(), None);
}

#[test]
fn haproxy_sees_the_same_as_a_server_of_ours() {
    let haproxy = server!(Haproxy::http1("H"));
    let proxy = Proxy::new(json!([http_service("web", &[&haproxy.address()])]));
    let said = proxy.ask(get("web", "/path")).text();
    assert!(said.starts_with("1.1 GET /path\n"), "{said}");
    for line in ["host: web", "x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http", "via: 1.1 ", "x-request-id: "] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

#[test]
fn an_answer_of_the_proxy_has_a_length_and_is_no_page_of_html() {
    let proxy = Proxy::new(json!([]));
    let answer = proxy.get("nobody");
    assert!(answer.header("content-length").is_some(), "{answer:?}");
    assert!(answer.header("content-type").is_none_or(|kind| kind.starts_with("text/plain")), "{answer:?}");
    assert!(!answer.text().contains('<'), "{answer:?}");
}

#[test]
fn requests_and_answers_are_counted_by_service_method_endpoint_and_status() {
    let server = Scripted::each(|connection, request| {
        connection.answer(request.target()[1..].parse().unwrap_or(200), "");
    });
    let proxy = before(&server);
    let mut wire = proxy.dial();
    for path in ["/", "/", "/404", "/500"] {
        wire.ask(get("web", path));
    }
    wire.ask(mesh_tests::post("web", "/", "body"));
    eventually("all are counted", || {
        let metrics = proxy.metrics();
        let asked = |method: &str| metrics.count("http_requests_total", &[("service", "web"), ("method", method)]);
        let answered = |status: &str| {
            let labels = [("service", "web"), ("endpoint", &server.address()), ("status", status)];
            metrics.count("http_responses_total", &labels)
        };
        let timed = metrics.count("http_request_duration_seconds_count", &[("service", "web")]);
        let seen = [asked("GET"), asked("POST"), answered("200"), answered("404"), answered("500"), timed];
        if seen == [4.0, 1.0, 3.0, 1.0, 1.0, 5.0] { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}

#[test]
fn each_request_is_logged_in_one_line() {
    let server = Scripted::named("S");
    let proxy = before(&server);
    proxy.ask("GET /seen?x=1 HTTP/1.1\r\nhost: web\r\nx-request-id: the-id\r\n\r\n");
    proxy.get("nobody");
    let line = eventually("a line about the request", || {
        let log = proxy.log();
        let found = log.lines().find(|line| line.contains("/seen")).map(str::to_owned);
        found.filter(|_| log.contains("unknown_service")).ok_or(log)
    });
    let row: mesh_tests::Value = serde_json::from_str(&line).unwrap();
    let text = row.to_string();
    for word in ["\"web\"", &server.address(), "GET", "200"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}
