//! How a daemon is followed by another one: what it hands over, and how it goes on if nobody follows after all.
//!
//! From the moment that it hands over it changes nothing: the tables have one writer. It goes on only when the other
//! end of the line is closed, so when the other process is known to have gone.

use super::{
    daemon::{Daemon, State, now},
    lock::Locks,
};
use crate::{
    api::{
        Discovered, Estate, Farewell, Greeting, HandOver, Kind, Line, LineError, MOST_PASSED, MorePassed, Passed,
        Ready, Refusal, RuntimeChange, SocketFile,
    },
    model::Override,
};
use mesh_common::settings::Settings;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::oneshot;

/// How long the other daemon may take for what needs no work.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long its start may take, from what it is given to its being at work. 100,000 services take some seconds.
const START_PATIENCE: Duration = Duration::from_secs(120);

/// How a daemon ends by a takeover.
#[derive(Debug)]
pub(super) enum End {
    /// Another one is at work.
    Followed,
    /// Another one was not, and what it left cannot be repaired: why.
    Lost(String),
}

/// What is handed over, to one other daemon at a time.
#[derive(Debug)]
pub(super) struct Succession {
    inner: Mutex<Inner>,
    file: Option<SocketFile>,
}

#[derive(Debug)]
struct Inner {
    locks: Locks,
    listeners: Vec<(Passed, OwnedFd)>,
    /// Whether a takeover is under way.
    busy: bool,
    end: Option<oneshot::Sender<End>>,
}

/// What there is to go back to.
struct Frozen {
    settings: Option<Settings>,
    /// Whether the programs were attached.
    attached: bool,
    /// What was written down for the other daemon.
    discovered: Discovered,
}

/// The turn of one other daemon.
struct Turn(Arc<Succession>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.inner().busy = false;
    }
}

impl Succession {
    pub(super) fn new(
        locks: Locks,
        listeners: Vec<(Passed, OwnedFd)>,
        file: Option<SocketFile>,
    ) -> (Arc<Self>, oneshot::Receiver<End>) {
        let (end, ended) = oneshot::channel();
        let inner = Inner { locks, listeners, busy: false, end: Some(end) };
        (Arc::new(Self { inner: Mutex::new(inner), file }), ended)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This daemon ends: nothing is handed over any more, and nobody waits at a listener that only stands here.
    pub(super) fn close(&self) {
        let mut inner = self.inner();
        inner.end = None;
        inner.listeners.clear();
    }

    /// Lets another daemon in.
    ///
    /// # Errors
    /// [`Refusal`], while another one is in.
    pub(super) fn begin(self: &Arc<Self>, daemon: &Arc<Daemon>) -> Result<HandOver, Refusal> {
        let mut inner = self.inner();
        if inner.busy {
            return Err(Refusal::new(Kind::Conflict, "another daemon is taking over already"));
        }
        if inner.end.is_none() {
            return Err(Refusal::new(Kind::Conflict, "the daemon is stopping"));
        }
        inner.busy = true;
        drop(inner);
        let (turn, daemon) = (Turn(Arc::clone(self)), Arc::clone(daemon));
        Ok(Box::new(move |line| turn.0.hand_over(&daemon, &line)))
    }

    fn hand_over(&self, daemon: &Daemon, line: &Line) {
        let greeting = match line.receive::<Greeting>(PATIENCE) {
            Ok((greeting, _)) => greeting,
            Err(e) => return tracing::warn!("a takeover did not begin: {e}"),
        };
        let pid = line.peer().unwrap_or_else(|| i32::try_from(greeting.pid).unwrap_or_default());
        tracing::info!(pid, version = greeting.version, "another daemon takes over: changes are refused until it has");
        let frozen = daemon.freeze(pid);
        if let Some(file) = &self.file {
            file.leave();
        }
        let done = match self.pass_on(daemon, line, frozen.discovered.clone()) {
            Ok(()) => self.wait_for(line),
            Err(e) => Err(e),
        };
        match done {
            Ok(()) => {
                tracing::info!(pid, "taken over");
                self.end(End::Followed);
            }
            Err(e) => {
                tracing::warn!(pid, "not taken over: {e}; this daemon goes on");
                self.go_on(daemon, &frozen);
            }
        }
    }

    /// Hands everything over.
    fn pass_on(&self, daemon: &Daemon, line: &Line, discovered: Discovered) -> Result<(), LineError> {
        let (what, descriptors) = self.descriptors(daemon).map_err(LineError::Io)?;
        let estate = daemon.estate(what, discovered);
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        let (first, rest) = descriptors.split_at(descriptors.len().min(MOST_PASSED));
        line.send(&estate, first, PATIENCE)?;
        rest.chunks(MOST_PASSED).try_for_each(|some| line.send(&MorePassed { more: some.len() }, some, PATIENCE))
    }

    fn descriptors(&self, daemon: &Daemon) -> io::Result<(Vec<Passed>, Vec<OwnedFd>)> {
        let inner = self.inner();
        let locks = inner
            .locks
            .copies()?
            .into_iter()
            .chain(daemon.guard.locks()?)
            .map(|(path, fd)| Ok((Passed::Lock { path }, fd)));
        let listeners = inner.listeners.iter().map(|(what, fd)| Ok((what.clone(), fd.try_clone()?)));
        let proxy = daemon.http.listeners()?.into_iter().map(Ok);
        let names = daemon.names.sockets()?.into_iter().map(Ok);
        let registry = daemon.registry.listener()?.into_iter().map(Ok);
        listeners
            .chain(locks)
            .chain(proxy)
            .chain(names)
            .chain(registry)
            .collect::<io::Result<Vec<_>>>()
            .map(|all| all.into_iter().unzip())
    }

    /// Waits until the other daemon is at work, or is known to have gone.
    fn wait_for(&self, line: &Line) -> Result<(), LineError> {
        let error = match line.receive::<Ready>(START_PATIENCE) {
            Ok(_) => match line.send(&Farewell { farewell: true }, &[], PATIENCE) {
                Ok(()) => return Ok(()),
                Err(e) => e,
            },
            Err(e) => e,
        };
        if !matches!(error, LineError::Closed) {
            // It hangs, and would write into the tables beside this daemon if it came to itself later.
            let killed = line.peer().map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL));
            match killed {
                Some(Ok(())) => tracing::error!("the other daemon was killed: {error}"),
                _ => tracing::error!("{error}: changes are refused until it has gone; kill it"),
            }
            line.wait_for_the_end();
        }
        Err(error)
    }

    /// Undoes what another daemon has begun.
    fn go_on(&self, daemon: &Daemon, frozen: &Frozen) {
        match daemon.thaw(frozen) {
            Ok(()) => {
                if let Some(file) = &self.file {
                    file.remove();
                }
            }
            Err(why) => self.end(End::Lost(why)),
        }
    }

    fn end(&self, end: End) {
        if let Some(tell) = self.inner().end.take() {
            // It fails only if this daemon is ending anyway.
            let _ = tell.send(end);
        }
    }
}

