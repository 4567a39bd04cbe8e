//! Circuits as the daemon follows them: what the kernel tells, and whether its counts are right.

use super::Datapath;
use crate::{
    kernel::Tables,
    model::{Prefer, Service, Snapshot},
};
use mesh_common::{
    breaker::{State, Word},
    event::Transition,
    select::Rows,
};
use std::net::{IpAddr, SocketAddr};

/// Nanoseconds in the unit of circuits.
const NS_PER_MS: u64 = 1_000_000;

/// A transition with names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turned {
    /// The service.
    pub service: String,
    /// Its endpoint.
    pub endpoint: SocketAddr,
    /// The circuit before.
    pub from: Word,
    /// The circuit now.
    pub to: Word,
}

impl Datapath {
    /// Whose circuit turned at `now`, and takes note of it where it bears on what endpoints are near. `None`: of an
    /// endpoint that is gone.
    pub fn turned(&mut self, tables: &Tables, snapshot: &Snapshot, event: &Transition, now: u64) -> Option<Turned> {
        let row = tables.endpoint(event.id).filter(|row| row.tag == event.tag && row.used == 1)?;
        let endpoint = SocketAddr::new(IpAddr::from(row.address), u16::from_be(row.port));
        let service = self.service_of_row(event.service, now)?.to_owned();
        if let Some(service) = snapshot.service(&service) {
            self.note(service, endpoint, tables.circuit_of(event.id), now);
        }
        Some(Turned { service, endpoint, from: Word(event.from), to: Word(event.to) })
    }

    /// Remembers whether a circuit, `word` at `now`, is open where that decides how much the others help out. One whose time is over is
    /// not: the endpoint is to meet somebody who probes it.
    pub fn note(&mut self, service: &Service, endpoint: SocketAddr, word: Word, now: u64) {
        if service.settings.locality.prefer != Prefer::None {
            let is_open = word.state() == State::Open && word.deadline() > now / NS_PER_MS;
            self.planner.conditions.set(&service.name, endpoint, |condition| condition.is_open = is_open);
        }
    }

    /// Closes the circuit of an endpoint and forgets what spoke against it. What it was; `None`: it is not in the tables.
    pub fn close(&mut self, tables: &Tables, service: &Service, endpoint: SocketAddr) -> Option<Word> {
        let (row, slot) = (self.service_row(&service.name)?, self.endpoint_row(&service.name, endpoint)?);
        let before = tables.close(slot, row);
        self.note(service, endpoint, Word::default(), 0);
        Some(before)
    }

    /// Takes note of open circuits whose time is over at `now`. `circuit`: what an endpoint's is.
    pub fn due(&mut self, circuit: impl Fn(&Self, &str, SocketAddr) -> Word, snapshot: &Snapshot, now: u64) {
        for (name, endpoint) in self.planner.conditions.open() {
            if let Some(service) = snapshot.service(&name) {
                let word = circuit(self, &name, endpoint);
                self.note(service, endpoint, word, now);
            }
        }
    }

    /// Looks at all circuits: corrects counts of open ones that were wrong by the same at two looks in a row (a daemon
    /// died between a word and its count), and takes note of what no event told.
    pub fn recount(&mut self, tables: &Tables, snapshot: &Snapshot, now: u64) {
        let mut doubts = std::mem::take(&mut self.doubts);
        let mut open_now = Vec::new();
        for service in snapshot.services() {
            let Some(id) = self.service_row(&service.name) else { continue };
            let counted = tables.open_circuits(id);
            if counted == 0 && !doubts.contains_key(&id) && self.planner.conditions.of(&service.name).is_none() {
                continue;
            }
            let mut open = 0_u64;
            for endpoint in &service.endpoints {
                let Some(slot) = self.endpoint_row(&service.name, endpoint.address) else { continue };
                let word = tables.circuit_of(slot.id());
                open += u64::from(word.state() != State::Closed);
                open_now.push((service, endpoint.address, word));
            }
            let difference = open.wrapping_sub(counted).cast_signed();
            if difference != 0 && doubts.remove(&id) == Some(difference) {
                tracing::warn!(service = service.name, difference, "the count of open circuits is corrected");
                tables.correct_open_circuits(id, difference);
            } else if difference != 0 {
                self.doubts.insert(id, difference);
            }
        }
        for (service, endpoint, word) in open_now {
            self.note(service, endpoint, word, now);
        }
    }
}
