//! Circuits fed by requests: what opens them, what they do meanwhile, and how they close.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{Proxy, Scripted, Value, eventually, get, holds, http_with, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// An endpoint whose status the test sets.
fn obeying(status: &Arc<AtomicU16>) -> Scripted {
    let status = status.clone();
    Scripted::each(move |connection, _| {
        connection.answer(status.load(Ordering::SeqCst), "it");
    })
}

fn service(servers: &[&Scripted], breaker: Value) -> Value {
    let addresses: Vec<String> = servers.iter().map(|server| server.address()).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let more = json!({ "circuit_breaker": breaker, "retries": { "attempts": 0 } });
    json!([http_with("web", &addresses, more)])
}

fn quick(threshold: u32) -> Value {
    json!({ "failure_threshold": threshold, "reset_timeout": "500ms", "probe_interval": "100ms", "max_open_percent": 100,
            "success_rate": { "floor": 0 } })
}

#[track_caller]
fn circuit_is(proxy: &Proxy, server: &Scripted, state: &str) {
    eventually(&format!("the circuit is {state}"), || {
        let row = proxy.endpoint("web", &server.address());
        if row["circuit"] == state { Ok(()) } else { Err(row["circuit"].clone()) }
    });
}

#[test]
fn answers_of_5xx_in_a_row_open_a_circuit_and_a_probe_closes_it() {
    let status = Arc::new(AtomicU16::new(500));
    let (ill, well) = (obeying(&status), Scripted::named("well"));
    let mut breaker = quick(5);
    breaker["reset_timeout"] = json!("1500ms");
    let proxy = Proxy::with(service(&[&ill, &well], breaker), |config| config["proxy"]["workers"] = json!(1));
    let mut wire = proxy.dial();
    let failed = (0..40).filter(|_| wire.ask(get("web", "/")).status() == 500).count();
    assert_eq!(failed, 5, "the fifth opens it");
    circuit_is(&proxy, &ill, "open");
    assert_eq!(proxy.service("web")["endpoints"]["open"], 1);
    // It is well again: after the reset timeout one probe goes there, and then all.
    status.store(200, Ordering::SeqCst);
    let known = ill.requests().len();
    eventually("a probe and then requests reach it", || {
        wire.ask(get("web", "/"));
        let now = ill.requests().len() - known;
        if now > 5 { Ok(()) } else { Err(now) }
    });
    circuit_is(&proxy, &ill, "closed");
    let metrics = proxy.metrics();
    assert!(metrics.count("mesh_circuit_transitions_total", &[("service", "web"), ("to", "open")]) >= 1.0);
    assert!(metrics.count("mesh_circuit_transitions_total", &[("service", "web"), ("to", "closed")]) >= 1.0);
}

#[test]
fn a_success_between_failures_keeps_it_closed() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let server = Scripted::each(move |connection, _| {
        let n = counted.fetch_add(1, Ordering::SeqCst);
        connection.answer(if n % 3 == 2 { 200 } else { 500 }, "");
    });
    let proxy = Proxy::with(service(&[&server], quick(3)), |config| config["proxy"]["workers"] = json!(1));
    let mut wire = proxy.dial();
    for _ in 0..30 {
        assert!(matches!(wire.ask(get("web", "/")).status(), 200 | 500));
    }
    assert_eq!(count.load(Ordering::SeqCst), 30);
}

#[test]
fn while_every_circuit_is_open_callers_are_refused_at_once_except_probes() {
    let status = Arc::new(AtomicU16::new(503));
    let server = obeying(&status);
    let mut breaker = quick(3);
    breaker["reset_timeout"] = json!("10s");
    breaker["probe_interval"] = json!("10s");
    let proxy = Proxy::new(service(&[&server], breaker));
    let mut wire = proxy.dial();
    let begin = Instant::now();
    let refused = (0..53).filter(|_| wire.ask(get("web", "/")).reason() == Some("circuit_open")).count();
    // Ten seconds after the third failure one is let through, not sooner.
    let late = usize::from(begin.elapsed() >= Duration::from_secs(10));
    assert!((50 - late..=50).contains(&refused), "{refused} in {:?}", begin.elapsed());
    assert!((3..=3 + late).contains(&server.requests().len()));
    circuit_is(&proxy, &server, "open");
    assert_eq!(proxy.rejected("circuit_open"), refused as f64);
    // The operator closes it.
    status.store(200, Ordering::SeqCst);
    proxy.cli(&["circuit", "reset", "web"]).done();
    holds("it is asked again", || wire.ask(get("web", "/")).status(), |status| *status == 200);
}

