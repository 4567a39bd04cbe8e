//! Random traffic, and daemons that die at random moments: what clients counted is what the daemon shows, to the byte.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{
    Backend, Daemon, Value, World, eventually, http, json,
    load::{self, Load, Random, Totals},
    metrics::Metrics,
    seed, service, world,
    world::addr,
};
use std::{
    collections::BTreeMap,
    env,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

const VIPS: [&str; 2] = ["10.96.0.10:80", "[fd00::10]:80"];
const REFUSING_VIPS: [&str; 2] = ["10.96.0.20:80", "[fd00::20]:80"];
const ENDPOINTS: [&str; 6] =
    ["10.1.0.1:8080", "10.1.0.2:8080", "10.1.0.3:8080", "[fd01::1]:8080", "[fd01::2]:8080", "[fd01::3]:8080"];
const NOBODY: [&str; 2] = ["10.1.0.9:9", "[fd01::9]:9"];

fn start(world: &World) -> (Vec<Backend>, Daemon) {
    // A client that closed first keeps its port for a minute, unless it may use it again.
    let reuse = || std::fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1");
    world.netns().enter(reuse).unwrap();
    let servers = ENDPOINTS.map(|endpoint| load::server(world.netns(), endpoint));
    (servers.into(), world.daemon(services()))
}

fn services() -> Value {
    // Every refusal is to be an endpoint's: an open circuit would answer in its place.
    let unbroken = |mut service: Value| {
        service["circuit_breaker"] = json!({ "failure_threshold": 0 });
        service
    };
    json!([
        service("web", &VIPS, &ENDPOINTS),
        unbroken(service("four", &[REFUSING_VIPS[0]], &[NOBODY[0]])),
        unbroken(service("six", &[REFUSING_VIPS[1]], &[NOBODY[1]])),
    ])
}

fn loads(world: &World, seed: u64, processes: u64, threads: u64) -> Vec<Load> {
    let (open, refusing) = (VIPS.map(addr), REFUSING_VIPS.map(addr));
    let start = |n| Load::start(world.cgroup(), world.netns(), seed + n, threads, &open, &refusing);
    (0..processes).map(start).collect()
}

/// Every counter that a scrape shows.
fn counters(metrics: &Metrics) -> BTreeMap<String, f64> {
    let ours = metrics.samples().iter().filter(|s| s.name.starts_with("mesh_") && s.name.ends_with("_total"));
    // Of the process, not of the connections.
    let kept = ours.filter(|s| s.labels.contains_key("service"));
    kept.map(|s| (format!("{}{:?}", s.name, s.labels), s.value)).collect()
}

/// Scrapes over and over until told to stop, past any death of the daemon: nothing may go backwards.
fn watch(admin: &str, stop: &AtomicBool, scrapes: &AtomicU64) {
    let mut last: BTreeMap<String, f64> = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(3));
        let Ok(response) = http::tcp(admin, "GET", "/metrics", "") else { continue };
        let whole = response.header("content-length").is_none_or(|length| length == response.body.len().to_string());
        if response.status != 200 || !whole {
            continue;
        }
        let now = counters(&Metrics::parse(&response.body));
        for (name, before) in &last {
            let value = now.get(name).unwrap_or_else(|| panic!("{name} is gone"));
            assert!(value >= before, "{name} went from {before} back to {value}");
        }
        last = now;
        scrapes.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits until the endpoints' counters add up to what clients counted.
fn adds_up(mesh: &Daemon, clients: &Totals) {
    assert_eq!(clients.failures, [""; 0], "of {} connections", clients.opened);
    assert!(clients.opened > 0 && clients.refused > 0 && clients.sent > 0 && clients.received > 0, "{clients:?}");
    eventually("the endpoints' counters are what clients counted", || {
        let endpoints = mesh.json(&["endpoints"]);
        let sum = |name: &str| endpoints.as_array().unwrap().iter().map(|e| e[name].as_u64().unwrap()).sum::<u64>();
        let seen = Totals {
            opened: sum("connections_total"),
            refused: sum("connect_failures_total"),
            sent: sum("sent_bytes_total"),
            received: sum("received_bytes_total"),
            failures: Vec::new(),
        };
        let active = sum("active_connections");
        if seen == *clients && active == 0 { Ok(()) } else { Err(format!("{seen:?}, {active} active; {clients:?}")) }
    });
    for reason in ["timeout", "unreachable", "reset", "other"] {
        let failures = mesh.metrics().count("mesh_tcp_connect_failures_total", &[("reason", reason)]);
        assert_eq!(failures, 0.0, "{reason}");
    }
    assert_eq!(mesh.metrics().count("mesh_connects_local_trouble_total", &[]), 0.0);
}

#[test]
fn what_clients_counted_adds_up_while_counters_are_read() {
    let (world, seed) = (world!(), seed());
    let (_servers, mesh) = start(&world);
    let (stop, scrapes, admin) = (AtomicBool::new(false), AtomicU64::new(0), mesh.admin());
    let mut clients = Totals::default();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| watch(&admin, &stop, &scrapes));
        }
        let loads = loads(&world, seed, 3, 4);
        thread::sleep(Duration::from_secs(5));
        eventually("counters are read often", || match scrapes.load(Ordering::Relaxed) {
            often if often > 20 => Ok(()),
            n => Err(format!("{n} times")),
        });
        loads.into_iter().for_each(|load| clients.add(load.stop()));
        stop.store(true, Ordering::Relaxed);
    });
    eprintln!("{} scrapes; {clients:?}", scrapes.into_inner());
    adds_up(&mesh, &clients);
}

