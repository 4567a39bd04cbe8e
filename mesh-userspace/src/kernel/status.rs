//! What became of programs and tables: what the kernel said to each, and how it does now.

use super::{
    Kernel,
    programs::{ITERATOR, PROGRAMS, RELEASE, Spec},
    runs,
    work::Detached,
};
use mesh_common::names;
use std::{fs, os::fd::AsRawFd};

/// What became of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramStatus {
    /// Its name.
    pub name: &'static str,
    /// The hook it is for.
    pub hook: &'static str,
    /// Why it is not attached; `None`: it is.
    pub missing: Option<String>,
    /// What is lost without it; `None`: nothing can be intercepted.
    pub without: Option<&'static str>,
    /// Runs and nanoseconds in all, where they are counted ([`Kernel::count_runs`]); never of the iterator.
    pub runs: Option<(u64, u64)>,
}

/// What the kernel said to a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Its name.
    pub name: &'static str,
    /// The hook it is for.
    pub hook: &'static str,
    /// Whether nothing can be intercepted without it.
    pub required: bool,
    /// Why it was refused; `None`: it was not.
    pub refused: Option<String>,
}

/// What a map holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapStatus {
    /// Its name.
    pub name: &'static str,
    /// How many entries fit.
    pub capacity: u32,
    /// Kernel memory in bytes, as the kernel says.
    pub bytes: u64,
}

impl Kernel {
    /// What the kernel said to every program, attached or not.
    #[must_use]
    pub fn verdicts(&self) -> Vec<Verdict> {
        let refused = |name| self.missing.iter().find(|(n, _)| *n == name).map(|(_, why)| why.clone());
        let of = |spec: &Spec| Verdict {
            name: spec.name,
            hook: spec.hook,
            required: spec.without.is_none(),
            refused: refused(spec.name),
        };
        let (name, hook, _) = ITERATOR;
        let live = Verdict { name, hook, required: false, refused: self.iterator.clone() };
        PROGRAMS.iter().map(of).chain([live]).collect()
    }

    /// What became of every program.
    #[must_use]
    pub fn programs(&self) -> Vec<ProgramStatus> {
        let (ebpf, work) = (self.ebpf(), self.work());
        let status = |(position, spec): (usize, &Spec)| {
            let refused = self.missing.iter().chain(&work.missing).find(|(name, _)| *name == spec.name);
            let gone = || (!work.is_attached(spec.name)).then(|| work.detached().to_string());
            let missing = refused.map(|(_, why)| why.clone()).or_else(gone);
            let info = ebpf.program(spec.name).and_then(|p| p.info().ok());
            let (runs, ns) = self.earlier.as_ref().map_or((0, 0), |earlier| earlier.of(position));
            let runs = info.map(|info| runs::counted(&info)).map(|now| (runs + now.0, ns.saturating_add(now.1)));
            let runs = runs.filter(|_| missing.is_none() && self.stats.is_some());
            ProgramStatus { name: spec.name, hook: spec.hook, without: spec.without, runs, missing }
        };
        let (name, hook, without) = ITERATOR;
        // Only the daemon itself makes it run.
        let live = ProgramStatus { name, hook, without: Some(without), runs: None, missing: self.iterator.clone() };
        PROGRAMS.iter().enumerate().map(status).chain([live]).collect()
    }

    /// Whether connects that this node could not make are all counted.
    #[must_use]
    pub fn settles_all(&self) -> bool {
        self.work().links.iter().any(|(name, _)| *name == RELEASE)
    }

    /// What the tables take up.
    #[must_use]
    pub fn maps(&self) -> Vec<MapStatus> {
        let maps = self.tables.maps();
        let bytes = |name, fd, capacity| match memory(fd) {
            // Before 6.4 kernels say nothing of ring buffers, whose capacity is bytes.
            0 if [names::EVENTS, names::ENDED].contains(&name) => u64::from(capacity),
            bytes => bytes,
        };
        maps.map(|(name, fd, capacity)| MapStatus { name, capacity, bytes: bytes(name, fd.as_raw_fd(), capacity) })
            .collect()
    }

    /// How many programs are attached now.
    #[must_use]
    pub fn attached(&self) -> usize {
        let work = self.work();
        PROGRAMS.iter().filter(|spec| work.is_attached(spec.name)).count()
    }

    /// Why connects are not intercepted although the programs were attached, and what comes of it; `None`: they are.
    #[must_use]
    pub fn detached(&self) -> Option<Detached> {
        let work = self.work();
        let all = PROGRAMS.iter().filter(|spec| spec.without.is_none()).all(|spec| work.is_attached(spec.name));
        (!all).then(|| work.detached())
    }

    /// The numbers of our programs, as the kernel lists them.
    pub(super) fn program_ids(&self) -> Vec<u32> {
        let ebpf = self.ebpf();
        PROGRAMS.iter().filter_map(|spec| Some(ebpf.program(spec.name)?.info().ok()?.id())).collect()
    }
}

/// Kernel memory of a map: `memlock` of its descriptor's fdinfo.
fn memory(fd: std::os::fd::RawFd) -> u64 {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    text.lines().find_map(|l| l.strip_prefix("memlock:")?.trim().parse().ok()).unwrap_or(0)
}
