//! The circuit breaker of an endpoint: one 64-bit word, and what becomes of it.
//!
//! **Closed** lets connections through, **open** refuses them, **half-open** lets a few probes through that decide. The
//! kernel and the daemon run the same functions on the same words, each inside a compare-and-swap loop
//! ([`report`], [`enter`]); time and chance are arguments.
//!
//! What promises hold, whatever happens in whatever order (the tests below search for counterexamples):
//! no circuit opens below the threshold, no more probes are out than allowed, and none stays open for ever: after
//! [`Limits::max_reset_ms`] the next connection that meets it is let through.

use bytemuck::{Pod, Zeroable};

/// The state of a circuit, in the electrical sense.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Connections flow.
    #[default]
    Closed = 0,
    /// Connections are refused.
    Open = 1,
    /// Probes decide.
    HalfOpen = 2,
}

impl State {
    /// How many states there are.
    pub const COUNT: usize = 3;
    /// Every state, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The word in metrics, logs and JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// A circuit, one word. All zeroes: closed, and nothing ever happened.
///
/// | bits | closed | open | half-open |
/// | --- | --- | --- | --- |
/// | 0–1 | the state | | |
/// | 2–3 | connections that had to repeat their SYN | 1: it opened for those alone | |
/// | 4–13 | failures in a row | the same, of when it opened | probes out (4–8), and passed (9–13) |
/// | 14–23 | openings in a row | the same | the same |
/// | 24–63 | until when openings are remembered | when probes may try | when the probes out are given up |
///
/// Times are milliseconds of CLOCK_MONOTONIC: 40 bits last 34 years of uptime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct Word(pub u64);

const SUSPECTS: Field = Field { at: 2, bits: 2 };
const FAILURES: Field = Field { at: 4, bits: 10 };
const OUT: Field = Field { at: 4, bits: 5 };
const PASSED: Field = Field { at: 9, bits: 5 };
const OPENINGS: Field = Field { at: 14, bits: 10 };
const DEADLINE: Field = Field { at: 24, bits: 40 };

/// Bits of a word.
#[derive(Clone, Copy)]
struct Field {
    at: u32,
    bits: u32,
}

impl Field {
    const fn most(self) -> u64 {
        (1 << self.bits) - 1
    }

    #[inline(always)]
    const fn of(self, word: u64) -> u64 {
        (word >> self.at) & self.most()
    }

    /// `word` with this field set; what does not fit becomes the most that does.
    #[inline(always)]
    const fn set(self, word: u64, value: u64) -> u64 {
        let value = if value > self.most() { self.most() } else { value };
        word & !(self.most() << self.at) | value << self.at
    }
}

impl Word {
    /// The state.
    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> State {
        match self.0 & 3 {
            0 => State::Closed,
            2 => State::HalfOpen,
            _ => State::Open,
        }
    }

    /// Failures in a row; of an open circuit those that opened it (one failed probe), of a half-open one 0.
    #[inline(always)]
    #[must_use]
    pub const fn failures(self) -> u32 {
        if matches!(self.state(), State::HalfOpen) { 0 } else { FAILURES.of(self.0) as u32 }
    }

    /// Connections in a row that had to repeat their SYN, of a closed circuit.
    #[inline(always)]
    #[must_use]
    pub const fn suspects(self) -> u32 {
        SUSPECTS.of(self.0) as u32
    }

    /// Openings in a row at `now`: forgotten once the circuit was closed for a reset timeout.
    #[inline(always)]
    #[must_use]
    pub const fn openings(self, now: u64) -> u32 {
        match self.state() {
            State::Closed if now >= self.deadline() => 0,
            _ => OPENINGS.of(self.0) as u32,
        }
    }

    /// When something changes by itself, in milliseconds of CLOCK_MONOTONIC; what, depends on the state.
    #[inline(always)]
    #[must_use]
    pub const fn deadline(self) -> u64 {
        DEADLINE.of(self.0)
    }

