//! Circuits as the kernel turns them: heard, logged, followed; and what they are at a moment.

use super::daemon::{Daemon, State, now};
use crate::{
    api::{CircuitState, Time},
    datapath::{Datapath, Turned},
    kernel::{Event, Events, Tables},
    model::Service,
    proxy::Table,
};
use mesh_common::{
    breaker::{State as Circuit, Word},
    event::Transition,
};
use nix::poll::{PollFd, PollFlags, poll};
use std::{io, net::SocketAddr, os::fd::AsFd, sync::Arc, thread, time::Duration};

/// How long it may take until the daemon's end is noticed.
const LOOK_UP: u16 = 500;

/// Takes what programs tell, in a thread of its own, as long as the daemon runs. `no_listener` hears of clients that went
/// past the daemon in a network namespace where it does not listen: the namespace's cookie, and the client's process.
///
/// # Errors
/// The system's, where there can be no thread.
pub(super) fn follow(
    daemon: &Arc<Daemon>,
    mut events: Events,
    no_listener: impl Fn(u64, u32) + Send + 'static,
) -> io::Result<()> {
    let daemon = Arc::clone(daemon);
    let follow = move || {
        while !daemon.is_stopping() {
            let mut ready = [PollFd::new(events.as_fd(), PollFlags::POLLIN)];
            // Whatever comes of it, events that are there are taken, and none are lost by waiting again.
            let _ = poll(&mut ready, LOOK_UP);
            let mut transitions = Vec::new();
            while let Some(event) = events.take() {
                match event {
                    Event::Turned(transition) => transitions.push(transition),
                    Event::NoListener { netns, pid } => no_listener(netns, pid),
                }
            }
            if !transitions.is_empty() {
                daemon.turned(&transitions);
            }
        }
    };
    thread::Builder::new().name("circuits".to_owned()).spawn(follow).map(drop)
}

impl Daemon {
    /// Circuits turned.
    fn turned(&self, transitions: &[Transition]) {
        let mut state = self.state();
        let snapshot = Arc::clone(&state.snapshot);
        let (Some(tables), Some(datapath)) = (self.tables(), state.datapath.as_mut()) else { return };
        for event in transitions {
            if let Some(turned) = datapath.turned(tables, &snapshot, event, now()) {
                log(&turned);
            }
        }
        if state.may_change().is_ok() {
            self.refresh(&mut state);
        }
    }

    /// Brings what was learned of endpoints into the tables.
    pub(super) fn refresh(&self, state: &mut State) {
        let Some(datapath) = state.datapath.as_mut() else { return };
        if let Some(tables) = self.tables() {
            datapath.due(tables, &state.snapshot, now());
        }
        if !datapath.wants_refresh() {
            return;
        }
        let again_at = match self.tables() {
            Some(tables) => datapath.refresh(tables, &state.snapshot, now()),
            None => datapath.note_snapshot(&state.snapshot, now()),
        };
        if let Some(at) = again_at {
            state.again_at = Some(state.again_at.map_or(at, |before| before.min(at)));
        }
        self.publish_requests(state);
    }

    /// Closes the circuit of an endpoint, wherever it lives, and forgets what spoke against the endpoint. What it was;
    /// `None`: it has none.
    pub(super) fn close(&self, state: &mut State, service: &Service, address: SocketAddr) -> Option<Word> {
        if let (Some(tables), Some(datapath)) = (self.tables(), state.datapath.as_mut())
            && let Some(word) = datapath.close(tables, service, address)
        {
            return Some(word);
        }
        let table = self.http.shared.table.load();
        let service = table.service(&service.name)?;
        Some(service.state().close_circuit(service.endpoint(address)?))
    }

    /// Looks whether the kernel counts open circuits right.
    pub(super) fn recount(&self, state: &mut State) {
        if let (Some(tables), Some(datapath)) = (self.tables(), state.datapath.as_mut()) {
            datapath.recount(tables, &state.snapshot, now());
        }
    }
}

