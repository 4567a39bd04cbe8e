//! What is registered takes connections, until it is deregistered or not heard of; what makes no sense is refused.

use crate::{E1, E2, VIP, ask, put, registered, started, userspace};
use mesh_tests::{Value, daemon::Setup, holds, http, json, service, world};
use std::{
    fmt::Debug,
    thread,
    time::{Duration, Instant},
};

/// For so long the daemon waits until a change is in force. Then it answers all the same.
const IN_FORCE: Duration = Duration::from_millis(250);

/// Fails unless what `look` sees is as `expected` once `change` is made: at once, unless the daemon waited in vain.
#[track_caller]
fn once<T: Debug>(change: impl FnOnce(), mut look: impl FnMut() -> T, expected: impl Fn(&T) -> bool) {
    let began = Instant::now();
    change();
    if began.elapsed() >= IN_FORCE {
        holds("it is in force", look, expected);
        return;
    }
    let seen = look();
    assert!(expected(&seen), "not at once: {seen:?}");
}

#[test]
fn a_connection_goes_to_an_instance_as_soon_as_it_is_registered_and_not_after() {
    let world = world!();
    let _backends = [world.backend("B1", E1), world.backend("B2", E2)];
    let mesh = world.daemon(json!([service("web", &[VIP], &[])]));
    assert!(world.ask(VIP).is_err(), "nobody serves it");
    for _ in 0..10 {
        let register = || {
            let said = mesh.cli(&["register", "web", E1]).done();
            assert_eq!(said, format!("web: {E1} is registered: weight 1, ttl 1m\n"));
        };
        once(register, || world.ask(VIP), |said| said.as_ref().is_ok_and(|said| said == "B1"));
        let second = |fields: Value, status: u16| {
            let response = put(&mesh, "web/second", &fields);
            assert_eq!(response.status, status, "{response:?}");
        };
        let four = || {
            let mut answers = world.ask_times(VIP, 4);
            answers.sort();
            answers
        };
        let heavy = json!({ "address": E2, "weight": 3, "zone": "z" });
        once(|| second(heavy, 201), four, |answers| *answers == ["B1", "B2", "B2", "B2"]);
        once(|| second(json!({ "address": E2, "weight": 0 }), 200), four, |answers| *answers == ["B1"; 4]);
        let deregister = || {
            mesh.cli(&["deregister", "web", E1]).done();
            assert_eq!(ask(&mesh, "DELETE", "/v1/registry/web/second", "").status, 200);
        };
        // Nobody serves it any more.
        once(deregister, || world.ask(VIP), Result::is_err);
    }
    mesh.cli(&["deregister", "web", E1]).ended(1).refused(&["no instance", E1]);
}

