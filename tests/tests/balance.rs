//! How connections are shared out among a service's endpoints.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Backend, World, backend, eventually, holds, json, service, weighted, world, world::addr};
use socket2::Domain;
use std::{collections::BTreeMap, io};

const VIP: &str = "10.96.0.10:80";
const VIP6: &str = "[fd00::10]:80";
const E1: &str = "10.1.0.1:8080";
const E2: &str = "10.1.0.2:8080";
const E3: &str = "10.1.0.3:8080";

/// Backends B1, B2, B3 at E1, E2, E3.
fn three(world: &World) -> [Backend; 3] {
    [world.backend("B1", E1), world.backend("B2", E2), world.backend("B3", E3)]
}

fn counts(answers: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    answers.iter().for_each(|who| *counts.entry(who.as_str()).or_default() += 1);
    counts
}

fn refused(mesh: &mesh_tests::Daemon, service: &str, reason: &str) -> f64 {
    mesh.metrics().count("mesh_tcp_connects_refused_total", &[("service", service), ("reason", reason)])
}

#[test]
fn round_robin_is_exact_over_full_turns() {
    let world = world!();
    let _backends = three(&world);
    let _mesh = world.daemon(json!([weighted("web", &[VIP], &[(E1, 1), (E2, 2), (E3, 5)])]));
    // Wherever it stands: any 8 connects in a row are a full turn.
    for _ in 0..10 {
        let turn = world.ask_times(VIP, 8);
        assert_eq!(counts(&turn), BTreeMap::from([("B1", 1), ("B2", 2), ("B3", 5)]), "{turn:?}");
    }
}

#[test]
fn round_robin_spreads_heavy_endpoints_evenly() {
    let world = world!();
    let _backends = three(&world);
    let _mesh = world.daemon(json!([weighted("web", &[VIP], &[(E1, 1), (E2, 1), (E3, 2)])]));
    let answers = world.ask_times(VIP, 40);
    let in_a_row = answers.windows(3).filter(|w| w.iter().all(|a| a == "B3")).count();
    assert_eq!(in_a_row, 0, "never three times in a row where half would do: {answers:?}");
}

#[test]
fn equal_weights_take_turns_whatever_their_number() {
    let world = world!();
    let _backends = three(&world);
    let _mesh = world.daemon(json!([weighted("web", &[VIP], &[(E1, 700), (E2, 700), (E3, 700)])]));
    for _ in 0..5 {
        let turn = world.ask_times(VIP, 3);
        assert_eq!(counts(&turn).len(), 3, "{turn:?}");
    }
}

#[test]
fn round_robin_is_shared_by_all_processes() {
    let world = world!();
    let backends = three(&world);
    let _mesh = world.daemon(json!([weighted("web", &[VIP], &[(E1, 1), (E2, 1), (E3, 2)])]));
    let hammers = [VIP; 3].map(|vip| world.hammer(&[vip]));
    holds("hammered", || backends[0].accepted(), |n| *n > 100);
    let mut total = mesh_tests::hammer::Tally::default();
    hammers.into_iter().for_each(|h| total.add(h.stop()));
    total.assert_flawless();
    let turns = total.connects / 4;
    let answers = &total.answers[VIP];
    // The last turn may be unfinished.
    for (who, share) in [("B1", 1), ("B2", 1), ("B3", 2)] {
        assert!(answers[who].abs_diff(turns * share) <= share, "{answers:?} in {turns} turns");
    }
}

