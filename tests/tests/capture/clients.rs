//! Which connects go to a listener, and what is known of them there.

use super::stage::*;
use mesh_common::{reason::Reason, service::flags, settings::Settings};
use mesh_tests::{holds, world, world::addr};
use mesh_userspace::kernel::{self, Event, Family};
use socket2::{Domain, Socket};
use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    os::fd::AsFd,
    time::Duration,
};

#[test]
fn a_client_is_sent_to_the_listener_of_its_family_and_sees_the_vip() {
    let world = world!();
    let stage = Stage::new(&world);
    let (v4, v6) = (stage.listen(&stage.netns, Family::V4), stage.listen(&stage.netns, Family::V6));
    for (vip, dialled, listener) in [(VIP, VIP, &v4), (VIP, MAPPED, &v4), (VIP6, VIP6, &v6)] {
        let mut client = world.dial(dialled).unwrap();
        assert_eq!(peer(&client), addr(dialled));
        let (mut accepted, from) = accept(listener);
        assert_eq!(from.port(), local(&client).port());
        assert_eq!(kernel::socket_netns(accepted.as_fd()).unwrap(), stage.netns.cookie());
        assert_eq!(stage.original(from), Some((addr(vip), WEB)));
        assert_eq!(stage.original(from), None, "once");
        accepted.write_all(b"hello").unwrap();
        let mut said = [0; 5];
        client.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"hello");
    }
    for slot in [V4, V6] {
        let counts = stage.kernel.tables().endpoint_counts(slot.id());
        assert_eq!((counts.picked, counts.opened), (0, 0), "nothing is counted for endpoints");
    }
    assert_eq!(stage.kernel.tables().service_counts(WEB), [0; Reason::COUNT]);
}

#[test]
fn each_namespace_has_its_own_listener_and_one_without_tells_so() {
    let world = world!();
    let stage = Stage::new(&world);
    let here = stage.listen(&stage.netns, Family::V4);
    let pod = world.pod("pod");
    let _b1 = pod.backend("B1", ENDPOINT);
    let mut events = stage.kernel.take_events().unwrap();
    let there = namespace(&pod);
    let told = Event::NoListener { netns: there.cookie(), pid: std::process::id() };
    let began = std::time::Instant::now();
    let mut events = || {
        assert_eq!(pod.ask_times(VIP, 20), ["B1"; 20]);
        std::iter::from_fn(|| events.take()).inspect(|event| assert_eq!(*event, told)).count()
    };
    let first = events();
    let most = began.elapsed().as_millis() / 100 + 1;
    assert!(first > 0 && first as u128 <= most, "{first} events, at most {most} in that time");
    std::thread::sleep(Duration::from_millis(110));
    assert!(events() > 0, "told again");
    assert_eq!(stage.count(Reason::NoListener), 40);
    let listener = stage.listen(&there, Family::V4);
    let client = pod.dial(VIP).unwrap();
    let (accepted, from) = accept(&listener);
    assert_eq!(kernel::socket_netns(accepted.as_fd()).unwrap(), there.cookie());
    assert_eq!(stage.original(from), None, "of another namespace");
    assert_eq!(stage.kernel.tables().take_original(there.cookie(), from), Some((addr(VIP), WEB)));
    drop((client, accepted));
    let client = world.dial(VIP).unwrap();
    assert_eq!(accept(&here).1.port(), local(&client).port());
}

#[test]
fn the_very_next_client_goes_to_an_endpoint_once_the_listener_is_closed() {
    let world = world!();
    let stage = Stage::new(&world);
    let _b1 = world.backend("B1", ENDPOINT);
    let listener = stage.listen(&stage.netns, Family::V4);
    let client = world.dial(VIP).unwrap();
    drop(accept(&listener));
    drop((listener, client));
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    assert_eq!(world.ask(MAPPED).unwrap(), "B1");
    assert_eq!((stage.count(Reason::NoListener), stage.count(Reason::DaemonDown)), (2, 0));
    let counts = stage.kernel.tables().endpoint_counts(V4.id());
    assert_eq!((counts.picked, counts.opened), (2, 2));
    // Taken out of the table by name.
    let listener = stage.listen(&stage.netns, Family::V4);
    stage.kernel.tables().listeners().remove(stage.netns.cookie(), Family::V4).unwrap();
    stage.kernel.tables().listeners().remove(stage.netns.cookie(), Family::V4).unwrap();
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    drop(listener);
}

