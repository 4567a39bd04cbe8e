//! Circuits that requests and the kernel share.

use crate::{kernel::Tables, proxy::Circuits};
use mesh_common::{breaker::Word, endpoint::Slot};
use std::sync::Arc;

/// The circuits of one service in the kernel's tables.
#[derive(Debug)]
pub(super) struct InTables {
    tables: Arc<Tables>,
    service: u32,
}

impl InTables {
    pub(super) fn new(tables: &Arc<Tables>, service: u32) -> Self {
        Self { tables: Arc::clone(tables), service }
    }
}

impl Circuits for InTables {
    fn word(&self, endpoint: Slot) -> Word {
        self.tables.circuit_of(endpoint.id())
    }

    fn swap(&self, endpoint: Slot, old: Word, new: Word) -> bool {
        self.tables.swap_circuit(endpoint.id(), old, new)
    }

    fn take_place(&self, most: u32) -> bool {
        self.tables.take_place(self.service, most)
    }

    fn give_place(&self) {
        self.tables.give_place(self.service);
    }

    fn open(&self) -> u64 {
        self.tables.open_circuits(self.service)
    }

    fn may_try(&self, now: u64, interval_ms: u32) -> bool {
        self.tables.may_try(self.service, now, interval_ms)
    }

    fn hold_off(&self, until: u64) {
        self.tables.hold_off(self.service, until);
    }

    fn changed(&self, endpoint: Slot, to: Word) {
        self.tables.count_transition(endpoint.id(), to.state());
    }
}
