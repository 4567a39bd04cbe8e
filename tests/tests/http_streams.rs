//! Bodies as streams: memory, back-pressure, and the ends of connections on both sides.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{Proxy, Scripted, get, http_service, json, poll};
use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

const GIB: u64 = 1 << 30;

/// How much more than before the process may hold while a peer does not read: buffers of sockets are the kernel's.
const BOUND_KIB: u64 = 8 * 1024;

fn before(server: &Scripted) -> Proxy {
    Proxy::new(json!([http_service("web", &[&server.address()])]))
}

/// Writes until `total` is written or nobody takes it any more; counts.
fn pour(mut to: impl Write, total: u64, written: &AtomicU64) {
    let piece = vec![b'x'; 1 << 16];
    while written.load(Ordering::Relaxed) < total {
        match to.write(&piece) {
            Ok(count) => written.fetch_add(count as u64, Ordering::Relaxed),
            Err(_) => return,
        };
    }
}

/// Waits until nothing is written any more, and says how much was.
fn stalled(written: &AtomicU64) -> u64 {
    let mut before = u64::MAX;
    poll::eventually("writing stalls", || {
        thread::sleep(Duration::from_millis(200));
        let now = written.load(Ordering::Relaxed);
        let same = now == before && now > 0;
        before = now;
        if same { Ok(now) } else { Err(format!("{now} bytes")) }
    })
}

#[test]
fn a_client_that_reads_nothing_stops_the_endpoint() {
    let written = Arc::new(AtomicU64::new(0));
    let counted = written.clone();
    let server = Scripted::new(move |connection| {
        connection.request();
        connection.wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {GIB}\r\n\r\n"));
        pour(connection.wire.stream(), GIB, &counted);
    });
    let proxy = before(&server);
    let before = proxy.resident_kib();
    let mut wire = proxy.dial();
    wire.send(get("web", "/"));
    let sent = stalled(&written);
    assert!(sent < GIB / 8, "{sent} bytes were taken for a client that reads nothing");
    let grown = proxy.resident_kib().saturating_sub(before);
    assert!(grown < BOUND_KIB, "{grown} KiB");
    // Others are served meanwhile; and what was begun goes on as soon as somebody reads.
    assert_eq!(proxy.get("nobody").status(), 404);
    wire.head().unwrap();
    for _ in 0..64 {
        assert_eq!(wire.take(1 << 20).unwrap().len(), 1 << 20);
    }
    assert!(written.load(Ordering::Relaxed) > sent.max(32 << 20));
}

#[test]
fn an_endpoint_that_reads_nothing_stops_the_client() {
    let server = Scripted::new(|connection| {
        connection.head();
        thread::sleep(Duration::from_secs(3));
    });
    let proxy = before(&server);
    let before = proxy.resident_kib();
    let written = Arc::new(AtomicU64::new(0));
    let mut wire = proxy.dial();
    wire.send(format!("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: {GIB}\r\n\r\n"));
    let (stream, counted) = (wire.stream().try_clone().unwrap(), written.clone());
    let writer = thread::spawn(move || pour(stream, GIB, &counted));
    let sent = stalled(&written);
    assert!(sent < GIB / 8, "{sent} bytes were taken for an endpoint that reads nothing");
    let grown = proxy.resident_kib().saturating_sub(before);
    assert!(grown < BOUND_KIB, "{grown} KiB");
    wire.stream().shutdown(std::net::Shutdown::Both).unwrap();
    server.wait_until_idle();
    writer.join().unwrap();
}

#[test]
fn a_gigabyte_goes_through_in_little_memory() {
    const SIZE: u64 = GIB / 4;
    let server = Scripted::new(|connection| {
        while connection.request().is_some() {
            connection.wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            let mut chunk = b"100000\r\n".to_vec();
            chunk.resize(8 + (1 << 20), b'x');
            chunk.extend(b"\r\n");
            for _ in 0..SIZE >> 20 {
                connection.wire.send(&chunk);
            }
            connection.wire.send("0\r\n\r\n");
        }
    });
    let proxy = before(&server);
    let before = proxy.resident_kib();
    let mut wire = proxy.dial();
    wire.send(get("web", "/"));
    wire.head().unwrap();
    let mut got = 0;
    while got < SIZE {
        got += wire.some().unwrap().len() as u64;
    }
    let grown = proxy.resident_kib().saturating_sub(before);
    assert!(grown < BOUND_KIB, "{grown} KiB");
}

