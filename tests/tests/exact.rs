//! What a connection carried is shown to the byte while it lives, in whatever state, and the same once it has ended.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Backend, Daemon, World, eventually, json, service, world};
use socket2::{SockRef, Socket};
use std::{
    env,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    os::fd::AsRawFd,
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

const VIP: &str = "10.96.0.10:80";
const VIP6: &str = "[fd00::10]:80";
const MAPPED_VIP: &str = "[::ffff:10.96.0.10]:80";
const E1: &str = "10.1.0.1:8080";
const E6: &str = "[fd01::1]:8080";

/// States of `enum tcp_state` in include/net/tcp_states.h.
const ESTABLISHED: u8 = 1;
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const CLOSE_WAIT: u8 = 8;
const CLOSING: u8 = 11;

/// A service of one endpoint, whose accepted connections the test holds.
struct Stage {
    world: World,
    mesh: Daemon,
    vip: &'static str,
    endpoint: &'static str,
    accepted: Receiver<TcpStream>,
    _backend: Backend,
    /// What earlier connections carried, and how many there were.
    sent: u64,
    received: u64,
    opened: u64,
}

/// One connection, both ends in the test's hands, and what has gone either way.
struct Pair<'a> {
    stage: &'a mut Stage,
    client: Socket,
    server: TcpStream,
    sent: u64,
    received: u64,
}

impl Stage {
    /// A service of this endpoint, dialled at `vip`.
    fn new(world: World, vip: &'static str, endpoint: &'static str) -> Self {
        let address = if vip == MAPPED_VIP { VIP } else { vip };
        let (sender, accepted) = channel();
        let backend = Backend::new(world.netns(), endpoint, {
            move |stream| {
                let _ = sender.send(stream);
            }
        });
        let mesh = world.daemon(json!([service("web", &[address], &[endpoint])]));
        Self { world, mesh, vip, endpoint, accepted, _backend: backend, sent: 0, received: 0, opened: 0 }
    }

    fn pair(&mut self) -> Pair<'_> {
        let client = self.world.dial(self.vip).unwrap();
        let server = self.accept();
        Pair { stage: self, client, server, sent: 0, received: 0 }
    }

    fn accept(&mut self) -> TcpStream {
        let server = self.accepted.recv_timeout(Duration::from_secs(30)).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        self.opened += 1;
        server
    }

    /// Waits until the daemon shows this much more than what earlier connections carried.
    fn shows(&self, when: &str, sent: u64, received: u64, active: u64) {
        let names = ["sent_bytes_total", "received_bytes_total", "connections_total", "active_connections"];
        let wanted = [self.sent + sent, self.received + received, self.opened, active];
        eventually(&format!("{} by {}, {when}: {names:?} are {wanted:?}", self.endpoint, self.vip), || {
            let row = self.mesh.endpoint("web", self.endpoint);
            let seen = names.map(|name| row[name].as_u64().unwrap());
            if seen == wanted { Ok(()) } else { Err(format!("{seen:?}")) }
        });
    }

    /// A connection that carried this has ended.
    fn ended(&mut self, how: &str, sent: u64, received: u64) {
        self.shows(how, sent, received, 0);
        self.sent += sent;
        self.received += received;
        assert_eq!(self.mesh.endpoint("web", self.endpoint)["connect_failures_total"], 0, "{how}");
    }
}

/// `struct tcp_info` of a socket, as the kernel fills it in.
fn tcp_info(socket: &impl AsRawFd) -> [u8; 256] {
    let mut info = [0; 256];
    let mut length: libc::socklen_t = 256;
    let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
    // SAFETY: the buffer is as long as said; the kernel writes no more than that.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, info.as_mut_ptr().cast(), &raw mut length) };
    assert_eq!(result, 0);
    info
}

/// `tcpi_bytes_received`.
fn bytes_received(socket: &impl AsRawFd) -> u64 {
    u64::from_ne_bytes(tcp_info(socket)[128..136].try_into().unwrap())
}

