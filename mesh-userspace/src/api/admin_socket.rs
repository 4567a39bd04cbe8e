//! The admin socket: a file that only its owner may open, made in place of a dead one and never of a living one.

use super::listen::BindError;
use std::{
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io::{self, ErrorKind},
    os::{
        fd::AsFd,
        unix::{
            fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
            net,
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{UnixListener, UnixSocket, UnixStream},
    time::sleep,
};

/// What only root, or whoever runs the daemon, may do.
const SOCKET_MODE: u32 = 0o600;
/// How long another daemon's start, on a socket in the same directory, is waited for.
const START_PATIENCE: Duration = Duration::from_secs(5);
/// A daemon that is alive accepts sooner than this.
const PEER_PATIENCE: Duration = Duration::from_secs(1);
const BACKLOG: u32 = 128;

/// The admin socket: its file goes with it, unless another daemon listens there as well.
#[derive(Debug)]
pub(super) struct AdminSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file, so that a successor's is not removed in place of ours.
    file: (u64, u64),
    fate: SocketFile,
}

/// Whether the admin socket's file goes with its listener. Copies say the same.
#[derive(Clone, Debug)]
pub struct SocketFile(Arc<AtomicBool>);

impl SocketFile {
    fn new(goes: bool) -> Self {
        Self(Arc::new(AtomicBool::new(goes)))
    }

    /// Leaves the file to the other daemon that has the listener.
    pub fn leave(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Removes the file when the listener is closed.
    pub fn remove(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl AdminSocket {
    /// Takes an open one over, which is also another daemon's until [`SocketFile::remove`] says otherwise. `None`, if
    /// it is not the one at `path`.
    pub(super) fn inherit(listener: net::UnixListener, path: &Path, file: (u64, u64)) -> io::Result<Option<Self>> {
        let found = fs::symlink_metadata(path);
        if !found.is_ok_and(|found| (found.dev(), found.ino()) == file) {
            return Ok(None);
        }
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        Ok(Some(Self { listener, path: path.to_owned(), file, fate: SocketFile::new(false) }))
    }

    /// Makes it.
    pub(super) async fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |what| move |source| BindError::Socket { path: path.to_owned(), what, source };
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed("making its directory"))?;
        // Two daemons that start at once must not both find a dead socket, and one remove what the other has just made.
        let _lock = lock(directory).await.map_err(failed("locking its directory"))?;
        remove_dead(path).await?;

        let socket = UnixSocket::new_stream().map_err(failed("socket"))?;
        only_owner(&socket).map_err(failed("fchmod"))?;
        socket.bind(path).map_err(failed("bind"))?;
        let made = fs::symlink_metadata(path).map_err(failed("stat"))?;
        if made.permissions().mode() & 0o777 & !SOCKET_MODE != 0 {
            let _ = fs::remove_file(path);
            return Err(failed("its mode")(io::Error::other("the file system does not keep it at 0600")));
        }
        let listener = socket.listen(BACKLOG).map_err(failed("listen"))?;
        let file = (made.dev(), made.ino());
        Ok(Self { listener, path: path.to_owned(), file, fate: SocketFile::new(true) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode of its file.
    pub(super) const fn file(&self) -> (u64, u64) {
        self.file
    }

    pub(super) fn fate(&self) -> SocketFile {
        self.fate.clone()
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let ours = |metadata: fs::Metadata| (metadata.dev(), metadata.ino()) == self.file;
        if self.fate.0.load(Ordering::Relaxed) && fs::symlink_metadata(&self.path).is_ok_and(ours) {
            // Nobody is left to tell; a file that stays is found dead by the next daemon.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes the file that `socket` will be bound to its owner's alone.
///
/// On Linux the mode of an unbound socket becomes the mode of the file that bind makes, so there is no moment at which
/// anyone else could connect. (umask would do the same, but to every thread of the process.)
fn only_owner(socket: &UnixSocket) -> io::Result<()> {
    let descriptor = socket.as_fd().try_clone_to_owned()?;
    File::from(descriptor).set_permissions(Permissions::from_mode(SOCKET_MODE))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[tokio::test]
    async fn only_its_owner_may_open_the_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/admin.sock");
        let _socket = AdminSocket::bind(&path).await.unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[tokio::test]
    async fn the_socket_never_has_a_wider_mode() {
        // The step between bind and listen is the earliest moment at which the file is there.
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let socket = UnixSocket::new_stream().unwrap();
        only_owner(&socket).unwrap();
        socket.bind(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[tokio::test]
    async fn what_a_dead_daemon_left_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let socket = AdminSocket::bind(&path).await.unwrap();
        assert_eq!(mode(&path), 0o600);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_living_daemon_keeps_its_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let first = AdminSocket::bind(&path).await.unwrap();
        let error = AdminSocket::bind(&path).await.unwrap_err().to_string();
        assert!(error.contains(&format!("in use by a running daemon (pid {})", std::process::id())), "{error}");
        assert!(UnixStream::connect(&path).await.is_ok());
        drop(first);
    }

    #[tokio::test]
    async fn a_living_daemon_too_busy_to_accept_keeps_its_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let busy = UnixSocket::new_stream().unwrap();
        busy.bind(&path).unwrap();
        let _busy = busy.listen(1).unwrap();
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(100), UnixStream::connect(&path)).await {
            waiting.push(stream);
        }
        let error = AdminSocket::bind(&path).await.unwrap_err();
        assert!(matches!(error, BindError::InUse { .. }), "{error}");
    }

    #[test]
    fn of_two_that_start_at_once_one_gets_the_socket() {
        for _ in 0..20 {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("s");
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            let starts = (0..4).map(|_| {
                let path = path.clone();
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    // Kept open: one that ends would be dead to the next.
                    runtime.block_on(AdminSocket::bind(&path)).map(|socket| (socket, runtime))
                })
            });
            let ends: Vec<_> = starts.collect::<Vec<_>>().into_iter().map(|start| start.join().unwrap()).collect();
            assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 1);
            assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        }
    }

    #[tokio::test]
    async fn nothing_but_a_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("precious");
        fs::write(&file, "data").unwrap();
        let link = directory.path().join("link");
        symlink(&file, &link).unwrap();
        for path in [&file, &link, &directory.path().to_owned()] {
            let error = AdminSocket::bind(path).await.unwrap_err();
            assert!(matches!(error, BindError::NoSocket { .. }), "{error}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "data");
    }

    #[tokio::test]
    async fn a_path_that_cannot_be_is_an_error_that_names_it() {
        let long = PathBuf::from(format!("/tmp/{}", "x".repeat(120)));
        let below_file = PathBuf::from("/proc/version/admin.sock");
        for path in [long, below_file] {
            let error = AdminSocket::bind(&path).await.unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()) && error.contains("admin.socket"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_socket_that_was_taken_over_stays_until_its_new_owner_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let first = AdminSocket::bind(&path).await.unwrap();
        let copy = || first.listener.as_fd().try_clone_to_owned().unwrap().into();
        let (device, inode) = first.file();
        assert!(AdminSocket::inherit(copy(), &path, (device, inode + 1)).unwrap().is_none(), "not the one at the path");
        let failed = AdminSocket::inherit(copy(), &path, first.file()).unwrap().unwrap();
        drop(failed);
        assert!(path.exists(), "it was never its own");
        let second = AdminSocket::inherit(copy(), &path, first.file()).unwrap().unwrap();
        first.fate().leave();
        drop(first);
        assert!(UnixStream::connect(&path).await.is_ok());
        second.fate().remove();
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_successor_keeps_its_socket_when_the_one_before_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let first = AdminSocket::bind(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        let second = AdminSocket::bind(&path).await.unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }
}
