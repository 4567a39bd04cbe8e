//! Connects that do not simply succeed, what the same socket does next, and that each is counted as what it was.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Backend, Daemon, eventually, holds, json, service, skip, world, world::addr};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::{
    fs,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr},
    os::fd::AsRawFd,
    thread,
};

const VIP: &str = "10.96.0.10:80";
const VIP6: &str = "[fd00::10]:80";
const MAPPED_VIP: &str = "[::ffff:10.96.0.10]:80";
const E1: &str = "10.1.0.1:8080";
const E6: &str = "[fd01::1]:8080";

fn peer(socket: &Socket) -> SocketAddr {
    socket.peer_addr().unwrap().as_socket().unwrap()
}

fn connect(socket: &Socket, address: &str) -> io::Result<()> {
    socket.connect(&addr(address).into())
}

fn errno(result: io::Result<impl std::fmt::Debug>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

/// connect() to AF_UNSPEC: dissolves whatever there is and keeps the socket.
fn disconnect(socket: &Socket) {
    // SAFETY: an all-zero address storage is a valid one, of family AF_UNSPEC (0).
    let (_, nowhere) = unsafe {
        SockAddr::try_init(|_, length| {
            *length = 16;
            Ok(())
        })
    }
    .unwrap();
    socket.connect(&nowhere).unwrap();
}

/// Sends and gets back so many bytes.
fn echo(mut socket: &Socket, n: usize) {
    socket.write_all(&vec![b'x'; n]).unwrap();
    socket.read_exact(&mut vec![0; n]).unwrap();
}

/// Waits until an endpoint shows these: connections, open ones, failures, bytes sent and received.
fn counted(mesh: &Daemon, service: &str, endpoint: &str, wanted: [u64; 5]) {
    let names = [
        "connections_total",
        "active_connections",
        "connect_failures_total",
        "sent_bytes_total",
        "received_bytes_total",
    ];
    let seen = || {
        let row = mesh.endpoint(service, endpoint);
        names.map(|name| row[name].as_u64().unwrap())
    };
    holds(&format!("{service}, {endpoint}: {names:?} are {wanted:?}"), seen, |seen| *seen == wanted);
}

/// Waits until a service shows so many connects that met trouble on this node.
fn troubled(mesh: &Daemon, service: &str, wanted: u64) {
    let seen = || mesh.metrics().sum("mesh_connects_local_trouble_total", &[("service", service)]);
    holds(&format!("local trouble of {service} is {wanted}"), seen, |seen| *seen == Some(wanted as f64));
}

#[test]
fn a_v6_socket_that_went_to_a_v4_endpoint_in_vain_gets_v4_endpoints_from_then_on() {
    let world = world!();
    let _echoes = [world.echo("10.1.0.2:8080"), world.echo("[fd01::2]:8080")];
    // Nobody listens at the first service's endpoint.
    let mesh = world.daemon(json!([
        service("gone", &[VIP, "[fd00::11]:80"], &[E1]),
        service("web", &[VIP6], &["10.1.0.2:8080", "[fd01::2]:8080"]),
        service("six", &["[fd00::16]:80"], &["[fd01::2]:8080"]),
    ]));
    for first in [MAPPED_VIP, "[fd00::11]:80", MAPPED_VIP, "[fd00::11]:80"] {
        let client = world.tcp(Domain::IPV6);
        assert_eq!(errno(connect(&client, first)), libc::ECONNREFUSED);
        connect(&client, VIP6).unwrap();
        assert_eq!(peer(&client), addr(VIP6));
        echo(&client, 1000);
    }
    counted(&mesh, "gone", E1, [4, 0, 4, 0, 0]);
    counted(&mesh, "web", "10.1.0.2:8080", [4, 0, 0, 4000, 4000]);
    counted(&mesh, "web", "[fd01::2]:8080", [0; 5]);
    // Where there is no such endpoint, the connect is refused at once instead of timing out.
    let client = world.tcp(Domain::IPV6);
    assert_eq!(errno(connect(&client, MAPPED_VIP)), libc::ECONNREFUSED);
    assert_eq!(errno(connect(&client, "[fd00::16]:80")), libc::ECONNREFUSED);
    let refused = [("service", "six"), ("reason", "family_mismatch")];
    assert_eq!(mesh.metrics().count("mesh_tcp_connects_refused_total", &refused), 1.0);
}

#[test]
fn a_socket_that_was_refused_counts_again_where_it_gets_through() {
    let world = world!();
    let _echoes = [world.echo(E1), world.echo(E6)];
    // Every refusal is to be the endpoint's: an open circuit would answer in its place.
    let gone = |name: &str, vip: &str, endpoint: &str| {
        let mut gone = service(name, &[vip], &[endpoint]);
        gone["circuit_breaker"] = json!({ "failure_threshold": 0 });
        gone
    };
    let mesh = world.daemon(json!([
        gone("gone4", "10.96.0.20:80", "10.1.0.9:9"),
        gone("gone6", "[fd00::20]:80", "[fd01::9]:9"),
        service("four", &[VIP], &[E1]),
        service("six", &[VIP6], &[E6]),
    ]));
    for (domain, gone, vip) in [
        (Domain::IPV4, "10.96.0.20:80", VIP),
        (Domain::IPV6, "[::ffff:10.96.0.20]:80", MAPPED_VIP),
        (Domain::IPV6, "[fd00::20]:80", VIP6),
        (Domain::IPV6, "[fd00::20]:80", MAPPED_VIP),
    ] {
        for refusals in 1..=2 {
            let client = world.tcp(domain);
            for _ in 0..refusals {
                assert_eq!(errno(connect(&client, gone)), libc::ECONNREFUSED);
            }
            connect(&client, vip).unwrap();
            assert_eq!(peer(&client), addr(vip));
            echo(&client, 100);
        }
    }
    counted(&mesh, "gone4", "10.1.0.9:9", [6, 0, 6, 0, 0]);
    counted(&mesh, "gone6", "[fd01::9]:9", [6, 0, 6, 0, 0]);
    counted(&mesh, "four", E1, [6, 0, 0, 600, 600]);
    counted(&mesh, "six", E6, [2, 0, 0, 200, 200]);
}

#[test]
fn a_connect_without_a_route_is_local_trouble_and_forgotten() {
    let world = world!();
    let (four, six) = ("10.66.0.1:8080", "[fd66::1]:8080");
    let mesh = world.daemon(json!([service("four", &[VIP], &[four]), service("six", &[VIP6], &[six])]));
    let cases =
        [(Domain::IPV4, VIP, four), (Domain::IPV6, MAPPED_VIP, "[::ffff:10.66.0.1]:8080"), (Domain::IPV6, VIP6, six)];
    let clients = cases.map(|(domain, vip, _)| {
        let client = world.tcp(domain);
        for _ in 0..2 {
            assert_eq!(errno(connect(&client, vip)), libc::ENETUNREACH, "{vip}");
        }
        client
    });
    // The last attempt of each socket is only over once the socket does something else.
    troubled(&mesh, "four", 2);
    troubled(&mesh, "six", 1);
    world.netns().ip("route add local 10.66.0.0/16 dev lo");
    world.netns().ip("address add fd66::1/64 dev lo nodad");
    let _echoes = [world.echo(four), world.echo(six)];
    // The kernel makes the route of a new IPv6 address in its own time.
    eventually("a route", || world.dial(six));
    for (client, (_, _, direct)) in clients.iter().zip(cases) {
        connect(client, direct).unwrap_or_else(|e| panic!("{direct}: {e}"));
        assert_eq!(peer(client), addr(direct), "it is no connection to the VIP");
        echo(client, 1000);
    }
    drop(clients);
    troubled(&mesh, "four", 4);
    troubled(&mesh, "six", 2);
    counted(&mesh, "four", four, [0; 5]);
    counted(&mesh, "six", six, [0; 5]);
    // With a route, the same socket may go to the VIP again.
    world.netns().ip("route del local 10.66.0.0/16 dev lo");
    let client = world.tcp(Domain::IPV4);
    assert_eq!(errno(connect(&client, VIP)), libc::ENETUNREACH);
    world.netns().ip("route add local 10.66.0.0/16 dev lo");
    connect(&client, VIP).unwrap();
    assert_eq!(peer(&client), addr(VIP));
    echo(&client, 10);
    drop(client);
    counted(&mesh, "four", four, [1, 0, 0, 10, 10]);
    troubled(&mesh, "four", 5);
}

#[test]
fn a_connect_without_a_local_port_is_local_trouble() {
    let world = world!();
    let _echo = world.echo(E1);
    let mesh = world.daemon(json!([service("web", &[VIP, "10.96.0.10:81"], &[E1])]));
    let bound = || {
        let client = world.tcp(Domain::IPV4);
        client.set_reuse_address(true).unwrap();
        client.bind(&addr("10.1.0.77:5555").into()).unwrap();
        client
    };
    let (first, second) = (bound(), bound());
    connect(&first, VIP).unwrap();
    // Another port of the VIP, and still the same endpoint: the pair of addresses is taken.
    assert_eq!(errno(connect(&second, "10.96.0.10:81")), libc::EADDRNOTAVAIL);
    drop(second);
    troubled(&mesh, "web", 1);
    echo(&first, 50);
    drop(first);
    counted(&mesh, "web", E1, [1, 0, 0, 50, 50]);
}

#[test]
fn a_connect_that_is_cancelled_is_held_against_nobody() {
    let world = world!();
    world.netns().black_hole("10.2.0.0/16");
    let _echo = world.echo(E1);
    let hole = "10.2.0.1:80";
    let mesh = world.daemon(json!([service("hole", &["10.96.0.20:80"], &[hole]), service("web", &[VIP], &[E1])]));
    let client = world.tcp(Domain::IPV4);
    client.set_nonblocking(true).unwrap();
    for n in 1..=3 {
        assert_eq!(errno(connect(&client, "10.96.0.20:80")), libc::EINPROGRESS);
        counted(&mesh, "hole", hole, [n, 1, 0, 0, 0]);
        disconnect(&client);
        counted(&mesh, "hole", hole, [n, 0, 0, 0, 0]);
    }
    client.set_nonblocking(false).unwrap();
    connect(&client, VIP).unwrap();
    assert_eq!(peer(&client), addr(VIP));
    echo(&client, 5000);
    drop(client);
    counted(&mesh, "web", E1, [1, 0, 0, 5000, 5000]);
    counted(&mesh, "hole", hole, [3, 0, 0, 0, 0]);
    troubled(&mesh, "hole", 0);
    troubled(&mesh, "web", 0);
}

/// An echo server that speaks MPTCP.
fn mptcp_echo(world: &mesh_tests::World, address: &str) -> io::Result<Socket> {
    let listener = world.netns().enter(|| {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP))?;
        listener.bind(&addr(address).into())?;
        listener.listen(16)?;
        io::Result::Ok(listener)
    })?;
    let accepting = listener.try_clone()?;
    thread::spawn(move || {
        while let Ok((stream, _)) = accepting.accept() {
            thread::spawn(move || io::copy(&mut &stream, &mut &stream));
        }
    });
    Ok(listener)
}

