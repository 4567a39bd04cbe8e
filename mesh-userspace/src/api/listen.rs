//! Where the door is: the listeners, and why one cannot be had.

pub use super::admin_socket::SocketFile;
use super::{admin_socket::AdminSocket, takeover::Passed};
use std::{
    io::{self, ErrorKind},
    net::{self, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};
use tokio::net::TcpListener;

/// Where to listen; each may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// `admin.listen`: everything that changes nothing.
    pub listen: Option<SocketAddr>,
    /// `admin.metrics_listen`: metrics, health, readiness.
    pub metrics_listen: Option<SocketAddr>,
    /// `admin.socket`: everything.
    pub socket: Option<PathBuf>,
}

/// Listeners that are open and not served yet: connections wait.
#[derive(Debug)]
pub struct Listeners {
    pub(super) tcp: Option<TcpListener>,
    pub(super) metrics: Option<TcpListener>,
    pub(super) socket: Option<AdminSocket>,
}

/// Listeners that another daemon passed on: each is used where the configuration has its address, so that nobody who
/// is waiting in its queue is turned away.
#[derive(Debug, Default)]
pub struct Inherited {
    tcp: Vec<net::TcpListener>,
    socket: Option<(std::os::unix::net::UnixListener, (u64, u64))>,
}

impl Inherited {
    /// Adds what was passed, if it is a listener; gives it back otherwise.
    pub fn add(&mut self, what: &Passed, descriptor: OwnedFd) -> Option<OwnedFd> {
        match what {
            Passed::Tcp => self.tcp.push(descriptor.into()),
            Passed::Socket { device, inode } => self.socket = Some((descriptor.into(), (*device, *inode))),
            Passed::Lock { .. }
            | Passed::Proxy
            | Passed::Capture { .. }
            | Passed::NameServer { .. }
            | Passed::Unknown => return Some(descriptor),
        }
        None
    }

    /// The listener at `address`, to be served elsewhere.
    pub fn take(&mut self, address: SocketAddr) -> Option<net::TcpListener> {
        let found = self.tcp.iter().position(|l| l.local_addr().is_ok_and(|local| local == address))?;
        Some(self.tcp.swap_remove(found))
    }

    fn take_tcp(&mut self, address: SocketAddr) -> Option<io::Result<TcpListener>> {
        let listener = self.take(address)?;
        Some(listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener)))
    }

    fn take_socket(&mut self, path: &Path) -> io::Result<Option<AdminSocket>> {
        self.socket.take().map_or(Ok(None), |(listener, file)| AdminSocket::inherit(listener, path, file))
    }
}

impl Listeners {
    /// Opens all of them, or none; those that were inherited are open.
    ///
    /// # Errors
    /// [`BindError`], naming the address and its key in the configuration.
    pub async fn bind(addresses: &Addresses, mut inherited: Inherited) -> Result<Self, BindError> {
        // The socket first: of all that can fail, a daemon that is already running explains the rest.
        let socket = match &addresses.socket {
            Some(path) => {
                let failed = |source| BindError::Socket { path: path.clone(), what: "taking it over", source };
                match inherited.take_socket(path).map_err(failed)? {
                    Some(socket) => Some(socket),
                    None => Some(AdminSocket::bind(path).await?),
                }
            }
            None => None,
        };
        let tcp = tcp("admin.listen", addresses.listen, &mut inherited).await?;
        let metrics = tcp_unless_same(addresses, &tcp, &mut inherited).await?;
        Ok(Self { tcp, metrics, socket })
    }

    /// Copies to pass on.
    ///
    /// # Errors
    /// If no descriptors are left.
    pub fn copies(&self) -> io::Result<Vec<(Passed, OwnedFd)>> {
        let mut copies = Vec::new();
        for listener in [&self.tcp, &self.metrics].into_iter().flatten() {
            copies.push((Passed::Tcp, listener.as_fd().try_clone_to_owned()?));
        }
        if let Some(socket) = &self.socket {
            let (device, inode) = socket.file();
            copies.push((Passed::Socket { device, inode }, socket.listener.as_fd().try_clone_to_owned()?));
        }
        Ok(copies)
    }

    /// Decides over the admin socket's file.
    #[must_use]
    pub fn socket_file(&self) -> Option<SocketFile> {
        self.socket.as_ref().map(AdminSocket::fate)
    }

    /// The address behind `admin.listen`, its port known even if 0 was asked for.
    #[must_use]
    pub fn listen_address(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// The address behind `admin.metrics_listen`, its port known even if 0 was asked for.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|listener| listener.local_addr().ok())
    }
}

/// Why a listener cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A TCP address.
    #[error("cannot listen on {address} ({key}): {source}{}", tcp_remedy(*address, key, source))]
    Tcp {
        /// Its key in the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
    /// The admin socket, or a directory or lock on the way to it.
    #[error("cannot make the admin socket {} (admin.socket): {what}: {source}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The step that failed.
        what: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// The file in its place is none of ours.
    #[error("cannot make the admin socket {} (admin.socket): a file that is no socket stands there", path.display())]
    NoSocket {
        /// The file.
        path: PathBuf,
    },
    /// A daemon answers there.
    #[error(
        "the admin socket {} (admin.socket) is in use by a running daemon{}; stop it, or give this one its own \
         admin.socket", path.display(), pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The socket.
        path: PathBuf,
        /// The daemon's process.
        pid: Option<i32>,
    },
}

