//! Circuits from the daemon's side: looked at, and closed.

use super::Tables;
use mesh_common::{
    breaker::{State, Word},
    endpoint::Slot,
};

/// Where `open` lies in a service's state, as a word.
const OPEN: usize = 1;
/// Where `probe_at` lies there.
const PROBE_AT: usize = 2;
/// Where the circuit lies in an endpoint's state.
const CIRCUIT: usize = 0;
/// Where `established_at` lies there.
const ESTABLISHED_AT: usize = 1;
/// Where `transitions` lie in an endpoint's counters.
const TRANSITIONS: usize = size_of::<mesh_common::endpoint::EndpointCounts>() / 8 - State::COUNT;

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

    /// Closes the circuit of an endpoint, and forgets what led to its opening. What it was.
    pub fn close(&self, slot: Slot, service: u32) -> Word {
        let old = self.forget_circuit(slot.id(), service);
        if old.state() != State::Closed {
            self.endpoint_counts.now().add_to_word(slot.id(), TRANSITIONS + State::Closed as usize, 1);
        }
        old
    }

    /// Forgets the circuit of an endpoint row, as one that is not in use any more. What it was.
    pub(super) fn forget_circuit(&self, id: u32, service: u32) -> Word {
        let old = Word(self.endpoint_states.replace_word(id, CIRCUIT, 0));
        if old.state() != State::Closed {
            self.service_states.add_to_word(service, OPEN, u64::MAX);
        }
        old
    }

    /// Replaces the circuit of an endpoint, unless it is another one than `old` by now; whether it did.
    #[must_use]
    pub fn swap_circuit(&self, id: u32, old: Word, new: Word) -> bool {
        self.endpoint_states.swap_word(id, CIRCUIT, old.0, new.0)
    }

    /// Takes one of a service's `most` places for circuits that are not closed; whether there was one.
    #[must_use]
    pub fn take_place(&self, service: u32, most: u32) -> bool {
        let free = self.service_states.add_to_word(service, OPEN, 1) < u64::from(most);
        if !free {
            self.give_place(service);
        }
        free
    }

    /// Gives such a place back.
    pub fn give_place(&self, service: u32) {
        self.service_states.add_to_word(service, OPEN, u64::MAX);
    }

    /// Whether it is somebody's turn to try a service that is wholly open, at `now` (milliseconds of CLOCK_MONOTONIC):
    /// once in `interval_ms`.
    #[must_use]
    pub fn may_try(&self, service: u32, now: u64, interval_ms: u32) -> bool {
        let at = self.service_states.read_word(service, PROBE_AT);
        now >= at && self.service_states.swap_word(service, PROBE_AT, at, now + u64::from(interval_ms))
    }

    /// Nobody tries a service that is wholly open before `until` (milliseconds of CLOCK_MONOTONIC).
    pub fn hold_off(&self, service: u32, until: u64) {
        self.service_states.write_word(service, PROBE_AT, until);
    }

    /// Counts that the circuit of an endpoint entered a state.
    pub fn count_transition(&self, id: u32, to: State) {
        self.endpoint_counts.now().add_to_word(id, TRANSITIONS + to as usize, 1);
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
