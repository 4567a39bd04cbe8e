//! Sequences of reports and connections, in whatever order, against what the module promises.

use super::*;
use proptest::prelude::*;
use std::cell::{Cell, RefCell};

const LIMITS: Limits = Limits {
    failure_threshold: 5,
    half_open: 1,
    reset_ms: 30_000,
    max_reset_ms: 300_000,
    lease_ms: 2000,
    probe_interval_ms: 1000,
    max_open: 1,
    endpoints: 2,
};

/// A circuit in plain memory, and the places of its service.
#[derive(Default)]
struct Plain {
    word: Cell<Word>,
    open: Cell<u32>,
    seen: RefCell<Vec<(State, State)>>,
    held_off: Cell<u64>,
}

impl Circuit for Plain {
    fn word(&self) -> Word {
        self.word.get()
    }
    fn swap(&self, old: Word, new: Word) -> bool {
        self.word.get() == old && self.word.replace(new) == old
    }
    fn take_place(&self, most: u32) -> bool {
        let free = self.open.get() < most;
        self.open.set(self.open.get() + u32::from(free));
        free
    }
    fn give_place(&self) {
        self.open.set(self.open.get() - 1);
    }
    fn hold_off(&self, until: u64) {
        self.held_off.set(until);
    }
    fn changed(&self, from: Word, to: Word) {
        self.seen.borrow_mut().push((from.state(), to.state()));
    }
}

impl Plain {
    fn tell(&self, outcome: Outcome, probe: bool, now: u64, limits: &Limits) {
        report(self, &Report { outcome, probe, now, chance: 0 }, limits);
    }

    fn fail(&self, times: u32, now: u64) {
        (0..times).for_each(|_| self.tell(Outcome::Failure, false, now, &LIMITS));
    }

    fn enter(&self, now: u64) -> Option<Entry> {
        enter(self, self.word(), now, &LIMITS)
    }

    fn state(&self) -> State {
        self.word().state()
    }
}

#[test]
fn five_failures_in_a_row_open_a_circuit_and_four_do_not() {
    let circuit = Plain::default();
    circuit.fail(4, 0);
    assert_eq!((circuit.state(), circuit.word().failures()), (State::Closed, 4));
    circuit.tell(Outcome::Alive, false, 0, &LIMITS);
    circuit.fail(4, 0);
    assert_eq!(circuit.state(), State::Closed, "a byte in between clears the run");
    circuit.fail(1, 0);
    assert_eq!((circuit.state(), circuit.word().deadline()), (State::Open, 30_000));
    assert_eq!((circuit.enter(29_999), circuit.open.get()), (None, 1));
    let interval = u64::from(LIMITS.probe_interval_ms);
    assert_eq!(
        circuit.held_off.get(),
        interval,
        "a service that is wholly open is tried after an interval, not at once"
    );
}

#[test]
fn a_circuit_stays_open_no_longer_than_the_limits_of_now_allow() {
    let circuit = Plain::default();
    circuit.fail(5, 0);
    let quick = Limits { reset_ms: 1000, ..LIMITS };
    assert_eq!(enter(&circuit, circuit.word(), 500, &LIMITS), None);
    assert_eq!(enter(&circuit, circuit.word(), 500, &quick), Some(Entry::Probe), "30 s are more than 1 s");
}

#[test]
fn a_connection_that_is_merely_established_does_not_clear_the_run() {
    let circuit = Plain::default();
    for _ in 0..5 {
        circuit.tell(Outcome::Established, false, 0, &LIMITS);
        circuit.fail(1, 0);
    }
    assert_eq!(circuit.state(), State::Open, "one that accepts and resets is of no use");
}

