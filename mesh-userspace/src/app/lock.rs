//! One daemon a cgroup, a pin directory and a state directory: advisory locks, gone with their holder.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

/// Holds places for this process until it is dropped.
#[derive(Debug, Default)]
pub(super) struct Locks(Vec<File>);

/// Why a place cannot be held.
#[derive(Debug, thiserror::Error)]
pub(super) enum LockError {
    /// Another daemon holds it.
    #[error("{what} {path} belongs to a running daemon{}", .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Held { what: &'static str, path: String, pid: Option<u32> },
    /// The system refuses.
    #[error("locking {path}: {source}")]
    Io { path: String, source: io::Error },
}

impl Locks {
    /// Holds one more directory, by a lock on itself: for those in which no file can be made.
    pub(super) fn add(&mut self, what: &'static str, path: &Path) -> Result<(), LockError> {
        self.hold(what, path, File::open(path))
    }

    /// Holds one more directory, by a lock on a file in it that nobody else can open.
    pub(super) fn add_file_in(&mut self, what: &'static str, path: &Path) -> Result<(), LockError> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path.join("lock"));
        self.hold(what, path, file)
    }

    fn hold(&mut self, what: &'static str, path: &Path, file: io::Result<File>) -> Result<(), LockError> {
        let shown = path.display().to_string();
        let file = file.map_err(|source| LockError::Io { path: shown.clone(), source })?;
        match file.try_lock() {
            Ok(()) => self.0.push(file),
            Err(TryLockError::WouldBlock) => {
                let pid = holder(&file);
                if pid.is_none_or(may_be_a_daemon) {
                    return Err(LockError::Held { what, path: shown, pid });
                }
                // Anyone can open a cgroup's directory, and must not be able to keep the daemon from starting.
                tracing::warn!(pid, "{what} {shown} is locked by a process of another user: not heeded");
            }
            Err(TryLockError::Error(source)) => return Err(LockError::Io { path: shown, source }),
        }
        Ok(())
    }
}

/// The process that holds a place, as far as it is known.
pub(super) fn holder_of(path: &Path) -> Option<u32> {
    holder(&File::open(path).ok()?)
}

/// Whether a process runs as this one's user. A daemon that may attach programs does.
fn may_be_a_daemon(pid: u32) -> bool {
    fs::metadata(format!("/proc/{pid}")).is_ok_and(|m| m.uid() == nix::unistd::geteuid().as_raw())
}

/// The process that holds the lock on a file, as `/proc/locks` has it.
fn holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    holder_in(&fs::read_to_string("/proc/locks").ok()?, metadata.dev(), metadata.ino())
}

/// `1: FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF`
fn holder_in(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let place = format!("{:02x}:{:02x}:{inode}", libc::major(device), libc::minor(device));
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&place.as_str()))
            .then(|| fields.get(4)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_one_is_told_who_the_first_one_is() {
        let directory = tempfile::tempdir().unwrap();
        let mut first = Locks::default();
        first.add("state", directory.path()).unwrap();
        let error = Locks::default().add("state", directory.path()).unwrap_err().to_string();
        assert!(error.ends_with(&format!("(pid {})", std::process::id())), "{error}");
        drop(first);
        Locks::default().add("state", directory.path()).unwrap();
    }

    #[test]
    fn only_the_lock_of_this_very_file_counts() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 00:1a:5 0 EOF\n2: FLOCK  ADVISORY  WRITE 8 00:1a:6 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 9 00:1a:5 0 EOF\n";
        assert_eq!(holder_in(locks, libc::makedev(0, 0x1a), 5), Some(9));
        assert_eq!(holder_in(locks, libc::makedev(0, 0x1a), 7), None);
    }
}
