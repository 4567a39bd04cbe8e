//! One daemon a cgroup and a pin directory: an advisory lock on the directories themselves, gone with its holder.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

/// Holds directories for this process until it is dropped.
#[derive(Debug, Default)]
pub(super) struct Locks(Vec<File>);

/// Why a directory cannot be held.
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
    /// Holds one more directory.
    pub(super) fn add(&mut self, what: &'static str, path: &Path) -> Result<(), LockError> {
        let shown = path.display().to_string();
        let file = File::open(path).map_err(|source| LockError::Io { path: shown.clone(), source })?;
        match file.try_lock() {
            Ok(()) => {
                self.0.push(file);
                Ok(())
            }
            Err(TryLockError::WouldBlock) => Err(LockError::Held { what, path: shown, pid: holder(&file) }),
            Err(TryLockError::Error(source)) => Err(LockError::Io { path: shown, source }),
        }
    }
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