#[test]
fn candidates_are_those_the_socket_can_reach() {
    let world = world!();
    let _backends = three(&world);
    let _b6 = world.backend("B6", "[fd01::1]:8080");
    let _mesh = world.daemon(json!([service("web", &[VIP, VIP6], &[E1, E2, "[fd01::1]:8080"])]));
    let v4 = world.ask_times(VIP, 20);
    assert_eq!(counts(&v4), BTreeMap::from([("B1", 10), ("B2", 10)]), "a v4 VIP");
    let any = world.ask_times(VIP6, 30);
    assert_eq!(counts(&any), BTreeMap::from([("B1", 10), ("B2", 10), ("B6", 10)]), "a v6 VIP");
    let only: Vec<String> = (0..5)
        .map(|_| {
            let mut client = world.tcp(Domain::IPV6);
            client.set_only_v6(true).unwrap();
            client.connect(&addr(VIP6).into()).unwrap();
            backend::answer(&mut client).unwrap()
        })
        .collect();
    assert_eq!(counts(&only), BTreeMap::from([("B6", 5)]), "a v6 VIP, V6ONLY");
}

#[test]
fn a_weight_of_zero_gets_nothing() {
    let world = world!();
    let backends = three(&world);
    for policy in ["round_robin", "random"] {
        let mut web = weighted("web", &[VIP], &[(E1, 0), (E2, 1), (E3, 3)]);
        web["load_balancing"] = json!({ "policy": policy });
        let _mesh = world.daemon(json!([web]));
        let _ = world.ask_times(VIP, 100);
        assert_eq!(backends[0].accepted(), 0, "{policy}");
    }
}

#[test]
fn random_follows_the_weights_within_chance() {
    let world = world!();
    let _backends = three(&world);
    let mut web = weighted("web", &[VIP], &[(E1, 1), (E2, 2), (E3, 5)]);
    web["load_balancing"] = json!({ "policy": "random" });
    let _mesh = world.daemon(json!([web]));
    let n = 4000;
    let answers = world.ask_times(VIP, n);
    for (who, p) in [("B1", 0.125), ("B2", 0.25), ("B3", 0.625)] {
        let seen = counts(&answers)[who] as f64;
        let (mean, deviation) = (n as f64 * p, (n as f64 * p * (1.0 - p)).sqrt());
        // 6 standard deviations: a right build fails once in half a billion runs.
        assert!((seen - mean).abs() < 6.0 * deviation, "{who}: {seen} of {n}, expected {mean} ± {deviation}");
    }
}

#[test]
fn random_keeps_no_turn() {
    let world = world!();
    let _backends = three(&world);
    let mut web = service("web", &[VIP], &[E1, E2, E3]);
    web["load_balancing"] = json!({ "policy": "random" });
    let _mesh = world.daemon(json!([web]));
    let answers = world.ask_times(VIP, 120);
    // A chance of (2/3)^119 to fail.
    assert!(answers.windows(2).any(|w| w[0] == w[1]), "{answers:?}");
}

#[test]
fn lb_set_switches_at_once() {
    let world = world!();
    let _backends = three(&world);
    let mesh = world.daemon(json!([service("web", &[VIP], &[E1, E2, E3])]));
    assert_eq!(mesh.service("web")["policy"], "round_robin");
    for _ in 0..3 {
        mesh.cli(&["lb", "set", "web", "random"]).says(&["web", "random"]).done();
        assert_eq!(mesh.service("web")["policy"], "random");
        let answers = world.ask_times(VIP, 120);
        assert!(answers.windows(2).any(|w| w[0] == w[1]), "random: {answers:?}");
        mesh.cli(&["lb", "set", "web", "round_robin"]).says(&["web", "round_robin"]).done();
        let answers = world.ask_times(VIP, 30);
        assert!(answers.windows(3).all(|w| counts(w).len() == 3), "round robin: {answers:?}");
    }
}

#[test]
fn the_policy_of_the_defaults_holds_where_a_service_has_none() {
    let world = world!();
    let mut own = service("own", &[VIP], &[E1]);
    own["load_balancing"] = json!({ "policy": "round_robin" });
    let setup = world.setup(json!([own, service("inherits", &[VIP6], &[E1])]));
    let mesh = setup.with(|c| c["defaults"]["load_balancing"] = json!({ "policy": "random" })).start();
    assert_eq!(mesh.service("own")["policy"], "round_robin");
    assert_eq!(mesh.service("inherits")["policy"], "random");
}

