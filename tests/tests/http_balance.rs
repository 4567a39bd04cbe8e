//! Which endpoint a request goes to: each policy, per request.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{Proxy, Scripted, Value, Wire, eventually, get, http_with, json};
use std::{collections::BTreeMap, ops::RangeInclusive, thread, time::Duration};

/// How many answers came from whom.
type Counts = BTreeMap<String, u32>;

fn named(names: &[&str]) -> Vec<Scripted> {
    names.iter().map(|name| Scripted::named(name)).collect()
}

/// A service over these servers, with their weights.
fn service(servers: &[Scripted], weights: &[u32], more: &Value) -> Value {
    let mut web = http_with("web", &[], more.clone());
    let weight = |at: usize| weights.get(at).copied().unwrap_or(1);
    let entry = |(at, server): (usize, &Scripted)| json!({ "address": server.address(), "weight": weight(at) });
    web["endpoints"] = servers.iter().enumerate().map(entry).collect();
    json!([web])
}

fn policy(policy: &str) -> Value {
    json!({ "load_balancing": { "policy": policy } })
}

/// Sends `n` requests over `clients` connections, in turns, with these header lines.
fn ask(proxy: &Proxy, clients: usize, n: usize, lines: impl Fn(usize) -> String) -> Counts {
    let mut wires: Vec<Wire> = (0..clients).map(|_| proxy.dial()).collect();
    let mut counts = Counts::new();
    for i in 0..n {
        let answer = wires[i % clients].ask(format!("GET / HTTP/1.1\r\nhost: web\r\n{}\r\n", lines(i)));
        assert_eq!(answer.status(), 200, "{answer:?}");
        *counts.entry(answer.text()).or_default() += 1;
    }
    counts
}

fn plain(_: usize) -> String {
    String::new()
}

#[track_caller]
fn within(counts: &Counts, expected: &[(&str, RangeInclusive<u32>)]) {
    for (name, range) in expected {
        assert!(range.contains(&counts.get(*name).copied().unwrap_or_default()), "{name} not in {range:?}: {counts:?}");
    }
}

#[test]
fn round_robin_gives_each_its_turn_whoever_asks() {
    let servers = named(&["A", "B", "C"]);
    let proxy = Proxy::new(service(&servers, &[], &policy("round_robin")));
    // One connection, and many over all workers.
    within(&ask(&proxy, 1, 300, plain), &[("A", 99..=101), ("B", 99..=101), ("C", 99..=101)]);
    within(&ask(&proxy, 8, 600, plain), &[("A", 190..=210), ("B", 190..=210), ("C", 190..=210)]);
}

#[test]
fn weights_count_and_a_weight_of_zero_gets_nothing() {
    let servers = named(&["A", "B", "C"]);
    for (name, slack) in [("round_robin", 20), ("random", 90)] {
        let proxy = Proxy::new(service(&servers, &[1, 3, 0], &policy(name)));
        let counts = ask(&proxy, 4, 1000, plain);
        within(&counts, &[("A", 250 - slack..=250 + slack), ("B", 750 - slack..=750 + slack), ("C", 0..=0)]);
    }
}

#[test]
fn random_is_even_in_the_long_run() {
    let servers = named(&["A", "B"]);
    let proxy = Proxy::new(service(&servers, &[], &policy("random")));
    within(&ask(&proxy, 4, 1000, plain), &[("A", 400..=600), ("B", 400..=600)]);
}

#[test]
fn least_connections_counts_requests_on_their_way() {
    let slow = Scripted::each(|connection, request| {
        if request.target() == "/hold" {
            thread::sleep(Duration::from_secs(10));
        }
        connection.answer(200, "slow");
    });
    let servers = [slow, Scripted::named("fast")];
    let mut least_connections = policy("least_connections");
    least_connections["request_timeout"] = json!("0s");
    let proxy = Proxy::with(service(&servers, &[], &least_connections), |config| {
        // With one worker the counts are exact.
        config["proxy"]["workers"] = json!(1);
    });
    let mut held: Vec<Wire> = (0..40).map(|_| proxy.dial()).collect();
    for wire in &mut held {
        wire.send(get("web", "/hold"));
    }
    // Half of them, unless the fast one answers some before the others come.
    eventually("some of them wait at the slow one", || {
        let waiting = servers[0].requests().len();
        if servers[1].requests().len() + waiting == 40 && waiting >= 2 { Ok(()) } else { Err(waiting) }
    });
    // The fast one has none on its way now.
    within(&ask(&proxy, 4, 100, plain), &[("fast", 95..=100)]);
}

