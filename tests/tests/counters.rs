//! What the kernel counts for each endpoint, to the byte.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Backend, Daemon, World, eventually, holds, json, service, world, world::addr};
use socket2::{Domain, SockRef, Socket};
use std::{
    io::{Read, Write},
    mem::MaybeUninit,
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};

const VIP: &str = "10.96.0.10:80";
const VIP6: &str = "[fd00::10]:80";
const E1: &str = "10.1.0.1:8080";
const E6: &str = "[fd01::1]:8080";

fn field(mesh: &Daemon, endpoint: &str, name: &str) -> u64 {
    mesh.endpoint("web", endpoint)[name].as_u64().unwrap()
}

/// Waits for counters of an endpoint to have these values.
fn counted(mesh: &Daemon, endpoint: &str, expected: &[(&str, u64)]) {
    let wanted: Vec<u64> = expected.iter().map(|(_, n)| *n).collect();
    let names: Vec<&str> = expected.iter().map(|(name, _)| *name).collect();
    let seen = || names.iter().map(|name| field(mesh, endpoint, name)).collect::<Vec<_>>();
    holds(&format!("{names:?} of {endpoint} are {wanted:?}"), seen, |s| *s == wanted);
}

#[test]
fn active_connections_rise_and_fall() {
    let world = world!();
    let _echo = world.echo(E1);
    let mesh = world.daemon(json!([service("web", &[VIP], &[E1])]));
    counted(&mesh, E1, &[("active_connections", 0), ("connections_total", 0)]);
    let mut clients: Vec<Socket> = (0..5).map(|_| world.dial(VIP).unwrap()).collect();
    counted(&mesh, E1, &[("active_connections", 5), ("connections_total", 5)]);
    clients.pop();
    clients.pop();
    counted(&mesh, E1, &[("active_connections", 3), ("connections_total", 5)]);
    clients.clear();
    counted(&mesh, E1, &[("active_connections", 0), ("connections_total", 5)]);
    let metrics = mesh.metrics();
    let labels = [("service", "web"), ("endpoint", E1)];
    assert_eq!(metrics.sum("mesh_tcp_connections_opened_total", &labels), Some(5.0));
    assert_eq!(metrics.sum("mesh_tcp_connections_closed_total", &labels), Some(5.0));
    assert_eq!(metrics.sum("mesh_tcp_connections_active", &labels), Some(0.0));
}

#[test]
fn connections_of_a_killed_process_are_closed_ones() {
    let world = world!();
    let b1 = world.backend("B1", E1);
    let mesh = world.daemon(json!([service("web", &[VIP], &[E1])]));
    let hammer = world.hammer(&[VIP]);
    holds("hammered", || b1.accepted(), |n| *n > 20);
    drop(hammer);
    counted(&mesh, E1, &[("active_connections", 0)]);
    assert_eq!(field(&mesh, E1, "connect_failures_total"), 0);
    let (total, accepted) = (field(&mesh, E1, "connections_total"), b1.accepted() as u64);
    assert!(total >= accepted && total <= accepted + 1, "{total} opened, {accepted} accepted");
}