#[test]
fn two_daemons_side_by_side_count_each_their_own() {
    let (world, seed) = (world!(), seed());
    let other = world.sibling();
    let (_servers, mesh) = start(&world);
    let neighbour = other.daemon(services());
    let (mine, theirs) = (loads(&world, seed, 1, 3), loads(&other, seed + 500, 1, 3));
    thread::sleep(Duration::from_secs(3));
    for (mesh, loads) in [(&mesh, mine), (&neighbour, theirs)] {
        let mut clients = Totals::default();
        loads.into_iter().for_each(|load| clients.add(load.stop()));
        adds_up(mesh, &clients);
    }
}

/// `MESH_TEST_KILLS` says how many times the daemon dies; 60 are enough for every day.
#[test]
fn what_clients_counted_adds_up_whenever_the_daemon_is_killed() {
    let kills = env::var("MESH_TEST_KILLS").map_or(60, |kills| kills.parse().expect("MESH_TEST_KILLS is a number"));
    let (world, seed) = (world!(), seed());
    let (_servers, mut mesh) = start(&world);
    let (stop, scrapes, admin) = (AtomicBool::new(false), AtomicU64::new(0), mesh.admin());
    let mut random = Random::new(seed);
    let (mut clients, mut at_start) = (Totals::default(), 0);
    thread::scope(|scope| {
        scope.spawn(|| watch(&admin, &stop, &scrapes));
        // Told to stop whatever happens here, or a failure would hang.
        let _stop = StopOnDrop(&stop);
        let loads = loads(&world, seed, 2, 3);
        for _ in 0..kills {
            thread::sleep(Duration::from_millis(random.below(200)));
            mesh.kill();
            mesh.spawn();
            if random.below(2) == 0 {
                // A start that does not come to its end.
                thread::sleep(Duration::from_millis(random.below(150)));
                at_start += 1;
            } else {
                mesh.wait_for("/ready", 200);
            }
        }
        mesh.wait_for("/ready", 200);
        loads.into_iter().for_each(|load| clients.add(load.stop()));
    });
    let scrapes = scrapes.into_inner();
    eprintln!("{kills} kills, {at_start} of them soon after a start; {scrapes} scrapes; {clients:?}");
    assert!(scrapes > 0);
    adds_up(&mesh, &clients);
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