#[test]
fn workers_that_give_no_sign_of_life_are_passed_by() {
    let world = world!();
    let stage = Stage::new(&world);
    let _b1 = world.backend("B1", ENDPOINT);
    let _listener = stage.listen(&stage.netns, Family::V4);
    for silent in [0, 1] {
        stage.kernel.tables().beat_workers(silent);
        stage
            .kernel
            .tables()
            .put_settings(&Settings { heartbeat_timeout: 1_000_000_000, ..stage.kernel.tables().settings() });
        assert_eq!(world.ask(VIP).unwrap(), "B1");
    }
    assert_eq!((stage.count(Reason::NoListener), stage.count(Reason::DaemonDown)), (0, 2));
    assert_eq!(stage.kernel.tables().service_counts(RAW), [0; Reason::COUNT]);
}

#[test]
fn where_the_service_wants_it_clients_are_refused_without_the_daemon() {
    let world = world!();
    let stage = Stage::new(&world);
    let _b1 = world.backend("B1", ENDPOINT);
    stage.set_flags(flags::PROXIED | flags::REFUSE_ALONE);
    let refused = |vip| world.dial(vip).unwrap_err().raw_os_error();
    assert_eq!(refused(VIP), Some(libc::ECONNREFUSED));
    assert_eq!(refused(VIP6), Some(libc::ECONNREFUSED));
    stage.kernel.tables().beat_workers(0);
    assert_eq!(refused(VIP), Some(libc::ECONNREFUSED));
    assert_eq!((stage.count(Reason::NoListenerRefused), stage.count(Reason::DaemonDownRefused)), (2, 1));
    assert_eq!((stage.count(Reason::NoListener), stage.count(Reason::DaemonDown)), (0, 0));
    // A change of the flags is all it takes.
    stage.set_flags(0);
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    assert_eq!(world.ask(TCP_VIP).unwrap(), "B1");
}

#[test]
fn nothing_changes_for_tcp_services_and_for_the_daemon_s_own_sockets() {
    let world = world!();
    let stage = Stage::new(&world);
    let _b1 = world.backend("B1", ENDPOINT);
    let _listener = stage.listen(&stage.netns, Family::V4);
    assert_eq!(world.ask(TCP_VIP).unwrap(), "B1");
    assert_eq!(stage.kernel.tables().endpoint_counts(5).opened, 1);
    let own = world.tcp(Domain::IPV4);
    own.set_mark(0x6d65).unwrap();
    own.connect(&addr(VIP).into()).unwrap_err();
    assert_eq!(stage.count(Reason::Own), 1);
    stage.kernel.tables().set_flag(mesh_common::settings::flags::OBSERVE, true);
    world.dial(VIP).unwrap_err();
    assert_eq!(stage.count(Reason::Observe), 1);
}

#[test]
fn what_was_dialled_is_forgotten_when_the_client_ends_and_the_daemon_cannot_take_it_any_more() {
    let world = world!();
    let stage = Stage::new(&world);
    let listener = stage.listen(&stage.netns, Family::V4);
    // Reset by the client.
    let client = world.dial(VIP).unwrap();
    let from = local(&client);
    client.set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(stage.original(from), None);
    let _ = listener.accept();
    // Reset by the listener's end.
    let client = world.dial(VIP).unwrap();
    let from = local(&client);
    drop(listener);
    let _ = holds(
        "reset",
        || (&client).read(&mut [0]).map_err(|e| e.kind()),
        |r| *r == Err(io::ErrorKind::ConnectionReset),
    );
    assert_eq!(stage.original(from), None);
}

#[test]
fn a_client_that_has_said_all_it_wanted_and_is_gone_is_still_known() {
    let world = world!();
    let stage = Stage::new(&world);
    let listener = stage.listen(&stage.netns, Family::V4);
    let mut client = world.dial(VIP).unwrap();
    client.write_all(b"bye").unwrap();
    let from = local(&client);
    drop(client);
    std::thread::sleep(Duration::from_millis(50));
    let (mut accepted, seen) = accept(&listener);
    let mut said = String::new();
    accepted.read_to_string(&mut said).unwrap();
    assert_eq!((said.as_str(), seen), ("bye", SocketAddr::new(Family::V4.loopback(), from.port())));
    assert_eq!(stage.original(seen), Some((addr(VIP), WEB)));
}