#[test]
fn peak_ewma_prefers_the_fast_endpoint() {
    let slow = Scripted::each(|connection, _| {
        // No stall of this machine makes the fast one as slow.
        thread::sleep(Duration::from_secs(1));
        connection.answer(200, "slow");
    });
    let servers = [slow, Scripted::named("fast")];
    let proxy = Proxy::new(service(&servers, &[], &policy("peak_ewma")));
    within(&ask(&proxy, 4, 200, plain), &[("fast", 170..=200)]);
}

#[test]
fn maglev_sticks_by_header_cookie_or_source() {
    let servers = named(&["A", "B", "C", "D"]);
    let hashing = |hash: Value| {
        let balancing = json!({ "load_balancing": { "policy": "maglev", "hash": hash } });
        Proxy::new(service(&servers, &[], &balancing))
    };
    let proxy = hashing(json!({ "header": "x-user" }));
    let line = |name: &str| format!("x-user: {name}\r\n");
    let mut owners = Counts::new();
    for user in 0..120 {
        let counts = ask(&proxy, 4, 8, |_| line(&format!("user-{user}")));
        assert_eq!(counts.len(), 1, "user {user} moves: {counts:?}");
        *owners.entry(counts.into_keys().next().unwrap()).or_default() += 1;
    }
    assert_eq!(owners.len(), 4, "users are spread: {owners:?}");

    let proxy = hashing(json!({ "cookie": "session" }));
    let cookies = |n: usize| format!("cookie: a=1; session=s{}; b={n}\r\n", n / 8);
    let mut seen: BTreeMap<usize, String> = BTreeMap::new();
    let mut wire = proxy.dial();
    for n in 0..160 {
        let who = wire.ask(format!("GET / HTTP/1.1\r\nhost: web\r\n{}\r\n", cookies(n))).text();
        assert_eq!(*seen.entry(n / 8).or_insert(who.clone()), who, "session {}", n / 8);
    }
    // Without what is hashed it is the source, which is one here.
    let proxy = hashing(json!({ "header": "x-user", "source": true }));
    assert_eq!(ask(&proxy, 6, 60, plain).len(), 1);
    // Where neither is there, nothing sticks.
    let proxy = hashing(json!({ "header": "x-user", "source": false }));
    assert!(ask(&proxy, 6, 60, plain).len() > 1);
}

#[test]
fn maglev_moves_few_when_an_endpoint_goes() {
    let servers = named(&["A", "B", "C", "D"]);
    let balancing = json!({ "load_balancing": { "policy": "maglev", "hash": { "header": "x-user" } } });
    let proxy = Proxy::new(service(&servers, &[], &balancing));
    let owners = |proxy: &Proxy| -> Vec<String> {
        let mut wire = proxy.dial();
        let ask = |user: usize| wire.ask(format!("GET / HTTP/1.1\r\nhost: web\r\nx-user: {user}\r\n\r\n")).text();
        (0..200).map(ask).collect()
    };
    let before = owners(&proxy);
    proxy.cli(&["endpoints", "drain", "web", &servers[0].address()]).done();
    let after = owners(&proxy);
    assert!(!after.contains(&"A".to_owned()));
    let moved = before.iter().zip(&after).filter(|(b, a)| *b != "A" && b != a).count();
    assert!(moved <= 20, "{moved} of 200 moved without need");
}

#[test]
fn the_policy_changes_at_once() {
    let servers = named(&["A", "B"]);
    let proxy = Proxy::new(service(&servers, &[], &policy("round_robin")));
    within(&ask(&proxy, 1, 20, plain), &[("A", 9..=11)]);
    proxy.cli(&["lb", "set", "web", "maglev"]).done();
    assert_eq!(ask(&proxy, 1, 20, plain).len(), 1);
}

