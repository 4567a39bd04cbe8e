//! Cgroups that are left alone: from paths in the configuration to ids in the kernel, again and again, because cgroups
//! come and go.

use crate::kernel::Tables;
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
        let place = |path: &String| match Path::new(path) {
            // Also if it is not there yet.
            whole if whole.starts_with(root) || whole.exists() => whole.to_owned(),
            below => root.join(below.strip_prefix("/").unwrap_or(below)),
        };
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
