//! Services whose endpoints come from the DNS: what is answered there is where connections go.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{
    Backend, Daemon, DnsServer, Value, World,
    daemon::Setup,
    dns::{Manner, Records},
    eventually, holds, json, world,
};
use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

const VIP: &str = "10.96.0.10:80";
const NAME: &str = "web.svc.internal";

fn backends(world: &World) -> [Backend; 3] {
    [1, 2, 3].map(|n| world.backend(&format!("B{n}"), &format!("10.1.0.{n}:8080")))
}

fn setup(world: &World, dns: &DnsServer, service: Value) -> Setup {
    let mut web = json!({ "name": "web", "addresses": [VIP] });
    for (key, value) in service.as_object().unwrap() {
        web[key] = value.clone();
    }
    let servers = [dns.address().to_string()];
    world.setup(json!([web])).with(|config| {
        config["discovery"] = json!({ "dns": { "servers": servers }, "empty_grace": "1s" });
    })
}

/// A daemon with a service that draws from `NAME`.
fn daemon(world: &World, dns: &DnsServer) -> Daemon {
    setup(world, dns, json!({ "dns": format!("{NAME}:8080") })).start()
}

/// Who answers at the VIP, over a dozen connections; an error counts as one of that text.
fn answering(world: &World) -> BTreeSet<String> {
    (0..12).map(|_| world.ask(VIP).unwrap_or_else(|e| e.to_string())).collect()
}

fn until_answering(world: &World, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
    holds("connections go where the DNS says", || answering(world), |seen| *seen == expected);
}

fn endpoints(mesh: &Daemon) -> BTreeSet<String> {
    let all = mesh.cli(&["endpoints", "-o", "json"]).json();
    all.as_array().unwrap().iter().map(|e| e["address"].as_str().unwrap().to_owned()).collect()
}

fn source(mesh: &Daemon) -> Value {
    let status = mesh.cli(&["status", "-o", "json"]).json();
    let sources = status["sources"].as_array().unwrap();
    sources.iter().find(|source| source["name"] == "dns").cloned().unwrap_or_default()
}

#[test]
fn a_change_arrives_and_connections_go_to_the_new_endpoint() {
    let world = world!();
    let _backends = backends(&world);
    let dns = DnsServer::new();
    dns.set(NAME, Records::addresses(&["10.1.0.1"], 1));
    let mesh = daemon(&world, &dns);
    assert_eq!(answering(&world), BTreeSet::from(["B1".to_owned()]), "ready means that it knows");
    dns.set(NAME, Records::addresses(&["10.1.0.2", "10.1.0.3"], 1));
    until_answering(&world, &["B2", "B3"]);
    assert_eq!(source(&mesh)["synced"], true);
}

#[test]
fn addresses_of_both_kinds_and_behind_an_alias_are_endpoints() {
    let world = world!();
    let dns = DnsServer::new();
    dns.set(NAME, Records { alias: Some("real.svc.internal".to_owned()), ttl: 60, ..Records::default() });
    dns.set("real.svc.internal", Records::addresses(&["10.1.0.1", "fd01::1"], 1));
    let mesh = daemon(&world, &dns);
    assert_eq!(endpoints(&mesh), ["10.1.0.1:8080", "[fd01::1]:8080"].map(str::to_owned).into());
}

#[test]
fn records_of_services_bring_ports_and_weights_and_the_next_priority_takes_over() {
    let world = world!();
    let _backends = backends(&world);
    let dns = DnsServer::new();
    let srv = "_http._tcp.web.svc.internal";
    let records =
        [(10, 3, 8080, "one.svc.internal"), (10, 0, 8080, "two.svc.internal"), (20, 1, 8080, "three.svc.internal")];
    dns.set(srv, Records::services(&records, 1));
    for (name, ip) in [("one", "10.1.0.1"), ("two", "10.1.0.2"), ("three", "10.1.0.3")] {
        dns.set(&format!("{name}.svc.internal"), Records::addresses(&[ip], 1));
    }
    let mesh = setup(&world, &dns, json!({ "srv": srv })).start();
    assert_eq!(endpoints(&mesh), ["10.1.0.1:8080", "10.1.0.2:8080"].map(str::to_owned).into());
    let weight = |address: &str| mesh.endpoint("web", address)["weight"].as_u64().unwrap();
    assert_eq!((weight("10.1.0.1:8080"), weight("10.1.0.2:8080")), (300, 1), "0 is little, not nothing");
    dns.treat("one.svc.internal", Manner::Denies);
    dns.treat("two.svc.internal", Manner::Denies);
    until_answering(&world, &["B3"]);
}

