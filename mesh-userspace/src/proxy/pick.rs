//! Which endpoint a request goes to: the kernel's own steps ([`mesh_common::select`]), over the table of the workers.

use super::{
    circuit::{Cell, now_ms},
    reason::Reason,
    table::{Endpoint, Service},
};
use crate::{model::Policy, policy};
use mesh_common::{
    breaker::{self, Entry, Limits, Word},
    endpoint::{EndpointRow, Slot, marks},
    reason::Reason as Refusal,
    select::{self, Chooser, Head, Rows},
    service::{Set, Shown, SlotRange, View, flags},
};
use std::{cell::Cell as Once, net::IpAddr, sync::atomic::Ordering, time::Duration};

/// An endpoint that was picked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Picked {
    /// Its place among the service's endpoints.
    pub(super) index: usize,
    /// Since when it is a probe of the endpoint's circuit (milliseconds of CLOCK_MONOTONIC); `None`: it is none.
    pub(super) probe: Option<u64>,
}

/// What a pick depends on besides the service.
pub(super) struct Asking<'a> {
    /// The number of the worker.
    pub(super) worker: usize,
    /// The hash of the request, where the policy hashes.
    pub(super) hash: u32,
    /// The time, where the policy looks at how long answers took.
    pub(super) now: Duration,
    /// Endpoints that the request has tried.
    pub(super) tried: &'a [usize],
}

/// Picks an endpoint of `service`.
///
/// # Errors
/// Why there is none.
pub(super) fn pick(service: &Service, asking: &Asking<'_>) -> Result<Picked, Reason> {
    let picker = Picker { service, asking, now: Once::new(0) };
    match select::choose(&picker, 0, View::Any, Set::Attended) {
        Ok(choice) => {
            if let Some(endpoint) = picker.at(choice.slot.id()) {
                service.state.picks.count(service.facts.policy, endpoint.tier, asking.worker);
            }
            Ok(Picked { index: choice.slot.id() as usize, probe: (choice.entry == Entry::Probe).then(|| picker.now()) })
        }
        Err(Refusal::CircuitOpen) => Err(Reason::CircuitOpen),
        Err(_) => Err(Reason::NoEndpoint),
    }
}

/// What the service hashes of a client with these headers; where there is nothing to hash, any endpoint will do.
pub(super) fn hash_of<'r, I: IntoIterator<Item = &'r [u8]>>(
    service: &Service,
    header: impl Fn(&str) -> I,
    source: IpAddr,
) -> u32 {
    let hash = policy::hash(&service.http().hash, header, Some(source));
    hash.map_or_else(|| fastrand::u32(..), |hash| (hash >> 32) as u32)
}

struct Picker<'a> {
    service: &'a Service,
    asking: &'a Asking<'a>,
    /// The time, once it was looked at.
    now: Once<u64>,
}

impl Picker<'_> {
    fn at(&self, id: u32) -> Option<&Endpoint> {
        self.service.endpoints.get(id as usize)
    }

    fn cell<'a>(&'a self, endpoint: &'a Endpoint) -> Cell<'a> {
        cell(self.service, endpoint)
    }
}

/// The circuit of an endpoint.
pub(super) fn cell<'a>(service: &'a Service, endpoint: &'a Endpoint) -> Cell<'a> {
    let shared = service.circuits.as_deref().zip(endpoint.row);
    let told = Some((service, endpoint.address));
    Cell { shared, service: &service.state, endpoint: &endpoint.state, told }
}

impl Rows for Picker<'_> {
    fn view(&self, _: u32, set: Set, _: View) -> u64 {
        let (attended, all) = (self.service.attended, u32::try_from(self.service.slots.len()).unwrap_or(u32::MAX));
        let range = match set {
            Set::Attended => SlotRange { base: 0, count: attended },
            Set::Alone | Set::All => SlotRange { base: attended, count: all - attended },
        };
        Shown { range, policy: self.service.pick }.word()
    }

    fn flags(&self, _: u32) -> u64 {
        if self.service.facts.endpoints.iter().any(|e| e.tripped) { flags::TRIPPED } else { 0 }
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        let id = *self.service.slots.get(index as usize)?;
        (!self.asking.tried.contains(&(id as usize))).then(|| Slot::new(id, 0))
    }

    fn endpoint(&self, id: u32) -> Option<EndpointRow> {
        let Head { tag, service, weight, marks } = self.head(id)?;
        Some(EndpointRow { tag, service, weight, marks, ..EndpointRow::default() })
    }

    fn head(&self, id: u32) -> Option<Head> {
        let endpoint = self.at(id)?;
        Some(Head { tag: 0, service: 0, weight: endpoint.weight, marks: endpoint.tier as u16 & marks::TIER })
    }

    fn circuit(&self, id: u32) -> Word {
        self.at(id).map_or_else(Word::default, |endpoint| breaker::Circuit::word(&self.cell(endpoint)))
    }

    fn active(&self, id: u32) -> u64 {
        let Some(endpoint) = self.at(id) else { return 0 };
        let active = endpoint.state.active.load(Ordering::Relaxed);
        match self.service.facts.policy {
            Policy::PeakEwma => whole(endpoint.state.latency.cost(active, self.asking.now)),
            _ => u64::from(active),
        }
    }
}

/// A cost as a number that leaves room to be multiplied by a weight.
#[expect(clippy::cast_sign_loss, reason = "a cost is not below 0, and what it is would become 0")]
fn whole(cost: f64) -> u64 {
    cost.min(f64::from(u32::MAX)) as u64
}

impl Chooser for Picker<'_> {
    fn turn(&self, _: u32) -> u32 {
        if self.asking.tried.is_empty() {
            return self.service.state.turns.next(self.asking.worker);
        }
        // Extra tries take no turns, or each request after one that failed would meet the same endpoint again.
        fastrand::u32(..)
    }

    fn chance(&self) -> u32 {
        fastrand::u32(..)
    }

    fn client(&self) -> u32 {
        self.asking.hash
    }

    fn limits(&self, _: u32) -> Limits {
        self.service.limits
    }

    fn now(&self) -> u64 {
        if self.now.get() == 0 {
            self.now.set(now_ms());
        }
        self.now.get()
    }

    fn enter(&self, slot: Slot, _: u32, word: Word, now: u64, limits: &Limits) -> Option<Entry> {
        let endpoint = self.at(slot.id())?;
        breaker::enter(&self.cell(endpoint), word, now, limits)
    }

    fn is_wholly_open(&self, _: u32, limits: &Limits) -> bool {
        let open = match &self.service.circuits {
            Some(circuits) => circuits.open(),
            None => u64::try_from(self.service.state.own_circuits.open.load(Ordering::Acquire)).unwrap_or(0),
        };
        open >= u64::from(limits.endpoints)
    }

    fn may_try(&self, _: u32, now: u64, limits: &Limits) -> bool {
        if let Some(circuits) = &self.service.circuits {
            return circuits.may_try(now, limits.probe_interval_ms);
        }
        let word = &self.service.state.own_circuits.probe_at;
        let at = word.load(Ordering::Acquire);
        let next = now + u64::from(limits.probe_interval_ms);
        now >= at && word.compare_exchange(at, next, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}