#[test]
fn an_instance_that_is_not_heard_of_is_dropped_and_one_that_is_stays() {
    let world = world!();
    let _backends = [world.backend("B1", E1), world.backend("B2", E2)];
    let mesh = world.daemon(json!([service("web", &[VIP], &[])]));
    // Somewhere between both it was heard of for the last time.
    let least = Instant::now();
    mesh.cli(&["register", "web", E1, "--ttl", "2s", "--id", "silent"]).done();
    let most = Instant::now();
    mesh.cli(&["register", "web", E2, "--ttl", "2s", "--id", "alive"]).done();
    while most.elapsed() < Duration::from_secs(4) {
        let path = "/v1/registry/web/alive/heartbeat";
        assert_eq!(ask(&mesh, "POST", path, "").status, 200);
        let asked = most.elapsed();
        let there = registered(&mesh).contains(&"web/silent".to_owned());
        assert!(there || least.elapsed() >= Duration::from_secs(2), "gone after {:?} already", least.elapsed());
        assert!(!there || asked < Duration::from_secs(3), "after {asked:?} still there");
        thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(world.ask_times(VIP, 4), ["B2"; 4]);
    let gone = ask(&mesh, "POST", "/v1/registry/web/silent/heartbeat", "");
    assert_eq!(gone.status, 404, "{gone:?}");
}

#[test]
fn a_service_that_only_the_registry_knows_is_a_service() {
    let mesh = started(userspace());
    mesh.cli(&["register", "shop", "10.0.0.5:80", "--metadata", "version=1.2", "--ttl", "90s"]).done();
    assert_eq!(mesh.service("shop")["endpoints"]["total"], 1);
    mesh.cli(&["services"]).says(&["shop"]);
    let list: Value = serde_json::from_str(&mesh.http("GET", "/v1/registry/shop").body).unwrap();
    let one = &list[0];
    assert_eq!((&one["id"], &one["metadata"]["version"]), (&json!("10.0.0.5:80"), &json!("1.2")), "{list}");
    assert_eq!((&one["ttl"], &one["zone"], &one["weight"]), (&json!("1m30s"), &Value::Null, &json!(1)), "{list}");
    assert!((60_000.0..=90_000.0).contains(&one["ttl_remaining_ms"].as_f64().unwrap()), "{list}");
    assert!(one["registered_at"].as_str().unwrap().ends_with('Z'), "{list}");
    assert_eq!(mesh.http("GET", "/v1/registry/web").body, "[]\n", "a service without instances");
    assert_eq!(mesh.http("GET", "/v1/registry/nobody").status, 404);
    let source = mesh_tests::ask::find(&mesh.json(&["status"])["sources"], "name", "registry");
    assert_eq!((&source["synced"], source["last_update"].is_string()), (&json!(true), true));
    mesh.cli(&["deregister", "shop", "10.0.0.5:80"]).done();
    assert!(mesh.json(&["services"]).as_array().unwrap().iter().all(|s| s["name"] != "shop"));
}

#[test]
fn who_registers_hears_what_others_know_better() {
    let mut of_files = service("web", &[VIP], &[E1]);
    of_files["hosts"] = json!(["web.example"]);
    let mesh = started(Setup::userspace(json!([of_files])).with(|c| c["proxy"] = json!({ "http": "" })));
    let warnings = |path: &str, body: Value| {
        let answer: Value = serde_json::from_str(&put(&mesh, path, &body).body).unwrap();
        answer["warnings"].clone()
    };
    assert_eq!(warnings("web/a", json!({ "address": E2, "weight": 9 })), json!([]));
    let told = warnings("web/b", json!({ "address": E1, "weight": 9 }));
    assert!(told[0].as_str().unwrap().contains("stays 1"), "{told}");
    let told = warnings("web.example/c", json!({ "address": E2 }));
    assert!(told[0].as_str().unwrap().contains("no service web.example"), "{told}");
}

#[test]
fn what_makes_no_sense_is_refused_with_its_reason() {
    let mesh = started(userspace());
    let big = json!({ "address": E1, "metadata": { "k": "v".repeat(70_000) } });
    for (path, body, status, words) in [
        ("web/a", json!({}), 400, "address: it is missing"),
        ("web/a", json!({ "address": "web:80" }), 400, "names are not looked up"),
        ("web/a", json!({ "address": "10.0.0.1:0" }), 400, "port 0"),
        ("web/a", json!({ "address": "10.0.0.1:65536" }), 400, "address: expected ip:port"),
        ("web/a", json!({ "address": "0.0.0.0:80" }), 400, "not a unicast address"),
        ("web/a", json!({ "address": "224.0.0.1:80" }), 400, "not a unicast address"),
        ("web/a", json!({ "address": "127.0.0.1:15001" }), 400, "where this daemon itself listens"),
        ("web/a", json!({ "address": E1, "wieght": 2 }), 400, "unknown field \\\"wieght\\\""),
        ("web/a", json!({ "address": E1, "weight": 65536 }), 400, "0 to 65535"),
        ("web/a", json!({ "address": E1, "ttl": "0s" }), 400, "1s to 24h"),
        ("web/a", json!({ "address": E1, "ttl": "25h" }), 400, "ttl: expected a duration from 1s to 24h"),
        ("web/a", json!({ "address": E1, "ttl": "87600h" }), 400, "ttl: expected a duration from 1s to 24h"),
        ("web/a", json!({ "address": VIP }), 400, "10.96.0.10:80: a VIP of the service web"),
        ("web/a", json!({ "address": E1, "metadata": { "a\nb": "" } }), 400, "without control characters"),
        ("a..b/a", json!({ "address": E1 }), 400, "service: expected a name whose parts"),
        ("10.0.0.1/a", json!({ "address": E1 }), 400, "service: expected a name that does not read as an address"),
        ("web/a", json!({ "address": E1, "ttl": 60 }), 400, "ttl: expected a duration"),
        ("web/a", json!({ "address": E1, "ttl": "soon" }), 400, "ttl: expected a duration"),
        ("web/a", json!({ "address": E1, "zone": "a\nb" }), 400, "zone: "),
        ("web/a", big, 413, "64 KiB"),
        ("Web_Shop/a", json!({ "address": E1 }), 400, "for example web-shop"),
        ("web/a%20b", json!({ "address": E1 }), 400, "id: expected"),
        ("web/a%2Fb", json!({ "address": E1 }), 400, "id: expected"),
    ] {
        let response = put(&mesh, path, &body);
        assert_eq!(
            response.status,
            status,
            "{path} {}: {response:?}",
            &body.to_string()[..80.min(body.to_string().len())]
        );
        assert!(response.body.contains(words), "{words}: {response:?}");
    }
    assert_eq!(ask(&mesh, "PUT", "/v1/registry/web/a", "{").status, 400);
    let twice = format!(r#"{{"address":"{E1}","address":"{E2}"}}"#);
    let response = ask(&mesh, "PUT", "/v1/registry/web/a", &twice);
    assert!(response.status == 400 && response.body.contains("stands twice"), "{response:?}");
    assert_eq!(registered(&mesh), [""; 0]);
    mesh.cli(&["register", "Web", E1]).ended(1).refused(&["for example web"]);
    mesh.cli(&["register", "web", "10.0.0.1"]).ended(2);
    let nobody = json!({ "address": E1 }).to_string();
    assert_eq!(http::tcp(&mesh.admin(), "PUT", "/v1/registry/web/a", &nobody).unwrap().status, 403);
    mesh.cli(&["--admin-socket", "/nonexistent/s", "register", "web", E1]).ended(3);
}

#[test]
fn an_instance_is_deregistered_by_its_address_whatever_it_is_called() {
    let mesh = started(userspace());
    mesh.cli(&["register", "web", E1, "--id", "one"]).done();
    mesh.cli(&["register", "web", E2, "--id", "other"]).done();
    mesh.cli(&["deregister", "web", E1]).says(&["web: 10.1.0.1:8080 (one) is deregistered"]);
    assert_eq!(registered(&mesh), ["web/other"]);
    for id in ["a", "b"] {
        mesh.cli(&["register", "web", E1, "--id", id]).done();
    }
    mesh.cli(&["deregister", "web", E1]).ended(1).refused(&["several instances", E1, "a, b", "--id"]);
    mesh.cli(&["deregister", "web", E1, "--id", "a"]).done();
    mesh.cli(&["deregister", "web", E1]).done();
    assert_eq!(registered(&mesh), ["web/other"]);
    mesh.cli(&["deregister", "web", E1]).ended(1).refused(&["no instance", E1]);
    mesh.cli(&["deregister", "nobody", E1]).ended(1).refused(&["no instance", E1]);
}

#[test]
fn a_service_is_said_to_have_no_endpoints_only_while_it_has_none() {
    let mesh = started(userspace());
    let lacks = || {
        let status = mesh.json(&["status"]);
        let warnings = status["warnings"].as_array().unwrap();
        warnings.iter().any(|warning| warning.as_str().unwrap().contains("the service web has no endpoints"))
    };
    assert!(lacks());
    for _ in 0..2 {
        assert_eq!(put(&mesh, "web/one", &json!({ "address": E1 })).status, 201);
        assert!(!lacks());
        assert_eq!(ask(&mesh, "DELETE", "/v1/registry/web/one", "").status, 200);
        assert!(lacks());
    }
}