#[test]
fn a_name_with_a_thousand_addresses_comes_by_tcp() {
    let world = world!();
    let dns = DnsServer::new();
    let all: Vec<String> = (0..1000).map(|n| format!("10.1.{}.{}", 1 + n / 250, 1 + n % 250)).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    dns.set(NAME, Records::addresses(&all, 60));
    let mesh = daemon(&world, &dns);
    assert_eq!(endpoints(&mesh).len(), 1000);
    assert!(dns.asked_by_tcp() > 0);
    let other = DnsServer::new();
    other.set(NAME, Records::addresses(&["10.1.0.1"], 60).that(Manner::Truncates));
    let second = world.sibling();
    let mesh = daemon(&second, &other);
    assert_eq!(endpoints(&mesh).len(), 1);
}

#[test]
fn what_is_known_stays_while_nobody_answers_and_the_status_says_so() {
    let world = world!();
    let _backends = backends(&world);
    let dns = DnsServer::new();
    dns.set(NAME, Records::addresses(&["10.1.0.1"], 1));
    let mesh = daemon(&world, &dns);
    let of_source = |name: &str| mesh.metrics().sum(name, &[("source", "dns")]);
    for manner in [Manner::Fails, Manner::IsSilent] {
        dns.treat(NAME, manner);
        let seen = holds("the status says that the DNS is lost", || source(&mesh), |seen| seen["error"].is_string());
        assert!(seen["error"].as_str().unwrap().starts_with("web.svc.internal:8080: "), "{seen}");
        assert!(seen["stale_since"].is_string(), "{seen}");
        assert_eq!((of_source("mesh_discovery_lost"), of_source("mesh_discovery_synced")), (Some(1.0), Some(1.0)));
        assert_eq!(answering(&world), BTreeSet::from(["B1".to_owned()]));
        dns.set(NAME, Records::addresses(&["10.1.0.1"], 1));
        holds("and that it is in touch again", || source(&mesh), |seen| seen["error"].is_null());
        assert_eq!(of_source("mesh_discovery_lost"), Some(0.0));
    }
    dns.set(NAME, Records::addresses(&["10.1.0.2"], 1));
    until_answering(&world, &["B2"]);
    assert!(mesh.log().contains("dns: in touch again"), "{}", mesh.log());
}

#[test]
fn servers_are_asked_in_their_order_and_the_next_one_where_one_fails() {
    let world = world!();
    let _backends = backends(&world);
    let (first, second) = (DnsServer::new(), DnsServer::new());
    first.set(NAME, Records::addresses(&["10.1.0.1"], 1));
    second.treat(NAME, Manner::Denies);
    let both = [&first, &second].map(|dns| dns.address().to_string());
    let setup = setup(&world, &first, json!({ "dns": format!("{NAME}:8080") }));
    let mesh = setup.with(|config| config["discovery"]["dns"]["servers"] = json!(both)).start();
    // Whoever is quicker: each is for some of so many questions.
    let asked = first.asked(NAME);
    eventually("it is asked again and again", || if first.asked(NAME) >= asked + 6 { Ok(()) } else { Err("not yet") });
    assert_eq!(endpoints(&mesh), ["10.1.0.1:8080".to_owned()].into());
    assert_eq!(second.asked(NAME), 0, "the first one knows");
    second.set(NAME, Records::addresses(&["10.1.0.2"], 1));
    for manner in [Manner::Fails, Manner::IsSilent] {
        first.treat(NAME, manner);
        until_answering(&world, &["B2"]);
        assert_eq!(source(&mesh)["error"], Value::Null, "{manner:?}");
        first.set(NAME, Records::addresses(&["10.1.0.1"], 1));
        until_answering(&world, &["B1"]);
    }
}

