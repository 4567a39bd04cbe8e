//! Where the cgroup of an id is.

use super::cgroup2_root;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};
use std::{
    collections::HashMap,
    fs::{self, File},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
};

/// `FILEID_KERNFS` of include/linux/exportfs.h: a handle that is nothing but an inode's id.
const FILEID_KERNFS: i32 = 0xfe;

/// `struct file_handle` of one id.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    id: u64,
}

/// Paths of cgroups by their id (the inode of their directory). Remembers what it found: make one for each listing.
#[derive(Debug)]
pub struct CgroupPaths {
    /// The root of the hierarchy, and its path as the kernel writes it.
    root: Option<(File, PathBuf)>,
    known: HashMap<u64, Option<String>>,
}

impl CgroupPaths {
    /// Paths from the root of the hierarchy that the host mounted.
    #[must_use]
    pub fn new() -> Self {
        Self { root: cgroup2_root().ok().and_then(|root| open(&root)), known: HashMap::new() }
    }

    /// The path of cgroup `id` from the root, as /proc/PID/cgroup shows it; `None` if it is gone, or if we may not ask.
    pub fn path(&mut self, id: u64) -> Option<&str> {
        let Self { root, known } = self;
        known.entry(id).or_insert_with(|| find(root.as_ref()?, id)).as_deref()
    }
}

impl Default for CgroupPaths {
    fn default() -> Self {
        Self::new()
    }
}

fn open(root: &Path) -> Option<(File, PathBuf)> {
    let file = File::open(root).ok()?;
    let path = path_of(&file)?;
    Some((file, path))
}

fn find((root, at): &(File, PathBuf), id: u64) -> Option<String> {
    let mut handle = Handle { bytes: size_of::<u64>() as u32, kind: FILEID_KERNFS, id };
    // SAFETY: the handle is as long as it says; libc's type is its head. The kernel opens a new descriptor.
    let directory = unsafe {
        let fd = libc::open_by_handle_at(
            root.as_raw_fd(),
            (&raw mut handle).cast(),
            libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC,
        );
        if fd < 0 {
            return None;
        }
        File::from(OwnedFd::from_raw_fd(fd))
    };
    // The id was looked up in whatever file system the root is on.
    if !fstatfs(&directory).is_ok_and(|s| s.filesystem_type() == CGROUP2_SUPER_MAGIC) {
        return None;
    }
    let path = path_of(&directory)?;
    let below = path.strip_prefix(at).ok()?.to_string_lossy();
    // The kernel's word for a directory that was removed while somebody held it.
    if below.ends_with(" (deleted)") {
        return None;
    }
    Some(format!("/{below}"))
}

fn path_of(file: &File) -> Option<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn our_own_cgroup_is_found_by_its_id() {
        let mut paths = CgroupPaths::new();
        let Some((_, root)) = &paths.root else {
            eprintln!("skipped: needs cgroup2");
            return;
        };
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap().to_owned();
        let id = fs::metadata(root.join(own.trim_start_matches('/'))).unwrap().ino();
        let root_id = fs::metadata(root).unwrap().ino();
        if find(paths.root.as_ref().unwrap(), root_id).is_none() {
            eprintln!("skipped: needs CAP_DAC_READ_SEARCH");
            return;
        }
        assert_eq!(paths.path(id), Some(own.as_str()));
        assert_eq!(paths.path(root_id), Some("/"));
        assert_eq!(paths.path(u64::MAX), None);
    }
}
