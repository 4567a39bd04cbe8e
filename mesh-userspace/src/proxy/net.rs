//! Connections to endpoints: where their sockets come from, and why there is none.

use super::{
    deadline::Clock,
    reason::Reason,
    state::{Connected, Counts},
    table::{Endpoint, Service},
    upstream::Upstream,
};
use mesh_common::{endpoint::Slot, reason::Failure};
use std::{fmt, io, net::SocketAddr, os::fd::OwnedFd, rc::Rc, sync::Arc};
use tokio::net::TcpSocket;

/// Where an upstream connection leads, for whoever makes its socket.
#[derive(Clone, Copy, Debug)]
pub struct Destination {
    /// The endpoint.
    pub address: SocketAddr,
    /// Its row in the kernel's tables.
    pub endpoint: Option<Slot>,
    /// The row of its service.
    pub service: Option<u32>,
}

/// Makes sockets, in one network namespace.
pub trait Sockets: fmt::Debug + Send + Sync {
    /// A TCP socket that does not block, not connected, with the mark of the proxy's own sockets.
    ///
    /// # Errors
    /// The system's.
    fn socket(&self, to: &Destination) -> io::Result<OwnedFd>;
    /// Where a connection is counted that leads to an endpoint with a row; `None`: by the kernel.
    fn counts(&self, _to: &Destination) -> Option<Arc<dyn Counts>> {
        None
    }
    /// What tells this namespace from others.
    fn namespace(&self) -> u64;
}

/// Why there is no connection to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoConnection {
    /// The endpoint refused, or cannot be reached.
    Failed(io::ErrorKind),
    /// It took too long.
    TimedOut,
    /// As many requests wait already as the service admits.
    TooManyWait,
    /// This machine has no means to connect (descriptors, ports): not the endpoint's fault.
    Local(io::ErrorKind),
}

impl NoConnection {
    pub(super) const fn reason(self) -> Reason {
        match self {
            Self::Failed(_) | Self::Local(_) => Reason::ConnectFailure,
            Self::TimedOut => Reason::ConnectTimeout,
            Self::TooManyWait => Reason::MaxPendingRequests,
        }
    }
}

/// Connects to an endpoint, within the service's `connect_timeout`.
pub(super) async fn connect(
    clock: &Rc<Clock>,
    sockets: &dyn Sockets,
    service: &Service,
    endpoint: &Endpoint,
) -> Result<(Upstream, Connected), NoConnection> {
    let to = Destination { address: endpoint.address, endpoint: endpoint.row, service: service.row };
    let socket = sockets.socket(&to).map_err(|e| NoConnection::Local(e.kind()))?;
    let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
    let alarm = clock.alarm();
    alarm.set(service.facts.settings.connect_timeout);
    let counts = sockets.counts(&to);
    let connected = Connected::opens(&endpoint.state, counts.clone());
    let failed = match alarm.before(socket.connect(to.address)).await {
        Err(_) => NoConnection::TimedOut,
        Ok(Ok(stream)) => {
            // Small writes are whole messages: none waits for the one before to be acknowledged.
            let _ = stream.set_nodelay(true);
            connected.is_established();
            // An endpoint without a row is none that the kernel knows.
            let counts = if endpoint.row.is_none() { Some(Arc::clone(&endpoint.state) as _) } else { counts };
            return Ok((Upstream::new(stream, counts), connected));
        }
        Ok(Err(e)) => match e.kind() {
            io::ErrorKind::TimedOut => NoConnection::TimedOut,
            kind @ (io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::AddrInUse
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::PermissionDenied) => NoConnection::Local(kind),
            kind => NoConnection::Failed(kind),
        },
    };
    match failed {
        NoConnection::TimedOut => connected.failed(Failure::Timeout),
        NoConnection::Failed(io::ErrorKind::ConnectionRefused) => connected.failed(Failure::Refused),
        NoConnection::Failed(io::ErrorKind::HostUnreachable) => connected.failed(Failure::Unreachable),
        NoConnection::Failed(io::ErrorKind::ConnectionReset) => connected.failed(Failure::Reset),
        NoConnection::Failed(_) => connected.failed(Failure::Other),
        NoConnection::Local(_) | NoConnection::TooManyWait => {}
    }
    Err(failed)
}
