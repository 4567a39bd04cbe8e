//! The circuit breaker that the kernel runs is the one that the host's tests searched for counterexamples: the same
//! steps, through `BPF_PROG_TEST_RUN` and through plain memory, lead to the same words. Nothing is attached.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

#[path = "../../mesh-ebpf/src/bin/breaker_test/packet.rs"]
mod packet;

use aya::{
    Ebpf, EbpfLoader,
    maps::Array,
    programs::{CgroupSkb, TestRun, TestRunOptions},
};
use bytemuck::Zeroable;
use mesh_common::breaker::{self, Circuit, Limits, Outcome, Report, State, Word};
use mesh_tests::{seed, skip};
use packet::{Answer, HEADER, OUTCOMES, Step, kind};
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use std::cell::Cell;

const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/breaker_test.bpf.o"));

const LIMITS: Limits = Limits {
    failure_threshold: 5,
    half_open: 2,
    reset_ms: 30_000,
    max_reset_ms: 300_000,
    lease_ms: 2000,
    probe_interval_ms: 1000,
    max_open: 1,
    endpoints: 2,
};
/// The latest time that a word can hold, in milliseconds.
const LATEST: u64 = (1 << 40) - 1;
/// The highest number of failures and of openings that a word can hold.
const MOST: u64 = (1 << 10) - 1;

/// The kernel's build.
struct InKernel(Ebpf);

impl InKernel {
    fn load() -> Self {
        let mut object = EbpfLoader::new().load(OBJECT).unwrap();
        let program: &mut CgroupSkb = object.program_mut("mesh_breaker").unwrap().try_into().unwrap();
        program.load().unwrap();
        Self(object)
    }

    fn program(&self) -> &CgroupSkb {
        self.0.program("mesh_breaker").unwrap().try_into().unwrap()
    }

    fn take(&self, step: &Step) -> Answer {
        let mut packet = vec![0; HEADER];
        packet.extend_from_slice(bytemuck::bytes_of(step));
        let ran = self.program().test_run(TestRunOptions { data_in: Some(&packet), ..Default::default() }).unwrap();
        assert_eq!(ran.return_value, 1, "the program does not take {step:?}");
        let answers: Array<_, [u64; size_of::<Answer>() / 8]> = self.0.map("ANSWER").unwrap().try_into().unwrap();
        bytemuck::cast(answers.get(&0, 0).unwrap())
    }
}

/// The host's build, in plain memory.
#[derive(Default)]
struct OnHost(Cell<Answer>);

impl OnHost {
    fn set(&self, change: impl FnOnce(&mut Answer)) {
        let mut answer = self.0.get();
        change(&mut answer);
        self.0.set(answer);
    }

    fn take(&self, step: &Step) -> Answer {
        let Step { limits, word, open, now, .. } = *step;
        self.set(|answer| answer.entry = 0);
        match step.kind {
            kind::BEGIN => self.0.set(Answer { word, open, ..Answer::default() }),
            kind::REPORT => {
                let outcome = OUTCOMES[step.outcome as usize];
                let report = Report { outcome, probe: step.probe == 1, now, chance: step.chance };
                breaker::report(self, &report, &limits);
            }
            _ => {
                let entry = breaker::enter(self, self.word(), now, &limits);
                self.set(|answer| answer.entry = entry.map_or(0, |entry| entry as u64 + 1));
            }
        }
        self.0.get()
    }
}

impl Circuit for OnHost {
    fn word(&self) -> Word {
        Word(self.0.get().word)
    }
    fn swap(&self, old: Word, new: Word) -> bool {
        let swaps = self.word() == old;
        self.set(|answer| answer.word = if swaps { new.0 } else { answer.word });
        swaps
    }
    fn take_place(&self, most: u32) -> bool {
        let free = self.0.get().open < u64::from(most);
        self.set(|answer| answer.open += u64::from(free));
        free
    }
    fn give_place(&self) {
        // A story may begin with fewer places taken than there are circuits open: the kernel's counter wraps.
        self.set(|answer| answer.open = answer.open.wrapping_sub(1));
    }
    fn hold_off(&self, _: u64) {}
    fn changed(&self, _: Word, to: Word) {
        self.set(|answer| answer.transitions[to.state() as usize] += 1);
    }
}

/// Both, which must agree.
struct Both {
    kernel: InKernel,
    host: OnHost,
}

impl Both {
    /// Both, or the reason to skip where there is no kernel to ask.
    fn new() -> Option<Self> {
        if let Err(why) = skip::bpf_requirements() {
            skip::record(module_path!(), &why);
            return None;
        }
        Some(Self { kernel: InKernel::load(), host: OnHost::default() })
    }

