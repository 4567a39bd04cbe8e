//! Near endpoints first; the others help out in proportion, and no longer than needed.
#![allow(clippy::unwrap_used, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{Backend, Daemon, Value, World, eventually, holds, json, world};
use std::collections::BTreeMap;

const VIP: &str = "10.96.0.10:80";
const ENDPOINTS: [(&str, &str); 4] =
    [("10.1.0.1:8080", "here"), ("10.1.0.2:8080", "here"), ("10.1.0.3:8080", "there"), ("10.1.0.4:8080", "")];

fn web() -> Value {
    let endpoint = |(address, zone): &(&str, &str)| match *zone {
        "" => json!({ "address": address }),
        zone => json!({ "address": address, "zone": zone }),
    };
    let endpoints: Vec<Value> = ENDPOINTS.iter().map(endpoint).collect();
    json!([{ "name": "web", "addresses": [VIP], "endpoints": endpoints, "load_balancing": { "policy": "random" } }])
}

fn start(world: &World) -> (Vec<Backend>, Daemon) {
    let backends = ENDPOINTS.iter().enumerate();
    let backends = backends.map(|(i, (address, _))| world.backend(&format!("B{}", i + 1), address)).collect();
    (backends, world.setup(web()).with(|c| c["node"]["zone"] = json!("here")).start())
}

fn seen(world: &World, n: usize) -> BTreeMap<String, f64> {
    let mut seen = BTreeMap::new();
    for who in world.ask_times(VIP, n) {
        *seen.entry(who).or_insert(0.0) += 1.0 / n as f64;
    }
    seen
}

fn shares(mesh: &Daemon) -> Vec<f64> {
    let explained = mesh.json(&["explain", VIP]);
    explained["endpoints"].as_array().unwrap().iter().map(|e| e["share"].as_f64().unwrap()).collect()
}

#[test]
fn all_goes_to_the_own_zone_while_enough_of_it_is_usable() {
    let world = world!();
    let (_backends, mesh) = start(&world);
    let seen = seen(&world, 200);
    assert!(seen.len() == 2 && seen.contains_key("B1") && seen.contains_key("B2"), "{seen:?}");
    assert_eq!(shares(&mesh), [0.5, 0.5, 0.0, 0.0]);
    let explained = mesh.json(&["explain", VIP]);
    let tiers: Vec<&str> =
        explained["endpoints"].as_array().unwrap().iter().map(|e| e["tier"].as_str().unwrap()).collect();
    assert_eq!(tiers, ["zone", "zone", "remote", "remote"], "without a zone it is remote");
    let picks = |tier| mesh.metrics().sum("mesh_picks_total", &[("service", "web"), ("tier", tier)]).unwrap_or(0.0);
    assert_eq!((picks("zone"), picks("remote")), (200.0, 0.0));
}

#[test]
fn another_zone_is_asked_about() {
    let world = world!();
    let (_backends, mesh) = start(&world);
    let shares = |arguments: &[&str]| {
        let explained = mesh.json(arguments);
        let endpoints = explained["endpoints"].as_array().unwrap().iter();
        endpoints.map(|e| e["share"].as_f64().unwrap()).collect::<Vec<f64>>()
    };
    assert_eq!(shares(&["explain", VIP, "--zone", "there"]), [0.0, 0.0, 1.0, 0.0]);
    assert_eq!(shares(&["explain", VIP, "--zone", "here"]), [0.5, 0.5, 0.0, 0.0]);
    assert_eq!(shares(&["explain", VIP, "--zone", "elsewhere"]), [0.25; 4], "all are remote there");
}

#[test]
fn others_help_out_in_proportion_while_a_circuit_is_open_and_stop_when_it_closes() {
    let world = world!();
    let (mut backends, mesh) = start(&world);
    backends[1].close();
    eventually("the circuit of the second one is open", || {
        let _ = world.dial(VIP);
        let circuit = mesh.json(&["circuit", "list", "web"])[1].clone();
        if circuit["state"] == "open" { Ok(()) } else { Err(circuit) }
    });
    // Half of the zone is usable, of the 0.7 that would be enough.
    let near = 0.5 / 0.7;
    holds("the share of the zone", || shares(&mesh), |shares| (shares[0] - near).abs() < 0.01);
    let seen = seen(&world, 2000);
    assert!((seen["B1"] - near).abs() < 0.06, "{seen:?}");
    assert!((seen["B3"] - seen["B4"]).abs() < 0.08, "{seen:?}");
    backends[1].open();
    mesh.cli(&["circuit", "reset", "web", "10.1.0.2:8080"]).done();
    holds("nobody helps out any more", || shares(&mesh), |shares| *shares == [0.5, 0.5, 0.0, 0.0]);
}

#[test]
fn a_zone_that_is_wholly_open_spills_at_once_also_without_the_daemon() {
    let world = world!();
    let (mut backends, mut mesh) = start(&world);
    mesh.kill();
    backends[0].close();
    backends[1].close();
    let refused = (0..200).filter(|_| world.dial(VIP).is_err()).count();
    assert_eq!(refused, 10, "five of each, and then the others serve");
    mesh.start();
}

#[test]
fn what_explain_says_is_what_connections_meet() {
    let world = world!();
    let (_backends, mesh) = start(&world);
    mesh.cli(&["endpoints", "drain", "web", "10.1.0.1:8080"]).done();
    mesh.cli(&["endpoints", "weight", "web", "10.1.0.4:8080", "3"]).done();
    mesh.cli(&["circuit", "trip", "web", "10.1.0.2:8080"]).done();
    let shares = shares(&mesh);
    assert_eq!(shares, [0.0, 0.0, 0.25, 0.75]);
    let seen = seen(&world, 1000);
    for (i, share) in shares.iter().enumerate() {
        let met = seen.get(&format!("B{}", i + 1)).copied().unwrap_or(0.0);
        assert!((met - share).abs() < 0.09, "{seen:?} and {shares:?}");
    }
    let explained = mesh.json(&["explain", VIP]);
    let reasons: Vec<&str> =
        explained["endpoints"].as_array().unwrap().iter().map(|e| e["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons[..2], ["draining", "its circuit is held open by an operator"]);
}