#[test]
fn a_denial_is_believed_on_repetition_only() {
    let world = world!();
    let _backends = backends(&world);
    let dns = DnsServer::new();
    dns.set(NAME, Records::addresses(&["10.1.0.1"], 1));
    let mesh = daemon(&world, &dns);
    for (records, manner) in [(Records::none(1), Manner::Denies), (Records::none(1), Manner::Answers)] {
        let before = dns.asked(NAME);
        dns.set(NAME, records.that(manner));
        // Two kinds of addresses are asked for each time.
        eventually("it is asked again", || if dns.asked(NAME) >= before + 2 { Ok(()) } else { Err("not yet") });
        thread::sleep(Duration::from_millis(100));
        dns.set(NAME, Records::addresses(&["10.1.0.1"], 1));
        assert_eq!(answering(&world), BTreeSet::from(["B1".to_owned()]), "{manner:?} once");
        thread::sleep(Duration::from_millis(1200));
    }
    assert_eq!(endpoints(&mesh).len(), 1);
    dns.treat(NAME, Manner::Denies);
    holds("in the end nobody is left", || endpoints(&mesh), BTreeSet::is_empty);
    assert_eq!(source(&mesh)["error"], Value::Null, "an answer is an answer");
}

#[test]
fn a_name_that_does_not_exist_holds_up_nobody() {
    let world = world!();
    let dns = DnsServer::new();
    let mut mesh = daemon(&world, &dns);
    assert_eq!(endpoints(&mesh).len(), 0);
    dns.set(NAME, Records::addresses(&["10.1.0.1"], 1));
    holds("it appears", || endpoints(&mesh), |seen| seen.len() == 1);
    // Another server, and another name: what is known stays in force meanwhile.
    let other = DnsServer::new();
    other.set("other.svc.internal", Records::addresses(&["10.1.0.2"], 1));
    mesh.configure(|config| {
        config["services"][0]["dns"] = json!("other.svc.internal:8080");
        config["discovery"]["dns"]["servers"] = json!([other.address().to_string()]);
    });
    mesh.reload();
    holds("the new name counts", || endpoints(&mesh), |seen| *seen == ["10.1.0.2:8080".to_owned()].into());
}

#[test]
fn a_restart_without_the_dns_knows_what_was_known() {
    let world = world!();
    let _backends = backends(&world);
    let dns = DnsServer::new();
    dns.set(NAME, Records::addresses(&["10.1.0.1"], 1));
    let mut mesh = daemon(&world, &dns);
    let file = mesh.dir().join("state/discovered.json");
    holds(
        "it is written down",
        || std::fs::read_to_string(&file).unwrap_or_default(),
        |text| text.contains("10.1.0.1"),
    );
    mesh.kill();
    dns.treat(NAME, Manner::Fails);
    mesh.spawn();
    mesh.wait_for("/health", 200);
    assert_eq!(answering(&world), BTreeSet::from(["B1".to_owned()]));
    mesh.wait_for("/ready", 503);
    dns.set(NAME, Records::addresses(&["10.1.0.3"], 1));
    mesh.wait_for("/ready", 200);
    until_answering(&world, &["B3"]);
}

#[test]
fn ttls_of_0_and_of_ten_years_are_kept_within_bounds() {
    let world = world!();
    let dns = DnsServer::new();
    dns.set(NAME, Records::addresses(&["10.1.0.1"], 0));
    dns.set("old.svc.internal", Records::addresses(&["10.1.0.2"], 315_360_000));
    let mesh = setup(&world, &dns, json!({ "dns": format!("{NAME}:8080") })).with(|config| {
        let old = json!({ "name": "old", "dns": "old.svc.internal:8080", "addresses": ["10.96.0.11:80"] });
        config["services"].as_array_mut().unwrap().push(old);
        config["discovery"]["dns"]["refresh"] = json!("2s");
    });
    let _mesh = mesh.start();
    let begun = Instant::now();
    let before = (dns.asked(NAME), dns.asked("old.svc.internal"));
    thread::sleep(Duration::from_secs(5));
    let asked = (dns.asked(NAME) - before.0, dns.asked("old.svc.internal") - before.1);
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap();
    // Two questions a look: each second at the most, each two seconds at the least.
    assert!((4..=2 * (seconds + 2)).contains(&asked.0), "{asked:?} in {seconds} s");
    assert!((2..=seconds + 4).contains(&asked.1), "{asked:?} in {seconds} s");
}