    fn take(&self, step: &Step) -> Result<Answer, String> {
        let (kernel, host) = (self.kernel.take(step), self.host.take(step));
        if kernel == host {
            return Ok(host);
        }
        Err(format!("after {step:?}\nthe kernel has {kernel:x?}\nthe host has   {host:x?}"))
    }

    /// One step from a given word, on which both must agree.
    fn once(&self, word: u64, step: &Step) -> Answer {
        let begin = Step { kind: kind::BEGIN, word, open: u64::from(Word(word).state() != State::Closed), ..*step };
        self.take(&begin).and_then(|_| self.take(step)).unwrap_or_else(|why| panic!("from {word:#x}: {why}"))
    }
}

fn report(outcome: Outcome, probe: bool, now: u64, chance: u32) -> Step {
    let place = OUTCOMES.iter().position(|one| *one == outcome).unwrap();
    let limits = LIMITS;
    Step { limits, kind: kind::REPORT, outcome: place as u32, probe: probe.into(), now, chance, ..Step::zeroed() }
}

fn enter(now: u64) -> Step {
    Step { limits: LIMITS, kind: kind::ENTER, now, ..Step::zeroed() }
}

/// A word by its parts, as the table at [`Word`] has them; `middle`: bits 4 to 13.
fn word(state: State, suspects: u64, middle: u64, openings: u64, deadline: u64) -> u64 {
    state as u64 | suspects << 2 | middle << 4 | openings << 14 | deadline << 24
}

/// Bits 4 to 13 of a half-open word.
fn probes(out: u64, passed: u64) -> u64 {
    out | passed << 5
}

#[test]
fn every_outcome_in_every_state_and_at_every_border_has_the_same_result() {
    let Some(both) = Both::new() else { return };
    let deadlines = [0, 1, 100_000, LATEST - 1, LATEST];
    let numbers = [0, 1, 4, 5, 31, 32, 33, 64, 65, MOST - 1, MOST];
    for state in [0, 1, 2, 3] {
        for (number, deadline) in numbers.iter().flat_map(|n| deadlines.map(|d| (*n, d))) {
            for (suspects, openings) in [(0, 0), (1, 1), (2, MOST - 1), (3, MOST)] {
                let word = word(State::Closed, suspects, number, openings, deadline) | state;
                for now in [deadline.saturating_sub(1), deadline, deadline + 1] {
                    both.once(word, &enter(now));
                    for (outcome, probe) in OUTCOMES.iter().flat_map(|o| [(*o, false), (*o, true)]) {
                        both.once(word, &report(outcome, probe, now, u32::MAX));
                    }
                }
            }
        }
    }
}

#[test]
fn an_open_circuit_admits_a_probe_from_its_deadline_on_in_the_kernel_too() {
    let Some(both) = Both::new() else { return };
    let open = word(State::Open, 0, 5, 1, 100_000);
    let at = |now| both.once(open, &enter(now));
    assert_eq!(at(99_999).word, open);
    assert_eq!([99_999, 100_000, 100_001].map(|now| at(now).entry), [0, 2, 2]);
    assert_eq!(at(100_000).word, word(State::HalfOpen, 0, probes(1, 0), 1, 102_000));
    let full = word(State::HalfOpen, 0, probes(2, 0), 1, 102_000);
    assert_eq!([101_999, 102_000, 102_001].map(|now| both.once(full, &enter(now)).entry), [0, 2, 2]);
}

#[test]
fn numbers_that_do_not_fit_stay_at_the_most_that_does_in_the_kernel_too() {
    let Some(both) = Both::new() else { return };
    let never = Limits { failure_threshold: 0, ..LIMITS };
    let failure = Step { limits: never, ..report(Outcome::Failure, false, 5, 0) };
    let failed = word(State::Closed, 0, MOST, 0, 0);
    assert_eq!(both.once(failed, &failure).word, failed);
    let opened = both.once(word(State::HalfOpen, 0, probes(1, 0), MOST, 7), &report(Outcome::Failure, true, 5, 0));
    assert_eq!(opened.word, word(State::Open, 0, 1, MOST, 300_005));
    let late = both.once(word(State::Closed, 0, 4, 0, 0), &report(Outcome::Failure, false, LATEST + 9, 0));
    assert_eq!(late.word, word(State::Open, 0, 5, 1, LATEST));
    let out = both.once(word(State::HalfOpen, 0, probes(31, 0), 1, LATEST), &{
        Step { limits: Limits { half_open: 40, ..LIMITS }, ..enter(5) }
    });
    assert_eq!((out.word, out.entry), (word(State::HalfOpen, 0, probes(31, 0), 1, 2005), 2));
}

