//! `mesh unload`: everything out of the kernel, with no daemon needed.

use super::{cgroup, lock::Locks, probe};
use crate::{config, kernel};
use std::{fs, path::Path};

/// Removes what any daemon with this configuration ever put into the kernel. Returns what was done, in a sentence.
///
/// # Errors
/// Why nothing was removed: a daemon runs, or the system refuses.
pub fn unload(named: Option<&Path>, force: bool) -> Result<String, String> {
    // A mistake in a service is no reason to stay in the kernel.
    let dataplane =
        config::Files::read(named).and_then(|files| files.dataplane()).map_err(|errors| errors.to_string())?;
    let bpffs = &dataplane.bpffs;
    if !bpffs.exists() {
        return Ok(format!("nothing to unload: there is no {}", bpffs.display()));
    }
    let mut locks = Locks::default();
    if let Err(why) = locks.add("pin directory", bpffs)
        && !force
    {
        return Err(format!("{why}; stop it first, or unload under it with --force"));
    }
    // What a daemon left that was killed while it probed. Somebody else's is not empty, or not worth more.
    if let Ok(cgroup) = cgroup(&dataplane) {
        let _ = fs::remove_dir(cgroup.join(probe::CGROUP));
    }
    let removed = kernel::unload(bpffs).map_err(|e| e.to_string())?;
    let links = removed.iter().filter(|path| path.parent().is_some_and(|p| p.ends_with("links"))).count();
    Ok(format!("unloaded {}: {links} programs detached, {} tables removed", bpffs.display(), removed.len() - links))
}
