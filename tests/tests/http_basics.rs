//! Messages of HTTP/1.1 on their way through the proxy: what client and endpoint see of each other.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{Nginx, Proxy, Scripted, get, http_service, http_with, json, post, program, programs, python, server};
use std::{
    fmt::Write,
    fs,
    sync::{Mutex, mpsc},
    thread,
    time::Duration,
};

fn before(server: &Scripted) -> Proxy {
    Proxy::new(json!([http_service("web", &[&server.address()])]))
}

#[test]
fn curl_gets_what_nginx_has() {
    let (curl, nginx) = (program!("curl"), server!(Nginx::http1("N1")));
    let proxy = Proxy::new(json!([http_service("web", &[&nginx.address()])]));
    let said = programs::run(&curl, &["-sv", "-H", "Host: web", &proxy.url("/")]).says(&["HTTP/1.1 200"]).done();
    assert_eq!(said, "N1\n");
    // As most clients are told to use a proxy.
    assert_eq!(programs::run(&curl, &["-s", "-x", &proxy.url(""), "http://web/"]).done(), "N1\n");
}

#[test]
fn methods_targets_and_bodies_arrive_as_they_were_sent() {
    let server = Scripted::mirror();
    let proxy = before(&server);
    let mut wire = proxy.dial();
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"] {
        let target = "/a%20b/./c/../d;x=1?q=%zz&r=+//";
        let answer = wire.ask(format!("{method} {target} HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\n\r\nbody"));
        assert_eq!(answer.status(), 200, "{answer:?}");
        let seen = server.requests().pop().unwrap();
        assert_eq!((seen.method(), seen.target(), seen.text().as_str()), (method, target, "body"));
    }
    let asterisk = wire.ask("OPTIONS * HTTP/1.1\r\nhost: web\r\n\r\n");
    assert_eq!(asterisk.status(), 200, "{asterisk:?}");
    assert_eq!(server.requests().pop().unwrap().target(), "*");
}

#[test]
fn head_is_answered_without_a_body_and_the_connection_goes_on() {
    let server = Scripted::each(|connection, request| {
        let body = if request.method() == "HEAD" { "" } else { "123456" };
        connection.wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n{body}"));
    });
    let proxy = before(&server);
    let mut wire = proxy.dial();
    wire.send("HEAD / HTTP/1.1\r\nhost: web\r\n\r\n");
    assert_eq!(wire.head().unwrap().header("content-length"), Some("6"));
    assert_eq!(wire.ask(get("web", "/")).text(), "123456");
    wire.send("HEAD / HTTP/1.1\r\nhost: nobody\r\n\r\n");
    assert_eq!(wire.head().unwrap().reason(), Some("unknown_service"));
    assert_eq!(wire.ask(get("web", "/")).text(), "123456");
}

#[test]
fn connections_are_kept_on_both_sides() {
    let server = Scripted::named("S");
    let proxy = before(&server);
    let mut wire = proxy.dial();
    for _ in 0..50 {
        assert_eq!(wire.ask(get("web", "/")).text(), "S");
    }
    assert_eq!(server.accepted(), 1, "one client, one connection");
}

#[test]
fn a_client_that_says_close_is_answered_and_left() {
    let server = Scripted::named("S");
    let proxy = before(&server);
    let mut wire = proxy.dial();
    let answer = wire.ask("GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n");
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("S", Some("close")));
    assert_eq!(wire.rest(), b"");
    // What one side says of its connection is not the other's.
    assert_eq!(proxy.get("web").text(), "S");
}

#[test]
fn an_http_1_0_client_gets_an_answer_it_understands() {
    let server = Scripted::each(|connection, _| {
        connection.wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    });
    let proxy = before(&server);
    let mut wire = proxy.dial();
    wire.send("GET / HTTP/1.0\r\nhost: web\r\n\r\n");
    let head = wire.head().unwrap();
    assert_eq!(head.status(), 200);
    assert_eq!(head.header("transfer-encoding"), None, "HTTP/1.0 has no chunks");
    assert_eq!(wire.rest(), b"hello");
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let server = Scripted::each(|connection, request| {
        // The first ones take longest.
        let n: u64 = request.target()[1..].parse().unwrap();
        thread::sleep(Duration::from_millis(20_u64.saturating_sub(n)));
        connection.answer(200, request.target());
    });
    let proxy = before(&server);
    let mut wire = proxy.dial();
    let requests: String = (0..30).fold(String::new(), |mut all, n| {
        let _ = match n % 2 {
            0 => write!(all, "{}", get("web", &format!("/{n}"))),
            _ => write!(all, "{}", post("web", &format!("/{n}"), "body")),
        };
        all
    });
    wire.send(requests);
    for n in 0..30 {
        assert_eq!(wire.answer().text(), format!("/{n}"));
    }
}