#[test]
fn pieces_of_an_answer_arrive_as_they_are_sent() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let server = Scripted::new(move |connection| {
        connection.request();
        connection
            .wire
            .send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        // Each event only after the client has the one before.
        while wait.lock().unwrap().recv().is_ok() {
            connection.wire.send("5\r\nevent\r\n");
        }
    });
    let proxy = before(&server);
    let mut wire = proxy.dial();
    wire.send(get("web", "/"));
    assert_eq!(wire.head().unwrap().status(), 200, "the head comes before any event");
    for _ in 0..5 {
        go.send(()).unwrap();
        assert_eq!(wire.take(10).unwrap(), b"5\r\nevent\r\n");
    }
    drop(go);
}

#[test]
fn request_and_answer_flow_at_the_same_time() {
    let server = Scripted::new(|connection| {
        connection.head();
        connection.wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        let mut ahead = Vec::new();
        // Each chunk of the request is one of the answer.
        loop {
            match connection.wire.some() {
                Ok(bytes) if !bytes.is_empty() => ahead.extend(bytes),
                _ => return,
            }
            while let Some(at) = ahead.windows(6).position(|w| w.starts_with(b"1\r\n") && w.ends_with(b"\r\n")) {
                let chunk: Vec<u8> = ahead.drain(..at + 6).collect();
                connection.wire.send(&chunk[at..]);
            }
            if ahead.ends_with(b"0\r\n\r\n") {
                connection.wire.send("0\r\n\r\n");
                return;
            }
        }
    });
    let proxy = before(&server);
    let mut wire = proxy.dial();
    wire.send("POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!(wire.head().unwrap().status(), 200);
    for letter in ["a", "b", "c"] {
        wire.send(format!("1\r\n{letter}\r\n"));
        assert_eq!(wire.take(6).unwrap(), format!("1\r\n{letter}\r\n").as_bytes());
    }
    wire.send("0\r\n\r\n");
    assert_eq!(wire.take(5).unwrap(), b"0\r\n\r\n");
}

#[test]
fn a_client_that_has_finished_sending_still_gets_its_answer() {
    let server = Scripted::each(|connection, _| {
        thread::sleep(Duration::from_millis(200));
        connection.answer(200, "late");
    });
    let proxy = before(&server);
    let mut wire = proxy.dial();
    wire.send(get("web", "/"));
    wire.finish();
    assert_eq!(wire.answer().text(), "late");
    assert_eq!(wire.rest(), b"", "and then the proxy finishes too");
}

#[test]
fn a_client_that_breaks_off_is_broken_off_at_the_endpoint() {
    let server = Scripted::new(|connection| {
        connection.head();
        connection.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegin");
        // Ends when the proxy ends the connection, long before this.
        connection.wire.patience(Duration::from_secs(10));
        let _ = connection.wire.rest();
    });
    let proxy = before(&server);
    let mut wire = proxy.dial();
    wire.send(get("web", "/"));
    wire.head().unwrap();
    wire.reset();
    server.wait_until_idle();
    // Also one that waits for the head, and one in the middle of its body.
    let waiting = Scripted::new(|connection| {
        connection.head();
        let _ = connection.wire.rest();
    });
    let proxy = self::before(&waiting);
    for request in [get("web", "/"), "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 9\r\n\r\nbegin".into()] {
        let known = waiting.requests().len();
        let mut wire = proxy.dial();
        wire.send(request);
        poll::holds("the endpoint is asked", || waiting.requests().len(), |now| *now > known);
        wire.reset();
        waiting.wait_until_idle();
    }
}

#[test]
fn an_answer_that_breaks_off_breaks_off_at_the_client() {
    let server = Scripted::new(|connection| {
        let request = connection.request().unwrap();
        match request.target() {
            "/length" => connection.wire.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegin"),
            _ => connection.wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegin\r\n"),
        };
        if request.header("x-reset").is_some() {
            thread::sleep(Duration::from_millis(50));
            connection.reset();
        }
    });
    let proxy = before(&server);
    for path in ["/length", "/chunked"] {
        for how in ["", "x-reset: 1\r\n"] {
            let mut wire = proxy.dial();
            wire.send(format!("GET {path} HTTP/1.1\r\nhost: web\r\n{how}\r\n"));
            let head = wire.head().unwrap();
            if head.status() == 502 {
                // Nothing of it had been passed on yet.
                assert_eq!(head.header("x-mesh-reason"), Some("upstream_reset"), "{head:?}");
                continue;
            }
            assert_eq!(head.status(), 200);
            let rest = String::from_utf8(wire.rest()).unwrap();
            assert!(rest.contains("begin") && !rest.contains("0\r\n\r\n"), "{path}: no false end in {rest:?}");
        }
    }
}
