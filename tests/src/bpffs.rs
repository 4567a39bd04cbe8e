//! A directory for pins, of one daemon of one test.

use crate::{cgroup, ports};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Once,
};

const MOUNT_POINT: &str = "/sys/fs/bpf";

/// A name in bpffs that no other test uses. The daemon makes the directory.
#[derive(Debug)]
pub struct PinDirectory {
    path: PathBuf,
}

impl PinDirectory {
    /// Mounts bpffs if it is not mounted, and picks a name.
    ///
    /// # Errors
    /// Where bpffs can be neither found nor mounted.
    pub fn new() -> io::Result<Self> {
        static SWEEP: Once = Once::new();
        let root = mount()?;
        SWEEP.call_once(|| {
            for path in cgroup::leftovers(&root) {
                let _ = fs::remove_dir_all(path);
            }
        });
        Ok(Self { path: root.join(cgroup::unique_name()) })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Everything pinned below it.
    #[must_use]
    pub fn pins(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        list(&self.path, &mut found);
        found.sort();
        found
    }
}

impl Drop for PinDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn list(directory: &Path, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.path()) {
        if path.is_dir() { list(&path, found) } else { found.push(path) }
    }
}

fn mount() -> io::Result<PathBuf> {
    // Tests start at once in many processes: two mounts on top of one another would hide the pins of the first.
    let _lock = ports::lock("bpffs-mount", true)?;
    if let Some(path) = cgroup::mounted("bpf") {
        return Ok(path);
    }
    fs::create_dir_all(MOUNT_POINT)?;
    nix::mount::mount(Some("bpf"), MOUNT_POINT, Some("bpf"), nix::mount::MsFlags::empty(), None::<&str>)?;
    Ok(PathBuf::from(MOUNT_POINT))
}
