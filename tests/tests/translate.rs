//! What connect() to a service address becomes.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Value, World, backend, holds, json, netns::Netns, service, world, world::addr};
use socket2::{Domain, Socket};
use std::{collections::BTreeSet, io, net::SocketAddr, sync::Arc};

const VIP: &str = "10.96.0.10:80";
const VIP6: &str = "[fd00::10]:80";
const MAPPED_VIP: &str = "[::ffff:10.96.0.10]:80";

/// The address of the other side, as getpeername() says.
fn peer(socket: &Socket) -> SocketAddr {
    socket.peer_addr().unwrap().as_socket().unwrap()
}

fn connect(socket: &Socket, address: &str) -> io::Result<()> {
    socket.connect(&addr(address).into())
}

fn errno(result: io::Result<impl std::fmt::Debug>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

#[test]
fn a_v4_vip_leads_to_an_endpoint_and_needs_no_route() {
    let world = world!();
    let b1 = world.backend("B1", "10.1.0.1:8080");
    assert_eq!(errno(world.ask(VIP)), libc::ENETUNREACH);
    let _mesh = world.daemon(json!([service("web", &[VIP], &["10.1.0.1:8080"])]));
    let mut client = world.dial(VIP).unwrap();
    assert_eq!(peer(&client), addr(VIP));
    assert_eq!(backend::answer(&mut client).unwrap(), "B1");
    assert_eq!(b1.accepted(), 1);
}

#[test]
fn a_v6_vip_leads_to_a_v6_endpoint() {
    let world = world!();
    let _b1 = world.backend("B1", "[fd01::1]:8080");
    let _mesh = world.daemon(json!([service("web", &[VIP6], &["[fd01::1]:8080"])]));
    let mut client = world.dial(VIP6).unwrap();
    assert_eq!(peer(&client), addr(VIP6));
    assert_eq!(backend::answer(&mut client).unwrap(), "B1");
}

#[test]
fn a_program_that_knows_nothing_sees_the_address_it_dialled() {
    let world = world!();
    let _b1 = world.backend("B1", "10.1.0.1:8080");
    let _b6 = world.backend("B6", "[fd01::1]:8080");
    let _mesh = world
        .daemon(json!([service("web", &[VIP], &["10.1.0.1:8080"]), service("web6", &[VIP6], &["[fd01::1]:8080"]),]));
    assert_eq!(world.connect_program(VIP).done(), format!("{VIP}\nI am B1\n"));
    assert_eq!(world.connect_program(VIP6).done(), format!("{VIP6}\nI am B6\n"));
}

#[test]
fn a_loopback_endpoint_is_the_clients_own() {
    let world = world!();
    let _b1 = world.backend("B1", "127.0.0.1:8080");
    let _b6 = world.backend("B6", "[::1]:8080");
    let _mesh =
        world.daemon(json!([service("web", &[VIP], &["127.0.0.1:8080"]), service("web6", &[VIP6], &["[::1]:8080"]),]));
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    assert_eq!(world.ask(VIP6).unwrap(), "B6");
}

#[test]
fn a_v4_mapped_vip_on_a_v6_socket_is_translated_too() {
    let world = world!();
    let b1 = world.backend("B1", "10.1.0.1:8080");
    let _mesh = world.daemon(json!([service("web", &[VIP], &["10.1.0.1:8080"])]));
    let mut client = world.dial(MAPPED_VIP).unwrap();
    assert_eq!(peer(&client), addr(MAPPED_VIP));
    assert_eq!(backend::answer(&mut client).unwrap(), "B1");
    assert_eq!(b1.accepted(), 1);
}

#[test]
fn a_v6_vip_reaches_a_v4_endpoint_by_its_mapped_address() {
    let world = world!();
    let b1 = world.backend("B1", "10.1.0.1:8080");
    let _mesh = world.daemon(json!([service("web", &[VIP6], &["10.1.0.1:8080"])]));
    let mut client = world.dial(VIP6).unwrap();
    assert_eq!(peer(&client), addr(VIP6));
    assert_eq!(backend::answer(&mut client).unwrap(), "B1");
    assert!(b1.clients()[0].is_ipv4());
}

#[test]
fn a_v6only_socket_gets_v6_endpoints_only() {
    let world = world!();
    let b4 = world.backend("B4", "10.1.0.1:8080");
    let _b6 = world.backend("B6", "[fd01::1]:8080");
    let _mesh = world.daemon(json!([service("web", &[VIP6], &["10.1.0.1:8080", "[fd01::1]:8080"])]));
    for _ in 0..10 {
        let mut client = world.tcp(Domain::IPV6);
        client.set_only_v6(true).unwrap();
        connect(&client, VIP6).unwrap();
        assert_eq!(backend::answer(&mut client).unwrap(), "B6");
    }
    assert_eq!(b4.accepted(), 0);
    let both: BTreeSet<_> = world.ask_times(VIP6, 10).into_iter().collect();
    assert_eq!(both, BTreeSet::from(["B4".to_owned(), "B6".to_owned()]), "a plain socket gets both");
}

#[test]
fn a_v6_socket_that_is_bound_to_a_v4_address_gets_v4_endpoints_only() {
    let world = world!();
    let _b4 = world.backend("B4", "10.1.0.1:8080");
    let b6 = world.backend("B6", "[fd01::1]:8080");
    let _mesh = world.daemon(json!([service("web", &[VIP6], &["10.1.0.1:8080", "[fd01::1]:8080"])]));
    for _ in 0..6 {
        let mut client = world.tcp(Domain::IPV6);
        client.set_only_v6(false).unwrap();
        client.bind(&addr("[::ffff:127.0.0.1]:0").into()).unwrap();
        connect(&client, VIP6).unwrap();
        assert_eq!(backend::answer(&mut client).unwrap(), "B4");
    }
    assert_eq!(b6.accepted(), 0);
}

#[test]
fn a_v6only_socket_is_refused_where_all_endpoints_are_v4() {
    let world = world!();
    let b4 = world.backend("B4", "10.1.0.1:8080");
    let mesh = world.daemon(json!([service("web", &[VIP6], &["10.1.0.1:8080"])]));
    let client = world.tcp(Domain::IPV6);
    client.set_only_v6(true).unwrap();
    assert_eq!(errno(connect(&client, VIP6)), libc::ECONNREFUSED);
    assert_eq!(b4.accepted(), 0);
    let labels = [("service", "web"), ("reason", "family_mismatch")];
    holds("counted", || mesh.metrics().count("mesh_tcp_connects_refused_total", &labels), |n| *n == 1.0);
}

#[test]
fn with_same_family_a_v6_vip_leads_to_v6_endpoints_only_and_is_refused_where_there_are_none() {
    let world = world!();
    let b4 = world.backend("B4", "10.1.0.1:8080");
    let _b6 = world.backend("B6", "[fd01::1]:8080");
    let with = |endpoints: &[&str], same: bool| {
        let mut web = service("web", &[VIP, VIP6], endpoints);
        web["load_balancing"] = json!({ "same_family": same });
        json!([web])
    };
    let both = ["10.1.0.1:8080", "[fd01::1]:8080"];
    let mut mesh = world.daemon(with(&both, true));
    let each = |vip| world.ask_times(vip, 10).into_iter().collect::<BTreeSet<_>>();
    assert_eq!((each(VIP), each(VIP6)), (BTreeSet::from(["B4".to_owned()]), BTreeSet::from(["B6".to_owned()])));
    let shares = |why: Value| -> Vec<(String, f64, String)> {
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        let candidates = why["endpoints"].as_array().unwrap().clone();
        candidates.iter().map(|c| (text(&c["address"]), c["share"].as_f64().unwrap(), text(&c["reason"]))).collect()
    };
    let why = shares(mesh.json(&["explain", VIP6]));
    assert_eq!((why[0].1, why[1].1), (0.0, 1.0), "{why:?}");
    assert!(why[0].2.contains("same_family"), "{why:?}");

    mesh.set_services(with(&both[..1], true));
    assert_eq!(errno(world.dial(VIP6)), libc::ECONNREFUSED);
    assert_eq!(world.ask(VIP).unwrap(), "B4");
    let labels = [("service", "web"), ("reason", "family_mismatch")];
    holds("counted", || mesh.metrics().count("mesh_tcp_connects_refused_total", &labels), |n| *n == 1.0);

    mesh.set_services(with(&both[..1], false));
    assert_eq!(world.ask(VIP6).unwrap(), "B4");
    assert!(b4.accepted() > 0);
}

#[test]
fn a_v4_vip_is_refused_where_all_endpoints_are_v6() {
    let world = world!();
    let b6 = world.backend("B6", "[fd01::1]:8080");
    let mesh = world.daemon(json!([service("web", &[VIP], &["[fd01::1]:8080"])]));
    assert_eq!(errno(world.dial(VIP)), libc::ECONNREFUSED);
    assert_eq!(errno(world.dial(MAPPED_VIP)), libc::ECONNREFUSED);
    assert_eq!(b6.accepted(), 0);
    let labels = [("service", "web"), ("reason", "family_mismatch")];
    holds("counted", || mesh.metrics().count("mesh_tcp_connects_refused_total", &labels), |n| *n == 2.0);
}

#[test]
fn every_address_and_port_of_a_service_leads_to_its_endpoints() {
    let world = world!();
    let _b4 = world.backend("B4", "10.1.0.1:8080");
    let _b6 = world.backend("B6", "[fd01::1]:8080");
    let v4 = [VIP, "10.96.0.10:443", "10.96.0.11:80", "192.0.2.1:65535", "240.10.0.1:1"];
    let v6 = [VIP6, "[fd00::10]:443", "[2001:db8::1]:80"];
    let all: Vec<&str> = v4.iter().chain(&v6).copied().collect();
    let _mesh = world.daemon(json!([service("web", &all, &["10.1.0.1:8080", "[fd01::1]:8080"])]));
    for vip in v4 {
        assert_eq!(world.ask_times(vip, 3), ["B4"; 3], "{vip}");
    }
    for vip in v6 {
        let answers: BTreeSet<_> = world.ask_times(vip, 4).into_iter().collect();
        assert_eq!(answers.len(), 2, "{vip}: {answers:?}");
    }
}

#[test]
fn clients_in_other_network_namespaces_are_balanced_too() {
    let world = world!();
    let pod = World::inside(Arc::new(Netns::new().unwrap()));
    pod.netns().join("10.7.0.1/24", world.netns(), "10.7.0.2/24");
    let b1 = world.backend("B1", "10.7.0.2:8080");
    let _mesh = pod.daemon(json!([service("web", &[VIP], &["10.7.0.2:8080"])]));
    assert_eq!(pod.ask(VIP).unwrap(), "B1");
    assert_eq!(b1.clients()[0].ip().to_string(), "10.7.0.1");
}

#[test]
fn a_vip_may_be_one_of_the_endpoints_own_addresses() {
    let world = world!();
    let b1 = world.backend("B1", "10.1.0.1:8080");
    let b2 = world.backend("B2", "10.1.0.2:8080");
    let _mesh = world.daemon(json!([service("web", &["10.1.0.1:8080"], &["10.1.0.1:8080", "10.1.0.2:8080"])]));
    let answers: BTreeSet<_> = world.ask_times("10.1.0.1:8080", 6).into_iter().collect();
    assert_eq!(answers.len(), 2, "translated once and not in circles: {answers:?}");
    assert_eq!((b1.accepted(), b2.accepted()), (3, 3));
}
