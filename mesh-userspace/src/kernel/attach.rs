//! Programs under pinned links: attached once, replaced in place by every later daemon.

use super::{
    KernelError, Pins,
    runs::{Replaced, Runs},
    sys::{self, AttachType},
};
use std::{
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
};

/// A program at work.
pub(super) struct Attached {
    /// Its link.
    pub(super) link: OwnedFd,
    /// Whether the link is new, so that nothing was attached before.
    pub(super) new: bool,
    /// What the program that it replaced had counted.
    pub(super) replaced: Option<Runs>,
}

/// Puts `program` where it belongs: under the link that an earlier daemon pinned, else under a new one.
///
/// # Errors
/// [`KernelError::Io`].
pub(super) fn attach(
    pins: &Pins,
    name: &str,
    program: BorrowedFd<'_>,
    cgroup: &fs::File,
    at: AttachType,
) -> Result<Attached, KernelError> {
    let path = pins.link(name);
    match sys::obj_get(&path) {
        Ok(link) => {
            let same =
                sys::link_info(link.as_fd()).is_ok_and(|info| cgroup.metadata().is_ok_and(|m| m.ino() == info.cgroup));
            if same {
                let old = sys::link_info(link.as_fd()).ok().and_then(|info| Replaced::hold(info.program));
                if sys::link_update(link.as_fd(), program).is_ok() {
                    return Ok(Attached { link, new: false, replaced: old.map(Replaced::runs) });
                }
            }
            // The link's cgroup is gone or another one is configured now: the pin holds nothing of use.
            pins.remove_link(name)?;
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(KernelError::io(format!("opening the pinned link {}", path.display()), e)),
    }
    let link = sys::link_create(program, cgroup.as_fd(), at)
        .map_err(|e| KernelError::io(format!("attaching {name} to the cgroup"), e))?;
    sys::obj_pin(link.as_fd(), &path).map_err(|e| KernelError::io(format!("pinning {}", path.display()), e))?;
    Ok(Attached { link, new: true, replaced: None })
}
