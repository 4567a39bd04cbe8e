//! How often programs ran: what the kernel counts of a program ends with it, so what a replaced one had counted is kept.

use super::{KernelError, Pins, mapped::Mapped, sys};
use aya::{
    maps::MapData,
    programs::{ProgramInfo, loaded_programs},
};
use mesh_common::names;
use std::{io, os::fd::AsFd};

/// Runs, and nanoseconds in all.
pub(super) type Runs = (u64, u64);

/// What a program counted until `info` was read.
pub(super) fn counted(info: &ProgramInfo) -> Runs {
    (info.run_count(), u64::try_from(info.run_time().as_nanos()).unwrap_or(u64::MAX))
}

/// Runs of programs that were replaced, by the program's position.
#[derive(Debug)]
pub(super) struct EarlierRuns(Mapped<[u64; 2]>);

impl EarlierRuns {
    /// Opens the pinned table, or makes one for `programs` programs.
    pub(super) fn open(pins: &Pins, programs: u32) -> Result<Self, KernelError> {
        // enum bpf_map_type and flags of include/uapi/linux/bpf.h.
        const ARRAY: u32 = 2;
        const MMAPABLE: u32 = 1024;
        let path = pins.map(names::PROGRAM_RUNS);
        let failed = |e: io::Error| KernelError::io(format!("the table {}", names::PROGRAM_RUNS), e);
        if !path.exists() {
            let map = sys::map_create(ARRAY, 4, 16, programs, MMAPABLE, names::PROGRAM_RUNS).map_err(failed)?;
            sys::obj_pin(map.as_fd(), &path).map_err(failed)?;
        }
        let map = MapData::from_pin(&path).map_err(|e| failed(io::Error::other(e)))?;
        Mapped::new(names::PROGRAM_RUNS, map).map(Self)
    }

    /// What earlier programs in this place had counted.
    pub(super) fn of(&self, program: usize) -> Runs {
        let row = u32::try_from(program).ok().and_then(|row| self.0.read(row));
        row.map_or((0, 0), |[runs, ns]| (runs, ns))
    }

    /// Adds what a replaced program had counted, and takes away what its predecessor had, which is at work again.
    pub(super) fn replace(&self, program: usize, replaced: Runs, again: Runs) {
        let ((runs, ns), Ok(row)) = (self.of(program), u32::try_from(program)) else { return };
        let changed = |now: u64, more, less| now.saturating_add(more).saturating_sub(less);
        self.0.write(row, &[changed(runs, replaced.0, again.0), changed(ns, replaced.1, again.1)], 0..2);
    }
}

/// A program that is about to be replaced; it lives until this is dropped.
pub(super) struct Replaced {
    id: u32,
    _alive: aya::programs::ProgramFd,
}

impl Replaced {
    /// The program with this id, if the kernel shows it.
    pub(super) fn hold(id: u32) -> Option<Self> {
        let info = loaded_programs().filter_map(Result::ok).find(|p| p.id() == id)?;
        Some(Self { id, _alive: info.fd().ok()? })
    }

    /// What it counted in its life. It no longer runs by now.
    pub(super) fn runs(self) -> Runs {
        let info = loaded_programs().filter_map(Result::ok).find(|p| p.id() == self.id);
        info.map_or((0, 0), |info| counted(&info))
    }
}
