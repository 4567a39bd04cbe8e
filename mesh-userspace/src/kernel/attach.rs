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
    /// What was in the way.
    pub(super) note: Option<String>,
}

/// Puts `program` where it belongs: under the link that an earlier daemon pinned, else under a new one.
///
/// # Errors
/// [`KernelError::Io`].
pub(super) fn attach(
    pins: Option<&Pins>,
    name: &str,
    program: BorrowedFd<'_>,
    cgroup: &fs::File,
    at: AttachType,
) -> Result<Attached, KernelError> {
    let mut note = None;
    if let Some(pins) = pins
        && let Some(link) = pinned(pins, name)?
    {
        match stranger(&link, name, at) {
            Some(what) => {
                // Not ours to detach: it ends with its last reference, which this pin may have been.
                let path = pins.link(name);
                fs::remove_file(&path).map_err(|e| KernelError::io(format!("removing {}", path.display()), e))?;
                note = Some(format!("the pin {} held {what}: it was removed", path.display()));
            }
            None => {
                let info = sys::link_info(link.as_fd()).unwrap_or_default();
                if cgroup.metadata().is_ok_and(|m| m.ino() == info.cgroup) {
                    let old = Replaced::hold(info.program);
                    // Whatever is at work there goes on where it cannot be replaced.
                    sys::link_update(link.as_fd(), program)
                        .map_err(|e| KernelError::io(format!("replacing {name} at the cgroup"), e))?;
                    return Ok(Attached { link, new: false, replaced: old.map(Replaced::runs), note });
                }
                // The link's cgroup is gone or another one is configured now: the pin holds nothing of use.
                pins.remove_link(name)?;
            }
        }
    }
    let link = sys::link_create(program, cgroup.as_fd(), at)
        .map_err(|e| KernelError::io(format!("attaching {name} to the cgroup"), e))?;
    if let Some(pins) = pins {
        let path = pins.link(name);
        sys::obj_pin(link.as_fd(), &path).map_err(|e| KernelError::io(format!("pinning {}", path.display()), e))?;
    }
    Ok(Attached { link, new: true, replaced: None, note })
}

fn pinned(pins: &Pins, name: &str) -> Result<Option<OwnedFd>, KernelError> {
    let path = pins.link(name);
    match sys::obj_get(&path) {
        Ok(link) => Ok(Some(link)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(KernelError::io(format!("opening the pinned link {}", path.display()), e)),
    }
}

/// What a pin holds, if not a link of the program that it is named after.
fn stranger(object: &OwnedFd, name: &str, at: AttachType) -> Option<String> {
    if !sys::is_link(object.as_fd()) {
        return Some("no link of a program".to_owned());
    }
    let info = sys::link_info(object.as_fd()).ok()?;
    // Without CAP_SYS_ADMIN names are not shown; the place has to do then.
    let found = sys::program_name(info.program).ok();
    let ours = info.attach_type == at as u32 && found.as_ref().is_none_or(|found| found == name);
    (!ours).then(|| format!("the link of another program, {:?}", found.unwrap_or_default()))
}
