//! Circuits as the kernel and requests turn them: heard, logged, followed; and what they are at a moment.

use super::daemon::{Daemon, State, now};
use crate::{
    api::{CircuitState, Time},
    datapath::{Datapath, Turned},
    kernel::{Event, Events, Tables},
    model::Service,
    proxy::{self, Table},
};
use mesh_common::{
    breaker::{State as Circuit, Word},
    event::Transition,
};
use nix::poll::{PollFd, PollFlags, poll};
use std::{
    io,
    net::SocketAddr,
    os::fd::AsFd,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

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

/// Hears of circuits that requests turned, in a thread of its own, as long as the daemon runs.
///
/// # Errors
/// The system's, where there can be no thread.
pub(super) fn follow_requests(daemon: &Arc<Daemon>, turned: Receiver<proxy::Turned>) -> io::Result<()> {
    let daemon = Arc::clone(daemon);
    let follow = move || {
        while !daemon.is_stopping() {
            match turned.recv_timeout(Duration::from_millis(LOOK_UP.into())) {
                Ok(first) => daemon.requests_turned(std::iter::once(first).chain(turned.try_iter())),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    };
    thread::Builder::new().name("request-circuits".to_owned()).spawn(follow).map(drop)
}

impl Daemon {
    /// Requests turned circuits.
    fn requests_turned(&self, turned: impl Iterator<Item = proxy::Turned>) {
        let mut state = self.state();
        let snapshot = Arc::clone(&state.snapshot);
        let Some(datapath) = state.datapath.as_mut() else { return };
        let table = self.http.shared.table.load();
        for proxy::Turned { service: name, endpoint, from, to } in turned {
            if let Some(service) = snapshot.service(&name) {
                // As it is by now: workers tell in any order.
                let now_is = match self.tables() {
                    Some(tables) => datapath.circuit(tables, &name, endpoint),
                    None => own_circuit(&table, &name, endpoint).unwrap_or_default(),
                };
                datapath.note(service, endpoint, now_is, now());
            }
            log(&Turned { service: name.to_string(), endpoint, from, to });
        }
        drop(table);
        if state.may_change().is_ok() {
            self.refresh(&mut state);
        }
    }

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
        let table = self.http.shared.table.load();
        let circuit = |datapath: &Datapath, service: &str, endpoint| match self.tables() {
            Some(tables) => datapath.circuit(tables, service, endpoint),
            None => own_circuit(&table, service, endpoint).unwrap_or_default(),
        };
        datapath.due(circuit, &state.snapshot, now());
        // What a circuit is changes even where no table does.
        self.watches.touch();
        if !datapath.wants_refresh() {
            return;
        }
        let again_at = match self.tables() {
            Some(tables) => datapath.refresh(tables, &state.snapshot, now()),
            None => datapath.note_changes(&state.snapshot, now()),
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
        let before = service.state().close_circuit(service.endpoint(address)?);
        if let (Some(datapath), Some(facts)) = (state.datapath.as_mut(), state.snapshot.service(service.name())) {
            datapath.note(facts, address, Word::default(), 0);
        }
        Some(before)
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
            None => own_circuit(&self.requests, service, address),
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

/// The circuit of an endpoint where no kernel has it; `None`: it has none.
fn own_circuit(table: &Table, service: &str, endpoint: SocketAddr) -> Option<Word> {
    Some(table.service(service)?.endpoint(endpoint)?.own_circuit())
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
