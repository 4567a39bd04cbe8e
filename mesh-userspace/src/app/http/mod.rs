//! The proxy and the rest of the daemon: what workers look requests up in, whose circuits they meet, where they listen.

mod circuits;
mod log;
mod sockets;
mod status;

use super::{
    capture::{Capture, Take, is_needed},
    daemon::{Daemon, State, now},
    logs,
    traces::Tracing,
};
use crate::{
    api::Passed,
    config,
    datapath::EndpointShare,
    kernel::{Captured, Family, Netns, Place, Tables},
    model::Service,
    proxy::{Entry, Listener, Share, Shared, Sockets, Table, Turned, Workers},
    telemetry::logs::Logs,
};
use circuits::InTables;
use log::ToLogs;
use sockets::{Dialled, InNamespace};
use std::{
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc::Receiver},
    time::{Duration, Instant},
};

/// The proxy of a daemon.
#[derive(Debug)]
pub(super) struct Http {
    pub(super) shared: Arc<Shared>,
    pub(super) tracing: Tracing,
    workers: Arc<OnceLock<Mutex<Workers>>>,
    /// Where clients are captured; nowhere without a kernel.
    capture: OnceLock<Arc<Capture>>,
    /// Listeners of the explicit proxy, to be passed on.
    explicit: Mutex<Vec<OwnedFd>>,
    /// Where the explicit proxy listens, or why it does not.
    place: OnceLock<Result<SocketAddr, String>>,
    /// Workers that are silent for longer count as down.
    silence: Duration,
    count: usize,
    /// Circuits that requests turn, until somebody follows them.
    turned: Mutex<Option<Receiver<Turned>>>,
}

impl Http {
    pub(super) fn new(config: &config::Config, logs: &Arc<Logs>) -> Self {
        let count = match config.proxy.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count as usize,
        };
        let tracing = Tracing::default();
        let log = Arc::new(ToLogs(Arc::clone(logs)));
        let shared = Arc::new(Shared::new(count, log, Arc::clone(&tracing.traces) as _));
        let turned = shared.states.turned();
        let http = Self {
            shared,
            tracing,
            workers: Arc::default(),
            capture: OnceLock::new(),
            explicit: Mutex::default(),
            place: OnceLock::new(),
            silence: config.dataplane.heartbeat_timeout.get(),
            count,
            turned: Mutex::new(turned),
        };
        http.configure(&config.telemetry);
        http
    }

    /// Circuits that requests turn; `None`: somebody follows them already.
    pub(super) fn turned(&self) -> Option<Receiver<Turned>> {
        self.turned.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What of the telemetry's configuration is the proxy's.
    fn configure(&self, telemetry: &config::Telemetry) {
        let logged = logs::wanted(&telemetry.access_log);
        self.shared.sample(logged, telemetry.tracing.sample_rate.parts());
        self.tracing.configure(telemetry, &self.shared);
    }

    fn workers(&self) -> Option<MutexGuard<'_, Workers>> {
        locked(&self.workers)
    }

    fn explicit(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.explicit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies of all listeners, for a daemon that takes over.
    ///
    /// # Errors
    /// There can be no more descriptors.
    pub(super) fn listeners(&self) -> io::Result<Vec<(Passed, OwnedFd)>> {
        let explicit = self.explicit().iter().map(OwnedFd::try_clone).collect::<io::Result<Vec<_>>>()?;
        let captured = self.capture.get().map_or(Ok(Vec::new()), |capture| capture.all())?;
        let captured = captured.into_iter().map(|((netns, family, worker), socket)| {
            (Passed::Capture { netns, ipv6: family == Family::V6, worker }, socket)
        });
        Ok(explicit.into_iter().map(|socket| (Passed::Proxy, socket)).chain(captured).collect())
    }

    /// A client, process `pid`, went past the daemon in the network namespace with the cookie `netns`.
    pub(super) fn missed(&self, netns: u64, pid: u32) {
        if let Some(capture) = self.capture.get() {
            capture.missed(netns, pid);
        }
    }

    /// What is in the way of clients of HTTP services.
    pub(super) fn troubles(&self) -> Vec<String> {
        let explicit = self.place.get().and_then(|place| place.as_ref().err());
        let explicit = explicit.map(|why| format!("no explicit proxy: {why}"));
        let captures = self.capture.get().map(|capture| capture.troubles());
        explicit.into_iter().chain(captures.into_iter().flatten()).collect()
    }

    /// Lets requests finish, and connections end, for as long as `within`.
    /// `followed`: by another daemon, which has the same listeners.
    pub(super) fn drain(&self, within: Duration, followed: bool) {
        if let Some(capture) = self.capture.get() {
            // From here on connections go to the other daemon, or straight to endpoints.
            if followed {
                capture.leave();
            } else {
                capture.end();
                // Whoever was sent to a listener a moment ago is still to come.
                std::thread::sleep(ON_THE_WAY);
            }
        }
        self.explicit().clear();
        let Some(workers) = self.workers() else { return };
        let left = workers.drain(within, followed);
        if left > 0 {
            tracing::warn!(
                connections = left,
                "closed although requests were on their way: proxy.drain_timeout is over"
            );
        }
    }

    /// Ends the workers.
    pub(super) fn stop(&self) {
        if let Some(mut workers) = self.workers() {
            workers.stop();
        }
    }
}

