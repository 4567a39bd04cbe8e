//! Keeps the programs at work when the ground under them goes: a cgroup that is removed and made again, pins that
//! somebody took away.

use super::{
    daemon::Daemon,
    lock::{LockError, Locks},
};
use crate::kernel::{self, Detached, Kernel};
use std::{
    sync::{Mutex, PoisonError},
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
        // Another daemon is at it during a takeover.
        if self.state().may_change().is_err() {
            return;
        }
        let mut state = self.guard.0.lock().unwrap_or_else(PoisonError::into_inner);
        match kernel.detached() {
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
                    self.guard_pins(kernel, &mut state);
                }
            }
        }
    }

    fn attach_again(&self, kernel: &Kernel, locks: &mut Locks) -> Result<Vec<String>, String> {
        let cgroup = self.cgroup.as_ref().ok_or("there is none")?;
        *locks = Locks::default();
        locks.add("cgroup", cgroup).map_err(|e| e.to_string())?;
        kernel.attach(cgroup).map_err(|e| e.to_string())
    }

    fn guard_pins(&self, kernel: &Kernel, state: &mut State) {
        if !kernel.pins_lost() {
            return;
        }
        let bpffs = self.state().config.dataplane.bpffs.clone();
        let mut again = || -> Result<usize, String> {
            if let Some(point) = kernel::ensure_bpffs(&bpffs).map_err(|e| e.to_string())? {
                tracing::warn!("the bpf file system is gone: mounted one at {}", point.display());
            }
            match state.locks.add("pin directory", &bpffs) {
                // Where the directory itself stayed, it is ours still.
                Err(LockError::Held { pid: Some(pid), .. }) if pid == std::process::id() => {}
                taken => taken.map_err(|e| e.to_string())?,
            }
            kernel.pin_again().map_err(|e| e.to_string())
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
}
