//! Where the door is: the listeners, and why one cannot be had.

use std::{
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io::{self, ErrorKind},
    net::SocketAddr,
    os::{
        fd::AsFd,
        unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    net::{TcpListener, UnixListener, UnixSocket, UnixStream},
    time::sleep,
};

/// What only root, or whoever runs the daemon, may do.
const SOCKET_MODE: u32 = 0o600;
/// How long another daemon's start, on a socket in the same directory, is waited for.
const START_PATIENCE: Duration = Duration::from_secs(5);
/// A daemon that is alive accepts sooner than this.
const PEER_PATIENCE: Duration = Duration::from_secs(1);
const BACKLOG: u32 = 128;

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

impl Listeners {
    /// Opens all of them, or none.
    ///
    /// # Errors
    /// [`BindError`], naming the address and its key in the configuration.
    pub async fn bind(addresses: &Addresses) -> Result<Self, BindError> {
        // The socket first: of all that can fail, a daemon that is already running explains the rest.
        let socket = match &addresses.socket {
            Some(path) => Some(AdminSocket::bind(path).await?),
            None => None,
        };
        let tcp = tcp("admin.listen", addresses.listen).await?;
        let metrics = tcp_unless_same(addresses, &tcp).await?;
        Ok(Self { tcp, metrics, socket })
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

async fn tcp(key: &'static str, address: Option<SocketAddr>) -> Result<Option<TcpListener>, BindError> {
    let Some(address) = address else { return Ok(None) };
    TcpListener::bind(address).await.map(Some).map_err(|source| BindError::Tcp { key, address, source })
}

/// One address for both keys needs one listener: the one that serves everything has metrics as well.
async fn tcp_unless_same(
    addresses: &Addresses,
    tcp_listener: &Option<TcpListener>,
) -> Result<Option<TcpListener>, BindError> {
    let same = addresses.metrics_listen == addresses.listen && addresses.listen.is_some_and(|a| a.port() != 0);
    if same && tcp_listener.is_some() {
        return Ok(None);
    }
    tcp("admin.metrics_listen", addresses.metrics_listen).await
}

/// The admin socket: its file goes with it.
#[derive(Debug)]
pub(super) struct AdminSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file, so that a successor's is not removed in place of ours.
    file: (u64, u64),
}

impl AdminSocket {
    async fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |what| move |source| BindError::Socket { path: path.to_owned(), what, source };
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(failed("making its directory"))?;
        // Two daemons that start at once must not both find a dead socket, and one remove what the other has just made.
        let _lock = lock(directory).await.map_err(failed("locking its directory"))?;
        remove_dead(path).await?;

        let socket = UnixSocket::new_stream().map_err(failed("socket"))?;
        // On Linux the mode of an unbound socket is the mode of the file that bind makes, so there is no moment at
        // which anyone else could connect. (umask would do the same, but to every thread of the process.)
        let descriptor = socket.as_fd().try_clone_to_owned().map_err(failed("dup"))?;
        File::from(descriptor).set_permissions(Permissions::from_mode(SOCKET_MODE)).map_err(failed("fchmod"))?;
        socket.bind(path).map_err(failed("bind"))?;
        let made = fs::symlink_metadata(path).map_err(failed("stat"))?;
        if made.permissions().mode() & 0o777 & !SOCKET_MODE != 0 {
            let _ = fs::remove_file(path);
            return Err(failed("its mode")(io::Error::other("the file system does not keep it at 0600")));
        }
        let listener = socket.listen(BACKLOG).map_err(failed("listen"))?;
        Ok(Self { listener, path: path.to_owned(), file: (made.dev(), made.ino()) })
    }
}

impl AdminSocket {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let ours = |metadata: fs::Metadata| (metadata.dev(), metadata.ino()) == self.file;
        if fs::symlink_metadata(&self.path).is_ok_and(ours) {
            // Nobody is left to tell; a file that stays is found dead by the next daemon.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Holds off other starts in this directory. The lock goes with the file, and with the process.
async fn lock(directory: &Path) -> io::Result<Option<File>> {
    let file = File::open(directory)?;
    let step = Duration::from_millis(20);
    let mut waited = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if waited < START_PATIENCE => {
                sleep(step).await;
                waited += step;
            }
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(ErrorKind::TimedOut, "another process holds it"));
            }
            // A file system without locks is no reason not to start.
            Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(e),
        }
    }
}

/// Removes the socket that a dead daemon left; refuses to touch anything else.
async fn remove_dead(path: &Path) -> Result<(), BindError> {
    let failed = |what| move |source| BindError::Socket { path: path.to_owned(), what, source };
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed("stat")(e)),
        Ok(found) if !found.file_type().is_socket() => return Err(BindError::NoSocket { path: path.to_owned() }),
        Ok(_) => {}
    }
    match tokio::time::timeout(PEER_PATIENCE, UnixStream::connect(path)).await {
        Ok(Err(e)) if e.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("removing what a dead daemon left"))
        }
        Ok(Err(e)) if e.kind() == ErrorKind::NotFound => Ok(()),
        // Connected, or alive and too busy to be connected to.
        Ok(Ok(stream)) => {
            let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
            Err(BindError::InUse { path: path.to_owned(), pid })
        }
        Err(_) => Err(BindError::InUse { path: path.to_owned(), pid: None }),
        Ok(Err(e)) if e.kind() == ErrorKind::WouldBlock => Err(BindError::InUse { path: path.to_owned(), pid: None }),
        Ok(Err(e)) => Err(failed("asking who listens there")(e)),
    }
}
