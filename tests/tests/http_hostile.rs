//! Requests that mean harm over HTTP/1.1: refused or bounded, and never sent on in a form that two readers read in two
//! ways. The endpoint remembers every byte it got.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{Proxy, Scripted, Wire, get, http_service, http_with, json};
use std::{
    thread,
    time::{Duration, Instant},
};

fn before(server: &Scripted) -> Proxy {
    Proxy::new(json!([http_service("web", &[&server.address()])]))
}

/// What is wrong, and the request that is.
const REFUSED: &[(&str, &str)] = &[
    (
        "length and chunks",
        "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunks and length",
        "POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\ncontent-length: 40\r\n\r\n0\r\n\r\n",
    ),
    ("two lengths", "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcde"),
    ("a list of lengths", "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 4, 5\r\n\r\nabcde"),
    ("a length with a sign", "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: +4\r\n\r\nabcd"),
    ("a negative length", "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: -1\r\n\r\n"),
    ("a length in hex", "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 0x4\r\n\r\nabcd"),
    ("an empty length", "POST / HTTP/1.1\r\nhost: web\r\ncontent-length:\r\n\r\n"),
    ("a length that overflows", "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 18446744073709551620\r\n\r\nabcd"),
    ("an unknown coding", "POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("chunked not last", "POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    ("chunked twice", "POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    (
        "two codings",
        "POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\ntransfer-encoding: x\r\n\r\n0\r\n\r\n",
    ),
    ("a coding in quotes", "POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    ("a tab in a coding", "POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chun\tked\r\n\r\n0\r\n\r\n"),
    ("chunks in HTTP/1.0", "POST / HTTP/1.0\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a space before the colon", "POST / HTTP/1.1\r\nhost: web\r\ncontent-length : 4\r\n\r\nabcd"),
    ("a tab before the colon", "POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding\t: chunked\r\n\r\n0\r\n\r\n"),
    ("a folded line", "GET / HTTP/1.1\r\nhost: web\r\nx-a: 1\r\n transfer-encoding: chunked\r\n\r\n"),
    ("a first line that is folded", "GET / HTTP/1.1\r\n host: web\r\nhost: web\r\n\r\n"),
    ("a bare CR in a value", "GET / HTTP/1.1\r\nhost: web\r\nx-a: 1\rtransfer-encoding: chunked\r\n\r\n"),
    ("a bare LF in a value", "GET / HTTP/1.1\r\nhost: web\r\nx-a: 1\n\rx: y\r\n\r\n"),
    ("a NUL in a value", "GET / HTTP/1.1\r\nhost: web\r\nx-a: 1\0\r\n\r\n"),
    ("a line without a colon", "GET / HTTP/1.1\r\nhost: web\r\nx-a\r\n\r\n"),
    ("a name that is empty", "GET / HTTP/1.1\r\nhost: web\r\n: 1\r\n\r\n"),
    ("a name that is no token", "GET / HTTP/1.1\r\nhost: web\r\nx(a): 1\r\n\r\n"),
    ("a target with a space", "GET /a b HTTP/1.1\r\nhost: web\r\n\r\n"),
    ("a target with a control", "GET /a\x01b HTTP/1.1\r\nhost: web\r\n\r\n"),
    ("a version that is none", "GET / HTTP/9.9\r\nhost: web\r\n\r\n"),
    ("no version", "GET /\r\nhost: web\r\n\r\n"),
    ("a host with a path", "GET / HTTP/1.1\r\nhost: web/x\r\n\r\n"),
    ("two hosts", "GET / HTTP/1.1\r\nhost: web\r\nhost: web\r\n\r\n"),
];

#[test]
fn what_two_readers_could_read_in_two_ways_is_refused() {
    let server = Scripted::mirror();
    let proxy = before(&server);
    for (what, request) in REFUSED {
        let mut wire = proxy.dial();
        // What an attacker hopes for: that these bytes are taken for a request of their own.
        wire.send(format!("{request}{}", get("web", "/smuggled")));
        wire.patience(Duration::from_secs(5));
        let answer = wire.try_answer().unwrap_or_else(|e| panic!("{what}: no answer: {e}"));
        assert!(matches!(answer.status(), 400 | 404 | 501 | 505), "{what}: {answer:?}");
        assert!(answer.reason().is_some(), "{what}: {answer:?}");
        assert_eq!(wire.rest(), b"", "{what}: and the connection ends");
    }
    assert_eq!(server.requests(), [], "nothing of all that went on");
    assert!(proxy.rejected("bad_request") >= 20.0);
}

/// Chunked bodies that are wrong, after a head that is right.
const BROKEN_CHUNKS: &[(&str, &str)] = &[
    ("a size that overflows", "ffffffffffffffff1\r\nx\r\n0\r\n\r\n"),
    ("a size of 64 bits", "8000000000000000\r\nx\r\n0\r\n\r\n"),
    ("a size with a sign", "+1\r\nx\r\n0\r\n\r\n"),
    ("a size with a prefix", "0x1\r\nx\r\n0\r\n\r\n"),
    ("a size with a space before", " 1\r\nx\r\n0\r\n\r\n"),
    ("no size", "\r\nx\r\n0\r\n\r\n"),
    ("a size that is no number", "g\r\nx\r\n0\r\n\r\n"),
    ("a bare LF after the size", "1\nx\r\n0\r\n\r\n"),
    ("a bare CR in an extension", "1;a\rb\r\nx\r\n0\r\n\r\n"),
    ("a bare LF in an extension", "1;a\nb\r\nx\r\n0\r\n\r\n"),
    ("more data than the size says", "1\r\nxy\r\n0\r\n\r\n"),
    ("no end of line after the data", "1\r\nx0\r\n\r\n"),
    ("a bare LF after the data", "1\r\nx\n0\r\n\r\n"),
    ("a trailer that is folded", "0\r\nx-a: 1\r\n b\r\n\r\n"),
    ("a trailer without a colon", "0\r\nx-a\r\n\r\n"),
];

#[test]
fn chunks_that_are_wrong_end_the_request_and_the_connection() {
    let server = Scripted::mirror();
    let proxy = before(&server);
    for (what, body) in BROKEN_CHUNKS {
        let mut wire = proxy.dial();
        wire.send("POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n");
        wire.send(format!("{body}{}", get("web", "/smuggled")));
        wire.patience(Duration::from_secs(5));
        if let Ok(answer) = wire.try_answer() {
            assert!(matches!(answer.status(), 400 | 502), "{what}: {answer:?}");
        }
        assert!(!String::from_utf8_lossy(&wire.rest()).contains("smuggled"), "{what}");
    }
    // What had begun was broken off there: the endpoint saw no whole request, and no other one.
    server.wait_until_idle();
    assert_eq!(server.requests(), []);
}

#[test]
fn what_is_odd_and_not_ambiguous_goes_on_in_the_plainest_form() {
    let server = Scripted::mirror();
    let proxy = before(&server);
    let chunked = "POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: CHUNKED\r\n\r\n";
    let odd = [
        ("an extension", format!("{chunked}0004;a=\"b;c\";d\r\nbody\r\n000;x\r\n\r\n")),
        ("a long extension", format!("{chunked}4;{}\r\nbody\r\n0\r\n\r\n", "x".repeat(100))),
        ("equal lengths", "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\n\r\nbody".into()),
        ("a length with zeros", "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 004\r\n\r\nbody".into()),
        ("space around a value", "POST / HTTP/1.1\r\nhost: \t web \t\r\ncontent-length:4 \r\n\r\nbody".into()),
        ("an empty line before", "\r\nPOST / HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\n\r\nbody".into()),
    ];
    for (what, request) in odd {
        let known = server.requests().len();
        let mut wire = proxy.dial();
        wire.send(&request);
        let answer = wire.answer();
        if answer.status() == 400 {
            assert_eq!(server.requests().len(), known, "{what}");
            continue;
        }
        let seen = server.requests().pop().unwrap();
        assert_eq!((answer.status(), seen.text().as_str()), (200, "body"), "{what}: {answer:?}");
        let framings = (seen.all("content-length"), seen.all("transfer-encoding"));
        assert!(matches!((framings.0.as_slice(), framings.1.as_slice()), (["4"], []) | ([], ["chunked"])), "{what}");
        assert!(!String::from_utf8_lossy(&seen.bytes).contains(';'), "{what}: no extension goes on: {seen:?}");
    }
}

#[test]
fn answers_that_are_ambiguous_are_not_passed_on() {
    let answers = [
        "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcde",
        "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, x\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nx-a: 1\r\n folded: 2\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx-a : 1\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: \0\r\ncontent-length: 0\r\n\r\n",
    ];
    let server = Scripted::each(move |connection, request| {
        let n: usize = request.target()[1..].parse().unwrap();
        connection.wire.send(answers[n]);
    });
    let mut web = http_with("web", &[&server.address()], json!({ "retries": { "attempts": 0 } }));
    web["circuit_breaker"] = json!({ "failure_threshold": 0, "success_rate": { "floor": 0 } });
    let proxy = Proxy::new(json!([web]));
    for (n, answer) in answers.iter().enumerate() {
        let seen = proxy.ask(get("web", &format!("/{n}")));
        assert_eq!((seen.status(), seen.reason()), (502, Some("bad_response")), "{answer:?}: {seen:?}");
    }
}

#[test]
fn bytes_after_an_answer_are_no_answer_to_the_next_request() {
    let server = Scripted::each(|connection, request| {
        let body = request.target().to_owned();
        let length = body.len();
        let evil = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
        connection.wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}{evil}"));
    });
    let proxy = before(&server);
    let (mut one, mut two) = (proxy.dial(), proxy.dial());
    for n in 0..20 {
        for wire in [&mut one, &mut two] {
            assert_eq!(wire.ask(get("web", &format!("/{n}"))).text(), format!("/{n}"));
        }
    }
}

#[test]
fn too_many_and_too_large_headers_are_431() {
    let server = Scripted::named("S");
    let proxy = before(&server);
    let many: String = (0..100_000).map(|n| format!("x-{n}: 1\r\n")).collect();
    let long = format!("x-long: {}\r\n", "y".repeat(4 << 20));
    let target = format!("/{}", "z".repeat(4 << 20));
    let floods = [
        format!("GET / HTTP/1.1\r\nhost: web\r\n{many}\r\n"),
        format!("GET / HTTP/1.1\r\nhost: web\r\n{long}\r\n"),
        format!("GET {target} HTTP/1.1\r\nhost: web\r\n\r\n"),
    ];
    let before = proxy.resident_kib();
    for flood in &floods {
        let mut wire = proxy.dial();
        wire.patience(Duration::from_secs(10));
        // The proxy answers before it has read all, and leaves: sending fails then, and the answer may be lost to a
        // reset, which is a refusal too.
        let sent = wire.send(flood);
        match wire.try_answer() {
            Ok(answer) => assert!(matches!(answer.status(), 400 | 414 | 431), "{answer:?}"),
            Err(e) => assert!(!sent || e.kind() == std::io::ErrorKind::ConnectionReset, "{e}"),
        }
    }
    assert_eq!(server.requests(), []);
    // What the allocator took for the first ones serves all others.
    let once = proxy.resident_kib();
    for flood in floods.iter().cycle().take(30) {
        let mut wire = proxy.dial();
        wire.send(flood);
        let _ = wire.try_answer();
    }
    let (first, more) = (once.saturating_sub(before), proxy.resident_kib().saturating_sub(once));
    assert!(first < 8 << 10 && more < 2 << 10, "{first} KiB, then {more} KiB");
    // What clients send in earnest is not too large.
    let cookie = format!("cookie: {}\r\n", "c".repeat(12_000));
    assert_eq!(proxy.ask(format!("GET / HTTP/1.1\r\nhost: web\r\n{cookie}\r\n")).status(), 200);
}

#[test]
fn trailers_without_end_are_bounded() {
    let server = Scripted::mirror();
    let proxy = before(&server);
    let before = proxy.resident_kib();
    let mut wire = proxy.dial();
    wire.send("POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n0\r\n");
    let piece: String = (0..2000).map(|n| format!("x-{n}: 1\r\n")).collect();
    let taken = (0..1000).take_while(|_| wire.send(&piece)).count();
    assert!(taken < 1000, "23 MB of trailers were taken");
    assert!(proxy.resident_kib().saturating_sub(before) < 8 << 10);
    // The same in the extensions of chunks.
    let mut wire = proxy.dial();
    wire.send("POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n1;");
    let taken = (0..1000).take_while(|_| wire.send(piece.replace("\r\n", "  "))).count();
    assert!(taken < 1000, "23 MB of an extension were taken");
}

#[test]
fn a_head_that_comes_too_slowly_is_given_up() {
    let server = Scripted::named("S");
    let proxy = before(&server);
    let begin = Instant::now();
    let (mut dripping, mut silent): (Wire, Wire) = (proxy.dial(), proxy.dial());
    dripping.send("GET / HTTP/1.1\r\nhost: web\r\n");
    silent.send("GET / HT");
    silent.patience(Duration::from_secs(20));
    let dripped = thread::spawn(move || {
        // A byte now and then does not make it fast.
        while begin.elapsed() < Duration::from_secs(20) && dripping.send("x") {
            thread::sleep(Duration::from_millis(250));
            dripping.patience(Duration::from_millis(1));
            match dripping.some() {
                Ok(bytes) if bytes.is_empty() => break,
                Ok(bytes) => return String::from_utf8_lossy(&bytes).into_owned(),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        String::new()
    });
    if let Ok(answer) = silent.try_answer() {
        assert_eq!((answer.status(), answer.reason()), (408, Some("slow_request")), "{answer:?}");
    }
    let answer = dripped.join().unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    let took = begin.elapsed();
    assert!(took > Duration::from_secs(2) && took < Duration::from_secs(16), "{took:?}");
    assert_eq!(server.requests(), []);
}

#[test]
fn a_thousand_that_say_nothing_keep_nobody_else_out() {
    let server = Scripted::named("S");
    let proxy = before(&server);
    let before = proxy.resident_kib();
    let idle: Vec<Wire> = (0..1000).map(|_| proxy.dial()).collect();
    for _ in 0..10 {
        assert_eq!(proxy.get("web").text(), "S");
    }
    let each = proxy.resident_kib().saturating_sub(before) / 1000;
    // A bound for what a stranger can take, not the measure of what it costs: that is the benchmark's.
    assert!(each < 32, "{each} KiB each");
    drop(idle);
}

#[test]
fn what_is_no_http_is_told_so_and_counted() {
    let server = Scripted::named("web");
    let proxy = before(&server);
    for bytes in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"EHLO mail.internal\r\n"] {
        let mut wire = proxy.dial();
        wire.send(bytes);
        let answer = wire.answer();
        assert_eq!((answer.status(), answer.reason()), (400, Some("not_http")));
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(answer.text(), "mesh: not_http\n");
    }
    assert_eq!((proxy.rejected("not_http"), server.accepted()), (2.0, 0));
}