#[test]
fn bytes_of_mptcp_connections_are_exact() {
    let world = world!();
    let e2 = "10.1.0.2:8080";
    let _plain = world.echo(E1);
    let listener = match mptcp_echo(&world, e2) {
        Ok(listener) => listener,
        Err(why) => skip!("no MPTCP: {why}"),
    };
    let mesh = world.daemon(json!([
        service("plain", &[VIP], &[E1]),
        service("multi", &["10.96.0.20:80"], &[e2]),
        service("gone", &["10.96.0.30:80"], &["10.1.0.9:9"]),
    ]));
    for (name, vip, endpoint) in [("plain", VIP, E1), ("multi", "10.96.0.20:80", e2)] {
        let client = world.mptcp(Domain::IPV4).unwrap();
        connect(&client, vip).unwrap();
        echo(&client, 3);
        counted(&mesh, name, endpoint, [1, 1, 0, 3, 3]);
        echo(&client, 100_000);
        counted(&mesh, name, endpoint, [1, 1, 0, 100_003, 100_003]);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!((&client).read(&mut [0; 9]).unwrap(), 0);
        drop(client);
        counted(&mesh, name, endpoint, [1, 0, 0, 100_003, 100_003]);
        troubled(&mesh, name, 0);
    }
    let client = world.mptcp(Domain::IPV4).unwrap();
    assert_eq!(errno(connect(&client, "10.96.0.30:80")), libc::ECONNREFUSED);
    counted(&mesh, "gone", "10.1.0.9:9", [1, 0, 1, 0, 0]);
    // The same socket, past the mesh to where the VIP would have led.
    let _late = world.echo("10.1.0.9:9");
    connect(&client, "10.1.0.9:9").unwrap();
    assert_eq!(peer(&client), addr("10.1.0.9:9"));
    echo(&client, 10);
    drop(client);
    counted(&mesh, "gone", "10.1.0.9:9", [1, 0, 1, 0, 0]);
    troubled(&mesh, "gone", 0);
    listener.shutdown(Shutdown::Both).unwrap();
}

