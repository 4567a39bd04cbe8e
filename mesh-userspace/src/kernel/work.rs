//! Programs at work on one cgroup, and what may become of that while they are.

use super::sys;
use std::{
    fmt, fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::PathBuf,
};

/// Links to one cgroup.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Where the cgroup is, or was.
    pub(super) cgroup: PathBuf,
    /// What tells it from one that was made later in its place.
    pub(super) inode: u64,
    /// By program.
    pub(super) links: Vec<(&'static str, OwnedFd)>,
    /// Optional programs that could not be attached, and why.
    pub(super) missing: Vec<(&'static str, String)>,
}

/// Why programs that were attached are not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detached {
    /// There is no such cgroup any more.
    CgroupGone,
    /// It was removed and made again.
    CgroupRenewed,
    /// The cgroup is the same: somebody took them off it.
    Unloaded,
}

impl Work {
    /// Whether a program's link still holds it to a living cgroup.
    pub(super) fn is_attached(&self, program: &str) -> bool {
        let link = self.links.iter().find(|(name, _)| *name == program);
        link.is_some_and(|(_, link)| sys::link_info(link.as_fd()).is_ok_and(|info| info.cgroup != 0))
    }

    /// What became of the cgroup of programs that are not attached any more.
    pub(super) fn detached(&self) -> Detached {
        match fs::metadata(&self.cgroup) {
            Err(_) => Detached::CgroupGone,
            Ok(now) if now.ino() == self.inode => Detached::Unloaded,
            Ok(_) => Detached::CgroupRenewed,
        }
    }
}

impl fmt::Display for Detached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CgroupGone => "detached: their cgroup is gone; they are attached again as soon as it is back",
            Self::CgroupRenewed => "detached: their cgroup was made again; they are attached to it in a moment",
            Self::Unloaded => {
                "detached: somebody took them off the cgroup (`mesh unload --force`?); restart the daemon to attach \
                 them again"
            }
        })
    }
}
