//! Circuits where they live: words in maps, changed by compare-and-swap; and who is told.

use crate::{atomic, maps};
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns, generated::bpf_loop};
use core::ffi::c_void;
use mesh_common::{
    breaker::{self, Circuit, Limits, Outcome, Report, Word},
    endpoint::EndpointState,
    event::Transition,
    service::ServiceState,
};

/// Nanoseconds in the unit of circuits.
pub(crate) const NS_PER_MS: u64 = 1_000_000;

/// The circuit of an endpoint.
pub(crate) struct InMaps {
    pub(crate) id: u32,
    pub(crate) tag: u32,
    pub(crate) service: u32,
    pub(crate) state: *mut EndpointState,
}

impl InMaps {
    fn of_service(&self) -> Option<*mut ServiceState> {
        maps::service_state(self.service)
    }
}

impl Circuit for InMaps {
    #[inline(always)]
    fn word(&self) -> Word {
        // SAFETY: a word inside the row.
        Word(unsafe { atomic::read(&raw const (*self.state).circuit) })
    }

    #[inline(always)]
    fn swap(&self, old: Word, new: Word) -> bool {
        // SAFETY: a word inside the row.
        unsafe { atomic::swap(&raw mut (*self.state).circuit, old.0, new.0) }
    }

    #[inline(always)]
    fn take_place(&self, most: u32) -> bool {
        let Some(state) = self.of_service() else { return false };
        // SAFETY: a word inside the row.
        unsafe {
            let free = atomic::add(&raw mut (*state).open, 1) < u64::from(most);
            if !free {
                atomic::add(&raw mut (*state).open, u64::MAX);
            }
            free
        }
    }

    #[inline(always)]
    fn give_place(&self) {
        if let Some(state) = self.of_service() {
            // SAFETY: a word inside the row.
            unsafe { atomic::add(&raw mut (*state).open, u64::MAX) };
        }
    }

    #[inline(always)]
    fn hold_off(&self, until: u64) {
        if let Some(state) = self.of_service() {
            // SAFETY: a word inside the row.
            unsafe { (&raw mut (*state).probe_at).write_volatile(until) };
        }
    }

    #[inline(always)]
    fn changed(&self, from: Word, to: Word) {
        if let Some(counts) = maps::endpoint_counts(self.id, self.tag) {
            // SAFETY: states number words inside the row.
            unsafe {
                let transitions = (&raw mut (*counts).transitions).cast::<u64>();
                atomic::add(transitions.add(to.state() as usize), 1);
            }
        }
        let Self { id, tag, service, .. } = *self;
        maps::tell(&Transition { id, tag, service, zero: 0, from: from.0, to: to.0 });
    }

    #[inline(always)]
    fn try_on(&self, times: u32, report: &Report, limits: &Limits) {
        let mut trying = Trying { circuit: self, report, limits };
        // SAFETY: the callback gets what it takes; the helper runs it before it returns.
        unsafe { bpf_loop(times, attempt as *mut c_void, (&raw mut trying).cast(), 0) };
    }
}

/// A report on its way.
struct Trying<'a> {
    circuit: &'a InMaps,
    report: &'a Report,
    limits: &'a Limits,
}

/// One more attempt; 1: it was the last.
unsafe extern "C" fn attempt(_: u64, trying: *mut c_void) -> i64 {
    // SAFETY: what `try_on` passes.
    let Trying { circuit, report, limits } = unsafe { &*trying.cast::<Trying<'_>>() };
    i64::from(breaker::attempt(*circuit, report, limits))
}

/// A connection as its endpoint's circuit sees it.
#[derive(Clone, Copy)]
pub(crate) struct Connection {
    pub(crate) id: u32,
    pub(crate) tag: u32,
    pub(crate) service: u32,
    /// When it was let through as a probe, in nanoseconds; 0: it is none.
    pub(crate) probe_since: u64,
}

/// Brings what became of a connection to its endpoint's circuit. The caller has found that the endpoint's row is still
/// the one that the connection was sent to.
#[inline(always)]
pub(crate) fn report(connection: &Connection, outcome: Outcome) {
    let Connection { id, tag, service, probe_since } = *connection;
    let Some(state) = maps::endpoint_state(id) else { return };
    let circuit = InMaps { id, tag, service, state };
    // What good news does not change costs no more than this look.
    if matches!(outcome, Outcome::Established | Outcome::Alive | Outcome::Nothing) && circuit.word().is_calm() {
        return;
    }
    let limits = maps::limits(service);
    // SAFETY: helpers without arguments.
    let (now, chance) = unsafe { (bpf_ktime_get_ns(), bpf_get_prandom_u32()) };
    let probe = probe_since != 0 && now - probe_since < u64::from(limits.lease_ms) * NS_PER_MS;
    breaker::report(&circuit, &Report { outcome, probe, now: now / NS_PER_MS, chance }, &limits);
}

/// Whether it is this connection's turn to try a service of which no endpoint admits connections.
#[inline(always)]
pub(crate) fn may_try(service: u32, now: u64, limits: &Limits) -> bool {
    let Some(state) = maps::service_state(service) else { return false };
    // SAFETY: a word inside the row.
    unsafe {
        let at = atomic::read(&raw const (*state).probe_at);
        now >= at && atomic::swap(&raw mut (*state).probe_at, at, now + u64::from(limits.probe_interval_ms))
    }
}
