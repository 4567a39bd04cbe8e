//! Endpoints that change while connections hammer them: no connect may fail, and none may reach a wrong endpoint.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Backend, Daemon, Hammer, Value, World, hammer::Tally, holds, json, service, weighted, world};
use std::{collections::BTreeMap, thread, time::Duration};

const LEFT: &str = "10.96.0.1:80";
const RIGHT: &str = "10.96.0.2:80";
const RIGHT6: &str = "[fd00::2]:80";
const POOL: usize = 6;

/// A small generator (xorshift) with a fixed beginning: a failure can be run again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Two services under load, each with backends of its own that are up all the time.
struct Load {
    _backends: Vec<Backend>,
    hammers: Vec<Hammer>,
}

impl Load {
    fn start(world: &World) -> Self {
        let of = |side: &'static str, net: u8| {
            (0..POOL).map(move |n| world.backend(&format!("{side}-{n}"), &format!("10.1.{net}.{}:8080", n + 1)))
        };
        Self { _backends: of("left", 1).chain(of("right", 2)).collect(), hammers: Vec::new() }
    }

    fn hammer(&mut self, world: &World) {
        // One process knows both services, the others one each.
        for addresses in [&[LEFT][..], &[RIGHT, RIGHT6], &[LEFT, RIGHT], &[RIGHT]] {
            self.hammers.push(world.hammer(addresses));
        }
    }

    /// Ends the load: every connect was answered, and by the service that was dialled.
    fn assert_flawless(self) -> Tally {
        let mut total = Tally::default();
        self.hammers.into_iter().for_each(|h| total.add(h.stop()));
        total.assert_flawless();
        for (address, side) in [(LEFT, "left-"), (RIGHT, "right-"), (RIGHT6, "right-")] {
            let answered = total.answered(address);
            assert!(!answered.is_empty(), "{address} was dialled");
            assert!(answered.iter().all(|who| who.starts_with(side)), "{address} answered by {answered:?}");
        }
        total
    }
}

fn left(n: usize) -> String {
    format!("10.1.1.{}:8080", n + 1)
}

/// Some of a side's endpoints, never none, with weights of any size.
fn some(net: u8, dice: &mut Dice) -> Vec<(String, u32)> {
    let must = dice.roll(POOL as u64) as usize;
    let mut chosen = Vec::new();
    for n in 0..POOL {
        if n == must || dice.roll(2) == 0 {
            let weight = [1, 1, 2, 5, 100, 65535][dice.roll(6) as usize];
            chosen.push((format!("10.1.{net}.{}:8080", n + 1), weight));
        }
    }
    chosen
}

fn with_weights(name: &str, addresses: &[&str], endpoints: &[(String, u32)]) -> Value {
    let endpoints: Vec<(&str, u32)> = endpoints.iter().map(|(a, w)| (a.as_str(), *w)).collect();
    weighted(name, addresses, &endpoints)
}

/// Both services with random endpoints, and bystanders that come and go, so that rows are freed and used again.
fn random_services(dice: &mut Dice) -> Value {
    let mut all =
        vec![with_weights("left", &[LEFT], &some(1, dice)), with_weights("right", &[RIGHT, RIGHT6], &some(2, dice))];
    for n in 0..dice.roll(5) {
        let vip = format!("10.96.1.{n}:80");
        all.push(with_weights(&format!("bystander-{n}"), &[&vip], &some(3, dice)));
    }
    json!(all)
}

/// Both services with all their endpoints.
fn all_endpoints() -> Value {
    let of = |net: u8| (0..POOL).map(|n| format!("10.1.{net}.{}:8080", n + 1)).collect::<Vec<_>>();
    let (left, right) = (of(1), of(2));
    let refs = |v: &'static [String]| v.iter().map(String::as_str).collect::<Vec<_>>();
    let (left, right) = (refs(left.leak()), refs(right.leak()));
    json!([service("left", &[LEFT], &left), service("right", &[RIGHT, RIGHT6], &right)])
}