#[test]
fn chunks_and_trailers_pass_in_both_directions() {
    let server = Scripted::each(|connection, request| {
        let sum = request.trailers.iter().find(|(name, _)| name == "x-sum").map_or("none", |(_, v)| v);
        let body = request.text();
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-end\r\n\r\n";
        connection.wire.send(format!("{head}{:x}\r\n{body}\r\n0\r\nx-end: {sum}\r\n\r\n", body.len()));
    });
    let proxy = before(&server);
    let mut wire = proxy.dial();
    for _ in 0..2 {
        wire.send(
            "POST / HTTP/1.1\r\nhost: web\r\nte: trailers\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n",
        );
        for chunk in ["1\r\na\r\n", "2", "\r\nbc\r", "\n00003;x=y\r\ndef\r\n", "0\r\nx-sum: 6\r\n\r\n"] {
            wire.send(chunk);
            thread::sleep(Duration::from_millis(5));
        }
        let answer = wire.answer();
        assert_eq!(answer.text(), "abcdef");
        assert_eq!(answer.trailers, [("x-end".to_owned(), "6".to_owned())]);
    }
    assert_eq!(server.accepted(), 1);
}

#[test]
fn a_body_without_a_length_ends_with_the_connection() {
    let server = Scripted::new(|connection| {
        connection.request();
        connection.wire.send("HTTP/1.0 200 OK\r\nx-old: yes\r\n\r\n");
        connection.wire.send("all of it");
    });
    let proxy = before(&server);
    let mut wire = proxy.dial();
    let answer = wire.ask(get("web", "/"));
    assert_eq!((answer.text().as_str(), answer.header("x-old")), ("all of it", Some("yes")));
}

#[test]
fn answers_without_bodies_have_none() {
    let server = Scripted::each(|connection, request| {
        let length = if request.target() == "/304" { "content-length: 1000\r\n" } else { "" };
        connection.wire.send(format!("HTTP/1.1 {} X\r\n{length}etag: \"1\"\r\n\r\n", &request.target()[1..]));
    });
    let proxy = before(&server);
    let mut wire = proxy.dial();
    for status in [204, 304, 204] {
        let answer = wire.ask(get("web", &format!("/{status}")));
        assert_eq!((answer.status(), answer.header("etag")), (status, Some("\"1\"")));
    }
}

#[test]
fn curl_waits_for_100_continue_and_gets_it_from_the_endpoint() {
    let server = Scripted::new(|connection| {
        while let Some(head) = connection.head() {
            assert_eq!(head.header("expect"), Some("100-continue"), "{head:?}");
            connection.wire.patience(Duration::from_millis(100));
            assert!(connection.wire.some().is_err(), "nothing before it is asked for");
            connection.wire.patience(Duration::from_secs(10));
            connection.wire.send("HTTP/1.1 100 Continue\r\n\r\n");
            let body = connection.wire.take(4).unwrap();
            connection.answer(200, &String::from_utf8(body).unwrap());
        }
    });
    let (curl, proxy) = (program!("curl"), before(&server));
    let arguments = ["-sv", "--expect100-timeout", "10", "-H", "Host: web", "-H", "Expect: 100-continue"];
    let outcome = programs::run(&curl, &[&arguments[..], &["-d", "body", &proxy.url("/")]].concat());
    assert_eq!(outcome.clone().says(&["100 Continue"]).done(), "body", "{outcome}");
}

#[test]
fn an_endpoint_may_refuse_a_body_before_it_is_sent() {
    let server = Scripted::new(|connection| {
        connection.head();
        connection.wire.send("HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno");
        // The client may still send, or not: nobody waits for it.
        thread::sleep(Duration::from_millis(100));
    });
    let proxy = before(&server);
    let expecting = "POST / HTTP/1.1\r\nhost: web\r\nexpect: 100-continue\r\ncontent-length: 100000\r\n\r\n";
    assert_eq!(proxy.ask(expecting).status(), 413);
    let sending = "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 100000\r\n\r\nbegin";
    assert_eq!(proxy.ask(sending).status(), 413);
}