#[test]
fn without_a_place_a_failing_circuit_stays_closed_in_the_kernel_too() {
    let Some(both) = Both::new() else { return };
    let begin = Step { kind: kind::BEGIN, word: word(State::Closed, 0, 4, 0, 0), open: 1, ..enter(0) };
    let failure = report(Outcome::Failure, false, 5, 0);
    both.take(&begin).unwrap();
    let full = both.take(&failure).unwrap();
    assert_eq!((Word(full.word).state(), full.open, full.transitions), (State::Closed, 1, [0, 0, 0]));
    both.take(&Step { open: 0, ..begin }).unwrap();
    let free = both.take(&failure).unwrap();
    assert_eq!((Word(free.word).state(), free.open, free.transitions), (State::Open, 1, [0, 1, 0]));
}

/// What a random story does next; times are relative to the word's deadline or to the latest step, so that borders are
/// met often.
#[derive(Clone, Debug)]
enum Time {
    After(u64),
    AtDeadline(i64),
    Any(u64),
}

fn time() -> impl Strategy<Value = Time> {
    prop_oneof![
        6 => (0..3000u64).prop_map(Time::After),
        3 => (-1..=1i64).prop_map(Time::AtDeadline),
        1 => (0..=LATEST + 1000).prop_map(Time::Any),
    ]
}

/// Sensible ones mostly, and whatever fits into a row.
fn limits() -> impl Strategy<Value = Limits> {
    let sensible = (0..=6u32, 1..=4u32, 1..=20_000u32, 0..=50_000u32, 0..=5000u32, 0..=3u32);
    let sensible = sensible.prop_map(|(failure_threshold, half_open, reset_ms, more, lease_ms, max_open)| {
        let max_reset_ms = reset_ms + more;
        Limits { failure_threshold, half_open, reset_ms, max_reset_ms, lease_ms, max_open, ..LIMITS }
    });
    let any = any::<[u32; 8]>().prop_map(bytemuck::cast::<[u32; 8], Limits>);
    prop_oneof![4 => sensible, 1 => any]
}

fn beginning() -> impl Strategy<Value = (u64, u64)> {
    let calm = Just((0, 0));
    prop_oneof![2 => calm, 1 => (any::<u64>(), 0..4u64)]
}

/// Connections that come and reports of every kind, failures more often than others.
fn next() -> impl Strategy<Value = (Step, Time)> {
    let outcome = prop_oneof![2 => Just(0u32), 3 => 0..OUTCOMES.len() as u32];
    let kind = prop_oneof![2 => Just(kind::REPORT), 1 => Just(kind::ENTER)];
    (kind, outcome, 0..=1u32, any::<u32>(), time()).prop_map(|(kind, outcome, probe, chance, time)| {
        (Step { kind, outcome, probe, chance, ..Step::zeroed() }, time)
    })
}

#[test]
fn every_random_story_has_the_same_words_in_the_kernel_as_on_the_host() {
    let Some(both) = Both::new() else { return };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed().to_le_bytes());
    // The seed is what repeats a failure: no file of them.
    let config = Config { cases: 400, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let stories = (limits(), beginning(), prop::collection::vec(next(), 1..=64));
    let met = Cell::new([0u64; State::COUNT]);
    let told = runner.run(&stories, |(limits, (word, open), story)| {
        let begin = Step { limits, word, open, kind: kind::BEGIN, ..Step::zeroed() };
        let mut answer = both.take(&begin).map_err(TestCaseError::fail)?;
        let mut now = 100_000;
        for (step, time) in story {
            now = match time {
                Time::After(ms) => now + ms,
                Time::AtDeadline(ms) => Word(answer.word).deadline().saturating_add_signed(ms),
                Time::Any(ms) => ms,
            };
            answer = both.take(&Step { limits, now, ..step }).map_err(TestCaseError::fail)?;
        }
        met.set([0, 1, 2].map(|state| met.get()[state] + answer.transitions[state]));
        Ok(())
    });
    told.unwrap();
    assert!(met.get().iter().all(|times| *times > 10), "the stories hardly change a state: {:?}", met.get());
    let count = both.kernel.program().info().unwrap().verified_instruction_count();
    eprintln!("transitions by state: {:?}; instructions that the verifier went through: {count:?}", met.get());
}
