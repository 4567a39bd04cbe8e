//! What the hooks leave alone.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Backend, World, backend, json, service, world, world::addr};
use socket2::{Domain, Socket};
use std::{
    io::{self, Read},
    net::SocketAddr,
};

const VIP: &str = "10.96.0.10:80";
const VIP6: &str = "[fd00::10]:80";
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
fn world_with_real_vip(world: &World) -> [Backend; 2] {
    world.netns().ip("address add 10.96.0.10/32 dev lo");
    world.netns().ip("address add fd00::10/128 dev lo nodad");
    [world.backend("REAL", VIP), world.backend("REAL6", VIP6)]
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
    assert_eq!(real.each_ref().map(Backend::accepted), [0, 0]);
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
