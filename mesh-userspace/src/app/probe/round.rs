//! One probe: rows that lead the probe's address to a listener of ours, a client in a cgroup of its own, and the
//! kernel's counters afterwards.

use super::child::{ANSWER, ARGUMENT, LIMIT, NUMBER, answer};
use crate::{
    kernel::Tables,
    model::{PROBE_V4, PROBE_V6},
};
use mesh_common::{addr::Address, endpoint::EndpointCounts, service::VipKey};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::{fd::AsFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What a probe showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::app) enum Verdict {
    /// Connects are intercepted, for these families.
    Works {
        /// Whether IPv6 was tried too.
        v6: bool,
    },
    /// They are not, and why.
    Fails(String),
    /// It could not be tried, and why.
    Unknown(String),
}

/// How long the counters of a connection that has ended may take to show it.
const SETTLED_WITHIN: Duration = Duration::from_millis(500);

/// What probes need.
pub(in crate::app) struct Prober<'a> {
    pub(in crate::app) tables: &'a Tables,
    /// The intercepted cgroup: a child of it is made for the time of a probe.
    pub(in crate::app) cgroup: &'a Path,
    /// Whether getpeername is to show what was dialled, for IPv4 and IPv6.
    pub(in crate::app) shows_peer: [bool; 2],
    /// Asked from time to time: whether nobody wants to know any more.
    pub(in crate::app) given_up: &'a dyn Fn() -> bool,
}

