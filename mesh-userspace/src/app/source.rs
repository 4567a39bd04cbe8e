//! The configuration files as a source of facts: when they changed, and when they are still.

use crate::config;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher, event::AccessKind, event::AccessMode};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Notify, time::sleep};

/// How long files are left alone after something stirred, before they are looked at again: an editor or a copy is done by
/// then, or stirs again.
const SETTLE: Duration = Duration::from_millis(50);

/// Looks at the files' metadata, a system call each, whenever something stirs in their directories, and from time to time
/// besides: what is mounted over the network stirs nothing here. What a watch tells is only that it is worth a look: a
/// ConfigMap is replaced by renaming a link in another directory, editors replace files, and `conf.d` may appear later.
#[derive(Debug)]
pub(super) struct Watch {
    named: Option<PathBuf>,
    /// What the last look saw.
    seen: Vec<Stamp>,
    /// What was loaded last; `None`: not what is there, whatever that is.
    loaded: Option<Vec<Stamp>>,
    /// Who watches directories; `None`: nobody can, and looks have to do.
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    stirred: Arc<Notify>,
}

/// What tells one state of a file from another: path, inode, size, time of change in nanoseconds; `None`: what stands there
/// leads nowhere, which is not the same as nothing.
type Stamp = (PathBuf, Option<(u64, u64, i64, i64)>);

/// Tells when something stirs.
#[derive(Debug)]
pub(super) struct Stirred(Arc<Notify>);

impl Stirred {
    /// Waits until something stirs where the files are, and a moment longer.
    pub(super) async fn wait(&self) {
        self.0.notified().await;
        sleep(SETTLE).await;
    }
}

impl Watch {
    /// Takes the files as they are for loaded. With why nothing tells when they stir, where nothing does: it is before
    /// there is a log.
    pub(super) fn new(named: Option<&Path>) -> (Self, Option<notify::Error>) {
        let seen = stamps(named);
        let stirred = Arc::new(Notify::new());
        let tell = Arc::clone(&stirred);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error may mean that events were lost: worth a look, too.
            if event.map_or(true, |event| is_change(event.kind)) {
                tell.notify_one();
            }
        });
        let (watcher, error) = match watcher {
            Ok(watcher) => (Some(watcher), None),
            Err(e) => (None, Some(e)),
        };
        let named = named.map(Path::to_path_buf);
        let mut watch = Self { named, loaded: Some(seen.clone()), seen, watcher, watched: BTreeSet::new(), stirred };
        watch.follow();
        (watch, error)
    }

    /// Who tells when something stirs where the files are.
    pub(super) fn stirred(&self) -> Stirred {
        Stirred(Arc::clone(&self.stirred))
    }

    /// What the last call of [`Watch::changed`] told was not loaded after all, and is told again.
    pub(super) fn not_loaded(&mut self) {
        self.loaded = None;
    }

    /// Whether the files are others than at the last call that said so, and nobody is writing them any more: two
    /// looks in a row saw the same.
    pub(super) fn changed(&mut self) -> bool {
        self.follow();
        let now = stamps(self.named.as_deref());
        let still = now == self.seen;
        self.seen = now;
        let changed = still && self.loaded.as_ref() != Some(&self.seen);
        if changed {
            self.loaded = Some(self.seen.clone());
        } else if !still {
            // Looked at again soon, whether more stirs or not.
            self.stirred.notify_one();
        }
        changed
    }

    /// Watches the directories that matter now.
    fn follow(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        let wanted = directories(self.named.as_deref());
        for gone in self.watched.difference(&wanted) {
            // One that was removed is not watched any more already.
            let _ = watcher.unwatch(gone);
        }
        self.watched.retain(|directory| wanted.contains(directory));
        for directory in wanted {
            if !self.watched.contains(&directory) && watcher.watch(&directory, RecursiveMode::NonRecursive).is_ok() {
                self.watched.insert(directory);
            }
        }
    }
}