#[test]
fn a_failed_probe_opens_it_again_for_longer() {
    let status = Arc::new(AtomicU16::new(500));
    let (ill, well) = (obeying(&status), Scripted::named("well"));
    let mut breaker = quick(1);
    breaker["reset_timeout"] = json!("200ms");
    let proxy = Proxy::new(service(&[&ill, &well], breaker));
    let mut wire = proxy.dial();
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        wire.ask(get("web", "/"));
        thread::sleep(Duration::from_millis(2));
    }
    // 0.2, 0.4, 0.6, 0.8 s apart, jitter only shortens; and one request each.
    let asked = ill.requests().len();
    assert!((3..=7).contains(&asked), "{asked} requests in 2 s");
}

#[test]
fn resets_and_connects_that_fail_open_it_too() {
    let mut server = Scripted::new(|connection| {
        connection.request();
        connection.reset();
    });
    let well = Scripted::named("well");
    let proxy = Proxy::new(service(&[&server, &well], quick(3)));
    for _ in 0..12 {
        proxy.get("web");
    }
    circuit_is(&proxy, &server, "open");
    server.close();
    let proxy = Proxy::new(service(&[&server, &well], quick(3)));
    for _ in 0..12 {
        proxy.get("web");
    }
    circuit_is(&proxy, &server, "open");
}

#[test]
fn what_is_not_counted_opens_nothing() {
    let status = Arc::new(AtomicU16::new(500));
    let server = obeying(&status);
    let mut breaker = quick(2);
    breaker["count"] = json!(["connect_failure", "reset"]);
    let proxy = Proxy::new(service(&[&server], breaker));
    let mut wire = proxy.dial();
    for _ in 0..20 {
        assert_eq!(wire.ask(get("web", "/")).text(), "it");
    }
    status.store(404, Ordering::SeqCst);
    let proxy = Proxy::new(service(&[&server], quick(2)));
    let mut wire = proxy.dial();
    for _ in 0..20 {
        assert_eq!(wire.ask(get("web", "/")).text(), "it", "4xx is the client's own affair");
    }
}

#[test]
fn a_success_rate_below_the_floor_opens_it() {
    let count = Arc::new(AtomicUsize::new(0));
    let server = Scripted::each(move |connection, _| {
        // Never twice in a row.
        let n = count.fetch_add(1, Ordering::SeqCst);
        connection.answer(if n.is_multiple_of(2) { 500 } else { 200 }, "half");
    });
    let well = Scripted::named("well");
    let mut breaker = quick(5);
    breaker["reset_timeout"] = json!("30s");
    breaker["success_rate"] = json!({ "floor": 0.8, "window": "10s", "min_requests": 40 });
    let proxy = Proxy::with(service(&[&server, &well], breaker), |config| config["proxy"]["workers"] = json!(1));
    let mut wire = proxy.dial();
    for _ in 0..60 {
        wire.ask(get("web", "/"));
    }
    assert!(server.requests().len() >= 25, "too few requests prove nothing");
    for _ in 0..140 {
        wire.ask(get("web", "/"));
    }
    circuit_is(&proxy, &server, "open");
    let asked = server.requests().len();
    assert!((40..=60).contains(&asked), "{asked}");
}

#[test]
fn the_success_rate_goes_by_what_counts_as_a_failure() {
    let count = Arc::new(AtomicUsize::new(0));
    let server = Scripted::new(move |connection| {
        while connection.request().is_some() {
            match count.fetch_add(1, Ordering::SeqCst) % 3 {
                0 => connection.answer(200, "well"),
                1 => connection.answer(500, "ill"),
                _ => return connection.reset(),
            };
        }
    });
    for (counted, state) in [(json!(["connect_failure", "timeout"]), "closed"), (json!(["5xx"]), "open")] {
        let mut breaker = quick(1000);
        breaker["count"] = counted;
        breaker["reset_timeout"] = json!("30s");
        // No probe closes it before the loop is over.
        breaker["probe_interval"] = json!("30s");
        breaker["success_rate"] = json!({ "floor": 0.8, "window": "10s", "min_requests": 20 });
        let proxy = Proxy::with(service(&[&server], breaker), |config| config["proxy"]["workers"] = json!(1));
        let mut wire = proxy.dial();
        for _ in 0..90 {
            wire.ask(get("web", "/"));
        }
        circuit_is(&proxy, &server, state);
    }
}

