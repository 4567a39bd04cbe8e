//! The thread that checks, and what others may ask of it.

use super::{Change, Sink, Target, changes::Changes, engine, roster::Entry};
use crate::model::Health;
use std::{
    collections::HashMap,
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// What is known of one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The verdict.
    pub health: Health,
    /// Why the last check failed or could not be made. Of an unhealthy endpoint it stays until the endpoint is healthy, of
    /// others until a check passes.
    pub last_error: Option<String>,
    /// When the verdict last changed; `None`: never.
    pub since: Option<Instant>,
    /// Checks that were made or, because of real traffic, counted as passed.
    pub checks_total: u64,
    /// Checks that failed.
    pub failures_total: u64,
}

impl Report {
    /// Takes over what a check says of its endpoint in `service`, and takes it down if the verdict is another one.
    pub(super) fn take_over(
        &mut self,
        check: &Entry,
        service: &Arc<str>,
        now: tokio::time::Instant,
        changes: &mut Changes,
    ) {
        self.last_error.clone_from(&check.error);
        let health = check.state.health;
        let before = std::mem::replace(&mut self.health, health);
        if before != health {
            self.since = Some(now.into_std());
            let reason = check.error.clone().filter(|_| health == Health::Unhealthy);
            changes.add(before, Change { service: service.clone(), address: check.address, health, reason }, now);
        }
    }
}

/// Counts over all endpoints.
#[derive(Debug, Default)]
pub struct Counters {
    late: AtomicU64,
    skipped: AtomicU64,
    not_made: AtomicU64,
}

impl Counters {
    /// Checks that began over 100 ms after they were due, as too many were under way.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    /// Checks that real traffic made unnecessary.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// Checks that this host could not make: no files, no local ports, no permission to set the mark. They are held
    /// against no endpoint.
    #[must_use]
    pub fn not_made(&self) -> u64 {
        self.not_made.load(Ordering::Relaxed)
    }

    pub(super) fn count_late(&self) {
        self.late.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_skipped(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_not_made(&self) {
        self.not_made.fetch_add(1, Ordering::Relaxed);
    }
}

pub(super) type Key = (Arc<str>, SocketAddr);

#[derive(Default)]
pub(super) struct Shared {
    reports: Mutex<HashMap<Key, Report>>,
    pub(super) counters: Counters,
}

impl Shared {
    pub(super) fn reports(&self) -> MutexGuard<'_, HashMap<Key, Report>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks endpoints on a thread of its own, until it is stopped or dropped.
pub struct Checker {
    targets: Option<UnboundedSender<Vec<Target>>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Checker {
    /// Starts with no targets; `mark` is set on the sockets of all checks (`SO_MARK`), 0: none.
    ///
    /// # Errors
    /// The thread or its runtime cannot be made.
    pub fn start(sink: Arc<dyn Sink>, mark: u32) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (targets, asked) = unbounded_channel();
        let shared = Arc::<Shared>::default();
        let engine = engine::Engine::new(sink, mark, shared.clone());
        let thread =
            std::thread::Builder::new().name("health".to_owned()).spawn(move || runtime.block_on(engine.run(asked)))?;
        Ok(Self { targets: Some(targets), shared, thread: Some(thread) })
    }

    /// From now on exactly these are checked. Unchanged targets keep what is known and when they are due; with other
    /// settings, an endpoint keeps its verdict and its totals. If a service names an address twice, the first counts.
    pub fn set_targets(&self, targets: Vec<Target>) {
        if let Some(sender) = &self.targets {
            // It fails only once the thread has ended, and then there is nothing to check.
            let _ = sender.send(targets);
        }
    }

    /// What is known of an endpoint; of one that is not checked, nothing.
    #[must_use]
    pub fn health(&self, service: &str, address: SocketAddr) -> Report {
        self.shared.reports().get(&(Arc::from(service), address)).cloned().unwrap_or_default()
    }

    /// Counts over all endpoints.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Ends the checks, also those under way, and waits for their thread.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.targets = None;
        // The thread itself may be the last that knows this checker, through its sink: it ends without waiting.
        if let Some(thread) = self.thread.take_if(|thread| thread.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker").field("checked", &self.shared.reports().len()).finish_non_exhaustive()
    }
}
