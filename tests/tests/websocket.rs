//! WebSocket: Python's `websockets` on both sides of the proxy.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{Proxy, Python, Scripted, Value, http_with, json, programs::Server, python};

fn before(address: &str, more: &Value) -> Proxy {
    Proxy::new(json!([http_with("chat", &[address], more.clone())]))
}

fn talk(python: &Python, proxy: &Proxy, what: &[&str]) -> Value {
    python.run("websocket_client.py", &[&[proxy.address().as_str(), "chat"], what].concat()).json()
}

macro_rules! one {
    ($more:expr) => {{
        let python = python!("websockets, h2, hpack");
        let server: Server = python.serve("websocket_server.py", &["W"]);
        let proxy = before(&server.address(), &$more);
        (python, server, proxy)
    }};
}

#[test]
fn large_messages_text_and_pings_go_through() {
    let (python, _server, proxy) = one!(json!({}));
    let said = talk(&python, &proxy, &["echo"]);
    assert_eq!((said["echo"].as_bool(), said["text"].as_str()), (Some(true), Some("text ä")), "{said}");
    assert_eq!((said["ping"].as_bool(), said["subprotocol"].as_str()), (Some(true), Some("super")), "{said}");
}

#[test]
fn close_codes_reach_the_other_side() {
    let (python, _server, proxy) = one!(json!({}));
    for code in [1000, 1001, 4321] {
        let said = talk(&python, &proxy, &["server_closes", &code.to_string()]);
        assert_eq!((said["code"].as_u64(), said["reason"].as_str()), (Some(code), Some("as asked")), "{said}");
    }
    let said = talk(&python, &proxy, &["client_closes", "1000"]);
    assert_eq!(said["code"], 1000, "{said}");
}

#[test]
fn a_server_that_breaks_off_ends_the_socket_uncleanly() {
    let (python, _server, proxy) = one!(json!({}));
    assert_eq!(talk(&python, &proxy, &["abort"])["clean"], false);
}

#[test]
fn timeouts_of_requests_do_not_end_a_socket() {
    let (python, _server, proxy) = one!(json!({ "request_timeout": "1s", "idle_timeout": { "http": "1s" } }));
    let said = talk(&python, &proxy, &["idle", "2.5"]);
    assert_eq!(said["text"], "still", "{said}");
}

#[test]
fn the_server_sees_the_upgrade_and_who_asked() {
    let (python, _server, proxy) = one!(json!({}));
    let said = talk(&python, &proxy, &["headers"]);
    let headers = said["headers"].as_str().unwrap().to_ascii_lowercase();
    for line in ["upgrade: websocket", "connection: upgrade", "x-forwarded-for: 127.0.0.1", "host: chat", "via: 1.1"] {
        assert!(headers.contains(line), "{line}: {headers}");
    }
}

#[test]
fn a_refused_upgrade_is_an_answer_like_any_other() {
    let python = python!("websockets");
    let server = Scripted::each(|connection, _| {
        connection.answer(403, "no");
    });
    let proxy = before(&server.address(), &json!({}));
    let said = talk(&python, &proxy, &["echo"]);
    assert_eq!(said["status"], 403, "{said}");
    let nobody = Proxy::new(json!([]));
    let said = talk(&python, &nobody, &["echo"]);
    assert_eq!((said["status"].as_u64(), said["refused"]["server"].as_str()), (Some(404), Some("mesh")), "{said}");
}

#[test]
fn an_upgrade_to_anything_is_a_tunnel_with_two_ends() {
    let server = Scripted::new(|connection| {
        let request = connection.request().unwrap();
        assert_eq!(request.header("upgrade"), Some("odd/1"), "{request:?}");
        // The first bytes of the new protocol come along with the answer.
        connection.wire.send("HTTP/1.1 101 Switching\r\nupgrade: odd/1\r\nconnection: upgrade\r\n\r\nhello ");
        let said = connection.wire.rest();
        connection.wire.send(said);
    });
    let proxy = before(&server.address(), &json!({}));
    let mut wire = proxy.dial();
    // So may those of the client.
    let answer = wire.ask("GET / HTTP/1.1\r\nhost: chat\r\nconnection: upgrade\r\nupgrade: odd/1\r\n\r\nfirst ");
    assert_eq!((answer.status(), answer.header("upgrade")), (101, Some("odd/1")), "{answer:?}");
    assert_eq!(wire.take(6).unwrap(), b"hello ");
    wire.send("second\r\n\r\n");
    wire.finish();
    assert_eq!(wire.rest(), b"first second\r\n\r\n");
    server.wait_until_idle();
}

#[test]
fn a_client_that_vanishes_ends_the_tunnel() {
    let server = Scripted::new(|connection| {
        connection.request();
        connection.wire.send("HTTP/1.1 101 Switching\r\nupgrade: odd/1\r\nconnection: upgrade\r\n\r\n");
        let _ = connection.wire.rest();
    });
    let proxy = before(&server.address(), &json!({}));
    let mut wire = proxy.dial();
    let answer = wire.ask("GET / HTTP/1.1\r\nhost: chat\r\nconnection: upgrade\r\nupgrade: odd/1\r\n\r\n");
    assert_eq!(answer.status(), 101, "{answer:?}");
    wire.reset();
    server.wait_until_idle();
}

#[test]
fn a_websocket_of_http2_is_an_upgrade_at_the_endpoint() {
    let (python, _server, proxy) = one!(json!({}));
    let ask = |protocol: &str| python.run("h2_client.py", &[&proxy.address(), "chat", "websocket", protocol]).json();
    let said = ask("websocket");
    assert_eq!((said["connect"].as_bool(), said["headers"][":status"].as_str()), (Some(true), Some("200")), "{said}");
    for name in ["sec-websocket-accept", "upgrade", "connection"] {
        assert!(said["headers"][name].is_null(), "{said}");
    }
    let seen = said["said"][0].as_str().unwrap().to_ascii_lowercase();
    for line in ["upgrade: websocket", "connection: upgrade", "host: chat", "via: 2 mesh", "sec-websocket-version: 13"]
    {
        assert!(seen.contains(line), "{line}: {seen}");
    }
    assert_eq!((said["said"][1].as_u64(), said["said"][2].as_str()), (Some(40_000), Some("close 1000")), "{said}");
    assert_eq!(said["ended"], "whole");
    // Nothing else is bridged, and a refusal is an answer like any other.
    let said = ask("connect-udp");
    assert_eq!((said["headers"][":status"].as_str(), said["ended"].as_str()), (Some("501"), Some("whole")), "{said}");
    let server = Scripted::each(|connection, _| {
        connection.answer(403, "no");
    });
    let proxy = before(&server.address(), &json!({}));
    let said = python.run("h2_client.py", &[&proxy.address(), "chat", "websocket", "websocket"]).json();
    assert_eq!((said["headers"][":status"].as_str(), said["ended"].as_str()), (Some("403"), Some("whole")), "{said}");
    assert_eq!(server.requests()[0].method(), "GET");
}

#[test]
fn a_client_of_http2_that_vanishes_ends_its_websocket() {
    let python = python!("h2, hpack");
    let server = Scripted::new(|connection| {
        connection.request();
        connection.wire.send("HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n");
        let _ = connection.wire.rest();
    });
    let proxy = before(&server.address(), &json!({}));
    let mut client = python.talk("h2_client.py", &[&proxy.address(), "chat", "websocket", "websocket"]);
    mesh_tests::holds("it is asked", || server.requests().len(), |n| *n == 1);
    client.kill();
    server.wait_until_idle();
}
