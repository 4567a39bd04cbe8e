//! Connections that the daemon takes, and those that it makes for them: its listeners as the connect hooks see them, what
//! clients dialled, and records of upstream connections.

use super::{KernelError, sys};
use mesh_common::{
    addr::Address,
    capture::{ClientEnd, ListenerKey, Original},
    connection::{Record, marks, stage},
    endpoint::Slot,
    names,
};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

/// An address family of listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Family {
    /// IPv4, at 127.0.0.1: also for v4-mapped addresses.
    V4 = mesh_common::capture::AF_INET,
    /// IPv6, at `::1`.
    V6 = mesh_common::capture::AF_INET6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The loopback address of the family, where listeners are.
    #[must_use]
    pub const fn loopback(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
            Self::V6 => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        }
    }
}

/// The listeners that connect hooks send clients to, one for each network namespace and family. One that is closed is
/// no listener any more from that moment on, process death included.
#[derive(Debug)]
pub struct Listeners(OwnedFd);

impl Listeners {
    pub(super) const fn new(map: OwnedFd) -> Self {
        Self(map)
    }

    /// Sends clients in the namespace with the cookie `netns` to `listener`, in place of an earlier one. It must be a
    /// TCP socket that listens at [`Family::loopback`] in that namespace; its port is taken from the socket.
    ///
    /// # Errors
    /// [`KernelError::Map`]: it does not listen, or the table is full.
    pub fn insert(&self, netns: u64, family: Family, listener: BorrowedFd<'_>) -> Result<(), KernelError> {
        let key = ListenerKey::new(netns, family as u32);
        sys::map_update(&self.0, &key, &listener.as_raw_fd()).map_err(|e| refuse(names::LISTENERS, &e))
    }

    /// Sends nobody there any more. Where there is no listener, that is fine.
    ///
    /// # Errors
    /// [`KernelError::Map`], if the kernel refuses.
    pub fn remove(&self, netns: u64, family: Family) -> Result<(), KernelError> {
        match sys::map_delete(&self.0, &ListenerKey::new(netns, family as u32)) {
            Err(e) if e.raw_os_error() != Some(libc::ENOENT) => Err(refuse(names::LISTENERS, &e)),
            _ => Ok(()),
        }
    }
}

/// An upstream connection that the daemon is about to make.
#[derive(Clone, Debug)]
pub struct Upstream<'a> {
    /// The endpoint's row, with the tag that it carries.
    pub slot: Slot,
    /// Index of the service's row.
    pub service: u32,
    /// The endpoint's address: what the socket will be connected to.
    pub endpoint: SocketAddr,
    /// What the client dialled; the endpoint's address, if it is made for nobody in particular. getpeername(2) on the
    /// socket shows it.
    pub original: SocketAddr,
    /// Cookie of the socket's network namespace.
    pub netns: u64,
    /// The client's process, 0: not known.
    pub pid: u32,
    /// The client's process name, of which 16 bytes are kept; empty: not known.
    pub command: &'a [u8],
    /// Id of the client's cgroup, 0: not known.
    pub cgroup: u64,
    /// Now, CLOCK_MONOTONIC in nanoseconds.
    pub now: u64,
}

impl Upstream<'_> {
    fn record(&self) -> Record {
        let mut command = [0; 16];
        for (to, from) in command.iter_mut().zip(self.command) {
            *to = *from;
        }
        Record {
            original: Address::from(self.original.ip()),
            original_port: self.original.port().to_be(),
            endpoint: Address::from(self.endpoint.ip()),
            endpoint_port: self.endpoint.port().to_be(),
            stage: stage::PICKED,
            id: self.slot.id(),
            tag: self.slot.tag(),
            service: self.service,
            attempt: 1,
            pid: self.pid,
            command,
            cgroup: self.cgroup,
            netns: self.netns,
            picked_at: self.now,
            marks: marks::PROXIED,
            ..Record::default()
        }
    }
}

/// The tables of both.
#[derive(Debug)]
pub(super) struct Capture {
    pub(super) listeners: Listeners,
    pub(super) originals: OwnedFd,
    pub(super) connections: OwnedFd,
}

impl Capture {
    pub(super) fn take_original(&self, netns: u64, client: SocketAddr) -> Option<(SocketAddr, u32)> {
        let end = ClientEnd::new(netns, Address::from(client.ip()), client.port().to_be());
        let original: Original = sys::map_take(&self.originals, &end).ok()?;
        let vip = SocketAddr::new(IpAddr::from(original.vip.address), u16::from_be(original.vip.port));
        Some((vip, original.service))
    }

    pub(super) fn track(&self, socket: BorrowedFd<'_>, upstream: &Upstream<'_>) -> io::Result<()> {
        sys::map_update(&self.connections, &socket.as_raw_fd(), &upstream.record())
    }
}

fn refuse(map: &str, e: &io::Error) -> KernelError {
    KernelError::Map { map: map.to_owned(), why: e.to_string() }
}
