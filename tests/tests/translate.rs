//! What connect() to a service address becomes, and what is left alone.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{World, backend, holds, json, netns::Netns, service, world, world::addr};
use socket2::{Domain, SockAddr, Socket};
use std::{
    collections::BTreeSet,
    io::{self, Read},
    net::SocketAddr,
    sync::Arc,
};

const VIP: &str = "10.96.0.10:80";
const VIP6: &str = "[fd00::10]:80";
const MAPPED_VIP: &str = "[::ffff:10.96.0.10]:80";
const DEFAULT_MARK: u32 = 0x6d65_7368;

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

/// A world where the VIP exists for real, so that an untranslated connect is seen to arrive there.
fn world_with_real_vip(world: &World) -> [backend::Backend; 2] {
    world.netns().ip("address add 10.96.0.10/32 dev lo");
    world.netns().ip("address add fd00::10/128 dev lo nodad");
    [world.backend("REAL", VIP), world.backend("REAL6", VIP6)]
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
fn addresses_that_are_no_service_are_left_alone() {
    let world = world!();
    let real = world_with_real_vip(&world);
    let _same_address = world.backend("OTHER PORT", "10.96.0.10:81");
    let _same_address6 = world.backend("OTHER PORT 6", "[fd00::10]:81");
    let _b1 = world.backend("B1", "10.1.0.1:8080");
    let _mesh = world.daemon(json!([service("web", &[VIP, VIP6], &["10.1.0.1:8080"])]));
    assert_eq!(world.ask("10.96.0.10:81").unwrap(), "OTHER PORT");
    assert_eq!(world.ask("[::ffff:10.96.0.10]:81").unwrap(), "OTHER PORT");
    assert_eq!(world.ask("[fd00::10]:81").unwrap(), "OTHER PORT 6");
    assert_eq!(world.ask("10.1.0.1:8080").unwrap(), "B1");
    assert_eq!(errno(world.ask("10.96.0.11:80")), libc::ENETUNREACH);
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    assert_eq!(real.map(|b| b.accepted()), [0, 0]);
}

#[test]
fn processes_outside_the_cgroup_are_left_alone() {
    let world = world!();
    let _real = world_with_real_vip(&world);
    let neighbour = world.sibling();
    let _b1 = world.backend("B1", "10.1.0.1:8080");
    let _mesh = world.daemon(json!([service("web", &[VIP, VIP6], &["10.1.0.1:8080"])]));
    assert_eq!(world.ask_outside(VIP).unwrap(), "REAL");
    assert_eq!(world.ask_outside(VIP6).unwrap(), "REAL6");
    assert_eq!(neighbour.ask(VIP).unwrap(), "REAL");
    assert_eq!(world.ask(VIP).unwrap(), "B1");
}

#[test]
fn sockets_with_the_daemons_mark_pass_untouched() {
    let world = world!();
    let _real = world_with_real_vip(&world);
    let _b1 = world.backend("B1", "10.1.0.1:8080");
    let _mesh = world.daemon(json!([service("web", &[VIP, VIP6], &["10.1.0.1:8080"])]));
    for (mark, vip, answer) in
        [(DEFAULT_MARK, VIP, "REAL"), (DEFAULT_MARK, VIP6, "REAL6"), (7, VIP, "B1"), (0, VIP, "B1")]
    {
        let mut client = world.tcp(Domain::for_address(addr(vip)));
        client.set_mark(mark).unwrap();
        connect(&client, vip).unwrap();
        assert_eq!(backend::answer(&mut client).unwrap(), answer, "mark {mark:#x}");
    }
}

#[test]
fn the_mark_is_the_configured_one() {
    let world = world!();
    let _real = world_with_real_vip(&world);
    let _b1 = world.backend("B1", "10.1.0.1:8080");
    let setup = world.setup(json!([service("web", &[VIP], &["10.1.0.1:8080"])]));
    let _mesh = setup.with(|config| config["dataplane"]["mark"] = json!(77)).start();
    for (mark, answer) in [(77, "REAL"), (DEFAULT_MARK, "B1")] {
        let mut client = world.tcp(Domain::IPV4);
        client.set_mark(mark).unwrap();
        connect(&client, VIP).unwrap();
        assert_eq!(backend::answer(&mut client).unwrap(), answer, "mark {mark:#x}");
    }
}

#[test]
fn udp_to_the_same_address_and_port_is_left_alone() {
    let world = world!();
    let _real = world_with_real_vip(&world);
    backend::udp_identity("REAL", world.netns(), VIP);
    backend::udp_identity("WRONG", world.netns(), "10.1.0.1:8080");
    let _b1 = world.backend("B1", "10.1.0.1:8080");
    let _mesh = world.daemon(json!([service("web", &[VIP], &["10.1.0.1:8080"])]));
    let mut buffer = [0; 64];
    let connected = world.udp(Domain::IPV4);
    connect(&connected, VIP).unwrap();
    assert_eq!(peer(&connected), addr(VIP));
    connected.send(b"?").unwrap();
    let n = (&connected).read(&mut buffer).unwrap();
    assert_eq!(&buffer[..n], b"I am REAL\n");
    let loose = world.udp(Domain::IPV4);
    loose.send_to(b"?", &addr(VIP).into()).unwrap();
    let n = (&loose).read(&mut buffer).unwrap();
    assert_eq!(&buffer[..n], b"I am REAL\n");
}

#[test]
fn a_nonblocking_connect_arrives() {
    let world = world!();
    let _b1 = world.backend("B1", "10.1.0.1:8080");
    let _mesh = world.daemon(json!([service("web", &[VIP, VIP6], &["10.1.0.1:8080"])]));
    for vip in [VIP, VIP6] {
        let mut client = world.tcp(Domain::for_address(addr(vip)));
        client.set_nonblocking(true).unwrap();
        assert_eq!(errno(connect(&client, vip)), libc::EINPROGRESS);
        let _ = holds("connected", || client.peer_addr().map_err(|e| e.kind()), Result::is_ok);
        assert_eq!(client.take_error().unwrap().map(|e| e.kind()), None);
        assert_eq!(peer(&client), addr(vip));
        client.set_nonblocking(false).unwrap();
        assert_eq!(backend::answer(&mut client).unwrap(), "B1");
    }
}

#[test]
fn a_bound_source_address_is_kept() {
    let world = world!();
    let b4 = world.backend("B4", "10.1.0.1:8080");
    let b6 = world.backend("B6", "[fd01::1]:8080");
    let _mesh = world
        .daemon(json!([service("four", &[VIP], &["10.1.0.1:8080"]), service("six", &[VIP6], &["[fd01::1]:8080"]),]));
    for (source, vip, backend) in
        [("10.1.77.77:0", VIP, &b4), ("[fd01::9]:0", VIP6, &b6), ("10.1.77.78:5555", VIP, &b4)]
    {
        let source = addr(source);
        let mut client = world.tcp(Domain::for_address(source));
        client.bind(&source.into()).unwrap();
        connect(&client, vip).unwrap();
        let answer = backend::answer(&mut client).unwrap();
        assert!(answer.starts_with('B'), "{answer}");
        let seen = *backend.clients().last().unwrap();
        assert_eq!(seen.ip(), source.ip());
        assert!(source.port() == 0 || seen.port() == source.port(), "{seen}");
    }
}

#[test]
fn a_retry_after_a_refusal_works_on_the_same_socket() {
    let world = world!();
    let mut b1 = world.backend("B1", "10.1.0.1:8080");
    b1.close();
    let _mesh = world.daemon(json!([service("web", &[VIP], &["10.1.0.1:8080"])]));
    let mut client = world.tcp(Domain::IPV4);
    for _ in 0..3 {
        assert_eq!(errno(connect(&client, VIP)), libc::ECONNREFUSED);
    }
    b1.open();
    connect(&client, VIP).unwrap();
    assert_eq!(peer(&client), addr(VIP));
    assert_eq!(backend::answer(&mut client).unwrap(), "B1");
}

#[test]
fn a_direct_connect_on_a_socket_that_was_refused_shows_the_real_address() {
    let world = world!();
    let _direct = world.backend("DIRECT", "10.1.0.2:9090");
    let _direct6 = world.backend("DIRECT6", "[fd01::2]:9090");
    // Nobody listens at the endpoints.
    let _mesh = world.daemon(json!([
        service("four", &[VIP], &["10.1.0.1:8080"]),
        service("six", &[VIP6], &["[fd01::1]:8080"]),
        service("none", &["10.96.0.20:80", "[fd00::20]:80"], &[]),
    ]));
    for (vip, direct, name) in [
        (VIP, "10.1.0.2:9090", "DIRECT"),
        (VIP6, "[fd01::2]:9090", "DIRECT6"),
        (MAPPED_VIP, "[::ffff:10.1.0.2]:9090", "DIRECT"),
        ("10.96.0.20:80", "10.1.0.2:9090", "DIRECT"),
        ("[fd00::20]:80", "[fd01::2]:9090", "DIRECT6"),
    ] {
        let mut client = world.tcp(Domain::for_address(addr(vip)));
        assert_eq!(errno(connect(&client, vip)), libc::ECONNREFUSED, "{vip}");
        connect(&client, direct).unwrap();
        assert_eq!(peer(&client), addr(direct));
        assert_eq!(backend::answer(&mut client).unwrap(), name);
    }
}

#[test]
fn a_socket_that_is_disconnected_may_go_elsewhere() {
    let world = world!();
    let _b1 = world.backend("B1", "10.1.0.1:8080");
    let _direct = world.backend("DIRECT", "10.1.0.2:9090");
    let _mesh = world.daemon(json!([service("web", &[VIP], &["10.1.0.1:8080"])]));
    let mut client = world.dial(VIP).unwrap();
    assert_eq!(backend::answer(&mut client).unwrap(), "B1");
    // connect() to AF_UNSPEC dissolves the connection and keeps the socket.
    // SAFETY: an all-zero address storage is a valid one, of family AF_UNSPEC (0).
    let (_, nowhere) = unsafe {
        SockAddr::try_init(|_, length| {
            *length = 16;
            Ok(())
        })
    }
    .unwrap();
    client.connect(&nowhere).unwrap();
    connect(&client, "10.1.0.2:9090").unwrap();
    assert_eq!(peer(&client), addr("10.1.0.2:9090"));
    assert_eq!(backend::answer(&mut client).unwrap(), "DIRECT");
}

#[test]
fn only_the_client_sees_the_vip_and_the_endpoint_sees_the_client() {
    let world = world!();
    let b1 = world.backend("B1", "10.1.0.1:8080");
    let _mesh = world.daemon(json!([service("web", &[VIP], &["10.1.0.1:8080"])]));
    let client = world.dial(VIP).unwrap();
    holds("accepted", || b1.accepted(), |n| *n == 1);
    assert_eq!(b1.clients()[0], client.local_addr().unwrap().as_socket().unwrap());
}

#[test]
fn a_listener_inside_the_cgroup_sees_its_clients_as_they_are() {
    let world = world!();
    let _b1 = world.backend("B1", "10.1.0.1:8080");
    let _mesh = world.daemon(json!([service("web", &[VIP], &["10.1.0.1:8080"])]));
    let listener = world.tcp(Domain::IPV4);
    listener.bind(&addr("10.1.0.5:7000").into()).unwrap();
    listener.listen(4).unwrap();
    let client = world.dial("10.1.0.5:7000").unwrap();
    let (accepted, from) = listener.accept().unwrap();
    assert_eq!(from.as_socket(), client.local_addr().unwrap().as_socket());
    assert_eq!(peer(&accepted), from.as_socket().unwrap());
    assert_eq!(peer(&client), addr("10.1.0.5:7000"));
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
fn a_socket_opened_before_the_daemon_started_is_translated() {
    let world = world!();
    let _b1 = world.backend("B1", "10.1.0.1:8080");
    let mut early = world.tcp(Domain::IPV4);
    let _mesh = world.daemon(json!([service("web", &[VIP], &["10.1.0.1:8080"])]));
    connect(&early, VIP).unwrap();
    assert_eq!(peer(&early), addr(VIP));
    assert_eq!(backend::answer(&mut early).unwrap(), "B1");
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
