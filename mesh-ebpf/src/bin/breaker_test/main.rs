//! The circuit breaker as the kernel runs it, to be driven by a test: one step a packet, by `BPF_PROG_TEST_RUN`.
//!
//! Not part of the product, and never attached. It is made of the product's own circuits and tables, so that what the
//! test finds holds for those: compare-and-swap, places, transitions and the loop that the verifier wants included.
#![no_std]
#![no_main]
#![expect(internal_features, reason = "core has no read-modify-write atomics on this target, only the intrinsics")]
#![feature(core_intrinsics)]

#[path = "../../atomic.rs"]
mod atomic;
#[allow(dead_code, reason = "shared with the programs, which use another part of it")]
#[path = "../../circuit.rs"]
mod circuit;
#[allow(dead_code, reason = "shared with the programs, which use another part of it")]
#[path = "../../maps.rs"]
mod maps;
mod packet;

use aya_ebpf::{
    macros::{cgroup_skb, map},
    maps::Array,
    programs::SkBuffContext,
};
use circuit::InMaps;
use mesh_common::{
    breaker::{self, Circuit, Report, State},
    endpoint::EndpointCounts,
    service::ServiceState,
};
use packet::{Answer, OUTCOMES, Step, kind};

/// After the latest step.
#[map]
static ANSWER: Array<Answer> = Array::with_max_entries(1, 0);

/// Endpoint 0 of service 0, whose tag is 0: the tables are as the kernel made them.
struct Subject {
    circuit: InMaps,
    service: *mut ServiceState,
    counts: *mut EndpointCounts,
}

/// Takes one step; 1: it was taken.
#[cgroup_skb]
pub(crate) fn mesh_breaker(packet: SkBuffContext) -> i32 {
    i32::from(take(&packet).is_some())
}

#[inline(always)]
fn take(packet: &SkBuffContext) -> Option<()> {
    let step: Step = packet.load(0).ok()?;
    let subject = Subject {
        circuit: InMaps { id: 0, tag: 0, service: 0, state: maps::endpoint_state(0)? },
        service: maps::service_state(0)?,
        counts: maps::endpoint_counts(0, 0)?,
    };
    let answer = ANSWER.get_ptr_mut(0)?;
    let entry = match step.kind {
        kind::BEGIN => {
            begin(&subject, &step);
            0
        }
        kind::REPORT => {
            // One value for the comparison and the access: Linux 6.1 does not know of a second copy that was compared.
            let outcome = *OUTCOMES.get(core::hint::black_box(step.outcome) as usize)?;
            let report = Report { outcome, probe: step.probe != 0, now: step.now, chance: step.chance };
            breaker::report(&subject.circuit, &report, &step.limits);
            0
        }
        kind::ENTER => {
            let entry = breaker::enter(&subject.circuit, subject.circuit.word(), step.now, &step.limits);
            entry.map_or(0, |entry| entry as u64 + 1)
        }
        _ => return None,
    };
    // SAFETY: rows of the tables; nobody else is about while the test runs.
    unsafe {
        let (open, transitions) = ((*subject.service).open, (*subject.counts).transitions);
        answer.write(Answer { word: subject.circuit.word().0, open, entry, transitions });
    }
    Some(())
}

#[inline(always)]
fn begin(subject: &Subject, step: &Step) {
    // SAFETY: as above.
    unsafe {
        (*subject.circuit.state).circuit = step.word;
        (*subject.service).open = step.open;
        (*subject.counts).transitions = [0; State::COUNT];
    }
}

/// Programs that the verifier accepts cannot panic; the compiler wants a handler all the same.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Some helpers are only for GPL-compatible programs; the kernel reads this section.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