#[test]
fn one_probe_decides() {
    let circuit = Plain::default();
    circuit.fail(5, 0);
    assert_eq!((circuit.enter(30_000), circuit.state()), (Some(Entry::Probe), State::HalfOpen));
    assert_eq!(circuit.enter(30_000), None, "one at a time");
    circuit.tell(Outcome::Failure, false, 30_001, &LIMITS);
    assert_eq!(circuit.state(), State::HalfOpen, "others tell of earlier");
    circuit.tell(Outcome::Failure, true, 30_001, &LIMITS);
    assert_eq!((circuit.state(), circuit.word().deadline()), (State::Open, 90_001), "longer each time");
    assert_eq!(circuit.enter(90_001), Some(Entry::Probe));
    circuit.tell(Outcome::Established, true, 90_002, &LIMITS);
    assert_eq!((circuit.state(), circuit.open.get()), (State::Closed, 0));
    use State::{Closed, HalfOpen, Open};
    let seen = [(Closed, Open), (Open, HalfOpen), (HalfOpen, Open), (Open, HalfOpen), (HalfOpen, Closed)];
    assert_eq!(*circuit.seen.borrow(), seen);
}

#[test]
fn openings_in_a_row_are_forgotten_after_a_reset_timeout_closed() {
    let again = |after: u64| {
        let circuit = Plain::default();
        circuit.fail(5, 0);
        assert_eq!(circuit.enter(30_000), Some(Entry::Probe));
        circuit.tell(Outcome::Established, true, 30_000, &LIMITS);
        circuit.fail(5, 30_000 + after);
        circuit.word().openings(0)
    };
    assert_eq!((again(29_999), again(30_000)), (2, 1));
}

#[test]
fn a_probe_that_never_reports_is_given_up() {
    let circuit = Plain::default();
    circuit.fail(5, 0);
    assert_eq!(circuit.enter(30_000), Some(Entry::Probe));
    assert_eq!((circuit.enter(31_999), circuit.enter(32_000)), (None, Some(Entry::Probe)));
}

#[test]
fn a_probe_that_its_application_cancels_makes_room_when_its_time_is_over() {
    let circuit = Plain::default();
    circuit.fail(5, 0);
    assert_eq!(circuit.enter(30_000), Some(Entry::Probe));
    circuit.tell(Outcome::Nothing, true, 30_001, &LIMITS);
    assert_eq!((circuit.enter(30_001), circuit.enter(32_000)), (None, Some(Entry::Probe)));
}

#[test]
fn a_probe_that_repeats_its_syn_opens_for_longer_and_one_that_is_merely_late_closes() {
    let circuit = Plain::default();
    circuit.fail(5, 0);
    assert_eq!(circuit.enter(30_000), Some(Entry::Probe));
    circuit.tell(Outcome::Suspect, true, 30_200, &LIMITS);
    assert_eq!((circuit.state(), circuit.word().openings(30_200)), (State::Open, 2));
    circuit.tell(Outcome::Established, true, 30_300, &LIMITS);
    assert_eq!(circuit.state(), State::Closed);
}

#[test]
fn syns_that_are_repeated_need_a_second_sign() {
    let circuit = Plain::default();
    circuit.tell(Outcome::Suspect, false, 0, &LIMITS);
    assert_eq!(circuit.state(), State::Closed);
    circuit.tell(Outcome::Timeout, false, 0, &LIMITS);
    assert_eq!(circuit.state(), State::Open, "the connect timed out as well");
    let two = Plain::default();
    two.tell(Outcome::Suspect, false, 0, &LIMITS);
    two.tell(Outcome::Suspect, false, 0, &LIMITS);
    assert_eq!(two.state(), State::Open, "two connections");
    let answered = Plain::default();
    answered.tell(Outcome::Suspect, false, 0, &LIMITS);
    answered.tell(Outcome::Established, false, 0, &LIMITS);
    answered.tell(Outcome::Suspect, false, 0, &LIMITS);
    assert_eq!(answered.state(), State::Closed, "somebody was answered in between");
}

