//! The DNS server at work: where it listens, and what it answers from.

use super::{daemon::Daemon, facts::Facts, host};
use crate::{
    api::Passed,
    discovery::{self, Direct, NameServer, NameTable},
};
use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

/// How long after listening failed it is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// How long questions that are on their way may take when the daemon ends.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// The most connections that wait at the TCP listener.
const BACKLOG: i32 = 256;

/// Who answers for the names of services, on a thread of its own: whatever sources tell, names are answered.
#[derive(Debug, Default)]
pub(super) struct Names {
    table: Arc<ArcSwap<NameTable>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The thread's runtime, while there is one, and how it is ended.
    runtime: Option<(Handle, oneshot::Sender<()>)>,
    /// Sockets of the daemon before this one.
    inherited: NameSockets,
    /// How other servers are asked.
    direct: Direct,
    /// What is wanted.
    wanted: Option<discovery::Names>,
    serving: Option<Serving>,
    problem: Option<String>,
    /// When listening is tried again.
    again_at: Option<Instant>,
}

/// A server, and copies of its sockets.
#[derive(Debug)]
struct Serving {
    sockets: (UdpSocket, TcpListener),
    server: NameServer,
}

/// Sockets of a DNS server that another daemon left.
#[derive(Debug, Default)]
pub(super) struct NameSockets {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

impl NameSockets {
    pub(super) fn add(&mut self, udp: bool, socket: OwnedFd) {
        match udp {
            true => self.udp.push(socket.into()),
            false => self.tcp.push(socket.into()),
        }
    }

    /// Those at an address, if there are both.
    fn take(&mut self, listen: SocketAddr) -> Option<(UdpSocket, TcpListener)> {
        let at = |address: io::Result<SocketAddr>| address.is_ok_and(|address| address == listen);
        let udp = self.udp.drain(..).find(|socket| at(socket.local_addr()))?;
        let tcp = self.tcp.drain(..).find(|socket| at(socket.local_addr()))?;
        Some((udp, tcp))
    }
}

/// Starts a thread for the server, and the server where one is wanted.
///
/// # Errors
/// Why there is no thread.
pub(super) fn start(daemon: &Arc<Daemon>, inherited: NameSockets) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = oneshot::channel::<()>();
    {
        let mut state = daemon.names.state();
        state.runtime = Some((runtime.handle().clone(), stop));
        state.inherited = inherited;
        state.direct = daemon.direct;
    }
    thread::Builder::new().name("names".to_owned()).spawn(move || {
        let _ = runtime.block_on(stopped);
    })?;
    let state = daemon.state();
    daemon.names.work(&state.config.discovery.names(), &state.facts);
    Ok(())
}

impl Names {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers where it is wanted, with the names of all services. A server that is as it is wanted goes on.
    pub(super) fn work(&self, wanted: &discovery::Names, facts: &Facts) {
        let mut state = self.state();
        if state.wanted.as_ref() == Some(wanted) && state.problem.is_none() {
            return;
        }
        // Where it goes on listening, nobody is to be turned away meanwhile.
        if let Some(Serving { sockets: (udp, tcp), server: _ }) = state.serving.take() {
            state.inherited.udp.push(udp);
            state.inherited.tcp.push(tcp);
        }
        state.wanted = Some(wanted.clone());
        drop(state);
        self.publish(facts);
        let mut state = self.state();
        let served = wanted.listen.map(|listen| state.serve(listen, wanted, &self.table));
        // Nobody else takes them.
        state.inherited = NameSockets::default();
        state.problem = match served {
            Some(Err(why)) => {
                let why = format!("discovery.dns_listen: {why}: names of services are not answered");
                if state.problem.as_ref() != Some(&why) {
                    tracing::warn!("{why}");
                }
                Some(why)
            }
            Some(Ok(())) | None => None,
        };
        state.again_at = state.problem.is_some().then(|| Instant::now() + AGAIN);
    }