/// Starts the workers and the explicit proxy.
///
/// # Errors
/// The system's, where there can be no threads.
pub(super) fn start(daemon: &Arc<Daemon>, inherited: ProxyListeners) -> io::Result<()> {
    let ProxyListeners { explicit, captured } = inherited;
    let config = daemon.state().config.clone();
    let http = &daemon.http;
    let tables = daemon.kernel().map(|kernel| Arc::clone(kernel.tables()));
    let workers = Workers::start(&http.shared, http.count, &beat(tables.clone()))?;
    if let Some(address) = config.proxy.http.0 {
        let netns = Arc::new(Netns::own(daemon.mark)?);
        // Another address than before: what was inherited is closed.
        let inherited = explicit.into_iter().filter(|socket| local_address(socket) == Some(address)).collect();
        match netns.listen_beside(address, BACKLOG, workers.count(), inherited) {
            Ok(listeners) => {
                *http.explicit() = listeners.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
                let sockets: Arc<dyn Sockets> =
                    Arc::new(InNamespace { netns, tables: tables.clone(), seen: daemon.seen });
                for (worker, socket) in listeners.into_iter().enumerate() {
                    let (socket, sockets) = (socket.into(), Arc::clone(&sockets));
                    // There may be more than workers, of a daemon that had more.
                    workers.listen(worker % workers.count(), Listener { socket, sockets, captures: None });
                }
                http.is_at(Ok(address));
            }
            Err(e) => {
                let why = format!("proxy.http {address}: {e}; free the port, or set another one");
                tracing::warn!("no explicit proxy: {why}");
                http.is_at(Err(why));
            }
        }
    }
    // A worker shows that it lives as soon as it runs.
    let until = Instant::now() + BEGIN;
    while http.shared.oldest_beat() == 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    // It is set once: the daemon starts once.
    let _ = http.workers.set(Mutex::new(workers));
    if let Some(tables) = tables {
        let take = Arc::new(ToWorkers { workers: Arc::clone(&http.workers), tables, seen: daemon.seen });
        let capture = Capture::start(daemon, config.proxy.port, http.count, captured, take)?;
        let _ = http.capture.set(capture);
    }
    Ok(())
}

/// Listeners that another daemon passed on.
#[derive(Debug, Default)]
pub(super) struct ProxyListeners {
    explicit: Vec<OwnedFd>,
    captured: Vec<(Place, OwnedFd)>,
}

impl ProxyListeners {
    /// Adds what was passed; what is none of the proxy's is closed.
    pub(super) fn add(&mut self, what: &Passed, socket: OwnedFd) {
        match *what {
            Passed::Proxy => self.explicit.push(socket),
            Passed::Capture { netns, ipv6, worker } => {
                let family = if ipv6 { Family::V6 } else { Family::V4 };
                self.captured.push(((netns, family, worker), socket));
            }
            _ => {}
        }
    }
}

