//! Which service a request at the explicit proxy is for, and what those get that are for none.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{Proxy, Scripted, Wire, get, http_service, http_with, json};
use std::thread;

const VIP: &str = "10.96.0.10:80";

/// `web`, with names and a VIP of its own; `other`; and `raw`, which is TCP.
fn proxy(web: &Scripted, other: &Scripted) -> Proxy {
    let mut web = http_with("web", &[&web.address()], json!({ "hosts": ["web.internal", "shop.example.org"] }));
    web["addresses"] = json!([VIP, "[fd00::10]:80"]);
    let mut raw = http_service("raw", &[&other.address()]);
    raw["protocol"] = json!("tcp");
    Proxy::new(json!([web, http_service("other", &[&other.address()]), raw]))
}

#[test]
fn a_service_is_found_by_its_name_its_hosts_and_its_vip() {
    let (web, other) = (Scripted::named("web"), Scripted::named("other"));
    let proxy = proxy(&web, &other);
    let hosts = ["web", "WEB", "web:80", "web.internal", "Shop.Example.Org:8080", VIP, "[fd00::10]:80", "10.96.0.10"];
    for host in hosts {
        assert_eq!(proxy.get(host).text(), "web", "{host}");
    }
    assert_eq!(proxy.get("other").text(), "other");
    // One connection may ask several services.
    let mut wire = proxy.dial();
    for host in ["web", "other", "web"] {
        assert_eq!(wire.ask(get(host, "/")).text(), host);
    }
}

#[test]
fn a_request_for_nobody_is_answered_404_and_counted() {
    let (web, other) = (Scripted::named("web"), Scripted::named("other"));
    let proxy = proxy(&web, &other);
    for host in ["nobody", "web.nobody", "10.96.0.11:80", "10.96.0.10:81", &web.address()] {
        let answer = proxy.refuses(get(host, "/"), 404, "unknown_service");
        assert_eq!(answer.header("server"), Some("mesh"));
    }
    // It goes on after that.
    let mut wire = proxy.dial();
    assert_eq!(wire.ask(get("nobody", "/")).status(), 404);
    assert_eq!(wire.ask(get("web", "/")).text(), "web");
    assert!(web.requests().len() == 1 && other.requests().is_empty(), "nobody else is asked");
}

#[test]
fn a_request_without_a_host_is_refused_and_the_absolute_form_wins_over_host() {
    let (web, other) = (Scripted::named("web"), Scripted::named("other"));
    let proxy = proxy(&web, &other);
    assert_eq!(proxy.ask("GET / HTTP/1.1\r\n\r\n").status(), 400);
    assert_eq!(proxy.ask("GET / HTTP/1.1\r\nhost: web\r\nhost: other\r\n\r\n").status(), 400);
    let answer = proxy.ask("GET http://web/a?b=c HTTP/1.1\r\nhost: other\r\n\r\n");
    assert_eq!(answer.text(), "web", "{answer:?}");
    let seen = web.requests().pop().unwrap();
    // RFC 9112, 3.2.2: what is sent on is the origin form, with the host of the target.
    assert_eq!((seen.target(), seen.all("host")), ("/a?b=c", vec!["web"]));
    assert_eq!(proxy.ask("GET http://web HTTP/1.1\r\nhost: web\r\n\r\n").text(), "web");
    assert_eq!(web.requests().pop().unwrap().target(), "/");
}

#[test]
fn connect_makes_a_tunnel_to_a_known_service() {
    let echo = Scripted::new(|connection| {
        while let Ok(bytes) = connection.wire.some() {
            if bytes.is_empty() {
                break;
            }
            connection.wire.send(bytes);
        }
        connection.wire.send("the end");
    });
    let proxy = proxy(&echo, &echo);
    for authority in ["web:443", "web.internal:80", VIP] {
        let mut wire = proxy.dial();
        // Some clients do not wait for the answer.
        wire.send(format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n"));
        let head = wire.head().unwrap();
        assert_eq!(head.status(), 200, "{authority}: {head:?}");
        assert_eq!((head.header("content-length"), head.header("transfer-encoding")), (None, None));
        wire.send(b"\x16\x03\x01\0\xff no HTTP");
        assert_eq!(wire.take(13).unwrap(), b"\x16\x03\x01\0\xff no HTTP"[..13]);
        wire.finish();
        assert!(wire.rest().ends_with(b"the end"), "what comes after one side has finished still comes");
    }
}

#[test]
fn connect_to_anything_else_is_forbidden() {
    let (web, other) = (Scripted::named("web"), Scripted::named("other"));
    let proxy = proxy(&web, &other);
    for authority in [&web.address(), "nobody:80", "example.org:443", "127.0.0.1:22", &proxy.admin()] {
        proxy.refuses(format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n"), 403, "connect_forbidden");
    }
    assert_eq!(web.accepted() + other.accepted(), 0, "nobody is connected to");
}

#[test]
fn a_service_that_speaks_no_http_is_none_for_the_proxy() {
    let (web, other) = (Scripted::named("web"), Scripted::named("other"));
    let proxy = proxy(&web, &other);
    assert_eq!(proxy.get("raw").status(), 404);
}

#[test]
fn what_is_no_http_is_refused_and_counted() {
    let (web, other) = (Scripted::named("web"), Scripted::named("other"));
    let proxy = proxy(&web, &other);
    for bytes in [&b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"[..], b"SSH-2.0-OpenSSH_9.2\r\n", b"\0\0\0\0\r\n\r\n"] {
        let mut wire = Wire::connect(&proxy.address());
        wire.send(bytes);
        let answer = wire.answer();
        assert_eq!(answer.status(), 400, "{answer:?}");
        assert!(answer.reason().is_some(), "{answer:?}");
        assert_eq!(wire.rest(), b"", "and the connection ends");
    }
    assert_eq!(web.accepted() + other.accepted(), 0);
}

#[test]
fn a_service_without_endpoints_is_unavailable_at_once() {
    let proxy = Proxy::new(json!([http_service("empty", &[])]));
    proxy.refuses(get("empty", "/"), 503, "no_endpoint");
}

#[test]
fn many_clients_at_once_each_get_their_own_answer() {
    let server = Scripted::each(|connection, request| {
        connection.answer(200, request.target());
    });
    let proxy = Proxy::new(json!([http_service("web", &[&server.address()])]));
    thread::scope(|scope| {
        for client in 0..16 {
            let proxy = &proxy;
            scope.spawn(move || {
                let mut wire = proxy.dial();
                for n in 0..50 {
                    let path = format!("/{client}/{n}");
                    assert_eq!(wire.ask(get("web", &path)).text(), path);
                }
            });
        }
    });
}