impl Pair<'_> {
    fn up(&mut self, n: u64) {
        (&self.client).write_all(&vec![b'u'; n as usize]).unwrap();
        self.server.read_exact(&mut vec![0; n as usize]).unwrap();
        self.sent += n;
    }

    fn down(&mut self, n: u64) {
        self.server.write_all(&vec![b'd'; n as usize]).unwrap();
        (&self.client).read_exact(&mut vec![0; n as usize]).unwrap();
        self.received += n;
    }

    /// Both sides speak.
    fn talk(&mut self) {
        self.shows("established, silent", ESTABLISHED);
        self.up(1000);
        self.down(1);
        self.up(123_457);
        self.down(50_001);
        self.shows("established", ESTABLISHED);
    }

    /// The client is in `state` and the daemon shows what has gone either way.
    fn shows(&self, when: &str, state: u8) {
        eventually(&format!("{when}: the client's state is {state}"), || match tcp_info(&self.client)[0] {
            now if now == state => Ok(()),
            other => Err(format!("state {other}")),
        });
        self.stage.shows(when, self.sent, self.received, 1);
    }

    /// Sends until the server's window is full, without anybody reading there. Returns how much is on its way; what
    /// the server's kernel has taken is counted as sent.
    fn fill(&mut self) -> u64 {
        let before = bytes_received(&self.server);
        self.client.set_nonblocking(true).unwrap();
        let (mut written, mut quiet) = (0, (0, 0));
        // Long enough without change that the last delayed acknowledgement has left, too.
        eventually("the window is full", || {
            // It may have grown.
            while let Ok(n) = (&self.client).write(&[b'x'; 65_536]) {
                written += n as u64;
            }
            let now = bytes_received(&self.server);
            quiet = if now == quiet.0 { (now, quiet.1 + 1) } else { (now, 0) };
            if quiet.1 > 40 { Ok(()) } else { Err(format!("{now} bytes")) }
        });
        let taken = quiet.0 - before;
        // Linux 6.1 takes its first window and no more, newer ones grow it.
        assert!((65_536..written).contains(&taken), "{taken} of {written}");
        self.sent += taken;
        written
    }

    /// The connection has ended on both sides; nothing more may be counted.
    fn ended(self, how: &str) {
        let Self { stage, client, server, sent, received } = self;
        drop((client, server));
        stage.ended(how, sent, received);
    }
}

fn reset_on_close(socket: &impl std::os::fd::AsFd) {
    SockRef::from(socket).set_linger(Some(Duration::ZERO)).unwrap();
}

fn to_the_end(mut stream: impl Read) -> u64 {
    // A reset is an end, too.
    let mut came = Vec::new();
    let _ = stream.read_to_end(&mut came);
    came.len() as u64
}

/// Ways for a connection to end, told by what is looked at before.
fn every_way(stage: &mut Stage) {
    closed_by_the_client(stage);
    closed_by_the_server(stage);
    half_closed_by_the_client(stage);
    half_closed_by_the_server(stage);
    closed_by_both(stage);
    reset_by_the_client(stage);
    reset_by_the_server(stage);
    reset_by_unread_data(stage);
    let_go_by_the_client(stage);
    let_go_with_full_buffers(stage);
    killed(stage);
}

fn closed_by_the_client(stage: &mut Stage) {
    let mut pair = stage.pair();
    pair.talk();
    pair.client.shutdown(Shutdown::Both).unwrap();
    assert_eq!(to_the_end(&pair.server), 0);
    pair.ended("closed by the client");
}

fn closed_by_the_server(stage: &mut Stage) {
    let mut pair = stage.pair();
    pair.talk();
    pair.server.shutdown(Shutdown::Both).unwrap();
    assert_eq!(to_the_end(&pair.client), 0);
    pair.shows("closed by the server", CLOSE_WAIT);
    pair.ended("closed by the server, then by the client");
}

