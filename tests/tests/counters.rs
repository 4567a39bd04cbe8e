//! What the kernel counts for each endpoint: connections, failures.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Daemon, holds, json, service, world, world::addr};
use socket2::{Domain, Socket};
use std::{
    io::{Read, Write},
    thread,
    time::Duration,
};

const VIP: &str = "10.96.0.10:80";
const VIP6: &str = "[fd00::10]:80";
const E1: &str = "10.1.0.1:8080";

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
    let mut web = service("web", &[VIP], &["10.2.0.1:80"]);
    web["connect_timeout"] = json!("60s");
    let mesh = world.daemon(json!([web]));
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
                (&client).write_all(&vec![b'x'; 1000 + n]).unwrap();
                (&client).read_exact(&mut vec![0; 1000 + n]).unwrap();
            })
        })
        .collect();
    workers.into_iter().for_each(|w| w.join().unwrap());
    let bytes: u64 = (1000..1100).sum();
    counted(&mesh, E1, &[("active_connections", 0), ("sent_bytes_total", bytes), ("received_bytes_total", bytes)]);
}
