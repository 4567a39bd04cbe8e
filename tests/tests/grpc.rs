//! gRPC: Python's client, the proxy, Python's server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{Proxy, Python, Value, eventually, http_with, json, programs::Server, python};
use std::{collections::BTreeMap, time::Instant};

fn service(servers: &[&Server], more: &Value) -> Value {
    let addresses: Vec<String> = servers.iter().map(|server| server.address()).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let mut grpc = http_with("checkout", &addresses, more.clone());
    grpc["protocol"] = json!("grpc");
    json!([grpc])
}

fn call(python: &Python, proxy: &Proxy, what: &[&str]) -> Value {
    python.run("grpc_client.py", &[&[proxy.address().as_str(), "checkout"], what].concat()).json()
}

/// One server behind a proxy.
macro_rules! one {
    () => {{
        let python = python!("grpc, grpc_health");
        let server = python.serve("grpc_server.py", &["G1"]);
        let proxy = Proxy::new(service(&[&server], &json!({})));
        (python, server, proxy)
    }};
}

#[test]
fn unary_calls_carry_metadata_and_trailers() {
    let (python, _server, proxy) = one!();
    let said = call(&python, &proxy, &["described"]);
    assert_eq!((said["code"].as_str(), said["messages"][0].as_str()), (Some("OK"), Some("G1:hello")), "{said}");
    assert_eq!(said["initial"]["x-carried"], "value", "{said}");
    assert_eq!(said["trailing"]["x-trailer"], "there", "{said}");
    assert_eq!(said["trailing"]["x-binary-bin"], "00ff", "{said}");
}

#[test]
fn streams_flow_in_every_direction() {
    let (python, _server, proxy) = one!();
    let said = call(&python, &proxy, &["server_stream", "50 0"]);
    assert_eq!(said["messages"].as_array().unwrap().len(), 50, "{said}");
    assert_eq!(said["messages"][49], "G1:49", "{said}");
    let said = call(&python, &proxy, &["client_stream"]);
    assert_eq!(said["messages"][0], "G1:100 1000000", "{said}");
    // Each message waits for the answer to the one before it: nothing may be held back.
    let said = call(&python, &proxy, &["bidi"]);
    assert_eq!(said["messages"].as_array().unwrap().len(), 20, "{said}");
    assert_eq!((said["code"].as_str(), said["messages"][19].as_str()), (Some("OK"), Some("G1:19")), "{said}");
}

#[test]
fn large_messages_arrive_whole() {
    let (python, _server, proxy) = one!();
    let said = call(&python, &proxy, &["large", "20000000"]);
    assert_eq!(said["messages"][0], "20000003", "{said}");
}

#[test]
fn status_codes_and_messages_arrive_as_the_server_set_them() {
    let (python, server, proxy) = one!();
    for code in ["NOT_FOUND", "INTERNAL", "UNAVAILABLE", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED"] {
        let said = call(&python, &proxy, &["say", &format!("fail {code}")]);
        assert_eq!((said["code"].as_str(), said["details"].as_str()), (Some(code), Some("asked for: ä%")), "{said}");
        assert_eq!(said["trailing"]["x-trailer"], "of a failure", "{said}");
    }
    drop(server);
}

#[test]
fn a_deadline_that_the_server_misses_is_exceeded() {
    let (python, _server, proxy) = one!();
    let said = call(&python, &proxy, &["say", "sleep 6", "0.5"]);
    assert_eq!(said["code"], "DEADLINE_EXCEEDED", "{said}");
    assert!(said["seconds"].as_f64().unwrap() < 5.0, "{said}");
}

#[test]
fn the_services_own_timeout_is_told_as_a_status_of_grpc() {
    let python = python!("grpc, grpc_health");
    let server = python.serve("grpc_server.py", &["G1"]);
    let proxy = Proxy::new(service(&[&server], &json!({ "request_timeout": "1500ms" })));
    let said = call(&python, &proxy, &["say", "sleep 6"]);
    assert!(matches!(said["code"].as_str(), Some("DEADLINE_EXCEEDED" | "UNAVAILABLE")), "{said}");
    assert!(said["seconds"].as_f64().unwrap() < 5.0, "{said}");
    // A stream that answers at once may last longer.
    let said = call(&python, &proxy, &["server_stream", "20 0.1"]);
    assert_eq!(said["code"], "OK", "{said}");
    // So may one call whose client gives it more time? No: the shorter one counts.
    let said = call(&python, &proxy, &["say", "sleep 4", "8"]);
    assert_ne!(said["code"], "OK", "{said}");
}

