//! Programs of others at the hooks that ours use: who rewrites an address before us decides what we see.

use super::{
    Kernel, KernelError, Pins,
    host::open_cgroup,
    programs::places,
    sys::{self, AttachType},
};
use std::{fs::File, os::fd::AsFd, path::Path};

/// A program that is not ours at a hook that one of ours uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherProgram {
    /// The hook.
    pub hook: &'static str,
    /// The kernel's number for it.
    pub id: u32,
    /// Its name; empty: it has none.
    pub name: String,
    /// Whether it runs before ours, or would if ours were attached now.
    pub runs_first: bool,
    /// Whether it is the program of another daemon like this one.
    pub mesh: bool,
}

impl Kernel {
    /// Who else has programs that run for the processes of our cgroup.
    ///
    /// # Errors
    /// [`KernelError`], where the cgroup cannot be asked.
    pub fn others(&self) -> Result<Vec<OtherProgram>, KernelError> {
        let cgroup = self.work().cgroup.clone();
        others(&open_cgroup(&cgroup)?, &self.program_ids())
    }
}

/// Who has programs that run for the processes of `cgroup`, besides the daemon that pinned its own at `pins`.
///
/// # Errors
/// [`KernelError`], where the cgroup cannot be asked.
pub fn others_than(cgroup: &Path, pins: &Pins) -> Result<Vec<OtherProgram>, KernelError> {
    let ours = places().filter_map(|(name, ..)| {
        let link = sys::obj_get(&pins.link(name)).ok()?;
        sys::link_info(link.as_fd()).ok().map(|info| info.program)
    });
    others(&open_cgroup(cgroup)?, &ours.collect::<Vec<_>>())
}

fn others(cgroup: &File, ours: &[u32]) -> Result<Vec<OtherProgram>, KernelError> {
    let ask = |at: AttachType, effective| {
        sys::programs_at(cgroup.as_fd(), at, effective)
            .map_err(|e| KernelError::io("asking which programs are attached to the cgroup", e))
    };
    let mut others = Vec::new();
    for (_, hook, at) in places() {
        for (id, runs_first) in in_order(&ask(at, true)?, ask(at, false)?.len(), ours) {
            // One that has just gone has no name any more.
            let name = sys::program_name(id).unwrap_or_default();
            let mesh = places().any(|(ours, ..)| ours == name);
            others.push(OtherProgram { hook, id, name, runs_first, mesh });
        }
    }
    Ok(others)
}

/// Which of the programs that run, in this order, are not `ours`, and whether they run before. Where ours are not
/// attached, they would come behind the `direct` ones of the cgroup itself, and before those of its parents.
fn in_order(effective: &[u32], direct: usize, ours: &[u32]) -> Vec<(u32, bool)> {
    let mine = effective.iter().position(|id| ours.contains(id)).unwrap_or(direct);
    let all = effective.iter().enumerate().filter(|(_, id)| !ours.contains(id));
    all.map(|(at, id)| (*id, at < mine)).collect()
}

#[cfg(test)]
mod tests {
    use super::in_order;

    #[test]
    fn who_stands_before_ours_runs_first() {
        assert_eq!(in_order(&[7, 1, 8], 2, &[1, 2]), [(7, true), (8, false)]);
        assert_eq!(in_order(&[1], 1, &[1]), []);
    }

    #[test]
    fn ours_would_come_behind_those_of_the_cgroup_and_before_those_of_its_parents() {
        assert_eq!(in_order(&[7, 8, 9], 2, &[]), [(7, true), (8, true), (9, false)]);
    }
}
