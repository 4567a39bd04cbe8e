//! Undoing what another daemon did that wanted to take over and did not come to its end.

use super::{
    Kernel, KernelError, Pins, attach,
    error::chain,
    grow,
    load::{PROGRAMS, Spec},
    sys,
};
use mesh_common::names;
use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, OwnedFd},
    sync::PoisonError,
};

/// Opens every pinned map, to know them again whatever becomes of the pins.
pub(super) fn open_maps(pins: &Pins) -> Result<Vec<(&'static str, OwnedFd)>, KernelError> {
    let open = |name| sys::obj_get(&pins.map(name)).map(|map| (name, map)).map_err(|e| (name, e));
    let maps: Result<Vec<_>, _> = names::MAPS.into_iter().map(open).collect();
    maps.map_err(|(name, e)| KernelError::io(format!("opening the pinned map {}", pins.map(name).display()), e))
}

impl Kernel {
    /// Pins this object's tables again where others lie now. Returns the names of those.
    ///
    /// # Errors
    /// [`KernelError::Io`].
    pub fn pin_again(&self, pins: &Pins) -> Result<Vec<&'static str>, KernelError> {
        pins.create()?;
        grow::recover(pins)?;
        let mut again = Vec::new();
        for (name, map) in &self.maps {
            let path = pins.map(name);
            let failed = |e| KernelError::io(format!("pinning {} again", path.display()), e);
            let own = sys::map_id(map.as_fd()).map_err(failed)?;
            match sys::obj_get(&path).and_then(|found| sys::map_id(found.as_fd())) {
                Ok(found) if found == own => continue,
                // Larger counters are in its place, and the next start adds up both: so does this daemon.
                Ok(_) if grow::is_set_aside(pins, name, own)? => {
                    self.tables().count_all(pins, name)?;
                    continue;
                }
                Ok(_) => fs::remove_file(&path).map_err(failed)?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(failed(e)),
            }
            sys::obj_pin(map.as_fd(), &path).map_err(failed)?;
            grow::take_back(pins, name, own)?;
            again.push(*name);
        }
        Ok(again)
    }

    /// Puts this object's programs under the links again, in the order of [`Kernel::attach`]. Returns what became of
    /// optional programs that could not be.
    ///
    /// # Errors
    /// [`KernelError::Required`].
    pub fn attach_again(&self, pins: &Pins, cgroup: &File) -> Result<Vec<String>, KernelError> {
        let mut problems = Vec::new();
        for (position, spec) in PROGRAMS.iter().enumerate() {
            if self.missing.iter().any(|(name, _)| *name == spec.name) {
                continue;
            }
            match self.attach_one_again(position, spec, pins, cgroup) {
                Ok(()) => {}
                Err(why) if spec.required => {
                    return Err(KernelError::Required { program: spec.name, hook: spec.hook, why });
                }
                Err(why) => {
                    problems.push(format!("program {} ({}) is not attached again: {why}", spec.name, spec.hook))
                }
            }
        }
        Ok(problems)
    }

    fn attach_one_again(&self, position: usize, spec: &Spec, pins: &Pins, cgroup: &File) -> Result<(), String> {
        let program = self.ebpf.program(spec.name).ok_or("the object does not have it")?;
        let own = program.info().map(|i| (i.run_count(), u64::try_from(i.run_time().as_nanos()).unwrap_or(u64::MAX)));
        let program = program.fd().map_err(|e| chain(&e))?;
        let attached = attach::attach(pins, spec.name, program.as_fd(), cgroup, spec.at).map_err(|e| e.to_string())?;
        if let (Some(earlier), Some(replaced), Ok(own)) = (&self.earlier, attached.replaced, own) {
            earlier.replace(position, replaced, own);
        }
        // The other daemon may have replaced the link itself.
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|(name, _)| *name != spec.name);
        links.push((spec.name, attached.link));
        Ok(())
    }
}