fn half_closed_by_the_client(stage: &mut Stage) {
    let mut pair = stage.pair();
    pair.talk();
    pair.client.shutdown(Shutdown::Write).unwrap();
    pair.shows("half-closed by the client", FIN_WAIT2);
    pair.down(1);
    pair.shows("one byte after the half-close", FIN_WAIT2);
    pair.down(70_000);
    pair.shows("more after the half-close", FIN_WAIT2);
    pair.server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(to_the_end(&pair.client), 0);
    pair.ended("half-closed by the client, then by the server");
    // Before its own end, the server resets.
    let mut pair = stage.pair();
    pair.client.shutdown(Shutdown::Write).unwrap();
    pair.shows("half-closed at once", FIN_WAIT2);
    pair.down(1);
    reset_on_close(&pair.server);
    pair.ended("half-closed by the client, then reset by the server");
}

fn half_closed_by_the_server(stage: &mut Stage) {
    let mut pair = stage.pair();
    pair.talk();
    pair.server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(to_the_end(&pair.client), 0);
    pair.shows("half-closed by the server", CLOSE_WAIT);
    pair.up(1);
    pair.shows("one byte after the half-close", CLOSE_WAIT);
    pair.up(70_000);
    pair.shows("more after the half-close", CLOSE_WAIT);
    pair.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(to_the_end(&pair.server), 0);
    pair.ended("half-closed by the server, then by the client");
}

fn closed_by_both(stage: &mut Stage) {
    let mut pair = stage.pair();
    pair.talk();
    let before = pair.sent;
    let written = pair.fill();
    // The client's end stays behind its data, and the server's comes meanwhile: both are on their way.
    pair.client.shutdown(Shutdown::Write).unwrap();
    pair.shows("an end that cannot leave", FIN_WAIT1);
    pair.server.shutdown(Shutdown::Write).unwrap();
    pair.shows("both ends on their way", CLOSING);
    assert_eq!(to_the_end(&pair.server), written);
    pair.sent = before + written;
    pair.ended("closed by both at once");
}

fn reset_by_the_client(stage: &mut Stage) {
    let mut pair = stage.pair();
    pair.talk();
    reset_on_close(&pair.client);
    pair.ended("reset by the client");
    let mut pair = stage.pair();
    pair.talk();
    pair.server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(to_the_end(&pair.client), 0);
    reset_on_close(&pair.client);
    pair.shows("half-closed by the server", CLOSE_WAIT);
    pair.ended("half-closed by the server, then reset by the client");
}

fn reset_by_the_server(stage: &mut Stage) {
    let mut pair = stage.pair();
    pair.talk();
    reset_on_close(&pair.server);
    let Pair { stage, client, server, sent, received } = pair;
    drop(server);
    assert_eq!(to_the_end(&client), 0);
    // The client still holds its socket.
    stage.ended("reset by the server", sent, received);
}

fn reset_by_unread_data(stage: &mut Stage) {
    let mut pair = stage.pair();
    pair.talk();
    pair.server.write_all(&[b'd'; 30_000]).unwrap();
    pair.received += 30_000;
    pair.shows("data that the client has not read", ESTABLISHED);
    pair.ended("closed by the client with data unread");
    let mut pair = stage.pair();
    pair.talk();
    (&pair.client).write_all(&[b'u'; 30_000]).unwrap();
    pair.sent += 30_000;
    pair.shows("data that the server has not read", ESTABLISHED);
    let Pair { stage, client, server, sent, received } = pair;
    drop(server);
    assert_eq!(to_the_end(&client), 0);
    stage.ended("closed by the server with data unread", sent, received);
}

/// Nobody holds the client's socket any more, and the server goes on.
fn let_go_by_the_client(stage: &mut Stage) {
    let mut pair = stage.pair();
    pair.talk();
    pair.client.shutdown(Shutdown::Write).unwrap();
    pair.down(1);
    pair.shows("half-closed by the client", FIN_WAIT2);
    let Pair { stage, client, mut server, sent, received } = pair;
    drop(client);
    stage.shows("let go in FIN_WAIT2", sent, received, 0);
    // There is nobody to receive this.
    server.write_all(&[b'd'; 1000]).unwrap();
    assert_eq!(to_the_end(&server), 0);
    stage.ended("let go in FIN_WAIT2, the server speaks on", sent, received);
}