    /// Whether the circuit is closed and nothing speaks against its endpoint.
    #[inline(always)]
    #[must_use]
    pub const fn is_calm(self) -> bool {
        self.0 & (3 | SUSPECTS.most() << SUSPECTS.at | FAILURES.most() << FAILURES.at) == 0
    }

    /// Probes of a half-open circuit that did not report yet.
    #[must_use]
    pub const fn probes_out(self) -> u32 {
        if matches!(self.state(), State::HalfOpen) { OUT.of(self.0) as u32 } else { 0 }
    }

    #[inline(always)]
    const fn with(self, field: Field, value: u64) -> Self {
        Self(field.set(self.0, value))
    }

    #[inline(always)]
    const fn new(state: State, openings: u64, deadline: u64) -> Self {
        Self(state as u64).with(OPENINGS, openings).with(DEADLINE, deadline)
    }
}

/// When circuits of a service open, and for how long. Words of a row that the daemon writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Limits {
    /// Failures in a row that open a circuit, at most 1000; 0: none ever opens.
    pub failure_threshold: u32,
    /// Probes that decide, 1 to 31.
    pub half_open: u32,
    /// How long a circuit stays open, times the openings in a row.
    pub reset_ms: u32,
    /// The longest that it stays open.
    pub max_reset_ms: u32,
    /// After how long a probe that did not report is given up; at most nine tenths of `reset_ms`, so that none
    /// outlives the half-open time that it belongs to.
    pub lease_ms: u32,
    /// How often a connection is let through while a whole service is open.
    pub probe_interval_ms: u32,
    /// How many circuits of the service may be open at a time.
    pub max_open: u32,
    /// How many endpoints the service has.
    pub endpoints: u32,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Refused, unreachable, or reset before it was of any use.
    Failure,
    /// Not established in time.
    Timeout,
    /// It had to repeat its SYN: a black hole, or a full accept queue. Told once a connection.
    Suspect,
    /// Too large a part of what it was sent failed: it opens at once.
    Unreliable,
    /// Established.
    Established,
    /// Of use: a byte came back, or it was established for a second.
    Alive,
    /// It ended by our own side, before anything was learned.
    Nothing,
}

/// One outcome as it is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// What became of the connection.
    pub outcome: Outcome,
    /// Whether it was let through as a probe, less than [`Limits::lease_ms`] ago.
    pub probe: bool,
    /// Now, milliseconds of CLOCK_MONOTONIC.
    pub now: u64,
    /// 32 random bits.
    pub chance: u32,
}

/// Connections in a row that repeat their SYN and open a circuit.
const SUSPECTS_OPEN: u64 = 2;

/// One step of the circuit breaker: the word after a report. Pure and total.
///
/// `may_open`: whether the service has a place left for another open circuit. Without one a circuit that should open
/// stays closed, and opens at a later failure.
#[inline(always)]
#[must_use]
pub const fn step(word: Word, report: &Report, limits: &Limits, may_open: bool) -> Word {
    match word.state() {
        State::Closed => step_closed(word, report, limits, may_open),
        State::Open => match report.outcome {
            // A connection that was let through although the circuit is open; or it opened because of SYNs that were
            // merely slow, which this one proves.
            Outcome::Established if report.probe => closed(OPENINGS.of(word.0), report.now, limits),
            Outcome::Established if SUSPECTS.of(word.0) > 0 => {
                closed(OPENINGS.of(word.0).saturating_sub(1), report.now, limits)
            }
            _ => word,
        },
        // Only probes decide: others began before, and tell of then.
        State::HalfOpen if report.probe => match report.outcome {
            // Nobody answers it: also a sign where the application gives up before the connect times out. If the answer was
            // merely late, it closes the circuit all the same.
            Outcome::Failure | Outcome::Timeout | Outcome::Suspect | Outcome::Unreliable => {
                opened(word, OPENINGS.of(word.0) + 1, report, limits)
            }
            Outcome::Established => {
                let passed = PASSED.of(word.0) + 1;
                if passed >= limits.half_open as u64 {
                    closed(OPENINGS.of(word.0), report.now, limits)
                } else {
                    word.with(PASSED, passed).with(OUT, OUT.of(word.0).saturating_sub(1))
                }
            }
            // A probe that was given up says nothing; its place is free when its time is over, so that applications which
            // give up quickly do not all try one after the other.
            Outcome::Nothing | Outcome::Alive => word,
        },
        State::HalfOpen => word,
    }
}