#[test]
fn bytes_of_fast_open_connections_are_exact() {
    let world = world!();
    // TCP Fast Open for everybody, without cookies: data travels with the first SYN.
    world.netns().enter(|| fs::write("/proc/sys/net/ipv4/tcp_fastopen", "1543")).unwrap();
    let _echoes: Vec<Backend> = [E1, E6].map(|endpoint| world.echo(endpoint)).into();
    let mesh = world.daemon(json!([service("four", &[VIP], &[E1]), service("six", &[VIP6], &[E6])]));
    for (name, vip, endpoint) in [("four", VIP, E1), ("six", VIP6, E6)] {
        let client = world.tcp(Domain::for_address(addr(vip)));
        // The flag of sendto(2): connect and first data in one.
        assert_eq!(client.send_to_with_flags(&[b'x'; 700], &addr(vip).into(), libc::MSG_FASTOPEN).unwrap(), 700);
        (&client).read_exact(&mut [0; 700]).unwrap();
        assert_eq!(peer(&client), addr(vip));
        counted(&mesh, name, endpoint, [1, 1, 0, 700, 700]);
        echo(&client, 4000);
        drop(client);
        counted(&mesh, name, endpoint, [1, 0, 0, 4700, 4700]);
        // The option: connect returns at once, and the first write connects.
        let client = deferring(&world, vip);
        counted(&mesh, name, endpoint, [1, 0, 0, 4700, 4700]);
        echo(&client, 300);
        assert_eq!(peer(&client), addr(vip));
        counted(&mesh, name, endpoint, [2, 1, 0, 5000, 5000]);
        drop(client);
        counted(&mesh, name, endpoint, [2, 0, 0, 5000, 5000]);
        // Nothing is written: TCP never begins, and it is nobody's trouble.
        drop(deferring(&world, vip));
        counted(&mesh, name, endpoint, [2, 0, 0, 5000, 5000]);
        troubled(&mesh, name, 0);
    }
}

/// A socket that waits with its connect for the first data.
fn deferring(world: &mesh_tests::World, vip: &str) -> Socket {
    let client = world.tcp(Domain::for_address(addr(vip)));
    let on: libc::c_int = 1;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    let (level, name) = (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT);
    // SAFETY: the option takes an int, whose address and size are given.
    let set = unsafe { libc::setsockopt(client.as_raw_fd(), level, name, (&raw const on).cast(), length) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
    connect(&client, vip).unwrap();
    client
}