#[test]
fn a_service_without_endpoints_refuses_at_once_and_counts_it() {
    let world = world!();
    let _backends = three(&world);
    let mesh = world.daemon(json!([
        service("empty", &[VIP, VIP6], &[]),
        weighted("idle", &["10.96.0.20:80"], &[(E1, 0), (E2, 0)]),
        service("fine", &["10.96.0.30:80"], &[E3]),
    ]));
    for _ in 0..3 {
        assert_eq!(world.dial(VIP).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
    assert_eq!(world.dial(VIP6).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(world.dial("10.96.0.20:80").unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(world.ask("10.96.0.30:80").unwrap(), "B3");
    eventually("refused connects are counted by service", || {
        let seen = ["empty", "idle", "fine"].map(|s| refused(&mesh, s, "no_endpoint"));
        if seen == [4.0, 1.0, 0.0] { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}

#[test]
fn a_nonblocking_connect_is_refused_by_the_call_itself() {
    let world = world!();
    let _mesh = world.daemon(json!([service("empty", &[VIP], &[])]));
    let client = world.tcp(Domain::IPV4);
    client.set_nonblocking(true).unwrap();
    let error = client.connect(&addr(VIP).into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED), "{error}");
}

#[test]
fn draining_the_last_endpoint_refuses_and_undraining_serves_again() {
    let world = world!();
    let _backends = three(&world);
    let mesh = world.daemon(json!([service("web", &[VIP], &[E1])]));
    for _ in 0..3 {
        assert_eq!(world.ask(VIP).unwrap(), "B1");
        mesh.cli(&["endpoints", "drain", "web", E1]).done();
        assert_eq!(world.dial(VIP).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        mesh.cli(&["endpoints", "undrain", "web", E1]).done();
    }
    assert_eq!(world.ask(VIP).unwrap(), "B1");
}

#[test]
fn one_address_in_two_services_is_two_endpoints() {
    let world = world!();
    let _backends = three(&world);
    let mesh = world.daemon(json!([
        weighted("first", &[VIP], &[(E1, 1), (E2, 3)]),
        weighted("second", &["10.96.0.20:80"], &[(E1, 1), (E2, 1)]),
    ]));
    mesh.cli(&["endpoints", "drain", "second", E2]).done();
    let first = world.ask_times(VIP, 8);
    let second = world.ask_times("10.96.0.20:80", 4);
    assert_eq!(counts(&first), BTreeMap::from([("B1", 2), ("B2", 6)]));
    assert_eq!(counts(&second), BTreeMap::from([("B1", 4)]));
    holds("counted apart", || mesh.endpoint("first", E1)["connections_total"].clone(), |n| *n == 2);
    holds("counted apart", || mesh.endpoint("second", E1)["connections_total"].clone(), |n| *n == 4);
}

#[test]
fn hundreds_of_endpoints_all_get_their_turn() {
    let world = world!();
    let address = |n: usize| format!("10.1.{}.{}:8080", 10 + n / 250, 1 + n % 250);
    let backends: Vec<Backend> = (0..300).map(|n| world.backend(&format!("B{n}"), &address(n))).collect();
    let addresses: Vec<String> = (0..backends.len()).map(address).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let _mesh = world.daemon(json!([service("web", &[VIP], &addresses)]));
    let answers = world.ask_times(VIP, addresses.len() * 2);
    assert!(counts(&answers).len() == addresses.len(), "{} of {}", counts(&answers).len(), addresses.len());
    assert!(counts(&answers).values().all(|n| *n == 2));
}

#[test]
fn the_lightest_endpoint_is_not_forgotten() {
    let world = world!();
    let backends = three(&world);
    let _mesh = world.daemon(json!([weighted("web", &[VIP], &[(E1, 1), (E2, 65535)])]));
    let _ = world.ask_times(VIP, 4200);
    let light = backends[0].accepted();
    assert!((1..=2).contains(&light), "{light} of 4200 for a weight of 1 among 65536");
}
