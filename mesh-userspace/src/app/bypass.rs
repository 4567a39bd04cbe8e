//! Cgroups that are left alone: from paths in the configuration to ids in the kernel, again and again, because cgroups
//! come and go.

use crate::kernel::{INITS_ROOT, Tables};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The cgroups of `dataplane.bypass.cgroups`.
#[derive(Debug)]
pub(super) struct BypassedCgroups {
    paths: Vec<PathBuf>,
    /// The ids that the kernel was told.
    told: Option<BTreeSet<u64>>,
    /// Whether each was there at the last look, to say only what changes.
    seen: BTreeMap<PathBuf, bool>,
}

impl BypassedCgroups {
    /// Cgroups by their paths in the file system, or by paths below `root`, where cgroup2 is mounted.
    pub(super) fn new(root: &Path, configured: &[String]) -> Self {
        let place = |path: &String| place(root, Path::new(path), Path::exists);
        Self { paths: configured.iter().map(place).collect(), told: None, seen: BTreeMap::new() }
    }

    /// What the kernel was told may not be what it knows now.
    pub(super) fn forget(&mut self) {
        self.told = None;
    }

    /// Tells the kernel which of them are there now.
    pub(super) fn refresh(&mut self, tables: &Tables) {
        let mut ids = BTreeSet::new();
        for path in &self.paths {
            // The id of a cgroup is the inode of its directory.
            let id = fs::metadata(path).ok().filter(fs::Metadata::is_dir).map(|m| m.ino());
            ids.extend(id);
            if self.seen.insert(path.clone(), id.is_some()) != Some(id.is_some()) {
                match id {
                    Some(_) => tracing::info!("processes of {} are left alone", path.display()),
                    None => tracing::warn!(
                        "dataplane.bypass.cgroups: {} is not there; its processes are left alone once it is",
                        path.display()
                    ),
                }
            }
        }
        if self.told.as_ref() != Some(&ids) {
            match tables.set_bypassed(&ids) {
                Ok(()) => self.told = Some(ids),
                Err(why) => tracing::warn!("{why}"),
            }
        }
    }
}

/// Where a cgroup is that is configured as `path`, whether it is there already or not.
fn place(root: &Path, path: &Path, exists: impl Fn(&Path) -> bool) -> PathBuf {
    // Nobody writes down the way by which we look at it (`kernel::cgroup2_root`).
    let mount = root.strip_prefix(INITS_ROOT).map_or_else(|_| root.to_owned(), |below| Path::new("/").join(below));
    if path.starts_with(root) {
        path.to_owned()
    } else if let Ok(below) = path.strip_prefix(mount) {
        root.join(below)
    } else if path.is_absolute() && exists(path) {
        path.to_owned()
    } else {
        root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_found_by_its_whole_path_or_the_one_below_the_root_also_before_it_is_there() {
        for root in ["/proc/1/root/sys/fs/cgroup", "/sys/fs/cgroup"] {
            let place = |path: &str| place(Path::new(root), Path::new(path), |path| path.starts_with("/mnt"));
            for path in ["/sys/fs/cgroup/a/later", "/a/later", "a/later", &format!("{root}/a/later")] {
                assert_eq!(place(path), Path::new(root).join("a/later"), "{path}");
            }
            assert_eq!(place("/mnt/other/a"), Path::new("/mnt/other/a"), "another mount of it");
            assert_eq!(
                place("mnt/other/a"),
                Path::new(root).join("mnt/other/a"),
                "whatever directory the daemon is in"
            );
        }
    }
}
