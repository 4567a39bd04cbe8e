//! Balancing policies that look at more than a turn: connections, clients, time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{Backend, Daemon, Value, World, backend, holds, json, service, weighted, world, world::addr};
use socket2::Domain;
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

const VIP: &str = "10.96.0.10:80";
const VIP6: &str = "[fd00::10]:80";

fn balanced(mut service: Value, load_balancing: Value) -> Value {
    service["load_balancing"] = load_balancing;
    service
}

fn endpoints(n: usize) -> Vec<String> {
    (1..=n).map(|n| format!("10.1.0.{n}:8080")).collect()
}

fn backends(world: &World, n: usize) -> Vec<Backend> {
    endpoints(n).iter().enumerate().map(|(i, address)| world.backend(&format!("B{}", i + 1), address)).collect()
}

fn counts(answers: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    answers.iter().for_each(|who| *counts.entry(who.as_str()).or_default() += 1);
    counts
}

/// Who answers a client that is bound to `source`.
fn ask_from(world: &World, source: &str) -> String {
    let client = world.tcp(Domain::IPV4);
    let source: SocketAddr = format!("{source}:0").parse().unwrap();
    client.bind(&source.into()).unwrap();
    client.connect(&addr(VIP).into()).unwrap();
    backend::answer(&mut &client).unwrap()
}

fn sources(n: usize) -> impl Iterator<Item = String> {
    (0..n).map(|n| format!("10.1.{}.{}", 100 + n / 200, 1 + n % 200))
}

fn active(mesh: &Daemon, endpoint: &str) -> u64 {
    mesh.endpoint("web", endpoint)["active_connections"].as_u64().unwrap()
}

#[test]
fn the_endpoint_with_fewer_connections_gets_the_next() {
    let world = world!();
    let _backends = [world.echo("10.1.0.1:8080"), world.echo("10.1.0.2:8080")];
    let addresses = endpoints(2);
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let mesh =
        world.daemon(json!([balanced(service("web", &[VIP], &addresses), json!({ "policy": "least_connections" }))]));
    mesh.cli(&["endpoints", "drain", "web", addresses[1]]).done();
    let mut held: Vec<_> = (0..40).map(|_| world.dial(VIP).unwrap()).collect();
    mesh.cli(&["endpoints", "undrain", "web", addresses[1]]).done();
    held.extend((0..40).map(|_| world.dial(VIP).unwrap()));
    let (first, second) = (active(&mesh, addresses[0]), active(&mesh, addresses[1]));
    // Both draws hit the full one in a quarter of the connects.
    assert!(first + second == 80 && (20..=40).contains(&second), "{first} and {second}");
}

#[test]
fn least_connections_follows_weights_and_counts_survive_the_daemon() {
    let world = world!();
    let _backends = [world.echo("10.1.0.1:8080"), world.echo("10.1.0.2:8080")];
    let web = weighted("web", &[VIP], &[("10.1.0.1:8080", 1), ("10.1.0.2:8080", 3)]);
    let mut mesh = world.daemon(json!([balanced(web, json!({ "policy": "least_connections" }))]));
    let mut held: Vec<_> = (0..100).map(|_| world.dial(VIP).unwrap()).collect();
    mesh.kill();
    held.extend((0..100).map(|_| world.dial(VIP).unwrap()));
    held.truncate(160);
    mesh.start();
    holds(
        "closed connections are not counted",
        || active(&mesh, "10.1.0.1:8080") + active(&mesh, "10.1.0.2:8080"),
        |n| *n == 160,
    );
    let light = active(&mesh, "10.1.0.1:8080");
    assert!((30..=50).contains(&light), "a quarter: {light} of 160");
}

#[test]
fn weights_hold_within_two_percent() {
    let world = world!();
    let _backends = backends(&world, 3);
    for (policy, n) in [("random", 6000), ("least_connections", 6000)] {
        let web = weighted("web", &[VIP], &[("10.1.0.1:8080", 1), ("10.1.0.2:8080", 2), ("10.1.0.3:8080", 5)]);
        let _mesh = world.daemon(json!([balanced(web, json!({ "policy": policy }))]));
        let answers = world.ask_times(VIP, n);
        for (who, share) in [("B1", 0.125), ("B2", 0.25), ("B3", 0.625)] {
            let seen = counts(&answers)[who] as f64 / n as f64;
            // 2 %, and four standard deviations of chance.
            assert!(
                (seen - share).abs() < 0.02 + 4.0 * (share * (1.0 - share) / n as f64).sqrt(),
                "{policy} {who}: {seen}"
            );
        }
    }
}

