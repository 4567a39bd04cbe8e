//! Connections that the daemon makes for clients, counted as its clients' own; and nothing is left of any.

use super::stage::*;
use mesh_common::{breaker::Word, reason::Reason};
use mesh_tests::{World, holds, world, world::addr};
use mesh_userspace::kernel::{self, Family, Upstream};
use socket2::{Domain, Socket};
use std::{
    io::{Read, Write},
    os::fd::AsFd,
};

fn upstream(stage: &Stage) -> Upstream<'static> {
    Upstream {
        slot: V4,
        service: WEB,
        endpoint: addr(ENDPOINT),
        original: addr(VIP),
        netns: stage.netns.cookie(),
        pid: 42,
        command: b"curl",
        cgroup: 7,
        now: now(),
    }
}

/// An upstream socket, in the cgroup as a daemon's at the root is.
fn track(stage: &Stage, world: &World) -> Socket {
    let socket = world.tcp(Domain::IPV4);
    socket.set_mark(0x6d65).unwrap();
    stage.kernel.tables().track(socket.as_fd(), &upstream(stage)).unwrap();
    socket
}

#[test]
fn a_connection_that_the_daemon_makes_is_counted_once_with_every_byte() {
    let world = world!();
    let stage = Stage::new(&world);
    let _echo = world.echo(ENDPOINT);
    let mut socket = track(&stage, &world);
    socket.connect(&addr(ENDPOINT).into()).unwrap();
    assert_eq!(peer(&socket), addr(VIP), "what it is for");
    socket.write_all(&[7; 5000]).unwrap();
    socket.read_exact(&mut [0; 5000]).unwrap();
    let counts = || stage.kernel.tables().endpoint_counts(V4.id());
    assert_eq!((counts().picked, counts().opened, counts().established, counts().active()), (0, 1, 1, 1));
    let mut seen = Vec::new();
    let namespaces = kernel::namespaces(world.cgroup().path());
    stage.kernel.live().unwrap().read(&namespaces, &mut |c| seen.push(c.live)).unwrap();
    assert_eq!(seen.len(), 1);
    let record = seen[0].record;
    assert_eq!((record.pid, record.cgroup, &record.command[..5]), (42, 7, b"curl\0".as_slice()));
    assert_eq!((seen[0].traffic.sent, seen[0].traffic.received, counts().sent), (5000, 5000, 5000));
    drop(socket);
    holds("closed", || counts().active(), |n| *n == 0);
    assert_eq!((counts().opened, counts().closed, counts().sent, counts().received), (1, 1, 5000, 5000));
    assert_eq!(stage.kernel.tables().endpoint_times(V4.id()).connect.buckets.iter().sum::<u64>(), 1);
    assert_eq!(stage.kernel.tables().service_counts(WEB), [0; Reason::COUNT], "not even as the daemon's own");
}

#[test]
fn failures_of_the_daemon_s_connections_are_counted_and_do_not_open_circuits() {
    let world = world!();
    let stage = Stage::new(&world);
    let counts = || stage.kernel.tables().endpoint_counts(V4.id());
    for n in 1..=5 {
        let socket = track(&stage, &world);
        let error = socket.connect(&addr(ENDPOINT).into()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNREFUSED));
        assert_eq!((counts().opened, counts().closed, counts().failures[0]), (n, n, n));
    }
    // It could not even begin: no route leads there. That is told of the service, and held against nobody.
    let socket = world.tcp(Domain::IPV4);
    let nowhere = Upstream { endpoint: addr("10.2.0.1:80"), ..upstream(&stage) };
    stage.kernel.tables().track(socket.as_fd(), &nowhere).unwrap();
    socket.connect(&nowhere.endpoint.into()).unwrap_err();
    drop(socket);
    holds("released", || stage.count(Reason::LocalTrouble), |n| *n == 1);
    assert_eq!(counts().opened, 5);
    assert_eq!(stage.kernel.tables().circuit_of(V4.id()), Word(0));
    assert_eq!(counts().transitions, [0; 3]);
    // Without the mark, one failure opens it.
    assert_eq!(world.dial(VIP).unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
    assert_ne!(stage.kernel.tables().circuit_of(V4.id()), Word(0));
}

#[test]
fn ten_thousand_connects_leave_nothing_behind() {
    let world = world!();
    let stage = Stage::new(&world);
    let listener = stage.listen(&stage.netns, Family::V4);
    let cookie = stage.netns.cookie();
    let mut ports = Vec::new();
    for n in 0..10_000 {
        let client = world.dial(VIP).unwrap();
        let (accepted, from) = accept(&listener);
        // A daemon that never asks leaves no more behind than one that does.
        if n % 2 == 0 {
            assert_eq!(stage.original(from), Some((addr(VIP), WEB)), "connect {n}");
        }
        // The daemon closes first: no local port has to wait at the client.
        drop(accepted);
        assert_eq!((&client).read(&mut [0]).unwrap(), 0);
        ports.push(from);
        drop(client);
    }
    let tables = stage.kernel.tables();
    holds("all are gone", || ports.iter().filter(|p| tables.take_original(cookie, **p).is_some()).count(), |n| *n == 0);
    assert_eq!(tables.service_counts(WEB), [0; Reason::COUNT]);
}