#[inline(always)]
const fn step_closed(word: Word, report: &Report, limits: &Limits, may_open: bool) -> Word {
    let mut word = word;
    let opens = match report.outcome {
        Outcome::Failure | Outcome::Timeout => {
            let failures = FAILURES.of(word.0) + 1;
            word = word.with(FAILURES, failures);
            let suspected = matches!(report.outcome, Outcome::Timeout) && SUSPECTS.of(word.0) > 0;
            suspected || failures >= limits.failure_threshold as u64
        }
        Outcome::Suspect => {
            let suspects = SUSPECTS.of(word.0) + 1;
            word = word.with(SUSPECTS, suspects);
            suspects >= SUSPECTS_OPEN
        }
        Outcome::Unreliable => true,
        Outcome::Established => return word.with(SUSPECTS, 0),
        Outcome::Alive => return word.with(SUSPECTS, 0).with(FAILURES, 0),
        Outcome::Nothing => return word,
    };
    if !opens || !may_open || limits.failure_threshold == 0 {
        return word;
    }
    let suspected = matches!(report.outcome, Outcome::Suspect);
    let open = opened(word, word.openings(report.now) as u64 + 1, report, limits);
    open.with(SUSPECTS, suspected as u64)
}

/// The circuit closes. Openings in a row are remembered for a reset timeout.
#[inline(always)]
const fn closed(openings: u64, now: u64, limits: &Limits) -> Word {
    Word::new(State::Closed, openings, now + limits.reset_ms as u64)
}

/// The circuit opens, for the `openings`th time in a row.
#[inline(always)]
const fn opened(word: Word, openings: u64, report: &Report, limits: &Limits) -> Word {
    let reset = longest(word.with(OPENINGS, openings), limits);
    // Jitter only shortens, by up to a tenth: nobody waits longer than was configured.
    let reset = reset - ((reset * report.chance as u64) >> 32) / 10;
    let failures = if matches!(word.state(), State::HalfOpen) { 1 } else { word.failures() };
    Word::new(State::Open, openings, report.now + reset).with(FAILURES, failures as u64)
}

/// How long a circuit that has opened so often may stay open.
#[inline(always)]
const fn longest(word: Word, limits: &Limits) -> u64 {
    let openings = OPENINGS.of(word.0);
    let reset = limits.reset_ms as u64 * if openings == 0 { 1 } else { openings };
    if reset > limits.max_reset_ms as u64 { limits.max_reset_ms as u64 } else { reset }
}

/// Whether a circuit lets a connection through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// As any other.
    Yes,
    /// As a probe, if the word can be swapped for this one.
    Probe(Word),
    /// Not now.
    No,
}

/// Whether `word` lets a connection through at `now` (milliseconds of CLOCK_MONOTONIC).
#[inline(always)]
#[must_use]
pub const fn admit(word: Word, now: u64, limits: &Limits) -> Admission {
    match word.state() {
        State::Closed => Admission::Yes,
        // One that would be longer than the limits of now allow was set by others, which hold no more.
        State::Open if now < word.deadline() && word.deadline() - now <= longest(word, limits) => Admission::No,
        State::Open => {
            let half_open = Word::new(State::HalfOpen, OPENINGS.of(word.0), now + limits.lease_ms as u64);
            Admission::Probe(half_open.with(OUT, 1))
        }
        State::HalfOpen => {
            let (out, passed) = (OUT.of(word.0), PASSED.of(word.0));
            // Probes that never reported are given up together, once the last of them had its time.
            let out = if now >= word.deadline() { 0 } else { out };
            if out + passed >= limits.half_open as u64 && out > 0 {
                Admission::No
            } else {
                Admission::Probe(word.with(OUT, out + 1).with(DEADLINE, now + limits.lease_ms as u64))
            }
        }
    }
}

