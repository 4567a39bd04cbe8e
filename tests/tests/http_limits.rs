//! Limits of a service: whom they hold up, and whom not.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{Nginx, Proxy, Scripted, Wire, eventually, get, http_with, json, server};
use std::collections::BTreeSet;

/// Statuses of requests, each on a connection of its own, one after the other.
fn statuses(proxy: &Proxy, service: &str, times: usize) -> Vec<u16> {
    (0..times).map(|_| proxy.get(service).status()).collect()
}

/// Waits until an endpoint has got so many requests.
fn until_asked(server: &Scripted, times: usize) {
    eventually("requests are on their way", || match server.requests().len() {
        n if n >= times => Ok(()),
        n => Err(n),
    });
}

#[test]
fn connections_at_rest_make_room_whichever_worker_has_them() {
    let one = Scripted::named("B1");
    let more = json!({ "limits": { "max_connections": 1 }, "request_timeout": "10s" });
    let proxy = Proxy::new(json!([http_with("web", &[&one.address()], more)]));
    assert_eq!(statuses(&proxy, "web", 20), [200; 20]);
    assert_eq!(proxy.endpoint("web", &one.address())["circuit"], "closed");
}

#[test]
fn connections_of_http2_at_rest_make_room_for_other_endpoints() {
    let (one, two) = (server!(Nginx::http2("N1")), server!(Nginx::http2("N2")));
    let more = json!({ "limits": { "max_connections": 1 }, "upstream": "http2" });
    let web = http_with("web", &[&one.address(), &two.address()], more);
    let proxy = Proxy::with(json!([web]), |config| config["proxy"]["workers"] = json!(1));
    let answers: Vec<String> = (0..6).map(|_| proxy.get("web").text()).collect();
    let seen: BTreeSet<&str> = answers.iter().map(|text| text.trim()).collect();
    assert_eq!(seen, BTreeSet::from(["N1", "N2"]), "{answers:?}");
}

#[test]
fn waiting_for_a_place_is_no_failure_of_the_endpoint() {
    let server = Scripted::slow();
    let more = json!({
        "limits": { "max_connections": 1 },
        "request_timeout": "0s",
        "circuit_breaker": { "failure_threshold": 2 },
        "routes": [{ "match": { "path": "/9" }, "request_timeout": "200ms" }, {}],
    });
    let web = http_with("web", &[&server.address()], more);
    let proxy = Proxy::with(json!([web]), |config| config["proxy"]["workers"] = json!(1));
    let mut first = proxy.dial();
    first.send(get("web", "/8000"));
    until_asked(&server, 1);
    for _ in 0..3 {
        assert_eq!(proxy.ask(get("web", "/9")).status(), 504);
    }
    let endpoint = proxy.endpoint("web", &server.address());
    assert_eq!((&endpoint["circuit"], server.requests().len()), (&json!("closed"), 1), "{endpoint:#}");
    assert_eq!(first.answer().text(), "done");
}

#[test]
fn none_is_no_limit_of_those_who_wait() {
    let server = Scripted::slow();
    let more = json!({ "limits": { "max_connections": 1, "max_pending_requests": 0 }, "request_timeout": "0s" });
    let proxy = Proxy::new(json!([http_with("web", &[&server.address()], more)]));
    let mut wires: Vec<Wire> = (0..4).map(|_| proxy.dial()).collect();
    wires.iter_mut().for_each(|wire| assert!(wire.send(get("web", "/50"))));
    wires.iter_mut().for_each(|wire| assert_eq!(wire.answer().status(), 200));
}

#[test]
fn limits_and_rates_hold_for_requests_that_a_route_brings() {
    let server = Scripted::slow();
    let to =
        |name: &str, service: &str| http_with(name, &[], json!({ "routes": [{ "to": [{ "service": service }] }] }));
    let busy = http_with("busy", &[&server.address()], json!({ "limits": { "max_requests": 1 } }));
    let rate = json!({ "rate_limit": { "requests_per_second": 1, "burst": 2 } });
    let rated = http_with("rated", &[&server.address()], rate);
    let proxy = Proxy::new(json!([busy, rated, to("to-busy", "busy"), to("to-rated", "rated")]));

    let mut first = proxy.dial();
    first.send(get("to-busy", "/3000"));
    until_asked(&server, 1);
    let refused = proxy.get("to-busy");
    assert_eq!((refused.status(), refused.reason()), (503, Some("max_requests")));
    let active = |service: &str| proxy.metrics().count("mesh_requests_active", &[("service", service)]);
    assert_eq!((active("busy"), active("to-busy")), (1.0, 0.0));
    assert_eq!(first.answer().status(), 200);

    let seen = statuses(&proxy, "to-rated", 6);
    assert_eq!(seen[..2], [200, 200], "{seen:?}");
    assert!(seen.contains(&429), "{seen:?}");
}

#[test]
fn a_tunnel_is_one_of_the_connections() {
    let server = Scripted::named("B1");
    let web = http_with("web", &[&server.address()], json!({ "limits": { "max_connections": 1 } }));
    let proxy = Proxy::new(json!([web]));
    let connect = "CONNECT web:80 HTTP/1.1\r\nhost: web:80\r\n\r\n";
    let mut tunnel = proxy.dial();
    tunnel.send(connect);
    assert_eq!(tunnel.head().unwrap().status(), 200);
    let connections = || proxy.metrics().count("mesh_upstream_connections", &[("service", "web")]);
    assert_eq!(connections(), 1.0);
    proxy.refuses(connect, 503, "max_pending_requests");
    assert_eq!(tunnel.ask(get("web", "/")).text(), "B1");
    drop(tunnel);
    eventually("there is room again", || {
        let mut wire = proxy.dial();
        wire.send(connect);
        match wire.head().unwrap().status() {
            200 => Ok(()),
            status => Err(status),
        }
    });
    let answered = [("service", "web"), ("status", "200")];
    assert!(proxy.metrics().count("http_responses_total", &answered) >= 2.0, "tunnels are answered");
}

#[test]
fn a_client_keeps_its_endpoint_where_affinity_is_wanted() {
    let servers = [Scripted::named("B1"), Scripted::named("B2"), Scripted::named("B3")];
    let addresses = servers.each_ref().map(Scripted::address);
    let addresses = addresses.each_ref().map(String::as_str);
    let balancing = json!({ "policy": "round_robin", "affinity": "10m" });
    let proxy = Proxy::new(json!([http_with("web", &addresses, json!({ "load_balancing": balancing }))]));
    let answers: BTreeSet<String> = (0..12).map(|_| proxy.get("web").text()).collect();
    assert_eq!(answers.len(), 1, "{answers:?}");
}