#[test]
fn maglev_sends_a_client_to_the_same_endpoint_and_few_elsewhere_when_one_goes() {
    let world = world!();
    let _backends = backends(&world, 5);
    let addresses = endpoints(5);
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let mesh = world.daemon(json!([balanced(service("web", &[VIP], &addresses), json!({ "policy": "maglev" }))]));
    let before: Vec<String> = sources(400).map(|source| ask_from(&world, &source)).collect();
    assert!(counts(&before).values().all(|n| (40..140).contains(n)), "{:?}", counts(&before));
    let again: Vec<String> = sources(400).map(|source| ask_from(&world, &source)).collect();
    assert_eq!(before, again);
    mesh.cli(&["endpoints", "drain", "web", addresses[2]]).done();
    let after: Vec<String> = sources(400).map(|source| ask_from(&world, &source)).collect();
    let moved = before.iter().zip(&after).filter(|(a, b)| *a != "B3" && a != b).count();
    assert!(moved as f64 <= 400.0 * 0.02 + 8.0, "{moved} of those that could have stayed");
    assert!(after.iter().all(|who| who != "B3"));
}

#[test]
fn clients_without_an_address_of_their_own_are_known_by_their_namespace_or_cgroup() {
    let world = world!();
    let _backends = backends(&world, 5);
    let addresses = endpoints(5);
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let _mesh = world.daemon(json!([balanced(service("web", &[VIP], &addresses), json!({ "policy": "maglev" }))]));
    let answers = world.ask_times(VIP, 20);
    assert_eq!(counts(&answers).len(), 1, "{answers:?}");
}

#[test]
fn a_client_comes_back_to_its_endpoint_until_it_was_away_for_too_long() {
    let world = world!();
    let _backends = backends(&world, 3);
    let addresses = endpoints(3);
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let web = balanced(service("web", &[VIP], &addresses), json!({ "policy": "round_robin", "affinity": "2s" }));
    let mesh = world.daemon(json!([web]));
    let first = ask_from(&world, "10.1.7.7");
    let other = ask_from(&world, "10.1.7.8");
    assert_ne!(first, other, "round robin");
    // Longer than that by far, but never away for so long.
    for _ in 0..15 {
        assert_eq!(ask_from(&world, "10.1.7.7"), first);
        std::thread::sleep(Duration::from_millis(200));
    }
    let address = addresses[first[1..].parse::<usize>().unwrap() - 1];
    mesh.cli(&["endpoints", "drain", "web", address]).done();
    assert_ne!(ask_from(&world, "10.1.7.7"), first, "it drains");
    mesh.cli(&["endpoints", "undrain", "web", address]).done();
    std::thread::sleep(Duration::from_millis(2300));
    let turns: Vec<String> = (0..3)
        .map(|n| {
            let _ = n;
            std::thread::sleep(Duration::from_millis(2200));
            ask_from(&world, "10.1.7.7")
        })
        .collect();
    assert_eq!(counts(&turns).len(), 3, "away for too long each time: {turns:?}");
}

#[test]
fn every_policy_leaves_out_what_drains_and_changes_under_load() {
    let world = world!();
    let backends = backends(&world, 3);
    let addresses = endpoints(3);
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let mesh = world.daemon(json!([service("web", &[VIP, VIP6], &addresses)]));
    mesh.cli(&["endpoints", "drain", "web", addresses[0]]).done();
    let hammers = [VIP, VIP6].map(|vip| world.hammer(&[vip]));
    for policy in ["random", "least_connections", "maglev", "round_robin"].into_iter().cycle().take(12) {
        let outcome = mesh.cli(&["lb", "set", "web", policy]);
        outcome.done();
        std::thread::sleep(Duration::from_millis(30));
    }
    hammers.into_iter().for_each(|hammer| hammer.stop().assert_flawless());
    assert_eq!(backends[0].accepted(), 0);
}

#[test]
fn a_new_endpoint_warms_up() {
    let world = world!();
    let backends = backends(&world, 2);
    let web = |endpoints: &[&str]| {
        let mut web = balanced(service("web", &[VIP], endpoints), json!({ "policy": "random" }));
        web["slow_start"] = json!("12s");
        json!([web])
    };
    let mut mesh = world.daemon(web(&["10.1.0.1:8080"]));
    mesh.set_services(web(&["10.1.0.1:8080", "10.1.0.2:8080"]));
    mesh.cli(&["config", "reload"]).done();
    let _ = world.ask_times(VIP, 200);
    let cold = backends[1].accepted();
    assert!(cold < 60, "about a tenth of an equal share at first: {cold} of 200");
    holds(
        "warm after its time",
        || {
            let explained = mesh.json(&["explain", VIP]);
            explained["endpoints"][1]["share"].as_f64().unwrap()
        },
        |share| (*share - 0.5).abs() < 0.01,
    );
}
