//! Listeners for the clients of HTTP services, in every network namespace that has any, and in the daemon's own.

use super::daemon::Daemon;
use crate::{
    kernel::{self, Barred, Captured, Change, Listeners, Namespace, Place, Places, Refused},
    model::Snapshot,
};
use std::{
    fmt, io,
    os::fd::OwnedFd,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

/// How often it is looked where clients are: as long a listener stays in a namespace that everybody has left. In one that
/// has a name it stays as long as that: who starts a program there each minute finds it.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Whoever accepts.
pub(super) trait Take: Send + Sync {
    /// Worker `worker` accepts what comes to this listener.
    fn take(&self, worker: usize, listener: Captured);
    /// All workers close their listeners in the namespace with this cookie, and let go of it.
    fn forget(&self, netns: u64);
}

/// What the thread that opens and closes is told.
enum Order {
    /// A client went past the daemon: cookie of its network namespace, and its process.
    Missed(u64, u32),
    Look,
    Stop,
}

/// The listeners.
pub(super) struct Capture {
    daemon: Arc<Daemon>,
    take: Arc<dyn Take>,
    orders: mpsc::Sender<Order>,
    /// Whether any service goes through the daemon.
    needed: AtomicBool,
    /// `None`: clients go past the daemon from now on.
    places: Mutex<Option<Places>>,
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture").finish_non_exhaustive()
    }
}

impl Capture {
    /// Opens listeners wherever clients are, for each of so many `workers`, at `port`, and goes on in a thread of its own.
    /// Those that were `inherited` from a daemon that is followed are among them.
    ///
    /// # Errors
    /// The system's, where there can be no thread.
    pub(super) fn start(
        daemon: &Arc<Daemon>,
        port: u16,
        workers: usize,
        inherited: Vec<(Place, OwnedFd)>,
        take: Arc<dyn Take>,
    ) -> io::Result<Arc<Self>> {
        let mut places = Places::new(port, workers, daemon.mark);
        places.inherit(inherited);
        let (order, orders) = mpsc::channel();
        let places = Mutex::new(Some(places));
        let needed = AtomicBool::new(false);
        let capture = Arc::new(Self { daemon: Arc::clone(daemon), take, orders: order, needed, places });
        let snapshot = Arc::clone(&daemon.state().snapshot);
        capture.look(is_needed(&snapshot));
        let keeper = Arc::clone(&capture);
        thread::Builder::new().name("capture".to_owned()).spawn(move || keeper.keep(&orders))?;
        Ok(capture)
    }

    /// A client, process `pid`, went past the daemon in the namespace with the cookie `netns`.
    pub(super) fn missed(&self, netns: u64, pid: u32) {
        // Without the thread nobody can do anything about it.
        let _ = self.orders.send(Order::Missed(netns, pid));
    }

    /// Services changed: looks where clients are soon, and not only when it is time. Where the first one goes through the
    /// daemon now (`needed`), before this returns: who is told of the service then is not too early.
    pub(super) fn look(&self, needed: bool) {
        if needed && !self.needed.swap(needed, Ordering::AcqRel) {
            self.look_now();
        } else {
            self.needed.store(needed, Ordering::Release);
            let _ = self.orders.send(Order::Look);
        }
    }

    fn look_now(&self) {
        let namespaces = match &self.daemon.cgroup {
            Some(cgroup) if self.needed.load(Ordering::Acquire) => self.namespaces(cgroup),
            _ => Vec::new(),
        };
        self.change(|places, listeners, tell| places.found(listeners, &namespaces, tell));
    }

    /// Where clients are, or may come and go between two looks.
    fn namespaces(&self, cgroup: &Path) -> Vec<Namespace> {
        let open = self.places().as_ref().map(Places::inodes).unwrap_or_default();
        let named = kernel::named_namespaces().into_iter().filter(|namespace| open.contains(&namespace.inode));
        kernel::namespaces_in(cgroup).into_iter().chain(kernel::own_namespace()).chain(named).collect()
    }

