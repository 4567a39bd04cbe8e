//! One daemon a cgroup, a pin directory and a state directory: advisory locks, gone with their holder.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

/// Holds places for this process until it is dropped.
#[derive(Debug, Default)]
pub(super) struct Locks {
    held: Vec<(PathBuf, File)>,
    /// Locks that another daemon passed on and that nobody has asked for yet.
    inherited: Vec<File>,
}

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
    /// Uses the locks of another daemon, which it passed on, where they are on the same files: they lapse at no moment.
    pub(super) fn inheriting(inherited: Vec<File>) -> Self {
        Self { held: Vec::new(), inherited }
    }

    /// Lets go of inherited locks that nobody has asked for.
    pub(super) fn forget_the_rest(&mut self) {
        self.inherited.clear();
    }

    /// Copies to pass on.
    pub(super) fn copies(&self) -> io::Result<Vec<(PathBuf, OwnedFd)>> {
        self.held.iter().map(|(path, file)| Ok((path.clone(), file.try_clone()?.into()))).collect()
    }

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
        let same = |other: &File| same_file(other, &file) && other.try_lock().is_ok();
        if let Some(found) = self.inherited.iter().position(same) {
            self.held.push((path.to_owned(), self.inherited.swap_remove(found)));
            return Ok(());
        }
        match file.try_lock() {
            Ok(()) => self.held.push((path.to_owned(), file)),
            Err(TryLockError::WouldBlock) => match holder(&file) {
                Holder::Daemon(pid) => return Err(LockError::Held { what, path: shown, pid: Some(pid) }),
                Holder::Unknown => return Err(LockError::Held { what, path: shown, pid: None }),
                // Anyone can open a cgroup's directory, and must not be able to keep the daemon from starting.
                Holder::Other(pid) => {
                    tracing::warn!(pid, "{what} {shown} is locked by a process of another user: not heeded");
                }
            },
            Err(TryLockError::Error(source)) => return Err(LockError::Io { path: shown, source }),
        }
        Ok(())
    }
}

fn same_file(a: &File, b: &File) -> bool {
    let identity = |file: &File| file.metadata().map(|m| (m.dev(), m.ino()));
    matches!((identity(a), identity(b)), (Ok(a), Ok(b)) if a == b)
}

/// The process that holds a place, as far as it is known.
pub(super) fn holder_of(path: &Path) -> Option<u32> {
    match holder(&File::open(path).ok()?) {
        Holder::Daemon(pid) | Holder::Other(pid) => Some(pid),
        Holder::Unknown => None,
    }
}

/// Who holds a lock.
enum Holder {
    /// A process of this one's user, as a daemon is that may attach programs.
    Daemon(u32),
    /// A process of another user.
    Other(u32),
    /// It cannot be seen from here.
    Unknown,
}

/// The process that holds the lock on a file.
fn holder(file: &File) -> Holder {
    let Ok(metadata) = file.metadata() else { return Holder::Unknown };
    let place = format!("{:02x}:{:02x}:{}", libc::major(metadata.dev()), libc::minor(metadata.dev()), metadata.ino());
    // The descriptor may have been passed on since: what counts is who has it now, not who locked it.
    let mut other = None;
    for pid in processes() {
        if has_lock(pid, &place) {
            if is_ours(pid) == Some(true) {
                return Holder::Daemon(pid);
            }
            other = Some(pid);
        }
    }
    // The descriptors of a process with more privileges than this one do not show. The one that locked may be gone.
    let locked = || fs::read_to_string("/proc/locks").ok().and_then(|locks| locker(&locks, &place));
    match other.or_else(locked) {
        Some(pid) => match is_ours(pid) {
            Some(true) => Holder::Daemon(pid),
            Some(false) => Holder::Other(pid),
            None => Holder::Unknown,
        },
        None => Holder::Unknown,
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Whether a process has a descriptor with the lock on the file at `place`.
fn has_lock(pid: u32, place: &str) -> bool {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| fs::read_to_string(entry.path()).ok()).any(|info| {
        let locks = info.lines().filter_map(|line| line.strip_prefix("lock:"));
        locks.filter_map(|line| locker(line.trim_start(), place)).next().is_some()
    })
}

/// Whether a process runs as this one's user; `None`, if there is no such process.
fn is_ours(pid: u32) -> Option<bool> {
    fs::metadata(format!("/proc/{pid}")).ok().map(|m| m.uid() == nix::unistd::geteuid().as_raw())
}

/// The process that locked the file at `place`, in lines of `/proc/locks`:
/// `1: FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF`
fn locker(locks: &str, place: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&place)).then(|| fields.get(4)?.parse().ok())?
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
    fn a_lock_that_was_passed_on_never_lapses() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let mut first = Locks::default();
        first.add("state", path).unwrap();
        let copies = || first.copies().unwrap().into_iter().map(|(_, fd)| File::from(fd)).collect();
        let mut failed = Locks::inheriting(copies());
        failed.add("state", path).unwrap();
        drop(failed);
        Locks::default().add("state", path).unwrap_err();
        let mut second = Locks::inheriting(copies());
        second.add("state", path).unwrap();
        drop(first);
        let error = Locks::default().add("state", path).unwrap_err().to_string();
        assert!(error.ends_with(&format!("(pid {})", std::process::id())), "{error}");
        drop(second);
        // What was passed on and is of another place is of no use there.
        let other = tempfile::tempdir().unwrap();
        let mut third = Locks::default();
        third.add("state", path).unwrap();
        let mut fourth = Locks::inheriting(third.copies().unwrap().into_iter().map(|(_, fd)| File::from(fd)).collect());
        fourth.add("state", other.path()).unwrap();
        Locks::default().add("state", other.path()).unwrap_err();
    }

    #[test]
    fn only_the_lock_of_this_very_file_counts() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 00:1a:5 0 EOF\n2: FLOCK  ADVISORY  WRITE 8 00:1a:6 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 9 00:1a:5 0 EOF\n";
        assert_eq!(locker(locks, "00:1a:5"), Some(9));
        assert_eq!(locker(locks, "00:1a:7"), None);
    }
}
