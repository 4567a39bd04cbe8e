//! HTTP/2 in clear text with prior knowledge, on either side of the proxy.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{Haproxy, Nginx, Proxy, Scripted, get, http_with, json, program, programs, python, server};
use std::{
    fs, thread,
    time::{Duration, Instant},
};

fn before(address: &str, upstream: &str) -> Proxy {
    Proxy::new(json!([http_with("web", &[address], json!({ "upstream": upstream }))]))
}

#[test]
fn curl_speaks_http2_to_http2_endpoints() {
    let curl = program!("curl");
    for address in [server!(Nginx::http2("N"))].iter().map(Nginx::address) {
        let proxy = before(&address, "auto");
        let arguments = ["-s", "--http2-prior-knowledge", "-H", "Host: web", "-w", "%{http_version} %{http_code}"];
        assert_eq!(programs::run(&curl, &[&arguments[..], &[&proxy.url("/")]].concat()).done(), "N\n2 200");
    }
    let haproxy = server!(Haproxy::http2("H"));
    let proxy = before(&haproxy.address(), "auto");
    let arguments = ["-s", "--http2-prior-knowledge", "-H", "Host: web", "-H", "TE: trailers", &proxy.url("/p?q=1")];
    let said = programs::run(&curl, &arguments).done();
    assert!(said.starts_with("2.0 GET /p\n"), "{said}");
    for line in ["x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http", "via: 2", "x-request-id: "] {
        assert!(said.contains(line), "{line}: {said}");
    }
}

#[test]
fn http2_clients_reach_http1_endpoints_where_the_service_says_so() {
    let (curl, haproxy) = (program!("curl"), server!(Haproxy::http1("H")));
    let proxy = before(&haproxy.address(), "http1");
    let arguments = ["-s", "--http2-prior-knowledge", "-H", "Host: web", "-w", "%{http_version}", "-d", "body"];
    let said = programs::run(&curl, &[&arguments[..], &[&proxy.url("/")]].concat()).done();
    assert!(said.starts_with("1.1 POST /\n") && said.ends_with('2'), "{said}");
    assert!(said.contains("host: web"), "{said}");
    // And one that speaks HTTP/1.1 still does.
    assert!(proxy.ask(get("web", "/")).text().starts_with("1.1 GET /\n"));
}

#[test]
fn http1_clients_reach_http2_endpoints_where_the_service_says_so() {
    let haproxy = server!(Haproxy::http2("H"));
    let proxy = before(&haproxy.address(), "http2");
    let mut wire = proxy.dial();
    for _ in 0..3 {
        let answer = wire.ask("GET /p HTTP/1.1\r\nhost: web\r\nconnection: x-mine\r\nx-mine: 1\r\n\r\n");
        assert!(answer.text().starts_with("2.0 GET /p\n"), "{answer:?}");
        assert!(!answer.text().contains("x-mine"), "{answer:?}");
    }
}

#[test]
fn trailers_pass_between_the_protocols() {
    let python = python!("h2");
    let endpoint = python.serve("h2_server.py", &["ok"]);
    let proxy = before(&endpoint.address(), "http2");
    let answer = proxy.ask("GET /p HTTP/1.1\r\nhost: web\r\nte: trailers\r\n\r\n");
    assert_eq!((answer.text().as_str(), answer.header("x-path")), ("hello over h2", Some("/p")));
    assert_eq!(answer.trailers, [("x-trailer".to_owned(), "there".to_owned())]);

    let endpoint = Scripted::each(|connection, request| {
        let seen = request.text();
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        connection.wire.send(format!("{head}{:x}\r\n{seen}\r\n0\r\nx-end: yes\r\n\r\n", seen.len()));
    });
    let proxy = before(&endpoint.address(), "http1");
    let said = python.run("h2_client.py", &[&proxy.address(), "web", "post", "/p", "the body"]).json();
    assert_eq!(said["body"], "the body", "{said}");
    assert_eq!(said["trailers"]["x-end"], "yes", "{said}");
}