#[test]
fn refused_connects_are_failures_of_the_endpoint() {
    let world = world!();
    let mut b1 = world.backend("B1", E1);
    b1.close();
    let mesh = world.daemon(json!([service("web", &[VIP, VIP6], &[E1])]));
    for vip in [VIP, VIP, VIP6, "[::ffff:10.96.0.10]:80"] {
        assert_eq!(world.dial(vip).unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
    }
    counted(&mesh, E1, &[("connect_failures_total", 4), ("active_connections", 0)]);
    let count = |reason: &str| {
        let labels = [("service", "web"), ("endpoint", E1), ("reason", reason)];
        mesh.metrics().count("mesh_tcp_connect_failures_total", &labels)
    };
    assert_eq!(count("refused"), 4.0);
    for other in ["timeout", "unreachable", "reset", "other"] {
        assert_eq!(count(other), 0.0, "{other}");
    }
    let refused = mesh.metrics().count("mesh_tcp_connects_refused_total", &[("service", "web")]);
    assert_eq!(refused, 0.0, "the endpoint refused, not the mesh");
    b1.open();
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    counted(&mesh, E1, &[("connect_failures_total", 4), ("active_connections", 0)]);
}

#[test]
fn failures_on_one_socket_are_each_counted_once() {
    let world = world!();
    let mut b1 = world.backend("B1", E1);
    b1.close();
    let mesh = world.daemon(json!([service("web", &[VIP], &[E1])]));
    let client = world.tcp(Domain::IPV4);
    for _ in 0..3 {
        assert!(client.connect(&addr(VIP).into()).is_err());
    }
    counted(&mesh, E1, &[("connect_failures_total", 3), ("active_connections", 0)]);
    b1.open();
    client.connect(&addr(VIP).into()).unwrap();
    drop(client);
    counted(&mesh, E1, &[("connect_failures_total", 3), ("active_connections", 0)]);
}

#[test]
fn a_connect_given_up_by_the_application_is_no_failure() {
    let world = world!();
    world.netns().black_hole("10.2.0.0/16");
    let mesh = world.daemon(json!([service("web", &[VIP], &["10.2.0.1:80"])]));
    let client = world.tcp(Domain::IPV4);
    assert!(client.connect_timeout(&addr(VIP).into(), Duration::from_millis(200)).is_err());
    counted(&mesh, "10.2.0.1:80", &[("active_connections", 1)]);
    drop(client);
    counted(&mesh, "10.2.0.1:80", &[("active_connections", 0), ("connect_failures_total", 0)]);
}

#[test]
fn a_connect_without_a_route_is_not_held_against_the_endpoint() {
    let world = world!();
    let mesh = world.daemon(json!([service("web", &[VIP], &["10.66.0.1:80"])]));
    assert_eq!(world.dial(VIP).unwrap_err().raw_os_error(), Some(libc::ENETUNREACH));
    assert_eq!(world.dial(VIP).unwrap_err().raw_os_error(), Some(libc::ENETUNREACH));
    counted(&mesh, "10.66.0.1:80", &[("connect_failures_total", 0), ("active_connections", 0)]);
}

#[test]
fn direct_connections_to_an_endpoint_are_not_counted() {
    let world = world!();
    let _b1 = world.backend("B1", E1);
    let mesh = world.daemon(json!([service("web", &[VIP], &[E1])]));
    for _ in 0..5 {
        world.ask(E1).unwrap();
        world.ask_outside(E1).unwrap();
    }
    world.ask(VIP).unwrap();
    counted(&mesh, E1, &[("connections_total", 1), ("active_connections", 0)]);
}

/// One way for a connection to end. `up` and `down` are what client and server send.
struct Ending {
    name: &'static str,
    server: fn(TcpStream, usize, usize),
    client: fn(Socket, usize, usize),
}

fn send(mut stream: impl Write, n: usize) {
    stream.write_all(&vec![b'x'; n]).unwrap();
}

fn receive(mut stream: impl Read, n: usize) {
    stream.read_exact(&mut vec![0; n]).unwrap();
}

fn to_the_end(mut stream: impl Read) {
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut Vec::new());
}

