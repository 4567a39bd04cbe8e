//! The truth about interception: every ten seconds a real connection through the hooks.
//!
//! That programs are attached does not mean that a connect of an application meets them, or that what they look up is
//! what we wrote. So a client in a cgroup below the intercepted one dials an address of the daemon's own
//! ([`PROBE_V4`](crate::model::PROBE_V4)), which the tables lead to a listener of the daemon's own for these
//! milliseconds only.

mod child;
mod round;

pub use child::probe_client;
pub(super) use round::{Prober, Verdict};

use super::daemon::Daemon;
use crate::api::Mode;
use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// How often is probed.
const EVERY: Duration = Duration::from_secs(10);
/// The cgroup of the probe's client, below the intercepted one.
pub(super) const CGROUP: &str = "mesh-probe";

/// What probes showed so far.
#[derive(Debug, Default)]
pub(super) struct Truth {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What the last probe showed; `None`: there was none yet.
    verdict: Option<Verdict>,
    /// Whether a probe is wanted before it is time.
    wanted: bool,
    stop: bool,
}

impl Truth {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the last probe showed; `None`: there was none since something changed.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        self.state().verdict.clone()
    }

    /// Forgets what was shown, and wants another probe now: something has changed.
    pub(super) fn doubt(&self) {
        let mut state = self.state();
        state.verdict = None;
        state.wanted = true;
        self.changed.notify_all();
    }

    /// Ends the probing.
    pub(super) fn stop(&self) {
        self.state().stop = true;
        self.changed.notify_all();
    }

    fn stopped(&self) -> bool {
        self.state().stop
    }

    /// Waits until it is time for the next probe; whether there is to be one.
    fn wait(&self) -> bool {
        let waiting = |state: &mut State| !state.stop && !state.wanted;
        let waited = self.changed.wait_timeout_while(self.state(), EVERY, waiting);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.wanted = false;
        !state.stop
    }

    /// Takes what a probe showed, unless something has changed since it began. Logs what is new.
    fn take(&self, verdict: Verdict) {
        let mut state = self.state();
        if state.wanted || state.stop || state.verdict.as_ref() == Some(&verdict) {
            return;
        }
        state.verdict = Some(verdict.clone());
        drop(state);
        match &verdict {
            Verdict::Works { v6: true } => tracing::info!("interception works: a probe connection was translated"),
            Verdict::Works { v6: false } => {
                tracing::info!("interception works: a probe connection was translated (IPv4; this host has no ::1)");
            }
            Verdict::Fails(why) => tracing::error!("interception does NOT work: {why}"),
            Verdict::Unknown(why) => tracing::warn!("whether interception works is not known: {why}"),
        }
    }
}

/// Probes in a thread of its own until told to stop.
///
/// # Errors
/// The system's, where there is no thread to be had.
pub(super) fn start(daemon: &Arc<Daemon>) -> io::Result<thread::JoinHandle<()>> {
    let daemon = Arc::clone(daemon);
    thread::Builder::new().name("probe".to_owned()).spawn(move || {
        loop {
            if let Some(verdict) = daemon.probe() {
                daemon.truth.take(verdict);
            }
            if !daemon.truth.wait() {
                return;
            }
        }
    })
}

impl Daemon {
    /// Probes once; `None` where it is known without that nothing is translated.
    fn probe(&self) -> Option<Verdict> {
        let (kernel, cgroup) = (self.kernel()?, self.cgroup.as_deref()?);
        if self.mode != Mode::Ebpf || self.bypass() || kernel.detached().is_some() {
            return None;
        }
        let programs = kernel.programs();
        let attached = |hook| programs.iter().any(|p| p.hook == hook && p.missing.is_none());
        let verdict = Prober {
            tables: kernel.tables(),
            cgroup,
            shows_peer: ["cgroup/getpeername4", "cgroup/getpeername6"].map(attached),
            given_up: &|| self.truth.stopped(),
        }
        .probe();
        // What happened meanwhile explains the outcome better than the outcome does.
        (!self.bypass() && kernel.detached().is_none()).then_some(verdict)
    }

    /// Whether connects are intercepted, as far as it is known, and why not or why that is not known.
    pub(super) fn interception(&self) -> (Option<bool>, Option<String>) {
        let no = |why: String| (Some(false), Some(why));
        let kernel = match &self.kernel {
            Ok(kernel) => kernel,
            Err(why) => return no(format!("there are no programs: {why}")),
        };
        if self.mode == Mode::Observe {
            return no("dataplane.mode is observe".to_owned());
        }
        if let Some(why) = kernel.detached() {
            return no(format!("the programs are {why}"));
        }
        if self.bypass() {
            return no("bypass is on".to_owned());
        }
        match self.truth.verdict() {
            Some(Verdict::Works { .. }) => (Some(true), None),
            Some(Verdict::Fails(why)) => no(why),
            Some(Verdict::Unknown(why)) => (None, Some(format!("not known: {why}"))),
            None => (None, None),
        }
    }
}