fn tcp_remedy(address: SocketAddr, key: &str, source: &io::Error) -> String {
    let port = address.port();
    match source.kind() {
        ErrorKind::AddrInUse => format!("; `ss -ltnp 'sport = :{port}'` shows by whom, or change {key}"),
        ErrorKind::AddrNotAvailable => format!("; no interface of this machine has {}: change {key}", address.ip()),
        ErrorKind::PermissionDenied => format!("; a port below 1024 needs CAP_NET_BIND_SERVICE, or change {key}"),
        _ => format!("; change {key}"),
    }
}

async fn tcp(
    key: &'static str,
    address: Option<SocketAddr>,
    inherited: &mut Inherited,
) -> Result<Option<TcpListener>, BindError> {
    let Some(address) = address else { return Ok(None) };
    let listener = match inherited.take_tcp(address) {
        Some(listener) => listener,
        None => match TcpListener::bind(address).await {
            Err(e) => match in_place_of(address, &e) {
                Some(other) => match inherited.take_tcp(other) {
                    Some(listener) => listener,
                    None => TcpListener::bind(other).await,
                },
                None => Err(e),
            },
            bound => bound,
        },
    };
    listener.map(Some).map_err(|source| BindError::Tcp { key, address, source })
}

/// Where to listen after this failure: `[::]` is every address of this machine, and where that has no IPv6 those of IPv4.
#[must_use]
pub fn in_place_of(address: SocketAddr, failure: &io::Error) -> Option<SocketAddr> {
    let has_no_ipv6 = failure.raw_os_error() == Some(libc::EAFNOSUPPORT);
    (has_no_ipv6 && address.ip() == Ipv6Addr::UNSPECIFIED).then(|| (Ipv4Addr::UNSPECIFIED, address.port()).into())
}

/// One address for both keys needs one listener: the one that serves everything has metrics as well.
async fn tcp_unless_same(
    addresses: &Addresses,
    tcp_listener: &Option<TcpListener>,
    inherited: &mut Inherited,
) -> Result<Option<TcpListener>, BindError> {
    let same = addresses.metrics_listen == addresses.listen && addresses.listen.is_some_and(|a| a.port() != 0);
    if same && tcp_listener.is_some() {
        return Ok(None);
    }
    tcp("admin.metrics_listen", addresses.metrics_listen, inherited).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_an_error_that_says_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        for (addresses, key) in [
            (Addresses { listen: Some(address), ..Addresses::default() }, "admin.listen"),
            (Addresses { metrics_listen: Some(address), ..Addresses::default() }, "admin.metrics_listen"),
        ] {
            let port = address.port();
            assert_eq!(
                Listeners::bind(&addresses, Inherited::default()).await.unwrap_err().to_string(),
                format!(
                    "cannot listen on {address} ({key}): Address already in use (os error 98); \
                     `ss -ltnp 'sport = :{port}'` shows by whom, or change {key}"
                )
            );
        }
    }

    #[test]
    fn every_address_of_a_machine_without_ipv6_is_every_one_of_ipv4() {
        let (no_ipv6, taken) = (libc::EAFNOSUPPORT, libc::EADDRINUSE);
        let other = |address: &str, error| in_place_of(address.parse().unwrap(), &io::Error::from_raw_os_error(error));
        assert_eq!(other("[::]:9902", no_ipv6), "0.0.0.0:9902".parse().ok());
        assert_eq!((other("[::]:9902", taken), other("[::1]:9902", no_ipv6)), (None, None));
    }

    #[tokio::test]
    async fn who_waits_at_a_listener_that_is_passed_on_is_served() {
        let directory = tempfile::tempdir().unwrap();
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let any =
            Addresses { listen: Some(free), metrics_listen: Some(free), socket: Some(directory.path().join("s")) };
        let first = Listeners::bind(&any, Inherited::default()).await.unwrap();
        let (listen, metrics) = (first.listen_address().unwrap(), first.metrics_address().unwrap());
        let waiting = tokio::net::TcpStream::connect(metrics).await.unwrap();
        let mut inherited = Inherited::default();
        for (what, copy) in first.copies().unwrap() {
            assert!(inherited.add(&what, copy).is_none());
        }
        // The two have changed places, which no bind would allow.
        let swapped = Addresses { listen: Some(metrics), metrics_listen: Some(listen), ..any };
        let second = Listeners::bind(&swapped, inherited).await.unwrap();
        drop(first);
        let (_, from) = second.tcp.as_ref().unwrap().accept().await.unwrap();
        assert_eq!(from, waiting.local_addr().unwrap());
        assert_eq!((second.listen_address(), second.metrics_address()), (Some(metrics), Some(listen)));
    }

    #[tokio::test]
    async fn an_address_that_is_not_ours_is_an_error_that_says_so() {
        let addresses = Addresses { listen: Some("192.0.2.1:9901".parse().unwrap()), ..Addresses::default() };
        let error = Listeners::bind(&addresses, Inherited::default()).await.unwrap_err().to_string();
        assert!(error.ends_with("no interface of this machine has 192.0.2.1: change admin.listen"), "{error}");
    }

    #[tokio::test]
    async fn a_failed_start_leaves_no_socket_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses =
            Addresses { listen: taken.local_addr().ok(), socket: Some(path.clone()), ..Addresses::default() };
        assert!(Listeners::bind(&addresses, Inherited::default()).await.is_err());
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn one_address_for_everything_and_metrics_is_one_listener() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let addresses = Addresses { listen: Some(free), metrics_listen: Some(free), socket: None };
        let listeners = Listeners::bind(&addresses, Inherited::default()).await.unwrap();
        assert_eq!((listeners.listen_address(), listeners.metrics_address()), (Some(free), None));
    }
}