#[test]
fn a_draining_endpoint_gets_no_new_request_on_any_connection() {
    let servers = named(&["A", "B"]);
    let proxy = Proxy::new(service(&servers, &[], &policy("round_robin")));
    let mut wire = proxy.dial();
    let mut counts = |n: usize| {
        let mut counts = Counts::new();
        (0..n).for_each(|_| *counts.entry(wire.ask(get("web", "/")).text()).or_default() += 1);
        counts
    };
    assert_eq!(counts(10).len(), 2);
    proxy.cli(&["endpoints", "drain", "web", &servers[0].address()]).done();
    within(&counts(40), &[("B", 40..=40)]);
    assert_eq!(proxy.endpoint("web", &servers[0].address())["draining"], true);
    proxy.cli(&["endpoints", "undrain", "web", &servers[0].address()]).done();
    assert_eq!(counts(10).len(), 2);
    proxy.cli(&["endpoints", "weight", "web", &servers[1].address(), "0"]).done();
    within(&counts(20), &[("A", 20..=20)]);
}

#[test]
fn a_request_in_flight_outlives_the_draining_of_its_endpoint() {
    let servers = [Scripted::each(|connection, _| {
        thread::sleep(Duration::from_millis(600));
        connection.answer(200, "whole");
    })];
    let proxy = Proxy::new(service(&servers, &[], &json!({})));
    let mut wire = proxy.dial();
    wire.send(get("web", "/"));
    eventually("it is asked", || servers[0].requests().first().map(|_| ()).ok_or("not yet"));
    proxy.cli(&["endpoints", "drain", "web", &servers[0].address()]).done();
    assert_eq!(wire.answer().text(), "whole");
    proxy.refuses(get("web", "/"), 503, "no_endpoint");
}

#[test]
fn endpoints_near_are_preferred() {
    let servers = named(&["near", "far"]);
    let mut services = service(&servers, &[], &json!({ "locality": { "prefer": "zone" } }));
    services[0]["endpoints"][0]["zone"] = json!("z1");
    services[0]["endpoints"][1]["zone"] = json!("z2");
    let proxy = Proxy::with(services, |config| config["node"]["zone"] = json!("z1"));
    within(&ask(&proxy, 2, 20, plain), &[("near", 20..=20)]);
}

#[test]
fn an_unhealthy_endpoint_gets_no_requests() {
    let ill = Scripted::each(|connection, request| {
        connection.answer(if request.target() == "/check" { 500 } else { 200 }, "ill");
    });
    let servers = [ill, Scripted::named("well")];
    let check = json!({ "type": "http", "path": "/check", "interval": "100ms", "timeout": "1s", "unhealthy_threshold": 1, "healthy_threshold": 1 });
    let proxy = Proxy::new(service(&servers, &[], &json!({ "health_check": check })));
    eventually("it is found to be ill", || {
        let row = proxy.endpoint("web", &servers[0].address());
        if row["health"] == "unhealthy" { Ok(()) } else { Err(row["health"].clone()) }
    });
    within(&ask(&proxy, 2, 40, plain), &[("well", 40..=40)]);
}

#[test]
fn listings_show_what_happened() {
    let servers = named(&["A", "B"]);
    let proxy = Proxy::new(service(&servers, &[], &policy("round_robin")));
    ask(&proxy, 2, 40, plain);
    let row = proxy.service("web");
    assert_eq!((row["protocol"].as_str(), row["endpoints"]["total"].as_u64()), (Some("http"), Some(2)), "{row}");
    eventually("the endpoints have counted", || {
        let row = proxy.endpoint("web", &servers[0].address());
        let counted = row["connections_total"].as_u64() >= Some(1) && row["active_requests"] == 0;
        let timed = row["latency_ewma_ms"].as_f64().is_some_and(|ms| ms > 0.0);
        if counted && timed { Ok(()) } else { Err(row) }
    });
}
