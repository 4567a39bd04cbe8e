//! Pins that somebody took away under a running daemon. Its descriptors keep links and maps alive; only the next daemon
//! would not find them, so they are pinned again.

use super::{Kernel, KernelError, Pins, sys};
use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

/// What is pinned, by descriptors.
#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) pins: Pins,
    /// By their place.
    pub(super) maps: Vec<(PathBuf, OwnedFd)>,
}

impl Pinned {
    /// Opens the pinned maps, those that were set aside too. What is no map is not ours to keep.
    pub(super) fn open(pins: &Pins) -> Result<Self, KernelError> {
        let directory = pins.map("");
        let entries =
            fs::read_dir(&directory).map_err(|e| KernelError::io(format!("reading {}", directory.display()), e))?;
        let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
        let maps = paths.filter_map(|path| sys::obj_get(&path).ok().map(|map| (path, map))).collect();
        Ok(Self { pins: pins.clone(), maps })
    }
}

impl Kernel {
    /// Whether pins of programs that are attached, or of their maps, are not where they were.
    #[must_use]
    pub fn pins_lost(&self) -> bool {
        self.lost().is_some_and(|lost| !lost.is_empty())
    }

    /// Pins what is not pinned any more. Returns how many pins that were.
    ///
    /// # Errors
    /// [`KernelError`], where the directory cannot be made or the kernel refuses.
    pub fn pin_again(&self) -> Result<usize, KernelError> {
        if let Some(pinned) = &self.pinned {
            pinned.pins.create()?;
        }
        let lost = self.lost().unwrap_or_default();
        for (path, fd) in &lost {
            sys::obj_pin(fd.as_fd(), path)
                .map_err(|e| KernelError::io(format!("pinning {} again", path.display()), e))?;
        }
        Ok(lost.len())
    }

    /// Pins that are missing, with what they ought to hold. `None`: a program is detached, and so whoever took pins
    /// away wanted more than that (links go first when a daemon's things are unloaded).
    fn lost(&self) -> Option<Vec<(PathBuf, OwnedFd)>> {
        let pinned = self.pinned.as_ref()?;
        let work = self.work();
        if work.links.is_empty() || !work.links.iter().all(|(name, _)| work.is_attached(name)) {
            return None;
        }
        let links = work.links.iter().map(|(name, fd)| (pinned.pins.link(name), fd));
        let maps = pinned.maps.iter().map(|(path, fd)| (path.clone(), fd));
        // Links first here too: whoever finds maps finds what uses them.
        let lost = links.chain(maps).filter(|(path, _)| !path.exists());
        Some(lost.filter_map(|(path, fd)| Some((path, fd.try_clone().ok()?))).collect())
    }
}