#[test]
fn mere_suspicion_ends_with_the_first_connection_that_is_established() {
    let circuit = Plain::default();
    circuit.tell(Outcome::Suspect, false, 0, &LIMITS);
    circuit.tell(Outcome::Suspect, false, 0, &LIMITS);
    circuit.tell(Outcome::Established, false, 100, &LIMITS);
    assert_eq!((circuit.state(), circuit.word().openings(100)), (State::Closed, 0));
    let failed = Plain::default();
    failed.fail(5, 0);
    failed.tell(Outcome::Established, false, 100, &LIMITS);
    assert_eq!(failed.state(), State::Open, "failures are no suspicion");
}

#[test]
fn without_a_place_a_failing_circuit_stays_closed_until_there_is_one() {
    let circuit = Plain::default();
    circuit.open.set(1);
    circuit.fail(7, 0);
    assert_eq!((circuit.state(), circuit.word().failures()), (State::Closed, 7));
    circuit.open.set(0);
    circuit.fail(1, 0);
    assert_eq!(circuit.state(), State::Open);
}

#[test]
fn a_connection_let_through_a_wholly_open_service_closes_its_circuit_or_changes_nothing() {
    let circuit = Plain::default();
    circuit.fail(5, 0);
    let open = circuit.word();
    circuit.tell(Outcome::Failure, true, 1000, &LIMITS);
    assert_eq!(circuit.word(), open, "probes once a second do not make it last longer");
    circuit.tell(Outcome::Established, true, 2000, &LIMITS);
    assert_eq!(circuit.state(), State::Closed);
}

#[test]
fn a_threshold_of_zero_never_opens() {
    let limits = Limits { failure_threshold: 0, ..LIMITS };
    let circuit = Plain::default();
    for _ in 0..2000 {
        circuit.tell(Outcome::Timeout, false, 0, &limits);
        circuit.tell(Outcome::Suspect, false, 0, &limits);
    }
    assert_eq!(circuit.state(), State::Closed);
}

/// What happens next in a random story.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// Time passes.
    Wait(u64),
    /// A connection comes, and is let through or not.
    Come,
    /// The oldest probe that is out reports.
    Probe(Outcome),
    /// Another connection reports.
    Other(Outcome),
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => Just(Outcome::Failure),
        1 => Just(Outcome::Timeout),
        1 => Just(Outcome::Suspect),
        1 => Just(Outcome::Established),
        1 => Just(Outcome::Alive),
        1 => Just(Outcome::Nothing),
    ]
}