impl State {
    /// Whether facts, overrides and tables may be changed.
    ///
    /// # Errors
    /// Why not now.
    pub(super) fn may_change(&self) -> Result<(), String> {
        match self.frozen {
            Some(pid) => Err(format!("another daemon (pid {pid}) is taking over: try again")),
            None => Ok(()),
        }
    }
}

impl Daemon {
    /// The state, for an operator's change.
    ///
    /// # Errors
    /// [`Refusal`], during a takeover.
    pub(super) fn state_to_change(&self) -> Result<MutexGuard<'_, State>, Refusal> {
        let state = self.state();
        state.may_change().map_err(|why| Refusal::new(Kind::Unavailable, why))?;
        Ok(state)
    }

    fn freeze(&self, pid: i32) -> Frozen {
        let mut state = self.state();
        state.frozen = Some(pid);
        // The other daemon reads it.
        let saved = state.facts.save();
        let complete = state.facts.sources().iter().filter(|(_, seen)| saved && (seen.synced || seen.handed_over));
        let sources = complete.map(|(source, _)| source.word().to_owned()).collect();
        let directory = fs::canonicalize(&state.config.node.state_dir).unwrap_or_default();
        self.registry.registrar.freeze();
        drop(state);
        let attached = self.kernel().is_some_and(|kernel| kernel.detached().is_none());
        let settings = self.tables().map(|tables| tables.settings());
        Frozen { settings, attached, discovered: Discovered { directory, sources } }
    }

    fn estate(&self, descriptors: Vec<Passed>, discovered: Discovered) -> Estate {
        let state = self.state();
        let changes = state.overrides().list().map(|change| match change {
            Override::Policy { service, policy } => RuntimeChange::Policy { service, policy: policy.word().to_owned() },
            Override::Endpoint { service, address, weight, draining, tripped } => {
                RuntimeChange::Endpoint { service, address, weight, draining, tripped }
            }
            Override::Breaker { service, change } => RuntimeChange::Breaker {
                service,
                failure_threshold: change.failure_threshold,
                reset_timeout_ms: change.reset_timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            },
        });
        Estate {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            intercepts: self.kernel().is_some(),
            discovered,
            changes: changes.collect(),
            descriptors,
        }
    }

    /// Makes pins, tables and programs this daemon's again.
    fn thaw(&self, frozen: &Frozen) -> Result<(), String> {
        let mut state = self.state();
        if let (Some(kernel), Some(settings)) = (self.kernel(), frozen.settings) {
            let lost = |e| format!("what another daemon left cannot be put right: {e}; start the daemon again");
            let again = kernel.put_back().map_err(lost)?;
            if !again.is_empty() {
                tracing::warn!("pinned again in place of the other daemon's tables: {}", again.join(", "));
            }
            let tables = kernel.tables();
            tables.put_settings(&Settings { heartbeat: now(), ..settings });
            // Tables first, programs after them, as at the start.
            if let Some(datapath) = &mut state.datapath {
                datapath.adopt_again(tables, now());
            }
            self.publish(&mut state);
            if let Some((bypassed, _)) = &mut state.bypassed {
                bypassed.forget();
                bypassed.refresh(tables);
            }
            if let Some(cgroup) = self.cgroup.as_ref().filter(|_| frozen.attached) {
                let problems = kernel.attach(cgroup).map_err(lost)?;
                problems.iter().for_each(|problem| tracing::warn!("{problem}"));
            }
        }
        state.frozen = None;
        drop(state);
        self.registry.registrar.thaw();
        self.truth.doubt();
        Ok(())
    }
}
