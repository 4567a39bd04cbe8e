//! Connects to HTTP services go to a listener in the client's own network namespace, as long as there is one; and what is
//! connected for them is counted at the endpoint. The border to the kernel, without a daemon.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use mesh_common::{
    addr::Address,
    breaker::Word,
    endpoint::{self, EndpointRow, Slot},
    reason::Reason,
    service::{Policy, ServiceRow, Shown, SlotRange, VipKey, VipRow, flags},
    settings::Settings,
};
use mesh_tests::{World, holds, world, world::addr};
use mesh_userspace::kernel::{
    self, Capacity, Captured, Change, Event, Family, Kernel, Netns, OBJECT, Options, Places, Upstream,
};
use socket2::{Domain, Socket};
use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

const VIP: &str = "240.0.0.1:80";
const MAPPED: &str = "[::ffff:240.0.0.1]:80";
const VIP6: &str = "[fd00::10]:80";
const TCP_VIP: &str = "240.0.0.2:80";
const ENDPOINT: &str = "10.1.0.1:8080";
const ENDPOINT6: &str = "[fd01::1]:8080";
/// The service of `VIP` and `VIP6`, and that of `TCP_VIP`; the endpoints of both families.
const WEB: u32 = 0;
const RAW: u32 = 1;
const V4: Slot = Slot(9 << 32 | 3);
const V6: Slot = Slot(9 << 32 | 4);
const PORT: u16 = 15_001;

fn now() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    u64::try_from(Duration::from(now).as_nanos()).unwrap()
}

/// Programs at work on a world's cgroup, with an HTTP service and a TCP service.
struct Stage {
    kernel: Kernel,
    netns: Netns,
}

fn key(address: &str) -> VipKey {
    let address = addr(address);
    VipKey::tcp(Address::from(address.ip()), address.port().to_be())
}

impl Stage {
    fn new(world: &World) -> Self {
        let kernel = kernel::load(&Options {
            object: OBJECT,
            pins: None,
            capacity: Capacity { services: 4, vips: 4, endpoints: 8, slots: 32 },
            log_level: 0,
            settings: Settings {
                heartbeat: now(),
                heartbeat_timeout: 3_600_000_000_000,
                mark: 0x6d65,
                ..Settings::default()
            },
        })
        .unwrap();
        assert_eq!(kernel.notes, [""; 0]);
        assert_eq!(kernel.attach(world.cgroup().path()).unwrap(), [""; 0]);
        let netns = namespace(world);
        let stage = Self { kernel, netns };
        let tables = stage.kernel.tables();
        let marks = endpoint::marks::IN | endpoint::marks::HEALTHY;
        for (slot, address) in [(V4, ENDPOINT), (V6, ENDPOINT6)] {
            let VipKey { address, port, .. } = key(address);
            let row = EndpointRow { address, port, used: 1, tag: slot.tag(), service: WEB, weight: 1, marks };
            tables.put_endpoint(slot.id(), &row);
        }
        let row = EndpointRow { service: RAW, tag: 9, used: 1, weight: 1, marks, ..Default::default() };
        let VipKey { address, port, .. } = key(ENDPOINT);
        tables.put_endpoint(5, &EndpointRow { address, port, ..row });
        tables.put_slots(0, &[V4, V6, Slot::new(5, 9)]);
        let shown = |base| Shown { range: SlotRange { base, count: 1 }, policy: Policy::RoundRobin }.word();
        let limits = mesh_common::breaker::Limits {
            failure_threshold: 1,
            half_open: 1,
            reset_ms: 30_000,
            max_reset_ms: 30_000,
            lease_ms: 1000,
            probe_interval_ms: 1000,
            max_open: 1,
            endpoints: 2,
        };
        let row = ServiceRow { views: [[shown(0), shown(1), shown(1)]; 3], name: 7, limits, ..ServiceRow::default() };
        tables.put_service(WEB, &ServiceRow { flags: flags::PROXIED, ..row });
        tables.put_service(RAW, &ServiceRow { views: [[shown(2), 0, shown(2)]; 3], name: 8, ..row });
        for (vip, service) in [(VIP, WEB), (VIP6, WEB), (TCP_VIP, RAW)] {
            tables.put_vip(&key(vip), VipRow::new(&key(vip), service)).unwrap();
        }
        tables.beat_workers(now());
        stage
    }

    fn set_flags(&self, flags: u64) {
        let existing = self.kernel.tables().existing();
        let (_, row) = existing.services.into_iter().find(|(id, _)| *id == WEB).unwrap();
        self.kernel.tables().set_terms(WEB, &ServiceRow { flags, ..row });
    }

    /// A listener that clients of this family are sent to.
    fn listen(&self, netns: &Netns, family: Family) -> Socket {
        let listener = netns.listen(SocketAddr::new(family.loopback(), PORT), 1024, true).unwrap();
        self.kernel.tables().listeners().insert(netns.cookie(), family, listener.as_fd()).unwrap();
        let listener = Socket::from(listener);
        listener.set_nonblocking(false).unwrap();
        listener.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        listener
    }