    /// Copies of all listeners, for a daemon that takes over.
    ///
    /// # Errors
    /// There can be no more descriptors.
    pub(super) fn all(&self) -> io::Result<Vec<(Place, OwnedFd)>> {
        let places = self.places();
        let all = places.iter().flat_map(Places::all);
        all.map(|(place, socket)| Ok((place, socket.try_clone_to_owned()?))).collect()
    }

    /// From now on clients go past the daemon. Workers still have their listeners, and whoever waits there can be
    /// accepted until they close them.
    pub(super) fn end(&self) {
        let places = self.places().take();
        if let (Some(places), Some(tables)) = (&places, self.daemon.tables()) {
            places.hide(tables.listeners());
        }
        let _ = self.orders.send(Order::Stop);
    }

    /// As [`Capture::end`], where another daemon has the listeners: what clients are shown is its to change.
    pub(super) fn leave(&self) {
        drop(self.places().take());
        let _ = self.orders.send(Order::Stop);
    }

    /// Why clients go past the daemon, where there are any and something is in the way.
    pub(super) fn troubles(&self) -> Vec<String> {
        let places = self.places();
        let Some(places) = places.as_ref() else { return Vec::new() };
        let refused: Vec<Refused> = places.refused().filter(is_trouble).collect();
        let more = match refused.len() {
            0 | 1 => String::new(),
            n => format!(" (and so in {} more places)", n - 1),
        };
        let refused = refused.first().map(|first| format!("network namespace {}: {}{more}", first.inode, why(first)));
        refused.into_iter().chain(places.barred().map(why_barred)).collect()
    }

    fn places(&self) -> MutexGuard<'_, Option<Places>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, orders: &mpsc::Receiver<Order>) {
        let mut look_at = Instant::now();
        loop {
            match orders.recv_timeout(look_at.saturating_duration_since(Instant::now())) {
                Ok(Order::Missed(netns, pid)) => self.change(|places, listeners, tell| {
                    places.missed(listeners, netns, pid, tell);
                }),
                Ok(Order::Look) | Err(RecvTimeoutError::Timeout) => {
                    self.look_now();
                    look_at = Instant::now() + LOOK_AGAIN;
                }
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut Places, &Listeners, &mut dyn FnMut(Change))) {
        let mut places = self.places();
        if let (Some(places), Some(tables)) = (places.as_mut(), self.daemon.tables()) {
            change(places, tables.listeners(), &mut |change| self.tell(change));
        }
    }

    fn tell(&self, change: Change) {
        match change {
            Change::Opened(worker, listener) => self.take.take(worker, listener),
            Change::Closed(netns) => self.take.forget(netns),
            Change::Refused(refused) if is_trouble(&refused) => {
                tracing::warn!(namespace = refused.inode, "{}", why(&refused));
            }
            Change::Refused(refused) => tracing::debug!(namespace = refused.inode, "{}", why(&refused)),
            Change::Barred(barred) => tracing::warn!("{}", why_barred(barred)),
        }
    }
}

/// Whether any service goes through the daemon.
pub(super) fn is_needed(snapshot: &Snapshot) -> bool {
    snapshot.services().iter().any(|service| service.protocol.is_proxied())
}

/// Whether somebody should do something about it.
const fn is_trouble(refused: &Refused) -> bool {
    refused.errno != libc::EADDRNOTAVAIL
}

fn why(refused: &Refused) -> String {
    let address = refused.address;
    match refused.errno {
        libc::EADDRINUSE => format!(
            "{address} is taken there: clients of HTTP services go straight to endpoints; set another proxy.port, or \
             free it"
        ),
        libc::EADDRNOTAVAIL => format!(
            "no {address} there (IPv6 is disabled, or the loopback interface is down): its clients go straight to \
             endpoints"
        ),
        errno => {
            let error = io::Error::from_raw_os_error(errno);
            format!("cannot listen at {address}, clients go straight to endpoints: {error}")
        }
    }
}

fn why_barred(Barred(errno): Barred) -> String {
    let error = io::Error::from_raw_os_error(errno);
    format!(
        "network namespaces of clients cannot be entered ({error}): HTTP clients there go straight to endpoints; \
         CAP_SYS_ADMIN and CAP_SYS_PTRACE are needed"
    )
}