/// Circuits at one moment.
pub(super) struct Circuits<'a> {
    tables: Option<(&'a Tables, &'a Datapath)>,
    /// Those of requests, where no kernel has them.
    requests: Arc<Table>,
    /// On the clock of circuits.
    pub(super) now_ms: u64,
    time: Time,
}

impl<'a> Circuits<'a> {
    pub(super) fn new(daemon: &'a Daemon, state: &'a State) -> Self {
        let tables = daemon.tables().zip(state.datapath.as_ref());
        let requests = daemon.http.shared.table.load_full();
        Self { tables, requests, now_ms: now() / 1_000_000, time: Time::now() }
    }

    /// The word of an endpoint's circuit: the kernel's, or else that of requests. `None`: it has no circuit.
    pub(super) fn known(&self, service: &str, address: SocketAddr) -> Option<Word> {
        let rows = self.tables.filter(|(_, datapath)| datapath.endpoint_row(service, address).is_some());
        match rows {
            Some((tables, datapath)) => Some(datapath.circuit(tables, service, address)),
            None => Some(self.requests.service(service)?.endpoint(address)?.own_circuit()),
        }
    }

    /// The word of an endpoint's circuit; one that it does not have is closed.
    pub(super) fn word(&self, service: &str, address: SocketAddr) -> Word {
        self.known(service, address).unwrap_or_default()
    }

    /// A moment of the monotonic clock as a time of day.
    pub(super) fn time(&self, ms: u64) -> Time {
        self.time.after(Duration::from_millis(ms.saturating_sub(self.now_ms)))
    }
}

/// The state of a circuit as operators see it: one that is held open is open.
pub(super) fn shown(word: Word, tripped: bool) -> CircuitState {
    match word.state() {
        _ if tripped => CircuitState::Open,
        Circuit::Closed => CircuitState::Closed,
        Circuit::Open => CircuitState::Open,
        Circuit::HalfOpen => CircuitState::HalfOpen,
    }
}

/// The circuit of a service: open when none of its endpoints admits a connection, half-open when only probes may pass.
pub(super) fn of_service(circuits: impl Iterator<Item = CircuitState>) -> CircuitState {
    let mut best = None;
    for circuit in circuits {
        best = match (best, circuit) {
            (_, CircuitState::Closed) => return CircuitState::Closed,
            (Some(CircuitState::HalfOpen), _) | (_, CircuitState::HalfOpen) => Some(CircuitState::HalfOpen),
            (_, CircuitState::Open) => Some(CircuitState::Open),
        };
    }
    best.unwrap_or(CircuitState::Closed)
}

fn log(turned: &Turned) {
    let Turned { service, endpoint, from, to } = turned;
    let (from_word, to_word) = (from.state().word(), to.state().word());
    let openings = to.openings(0);
    match to.state() {
        Circuit::Open => tracing::warn!(
            service,
            %endpoint,
            failures = to.failures(),
            openings,
            for_ms = to.deadline().saturating_sub(now() / 1_000_000),
            "circuit {from_word} → {to_word}: the endpoint gets no connections"
        ),
        Circuit::HalfOpen => {
            tracing::info!(service, %endpoint, openings, "circuit {from_word} → {to_word}: a probe decides")
        }
        Circuit::Closed => tracing::info!(service, %endpoint, "circuit {from_word} → {to_word}: the endpoint is back"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_open_only_if_nobody_lets_connections_through() {
        use CircuitState::{Closed, HalfOpen, Open};
        let of = |circuits: &[CircuitState]| of_service(circuits.iter().copied());
        assert_eq!([of(&[]), of(&[Open, Closed]), of(&[Open, Open])], [Closed, Closed, Open]);
        assert_eq!([of(&[Open, HalfOpen, Open]), of(&[HalfOpen, Open])], [HalfOpen, HalfOpen]);
    }
}
