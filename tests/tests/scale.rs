//! Many services, many endpoints, and tables that have to grow.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Backend, Daemon, Value, World, holds, json, service, world};

const N: usize = 5000;
const ENDPOINTS: [&str; 3] = ["10.1.0.1:8080", "10.1.0.2:8080", "10.1.0.3:8080"];

/// Backends B0, B1, B2.
fn three(world: &World) -> [Backend; 3] {
    [0, 1, 2].map(|n| world.backend(&format!("B{n}"), ENDPOINTS[n]))
}

fn vip(n: usize) -> String {
    format!("10.100.{}.{}:80", n / 250, 1 + n % 250)
}

fn vip6(n: usize) -> String {
    format!("[fd00::{n:x}]:80")
}

/// The first `n` of many services; number i is served by backend i % 3.
fn services(n: usize) -> Value {
    json!((0..n).map(|i| service(&format!("s{i}"), &[&vip(i), &vip6(i)], &[ENDPOINTS[i % 3]])).collect::<Vec<_>>())
}

fn assert_served(world: &World) {
    for i in (0..N).step_by(97) {
        let who = format!("B{}", i % 3);
        assert_eq!((world.ask(&vip(i)).unwrap(), world.ask(&vip6(i)).unwrap()), (who.clone(), who), "service {i}");
    }
}

#[test]
fn thousands_of_services_are_each_reached_at_their_own_address() {
    let world = world!();
    let backends = three(&world);
    let mut mesh = world.daemon(services(N));
    assert_served(&world);
    mesh.set_services(services(1));
    let before: usize = backends.iter().map(Backend::accepted).sum();
    assert_eq!(world.ask(&vip(0)).unwrap(), "B0");
    assert!(world.ask(&vip(97)).is_err());
    assert_eq!(backends.iter().map(Backend::accepted).sum::<usize>(), before + 1);
    assert_eq!(mesh.json(&["services"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_small_configuration_may_grow_to_thousands_at_a_reload() {
    let world = world!();
    let _backends = three(&world);
    let mut mesh = world.daemon(services(1));
    mesh.set_services(services(3000));
    for i in (0..3000).step_by(97) {
        assert_eq!(world.ask(&vip(i)).unwrap(), format!("B{}", i % 3), "service {i}");
    }
}

#[test]
fn a_configuration_that_has_no_room_by_its_own_words_is_refused() {
    let world = world!();
    let _backends = three(&world);
    let setup = world.setup(services(1));
    let mut mesh = setup.with(|c| c["dataplane"]["max_services"] = json!(4)).start();
    mesh.configure(|c| c["services"] = services(6));
    mesh.cli(&["config", "reload"]).ended(1).refused(&["max_services", "6", "4"]);
    assert_eq!(world.ask(&vip(0)).unwrap(), "B0");
    assert!(world.ask(&vip(1)).is_err());
}

#[test]
fn growth_beyond_the_tables_is_said_and_ends_at_a_restart() {
    let world = world!();
    let _backends = three(&world);
    let mut mesh = world.daemon(services(1));
    mesh.configure(|c| c["services"] = services(N));
    mesh.cli(&["config", "reload"]).says(&["max_services"]);
    assert_eq!(world.ask(&vip(0)).unwrap(), "B0", "what had a place keeps it");
    mesh.terminate();
    mesh.start();
    assert_served(&world);
}

#[test]
fn a_small_configuration_may_grow_to_thousands_at_a_restart() {
    let world = world!();
    let _backends = three(&world);
    let mut mesh = world.daemon(services(1));
    let hammer = world.hammer(&[&vip(0)]);
    mesh.terminate();
    mesh.configure(|c| c["services"] = services(N));
    mesh.start();
    assert_served(&world);
    mesh.terminate();
    mesh.configure(|c| c["services"] = services(3));
    mesh.start();
    assert_eq!(world.ask(&vip(2)).unwrap(), "B2");
    hammer.stop().assert_flawless();
}

#[test]
fn tables_that_grow_at_a_restart_keep_every_counter_and_every_open_connection() {
    let world = world!();
    let _backends = three(&world);
    let mut mesh = world.daemon(json!([service("s0", &[&vip(0)], &["10.1.0.1:8080"])]));
    let before = world.ask_times(&vip(0), 5);
    assert_eq!(before, ["B0"; 5]);
    let open = world.dial(&vip(0)).unwrap();
    let counted = |mesh: &Daemon| {
        let endpoint = mesh.json(&["endpoints", "s0"])[0].clone();
        ["connections_total", "active_connections", "received_bytes_total"].map(|k| endpoint[k].as_u64().unwrap())
    };
    let [total, active, received] = counted(&mesh);
    assert_eq!((total, active), (6, 1));
    for room in [10_000, 20_000] {
        mesh.terminate();
        assert_eq!(world.ask(&vip(0)).unwrap(), "B0", "the old programs count on in the old tables");
        mesh.configure(|c| {
            for key in ["max_services", "max_endpoints", "max_slots"] {
                c["dataplane"][key] = json!(room * 40);
            }
        });
        mesh.start();
        assert_eq!(open.peer_addr().unwrap().as_socket().unwrap().to_string(), vip(0));
    }
    let [after, still, more] = counted(&mesh);
    assert_eq!((after, still), (total + 2, 1));
    assert!(more >= received + 2 * 2, "{received} → {more}");
    drop(open);
    holds("the old connection is counted to its end", || counted(&mesh)[1], |active| *active == 0);
}

#[test]
fn hundreds_of_endpoints_are_replaced_at_once_under_load() {
    let world = world!();
    let address = |n: usize| format!("10.1.{}.{}:8080", 10 + n / 250, 1 + n % 250);
    let _backends: Vec<Backend> = (0..500).map(|n| world.backend(&format!("B{n}"), &address(n))).collect();
    let set = |range: std::ops::Range<usize>| {
        let addresses: Vec<String> = range.map(address).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        json!([service("web", &["10.96.0.10:80"], &addresses)])
    };
    let mut mesh = world.daemon(set(0..250));
    let hammers = [world.hammer(&["10.96.0.10:80"]), world.hammer(&["10.96.0.10:80"])];
    for n in 0..10 {
        let half = if n % 2 == 0 { 250..500 } else { 0..250 };
        mesh.set_services(set(half.clone()));
        let answers = world.ask_times("10.96.0.10:80", 20);
        let inside = |who: &String| who[1..].parse().is_ok_and(|n: usize| half.contains(&n));
        assert!(answers.iter().all(inside), "{half:?}: {answers:?}");
    }
    hammers.into_iter().for_each(|h| h.stop().assert_flawless());
}