#[test]
fn h2load_fails_nowhere() {
    let h2load = program!("h2load");
    let (two, one) = (server!(Nginx::http2("N")), server!(Nginx::http1("N")));
    for (address, upstream) in [(two.address(), "auto"), (one.address(), "http1")] {
        let proxy = before(&address, upstream);
        let url = proxy.url("/");
        let arguments = ["-n", "4000", "-c", "8", "-m", "25", "-H", ":authority: web", "-H", "host: web", &url];
        let said = programs::run(&h2load, &arguments).done();
        assert!(said.contains("4000 succeeded, 0 failed, 0 errored"), "{upstream}: {said}");
        assert!(said.contains("status codes: 4000 2xx"), "{upstream}: {said}");
    }
}

#[test]
fn large_bodies_arrive_whole_over_http2() {
    let (curl, nginx) = (program!("curl"), server!(Nginx::http2("N")));
    let proxy = before(&nginx.address(), "auto");
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..4_u32 << 20).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let (sent, got) = (dir.path().join("sent"), dir.path().join("got"));
    fs::write(&sent, &bytes).unwrap();
    let url = proxy.url("/files/large");
    let common = ["-sf", "--http2-prior-knowledge", "-H", "Host: web", &url];
    programs::run(&curl, &[&common[..], &["-T", &sent.to_string_lossy()]].concat()).done();
    assert!(fs::read(nginx.files().as_ref().join("large")).unwrap() == bytes, "the upload");
    programs::run(&curl, &[&common[..], &["-o", &got.to_string_lossy()]].concat()).done();
    assert!(fs::read(&got).unwrap() == bytes, "the download");
}

#[test]
fn early_hints_pass_from_http2_to_both_dialects() {
    let python = python!("h2");
    let endpoint = python.serve("h2_server.py", &["hints"]);
    let proxy = before(&endpoint.address(), "http2");
    let said = python.run("h2_client.py", &[&proxy.address(), "web", "get"]).json();
    assert_eq!((said["interims"].to_string(), said["status"].as_str()), ("[103]".into(), Some("200")), "{said}");
    let mut wire = proxy.dial();
    wire.send(get("web", "/"));
    let hints = wire.head().unwrap();
    assert_eq!((hints.status(), hints.header("link")), (103, Some("</a>")));
    assert_eq!(wire.answer().text(), "hello over h2");
}

#[test]
fn answers_without_bodies_say_how_long_these_would_be() {
    let python = python!("h2");
    let server = Scripted::each(|connection, request| {
        let status = request.target()[1..].parse().unwrap_or(200);
        connection.wire.send(format!("HTTP/1.1 {status} X\r\ncontent-length: 6\r\netag: \"1\"\r\n\r\n"));
    });
    let proxy = before(&server.address(), "http1");
    for (method, path, length) in [("HEAD", "/200", Some("6")), ("GET", "/304", Some("6")), ("GET", "/204", None)] {
        let said = python.run("h2_client.py", &[&proxy.address(), "web", "ask", method, path]).json();
        assert_eq!((said["ended"].as_str(), said["status"].as_str()), (Some("whole"), Some(&path[1..])), "{said}");
        assert_eq!((said["body"].as_str(), said["headers"]["content-length"].as_str()), (Some(""), length), "{said}");
    }
    // And from HTTP/2 to HTTP/1.1.
    let nginx = server!(Nginx::http2("N"));
    let proxy = before(&nginx.address(), "http2");
    let mut wire = proxy.dial();
    wire.send("HEAD / HTTP/1.1\r\nhost: web\r\n\r\n");
    let head = wire.head().unwrap();
    assert_eq!((head.status(), head.header("content-length")), (200, Some("2")), "{head:?}");
    assert_eq!(wire.ask(get("web", "/")).text(), "N\n");
}

