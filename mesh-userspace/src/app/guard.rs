//! Keeps the programs at work when the ground under them goes: a cgroup that is removed and made again, pins that
//! somebody took away.

use super::{
    daemon::Daemon,
    lock::{LockError, Locks},
};
use crate::kernel::{self, Detached, Kernel};
use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How often pins are looked at: a system call each.
const PINS_EVERY: Duration = Duration::from_secs(3);

/// What the guard remembers.
#[derive(Debug, Default)]
pub(super) struct Guard(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// On what was made again.
    locks: Locks,
    /// What was said last, so that it is said once.
    said: Option<String>,
    /// When the pins were looked at last.
    pins_seen: Option<Instant>,
}

impl Guard {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies of the locks on what was made again, to pass on.
    pub(super) fn locks(&self) -> io::Result<Vec<(PathBuf, OwnedFd)>> {
        self.state().locks.copies()
    }
}

impl State {
    fn warn(&mut self, text: String) {
        if self.said.as_ref() != Some(&text) {
            tracing::warn!("{text}");
            self.said = Some(text);
        }
    }
}

impl Daemon {
    /// Looks after programs and pins. Called from time to time.
    pub(super) fn guard(&self) {
        let Some(kernel) = self.kernel() else { return };
        // Held to the end, so that no takeover begins meanwhile; during one all of this is the other daemon's.
        let daemon = self.state();
        if daemon.may_change().is_err() {
            return;
        }
        let mut state = self.guard.state();
        let detached = kernel.detached();
        if detached.is_some() {
            self.unseen.store(true, Ordering::Release);
        }
        match detached {
            Some(Detached::CgroupRenewed) => match self.attach_again(kernel, &mut state.locks) {
                Ok(notes) => {
                    notes.iter().for_each(|note| tracing::warn!("{note}"));
                    tracing::info!(programs = kernel.attached(), "the cgroup was made again: programs attached to it");
                    state.said = None;
                    self.truth.doubt();
                }
                Err(why) => state.warn(format!("the cgroup was made again, and nothing can be attached to it: {why}")),
            },
            Some(why) => state.warn(format!("no connection is intercepted: the programs are {why}")),
            None => {
                if state.pins_seen.is_none_or(|seen| seen.elapsed() >= PINS_EVERY) {
                    state.pins_seen = Some(Instant::now());
                    guard_pins(kernel, &daemon.config.dataplane.bpffs, &mut state);
                }
            }
        }
    }

    fn attach_again(&self, kernel: &Kernel, locks: &mut Locks) -> Result<Vec<String>, String> {
        let cgroup = self.cgroup.as_ref().ok_or("there is none")?;
        hold(locks, "cgroup", cgroup)?;
        kernel.attach(cgroup).map_err(|e| e.to_string())
    }
}

fn guard_pins(kernel: &Kernel, bpffs: &Path, state: &mut State) {
    if !kernel.pins_lost() {
        return;
    }
    let mut again = || -> Result<usize, String> {
        if let Some(point) = kernel::ensure_bpffs(bpffs).map_err(|e| e.to_string())? {
            tracing::warn!("the bpf file system is gone: mounted one at {}", point.display());
        }
        hold(&mut state.locks, "pin directory", bpffs)?;
        kernel.pin_lost().map_err(|e| e.to_string())
    };
    match again() {
        Ok(pins) => {
            tracing::warn!(pins, "pins were gone from {}: pinned again; nothing was interrupted", bpffs.display());
            state.said = None;
        }
        Err(why) => state.warn(format!(
            "pins are gone from {} and cannot be made again, so the next daemon will start with empty tables: {why}",
            bpffs.display()
        )),
    }
}

/// Holds what has the place of something that we held.
fn hold(locks: &mut Locks, what: &'static str, path: &Path) -> Result<(), String> {
    locks.forget(path);
    match locks.add(what, path) {
        // It is the same as before, which the daemon holds since its start.
        Err(LockError::Held { pid: Some(pid), .. }) if pid == std::process::id() => Ok(()),
        taken => taken.map_err(|e| e.to_string()),
    }
}