#[test]
fn a_socket_that_was_captured_once_can_go_elsewhere_and_come_back() {
    let world = world!();
    let stage = Stage::new(&world);
    let _b1 = world.backend("B1", ENDPOINT);
    let listener = stage.listen(&stage.netns, Family::V4);
    let client = world.dial(VIP).unwrap();
    let (accepted, from) = accept(&listener);
    assert_eq!(stage.original(from), Some((addr(VIP), WEB)));
    drop(accepted);
    let disconnect = |socket: &Socket| {
        // SAFETY: an all-zero address is AF_UNSPEC.
        let nowhere = unsafe { socket2::SockAddr::new(std::mem::zeroed(), 16) };
        socket.connect(&nowhere).unwrap();
    };
    disconnect(&client);
    client.connect(&addr(ENDPOINT).into()).unwrap();
    assert_eq!(peer(&client), addr(ENDPOINT));
    disconnect(&client);
    client.connect(&addr(TCP_VIP).into()).unwrap();
    assert_eq!(peer(&client), addr(TCP_VIP));
    disconnect(&client);
    client.connect(&addr(VIP).into()).unwrap();
    assert_eq!(peer(&client), addr(VIP));
    let (_accepted, from) = accept(&listener);
    assert_eq!(stage.original(from), Some((addr(VIP), WEB)));
    // Straight to the listener, past all that.
    let direct = world.dial(&format!("127.0.0.1:{PORT}")).unwrap();
    let (_accepted, from) = accept(&listener);
    assert_eq!(from, local(&direct));
    assert_eq!(stage.original(from), None);
}

#[test]
fn sockets_of_other_kinds_are_captured_too() {
    let world = world!();
    let stage = Stage::new(&world);
    let (v4, v6) = (stage.listen(&stage.netns, Family::V4), stage.listen(&stage.netns, Family::V6));
    let only = world.tcp(Domain::IPV6);
    only.set_only_v6(true).unwrap();
    only.connect(&addr(VIP6).into()).unwrap();
    assert_eq!((peer(&only), accept(&v6).1.port()), (addr(VIP6), local(&only).port()));
    // From an address of its own.
    let bound = world.tcp(Domain::IPV4);
    bound.bind(&addr("10.1.0.9:0").into()).unwrap();
    bound.connect(&addr(VIP).into()).unwrap();
    let (_accepted, from) = accept(&v4);
    assert_eq!((from, peer(&bound)), (local(&bound), addr(VIP)));
    assert_eq!(stage.original(from), Some((addr(VIP), WEB)));
    // One that is IPv4 for good since it dialled an IPv4 address.
    let twice = world.tcp(Domain::IPV6);
    twice.connect(&addr("[::ffff:10.1.0.7]:9").into()).unwrap_err();
    stage.kernel.tables().beat_workers(0);
    twice.connect(&addr(MAPPED).into()).unwrap_err();
    stage.kernel.tables().beat_workers(now());
    twice.connect(&addr(VIP6).into()).unwrap();
    assert_eq!(peer(&twice), addr(VIP6));
    let (_accepted, from) = accept(&v4);
    assert_eq!(stage.original(from), Some((addr(VIP6), WEB)));
    if let Ok(multipath) = world.mptcp(Domain::IPV4) {
        multipath.connect(&addr(VIP).into()).unwrap();
        assert_eq!(peer(&multipath), addr(VIP));
        let (_accepted, from) = accept(&v4);
        assert_eq!((from, stage.original(from)), (local(&multipath), Some((addr(VIP), WEB))));
    }
    // Where the daemon cannot be reached from.
    let device = world.tcp(Domain::IPV4);
    device.bind_device(Some(b"lo")).unwrap();
    let _b1 = world.backend("B1", ENDPOINT);
    // Who went there before was refused, which opened its circuit.
    stage.kernel.tables().close(V4, WEB);
    device.connect(&addr(VIP).into()).unwrap();
    assert_eq!(stage.kernel.tables().endpoint_counts(V4.id()).established, 1);
    assert_eq!(stage.count(Reason::NoListener), 1);
}

#[test]
fn a_client_without_a_local_port_is_local_trouble() {
    let world = world!();
    let stage = Stage::new(&world);
    let _listener = stage.listen(&stage.netns, Family::V4);
    let bound = |address: SocketAddr| {
        let socket = world.tcp(Domain::IPV4);
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket
    };
    let first = bound(addr("127.0.0.1:0"));
    let second = bound(local(&first));
    first.connect(&addr(VIP).into()).unwrap();
    assert_eq!(second.connect(&addr(VIP).into()).unwrap_err().raw_os_error(), Some(libc::EADDRNOTAVAIL));
    assert_eq!(stage.original(local(&first)), Some((addr(VIP), WEB)));
    drop(second);
    holds("released", || stage.count(Reason::LocalTrouble), |n| *n == 1);
    drop(first);
    assert_eq!(stage.count(Reason::LocalTrouble), 1);
}