#[test]
fn trailers_of_http2_become_trailers_of_chunks_unless_they_would_speak_of_the_message() {
    let python = python!("h2, hpack");
    let server = Scripted::named("S");
    let proxy = before(&server.address(), "http1");
    python.run("h2_client.py", &[&proxy.address(), "web", "trailers"]).done();
    let seen = server.requests().pop().unwrap();
    assert_eq!((seen.text().as_str(), &seen.trailers[..]), ("body", &[("x-sum".to_owned(), "4".to_owned())][..]));
}

#[test]
fn a_host_that_is_not_the_authority_is_refused() {
    let python = python!("h2, hpack");
    let server = Scripted::named("S");
    let proxy = before(&server.address(), "http1");
    let said = python.run("h2_client.py", &[&proxy.address(), "web", "bad_header", "host", "other"]).json();
    assert_eq!(said["resets"].to_string(), "[1]", "{said}");
    python.run("h2_client.py", &[&proxy.address(), "web", "bad_header", "host", "web"]).done();
    assert_eq!(server.requests().len(), 1);
    assert_eq!(server.requests()[0].all("host"), ["web"]);
}

#[test]
fn a_client_that_has_closed_its_half_still_gets_its_answers() {
    let python = python!("h2, hpack");
    let endpoint = Scripted::each(|connection, _| {
        thread::sleep(Duration::from_millis(300));
        connection.answer(200, &"x".repeat(500_000));
    });
    let proxy = before(&endpoint.address(), "http1");
    for pause in ["0", "0.1"] {
        let said = python.run("h2_client.py", &[&proxy.address(), "web", "half_closed", pause]).json();
        let seen = (said["ended"].as_str(), said["streams"].as_u64(), said["data"].as_u64());
        assert_eq!(seen, (Some("closed"), Some(2), Some(1_000_000)), "{said}");
    }
}

#[test]
fn a_client_that_is_gone_is_noticed_at_once_also_by_a_regular_end() {
    let python = python!("h2, hpack");
    for what in ["gone", "half_sent"] {
        let waiting = Scripted::new(|connection| {
            connection.head();
            let _ = connection.wire.rest();
        });
        let more = json!({ "upstream": "http1", "request_timeout": "0s" });
        let proxy = Proxy::new(json!([http_with("web", &[&waiting.address()], more)]));
        let begin = Instant::now();
        python.run("h2_client.py", &[&proxy.address(), "web", what]).done();
        waiting.wait_until_idle();
        assert!(begin.elapsed() < Duration::from_secs(8), "{what}: {:?}", begin.elapsed());
        assert_eq!(waiting.requests().len(), 1);
    }
}

#[test]
fn an_endpoint_that_hangs_is_given_up_and_one_that_takes_its_time_is_not() {
    let python = python!("h2");
    let endpoint = python.serve("h2_server.py", &["slow"]);
    let more = json!({ "upstream": "http2", "request_timeout": "0s" });
    let proxy = Proxy::with(json!([http_with("web", &[&endpoint.address()], more)]), |config| {
        config["proxy"]["workers"] = json!(1);
    });
    let mut patient = proxy.dial();
    patient.send(get("web", "/"));
    patient.patience(Duration::from_secs(18));
    assert!(patient.some().is_err(), "it lives: its answer is waited for");
    endpoint.freeze(true);
    let begin = Instant::now();
    patient.patience(Duration::from_secs(30));
    let answer = patient.answer();
    assert_eq!((answer.status(), answer.reason()), (504, Some("request_timeout")), "{answer:?}");
    assert!(begin.elapsed() > Duration::from_secs(5), "{:?}", begin.elapsed());
    // The next one goes by a new connection.
    endpoint.freeze(false);
    patient.send(get("web", "/"));
    mesh_tests::holds("it is asked again", || endpoint.log(), |log| log.contains("1 GET /"));
}

