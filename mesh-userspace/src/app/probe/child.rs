//! The probe's client: a process of its own, because a socket belongs to the cgroup of the task that makes it.
//!
//! It joins the cgroup, connects, says its number, and checks what comes back. One line on standard output tells its
//! parent how that went.

use nix::{
    sched::{CloneFlags, setns},
    sys::signal::Signal,
};
use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read, Write},
    net::{SocketAddr, SocketAddrV6, TcpStream},
    path::Path,
    process::ExitCode,
    time::Duration,
};

/// The first argument by which the binary knows that it is to be the probe's client. Not a command of the contract.
pub(super) const ARGUMENT: &str = "__probe";
/// How long anything may take.
pub(super) const LIMIT: Duration = Duration::from_secs(2);
/// Bytes that the client sends: its number.
pub(super) const NUMBER: usize = 16;
/// Bytes that it gets back: its number twice.
pub(super) const ANSWER: usize = 2 * NUMBER;

/// What the listener says to a number.
pub(super) fn answer(number: &[u8; NUMBER]) -> [u8; ANSWER] {
    let mut answer = [0; ANSWER];
    answer[..NUMBER].copy_from_slice(number);
    answer[NUMBER..].copy_from_slice(number);
    answer
}

/// Runs as the probe's client, if that is what this process was started for.
#[must_use]
pub fn probe_client(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    if arguments.nth(1).as_deref() != Some(OsStr::new(ARGUMENT)) {
        return None;
    }
    // A parent that dies leaves nothing behind.
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    let (Some(cgroup), Some(vip), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Some(ExitCode::from(2));
    };
    let line = match client(Path::new(&cgroup), &vip) {
        Ok(peer) => format!("peer {peer}\n"),
        Err(why) => format!("{why}\n"),
    };
    Some(match io::stdout().write_all(line.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// Connects to `vip` from within `cgroup`; the peer that the socket shows. The error begins with the word for what
/// failed: `place`, or `connect`.
fn client(cgroup: &Path, vip: &OsStr) -> Result<SocketAddr, String> {
    let mut number = [0; NUMBER];
    let place = |what: &str, e: &dyn std::fmt::Display| format!("place {what}: {e}");
    io::stdin().read_exact(&mut number).map_err(|e| place("reading the number", &e))?;
    let vip: SocketAddr = vip.to_string_lossy().parse().map_err(|e| place("the address", &e))?;
    join(cgroup).map_err(|e| place("joining the cgroup", &e))?;
    let failed = |what: &str, e: &io::Error| format!("connect {what}: {e}");
    let mut stream = TcpStream::connect_timeout(&through_loopback(vip), LIMIT).map_err(|e| failed("connecting", &e))?;
    stream.set_read_timeout(Some(LIMIT)).map_err(|e| failed("setting a limit", &e))?;
    let peer = stream.peer_addr().map_err(|e| failed("asking for the peer", &e))?;
    stream.write_all(&number).map_err(|e| failed("sending", &e))?;
    let mut bytes = Vec::with_capacity(ANSWER);
    (&mut stream).take(1024).read_to_end(&mut bytes).map_err(|e| failed("receiving", &e))?;
    if bytes == answer(&number) { Ok(peer) } else { Err("connect: somebody else answers there".to_owned()) }
}

/// Moves this process into a cgroup.
fn join(cgroup: &Path) -> io::Result<()> {
    let write = || fs::write(cgroup.join("cgroup.procs"), "0");
    let refused = match write() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => e,
        done => return done,
    };
    // A container's cgroup namespace shows only what is below its own cgroup, and where cgroup2 is mounted with
    // `nsdelegate`, as by systemd, the kernel says of every other cgroup that it is not there. Init's namespace shows all.
    let inits = File::open("/proc/1/ns/cgroup").map_err(|_| refused)?;
    setns(inits, CloneFlags::CLONE_NEWCGROUP)?;
    write()
}

/// A link-local address needs an interface: the one that leads nowhere else.
fn through_loopback(vip: SocketAddr) -> SocketAddr {
    match vip {
        SocketAddr::V6(vip) => {
            let loopback = nix::net::if_::if_nametoindex("lo").unwrap_or(1);
            SocketAddrV6::new(*vip.ip(), vip.port(), 0, loopback).into()
        }
        SocketAddr::V4(_) => vip,
    }
}