    /// Tries again to listen, where that failed some time ago.
    pub(super) fn try_again(&self, wanted: &discovery::Names, facts: &Facts) {
        if self.state().again_at.is_some_and(|at| at <= Instant::now()) {
            self.work(wanted, facts);
        }
    }

    /// Answers with the names of the services as they are from now on.
    pub(super) fn publish(&self, facts: &Facts) {
        let listens = self.state().wanted.as_ref().is_some_and(|wanted| wanted.listen.is_some());
        if !listens {
            self.table.store(Arc::default());
        } else if !self.table.load().is_of(facts.named()) {
            self.table.store(Arc::new(NameTable::new(facts.named())));
        }
    }

    /// Why names are not answered although they should be.
    pub(super) fn problem(&self) -> Option<String> {
        self.state().problem.clone()
    }

    /// Copies of the sockets, to be passed on.
    ///
    /// # Errors
    /// There can be no more descriptors.
    pub(super) fn sockets(&self) -> io::Result<Vec<(Passed, OwnedFd)>> {
        let state = self.state();
        let Some(Serving { sockets: (udp, tcp), .. }) = &state.serving else { return Ok(Vec::new()) };
        Ok(vec![
            (Passed::NameServer { udp: true }, udp.try_clone()?.into()),
            (Passed::NameServer { udp: false }, tcp.try_clone()?.into()),
        ])
    }

    /// Answers no more. Another daemon that has the sockets does.
    pub(super) fn stop(&self) {
        let mut state = self.state();
        if let Some(Serving { server, .. }) = state.serving.take() {
            server.finish(LAST_WORDS);
        }
        if let Some((_, stop)) = state.runtime.take() {
            let _ = stop.send(());
        }
    }
}

impl State {
    fn serve(
        &mut self,
        listen: SocketAddr,
        wanted: &discovery::Names,
        table: &Arc<ArcSwap<NameTable>>,
    ) -> Result<(), String> {
        let Some((runtime, _)) = &self.runtime else { return Ok(()) };
        let sockets = match self.inherited.take(listen) {
            Some(sockets) => sockets,
            None => bind(listen)?,
        };
        let at = sockets.0.local_addr().map_err(|e| e.to_string())?;
        let copies = || Ok((sockets.0.try_clone()?, sockets.1.try_clone()?));
        let copies = copies().map_err(|e: io::Error| e.to_string())?;
        let _context = runtime.enter();
        let server =
            NameServer::start(Arc::clone(table), copies, wanted.servers.clone(), || host().addresses, self.direct);
        let server = server.map_err(|e| e.to_string())?;
        self.serving = Some(Serving { sockets, server });
        tracing::info!("names of services are answered at {at}");
        Ok(())
    }
}

/// Sockets at an address, for both ways to ask.
fn bind(listen: SocketAddr) -> Result<(UdpSocket, TcpListener), String> {
    let explain = |way: &str, e: io::Error| match e.kind() {
        io::ErrorKind::AddrInUse => format!("somebody else listens at {listen} ({way})"),
        io::ErrorKind::AddrNotAvailable => format!("{listen} is no address of this host"),
        io::ErrorKind::PermissionDenied => {
            format!("{listen} ({way}): {e}; a port below 1024 needs CAP_NET_BIND_SERVICE")
        }
        _ => format!("{listen} ({way}): {e}"),
    };
    let udp = socket(listen, Type::DGRAM, Protocol::UDP).map_err(|e| explain("UDP", e))?;
    let udp: UdpSocket = udp.into();
    let tcp = socket(listen, Type::STREAM, Protocol::TCP).and_then(|socket| {
        socket.listen(BACKLOG)?;
        Ok(socket)
    });
    Ok((udp, tcp.map_err(|e| explain("TCP", e))?.into()))
}

fn socket(listen: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(listen), kind.nonblocking(), Some(protocol))?;
    if kind == Type::STREAM {
        // Connections of a daemon before this one may still be there.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&SockAddr::from(listen))?;
    Ok(socket)
}
