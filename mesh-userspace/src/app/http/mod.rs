//! The proxy and the rest of the daemon: what workers look requests up in, whose circuits they meet, where they listen.

mod circuits;
mod log;
mod sockets;

use super::daemon::{Daemon, State, now};
use crate::{
    config,
    datapath::EndpointShare,
    model::Service,
    proxy::{Entry, Listener, Share, Shared, Sockets, Table, Workers},
};
use circuits::InTables;
use log::ToStderr;
use sockets::OwnNamespace;
use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

/// The proxy of a daemon.
#[derive(Debug)]
pub(super) struct Http {
    pub(super) shared: Arc<Shared>,
    workers: OnceLock<Mutex<Workers>>,
    count: usize,
}

impl Http {
    pub(super) fn new(config: &config::Config) -> Self {
        let count = match config.proxy.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count as usize,
        };
        let shared = Arc::new(Shared::new(count, Arc::new(ToStderr)));
        let http = Self { shared, workers: OnceLock::new(), count };
        http.configure(&config.telemetry);
        http
    }

    /// What of the telemetry's configuration is the proxy's.
    fn configure(&self, telemetry: &config::Telemetry) {
        let log = &telemetry.access_log;
        let logged = if log.enabled && log.stderr { part(log.sample_rate) } else { 0.0 };
        self.shared.sample(logged, part(telemetry.tracing.sample_rate));
    }

    fn workers(&self) -> Option<std::sync::MutexGuard<'_, Workers>> {
        Some(self.workers.get()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets requests finish, and connections end, for as long as `within`.
    pub(super) fn drain(&self, within: Duration) {
        let Some(workers) = self.workers() else { return };
        let left = workers.drain(within);
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

/// A rate as a part of one.
fn part(rate: config::Rate) -> f64 {
    f64::from(rate.parts()) / f64::from(config::Rate::from_parts(u32::MAX).parts())
}

/// Starts the workers and the explicit proxy.
///
/// # Errors
/// The system's, where there can be no threads.
pub(super) fn start(daemon: &Arc<Daemon>) -> io::Result<()> {
    let config = daemon.state().config.clone();
    let http = &daemon.http;
    let workers = Workers::start(&http.shared, http.count, &|_: &Shared| ())?;
    let mark = config.dataplane.mark.get();
    if let Some(address) = config.proxy.http.0 {
        let sockets: Arc<dyn Sockets> = Arc::new(OwnNamespace { mark });
        match listen(address, workers.count()) {
            Ok(listeners) => {
                for (worker, socket) in listeners.into_iter().enumerate() {
                    workers.listen(worker, Listener { socket, sockets: Arc::clone(&sockets), captures: None });
                }
            }
            Err(e) => tracing::warn!("no explicit proxy: proxy.http {address}: {e}; free the port, or set another one"),
        }
    }
    // It is set once: the daemon starts once.
    let _ = http.workers.set(Mutex::new(workers));
    Ok(())
}

/// One socket a worker, all at one address; the first one makes sure that nobody else listens there.
fn listen(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    let socket = || {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM.nonblocking(), Some(socket2::Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        // Accepted sockets inherit it: one system call less each.
        socket.set_tcp_nodelay(true)?;
        io::Result::Ok(socket)
    };
    let first = socket()?;
    // Shared only after it was bound: a socket that shares from the start could be bound beside another daemon's.
    first.bind(&address.into())?;
    first.set_reuse_port(true)?;
    first.listen(BACKLOG)?;
    let bound = first.local_addr()?;
    let mut all = vec![first.into()];
    for _ in 1..workers {
        let another = socket()?;
        another.set_reuse_port(true)?;
        another.bind(&bound)?;
        another.listen(BACKLOG)?;
        all.push(another.into());
    }
    Ok(all)
}

/// Connections that may wait to be accepted; the system's `somaxconn` bounds it.
const BACKLOG: i32 = 4096;

impl Daemon {
    /// From now on requests meet what the snapshot says, and what is known of endpoints.
    pub(super) fn publish_requests(&self, state: &State) {
        let Some(datapath) = &state.datapath else { return };
        let entry = |service: &Arc<Service>| {
            let (shares, limits) = datapath.shares(service, now());
            let row = self.tables().and_then(|_| datapath.service_row(&service.name));
            let tables = self.kernel().map(crate::kernel::Kernel::tables).zip(row);
            let has_rows = tables.is_some();
            Entry {
                facts: Arc::clone(service),
                limits,
                circuits: tables.map(|(tables, row)| Arc::new(InTables::new(tables, row)) as _),
                row,
                endpoints: shares.iter().map(|share| self::share(share, has_rows)).collect(),
            }
        };
        let proxied = state.snapshot.services().iter().filter(|s| s.protocol.is_proxied());
        let table = Table::new(proxied.map(entry).collect(), &self.http.shared.states);
        self.http.shared.table.store(Arc::new(table));
        self.http.configure(&state.config.telemetry);
    }
}

fn share(share: &EndpointShare, has_row: bool) -> Share {
    let EndpointShare { address, slot, tier, attended, all } = *share;
    Share { address, row: has_row.then_some(slot), tier, attended, all }
}