/// What was reloaded is what happens: of the left service only the new endpoints answer, the heaviest one among them.
fn assert_applied(world: &World, services: &Value, change: usize, mesh: &Daemon) {
    let endpoints = services[0]["endpoints"].as_array().unwrap();
    let name = |e: &Value| {
        let address: std::net::SocketAddr = e["address"].as_str().unwrap().parse().unwrap();
        format!("left-{}", address.ip().to_string().rsplit('.').next().unwrap().parse::<usize>().unwrap() - 1)
    };
    let expected: Vec<String> = endpoints.iter().map(name).collect();
    let heaviest = endpoints.iter().max_by_key(|e| e["weight"].as_u64()).map(name).unwrap();
    let answers = world.ask_times(LEFT, 6);
    let strangers: Vec<_> = answers.iter().filter(|a| !expected.contains(a)).collect();
    assert!(strangers.is_empty(), "change {change} to {expected:?} is not applied: {strangers:?}\n{}", mesh.log());
    let alone = endpoints.iter().filter(|e| e["weight"].as_u64() > Some(60)).count() == 1;
    // Others take turns meanwhile: which of them are ours is chance.
    let more = || (0..40).any(|_| world.ask(LEFT).unwrap() == heaviest);
    assert!(
        !alone || answers.contains(&heaviest) || more(),
        "change {change}: {heaviest} is missing: {answers:?}\n{}",
        mesh.log()
    );
}

#[test]
fn two_hundred_rewritten_configurations_harm_no_connect() {
    let world = world!();
    let mut dice = Dice(0x6d65_7368_0001);
    let mut load = Load::start(&world);
    let mut mesh = world.daemon(random_services(&mut dice));
    load.hammer(&world);
    for change in 0..200 {
        let services = random_services(&mut dice);
        mesh.set_services(services.clone());
        assert_applied(&world, &services, change, &mesh);
    }
    let total = load.assert_flawless();
    assert!(total.connects > 200, "{} connects during 200 changes", total.connects);
}

#[test]
fn two_hundred_drains_weights_and_policies_harm_no_connect() {
    let world = world!();
    let mut dice = Dice(0x6d65_7368_0002);
    let mut load = Load::start(&world);
    let mesh = world.daemon(all_endpoints());
    load.hammer(&world);
    let mut drained = [false; POOL];
    for _ in 0..200 {
        let n = dice.roll(POOL as u64) as usize;
        let endpoint = left(n);
        match dice.roll(4) {
            0 if drained.iter().filter(|d| !**d).count() > 2 || drained[n] => {
                let verb = if drained[n] { "undrain" } else { "drain" };
                mesh.cli(&["endpoints", verb, "left", &endpoint]).done();
                drained[n] = !drained[n];
            }
            1 => {
                let policy = if dice.roll(2) == 0 { "random" } else { "round_robin" };
                mesh.cli(&["lb", "set", "left", policy]).done();
            }
            // Never 0: all the others may be drained.
            _ => {
                let weight = 1 + dice.roll(300);
                mesh.cli(&["endpoints", "weight", "left", &endpoint, &weight.to_string()]).done();
            }
        }
    }
    load.assert_flawless();
}

#[test]
fn a_set_that_is_replaced_as_a_whole_is_never_empty_in_between() {
    let world = world!();
    let mut load = Load::start(&world);
    let sets = |n: usize| {
        let half: Vec<String> = (0..POOL).filter(|i| i % 2 == n % 2).map(left).collect();
        let half: Vec<&str> = half.iter().map(String::as_str).collect();
        json!([service("left", &[LEFT], &half), service("right", &[RIGHT, RIGHT6], &["10.1.2.1:8080"])])
    };
    let mut mesh = world.daemon(sets(0));
    load.hammer(&world);
    for n in 1..=50 {
        mesh.set_services(sets(n));
    }
    load.assert_flawless();
}

