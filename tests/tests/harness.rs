//! The harness itself: what the other tests take for granted.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Backend, Cgroup, Netns, World, backend, cgroup, holds, kernel, world};
use socket2::{Domain, Socket, Type};
use std::{fs, io, process::Command, sync::Arc, time::Duration};

#[test]
fn a_child_lives_in_its_cgroup_and_the_test_does_not() {
    let world = world!();
    let mine = fs::read_to_string("/proc/self/cgroup").unwrap();
    let name = world.cgroup().path().file_name().unwrap().to_str().unwrap().to_owned();
    let theirs = world.run("cat", &["/proc/self/cgroup"]).done();
    assert!(theirs.contains(&name), "{theirs}");
    assert!(!mine.contains(&name), "{mine}");
}

#[test]
fn a_cgroup_goes_away_with_the_processes_in_it() {
    let world = world!();
    let cgroup = Cgroup::new().unwrap();
    let path = cgroup.path().to_owned();
    let mut command = Command::new("sleep");
    command.arg("600");
    mesh_tests::process::place(&mut command, Some(cgroup.path()), Some(world.netns())).unwrap();
    let mut child = command.spawn().unwrap();
    drop(cgroup);
    assert!(!path.exists());
    assert!(!child.wait().unwrap().success());
}

#[test]
fn no_program_is_attached_to_a_new_cgroup() {
    let world = world!();
    assert_eq!(world.cgroup().attached_programs(), 0);
    assert!(world.cgroup().path().starts_with(cgroup::mount_point().unwrap()));
    kernel::bpf_works().unwrap();
}

#[test]
fn clients_reach_backends_of_their_own_namespace_only() {
    let (world, other) = (world!(), world!());
    let b1 = world.backend("B1", "10.1.0.1:8080");
    let b6 = world.backend("B6", "[fd01::1]:8080");
    assert_eq!(world.ask("10.1.0.1:8080").unwrap(), "B1");
    assert_eq!(world.ask("[fd01::1]:8080").unwrap(), "B6");
    assert_eq!(world.ask_outside("10.1.0.1:8080").unwrap(), "B1");
    assert_eq!((b1.accepted(), b6.accepted()), (2, 1));
    assert_eq!(other.ask("10.1.0.1:8080").unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
}

#[test]
fn an_address_without_a_route_fails_at_once() {
    let world = world!();
    assert_eq!(world.ask("10.96.0.10:80").unwrap_err().raw_os_error(), Some(libc::ENETUNREACH));
    assert_eq!(world.ask("[fd00::10]:80").unwrap_err().raw_os_error(), Some(libc::ENETUNREACH));
}

#[test]
fn a_backend_refuses_while_it_is_closed() {
    let world = world!();
    let mut backend = world.backend("B1", "10.1.0.1:8080");
    for _ in 0..3 {
        assert_eq!(world.ask("10.1.0.1:8080").unwrap(), "B1");
        backend.close();
        assert_eq!(world.ask("10.1.0.1:8080").unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        backend.open();
    }
    assert_eq!(backend.accepted(), 3);
}

#[test]
fn an_echo_backend_sends_everything_back() {
    use std::io::{Read, Write};
    let world = world!();
    let _echo = world.echo("10.1.0.1:8080");
    let mut client = world.dial("10.1.0.1:8080").unwrap();
    client.write_all(b"hello").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut back = String::new();
    client.read_to_string(&mut back).unwrap();
    assert_eq!(back, "hello");
}

#[test]
fn a_socket_that_was_taken_over_is_closed_with_its_last_owner() {
    use std::io::Read;
    let world = world!();
    let (sender, receiver) = std::sync::mpsc::channel();
    let _backend = Backend::new(world.netns(), "10.1.0.1:8080", move |mut stream| {
        // End of input comes only if nobody else holds the client's socket.
        sender.send(stream.read(&mut [0; 8]).map_err(|e| e.kind())).unwrap();
    });
    drop(world.dial("10.1.0.1:8080").unwrap());
    assert_eq!(receiver.recv_timeout(Duration::from_secs(20)).unwrap(), Ok(0));
}

#[test]
fn two_namespaces_can_be_joined() {
    let (left, right) = (world!(), world!());
    left.netns().join("10.7.0.1/24", right.netns(), "10.7.0.2/24");
    let backend = right.backend("right", "10.7.0.2:8080");
    assert_eq!(left.ask("10.7.0.2:8080").unwrap(), "right");
    assert_eq!(backend.clients()[0].ip().to_string(), "10.7.0.1");
}

#[test]
fn a_black_hole_answers_nothing() {
    let world = world!();
    world.netns().black_hole("10.2.0.0/16");
    let socket = world.tcp(Domain::IPV4);
    let to = mesh_tests::world::addr("10.2.0.1:80");
    let error = socket.connect_timeout(&to.into(), Duration::from_millis(300)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[test]
fn a_hammer_reports_answers_and_failures() {
    let world = world!();
    let b1 = world.backend("B1", "10.1.0.1:8080");
    let hammers = [world.hammer(&["10.1.0.1:8080", "10.1.0.9:1"]), world.hammer(&["10.1.0.1:8080"])];
    holds("hammered", || b1.accepted(), |n| *n > 50);
    let [first, second] = hammers.map(|h| h.stop());
    assert_eq!(first.answered("10.1.0.1:8080"), ["B1"]);
    assert!(first.failures[0].contains("refused"), "{first:?}");
    second.assert_flawless();
    assert_eq!(second.connects, second.answers["10.1.0.1:8080"]["B1"]);
}

#[test]
fn a_separate_program_connects_from_inside_the_cgroup() {
    let world = world!();
    let _b1 = world.backend("B1", "10.1.0.1:8080");
    assert_eq!(world.connect_program("10.1.0.1:8080").done(), "10.1.0.1:8080\nI am B1\n");
}

#[test]
fn udp_backends_answer() {
    let world = world!();
    backend::udp_identity("U", world.netns(), "10.1.0.1:53");
    let socket = world.udp(Domain::IPV4);
    socket.connect(&mesh_tests::world::addr("10.1.0.1:53").into()).unwrap();
    socket.send(b"?").unwrap();
    let mut buffer = [0; 64];
    let n = io::Read::read(&mut &socket, &mut buffer).unwrap();
    assert_eq!(&buffer[..n], b"I am U\n");
}

#[test]
fn a_namespace_has_addresses_of_both_families() {
    let world = world!();
    let bind = |text: &str| {
        let address = mesh_tests::world::addr(text);
        let socket = world.netns().enter(|| Socket::new(Domain::for_address(address), Type::STREAM, None)).unwrap();
        socket.bind(&address.into())
    };
    bind("[fd01::9]:0").unwrap();
    bind("10.1.77.77:0").unwrap();
    let shared: Arc<Netns> = world.netns().clone();
    let second = World::inside(shared);
    assert_ne!(second.cgroup().path(), world.cgroup().path());
}