/// Whether something may be another than it was. That files were read is none: the daemon does it itself.
fn is_change(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

/// The directories in which something has to happen when a file becomes another one: where it is, and where links lead.
fn directories(named: Option<&Path>) -> BTreeSet<PathBuf> {
    let (main, conf) = config::places(named);
    let mut directories = BTreeSet::new();
    for file in files(main, &conf) {
        let parent =
            |path: &Path| path.parent().map(|p| if p.as_os_str().is_empty() { ".".into() } else { p.to_path_buf() });
        directories.extend(parent(&file));
        directories.extend(fs::canonicalize(&file).ok().as_deref().and_then(parent));
    }
    directories.insert(conf);
    directories.retain(|directory| directory.is_dir());
    directories
}

/// What is there, of what is read.
fn files(main: PathBuf, conf: &Path) -> Vec<PathBuf> {
    let mut paths = vec![main];
    let entries = fs::read_dir(conf).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    paths.extend(entries.filter(|path| config::is_read(path)));
    paths.sort();
    paths
}

fn stamps(named: Option<&Path>) -> Vec<Stamp> {
    let (main, conf) = config::places(named);
    let stamp = |path: PathBuf| {
        fs::symlink_metadata(&path).ok()?;
        let state = fs::metadata(&path).ok().map(|m| (m.ino(), m.size(), m.ctime(), m.ctime_nsec()));
        Some((path, state))
    };
    // A directory in its place, or none, is told from an empty one.
    let directory = conf.is_dir().then(|| (conf.clone(), None));
    files(main, &conf).into_iter().filter_map(stamp).chain(directory).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once_and_only_when_it_is_over() {
        let directory = tempfile::tempdir().unwrap();
        let main = directory.path().join("mesh.yaml");
        fs::write(&main, "a").unwrap();
        let (mut watch, _) = Watch::new(Some(&main));
        assert!(!watch.changed());
        fs::write(&main, "half").unwrap();
        assert!(!watch.changed(), "it may still be written");
        fs::write(&main, "whole thing").unwrap();
        assert!(!watch.changed());
        assert!(watch.changed());
        assert!(!watch.changed());
        watch.not_loaded();
        assert!(watch.changed(), "not loaded, and so told again");
        assert!(!watch.changed());
        fs::create_dir(directory.path().join("conf.d")).unwrap();
        fs::write(directory.path().join("conf.d/a.yaml"), "b").unwrap();
        assert!(!watch.changed());
        assert!(watch.changed());
        // A link that leads nowhere is something, which is over when it is gone.
        let link = directory.path().join("conf.d/b.yaml");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(!watch.changed());
        assert!(watch.changed());
        fs::remove_file(&link).unwrap();
        assert!(!watch.changed());
        assert!(watch.changed());
        fs::write(directory.path().join("conf.d/noise.log"), "nobody reads it").unwrap();
        assert!(!watch.changed() && !watch.changed());
    }

    #[tokio::test]
    async fn whatever_replaces_a_file_stirs() {
        let directory = tempfile::tempdir().unwrap();
        // As the kubelet lays a ConfigMap out.
        let at = |name: &str| directory.path().join(name);
        for (version, text) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("mesh.yaml"), text).unwrap();
        }
        std::os::unix::fs::symlink("..1", at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/mesh.yaml", at("mesh.yaml")).unwrap();
        let (mut watch, _) = Watch::new(Some(&at("mesh.yaml")));
        let steps: [&dyn Fn(); 3] = [
            &|| {
                std::os::unix::fs::symlink("..2", at("..new")).unwrap();
                fs::rename(at("..new"), at("..data")).unwrap();
            },
            &|| {
                fs::write(at("mesh.yaml~"), "three").unwrap();
                fs::rename(at("mesh.yaml~"), at("mesh.yaml")).unwrap();
            },
            &|| fs::create_dir(at("conf.d")).unwrap(),
        ];
        for (i, step) in steps.iter().enumerate() {
            step();
            let mut changed = false;
            while !changed && i < 2 {
                tokio::time::timeout(Duration::from_secs(20), watch.stirred().wait()).await.unwrap();
                changed = watch.changed();
            }
        }
        watch.changed();
        fs::write(at("conf.d/a.yaml"), "a").unwrap();
        while !watch.changed() {
            tokio::time::timeout(Duration::from_secs(20), watch.stirred().wait()).await.unwrap();
        }
    }
}
