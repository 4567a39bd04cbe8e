//! Where listeners come to be, and where they go.

use super::stage::*;
use mesh_common::reason::Reason;
use mesh_tests::{World, world, world::addr};
use mesh_userspace::kernel::{self, Captured, Change, Family, Netns, Places};
use socket2::Socket;
use std::{
    io::Write,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

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
            Change::Refused(found) => {
                let kind = std::io::Error::from_raw_os_error(found.errno).kind();
                refused.push(format!("{}: {kind:?}", found.address));
            }
            Change::Barred(barred) => panic!("root may enter each: {barred:?}"),
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
                // As a daemon that ends: nobody new is sent, and whoever was is waited for and served. At once, since
                // the one client that asks would else spend all this time waiting, and never meet no listener.
                stage.kernel.tables().listeners().remove(stage.netns.cookie(), Family::V4).unwrap();
                for _ in 0..50 {
                    drain();
                    std::thread::sleep(Duration::from_millis(1));
                }
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