const ENDINGS: [Ending; 8] = [
    Ending {
        name: "the client closes first",
        server: |s, up, down| {
            receive(&s, up);
            send(&s, down);
            to_the_end(&s);
        },
        client: |c, up, down| {
            send(&c, up);
            receive(&c, down);
        },
    },
    Ending {
        name: "the server closes first",
        server: |s, up, down| {
            receive(&s, up);
            send(&s, down);
        },
        client: |c, up, _| {
            send(&c, up);
            to_the_end(&c);
        },
    },
    Ending {
        name: "the client finishes sending, then receives",
        server: |s, _, down| {
            to_the_end(&s);
            send(&s, down);
        },
        client: |c, up, _| {
            send(&c, up);
            c.shutdown(Shutdown::Write).unwrap();
            to_the_end(&c);
        },
    },
    Ending {
        name: "the server finishes sending, then receives",
        server: |s, _, down| {
            send(&s, down);
            s.shutdown(Shutdown::Write).unwrap();
            to_the_end(&s);
        },
        client: |c, up, _| {
            to_the_end(&c);
            send(&c, up);
        },
    },
    Ending {
        name: "both close at once",
        server: |s, up, down| {
            receive(&s, up);
            send(&s, down);
            s.shutdown(Shutdown::Write).unwrap();
        },
        client: |c, up, down| {
            send(&c, up);
            receive(&c, down);
            c.shutdown(Shutdown::Write).unwrap();
            to_the_end(&c);
        },
    },
    Ending {
        name: "the client resets",
        server: |s, up, down| {
            receive(&s, up);
            send(&s, down);
            to_the_end(&s);
        },
        client: |c, up, down| {
            send(&c, up);
            receive(&c, down);
            c.set_linger(Some(Duration::ZERO)).unwrap();
        },
    },
    Ending {
        name: "the server resets",
        server: |s, up, down| {
            receive(&s, up);
            send(&s, down);
            // The client's end of sending says that it has everything: bytes in flight at a reset count for nobody.
            to_the_end(&s);
            SockRef::from(&s).set_linger(Some(Duration::ZERO)).unwrap();
        },
        client: |c, up, down| {
            send(&c, up);
            receive(&c, down);
            c.shutdown(Shutdown::Write).unwrap();
            to_the_end(&c);
        },
    },
    Ending {
        name: "the client closes with data unread",
        server: |s, up, down| {
            receive(&s, up);
            send(&s, down);
            to_the_end(&s);
        },
        client: |c, up, down| {
            send(&c, up);
            let mut buffer = vec![MaybeUninit::uninit(); down];
            eventually("everything has arrived", || match c.peek(&mut buffer) {
                Ok(n) if n == down => Ok(()),
                other => Err(format!("{other:?} of {down}")),
            });
        },
    },
];

/// Small enough that the last ending's unread data fits the socket's buffer.
const SIZES: [(usize, usize); 5] = [(1, 1), (1000, 1), (1, 1000), (123_457, 50_001), (30_000, 30_000)];

fn bytes_are_exact(vip: &str, endpoint: &str) {
    let world: World = world!();
    let mesh = world.daemon(json!([service("web", &[vip], &[endpoint])]));
    let (mut sent, mut received, mut connections) = (0, 0, 0);
    for ending in ENDINGS {
        for (up, down) in SIZES {
            let server = ending.server;
            let _backend = Backend::new(world.netns(), endpoint, move |s| {
                thread::spawn(move || server(s, up, down));
            });
            (ending.client)(world.dial(vip).unwrap(), up, down);
            sent += up as u64;
            received += down as u64;
            connections += 1;
            let wanted = [sent, received, connections, 0];
            let names = ["sent_bytes_total", "received_bytes_total", "connections_total", "active_connections"];
            eventually(&format!("{}, {up} bytes up, {down} down: {names:?} are {wanted:?}", ending.name), || {
                let seen = names.map(|name| field(&mesh, endpoint, name));
                if seen == wanted { Ok(()) } else { Err(format!("{seen:?}")) }
            });
        }
    }
    let metrics = mesh.metrics();
    let labels = [("service", "web"), ("endpoint", endpoint)];
    assert_eq!(metrics.sum("mesh_tcp_sent_bytes_total", &labels), Some(sent as f64));
    assert_eq!(metrics.sum("mesh_tcp_received_bytes_total", &labels), Some(received as f64));
}

#[test]
fn bytes_of_v4_connections_are_exact_however_they_end() {
    bytes_are_exact(VIP, E1);
}

#[test]
fn bytes_of_v6_connections_are_exact_however_they_end() {
    bytes_are_exact(VIP6, E6);
}

#[test]
fn bytes_from_a_v6_vip_to_a_v4_endpoint_are_exact_however_they_end() {
    bytes_are_exact(VIP6, E1);
}

#[test]
fn a_hundred_connections_at_once_are_counted_to_the_byte() {
    let world = world!();
    let _echo = world.echo(E1);
    let mesh = world.daemon(json!([service("web", &[VIP], &[E1])]));
    let clients: Vec<Socket> = (0..100).map(|_| world.dial(VIP).unwrap()).collect();
    counted(&mesh, E1, &[("active_connections", 100)]);
    let workers: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(n, client)| {
            thread::spawn(move || {
                send(&client, 1000 + n);
                receive(&client, 1000 + n);
            })
        })
        .collect();
    workers.into_iter().for_each(|w| w.join().unwrap());
    let bytes: u64 = (1000..1100).sum();
    counted(&mesh, E1, &[("active_connections", 0), ("sent_bytes_total", bytes), ("received_bytes_total", bytes)]);
}