#[test]
fn health_is_asked_through_the_proxy() {
    let (python, _server, proxy) = one!();
    assert_eq!(call(&python, &proxy, &["health", "test.Echo"])["messages"][0], "SERVING");
    assert_eq!(call(&python, &proxy, &["health", "test.Ill"])["messages"][0], "NOT_SERVING");
    assert_eq!(call(&python, &proxy, &["health", "test.Unknown"])["code"], "NOT_FOUND");
}

#[test]
fn calls_of_one_channel_are_spread_over_all_servers() {
    let python = python!("grpc, grpc_health");
    let servers: Vec<Server> = ["G1", "G2", "G3"].iter().map(|name| python.serve("grpc_server.py", &[name])).collect();
    let proxy = Proxy::new(service(&servers.iter().collect::<Vec<_>>(), &json!({})));
    let said = call(&python, &proxy, &["many", "90"]);
    let mut counts = BTreeMap::new();
    for message in said["messages"].as_array().unwrap() {
        *counts.entry(message.as_str().unwrap()[..2].to_owned()).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 3, "{counts:?}");
    assert!(counts.values().all(|count| (27..=33).contains(count)), "{counts:?}");
}

#[test]
fn a_server_that_dies_in_a_stream_is_unavailable() {
    let (python, mut server, proxy) = one!();
    let mut client = python.talk("grpc_client.py", &[&proxy.address(), "checkout", "until_it_breaks"]);
    assert_eq!(client.line(), "G1:0");
    assert_eq!(client.line(), "G1:1");
    let begin = Instant::now();
    server.kill();
    let said = eventually("the end", || {
        let line = client.line();
        if line.starts_with('{') { Ok(line) } else { Err(line) }
    });
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["code"], "UNAVAILABLE", "{said}");
    assert!(begin.elapsed().as_secs() < 3, "{said}");
}

#[test]
fn no_server_is_unavailable_and_not_internal() {
    let python = python!("grpc, grpc_health");
    let mut server = python.serve("grpc_server.py", &["G1"]);
    let proxy = Proxy::new(service(&[&server], &json!({})));
    server.kill();
    let said = call(&python, &proxy, &["unary"]);
    assert_eq!(said["code"], "UNAVAILABLE", "{said}");
    let proxy = Proxy::new(service(&[], &json!({})));
    let said = call(&python, &proxy, &["unary"]);
    assert_eq!(said["code"], "UNAVAILABLE", "{said}");
    assert_eq!(said["trailing"]["x-mesh-reason"].as_str().unwrap_or("no_endpoint"), "no_endpoint", "{said}");
    assert!(proxy.rejected("no_endpoint") >= 1.0);
}

#[test]
fn a_service_nobody_knows_is_unimplemented_or_unavailable() {
    let (python, _server, proxy) = one!();
    let said = python.run("grpc_client.py", &[&proxy.address(), "nobody", "unary"]).json();
    assert!(matches!(said["code"].as_str(), Some("UNIMPLEMENTED" | "UNAVAILABLE")), "{said}");
}

#[test]
fn one_server_that_is_gone_costs_no_call() {
    let python = python!("grpc, grpc_health");
    let mut servers: Vec<Server> = ["G1", "G2"].iter().map(|name| python.serve("grpc_server.py", &[name])).collect();
    let proxy = Proxy::new(service(&servers.iter().collect::<Vec<_>>(), &json!({})));
    assert_eq!(call(&python, &proxy, &["many", "10"])["code"], "OK");
    servers[0].kill();
    for _ in 0..3 {
        let said = call(&python, &proxy, &["many", "10"]);
        assert_eq!(said["code"], "OK", "{said}");
    }
}
