//! The circuits that requests meet: the kernel's words, or our own where no kernel has them.

use super::{
    state::{EndpointState, ServiceState},
    table::Service,
};
use mesh_common::{
    breaker::{self, Circuit, Limits, Outcome, Report, Word},
    endpoint::Slot,
};
use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

/// Circuits of one service that live elsewhere: in words that the kernel changes as well.
pub trait Circuits: fmt::Debug + Send + Sync {
    /// The word of an endpoint's circuit.
    fn word(&self, endpoint: Slot) -> Word;
    /// Replaces `old` by `new`, unless the word is another one by now; whether it did.
    fn swap(&self, endpoint: Slot, old: Word, new: Word) -> bool;
    /// Takes one of the service's `most` places for circuits that are not closed; whether there was one.
    fn take_place(&self, most: u32) -> bool;
    /// Gives a place back.
    fn give_place(&self);
    /// How many are not closed.
    fn open(&self) -> u64;
    /// Whether it is this request's turn to try a service that is wholly open: once in `interval_ms`.
    fn may_try(&self, now: u64, interval_ms: u32) -> bool;
    /// No request tries the service before `until`, should it be wholly open.
    fn hold_off(&self, until: u64);
    /// A circuit went from another state to this one.
    fn changed(&self, endpoint: Slot, to: Word);
}

/// A circuit that what became of a request turned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turned {
    /// The service.
    pub service: Arc<str>,
    /// Its endpoint.
    pub endpoint: SocketAddr,
    /// The circuit before.
    pub from: Word,
    /// The circuit now.
    pub to: Word,
}

/// The circuit of one endpoint, wherever it lives.
pub(super) struct Cell<'a> {
    pub(super) shared: Option<(&'a dyn Circuits, Slot)>,
    pub(super) service: &'a ServiceState,
    pub(super) endpoint: &'a EndpointState,
    /// Whose it is, for whoever is told that it turned.
    pub(super) told: Option<(&'a Service, SocketAddr)>,
}

impl Circuit for Cell<'_> {
    fn word(&self) -> Word {
        match self.shared {
            Some((circuits, slot)) => circuits.word(slot),
            None => self.endpoint.own_circuit(),
        }
    }

    fn swap(&self, old: Word, new: Word) -> bool {
        match self.shared {
            Some((circuits, slot)) => circuits.swap(slot, old, new),
            None => {
                let word = &self.endpoint.circuit;
                word.compare_exchange(old.0, new.0, Ordering::AcqRel, Ordering::Acquire).is_ok()
            }
        }
    }

    fn take_place(&self, most: u32) -> bool {
        let Some((circuits, _)) = self.shared else {
            let open = &self.service.own_circuits.open;
            let free = open.fetch_add(1, Ordering::AcqRel) < i64::from(most);
            if !free {
                open.fetch_sub(1, Ordering::AcqRel);
            }
            return free;
        };
        circuits.take_place(most)
    }

    fn give_place(&self) {
        match self.shared {
            Some((circuits, _)) => circuits.give_place(),
            None => drop(self.service.own_circuits.open.fetch_sub(1, Ordering::AcqRel)),
        }
    }

    fn hold_off(&self, until: u64) {
        match self.shared {
            Some((circuits, _)) => circuits.hold_off(until),
            None => self.service.own_circuits.probe_at.store(until, Ordering::Release),
        }
    }

    fn changed(&self, from: Word, to: Word) {
        match self.shared {
            Some((circuits, slot)) => circuits.changed(slot, to),
            None => drop(self.endpoint.transitions[to.state() as usize].fetch_add(1, Ordering::Relaxed)),
        }
        if let Some((service, endpoint)) = self.told
            && let Some(tell) = &service.turned
        {
            // Nobody listens any more where the daemon ends.
            let _ = tell.send(Turned { service: Arc::clone(&service.name), endpoint, from, to });
        }
    }
}

/// Brings what became of a request to the circuit of its endpoint. `probe`: since when it is one.
pub(super) fn report(cell: &Cell<'_>, outcome: Outcome, probe: Option<u64>, limits: &Limits, chance: u32) {
    // What good news does not change costs no more than this look.
    if matches!(outcome, Outcome::Established | Outcome::Alive | Outcome::Nothing) && cell.word().is_calm() {
        return;
    }
    let now = now_ms();
    let probe = probe.is_some_and(|since| now.saturating_sub(since) < u64::from(limits.lease_ms));
    breaker::report(cell, &Report { outcome, probe, now, chance }, limits);
}

/// Milliseconds of CLOCK_MONOTONIC, the clock of circuits.
pub(super) fn now_ms() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    time.map_or(0, |t| u64::try_from(std::time::Duration::from(t).as_millis()).unwrap_or(u64::MAX))
}
