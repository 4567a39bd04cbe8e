//! Circuits from the daemon's side: the words that the kernel changes, changed by the same functions.

use super::Tables;
use mesh_common::{
    breaker::{self, Circuit, Limits, Report, State, Word},
    endpoint::Slot,
};

/// Where `open` lies in a service's state, as a word.
const OPEN: usize = 1;
/// Where the circuit lies in an endpoint's state.
const CIRCUIT: usize = 0;
/// Where `established_at` lies there.
const ESTABLISHED_AT: usize = 1;
/// Where `transitions` lie in an endpoint's counters.
const TRANSITIONS: usize = size_of::<mesh_common::endpoint::EndpointCounts>() / 8 - State::COUNT;

/// The circuit of one endpoint.
struct Mapped<'a> {
    tables: &'a Tables,
    slot: Slot,
    service: u32,
    tell: &'a dyn Fn(Word, Word),
}

impl Circuit for Mapped<'_> {
    fn word(&self) -> Word {
        self.tables.circuit_of(self.slot.id())
    }

    fn swap(&self, old: Word, new: Word) -> bool {
        self.tables.endpoint_states.swap_word(self.slot.id(), CIRCUIT, old.0, new.0)
    }

    fn take_place(&self, most: u32) -> bool {
        let free = self.tables.service_states.add_to_word(self.service, OPEN, 1) < u64::from(most);
        if !free {
            self.give_place();
        }
        free
    }

    fn give_place(&self) {
        self.tables.service_states.add_to_word(self.service, OPEN, u64::MAX);
    }

    fn changed(&self, from: Word, to: Word) {
        let word = TRANSITIONS + to.state() as usize;
        self.tables.endpoint_counts.now().add_to_word(self.slot.id(), word, 1);
        (self.tell)(from, to);
    }
}

impl Tables {
    /// The circuit of an endpoint.
    #[must_use]
    pub fn circuit_of(&self, id: u32) -> Word {
        Word(self.endpoint_states.read_word(id, CIRCUIT))
    }

    /// When a connection to an endpoint was established last, CLOCK_MONOTONIC in nanoseconds; 0: never.
    #[must_use]
    pub fn established_at(&self, id: u32) -> u64 {
        self.endpoint_states.read_word(id, ESTABLISHED_AT)
    }

    /// When circuits of a service open, and for how long, as the kernel was told.
    #[must_use]
    pub fn limits(&self, service: u32) -> Limits {
        self.services.read(service).map_or_else(Limits::default, |row| row.limits)
    }

    /// Brings an outcome that the daemon saw to the circuit of an endpoint; `tell` hears of a transition.
    pub fn report(&self, slot: Slot, service: u32, report: &Report, tell: &dyn Fn(Word, Word)) {
        breaker::report(&Mapped { tables: self, slot, service, tell }, report, &self.limits(service));
    }

    /// Closes the circuit of an endpoint, and forgets what led to its opening. What it was.
    pub fn close(&self, slot: Slot, service: u32, tell: &dyn Fn(Word, Word)) -> Word {
        let circuit = Mapped { tables: self, slot, service, tell };
        loop {
            let old = circuit.word();
            if circuit.swap(old, Word::default()) {
                if old.state() != State::Closed {
                    circuit.give_place();
                    circuit.changed(old, Word::default());
                }
                return old;
            }
        }
    }

    /// Forgets the circuit of an endpoint row that is not in use any more.
    pub(super) fn forget_circuit(&self, id: u32, service: u32) {
        let old = Word(self.endpoint_states.replace_word(id, CIRCUIT, 0));
        if old.state() != State::Closed {
            self.service_states.add_to_word(service, OPEN, u64::MAX);
        }
    }

    /// How many circuits of a service are not closed, as the kernel counts.
    #[must_use]
    pub fn open_circuits(&self, service: u32) -> u64 {
        self.service_states.read_word(service, OPEN)
    }

    /// Corrects the kernel's count of circuits that are not closed by `difference`.
    pub fn correct_open_circuits(&self, service: u32, difference: i64) {
        self.service_states.add_to_word(service, OPEN, difference.cast_unsigned());
    }
}