#[test]
fn at_most_half_of_a_services_circuits_open() {
    let status = Arc::new(AtomicU16::new(500));
    let servers: Vec<Scripted> = (0..4).map(|_| obeying(&status)).collect();
    let mut breaker = quick(1);
    breaker["max_open_percent"] = json!(50);
    breaker["reset_timeout"] = json!("30s");
    let proxy = Proxy::new(service(&servers.iter().collect::<Vec<_>>(), breaker));
    for _ in 0..40 {
        assert_eq!(proxy.get("web").status(), 500, "those that are closed still answer");
    }
    assert_eq!(proxy.service("web")["endpoints"]["open"], 2);
}

#[test]
fn a_circuit_that_is_tripped_by_hand_gets_nothing() {
    let (a, b) = (Scripted::named("A"), Scripted::named("B"));
    let proxy = Proxy::new(service(&[&a, &b], quick(5)));
    proxy.cli(&["circuit", "trip", "web", &a.address()]).done();
    let mut wire = proxy.dial();
    for _ in 0..20 {
        assert_eq!(wire.ask(get("web", "/")).text(), "B");
    }
    proxy.cli(&["circuit", "trip", "web"]).done();
    proxy.refuses(get("web", "/"), 503, "circuit_open");
    proxy.cli(&["circuit", "reset", "web"]).done();
    assert_eq!(wire.ask(get("web", "/")).status(), 200);
}

#[test]
fn each_transition_is_logged_and_counted_once_without_a_kernel() {
    let status = Arc::new(AtomicU16::new(500));
    let (ill, well) = (obeying(&status), Scripted::named("well"));
    let proxy = Proxy::with(service(&[&ill, &well], quick(3)), |config| config["proxy"]["workers"] = json!(1));
    let mut wire = proxy.dial();
    for _ in 0..10 {
        wire.ask(get("web", "/"));
    }
    circuit_is(&proxy, &ill, "open");
    status.store(200, Ordering::SeqCst);
    eventually("a probe closes it", || {
        wire.ask(get("web", "/"));
        let row = proxy.endpoint("web", &ill.address());
        if row["circuit"] == "closed" { Ok(()) } else { Err(row) }
    });
    let count = |to| proxy.metrics().count("mesh_circuit_transitions_total", &[("service", "web"), ("to", to)]);
    assert_eq!(["open", "half_open", "closed"].map(count), [1.0; 3]);
    let told = |what: &str| proxy.log().lines().filter(|line| line.contains(what)).count();
    holds("the last is logged", || told("→ closed: the endpoint is back"), |n| *n > 0);
    assert_eq!(["circuit closed → open", "open → half_open", "half_open → closed"].map(told), [1; 3]);
}

#[test]
fn an_open_circuit_makes_other_zones_help_out_without_a_kernel() {
    let status = Arc::new(AtomicU16::new(500));
    let (ill, near, far) = (obeying(&status), Scripted::named("near"), Scripted::named("far"));
    let zoned = |server: &Scripted, zone: &str| json!({ "address": server.address(), "zone": zone });
    let mut services = service(&[&ill, &near, &far], quick(3));
    services[0]["endpoints"] = json!([zoned(&ill, "here"), zoned(&near, "here"), zoned(&far, "there")]);
    services[0]["circuit_breaker"]["reset_timeout"] = json!("60s");
    let proxy = Proxy::with(services, |config| {
        config["proxy"]["workers"] = json!(1);
        config["node"] = json!({ "zone": "here", "state_dir": config["node"]["state_dir"] });
    });
    let mut wire = proxy.dial();
    // The third failure is the last request that may find the old table.
    while ill.requests().len() < 3 {
        wire.ask(get("web", "/"));
    }
    circuit_is(&proxy, &ill, "open");
    assert_eq!(far.requests().len(), 0, "until then nobody went there");
    let share = || {
        let known = [near.requests().len(), far.requests().len()];
        for _ in 0..70 {
            wire.ask(get("web", "/"));
        }
        [near.requests().len() - known[0], far.requests().len() - known[1]]
    };
    // Half of the near ones are usable, which is 0.5 / 0.7 of what is enough.
    holds("the far one helps out", share, |[near, far]| near + far == 70 && (15..=25).contains(far));
    let picks = |tier| proxy.metrics().sum("mesh_picks_total", &[("service", "web"), ("tier", tier)]).unwrap_or(0.0);
    assert!(picks("zone") > 50.0 && picks("remote") >= 15.0);
    proxy.cli(&["circuit", "reset", "web"]).done();
    status.store(200, Ordering::SeqCst);
    holds(
        "and no longer than needed",
        || {
            wire.ask(get("web", "/"));
            far.requests().len()
        },
        {
            let last = std::cell::Cell::new(usize::MAX);
            move |now| last.replace(*now) == *now
        },
    );
}