/// Where a circuit lives: eBPF maps in the kernel, the same memory mapped in the daemon, plain memory in tests.
pub trait Circuit {
    /// The word.
    fn word(&self) -> Word;
    /// Replaces `old` by `new`, unless the word is another one by now; whether it did.
    fn swap(&self, old: Word, new: Word) -> bool;
    /// Takes one of the service's `most` places for circuits that are not closed; whether there was one.
    fn take_place(&self, most: u32) -> bool;
    /// Gives a place back.
    fn give_place(&self);
    /// No connection tries the service before `until` (milliseconds of CLOCK_MONOTONIC), should it be wholly open.
    fn hold_off(&self, until: u64);
    /// The circuit went from one state to another.
    fn changed(&self, from: Word, to: Word);
    /// Calls [`attempt`] up to `times` times, until it succeeds. The kernel's verifier wants to see such a loop in
    /// another way.
    #[inline(always)]
    fn try_on(&self, times: u32, report: &Report, limits: &Limits)
    where
        Self: Sized,
    {
        for _ in 0..times {
            if attempt(self, report, limits) {
                break;
            }
        }
    }
}

/// How often a word that others change at the same time is tried. Whoever loses so often leaves it to them: they all
/// report the same endpoint.
const ATTEMPTS: u32 = 8;

/// Brings an outcome to a circuit.
#[inline(always)]
pub fn report(circuit: &impl Circuit, report: &Report, limits: &Limits) {
    circuit.try_on(ATTEMPTS, report, limits);
}

/// Brings an outcome to a circuit, unless somebody else changes it at the same moment; whether it did.
#[inline(always)]
pub fn attempt(circuit: &impl Circuit, report: &Report, limits: &Limits) -> bool {
    let old = circuit.word();
    let mut new = step(old, report, limits, true);
    let opens = old.state() as u8 == State::Closed as u8 && new.state() as u8 == State::Open as u8;
    let has_place = opens && circuit.take_place(limits.max_open);
    if opens && !has_place {
        new = step(old, report, limits, false);
    }
    if new.0 == old.0 {
        return true;
    }
    if !circuit.swap(old, new) {
        if has_place {
            circuit.give_place();
        }
        return false;
    }
    if old.state() as u8 != new.state() as u8 {
        if new.state() as u8 == State::Closed as u8 {
            circuit.give_place();
        } else {
            circuit.hold_off(report.now + limits.probe_interval_ms as u64);
        }
        circuit.changed(old, new);
    }
    true
}

/// How a connection may pass a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Entry {
    /// As any other.
    Free = 0,
    /// As a probe, whose outcome decides: the number is that of its [mark](crate::connection::marks::PROBE).
    Probe = 1,
}

const _: () = assert!(Entry::Probe as u32 == crate::connection::marks::PROBE, "a probe is marked as one");

/// Lets a connection through a circuit, if it admits one; a probe's lease is taken by that.
#[inline(always)]
pub fn enter(circuit: &impl Circuit, word: Word, now: u64, limits: &Limits) -> Option<Entry> {
    match admit(word, now, limits) {
        Admission::Yes => Some(Entry::Free),
        Admission::Probe(new) if circuit.swap(word, new) => {
            if word.state() != new.state() {
                circuit.changed(word, new);
            }
            Some(Entry::Probe)
        }
        // Somebody else was quicker: this connection looks elsewhere.
        Admission::Probe(_) | Admission::No => None,
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
