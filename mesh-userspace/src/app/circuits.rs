//! Circuits: what the kernel tells of them, and what operators do to them.

use super::daemon::{Daemon, State, now};
use crate::{
    api::{self, CircuitState, Refusal, Time},
    datapath::{Datapath, Turned},
    kernel::Events,
    model::Service,
};
use mesh_common::{
    breaker::{State as Circuit, Word},
    event::Transition,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::io::unix::AsyncFd;

/// Takes what programs tell, as long as the daemon runs.
pub(super) async fn follow(daemon: Arc<Daemon>, events: Events) {
    let mut events = match AsyncFd::new(events) {
        Ok(events) => events,
        Err(e) => return tracing::error!("circuits turn unheard: the ring buffer cannot be waited for: {e}"),
    };
    loop {
        let Ok(mut ready) = events.readable_mut().await else { return };
        ready.clear_ready();
        let mut transitions = Vec::new();
        while let Some(transition) = ready.get_inner_mut().next() {
            transitions.push(transition);
        }
        let daemon = Arc::clone(&daemon);
        // Not while others wait: the state's lock may be held by somebody who writes large tables.
        let _ = tokio::task::spawn_blocking(move || daemon.turned(&transitions)).await;
    }
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
        let (Some(tables), Some(datapath)) = (self.tables(), state.datapath.as_mut()) else { return };
        if let Some(at) = datapath.refresh(tables, &state.snapshot, now()) {
            state.again_at = Some(state.again_at.map_or(at, |before| before.min(at)));
        }
    }

    /// Looks whether the kernel counts open circuits right.
    pub(super) fn recount(&self, state: &mut State) {
        if let (Some(tables), Some(datapath)) = (self.tables(), state.datapath.as_mut()) {
            datapath.recount(tables, &state.snapshot);
        }
    }

    /// Every circuit, of one service or of all.
    pub(super) fn circuits(&self, service: Option<&str>) -> Result<Vec<api::Circuit>, Refusal> {
        let state = self.state();
        let services = super::answer::wanted(state.snapshot.services(), service)?;
        let look = Circuits::new(self, &state);
        let rows = services.iter().flat_map(|s| s.endpoints.iter().map(move |e| (s, e)));
        Ok(rows
            .map(|(service, endpoint)| {
                let word = look.word(&service.name, endpoint.address);
                api::Circuit {
                    service: service.name.clone(),
                    endpoint: endpoint.address,
                    state: shown(word, endpoint.tripped),
                    consecutive_failures: word.failures().into(),
                    openings: word.openings(look.now_ms).into(),
                    retry_at: (word.state() == Circuit::Open && !endpoint.tripped).then(|| look.time(word.deadline())),
                    forced: endpoint.tripped,
                }
            })
            .collect())
    }

    /// Closes circuits of a service in the kernel: those of `address`, or all. How many were not as good as new.
    pub(super) fn close_circuits(&self, state: &mut State, service: &Service, address: Option<SocketAddr>) -> usize {
        let (Some(tables), Some(datapath)) = (self.tables(), state.datapath.as_mut()) else { return 0 };
        let wanted = service.endpoints.iter().map(|e| e.address).filter(|at| address.is_none_or(|only| only == *at));
        let closed = wanted.filter_map(|at| datapath.close(tables, service, at)).filter(|word| *word != Word::default());
        closed.count()
    }
}

/// Circuits at one moment.
pub(super) struct Circuits<'a> {
    tables: Option<(&'a crate::kernel::Tables, &'a Datapath)>,
    now_ms: u64,
    time: Time,
}

impl<'a> Circuits<'a> {
    pub(super) fn new(daemon: &'a Daemon, state: &'a State) -> Self {
        let tables = daemon.tables().zip(state.datapath.as_ref());
        Self { tables, now_ms: now() / 1_000_000, time: Time::now() }
    }

    /// The word of an endpoint's circuit.
    pub(super) fn word(&self, service: &str, address: SocketAddr) -> Word {
        self.tables.map_or_else(Word::default, |(tables, datapath)| datapath.circuit(tables, service, address))
    }

    /// A moment of the monotonic clock as a time of day.
    fn time(&self, ms: u64) -> Time {
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
        Circuit::HalfOpen => tracing::info!(service, %endpoint, openings, "circuit {from_word} → {to_word}: a probe decides"),
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
