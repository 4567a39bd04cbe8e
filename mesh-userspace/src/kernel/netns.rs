//! Sockets in other network namespaces, made by a thread that goes there and comes back.

use super::{Family, Namespace};
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    fs::File,
    io,
    net::SocketAddr,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    sync::OnceLock,
};

/// A network namespace in which sockets can be made. It lives at least as long as this does: hold it no longer than
/// needed.
#[derive(Debug)]
pub struct Netns {
    inode: u64,
    cookie: u64,
    /// `None`: it is the daemon's own.
    there: Option<File>,
    /// `SO_MARK` of the sockets, 0 for none.
    mark: u32,
}

impl Netns {
    /// The namespace of process `pid`. Sockets that are made there to connect carry `mark`.
    ///
    /// # Errors
    /// The process is gone, or may not be looked at; or the namespace cannot be entered (`CAP_SYS_ADMIN`).
    pub fn open(pid: u32, mark: u32) -> io::Result<Self> {
        Self::of_file(File::open(format!("/proc/{pid}/ns/net"))?, mark)
    }

    /// As [`Netns::open`], of a namespace that was found.
    ///
    /// # Errors
    /// As above.
    pub fn of(namespace: &Namespace, mark: u32) -> io::Result<Self> {
        Self::of_file(namespace.file.try_clone()?, mark)
    }

    /// The daemon's own.
    ///
    /// # Errors
    /// The system's.
    pub fn own(mark: u32) -> io::Result<Self> {
        Self::of_file(File::open(HOME)?, mark)
    }

    fn of_file(file: File, mark: u32) -> io::Result<Self> {
        let inode = file.metadata()?.ino();
        let there = (inode != home()?.0).then_some(file);
        let mut netns = Self { inode, cookie: 0, there, mark };
        netns.cookie = netns.inside(|| socket_netns(Socket::new(Domain::UNIX, Type::STREAM, None)?.as_fd()))?;
        Ok(netns)
    }

    /// Its inode, as `lsns -t net` shows it.
    #[must_use]
    pub const fn inode(&self) -> u64 {
        self.inode
    }

    /// Its cookie, as `SO_NETNS_COOKIE` of its sockets and programs have it.
    #[must_use]
    pub const fn cookie(&self) -> u64 {
        self.cookie
    }

    /// A TCP socket in the namespace, not blocking, closed on exec, and marked.
    ///
    /// # Errors
    /// The system's.
    pub fn socket(&self, family: Family) -> io::Result<OwnedFd> {
        let socket = self.inside(|| new(family))?;
        if self.mark != 0 {
            socket.set_mark(self.mark)?;
        }
        Ok(socket.into())
    }

    /// A TCP socket that listens in the namespace, not blocking and closed on exec. IPv6 ones take IPv6 only. With
    /// `shared`, others may listen at the same address (`SO_REUSEPORT`).
    ///
    /// # Errors
    /// The system's: `EADDRINUSE`, where somebody else listens; `EADDRNOTAVAIL`, where the address is not there (the
    /// loopback interface is down, or IPv6 is disabled).
    pub fn listen(&self, address: SocketAddr, backlog: i32, shared: bool) -> io::Result<OwnedFd> {
        let socket = self.inside(|| new(family_of(address)))?;
        bind(&socket, address, shared)?;
        socket.listen(backlog)?;
        Ok(socket.into())
    }

    /// `count` sockets as [`Netns::listen`] makes them, which share what comes to `address`, and share it with nobody
    /// else. Beside those that were `inherited`, at their address, there are only as many as are missing.
    ///
    /// # Errors
    /// As above. What was inherited is closed then.
    pub fn listen_beside(
        &self,
        mut address: SocketAddr,
        backlog: i32,
        count: usize,
        inherited: Vec<OwnedFd>,
    ) -> io::Result<Vec<OwnedFd>> {
        let mut all: Vec<Socket> = inherited.into_iter().map(Socket::from).collect();
        if let Some(bound) = all.first() {
            address = bound.local_addr()?.as_socket().unwrap_or(address);
        }
        let missing = count.saturating_sub(all.len());
        let made = self.inside(|| (0..missing).map(|_| new(family_of(address))).collect::<io::Result<Vec<_>>>())?;
        for socket in made {
            // The first must be alone: one that shares from the start would be bound beside anyone who does.
            bind(&socket, address, !all.is_empty())?;
            socket.set_reuse_port(true)?;
            socket.set_tcp_nodelay(true)?;
            socket.listen(backlog)?;
            all.push(socket);
        }
        Ok(all.into_iter().map(OwnedFd::from).collect())
    }

    /// Does `work` in the namespace, which must not panic: a thread must not stay there.
    fn inside<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Some(there) = &self.there else { return work() };
        let home = home()?;
        setns(there, CloneFlags::CLONE_NEWNET)?;
        let _back = Back(&home.1);
        work()
    }
}

const fn family_of(address: SocketAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

fn bind(socket: &Socket, address: SocketAddr, shared: bool) -> io::Result<()> {
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())
}

fn new(family: Family) -> io::Result<Socket> {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))
}

/// Brings the thread back home.
struct Back(&'static File);

impl Drop for Back {
    fn drop(&mut self) {
        if let Err(e) = setns(self.0, CloneFlags::CLONE_NEWNET) {
            // Whatever this thread did from now on, it would do in somebody else's network.
            tracing::error!("a thread cannot come back to the daemon's network namespace ({e}): the daemon ends");
            std::process::abort();
        }
    }
}

/// The namespace of the process's first thread, which never leaves it.
const HOME: &str = "/proc/self/ns/net";

fn home() -> io::Result<&'static (u64, File)> {
    static FOUND: OnceLock<(u64, File)> = OnceLock::new();
    if let Some(home) = FOUND.get() {
        return Ok(home);
    }
    let file = File::open(HOME)?;
    let inode = file.metadata()?.ino();
    Ok(FOUND.get_or_init(|| (inode, file)))
}

/// The cookie of a socket's network namespace (`SO_NETNS_COOKIE`, Linux 5.14), as programs see it.
///
/// # Errors
/// The system's.
pub fn socket_netns(socket: BorrowedFd<'_>) -> io::Result<u64> {
    /// Of include/uapi/asm-generic/socket.h; libc does not have it everywhere.
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: an open socket, and room for what it answers.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if done == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}
