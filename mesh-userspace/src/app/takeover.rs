//! `mesh run --takeover`: what a daemon gets from the one that it follows, and how it tells that one to go.

use super::{http::ProxyListeners, names::NameSockets};
use crate::{
    api::{
        Client, ClientError, Discovered, Estate, Farewell, Greeting, Inherited, Line, LineError, MorePassed, Passed,
        Ready, RuntimeChange,
    },
    model::{BreakerOverride, Override, Overrides, Policy},
};
use std::{fs::File, path::Path, time::Duration};

/// How long the running daemon may take for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the daemon before this one leaves it; nothing, where there was none.
#[derive(Debug, Default)]
pub(super) struct Inheritance {
    pub(super) predecessor: Option<Predecessor>,
    pub(super) overrides: Overrides,
    pub(super) listeners: Inherited,
    pub(super) locks: Vec<File>,
    pub(super) proxy: ProxyListeners,
    pub(super) names: NameSockets,
    pub(super) discovered: Discovered,
}

/// The daemon before this one: it answers who asks and changes nothing, until it is relieved or this process ends.
#[derive(Debug)]
pub(super) struct Predecessor {
    line: Line,
    pid: u32,
    /// Whether its programs intercept connections.
    pub(super) intercepts: bool,
}

/// Asks the daemon behind an admin socket to be followed. Where nobody listens there is nothing to inherit.
///
/// # Errors
/// What is behind the socket instead, or why it refuses.
pub(super) fn ask(socket: &Path) -> Result<Inheritance, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let client = Client::new(socket).with_patience(PATIENCE);
    let line = match runtime.block_on(client.take_over()) {
        Ok(line) => line,
        Err(ClientError::NotReachable { why, .. }) => {
            tracing::info!("nobody to take over from at {}: {why}", socket.display());
            return Ok(Inheritance::default());
        }
        Err(ClientError::Refused { kind, .. }) if kind == "not_found" => {
            let shown = socket.display();
            return Err(format!("the daemon at {shown} is of a version that cannot be taken over: restart it instead"));
        }
        Err(e) => return Err(format!("no takeover: {e}")),
    };
    let garbled = |e: LineError| format!("no takeover from the daemon at {}: {e}", socket.display());
    let greeting = Greeting { version: env!("CARGO_PKG_VERSION").to_owned(), pid: std::process::id() };
    line.send(&greeting, &[], PATIENCE).map_err(garbled)?;
    let (estate, mut descriptors) = line.receive::<Estate>(PATIENCE).map_err(garbled)?;
    while !descriptors.is_empty() && descriptors.len() < estate.descriptors.len() {
        let (MorePassed { .. }, more) = line.receive(PATIENCE).map_err(garbled)?;
        if more.is_empty() {
            break;
        }
        descriptors.extend(more);
    }
    if descriptors.len() != estate.descriptors.len() {
        return Err(garbled(LineError::Garbled(format!("{} descriptors are missing", estate.descriptors.len()))));
    }
    let (mut listeners, mut locks, mut proxy) = (Inherited::default(), Vec::new(), ProxyListeners::default());
    let mut names = NameSockets::default();
    for (what, descriptor) in estate.descriptors.iter().zip(descriptors) {
        let rest = listeners.add(what, descriptor);
        match (what, rest) {
            (Passed::Lock { .. }, Some(lock)) => locks.push(File::from(lock)),
            (Passed::NameServer { udp }, Some(socket)) => names.add(*udp, socket),
            (what, Some(listener)) => proxy.add(what, listener),
            (_, None) => {}
        }
    }
    let overrides: Overrides = estate.changes.iter().filter_map(known).collect();
    tracing::info!(
        pid = estate.pid,
        version = estate.version,
        descriptors = estate.descriptors.len(),
        runtime_changes = overrides.list().count(),
        "taking over"
    );
    let predecessor = Some(Predecessor { line, pid: estate.pid, intercepts: estate.intercepts });
    Ok(Inheritance { predecessor, overrides, listeners, locks, proxy, names, discovered: estate.discovered })
}

/// A change that an operator made, if this version knows its kind.
fn known(change: &RuntimeChange) -> Option<Override> {
    let known = match change.clone() {
        RuntimeChange::Policy { service, policy } => {
            let policy = Policy::ALL.into_iter().find(|known| known.word() == policy);
            policy.map(|policy| Override::Policy { service, policy })
        }
        RuntimeChange::Endpoint { service, address, weight, draining, tripped } => {
            Some(Override::Endpoint { service, address, weight, draining, tripped })
        }
        RuntimeChange::Breaker { service, failure_threshold, reset_timeout_ms } => {
            let change =
                BreakerOverride { failure_threshold, reset_timeout: reset_timeout_ms.map(Duration::from_millis) };
            Some(Override::Breaker { service, change })
        }
        RuntimeChange::Unknown => None,
    };
    if known.is_none() {
        tracing::warn!("a runtime change is lost, which this version does not know: {change:?}");
    }
    known
}

impl Predecessor {
    /// Lets it go. Whatever it says or does not say: it hears that this daemon is at work, or has ended itself.
    pub(super) fn relieve(self) {
        let Self { line, pid, .. } = self;
        let said = line.send(&Ready { ready: true }, &[], PATIENCE);
        match said.and_then(|()| line.receive::<Farewell>(PATIENCE)) {
            Ok(_) => tracing::info!(pid, "took over"),
            Err(LineError::Closed) => tracing::warn!(pid, "took over from a daemon that ended meanwhile"),
            Err(e) => tracing::warn!(pid, "took over, but {e}"),
        }
    }
}
