//! The programs and servers that tests of the HTTP path lean on, directly, without a daemon between them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{Haproxy, Nginx, Scripted, Wire, get, holds, post, program, programs, python, server};
use std::fs;

#[test]
fn nginx_keeps_files_and_says_its_name() {
    let nginx = server!(Nginx::http1("N1"));
    let mut wire = Wire::connect(&nginx.address());
    assert_eq!(wire.ask(get("x", "/")).text(), "N1\n");
    let put = wire.ask("PUT /files/a HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc");
    assert_eq!(put.status(), 201, "{put:?}");
    assert_eq!(fs::read(nginx.files().as_ref().join("a")).unwrap(), b"abc");
    assert_eq!(wire.ask(get("x", "/files/a")).text(), "abc");
    assert_eq!(wire.ask(get("x", "/status/503")).status(), 503);
    let packed = wire.ask("GET /gzip/a HTTP/1.1\r\nhost: x\r\naccept-encoding: gzip\r\n\r\n");
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert_eq!(packed.header("transfer-encoding"), Some("chunked"));
    // nginx writes its log after the answer.
    holds("each is in the log", || nginx.answered(), |answered| *answered == 5);
}

#[test]
fn nginx_and_haproxy_speak_http2_without_asking() {
    let curl = program!("curl");
    let (nginx, haproxy) = (server!(Nginx::http2("N")), server!(Haproxy::http2("H")));
    let ask = |address: &str| programs::run(&curl, &["-s", "--http2-prior-knowledge", &format!("http://{address}/")]);
    assert_eq!(ask(&nginx.address()).done(), "N\n");
    assert!(ask(&haproxy.address()).done().starts_with("2.0 GET /\n"));
}

#[test]
fn haproxy_says_how_it_was_asked() {
    let haproxy = server!(Haproxy::http1("H"));
    let answer = Wire::connect(&haproxy.address()).ask("GET /a HTTP/1.1\r\nhost: x\r\nx-y: z\r\n\r\n");
    assert!(answer.text().starts_with("1.1 GET /a\n"), "{answer:?}");
    assert!(answer.text().contains("x-y: z"), "{answer:?}");
    assert_eq!(answer.header("x-name"), Some("H"));
}

#[test]
fn a_scripted_endpoint_remembers_every_byte_and_breaks_off_as_told() {
    let mut server = Scripted::new(|connection| match connection.index {
        0 => {
            let request = connection.request().unwrap();
            connection.answer(200, &request.text());
        }
        1 => {
            connection.head();
            connection.reset();
        }
        _ => {}
    });
    let asked = post("x", "/p", "body");
    let mut wire = Wire::connect(&server.address());
    assert_eq!(wire.ask(&asked).text(), "body");
    assert_eq!(wire.rest(), b"");
    assert_eq!(server.requests()[0].bytes, asked.as_bytes());
    assert!(Wire::connect(&server.address()).try_answer_to(&get("x", "/")).is_err());
    assert_eq!(Wire::connect(&server.address()).rest(), b"");
    server.wait_until_idle();
    assert_eq!((server.accepted(), server.requests().len()), (3, 2));
    server.close();
    assert!(std::net::TcpStream::connect(server.address()).is_err());
    server.open();
    assert!(std::net::TcpStream::connect(server.address()).is_ok());
}

#[test]
fn chunks_and_trailers_are_read() {
    let server = Scripted::new(|connection| {
        connection.request();
        let wire = &mut connection.wire;
        wire.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        wire.send("3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nx-sum: 7\r\n\r\n");
    });
    let answer = Wire::connect(&server.address()).ask(get("x", "/"));
    assert_eq!((answer.text().as_str(), answer.trailers.len()), ("abcdefg", 1));
}

#[test]
fn load_programs_count_what_failed() {
    let (h2load, nginx) = (program!("h2load"), server!(Nginx::http2("N")));
    let url = format!("http://{}/", nginx.address());
    let said = programs::run(&h2load, &["-n", "100", "-c", "2", "-m", "10", &url]).done();
    assert!(said.contains("100 succeeded, 0 failed"), "{said}");
}

#[test]
fn grpc_in_python_talks_to_itself() {
    let python = python!("grpc, grpc_health");
    let server = python.serve("grpc_server.py", &["G1"]);
    let said = python.run("grpc_client.py", &[&server.address(), "checkout", "unary"]).json();
    assert_eq!(said["code"], "OK", "{said}");
    assert_eq!(said["messages"][0], "G1:hello", "{said}");
}

#[test]
fn websockets_in_python_talk_to_themselves() {
    let python = python!("websockets");
    let server = python.serve("websocket_server.py", &["W1"]);
    let said = python.run("websocket_client.py", &[&server.address(), "chat", "echo"]).json();
    assert_eq!(said["echo"], true, "{said}");
}

#[test]
fn raw_http2_in_python_talks_to_a_scripted_server() {
    let python = python!("h2");
    let server = python.serve("h2_server.py", &["ok"]);
    let said = python.run("h2_client.py", &[&server.address(), "x", "get"]).json();
    assert_eq!(said["status"], "200", "{said}");
}
