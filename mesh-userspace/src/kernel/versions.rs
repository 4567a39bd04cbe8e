//! Sets of programs and tables with another layout than ours, beside our own in bpffs: they serve the connections that
//! were made through them until those end, and make no new ones.

use super::{
    KernelError, Pins, diag,
    mapped::Mapped,
    namespaces::{self, Namespace},
    pins,
    sys::{self, AttachType},
};
use mesh_common::{names, settings::flags};
use std::{fs, io, os::fd::AsFd, path::PathBuf};

/// The directories of other layouts.
fn others(pins: &Pins) -> Vec<PathBuf> {
    pins::versions(pins.bpffs()).unwrap_or_default().into_iter().filter(|path| path != pins.root()).collect()
}

/// Whether the kill switch is on in any of them.
pub(super) fn bypass(pins: &Pins) -> bool {
    /// What lies in the pinned row of settings: the flags came first in every layout.
    fn flags_of<T: bytemuck::Pod>(path: &PathBuf) -> Option<u64> {
        let map = aya::maps::MapData::from_pin(path).ok()?;
        Mapped::<T>::new(names::SETTINGS, map).ok().map(|row| row.read_word(0, 0))
    }
    others(pins).into_iter().map(|path| path.join("maps").join(names::SETTINGS)).any(|path| {
        let found = flags_of::<[u64; 2]>(&path).or_else(|| flags_of::<[u64; 4]>(&path));
        let found = found.or_else(|| flags_of::<[u64; 6]>(&path)).or_else(|| flags_of::<[u64; 7]>(&path));
        found.is_some_and(|found| found & flags::BYPASS != 0)
    })
}

/// Takes the connect hooks of other layouts away, once ours are at work. What counts connections and shows their peers
/// stays. Returns the directories that had such hooks.
pub(super) fn succeed(pins: &Pins) -> Result<Vec<PathBuf>, KernelError> {
    let mut succeeded = Vec::new();
    for version in others(pins) {
        let links = version.join("links");
        let mut found = false;
        for path in fs::read_dir(&links).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path()) {
            let Ok(link) = sys::obj_get(&path) else { continue };
            let at = sys::link_info(link.as_fd()).map(|info| info.attach_type).unwrap_or_default();
            if at == AttachType::Connect4 as u32 || at == AttachType::Connect6 as u32 {
                found = true;
                pins::remove(&path)?;
            }
        }
        if found {
            succeeded.push(version);
        }
    }
    Ok(succeeded)
}

/// Removes the sets of other layouts whose connections have all ended, as far as these namespaces show. Returns what was
/// removed.
///
/// # Errors
/// [`KernelError::Io`].
pub fn retire(pins: &Pins, namespaces: impl FnOnce() -> Vec<Namespace>) -> Result<Vec<PathBuf>, KernelError> {
    let others = others(pins);
    if others.is_empty() {
        return Ok(others);
    }
    let namespaces = namespaces();
    let mut retired = Vec::new();
    for version in others {
        if serves_nobody(&version, &namespaces)? {
            pins::unload_version(&version)?;
            retired.push(version);
        }
    }
    Ok(retired)
}

/// Whether no socket has a record of this set.
fn serves_nobody(version: &std::path::Path, namespaces: &[Namespace]) -> Result<bool, KernelError> {
    // Without records nothing is served.
    let Ok(records) = sys::obj_get(&version.join("maps").join(names::CONNECTIONS)) else { return Ok(true) };
    let mut held = 0;
    let problems = namespaces::visit(namespaces, &mut |_| diag::dump(records.as_fd(), &mut |_| held += 1));
    let problems = problems.map_err(|e| KernelError::io("looking for sockets with a record", e))?;
    match problems.first() {
        None => Ok(held == 0),
        Some(problem) => Err(KernelError::io("looking for sockets with a record", io::Error::other(problem.clone()))),
    }
}