#[test]
fn early_hints_and_other_interim_answers_come_before_the_final_one() {
    let (go_on, told) = mpsc::channel();
    let told = Mutex::new(told);
    let server = Scripted::each(move |connection, _| {
        connection.wire.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n");
        connection.wire.send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\n");
        let _ = told.lock().unwrap().recv();
        connection.answer(200, "final");
    });
    let proxy = Proxy::new(json!([http_with("web", &[&server.address()], json!({ "upstream": "http1" }))]));
    let mut wire = proxy.dial();
    for _ in 0..2 {
        wire.send(get("web", "/"));
        assert_eq!(wire.head().unwrap().status(), 102);
        let hints = wire.head().unwrap();
        // They do not wait for the answer, which comes only now.
        go_on.send(()).unwrap();
        assert_eq!((hints.status(), hints.header("link"), hints.header("x-hop")), (103, Some("</a>"), None));
        assert!(hints.header("via").is_some() && hints.header("content-length").is_none(), "{hints:?}");
        assert_eq!(wire.answer().text(), "final");
    }
    // HTTP/1.0 does not know them.
    go_on.send(()).unwrap();
    let mut old = proxy.dial();
    old.send("GET / HTTP/1.0\r\nhost: web\r\n\r\n");
    assert_eq!(old.head().unwrap().status(), 200);
    // And to a client of HTTP/2 they are said as well.
    let python = python!("h2");
    go_on.send(()).unwrap();
    let said = python.run("h2_client.py", &[&proxy.address(), "web", "get"]).json();
    assert_eq!((said["interims"].to_string(), said["status"].as_str()), ("[102,103]".into(), Some("200")), "{said}");
}

#[test]
fn an_endpoint_that_says_interim_answers_without_end_is_502() {
    let server = Scripted::each(|connection, request| {
        let count: usize = request.target()[1..].parse().unwrap();
        for _ in 0..count {
            connection.wire.send("HTTP/1.1 103 Early Hints\r\n\r\n");
        }
        connection.answer(200, "final");
    });
    let proxy = before(&server);
    assert_eq!(proxy.ask(get("web", "/16")).text(), "final");
    let answer = proxy.ask(get("web", "/17"));
    assert_eq!((answer.status(), answer.reason()), (502, Some("bad_response")), "{answer:?}");
}

#[test]
fn a_protocol_that_nobody_asked_for_is_502() {
    let server = Scripted::each(|connection, _| {
        connection.wire.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n");
    });
    let proxy = before(&server);
    let answer = proxy.ask(get("web", "/"));
    assert_eq!((answer.status(), answer.reason()), (502, Some("bad_response")), "{answer:?}");
}

#[test]
fn large_bodies_arrive_whole_in_both_directions() {
    let (curl, nginx) = (program!("curl"), server!(Nginx::http1("N")));
    let proxy = Proxy::new(json!([http_service("web", &[&nginx.address()])]));
    let dir = tempfile::tempdir().unwrap();
    let (sent, got) = (dir.path().join("sent"), dir.path().join("got"));
    // No repetition in it, so a piece that is missing, doubled or moved shows.
    let bytes: Vec<u8> = (0..8_u32 << 20).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(&sent, &bytes).unwrap();
    let (sent, got_path) = (sent.to_string_lossy(), got.to_string_lossy());
    for framing in ["X-None: 1", "Transfer-Encoding: chunked"] {
        let url = proxy.url("/files/large");
        programs::run(&curl, &["-sf", "-H", "Host: web", "-H", framing, "-T", &sent, &url]).done();
        assert!(fs::read(nginx.files().as_ref().join("large")).unwrap() == bytes, "the upload with {framing}");
        programs::run(&curl, &["-sf", "-H", "Host: web", "-o", &got_path, &url]).done();
        assert!(fs::read(&got).unwrap() == bytes, "the download");
    }
}

#[test]
fn packed_bodies_are_not_touched() {
    let nginx = server!(Nginx::http1("N"));
    let proxy = Proxy::new(json!([http_service("web", &[&nginx.address()])]));
    fs::write(nginx.files().as_ref().join("text"), "many words ".repeat(10_000)).unwrap();
    let request = "GET /gzip/text HTTP/1.1\r\nhost: web\r\naccept-encoding: gzip\r\n\r\n";
    let direct = mesh_tests::Wire::connect(&nginx.address()).ask(request);
    let through = proxy.ask(request);
    assert_eq!(through.header("content-encoding"), Some("gzip"));
    assert_eq!((through.body == direct.body, through.body.len()), (true, direct.body.len()));
}
