//! The door from outside: client and raw HTTP against a server with a fake behind it.

use super::{
    ClientError, Policy, Request,
    fake::{FakeDoor, Served},
    sample,
};
use serde_json::Value;
use std::{net::SocketAddr, sync::atomic::Ordering, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    time::{Instant, timeout},
};

/// What came back, as text: status, head, body.
struct Raw {
    status: u16,
    head: String,
    body: String,
}

impl Raw {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn error(&self) -> (String, String) {
        let error = &self.json()["error"];
        (error["kind"].as_str().unwrap().to_owned(), error["message"].as_str().unwrap().to_owned())
    }
}

fn parse(text: &str) -> Raw {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let status = head.split(' ').nth(1).unwrap_or("0").parse().unwrap();
    Raw { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

/// Sends `bytes` and reads until the server closes.
async fn send(address: SocketAddr, bytes: &[u8]) -> Raw {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A server that refuses a body it has not read may reset the connection after its answer.
    let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("an answer and an end");
    parse(&String::from_utf8(answer).unwrap())
}

async fn request(address: SocketAddr, method: &str, target: &str) -> Raw {
    let text = format!("{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    send(address, text.as_bytes()).await
}

async fn get(address: SocketAddr, target: &str) -> Raw {
    request(address, "GET", target).await
}

/// As [`request`], at the admin socket and with a body.
async fn post(served: &Served, target: &str, body: &str) -> Raw {
    let mut stream = UnixStream::connect(&served.socket).await.unwrap();
    let length = body.len();
    let text =
        format!("POST {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    parse(&answer)
}

#[tokio::test]
async fn the_client_gets_what_the_door_says() {
    let served = Served::start().await;
    let client = served.client();
    assert_eq!(client.status().await.unwrap(), sample::status());
    assert_eq!(client.services(None).await.unwrap(), sample::services());
    assert_eq!(client.services(Some("search".to_owned())).await.unwrap(), sample::services()[1..]);
    assert_eq!(client.endpoints(Some("checkout".to_owned())).await.unwrap(), sample::endpoints());
    assert_eq!(client.circuits(None).await.unwrap(), sample::circuits());
    assert_eq!(client.circuits(Some("search".to_owned())).await.unwrap(), []);
    assert_eq!(client.config().await.unwrap(), sample::config());
    let address = "[fd00::10]:80".parse().unwrap();
    let explain = Request::Explain { address, host: None, path: Some("/a b?c&d=é%".to_owned()), zone: None };
    assert_eq!(client.explain(&explain).await.unwrap(), sample::explanation());
    assert_eq!(served.door.asked.lock().unwrap().last(), Some(&explain));
}

#[tokio::test]
async fn configuration_keeps_the_order_of_its_keys() {
    let served = Served::start().await;
    let config = served.client().config().await.unwrap();
    let keys: Vec<_> = config.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["node", "admin", "services"]);
}

#[tokio::test]
async fn every_change_arrives_as_it_was_meant() {
    let served = Served::start().await;
    let client = served.client();
    let (service, address) = ("checkout".to_owned(), "[fd00:1::5]:8080".parse().unwrap());
    let drain = Request::EndpointDrain { service: service.clone(), address, persist: true };
    let changed = client.change(&drain).await.unwrap();
    assert_eq!(changed.message, "checkout: [fd00:1::5]:8080 drains");
    assert_eq!(changed.warnings, ["no endpoint of checkout is left that can be chosen"]);
    let weight = Request::EndpointWeight { service: service.clone(), address, weight: 65_535, persist: false };
    client.change(&weight).await.unwrap();
    let undrain = Request::EndpointUndrain { service: service.clone(), address, persist: false };
    let lb = Request::LbSet { service: service.clone(), policy: Policy::PeakEwma, persist: true };
    let trip = Request::CircuitTrip { service: service.clone(), address: None };
    let set = Request::CircuitSet {
        service: service.clone(),
        failure_threshold: Some(3),
        reset_timeout: Some(Duration::from_millis(1500)),
        persist: true,
    };
    assert_eq!(client.change(&trip).await.unwrap().message, "checkout: its circuits are held open");
    assert_eq!(client.change(&set).await.unwrap().message, "checkout: threshold 5 → 3");
    let reset = Request::CircuitReset { service, address: Some(address) };
    let bypass = Request::Bypass { on: true };
    for (request, word, text) in [
        (&undrain, "conflict", "it is not draining"),
        (&lb, "unsupported", "policy peak_ewma: not supported yet"),
        (&reset, "conflict", "the circuit is closed"),
        (&bypass, "unavailable", "no programs are attached"),
    ] {
        let Err(ClientError::Refused { kind, message }) = client.change(request).await else { panic!("{request:?}") };
        assert_eq!((kind.as_str(), message.as_str()), (word, text));
    }
    client.change(&Request::ConfigReload).await.unwrap();
    assert_eq!(
        *served.door.asked.lock().unwrap(),
        [drain, weight, trip, set, undrain, lb, reset, bypass, Request::ConfigReload]
    );
}

#[tokio::test]
async fn an_unknown_service_is_not_found() {
    let served = Served::start().await;
    let Err(ClientError::Refused { kind, message }) = served.client().services(Some("café &=".to_owned())).await
    else {
        panic!()
    };
    assert_eq!((kind.as_str(), message.as_str()), ("not_found", r#"no service is named "café &=""#));
    let raw = get(served.tcp, "/v1/services?name=no%20such").await;
    assert_eq!((raw.status, raw.error().1.as_str()), (404, r#"no service is named "no such""#));
}

#[tokio::test]
async fn tcp_has_everything_that_changes_nothing() {
    let served = Served::start().await;
    let metrics = get(served.tcp, "/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.head.contains("\r\ncontent-type: text/plain; version=0.0.4\r\n"), "{}", metrics.head);
    assert!(metrics.body.ends_with("mesh_interception_ok 1\n"));
    assert_eq!(get(served.tcp, "/metrics?name[]=up").await.status, 200);

    let health = get(served.tcp, "/health").await;
    assert_eq!(health.status, 200);
    assert_eq!(health.json()["components"]["datapath"]["detail"], "stuck");

    let ready = get(served.tcp, "/ready").await;
    assert_eq!((ready.status, ready.json()["reasons"][0].as_str()), (503, Some("programs are not attached")));
    served.door.ready.store(true, Ordering::SeqCst);
    assert_eq!(get(served.tcp, "/ready").await.status, 200);

    for path in [
        "/v1/status",
        "/v1/services",
        "/v1/endpoints",
        "/v1/connections",
        "/v1/circuits",
        "/v1/config",
        "/v1/explain?address=10.0.0.1:80",
    ] {
        let raw = get(served.tcp, path).await;
        assert_eq!(raw.status, 200, "{path}");
        assert!(raw.head.contains("content-type: application/json"), "{}", raw.head);
        assert!(raw.head.contains("cache-control: no-store"), "{}", raw.head);
        raw.json();
    }
    let page = get(served.tcp, "/").await;
    assert!(page.status == 200 && page.head.contains("text/html") && page.body.contains("<title>mesh</title>"));
    for header in ["content-security-policy: default-src 'none'; ", "x-frame-options: deny", "cache-control: no-cache"]
    {
        assert!(page.head.contains(&format!("\r\n{header}")), "{header} in {}", page.head);
    }
}

#[tokio::test]
async fn json_is_as_the_contract_has_it() {
    let served = Served::start().await;
    let endpoints = get(served.tcp, "/v1/endpoints").await.json();
    assert_eq!(endpoints[0]["latency_ewma_ms"], 1.25);
    assert_eq!(endpoints[0]["health"], "healthy");
    let second = endpoints[1].as_object().unwrap();
    assert_eq!(second["address"], "[fd00:1::5]:8080");
    for absent in ["zone", "latency_ewma_ms"] {
        assert_eq!(second.get(absent), Some(&Value::Null), "{absent} is there and null");
    }
    let circuits = get(served.tcp, "/v1/circuits?service=checkout").await.json();
    let expected = serde_json::json!({
        "service": "checkout",
        "endpoint": "10.0.1.6:8080",
        "state": "open",
        "consecutive_failures": 5,
        "openings": 3,
        "retry_at": "2026-01-31T12:01:30.000Z",
        "forced": false,
    });
    assert_eq!(circuits[1], expected);
    assert_eq!(circuits[0].as_object().unwrap().get("retry_at"), Some(&Value::Null));
    let status = get(served.tcp, "/v1/status").await.json();
    assert_eq!(status["config"]["loaded_at"], "2026-01-31T12:00:00.000Z");
    assert_eq!(status["mode"], "ebpf");
    assert_eq!(status["programs"][0].as_object().unwrap().get("runs"), Some(&Value::Null));
}

#[tokio::test]
async fn tcp_refuses_to_change_anything_and_says_where_to() {
    let served = Served::start().await;
    for path in ["/v1/bypass", "/v1/lb", "/v1/config/reload", "/v1/endpoints/drain", "/v1/circuits/trip"] {
        let raw = request(served.tcp, "POST", path).await;
        let (kind, message) = raw.error();
        assert_eq!((raw.status, kind.as_str()), (403, "forbidden"));
        assert!(message.contains("admin socket") && message.contains("admin.sock"), "{message}");
    }
    assert!(served.door.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_path_says_which_methods_it_takes() {
    let served = Served::start().await;
    for (method, path, allow) in
        [("POST", "/v1/status", "get, head"), ("DELETE", "/metrics", "get, head"), ("GET", "/v1/bypass", "post")]
    {
        let raw = request(served.tcp, method, path).await;
        assert_eq!(raw.status, 405, "{method} {path}");
        assert!(raw.head.contains(&format!("\r\nallow: {allow}\r\n")), "{}", raw.head);
        assert_eq!(raw.error().0, "method_not_allowed");
    }
}

#[tokio::test]
async fn head_has_the_head_and_no_body() {
    let served = Served::start().await;
    let length = get(served.tcp, "/v1/status").await.body.len();
    let raw = request(served.tcp, "HEAD", "/v1/status").await;
    assert_eq!((raw.status, raw.body.as_str()), (200, ""));
    assert!(raw.head.contains(&format!("content-length: {length}")), "{}", raw.head);
}

#[tokio::test]
async fn an_unknown_path_is_answered_with_the_known_ones() {
    let served = Served::start().await;
    for path in ["/v2", "/v1/status/", "/v1//status", "/v1/%73tatus2", "/.."] {
        let raw = get(served.tcp, path).await;
        assert_eq!(raw.status, 404, "{path}");
        assert!(raw.error().1.contains("/v1/endpoints"), "{}", raw.body);
        assert!(!raw.error().1.contains("/v1/lb"), "what cannot be had here is not offered: {}", raw.body);
    }
    assert_eq!(get(served.tcp, "/v1/%73tatus").await.status, 200);
    assert!(post(&served, "/v2", "").await.error().1.contains("/v1/lb"));
}

#[tokio::test]
async fn the_metrics_listener_has_nothing_else() {
    let served = Served::start().await;
    for (path, status) in [("/metrics", 200), ("/health", 200), ("/ready", 503)] {
        assert_eq!(get(served.metrics, path).await.status, status, "{path}");
    }
    for path in ["/", "/v1/status", "/v1/config", "/v1/traces", "/v1/bypass"] {
        let raw = request(served.metrics, "POST", path).await;
        assert_eq!(
            (raw.status, raw.error().1),
            (404, format!("no such path: {path}; there are /health /metrics /ready"))
        );
    }
}

#[tokio::test]
async fn parameters_are_checked() {
    let served = Served::start().await;
    for (target, expected) in [
        ("/v1/services?nam=checkout", r#"/v1/services has no parameter "nam""#),
        ("/v1/services?name=", r#"the parameter "name" is empty; leave it out or give a value"#),
        ("/v1/services?name=a&name=b", r#"the parameter "name" stands more than once"#),
        ("/v1/services?name=%zz", r#"the parameter "name=%zz" is not percent-encoded text"#),
        ("/v1/services?name=%ff", r#"the parameter "name=%ff" is not percent-encoded text"#),
        ("/v1/services?name=%4", r#"the parameter "name=%4" is not percent-encoded text"#),
        ("/v1/services?name=%+1", r#"the parameter "name=%+1" is not percent-encoded text"#),
        ("/v1/explain", r#"the parameter "address" is missing: ip:port, or [ip]:port for IPv6"#),
        ("/v1/explain?address=fd00::1", r#"address: "fd00::1" is no address: expected ip:port, or [ip]:port for IPv6"#),
        ("/v1/connections?sort=size", r#"sort: expected one of sent, received, age, rtt, not "size""#),
        ("/v1/connections?limit=0", r#"limit: expected a whole number from 1 to 4294967295, not "0""#),
        ("/v1/connections?limit=-1", r#"limit: expected a whole number from 1 to 4294967295, not "-1""#),
        (
            "/v1/connections?endpoint=1.2.3.4",
            r#"endpoint: "1.2.3.4" is no address: expected ip:port, or [ip]:port for IPv6"#,
        ),
        ("/v1/connections?servce=a", r#"/v1/connections has no parameter "servce""#),
        ("/v1/%ff", "the path is not percent-encoded text"),
    ] {
        let raw = get(served.tcp, target).await;
        assert_eq!((raw.status, raw.error().1.as_str()), (400, expected), "{target}");
    }
    get(served.tcp, "/v1/explain?address=%5Bfd00::1%5D:80&zone=a+b").await;
    let expected = Request::Explain {
        address: "[fd00::1]:80".parse().unwrap(),
        host: None,
        path: None,
        zone: Some("a b".to_owned()),
    };
    assert_eq!(*served.door.asked.lock().unwrap(), [expected]);
}

#[tokio::test]
async fn bodies_are_checked() {
    let served = Served::start().await;
    for (path, body, expected) in [
        ("/v1/bypass", "", "EOF while parsing"),
        ("/v1/bypass", "{}", "missing field `on`"),
        ("/v1/bypass", r#"{"on": "yes"}"#, "invalid type: string \"yes\", expected a boolean"),
        ("/v1/bypass", r#"{"on": true, "force": true}"#, "unknown field `force`"),
        ("/v1/lb", r#"{"service": "a", "policy": "fastest"}"#, "unknown variant `fastest`"),
        ("/v1/endpoints/weight", r#"{"service": "a", "address": "1.2.3.4:5", "weight": 65536}"#, "65536"),
        ("/v1/endpoints/weight", r#"{"service": "a", "address": "1.2.3.4:5", "weight": -1}"#, "-1"),
        ("/v1/endpoints/drain", r#"{"service": "a", "address": "1.2.3.4"}"#, "socket address"),
        ("/v1/circuits/trip", "{}", "missing field `service`"),
        ("/v1/circuits/trip", r#"{"service": "a", "persist": true}"#, "unknown field `persist`"),
        ("/v1/circuits/reset", r#"{"service": "a", "address": "b:1"}"#, "socket address"),
        ("/v1/circuits/set", r#"{"service": "a", "failure_threshold": -1}"#, "-1"),
        ("/v1/circuits/set", r#"{"service": "a", "reset_timeout_ms": "5s"}"#, "expected u64"),
        ("/v1/config/reload", "[1]", "trailing"),
        ("/v1/config/reload", "\u{0}", "expected value"),
    ] {
        let raw = post(&served, path, body).await;
        let (kind, message) = raw.error();
        assert_eq!((raw.status, kind.as_str()), (400, "invalid"), "{path} {body}");
        assert!(message.contains(expected), "{path} {body}: {message}");
    }
    assert_eq!(post(&served, "/v1/bypass?on=true", "").await.status, 400);
    assert!(served.door.asked.lock().unwrap().is_empty());
    assert_eq!(post(&served, "/v1/config/reload", "{}").await.status, 200);
}

#[tokio::test]
async fn a_body_too_large_is_refused_before_it_is_read() {
    let served = Served::start().await;
    let mut stream = UnixStream::connect(&served.socket).await.unwrap();
    stream.write_all(b"POST /v1/bypass HTTP/1.1\r\nhost: x\r\ncontent-length: 1048577\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 1024];
    let n = timeout(Duration::from_secs(5), stream.read(&mut answer)).await.unwrap().unwrap();
    let raw = parse(std::str::from_utf8(&answer[..n]).unwrap());
    assert_eq!((raw.status, raw.error().0.as_str()), (413, "too_large"));
}

#[tokio::test]
async fn a_chunked_body_too_large_is_refused_while_it_is_read() {
    let served = Served::start().await;
    let mut stream = UnixStream::connect(&served.socket).await.unwrap();
    stream.write_all(b"POST /v1/bypass HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
    for _ in 0..17 {
        // The server stops reading as soon as it has refused.
        if stream.write_all(&chunk).await.is_err() {
            break;
        }
    }
    let mut answer = vec![0; 1024];
    let n = timeout(Duration::from_secs(5), stream.read(&mut answer)).await.unwrap().unwrap();
    assert_eq!(parse(std::str::from_utf8(&answer[..n]).unwrap()).status, 413);
}

#[tokio::test]
async fn heads_too_large_and_nonsense_are_refused() {
    let served = Served::start().await;
    let large = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(20_000));
    assert_eq!(send(served.tcp, large.as_bytes()).await.status, 431);
    let long = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "y".repeat(20_000));
    assert!(matches!(send(served.tcp, long.as_bytes()).await.status, 414 | 431));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200));
    assert_eq!(send(served.tcp, many.as_bytes()).await.status, 431);
    for nonsense in [
        b"hello\r\n\r\n".as_slice(),
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/bypass HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"POST /v1/bypass HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
    ] {
        assert_eq!(send(served.tcp, nonsense).await.status, 400, "{:?}", String::from_utf8_lossy(nonsense));
    }
    assert_eq!(get(served.tcp, "/health").await.status, 200, "and it goes on");
}

#[tokio::test]
async fn old_and_half_closed_clients_are_answered() {
    let served = Served::start().await;
    assert_eq!(send(served.tcp, b"GET /health HTTP/1.0\r\n\r\n").await.status, 200);
    let mut stream = TcpStream::connect(served.tcp).await.unwrap();
    stream.write_all(b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert_eq!(parse(&answer).status, 200);
}

#[tokio::test]
async fn slow_clients_hold_up_nobody() {
    let served = Served::start().await;
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(served.tcp).await.unwrap();
        stream.write_all(b"GET /v1/st").await.unwrap();
        slow.push(stream);
    }
    let started = Instant::now();
    assert_eq!(get(served.tcp, "/v1/status").await.status, 200);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test]
async fn the_admin_socket_is_open_while_tcp_is_full() {
    let served = Served::start().await;
    let mut slow = Vec::new();
    for _ in 0..200 {
        slow.push(TcpStream::connect(served.tcp).await.unwrap());
    }
    timeout(Duration::from_secs(2), served.client().status()).await.unwrap().unwrap();
    assert_eq!(get(served.metrics, "/health").await.status, 200);
    // And they are sent away in time, so that TCP is open again.
    let raw = timeout(Duration::from_secs(20), get(served.tcp, "/health")).await.unwrap();
    assert_eq!(raw.status, 200);
}

#[tokio::test]
async fn a_change_is_made_to_its_end_though_the_caller_has_gone() {
    let served = Served::start().await;
    let mut stream = UnixStream::connect(&served.socket).await.unwrap();
    stream.write_all(b"POST /v1/config/reload HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    let asked = |door: &FakeDoor| !door.asked.lock().unwrap().is_empty();
    while !asked(&served.door) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(stream);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(served.door.reloaded.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_panic_behind_the_door_is_an_answer() {
    let served = Served::start().await;
    let (service, address) = ("checkout".to_owned(), "10.0.1.5:8080".parse().unwrap());
    let unlucky = Request::EndpointWeight { service, address, weight: 13, persist: false };
    let Err(ClientError::Refused { kind, message }) = served.client().change(&unlucky).await else { panic!() };
    assert_eq!(kind, "internal");
    assert!(message.contains("not finished"), "{message}");
    served.client().status().await.unwrap();
}

#[tokio::test]
async fn several_requests_share_a_connection() {
    let served = Served::start().await;
    let mut stream = TcpStream::connect(served.tcp).await.unwrap();
    let one = "GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
    let last = "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(format!("{one}{one}{last}").as_bytes()).await.unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3);
}

#[tokio::test]
async fn stopping_finishes_requests_and_removes_the_socket() {
    let mut served = Served::start().await;
    let _idle = TcpStream::connect(served.tcp).await.unwrap();
    let mut kept = TcpStream::connect(served.tcp).await.unwrap();
    kept.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 256];
    assert!(kept.read(&mut answer).await.unwrap() > 0);
    let client = served.client();
    let reload = tokio::spawn(async move { client.change(&Request::ConfigReload).await });
    while served.door.asked.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let started = Instant::now();
    served.stop().await;
    assert_eq!(reload.await.unwrap().unwrap().message, "reloaded: 1 service added");
    assert!(started.elapsed() < Duration::from_secs(7), "{:?}", started.elapsed());
    assert!(!served.socket.exists());
    assert!(TcpStream::connect(served.tcp).await.is_err());
    assert!(matches!(served.client().status().await, Err(ClientError::NotReachable { .. })));
}

#[tokio::test]
async fn whoever_was_accepted_before_the_stop_gets_an_answer() {
    let mut served = Served::start().await;
    let mut fresh = TcpStream::connect(served.tcp).await.unwrap();
    // Accepted, since the next one was.
    get(served.tcp, "/health").await;
    let stop = tokio::spawn(async move {
        served.stop().await;
        served
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    fresh.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    fresh.read_to_string(&mut answer).await.unwrap();
    assert_eq!(parse(&answer).status, 200, "{answer}");
    stop.await.unwrap();
}

#[tokio::test]
async fn a_takeover_is_begun_by_an_upgrade_at_the_admin_socket() {
    let served = Served::start().await;
    assert_eq!(request(served.tcp, "POST", "/v1/takeover").await.status, 403);
    let answer = post(&served, "/v1/takeover", "").await;
    assert_eq!(answer.status, 426);
    assert!(answer.error().1.contains("Upgrade: mesh-takeover/1"), "{}", answer.body);
    assert!(!served.door.taken_over.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_request_for_a_name_that_anybody_can_own_is_not_answered() {
    let served = Served::start().await;
    let ask = async |address, host: &str| {
        send(address, format!("GET /health HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes()).await
    };
    for address in [served.tcp, served.metrics] {
        let refused = ask(address, "rebound.example:9901").await;
        assert_eq!((refused.status, refused.error().0.as_str()), (421, "misdirected"));
        for host in ["localhost:9901", "127.0.0.1", "node-a"] {
            assert_eq!(ask(address, host).await.status, 200, "{host}");
        }
    }
    let absolute =
        send(served.tcp, b"GET http://rebound.example/health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert_eq!(absolute.await.status, 421);
}

/// Watches the node, and reads until `text` has come.
async fn watch_live(address: SocketAddr, text: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /v1/watch/live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let read = read_until(&mut stream, text).await;
    (stream, read)
}

async fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut read = Vec::new();
    loop {
        let piece = timeout(Duration::from_secs(20), stream.read_buf(&mut read)).await.expect("it goes on").unwrap();
        let so_far = String::from_utf8_lossy(&read);
        if so_far.contains(text) {
            return so_far.into_owned();
        }
        assert!(piece > 0, "ended: {so_far}");
    }
}

#[tokio::test]
async fn the_node_is_watched_from_a_snapshot_on_by_as_many_as_there_is_room_for() {
    let served = Served::start().await;
    let screen = &served.door.screen;
    assert!(!screen.is_watched());
    let (mut first, head) = watch_live(served.tcp, "\r\n\r\n").await;
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    let mut live = sample::live();
    screen.show(live.clone());
    let snapshot = read_until(&mut first, "\n\n").await;
    assert!(snapshot.contains("id: 1\nevent: snapshot\ndata: {\"time\":"), "{snapshot}");
    live.status.bypass = true;
    screen.show(live);
    let delta = read_until(&mut first, "\n\n").await;
    assert!(delta.contains("id: 2\nevent: delta\n") && delta.contains("\"status\":{\"bypass\":true}"), "{delta}");
    let mut others = Vec::new();
    for _ in 1..64 {
        // Whoever comes later begins with what is shown at the moment.
        others.push(watch_live(served.tcp, "id: 2\nevent: snapshot").await);
    }
    let one_more = get(served.tcp, "/v1/watch/live").await;
    assert_eq!((one_more.status, one_more.error().0.as_str()), (503, "unavailable"));
    // Whoever asks has a place all the same.
    assert_eq!(get(served.tcp, "/v1/status").await.status, 200);
    drop((first, others));
    let until = Instant::now() + Duration::from_secs(20);
    while screen.is_watched() {
        assert!(Instant::now() < until, "places are free again");
        // That a client is gone is noticed when it is sent something.
        screen.show(sample::live());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