#[test]
fn services_renamed_under_their_vips_stay_reachable() {
    let world = world!();
    let mut load = Load::start(&world);
    // The VIPs stay, everything else about the services changes: names, and so ids and rows.
    let named = |n: usize| {
        json!([
            service(&format!("left-{n}"), &[LEFT], &["10.1.1.1:8080", "10.1.1.2:8080"]),
            service(&format!("right-{n}"), &[RIGHT, RIGHT6], &["10.1.2.1:8080"]),
        ])
    };
    let mut mesh = world.daemon(named(0));
    load.hammer(&world);
    for n in 1..=50 {
        mesh.set_services(named(n));
    }
    load.assert_flawless();
}

#[test]
fn a_crash_in_the_middle_of_a_change_harms_no_connect() {
    let world = world!();
    let mut dice = Dice(0x6d65_7368_0003);
    let mut load = Load::start(&world);
    let mut mesh = world.daemon(random_services(&mut dice));
    load.hammer(&world);
    for _ in 0..25 {
        mesh.configure(|config| config["services"] = random_services(&mut dice));
        mesh.hang_up();
        thread::sleep(Duration::from_micros(dice.roll(15_000)));
        mesh.kill();
        mesh.start();
    }
    load.assert_flawless();
}

#[test]
fn many_operators_at_once_get_what_they_ask_for() {
    let world = world!();
    let mut load = Load::start(&world);
    let mesh = world.daemon(all_endpoints());
    load.hammer(&world);
    thread::scope(|scope| {
        for n in 0..POOL {
            let mesh = &mesh;
            scope.spawn(move || {
                for weight in 1..=10 {
                    mesh.cli(&["endpoints", "weight", "left", &left(n), &weight.to_string()]).done();
                    assert_eq!(mesh.endpoint("left", &left(n))["weight"], weight);
                }
            });
        }
    });
    load.assert_flawless();
    for n in 0..POOL {
        assert_eq!(mesh.endpoint("left", &left(n))["weight"], 10);
    }
}

#[test]
fn nothing_piles_up_over_many_changes() {
    let world = world!();
    let mut dice = Dice(0x6d65_7368_0004);
    let mut mesh = world.daemon(all_endpoints());
    let descriptors = |mesh: &Daemon| std::fs::read_dir(format!("/proc/{}/fd", mesh.pid())).unwrap().count();
    let entries = |mesh: &Daemon| {
        let status = mesh.json(&["status"]);
        let maps = status["maps"].as_array().unwrap();
        maps.iter().map(|m| (m["name"].to_string(), m["entries"].clone())).collect::<Vec<_>>()
    };
    let before = (entries(&mesh), descriptors(&mesh));
    for _ in 0..150 {
        mesh.set_services(random_services(&mut dice));
    }
    mesh.set_services(all_endpoints());
    // What was given back rests a while before it counts as free.
    holds(&format!("rows are given back: {:?}", before.0), || entries(&mesh), |after| *after == before.0);
    // The probe has some for a moment.
    holds(&format!("files are closed: {}", before.1), || descriptors(&mesh), |after| *after <= before.1 + 3);
}

/// Nothing that begins after the command has ended goes to `endpoint`.
fn assert_left_out(world: &World, mesh: &Daemon, endpoint: &str, who: &str) {
    let answers = world.ask_times(LEFT, 12);
    assert!(!answers.iter().any(|a| a == who), "{endpoint} is out: {answers:?}\n{}", mesh.json(&["endpoints", "left"]));
}

