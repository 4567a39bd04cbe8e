//! The life of one translated socket: before, between and after its connects.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{backend, holds, json, service, world, world::addr};
use socket2::{Domain, SockAddr, Socket};
use std::{io, net::SocketAddr};

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
fn a_fast_open_connect_is_translated() {
    use std::{io::Write, os::fd::AsRawFd};
    let world = world!();
    let _echo = world.echo("10.1.0.1:8080");
    let _mesh = world.daemon(json!([service("web", &[VIP], &["10.1.0.1:8080"])]));
    let mut client = world.tcp(Domain::IPV4);
    let on: libc::c_int = 1;
    // SAFETY: the option takes an int, whose address and size are given.
    let set = unsafe {
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        libc::setsockopt(
            client.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_FASTOPEN_CONNECT,
            (&raw const on).cast(),
            size,
        )
    };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
    connect(&client, VIP).unwrap();
    client.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    io::Read::read_exact(&mut client, &mut back).unwrap();
    assert_eq!((&back, peer(&client)), (b"hello", addr(VIP)));
}

#[test]
fn an_mptcp_socket_sees_the_address_it_dialled() {
    let world = world!();
    let _b1 = world.backend("B1", "10.1.0.1:8080");
    let _mesh = world.daemon(json!([service("web", &[VIP, VIP6], &["10.1.0.1:8080"])]));
    for (domain, vip) in [(Domain::IPV4, VIP), (Domain::IPV6, VIP6), (Domain::IPV6, MAPPED_VIP)] {
        let mut client = match world.mptcp(domain) {
            Ok(client) => client,
            Err(why) => mesh_tests::skip!("no MPTCP: {why}"),
        };
        connect(&client, vip).unwrap();
        assert_eq!(peer(&client), addr(vip));
        assert_eq!(backend::answer(&mut client).unwrap(), "B1");
    }
}

#[test]
fn a_socket_bound_to_a_v6_address_gets_v6_endpoints() {
    let world = world!();
    let b4 = world.backend("B4", "10.1.0.1:8080");
    let b6 = world.backend("B6", "[fd01::1]:8080");
    let _mesh = world.daemon(json!([service("web", &[VIP6], &["10.1.0.1:8080", "[fd01::1]:8080"])]));
    for _ in 0..6 {
        let mut client = world.tcp(Domain::IPV6);
        client.bind(&addr("[fd01::9]:0").into()).unwrap();
        connect(&client, VIP6).unwrap();
        assert_eq!(backend::answer(&mut client).unwrap(), "B6", "a v4 endpoint cannot be reached from there");
    }
    assert_eq!((b4.accepted(), b6.accepted()), (0, 6));
    assert!(b6.clients().iter().all(|c| c.ip() == addr("[fd01::9]:0").ip()));
}

#[test]
fn two_threads_that_connect_one_socket_agree_on_its_peer() {
    let world = world!();
    let _echo = world.echo("10.1.0.1:8080");
    let _mesh = world.daemon(json!([service("web", &[VIP, "10.96.0.11:80"], &["10.1.0.1:8080"])]));
    for _ in 0..50 {
        let client = world.tcp(Domain::IPV4);
        let [first, second] = std::thread::scope(|scope| {
            let both = [VIP, "10.96.0.11:80"].map(|vip| {
                let client = &client;
                scope.spawn(move || connect(client, vip))
            });
            both.map(|t| t.join().unwrap())
        });
        // One of them is too late, unless it finds the other one waiting for the answer: then it waits for that too.
        assert!(first.is_ok() || second.is_ok(), "{first:?} {second:?}");
        assert!([addr(VIP), addr("10.96.0.11:80")].contains(&peer(&client)), "{}", peer(&client));
    }
}
