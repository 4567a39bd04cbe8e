//! The programs of the tests' clients: ordinary applications that live inside a cgroup and know nothing of mesh.
//!
//! - `sockets`: makes sockets for the test to take over (`open v4|v6 tcp|udp|mptcp`, `close FD` on stdin)
//! - `hammer ADDRESS...`: connects without pause until stdin ends, then reports as JSON
//! - `client ADDRESS`: connects once, prints its own address, and does with the connection what stdin says, until that
//!   ends: `exchange N` with an echo, `fill` until nothing more fits, tell its `descriptor`, `bequeath` it to a child
//! - `connect ADDRESS`: connects once, prints the peer's address and the answer
//! - `hold ADDRESS BYTES`: connects, sends so many bytes, and takes what comes until the connection ends
//! - `serve identity|echo|http NAME ADDRESS`: a server, until it is ended
//! - `load SEED THREADS ADDRESS,... ADDRESS,...`: exchanges random amounts of data with the former until stdin ends,
//!   tries the latter, which refuse, and reports as JSON what it sent and received
#![allow(clippy::expect_used, clippy::panic, reason = "a helper that cannot go on fails its test")]

use mesh_tests::{load, serve, world};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::{
    collections::BTreeMap,
    env, io,
    io::{Read, Write},
    net::TcpStream,
    os::fd::{AsRawFd, OwnedFd},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    match (command.as_str(), rest.as_slice()) {
        ("sockets", []) => sockets(),
        ("hammer", addresses @ [_, ..]) => hammer(addresses),
        ("client", [address]) => client(address),
        ("connect", [address]) => connect(address),
        ("hold", [address, bytes]) => hold(address, bytes.parse().expect("a number")),
        ("serve", [kind, name, address]) => serve::run(kind, name, address),
        ("load", [seed, threads, open, refused]) => {
            let list = |text: &str| text.split_terminator(',').map(world::addr).collect::<Vec<_>>();
            let number = |text: &str| text.parse().expect("a number");
            load::run(number(seed), number(threads), &list(open), &list(refused))
        }
        _ => panic!(
            "usage: mesh-test-peer sockets | hammer ADDRESS... | connect ADDRESS | client ADDRESS | hold ADDRESS BYTES | serve KIND NAME ADDRESS | load SEED THREADS A,... A,..."
        ),
    }
}

fn sockets() -> io::Result<()> {
    let mut held: BTreeMap<i32, Socket> = BTreeMap::new();
    for line in io::stdin().lines() {
        let line = line?;
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["open", family, kind] => {
                let domain = if *family == "v6" { Domain::IPV6 } else { Domain::IPV4 };
                let (kind, protocol) = match *kind {
                    "udp" => (Type::DGRAM, None),
                    "mptcp" => (Type::STREAM, Some(Protocol::MPTCP)),
                    _ => (Type::STREAM, None),
                };
                match Socket::new(domain, kind, protocol) {
                    Ok(socket) => {
                        println!("{}", socket.as_raw_fd());
                        held.insert(socket.as_raw_fd(), socket);
                    }
                    Err(error) => println!("{error}"),
                }
            }
            ["close", fd] => {
                held.remove(&fd.parse().expect("a descriptor"));
                println!("0");
            }
            _ => panic!("not understood: {line}"),
        }
    }
    Ok(())
}

/// One connection: what the other side says until it closes.
fn ask(address: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    // The other side closed first; a reset frees both ends at once, so that no run is out of ports.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    match answer.strip_prefix("I am ").and_then(|a| a.strip_suffix('\n')) {
        Some(who) => Ok(who.to_owned()),
        None => Err(io::Error::other(format!("strange answer {answer:?}"))),
    }
}

fn hammer(addresses: &[String]) -> io::Result<()> {
    static STOP: AtomicBool = AtomicBool::new(false);
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        STOP.store(true, Ordering::Relaxed);
    });
    let mut connects = 0_u64;
    let mut failures = Vec::new();
    let mut answers: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
    for address in addresses.iter().cycle() {
        match ask(address) {
            Ok(who) => *answers.entry(address).or_default().entry(who).or_default() += 1,
            // Enough to see what went wrong, and no more memory than that.
            Err(_) if failures.len() >= 1000 => {}
            Err(error) => failures.push(format!("{address}, connect {connects}: {error}")),
        }
        if connects == 0 {
            println!("started");
        }
        connects += 1;
        if STOP.load(Ordering::Relaxed) {
            break;
        }
    }
    let report = serde_json::json!({ "connects": connects, "failures": failures, "answers": answers });
    writeln!(io::stdout(), "{report}")
}

fn client(address: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    println!("{}", stream.local_addr()?);
    for line in io::stdin().lines() {
        let line = line?;
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["exchange", n] => {
                let n: usize = n.parse().expect("a number of bytes");
                let mut writer = stream.try_clone()?;
                let sending = thread::spawn(move || writer.write_all(&vec![b'x'; n]));
                stream.read_exact(&mut vec![0; n])?;
                sending.join().expect("no panic while sending")?;
                println!("{n}");
            }
            ["fill"] => {
                stream.set_nonblocking(true)?;
                let mut sent = 0;
                while let Ok(n) = stream.write(&[b'x'; 65_536]) {
                    sent += n;
                }
                println!("{sent}");
            }
            ["descriptor"] => println!("{}", stream.as_raw_fd()),
            ["bequeath"] => {
                let heir =
                    Command::new("sleep").arg("600").stdin(OwnedFd::from(stream)).stdout(Stdio::null()).spawn()?;
                println!("{}", heir.id());
                return Ok(());
            }
            _ => panic!("not understood: {line}"),
        }
    }
    Ok(())
}

fn connect(address: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    println!("{}", stream.peer_addr()?);
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    print!("{answer}");
    Ok(())
}

fn hold(address: &str, bytes: usize) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(&vec![b'x'; bytes])?;
    io::copy(&mut stream, &mut io::sink())?;
    Ok(())
}