/// Nobody holds the client's socket any more, and it still has to send.
fn let_go_with_full_buffers(stage: &mut Stage) {
    for server_resets in [false, true] {
        let mut pair = stage.pair();
        pair.talk();
        let before = pair.sent;
        let written = pair.fill();
        pair.shows("a full window", ESTABLISHED);
        let Pair { stage, client, server, sent, received } = pair;
        drop(client);
        stage.shows("let go in FIN_WAIT1", sent, received, 1);
        if server_resets {
            reset_on_close(&server);
            drop(server);
            stage.ended("let go in FIN_WAIT1, reset by the server", sent, received);
        } else {
            assert_eq!(to_the_end(&server), written);
            drop(server);
            stage.ended("let go in FIN_WAIT1, taken by the server", before + written, received);
        }
    }
}

fn killed(stage: &mut Stage) {
    let mut client = stage.world.holding(stage.vip, 5000);
    let mut server = stage.accept();
    server.read_exact(&mut [0; 5000]).unwrap();
    server.write_all(&[b'd'; 700]).unwrap();
    stage.shows("a process of its own", 5000, 700, 1);
    client.kill().unwrap();
    client.wait().unwrap();
    assert_eq!(to_the_end(&server), 0);
    drop(server);
    stage.ended("a process that was killed", 5000, 700);
}

#[test]
fn v4_connections_show_what_they_carried_in_every_state() {
    every_way(&mut Stage::new(world!(), VIP, E1));
}

#[test]
fn v6_connections_show_what_they_carried_in_every_state() {
    every_way(&mut Stage::new(world!(), VIP6, E6));
}

#[test]
fn v4_mapped_connections_show_what_they_carried_in_every_state() {
    every_way(&mut Stage::new(world!(), MAPPED_VIP, E1));
}

#[test]
fn connections_from_a_v6_vip_to_a_v4_endpoint_show_what_they_carried_in_every_state() {
    every_way(&mut Stage::new(world!(), VIP6, E1));
}

/// Reads `n` bytes without looking at them: the kernel drops them.
fn skip(stream: &TcpStream, n: u64) {
    let mut left = n;
    while left > 0 {
        let most = left.min(1 << 20) as usize;
        // SAFETY: with MSG_TRUNC TCP writes nothing, and no buffer is needed.
        let read = unsafe { libc::recv(stream.as_raw_fd(), std::ptr::null_mut(), most, libc::MSG_TRUNC) };
        assert!(read > 0, "{left} bytes before the end: {}", std::io::Error::last_os_error());
        left -= read.cast_unsigned() as u64;
    }
}

/// What a 32-bit counter cannot hold.
#[test]
fn more_than_4_gib_through_one_connection_are_exact() {
    let gib = if env::var_os("MESH_TEST_LARGE").is_some() { 1 << 30 } else { 4 << 20 };
    let (up, down) = (4 * gib + 12_345_u64, 4 * gib + 678);
    let mut stage = Stage::new(world!(), VIP, E1);
    let mut pair = stage.pair();
    thread::scope(|scope| {
        let server = pair.server.try_clone().unwrap();
        scope.spawn(move || skip(&server, up));
        let block = vec![b'u'; 1 << 20];
        let mut left = up;
        while left > 0 {
            let n = left.min(block.len() as u64);
            (&pair.client).write_all(&block[..n as usize]).unwrap();
            left -= n;
        }
    });
    pair.sent = up;
    pair.shows("all up", ESTABLISHED);
    thread::scope(|scope| {
        let client: TcpStream = pair.client.try_clone().unwrap().into();
        scope.spawn(move || skip(&client, down));
        let block = vec![b'd'; 1 << 20];
        let mut left = down;
        while left > 0 {
            let n = left.min(block.len() as u64);
            pair.server.write_all(&block[..n as usize]).unwrap();
            left -= n;
        }
    });
    pair.received = down;
    pair.shows("all down", ESTABLISHED);
    pair.ended("closed by the client");
}
