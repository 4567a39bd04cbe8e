//! The configuration files as a source of facts: when they changed, and when they are still.

use crate::config;
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Looks at the files' metadata, a system call each. No watch: a ConfigMap is replaced by renaming a link in another
/// directory, editors replace files, and `conf.d` may appear later; a look from time to time sees all of that.
#[derive(Debug)]
pub(super) struct Watch {
    named: Option<PathBuf>,
    /// What the last look saw.
    seen: Vec<Stamp>,
    /// What was loaded last.
    loaded: Vec<Stamp>,
}

/// What tells one state of a file from another: path, inode, size, time of change in nanoseconds.
type Stamp = (PathBuf, u64, u64, i64, i64);

impl Watch {
    /// Takes the files as they are for loaded.
    pub(super) fn new(named: Option<&Path>) -> Self {
        let seen = stamps(named);
        Self { named: named.map(Path::to_path_buf), loaded: seen.clone(), seen }
    }

    /// Whether the files are others than at the last call that said so, and nobody is writing them any more: two
    /// looks in a row saw the same.
    pub(super) fn changed(&mut self) -> bool {
        let now = stamps(self.named.as_deref());
        let still = now == self.seen;
        self.seen = now;
        let changed = still && self.seen != self.loaded;
        if changed {
            self.loaded.clone_from(&self.seen);
        }
        changed
    }
}

fn stamps(named: Option<&Path>) -> Vec<Stamp> {
    let (main, directory) = config::places(named);
    let mut paths = vec![main];
    if let Ok(entries) = fs::read_dir(directory) {
        paths.extend(entries.filter_map(Result::ok).map(|entry| entry.path()));
    }
    paths.sort();
    let stamp = |path: PathBuf| {
        let m = fs::metadata(&path).ok()?;
        Some((path, m.ino(), m.size(), m.ctime(), m.ctime_nsec()))
    };
    paths.into_iter().filter_map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once_and_only_when_it_is_over() {
        let directory = tempfile::tempdir().unwrap();
        let main = directory.path().join("mesh.yaml");
        fs::write(&main, "a").unwrap();
        let mut watch = Watch::new(Some(&main));
        assert!(!watch.changed());
        fs::write(&main, "half").unwrap();
        assert!(!watch.changed(), "it may still be written");
        fs::write(&main, "whole thing").unwrap();
        assert!(!watch.changed());
        assert!(watch.changed());
        assert!(!watch.changed());
        fs::create_dir(directory.path().join("conf.d")).unwrap();
        fs::write(directory.path().join("conf.d/a.yaml"), "b").unwrap();
        assert!(!watch.changed());
        assert!(watch.changed());
    }
}