#[test]
fn a_reset_by_the_endpoint_reaches_the_client() {
    let python = python!("h2");
    let endpoint = python.serve("h2_server.py", &["reset"]);
    let proxy = before(&endpoint.address(), "auto");
    let said = python.run("h2_client.py", &[&proxy.address(), "web", "get"]).json();
    // Neither a whole answer, nor one of the proxy's own; its head may be overtaken by the reset.
    assert_eq!(said["ended"].as_str(), Some("reset"), "{said}");
    assert!(matches!(said["status"].as_str(), None | Some("200")), "{said}");
    assert_ne!(said["code"], 0, "{said}");
}

#[test]
fn a_reset_by_the_client_reaches_the_endpoint() {
    let python = python!("h2");
    let endpoint = python.serve("h2_server.py", &["slow"]);
    let proxy = before(&endpoint.address(), "auto");
    python.run("h2_client.py", &[&proxy.address(), "web", "cancel", "2"]).done();
    mesh_tests::holds("the endpoint hears of it", || endpoint.log(), |log| log.contains(" reset 8"));
    // An endpoint of HTTP/1.1 is left, which is the only way to tell it.
    let waiting = Scripted::new(|connection| {
        connection.head();
        let _ = connection.wire.rest();
    });
    let proxy = before(&waiting.address(), "http1");
    python.run("h2_client.py", &[&proxy.address(), "web", "cancel", "2"]).done();
    assert_eq!(waiting.requests().len(), 1);
    waiting.wait_until_idle();
}

#[test]
fn own_answers_over_http2_say_why() {
    let python = python!("h2");
    let proxy = Proxy::new(json!([]));
    let said = python.run("h2_client.py", &[&proxy.address(), "nobody", "get"]).json();
    assert_eq!(said["status"], "404", "{said}");
    assert_eq!(said["headers"]["server"], "mesh", "{said}");
    assert_eq!(said["headers"]["x-mesh-reason"], "unknown_service", "{said}");
    assert!(proxy.rejected("unknown_service") >= 1.0);
}

#[test]
fn many_streams_share_one_connection_to_the_endpoint() {
    let (h2load, python) = (program!("h2load"), python!("h2"));
    let endpoint = python.serve("h2_server.py", &["ok"]);
    let proxy = before(&endpoint.address(), "auto");
    let url = proxy.url("/");
    let arguments = ["-n", "200", "-c", "1", "-m", "50", "-H", ":authority: web", "-H", "host: web", &url];
    let said = programs::run(&h2load, &arguments).done();
    assert!(said.contains("200 succeeded, 0 failed"), "{said}");
    let log = endpoint.log();
    let connections: std::collections::BTreeSet<&str> =
        log.lines().filter(|line| line.contains("GET")).filter_map(|line| line.split(' ').next()).collect();
    assert!(connections.len() <= 2, "{connections:?}");
}

#[test]
fn an_endpoint_that_says_goaway_loses_no_request() {
    let python = python!("h2");
    let endpoint = python.serve("h2_server.py", &["goaway"]);
    let other = python.serve("h2_server.py", &["ok"]);
    let endpoints = [endpoint.address(), other.address()];
    let proxy = Proxy::new(json!([http_with("web", &[&endpoints[0], &endpoints[1]], json!({}))]));
    for _ in 0..4 {
        let said = python.run("h2_client.py", &[&proxy.address(), "web", "get"]).json();
        assert_eq!((said["status"].as_str(), said["ended"].as_str()), (Some("200"), Some("whole")), "{said}");
    }
}

#[test]
fn a_client_hears_goaway_when_the_daemon_drains() {
    let (python, haproxy) = (python!("h2"), server!(Haproxy::http2("H")));
    let mut proxy = before(&haproxy.address(), "auto");
    let mut client = python.talk("h2_client.py", &[&proxy.address(), "web", "drained"]);
    assert_eq!(client.line(), "ready");
    thread::sleep(Duration::from_millis(300));
    assert!(proxy.terminate().success());
    let said: mesh_tests::Value = serde_json::from_str(&client.line()).unwrap();
    assert_eq!((said["goaway"].as_u64(), said["ended"].as_str()), (Some(0), Some("closed")), "{said}");
}
