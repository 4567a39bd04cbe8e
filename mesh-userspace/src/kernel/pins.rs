//! What we leave in bpffs: `<dataplane.bpffs>/v<LAYOUT>/{maps,links}`. Pins keep the data path working without us.

use super::{KernelError, sys};
use aya::maps::MapInfo;
use mesh_common::names;
use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

/// The pin directories of this layout version.
#[derive(Clone, Debug)]
pub struct Pins {
    bpffs: PathBuf,
    root: PathBuf,
}

/// The maps that an earlier daemon pinned.
pub(super) enum Found {
    /// There are none.
    Nothing,
    /// All there, of the right shapes, with these many entries in the order that was asked for.
    Fit(Vec<u32>),
    /// Not to be used, and why.
    Unfit(String),
}

/// The shape a pinned map must have before it is trusted. `entries` is the least that will do; 0: not counted.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) kind: u32,
    pub(super) key: u32,
    pub(super) value: u32,
    pub(super) flags: u32,
    pub(super) entries: u32,
}

impl Pins {
    /// The pins below `bpffs`, which is a directory on a bpf file system.
    #[must_use]
    pub fn new(bpffs: &Path) -> Self {
        Self { bpffs: bpffs.to_owned(), root: bpffs.join(format!("v{}", names::LAYOUT)) }
    }

    /// The directory of all layouts.
    pub(super) fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// The directory of this layout.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where a map is pinned.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
    }

    /// Where a program's link is pinned.
    #[must_use]
    pub fn link(&self, program: &str) -> PathBuf {
        self.root.join("links").join(program)
    }

    /// Whether anything is attached through these pins.
    #[must_use]
    pub fn any_link(&self) -> bool {
        fs::read_dir(self.root.join("links")).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Makes the directories.
    ///
    /// # Errors
    /// [`KernelError::Bpffs`].
    pub(super) fn create(&self) -> Result<(), KernelError> {
        for directory in ["maps", "links"] {
            let path = self.root.join(directory);
            fs::create_dir_all(&path).map_err(|e| KernelError::Bpffs { path, why: e.to_string() })?;
        }
        Ok(())
    }

    /// Compares the pinned maps with what is wanted.
    pub(super) fn check(&self, wanted: &[Shape]) -> Found {
        let present: Vec<bool> = wanted.iter().map(|w| self.map(w.name).exists()).collect();
        if present.iter().all(|p| !p) {
            return Found::Nothing;
        }
        let mut sizes = Vec::with_capacity(wanted.len());
        for (shape, present) in wanted.iter().zip(present) {
            match self.size(shape, present) {
                Ok(size) => sizes.push(size),
                Err(why) => return Found::Unfit(format!("map {}: {why}", shape.name)),
            }
        }
        Found::Fit(sizes)
    }

    /// How many entries a pinned map holds, if it has the right shape.
    fn size(&self, shape: &Shape, present: bool) -> Result<u32, String> {
        if !present {
            return Err("it is missing".to_owned());
        }
        let info = MapInfo::from_pin(self.map(shape.name)).map_err(|e| super::error::chain(&e))?;
        let kind = info.map_type().map_or(0, |t| t as u32);
        let found = [kind, info.key_size(), info.value_size(), info.map_flags()];
        let expected = [shape.kind, shape.key, shape.value, shape.flags];
        for ((what, found), expected) in ["type", "key size", "value size", "flags"].iter().zip(found).zip(expected) {
            if found != expected {
                return Err(format!("its {what} is {found}, not {expected}"));
            }
        }
        Ok(info.max_entries())
    }

    /// Takes a program off its cgroup and forgets its link.
    pub(super) fn remove_link(&self, program: &str) -> Result<(), KernelError> {
        remove(&self.link(program))
    }

    /// Forgets the pinned maps. Programs that use them keep them alive until they are replaced.
    pub(super) fn remove_maps(&self) -> Result<(), KernelError> {
        remove_files(&self.root.join("maps")).map(drop)
    }
}

/// Takes everything that any version of the daemon pinned below `bpffs` out of the kernel. Links go first: nothing is
/// translated by programs whose tables are gone. Returns what was removed, in that order.
///
/// # Errors
/// [`KernelError::Io`], if something could not be removed.
pub fn unload(bpffs: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let versions = versions(bpffs)?;
    let mut removed = Vec::new();
    for version in &versions {
        removed.extend(remove_files(&version.join("links"))?);
    }
    for version in &versions {
        removed.extend(unload_version(version)?);
    }
    // The directory itself, unless somebody else keeps something in it.
    let _ = fs::remove_dir(bpffs);
    Ok(removed)
}

/// Takes what one version pinned out of the kernel.
pub(super) fn unload_version(version: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let mut removed = Vec::new();
    for kind in ["links", "maps"] {
        let directory = version.join(kind);
        removed.extend(remove_files(&directory)?);
        remove_directory(&directory)?;
    }
    remove_directory(version)?;
    Ok(removed)
}

/// The directories of all versions below `bpffs`.
pub(super) fn versions(bpffs: &Path) -> Result<Vec<PathBuf>, KernelError> {
    match fs::read_dir(bpffs) {
        Ok(entries) => Ok(entries.filter_map(Result::ok).map(|e| e.path()).filter(|p| is_version(p)).collect()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(KernelError::io(format!("reading {}", bpffs.display()), e)),
    }
}

fn is_version(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    name.strip_prefix('v').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) && path.is_dir()
}

fn remove_files(directory: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(KernelError::io(format!("reading {}", directory.display()), e)),
    };
    let mut removed = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        remove(&path)?;
        removed.push(path);
    }
    Ok(removed)
}

/// Forgets a pin; the program of a link is taken off its cgroup at once.
pub(super) fn remove(path: &Path) -> Result<(), KernelError> {
    detach(path);
    fs::remove_file(path).map_err(|e| KernelError::io(format!("removing {}", path.display()), e))
}

/// Takes a pinned link's program off its cgroup. A pin that is no link, or whose cgroup is gone, has nothing to take off.
fn detach(pin: &Path) {
    if let Ok(link) = sys::obj_get(pin) {
        let _ = sys::link_detach(link.as_fd());
    }
}

fn remove_directory(path: &Path) -> Result<(), KernelError> {
    match fs::remove_dir(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(KernelError::io(format!("removing {}", path.display()), e)),
    }
}
