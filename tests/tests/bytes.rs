//! What the kernel counts for each endpoint, to the byte, however a connection ends.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Backend, Daemon, eventually, json, service, world};
use socket2::{SockRef, Socket};
use std::{
    io::{Read, Write},
    mem::MaybeUninit,
    net::{Shutdown, TcpStream},
    os::fd::{AsFd, AsRawFd},
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

const VIP: &str = "10.96.0.10:80";
const VIP6: &str = "[fd00::10]:80";
const E1: &str = "10.1.0.1:8080";
const E6: &str = "[fd01::1]:8080";

/// `enum tcp_state`: our FIN is acknowledged, the peer's not yet seen.
const FIN_WAIT2: u8 = 5;

/// One way for a connection to end. `up` and `down` are what client and server send; both meet at the gate.
struct Ending {
    name: &'static str,
    server: fn(TcpStream, usize, usize, &Barrier),
    client: fn(Socket, usize, usize, &Barrier),
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

fn reset(stream: impl AsFd) {
    // Closing, which follows, resets now.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// `struct tcp_info` of a socket, as the kernel fills it in.
fn tcp_info(socket: &impl AsRawFd) -> [u8; 256] {
    let mut info = [0; 256];
    let mut length: libc::socklen_t = 256;
    // SAFETY: the buffer is as long as said; the kernel writes no more than that.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0);
    info
}

/// The client has finished sending and the server's kernel knows.
fn finish_sending(client: &Socket) {
    client.shutdown(Shutdown::Write).unwrap();
    eventually("FIN_WAIT2", || match tcp_info(client)[0] {
        FIN_WAIT2 => Ok(()),
        other => Err(format!("state {other}")),
    });
}

const ENDINGS: [Ending; 11] = [
    Ending {
        name: "the client closes first",
        server: |s, up, down, _| {
            receive(&s, up);
            send(&s, down);
            to_the_end(&s);
        },
        client: |c, up, down, _| {
            send(&c, up);
            receive(&c, down);
        },
    },
    Ending {
        name: "the server closes first",
        server: |s, up, down, _| {
            receive(&s, up);
            send(&s, down);
        },
        client: |c, up, _, _| {
            send(&c, up);
            to_the_end(&c);
        },
    },
    Ending {
        name: "the client finishes sending, then receives",
        server: |s, _, down, _| {
            to_the_end(&s);
            send(&s, down);
        },
        client: |c, up, _, _| {
            send(&c, up);
            c.shutdown(Shutdown::Write).unwrap();
            to_the_end(&c);
        },
    },
    Ending {
        name: "the server finishes sending, then receives",
        server: |s, _, down, _| {
            send(&s, down);
            s.shutdown(Shutdown::Write).unwrap();
            to_the_end(&s);
        },
        client: |c, up, _, _| {
            to_the_end(&c);
            send(&c, up);
        },
    },
    Ending {
        name: "both close at once",
        server: |s, up, down, gate| {
            receive(&s, up);
            send(&s, down);
            gate.wait();
            s.shutdown(Shutdown::Write).unwrap();
        },
        client: |c, up, down, gate| {
            send(&c, up);
            receive(&c, down);
            gate.wait();
            c.shutdown(Shutdown::Write).unwrap();
            to_the_end(&c);
        },
    },
    Ending {
        name: "the client resets",
        server: |s, up, down, _| {
            receive(&s, up);
            send(&s, down);
            to_the_end(&s);
        },
        client: |c, up, down, _| {
            send(&c, up);
            receive(&c, down);
            reset(c);
        },
    },
    Ending {
        name: "the server resets",
        server: |s, up, down, gate| {
            receive(&s, up);
            send(&s, down);
            gate.wait();
            reset(s);
        },
        client: |c, up, down, gate| {
            send(&c, up);
            receive(&c, down);
            gate.wait();
            to_the_end(&c);
        },
    },
    Ending {
        name: "the client finishes sending, then the server resets",
        server: |s, up, down, gate| {
            receive(&s, up);
            send(&s, down);
            to_the_end(&s);
            gate.wait();
            reset(s);
        },
        client: |c, up, down, gate| {
            send(&c, up);
            receive(&c, down);
            finish_sending(&c);
            gate.wait();
            to_the_end(&c);
        },
    },
    Ending {
        name: "the client finishes sending, the server answers and resets",
        server: |s, _, down, gate| {
            to_the_end(&s);
            gate.wait();
            send(&s, down);
            gate.wait();
            reset(s);
        },
        client: |c, up, down, gate| {
            send(&c, up);
            finish_sending(&c);
            gate.wait();
            receive(&c, down);
            gate.wait();
            to_the_end(&c);
        },
    },
    Ending {
        name: "the client finishes sending, receives, and does not wait for the server's end",
        server: |s, _, down, gate| {
            to_the_end(&s);
            gate.wait();
            send(&s, down);
            gate.wait();
        },
        client: |c, up, down, gate| {
            send(&c, up);
            finish_sending(&c);
            gate.wait();
            receive(&c, down);
            drop(c);
            gate.wait();
        },
    },
    Ending {
        name: "the client closes with data unread",
        server: |s, up, down, _| {
            receive(&s, up);
            send(&s, down);
            to_the_end(&s);
        },
        client: |c, up, down, _| {
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

/// Waits until an endpoint's counters are these.
fn counted(what: &str, mesh: &Daemon, endpoint: &str, sent: u64, received: u64, connections: u64) {
    let wanted = [sent, received, connections, 0];
    let names = ["sent_bytes_total", "received_bytes_total", "connections_total", "active_connections"];
    eventually(&format!("{what}: {names:?} are {wanted:?}"), || {
        let row = mesh.endpoint("web", endpoint);
        let seen = names.map(|name| row[name].as_u64().unwrap());
        if seen == wanted { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}

fn bytes_are_exact(vip: &str, endpoint: &str) {
    let world = world!();
    let mesh = world.daemon(json!([service("web", &[vip], &[endpoint])]));
    let (mut sent, mut received, mut connections) = (0, 0, 0);
    for ending in ENDINGS {
        for (up, down) in SIZES {
            let gate = Arc::new(Barrier::new(2));
            let (server, servers_gate) = (ending.server, gate.clone());
            let _backend = Backend::new(world.netns(), endpoint, move |s| {
                let gate = servers_gate.clone();
                thread::spawn(move || server(s, up, down, &gate));
            });
            (ending.client)(world.dial(vip).unwrap(), up, down, &gate);
            sent += up as u64;
            received += down as u64;
            connections += 1;
            let what = format!("{}, {up} bytes up, {down} down", ending.name);
            counted(&what, &mesh, endpoint, sent, received, connections);
        }
    }
    let metrics = mesh.metrics();
    let labels = [("service", "web"), ("endpoint", endpoint)];
    assert_eq!(metrics.sum("mesh_tcp_sent_bytes_total", &labels), Some(sent as f64));
    assert_eq!(metrics.sum("mesh_tcp_received_bytes_total", &labels), Some(received as f64));
}

#[test]
fn bytes_of_v4_connections_are_exact() {
    bytes_are_exact(VIP, E1);
}

#[test]
fn bytes_of_v6_connections_are_exact() {
    bytes_are_exact(VIP6, E6);
}

#[test]
fn bytes_from_a_v6_vip_to_a_v4_endpoint_are_exact() {
    bytes_are_exact(VIP6, E1);
}

#[test]
fn bytes_that_the_server_never_took_are_not_counted_as_sent() {
    let world = world!();
    let mesh = world.daemon(json!([service("web", &[VIP], &[E1])]));
    let gate = Arc::new(Barrier::new(2));
    let (arrived, arrival) = std::sync::mpsc::channel();
    let servers_gate = gate.clone();
    let _backend = Backend::new(world.netns(), E1, move |s| {
        s.shutdown(Shutdown::Write).unwrap();
        servers_gate.wait();
        // The client has closed, with more to send than this side's window takes: its end never left.
        let received = || u64::from_ne_bytes(tcp_info(&s)[128..136].try_into().unwrap());
        let (mut last, mut quiet) = (received(), 0);
        // Long enough without change that the last delayed acknowledgement has left, too.
        eventually("the window is full", || {
            let now = received();
            quiet = if now == last { quiet + 1 } else { 0 };
            last = now;
            if quiet > 40 { Ok(()) } else { Err(format!("{now} bytes")) }
        });
        arrived.send(last).unwrap();
        reset(s);
    });
    let client = world.dial(VIP).unwrap();
    to_the_end(&client);
    client.set_nonblocking(true).unwrap();
    while (&client).write(&[b'x'; 65_536]).is_ok() {}
    drop(client);
    gate.wait();
    let received = arrival.recv().unwrap();
    assert!(received > 65_536, "{received}");
    counted("a full window", &mesh, E1, received, 0, 1);
}

/// The network ends while a client still sends: `cut` is what `ip` does at the far end.
fn bytes_of_a_cut_connection(cut: &str) {
    let (world, far) = (world!(), world!());
    world.netns().join("10.7.0.1/24", far.netns(), "10.7.0.2/24");
    let endpoint = "10.7.0.2:8080";
    let mesh = world.daemon(json!([service("web", &[VIP], &[endpoint])]));
    let _backend = Backend::new(far.netns(), endpoint, |s| {
        receive(&s, 1000);
        send(&s, 10);
        s.shutdown(Shutdown::Write).unwrap();
        thread::spawn(move || to_the_end(s));
    });
    let client = world.dial(VIP).unwrap();
    client.set_tcp_user_timeout(Some(Duration::from_millis(300))).unwrap();
    send(&client, 1000);
    to_the_end(&client);
    far.netns().ip(cut);
    // Both the data and the end of sending get nowhere, until TCP gives up.
    send(&client, 500);
    drop(client);
    counted(cut, &mesh, endpoint, 1000, 10, 1);
}

#[test]
fn bytes_lost_on_the_way_are_not_counted_as_sent() {
    bytes_of_a_cut_connection("address del 10.7.0.2/24 dev veth-back");
}

#[test]
fn bytes_that_could_not_leave_are_not_counted_as_sent() {
    bytes_of_a_cut_connection("link set veth-back down");
}
