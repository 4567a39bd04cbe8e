//! Undoing what another daemon did that wanted to take over and did not come to its end.

use super::{Kernel, KernelError, grow, pinned::Pinned, sys};
use mesh_common::names;
use std::{fs, io, os::fd::AsFd};

impl Kernel {
    /// Pins this object's tables again where others lie now. Returns the names of those.
    ///
    /// # Errors
    /// [`KernelError::Io`].
    pub fn put_back(&self) -> Result<Vec<&'static str>, KernelError> {
        let mut again = Vec::new();
        let Some(Pinned { pins, maps }) = &self.pinned else { return Ok(again) };
        pins.create()?;
        grow::recover(pins)?;
        for name in names::MAPS {
            let path = pins.map(name);
            let Some((_, map)) = maps.iter().find(|(at, _)| *at == path) else { continue };
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
            again.push(name);
        }
        Ok(again)
    }
}