impl Prober<'_> {
    /// Probes. A failure is believed only when a second try fails too: a probe that met a stranger at its listener, or
    /// a machine that stood still, proves nothing.
    pub(in crate::app) fn probe(&self) -> Verdict {
        match self.once() {
            Verdict::Works { v6 } => Verdict::Works { v6 },
            _ => self.once(),
        }
    }

    fn once(&self) -> Verdict {
        let place = match Place::new(self.cgroup) {
            Ok(place) => place,
            Err(e) => return Verdict::Unknown(format!("no cgroup for the probe below {}: {e}", self.cgroup.display())),
        };
        if let Err(verdict) = self.family(&place, PROBE_V4, Ipv4Addr::LOCALHOST.into(), self.shows_peer[0]) {
            return verdict;
        }
        match TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
            Ok(_) => {
                let v6 = self.family(&place, PROBE_V6, Ipv6Addr::LOCALHOST.into(), self.shows_peer[1]);
                v6.err().unwrap_or(Verdict::Works { v6: true })
            }
            Err(_) => Verdict::Works { v6: false },
        }
    }

    fn family(&self, place: &Place, vip: SocketAddr, local: IpAddr, shows_peer: bool) -> Result<(), Verdict> {
        let unable = |what: &str, e: &dyn std::fmt::Display| Verdict::Unknown(format!("{what}: {e}"));
        let listener = TcpListener::bind((local, 0)).map_err(|e| unable("a listener for the probe", &e))?;
        listener.set_nonblocking(true).map_err(|e| unable("a listener for the probe", &e))?;
        let port = listener.local_addr().map_err(|e| unable("a listener for the probe", &e))?.port();
        let key = VipKey::tcp(Address::from(vip.ip()), vip.port().to_be());
        let refused = |e: &dyn std::fmt::Display| Verdict::Fails(format!("the probe's rows: {e}"));
        self.tables.lead_probe(&key, Address::from(local), port.to_be()).map_err(|e| refused(&e))?;
        let said = self.exchange(place, vip, &listener);
        let counted = said.as_ref().is_ok_and(|said| said.starts_with("peer ")).then(|| self.counted());
        self.tables.end_probe(&key).map_err(|e| refused(&e))?;
        judge(&said.map_err(|e| unable("the probe", &e))?, vip, shows_peer, counted)
    }

    /// Has a client connect, and answers it. Returns what the client said.
    fn exchange(&self, place: &Place, vip: SocketAddr, listener: &TcpListener) -> io::Result<String> {
        let number = number()?;
        let mut child = Client(
            Command::new("/proc/self/exe")
                .arg0("mesh")
                .arg(ARGUMENT)
                .arg(&place.path)
                .arg(vip.to_string())
                .env_clear()
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()?,
        );
        if let Some(mut stdin) = child.0.stdin.take() {
            stdin.write_all(&number)?;
        }
        let mut said = child.0.stdout.take().ok_or_else(|| io::Error::other("no standard output"))?;
        let until = Instant::now() + LIMIT;
        while Instant::now() < until && !(self.given_up)() {
            let mut fds =
                [PollFd::new(said.as_fd(), PollFlags::POLLIN), PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::from(100_u8))?;
            let ready = fds.map(|fd| fd.any().unwrap_or_default());
            if ready[0] {
                // It writes its one line at once; its end is not waited for.
                let mut line = [0; 1024];
                let length = said.read(&mut line)?;
                return Ok(String::from_utf8_lossy(&line[..length]).trim_end().to_owned());
            }
            if ready[1] {
                serve(listener, &number);
            }
        }
        Ok(format!("connect: no end after {} s", LIMIT.as_secs()))
    }

    /// The kernel's counters, once they show a connection that has ended.
    fn counted(&self) -> EndpointCounts {
        let until = Instant::now() + SETTLED_WITHIN;
        loop {
            let counts = self.tables.probe_counts();
            if counts.closed > 0 || Instant::now() >= until {
                return counts;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What follows from what the client said and the kernel counted.
fn judge(said: &str, vip: SocketAddr, shows_peer: bool, counted: Option<EndpointCounts>) -> Result<(), Verdict> {
    if let Some(why) = said.strip_prefix("place ") {
        return Err(Verdict::Unknown(format!("the probe could not take its place: {why}")));
    }
    let fails = |why: String| Err(Verdict::Fails(format!("a probe connection to {vip} failed: {why}")));
    let Some((peer, counts)) = said.strip_prefix("peer ").zip(counted) else {
        return fails(match said.strip_prefix("connect") {
            Some(why) => why.trim_start_matches([':', ' ']).to_owned(),
            None => "the client ended without a word".to_owned(),
        });
    };
    let shown = peer.parse::<SocketAddr>().is_ok_and(|peer| (peer.ip(), peer.port()) == (vip.ip(), vip.port()));
    if shows_peer && !shown {
        return fails(format!("getpeername shows {peer} instead"));
    }
    let seen = [counts.opened, counts.established, counts.closed, counts.sent, counts.received, counts.failed()];
    let expected = [1, 1, 1, NUMBER as u64, ANSWER as u64, 0];
    if seen != expected {
        let words = |n: [u64; 6]| {
            format!(
                "{} opened, {} established, {} closed, {} B sent, {} B received, {} failed",
                n[0], n[1], n[2], n[3], n[4], n[5]
            )
        };
        return fails(format!("the kernel counted {}; right were {}", words(seen), words(expected)));
    }
    Ok(())
}

/// Answers whoever waits at the listener, if it is our client.
fn serve(listener: &TcpListener, number: &[u8; NUMBER]) {
    let Ok((mut stream, _)) = listener.accept() else { return };
    let limit = Some(Duration::from_millis(500));
    let mut said = [0; NUMBER];
    // Whoever else found the listener gets nothing, and is not waited for long.
    let heard = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(limit));
    if heard.and_then(|()| stream.read_exact(&mut said)).is_ok() && said == *number {
        // The client says whether it got that.
        let _ = stream.write_all(&answer(number));
    }
}

/// A number that nobody can guess.
fn number() -> io::Result<[u8; NUMBER]> {
    let mut number = [0; NUMBER];
    File::open("/dev/urandom")?.read_exact(&mut number)?;
    Ok(number)
}

/// A client process. Dropped, it is over.
struct Client(Child);

impl Drop for Client {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cgroup that exists for the time of a probe, so that it is in nobody's way.
struct Place {
    path: PathBuf,
}

impl Place {
    fn new(parent: &Path) -> io::Result<Self> {
        let path = parent.join(super::CGROUP);
        match fs::create_dir(&path) {
            // What a daemon left that was killed while it probed.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        Ok(Self { path })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The client has ended; the kernel may need a moment to notice.
        for _ in 0..20 {
            match fs::remove_dir(&self.path) {
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy => thread::sleep(Duration::from_millis(5)),
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> EndpointCounts {
        let (sent, received) = (NUMBER as u64, ANSWER as u64);
        EndpointCounts { opened: 1, established: 1, closed: 1, sent, received, ..EndpointCounts::default() }
    }

    fn says(said: &str, shows_peer: bool, counts: EndpointCounts) -> Result<(), Verdict> {
        judge(said, PROBE_V4, shows_peer, Some(counts))
    }

    #[test]
    fn a_connection_proves_something_only_if_peer_and_counters_are_right() {
        assert_eq!(says(&format!("peer {PROBE_V4}"), true, good()), Ok(()));
        assert_eq!(says("peer 127.0.0.1:4711", false, good()), Ok(()));
        for (said, counts) in [
            ("peer 127.0.0.1:4711", good()),
            (&format!("peer {PROBE_V4}"), EndpointCounts { sent: 15, ..good() }),
            (&format!("peer {PROBE_V4}"), EndpointCounts { closed: 0, ..good() }),
            ("connect connecting: Connection refused", EndpointCounts::default()),
            ("", EndpointCounts::default()),
        ] {
            assert!(matches!(says(said, true, counts), Err(Verdict::Fails(_))), "{said}");
        }
    }

    #[test]
    fn a_probe_that_could_not_be_made_proves_nothing() {
        let said = says("place joining the cgroup: Read-only file system", true, EndpointCounts::default());
        assert!(matches!(said, Err(Verdict::Unknown(_))));
    }
}