#[test]
fn a_change_holds_for_every_connect_after_the_command_ended() {
    let world = world!();
    let _load = Load::start(&world);
    let mut mesh = world.daemon(all_endpoints());
    for n in 0..POOL {
        let endpoint = left(n);
        let who = format!("left-{n}");
        mesh.cli(&["endpoints", "drain", "left", &endpoint]).done();
        assert_left_out(&world, &mesh, &endpoint, &who);
        mesh.cli(&["endpoints", "undrain", "left", &endpoint]).done();
        assert!(world.ask_times(LEFT, 12).contains(&who), "{endpoint} is back");
        mesh.cli(&["endpoints", "weight", "left", &endpoint, "0"]).done();
        assert_left_out(&world, &mesh, &endpoint, &who);
        mesh.cli(&["endpoints", "weight", "left", &endpoint, "1"]).done();
        assert!(world.ask_times(LEFT, 12).contains(&who), "{endpoint} is back");
    }
    mesh.set_services(json!([service("left", &[LEFT], &["10.1.1.3:8080"])]));
    assert_eq!(world.ask_times(LEFT, 6), ["left-2"; 6]);
    assert!(world.dial(RIGHT).is_err(), "a removed service is a service no more");
}

#[test]
fn an_open_connection_outlives_drain_and_removal_of_its_endpoint() {
    use std::io::{Read, Write};
    let world = world!();
    let _echo = world.echo("10.1.3.1:7");
    let vip = "10.96.0.9:7";
    let mut mesh = world.daemon(json!([service("echo", &[vip], &["10.1.3.1:7"])]));
    let mut client = world.dial(vip).unwrap();
    let mut still_works = |when: &str| {
        client.write_all(b"hello").unwrap();
        let mut back = [0; 5];
        client.read_exact(&mut back).unwrap_or_else(|e| panic!("{when}: {e}"));
        assert_eq!(&back, b"hello", "{when}");
        assert_eq!(client.peer_addr().unwrap().as_socket().unwrap().to_string(), vip, "{when}");
    };
    still_works("before");
    mesh.cli(&["endpoints", "drain", "echo", "10.1.3.1:7"]).done();
    still_works("drained");
    holds("active", || mesh.endpoint("echo", "10.1.3.1:7")["active_connections"].clone(), |n| *n == 1);
    mesh.set_services(json!([service("echo", &[vip], &["10.1.3.2:7"])]));
    still_works("its endpoint removed");
    mesh.set_services(json!([]));
    still_works("its service removed");
}

#[test]
fn an_endpoint_that_comes_back_is_counted_on_with_the_connections_that_it_still_has() {
    let world = world!();
    let (_echo, _other) = (world.echo("10.1.3.1:7"), world.echo("10.1.3.2:7"));
    let vip = "10.96.0.9:7";
    let with = |endpoints: &[&str]| json!([service("echo", &[vip], endpoints)]);
    let mut mesh = world.daemon(with(&["10.1.3.1:7"]));
    let mut client = world.client(vip);
    client.exchange(1000);
    for _ in 0..3 {
        mesh.set_services(with(&["10.1.3.2:7"]));
        client.exchange(1000);
        mesh.set_services(with(&["10.1.3.1:7"]));
        client.exchange(1000);
    }
    let seen = || {
        let endpoint = mesh.endpoint("echo", "10.1.3.1:7");
        ["connections_total", "active_connections", "sent_bytes_total"].map(|key| endpoint[key].clone())
    };
    holds("all of it", seen, |seen| *seen == [json!(1), json!(1), json!(7000)]);
    drop(client);
    holds("and its end", seen, |seen| *seen == [json!(1), json!(0), json!(7000)]);
}

#[test]
fn after_a_storm_of_changes_the_last_one_holds() {
    let world = world!();
    let mut dice = Dice(0x6d65_7368_0005);
    let _load = Load::start(&world);
    let mut mesh = world.daemon(all_endpoints());
    for _ in 0..150 {
        mesh.set_services(random_services(&mut dice));
    }
    mesh.set_services(all_endpoints());
    for address in [LEFT, RIGHT, RIGHT6] {
        holds(
            &format!("full turns at {address}"),
            || {
                let answers = world.ask_times(address, 2 * POOL);
                answers.into_iter().fold(BTreeMap::<String, usize>::new(), |mut counts, who| {
                    *counts.entry(who).or_default() += 1;
                    counts
                })
            },
            |counts| counts.len() == POOL && counts.values().all(|n| *n == 2),
        );
    }
}
