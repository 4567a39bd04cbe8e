//! Throw-away network namespaces, held by a descriptor and without a name.

use crate::process;
use nix::sched::{CloneFlags, setns, unshare};
use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    process::Command,
    thread,
};

/// A network namespace of one test. It ends with its last descriptor, socket and process.
#[derive(Debug)]
pub struct Netns {
    file: File,
}

impl Netns {
    /// A namespace with a loopback interface and no more.
    ///
    /// # Errors
    /// What the kernel or `ip` answered.
    pub fn bare() -> io::Result<Self> {
        // The thread ends; the namespace stays as long as the descriptor.
        let file = thread::scope(|scope| {
            let made = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET)?;
                File::open("/proc/thread-self/ns/net")
            });
            made.join().map_err(|_| io::Error::other("the thread that unshares failed"))?
        })?;
        let netns = Self { file };
        netns.ip("link set lo up");
        Ok(netns)
    }

    /// A namespace with a loopback interface, `fd01::/64` addresses ::1 to ::9 on it, and 10.1.0.0/16 wholly local.
    ///
    /// No other route: an untranslated connect to a VIP fails at once instead of leaving the machine.
    ///
    /// # Errors
    /// What the kernel or `ip` answered.
    pub fn new() -> io::Result<Self> {
        let netns = Self::bare()?;
        netns.ip("route add local 10.1.0.0/16 dev lo");
        for n in 1..=9 {
            netns.ip(&format!("address add fd01::{n}/64 dev lo nodad"));
        }
        Ok(netns)
    }

    /// Runs `work` in a thread inside this namespace: the sockets it makes belong here.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET).expect("a test's namespace can be entered");
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Its inode, as `lsns -t net` shows it.
    ///
    /// # Panics
    /// Never: the descriptor is open.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.file.metadata().expect("an open descriptor has metadata").ino()
    }

    /// Runs `ip` of iproute2 inside, words split at spaces.
    pub fn ip(&self, arguments: &str) {
        self.run("ip", arguments);
    }

    /// A program of iproute2 in this namespace.
    fn run(&self, program: &str, arguments: &str) {
        let mut command = Command::new(program);
        command.args(arguments.split_whitespace());
        process::place(&mut command, None, Some(self)).expect("a test's namespace can be entered");
        let output = command.output().unwrap_or_else(|e| panic!("`{program}` (Debian: iproute2): {e}"));
        assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Joins this namespace and `other` by a veth pair, with an address (and prefix length) at each end.
    pub fn join(&self, address: &str, other: &Self, other_address: &str) {
        let path = other.path();
        self.ip(&format!("link add veth-there type veth peer name veth-back netns {path}"));
        self.ip(&format!("address add {address} dev veth-there nodad"));
        self.ip("link set veth-there up");
        other.ip(&format!("address add {other_address} dev veth-back nodad"));
        other.ip("link set veth-back up");
    }

    /// A name for it that lasts as long as it is held.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// A network in which every packet vanishes without an answer.
    pub fn black_hole(&self, network: &str) {
        self.ip("link add void type veth peer name void-end");
        // Without ARP frames leave at once, to a hardware address that the other end does not have.
        self.ip("link set void arp off up");
        self.ip("link set void-end up");
        if network.contains(':') {
            self.ip("address add fd99::99/128 dev void nodad");
            self.ip(&format!("-6 route add {network} dev void src fd99::99"));
        } else {
            self.ip("address add 10.99.99.99/32 dev void");
            self.ip(&format!("route add {network} dev void src 10.99.99.99"));
        }
    }

    /// Destroys the connections that `filter` of `ss` chooses.
    pub fn destroy_sockets(&self, filter: &str) {
        self.run("ss", &format!("--kill --tcp {filter}"));
    }

    /// What goes to the black hole does not even leave from now on: the queue before it takes nothing.
    pub fn clog(&self) {
        self.run("tc", "qdisc replace dev void root pfifo limit 0");
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