fn local_address(socket: &OwnedFd) -> Option<SocketAddr> {
    socket2::SockRef::from(socket).local_addr().ok()?.as_socket()
}

/// Tells the hooks that workers live, the oldest sign of life of all.
fn beat(tables: Option<Arc<Tables>>) -> impl Fn(&Shared) + Clone + Send + 'static {
    move |shared| {
        if let Some(tables) = &tables {
            tables.beat_workers(shared.oldest_beat().saturating_mul(1_000_000));
        }
    }
}

/// The workers, once they were started.
fn locked(workers: &OnceLock<Mutex<Workers>>) -> Option<MutexGuard<'_, Workers>> {
    Some(workers.get()?.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Brings listeners of captured clients to workers.
struct ToWorkers {
    workers: Arc<OnceLock<Mutex<Workers>>>,
    tables: Arc<Tables>,
    /// Whether the kernel sees the daemon's own connections.
    seen: bool,
}

impl Take for ToWorkers {
    fn take(&self, worker: usize, listener: Captured) {
        let Captured { socket, family: _, netns } = listener;
        let sockets = Arc::new(InNamespace { netns, tables: Some(Arc::clone(&self.tables)), seen: self.seen });
        let captures = Arc::new(Dialled(Arc::clone(&self.tables)));
        if let Some(workers) = locked(&self.workers) {
            workers.listen(worker, Listener { socket: socket.into(), sockets, captures: Some(captures) });
        }
    }

    fn forget(&self, netns: u64) {
        if let Some(workers) = locked(&self.workers) {
            workers.forget(netns);
        }
    }
}

/// How long workers may take to begin.
const BEGIN: Duration = Duration::from_secs(2);

/// From a connect that is sent to a listener to its SYN takes less than this.
const ON_THE_WAY: Duration = Duration::from_millis(50);

/// Connections that may wait to be accepted; the system's `somaxconn` bounds it.
const BACKLOG: i32 = 4096;

impl Daemon {
    /// From now on requests meet what the snapshot says, and what is known of endpoints.
    pub(super) fn publish_requests(&self, state: &State) {
        let Some(datapath) = &state.datapath else { return };
        let before = self.http.shared.table.load();
        let entry = |service: &Arc<Service>, mark| {
            let (shares, limits) = datapath.shares(service, now());
            let row = self.tables().and_then(|_| datapath.service_row(&service.name));
            let tables = self.kernel().map(crate::kernel::Kernel::tables).zip(row);
            let has_rows = tables.is_some();
            Entry {
                facts: Arc::clone(service),
                limits,
                circuits: tables.map(|(tables, row)| Arc::new(InTables::new(tables, row)) as _),
                row,
                mark,
                endpoints: shares.iter().map(|share| self::share(share, has_rows)).collect(),
            }
        };
        // Nearly always it is one service of many that something was learned of, and the others stay as they are.
        let (mut kept, mut entries) = (Vec::new(), Vec::new());
        for service in state.snapshot.services().iter().filter(|s| s.protocol.is_proxied()) {
            let mark = datapath.mark(&service.name);
            match before.service(&service.name).filter(|known| known.is_still(service, mark)) {
                Some(known) => kept.push(Arc::clone(known)),
                None => entries.push(entry(service, mark)),
            }
        }
        drop(before);
        let table = Table::after(kept, entries, Arc::clone(&state.snapshot), &self.http.shared.states);
        self.http.shared.table.store(Arc::new(table));
        self.http.configure(&state.config.telemetry);
        if let Some(capture) = self.http.capture.get() {
            capture.look(is_needed(&state.snapshot));
        }
    }
}

fn share(share: &EndpointShare, has_row: bool) -> Share {
    let EndpointShare { address, slot, standing, attended, all } = *share;
    Share { address, row: has_row.then_some(slot), tier: standing.tier, attended, all }
}