fn next() -> impl Strategy<Value = Next> {
    prop_oneof![
        (0..40_000u64).prop_map(Next::Wait),
        Just(Next::Come),
        outcome().prop_map(Next::Probe),
        outcome().prop_map(Next::Other),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    (1..=6u32, 1..=4u32, 2..=20_000u32, 0..=50_000u32, 1..=5000u32).prop_map(
        |(threshold, half_open, reset, more, lease)| {
            let lease_ms = lease.min(reset - reset.div_ceil(10));
            Limits {
                failure_threshold: threshold,
                half_open,
                reset_ms: reset,
                max_reset_ms: reset + more,
                lease_ms,
                ..LIMITS
            }
        },
    )
}

#[test]
fn an_endpoint_that_is_unreliable_opens_at_once_if_there_is_a_place() {
    let report = |chance| Report { outcome: Outcome::Unreliable, probe: false, now: 5, chance };
    let opened = step(Word::default(), &report(0), &LIMITS, true);
    assert_eq!((opened.state(), opened.deadline()), (State::Open, 5 + u64::from(LIMITS.reset_ms)));
    assert_eq!(step(Word::default(), &report(0), &LIMITS, false).state(), State::Closed);
    let never = Limits { failure_threshold: 0, ..LIMITS };
    assert_eq!(step(Word::default(), &report(0), &never, true).state(), State::Closed);
}

proptest! {
    #[test]
    fn no_story_breaks_a_promise(limits in limits(), story in prop::collection::vec((next(), any::<u32>()), 1..300)) {
        let circuit = Plain::default();
        let mut now = 0;
        // When the probes that are out began, oldest first; and signs since the last good one.
        let mut out: Vec<u64> = Vec::new();
        let lease = u64::from(limits.lease_ms);
        let (mut failures, mut suspects, mut timed_out) = (0, 0, false);
        for (next, chance) in story {
            let before = circuit.word();
            match next {
                Next::Wait(ms) => now += ms,
                Next::Come => {
                    let entry = enter(&circuit, before, now, &limits);
                    if entry == Some(Entry::Probe) {
                        out.push(now);
                    }
                    prop_assert_eq!(entry == Some(Entry::Free), before.state() == State::Closed);
                    // Open for no longer than the longest; half-open with nobody out for no longer than a lease.
                    prop_assert!(entry.is_some() || before.deadline() <= now + u64::from(limits.max_reset_ms.max(limits.lease_ms)));
                    let live = out.iter().filter(|began| now < **began + lease).count();
                    prop_assert!(live <= limits.half_open as usize, "{live} probes are out");
                }
                Next::Probe(_) | Next::Other(_) => {
                    let (outcome, probe) = match next {
                        Next::Probe(outcome) if !out.is_empty() => (outcome, true),
                        Next::Probe(outcome) | Next::Other(outcome) => (outcome, false),
                        _ => unreachable!(),
                    };
                    // One that was given up is a connection like any other.
                    let probe = probe && now < out.remove(0) + lease;
                    let was = circuit.state();
                    report(&circuit, &Report { outcome, probe, now, chance }, &limits);
                    if was == State::Closed {
                        match outcome {
                            Outcome::Failure => failures += 1,
                            Outcome::Timeout => { failures += 1; timed_out = true; }
                            Outcome::Suspect => suspects += 1,
                            Outcome::Alive => (failures, suspects, timed_out) = (0, 0, false),
                            Outcome::Established => (suspects, timed_out) = (0, false),
                            Outcome::Nothing | Outcome::Unreliable => {}
                        }
                        if circuit.state() == State::Open {
                            let signs = failures >= limits.failure_threshold || suspects >= 2 || (suspects > 0 && timed_out);
                            prop_assert!(signs, "opened below the threshold");
                        }
                    }
                    if circuit.state() != State::Closed || was != State::Closed {
                        (failures, suspects, timed_out) = (0, 0, false);
                    }
                }
            }
            prop_assert_eq!(circuit.open.get(), u32::from(circuit.state() != State::Closed));
            if circuit.state() == State::Open {
                prop_assert!(circuit.word().deadline() <= now + u64::from(limits.max_reset_ms));
            }
        }
        // Whatever happened: it lets somebody through after the longest time, and one success at a time closes it.
        now += u64::from(limits.max_reset_ms.max(limits.lease_ms));
        for _ in 0..limits.half_open {
            let entry = enter(&circuit, circuit.word(), now, &limits);
            prop_assert!(entry.is_some(), "stuck at {:?}", circuit.word());
            if entry == Some(Entry::Probe) {
                report(&circuit, &Report { outcome: Outcome::Established, probe: true, now, chance: 0 }, &limits);
            }
        }
        prop_assert_eq!(circuit.state(), State::Closed);
    }

    #[test]
    fn jitter_only_shortens_and_by_a_tenth_at_most(chance: u32, openings in 0..50u64, now in 0..1u64 << 39) {
        let before = Word::new(State::HalfOpen, openings, 0).with(OUT, 1);
        let word = step(before, &Report { outcome: Outcome::Failure, probe: true, now, chance }, &LIMITS, true);
        let full = (30_000 * (openings + 1)).min(300_000);
        let reset = word.deadline() - now;
        prop_assert!(reset <= full && reset >= full - full / 10, "{reset} of {full}");
    }

    #[test]
    fn any_word_is_survived(word: u64, now in 0..1u64 << 40, chance: u32, probe: bool, outcome in outcome()) {
        let after = step(Word(word), &Report { outcome, probe, now, chance }, &LIMITS, true);
        let _ = admit(after, now, &LIMITS);
    }
}