    fn count(&self, reason: Reason) -> u64 {
        self.kernel.tables().service_counts(WEB)[reason as usize]
    }

    fn original(&self, client: SocketAddr) -> Option<(SocketAddr, u32)> {
        self.kernel.tables().take_original(self.netns.cookie(), client)
    }
}

/// The world's namespace, as a daemon finds it.
fn namespace(world: &World) -> Netns {
    let all = kernel::namespaces(world.cgroup().path());
    Netns::of(all.iter().find(|n| n.inode == world.netns().inode()).unwrap(), 0x6d65).unwrap()
}

fn peer(socket: &Socket) -> SocketAddr {
    socket.peer_addr().unwrap().as_socket().unwrap()
}

fn local(socket: &Socket) -> SocketAddr {
    socket.local_addr().unwrap().as_socket().unwrap()
}

fn accept(listener: &Socket) -> (Socket, SocketAddr) {
    let (socket, from) = listener.accept().unwrap();
    (socket, from.as_socket().unwrap())
}

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
    let mut stage = Stage::new(&world);
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

#[test]
fn sockets_are_made_in_the_namespace_and_the_thread_is_back_afterwards() {
    let world = world!();
    let there = namespace(&world);
    let own = Netns::own(0x6d65).unwrap();
    assert_ne!(there.cookie(), own.cookie());
    assert_eq!(there.inode(), world.netns().inode());
    let _b1 = world.backend("B1", ENDPOINT);
    for _ in 0..3 {
        for (netns, family) in [(&there, Family::V4), (&there, Family::V6), (&own, Family::V4)] {
            let socket: OwnedFd = netns.socket(family).unwrap();
            assert_eq!(kernel::socket_netns(socket.as_fd()).unwrap(), netns.cookie());
            let socket = Socket::from(socket);
            assert_eq!((socket.mark().unwrap(), socket.nonblocking().unwrap()), (0x6d65, true));
        }
    }
    let here = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    assert_eq!(here, std::fs::read_link("/proc/self/ns/net").unwrap());
    let address = SocketAddr::new(Family::V6.loopback(), PORT);
    let first = there.listen(address, 1, true).unwrap();
    let second = there.listen(address, 1, true).unwrap();
    assert_eq!(there.listen(address, 1, false).unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
    drop((first, second));
    world.netns().ip("link set lo down");
    let down = there.listen(address, 1, true).unwrap_err();
    assert_eq!(down.raw_os_error(), Some(libc::EADDRNOTAVAIL), "{down}");
}

/// Looks where clients are, and gathers what came of it.
fn found(stage: &Stage, world: &World, places: &mut Places) -> (Vec<(usize, Captured)>, Vec<u64>, Vec<String>) {
    let (mut opened, mut closed, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    places.found(stage.kernel.tables().listeners(), &kernel::namespaces_in(world.cgroup().path()), &mut |change| {
        match change {
            Change::Opened(worker, listener) => opened.push((worker, listener)),
            Change::Closed(netns) => closed.push(netns),
            Change::Refused { address, error, .. } => refused.push(format!("{address}: {:?}", error.kind())),
        }
    });
    (opened, closed, refused)
}

#[test]
fn every_worker_listens_wherever_there_are_clients_and_nowhere_else() {
    let world = world!();
    let stage = Stage::new(&world);
    let _b1 = world.backend("B1", ENDPOINT);
    let mut places = Places::new(PORT, 2, 0x6d65);
    let pod = world.pod("pod");
    let (opened, closed, refused) = found(&stage, &world, &mut places);
    assert_eq!((opened.len(), closed.len(), refused.len()), (8, 0, 0), "2 namespaces, 2 families, 2 workers");
    assert_eq!(places.all().count(), 8);
    // Either worker gets some, and nobody else.
    let mine = |worker: usize, family: Family| {
        let is_wanted =
            |c: &&(usize, Captured)| (c.0, c.1.family, c.1.netns.inode()) == (worker, family, world.netns().inode());
        Socket::from(opened.iter().find(is_wanted).unwrap().1.socket.try_clone().unwrap())
    };
    let workers = [mine(0, Family::V4), mine(1, Family::V4)];
    let clients: Vec<Socket> = (0..64).map(|_| world.dial(VIP).unwrap()).collect();
    let accepted = workers.map(|worker| std::iter::from_fn(|| worker.accept().ok()).count());
    assert!(accepted.iter().all(|n| *n > 0) && accepted.iter().sum::<usize>() == 64, "{accepted:?}");
    drop((clients, opened));
    // What is taken out of the table is put back when a client says so.
    let here = stage.netns.cookie();
    stage.kernel.tables().listeners().remove(here, Family::V4).unwrap();
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    places.missed(stage.kernel.tables().listeners(), here, 1, &mut |change| panic!("{change:?}"));
    drop(world.dial(VIP).unwrap());
    assert_eq!(stage.count(Reason::NoListener), 1);
    // Everybody leaves the pod.
    let cookie = namespace(&pod).cookie();
    drop(pod);
    let (opened, closed, refused) = found(&stage, &world, &mut places);
    assert_eq!((opened.len(), closed, refused.len()), (0, vec![cookie], 0));
    places.hide(stage.kernel.tables().listeners());
    assert_eq!(world.ask(VIP).unwrap(), "B1");
}

#[test]
fn a_namespace_whose_port_is_taken_goes_direct_until_it_is_free() {
    let world = world!();
    let stage = Stage::new(&world);
    let _b1 = world.backend("B1", ENDPOINT);
    // It shares its port, and all the same is not joined.
    let taken = stage.netns.listen(SocketAddr::new(Family::V4.loopback(), PORT), 1, true).unwrap();
    let mut places = Places::new(PORT, 2, 0);
    let (opened, _, refused) = found(&stage, &world, &mut places);
    assert_eq!((opened.len(), refused), (2, vec![format!("127.0.0.1:{PORT}: AddrInUse")]));
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    assert_eq!(found(&stage, &world, &mut places).2, [""; 0], "said once");
    drop(taken);
    assert_eq!(found(&stage, &world, &mut places).0.len(), 2);
    drop(world.dial(VIP).unwrap());
    assert_eq!(stage.count(Reason::NoListener), 1);
}

#[test]
fn a_client_that_went_past_brings_listeners_to_its_namespace() {
    let world = world!();
    let stage = Stage::new(&world);
    let mut places = Places::new(PORT, 1, 0);
    let _echo = world.echo(ENDPOINT);
    let client = world.client(ENDPOINT);
    let pid = client.pid();
    let mut opened = 0;
    let listeners = stage.kernel.tables().listeners();
    places.missed(listeners, stage.netns.cookie() + 1, pid, &mut |change| panic!("{change:?}"));
    places.missed(listeners, stage.netns.cookie(), pid, &mut |_| opened += 1);
    assert_eq!(opened, 2);
    drop(world.dial(VIP).unwrap());
    assert_eq!(stage.kernel.tables().service_counts(WEB), [0; Reason::COUNT]);
    drop(client);
}

#[test]
fn listeners_that_were_inherited_keep_those_who_wait() {
    let world = world!();
    let stage = Stage::new(&world);
    let mut first = Places::new(PORT, 2, 0);
    drop(found(&stage, &world, &mut first).0);
    let clients: Vec<Socket> = (0..32).map(|_| world.dial(VIP).unwrap()).collect();
    let handed: Vec<_> = first.all().map(|(place, fd)| (place, fd.try_clone_to_owned().unwrap())).collect();
    drop(first);
    // Another one, with more workers and another port.
    let mut second = Places::new(PORT + 1, 3, 0);
    second.inherit(handed);
    let (opened, _, refused) = found(&stage, &world, &mut second);
    assert_eq!((opened.len(), refused.len()), (6, 0));
    let sockets = opened.into_iter().filter(|(_, c)| c.family == Family::V4).map(|(_, c)| Socket::from(c.socket));
    let accepted: usize = sockets.map(|s| std::iter::from_fn(|| s.accept().ok()).count()).sum();
    assert_eq!(accepted, 32);
    drop(clients);
    drop(world.dial(VIP).unwrap());
    assert_eq!(stage.kernel.tables().service_counts(WEB), [0; Reason::COUNT]);
}

#[test]
fn while_listeners_come_and_go_no_client_is_lost_that_does_not_wait_at_one() {
    let world = world!();
    let stage = Stage::new(&world);
    let _b1 = world.backend("B1", ENDPOINT);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let served = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (stage, stop, served) = (&stage, &stop, &served);
        scope.spawn(move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let listener = stage.listen(&stage.netns, Family::V4);
                listener.set_nonblocking(true).unwrap();
                let drain = || {
                    while let Ok((mut accepted, from)) = listener.accept() {
                        let from = from.as_socket().unwrap();
                        assert_eq!(stage.original(from), Some((addr(VIP), WEB)));
                        accepted.set_nonblocking(false).unwrap();
                        accepted.write_all(b"I am PROXY\n").unwrap();
                        served.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                };
                for _ in 0..20 {
                    drain();
                    std::thread::sleep(Duration::from_micros(200));
                }
                // As a daemon that ends: nobody new is sent, and whoever was is waited for and served.
                stage.kernel.tables().listeners().remove(stage.netns.cookie(), Family::V4).unwrap();
                std::thread::sleep(Duration::from_millis(50));
                drain();
                drop(listener);
            }
        });
        let mut direct = 0;
        for n in 0..2000 {
            match world.ask(VIP).unwrap_or_else(|e| panic!("client {n}: {e}")).as_str() {
                "B1" => direct += 1,
                "PROXY" => {}
                other => panic!("client {n}: {other:?}"),
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(direct > 0, "listeners were always there");
    });
    let served = served.into_inner();
    assert!(served > 0, "listeners were never there");
    let counts = stage.kernel.tables().endpoint_counts(V4.id());
    assert_eq!(stage.count(Reason::NoListener) + u64::try_from(served).unwrap(), 2000, "each client went one way");
    assert_eq!(counts.picked, stage.count(Reason::NoListener));
}
