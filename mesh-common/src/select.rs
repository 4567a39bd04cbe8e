//! Choosing an endpoint: the same steps in the connect hook, in `explain` and in the planner's tests.

use crate::{
    breaker::{Entry, Limits, State, Word},
    endpoint::{EndpointRow, Slot, marks},
    reason::Reason,
    service::{Policy, Set, Shown, SlotRange, View, flags},
};

/// The tables a choice reads. The kernel reads maps, a test reads vectors.
pub trait Rows {
    /// The word of a service's [`View`] in a [`Set`]; 0 where there is no such service.
    fn view(&self, service: u32, set: Set, view: View) -> u64;
    /// The service's flags.
    fn flags(&self, service: u32) -> u64;
    /// A slot of the arena; `None` beyond its end.
    fn slot(&self, index: u32) -> Option<Slot>;
    /// An endpoint's row; `None` beyond the table's end.
    fn endpoint(&self, id: u32) -> Option<EndpointRow>;
    /// The part of an endpoint's row that a search compares.
    #[inline(always)]
    fn head(&self, id: u32) -> Option<Head> {
        let EndpointRow { tag, service, weight, marks, .. } = self.endpoint(id)?;
        Some(Head { tag, service, weight, marks })
    }
    /// An endpoint's circuit.
    fn circuit(&self, id: u32) -> Word;
    /// Connections of an endpoint that are open now.
    fn active(&self, id: u32) -> u64;
}

/// A part of an endpoint's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its tag.
    pub tag: u32,
    /// The service it serves.
    pub service: u32,
    /// Its weight.
    pub weight: u16,
    /// Its marks.
    pub marks: u16,
}

/// What a choice does besides reading: it draws, and it passes circuits.
pub trait Chooser: Rows {
    /// The next turn of a service's round robin.
    fn turn(&self, service: u32) -> u32;
    /// 32 random bits.
    fn chance(&self) -> u32;
    /// 32 bits of the client, the same each time.
    fn client(&self) -> u32;
    /// When the service's circuits open, and for how long.
    fn limits(&self, service: u32) -> Limits;
    /// Milliseconds of CLOCK_MONOTONIC.
    fn now(&self) -> u64;
    /// Goes through an endpoint's circuit, whose word is not that of a closed one.
    fn enter(&self, slot: Slot, service: u32, word: Word, now: u64, limits: &Limits) -> Option<Entry>;
    /// Whether no circuit of the service is closed.
    fn is_wholly_open(&self, service: u32, limits: &Limits) -> bool;
    /// Whether it is this connection's turn to try a service that is wholly open.
    fn may_try(&self, service: u32, now: u64, limits: &Limits) -> bool;
    /// Takes the looks from `from` to `to`, until [`look`] says that it is over. The kernel's verifier wants to see such
    /// a loop in another way.
    #[inline(always)]
    fn look_on(&self, from: u32, to: u32, search: &mut Search)
    where
        Self: Sized,
    {
        for number in from..to {
            if look(self, search, number) {
                break;
            }
        }
    }
}

/// A choice under way.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    service: u32,
    view: View,
    /// The set that is looked at first.
    first: Set,
    /// The slot of the last one.
    index: u32,
    /// Whether a circuit did not let the connection through.
    refused: bool,
    /// Whether something was found. What follows is plain numbers, always set: the kernel's verifier must not see in
    /// them what lay in their place before.
    found: bool,
    slot: Slot,
    entry: Entry,
}

impl Search {
    #[inline(always)]
    const fn find(&mut self, slot: Slot, entry: Entry) -> bool {
        (self.found, self.slot, self.entry) = (true, slot, entry);
        true
    }
}

/// An endpoint that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The slot that named it: [`occupant`] has its row.
    pub slot: Slot,
    /// Whether it goes as a probe.
    pub entry: Entry,
}

/// Slots that are looked at in one set before the next one is tried. Endpoints of a service lie scattered, so where
/// half of its circuits are open this fails once in 2^64, and a service of so many slots is looked at as a whole.
pub const LOOKS: u32 = 64;

/// How many of those are drawn as the policy says; then one slot follows the other.
pub const DRAWS: u32 = 4;

/// How many are turns of round robin, in the set that is looked at first: whoever meets an open circuit takes the next turn,
/// so that the others share what it would have got, and not the one beside it alone. As many again follow one another,
/// which makes [`LOOKS`] different ones.
const TURNS: u32 = LOOKS / 2;

/// Which of `count` slots `draw` means: a turn for round robin, else 32 random bits. `count` must not be 0.
#[inline(always)]
#[must_use]
pub const fn position(policy: Policy, draw: u32, count: u32) -> u32 {
    match policy {
        Policy::RoundRobin => draw % count,
        Policy::Random | Policy::LeastConnections | Policy::Maglev => scale(draw, count),
    }
}

/// Which of `count` is drawn by 32 random bits; 0 of none. Multiply and shift: as even as a modulo, without a division
/// (Lemire, ACM TOMACS 29(1), 2019).
#[inline(always)]
const fn scale(draw: u32, count: u32) -> u32 {
    ((draw as u64 * count as u64) >> 32) as u32
}

/// The endpoint in a slot, if the two belong together and to `service`.
#[inline(always)]
fn seat<R: Rows>(rows: &R, service: u32, index: u32) -> Option<(Slot, Head)> {
    let slot = rows.slot(index)?;
    let head = rows.head(slot.id())?;
    // A row that was just freed still serves a reader that was on its way to it: only another use has another tag.
    if head.tag == slot.tag() && head.service == service { Some((slot, head)) } else { None }
}

/// The row of the endpoint that a slot means, as long as it is the same one's.
#[inline(always)]
pub fn occupant<R: Rows>(rows: &R, service: u32, slot: Slot) -> Option<EndpointRow> {
    let row = rows.endpoint(slot.id())?;
    if row.tag == slot.tag() && row.service == service { Some(row) } else { None }
}

/// Whether `other` is the better one of two that were drawn: it lets connections through and `one` does not, or it has
/// fewer for its weight. Tiers get their parts by slots, so the two must be of one.
#[inline(always)]
fn is_better<R: Rows>(rows: &R, one: &(Slot, Head), other: &(Slot, Head)) -> bool {
    if rows.circuit(other.0.id()).state() as u8 != State::Closed as u8 {
        return false;
    }
    if rows.circuit(one.0.id()).state() as u8 != State::Closed as u8 {
        return true;
    }
    let weight = |head: &Head| u64::from(head.weight) | u64::from(head.weight == 0);
    (one.1.marks ^ other.1.marks) & marks::TIER == 0
        && rows.active(other.0.id()) * weight(&one.1) < rows.active(one.0.id()) * weight(&other.1)
}

/// Picks an endpoint of `service` among those that `view` shows: in `first`, and if none there lets a connection
/// through, in [`Set::All`].
///
/// # Errors
/// [`Reason::NoEndpoint`] or [`Reason::FamilyMismatch`] when the view is empty, [`Reason::CircuitOpen`] when no circuit
/// lets the connection through, [`Reason::StaleRows`] when rows kept changing. Never an endpoint of another service.
#[inline(always)]
pub fn choose<C: Chooser>(rows: &C, service: u32, view: View, first: Set) -> Result<Choice, Reason> {
    let mut search =
        Search { service, view, first, index: 0, refused: false, found: false, slot: Slot(0), entry: Entry::Free };
    // Nearly always one look is all.
    if !look(rows, &mut search, 0) {
        rows.look_on(1, 2 * LOOKS, &mut search);
    }
    if search.found {
        return Ok(Choice { slot: search.slot, entry: search.entry });
    }
    if !search.refused {
        return Err(nothing(rows, service, view));
    }
    let (limits, now) = (rows.limits(service), rows.now());
    match seat(rows, service, search.index) {
        Some((slot, _)) if rows.may_try(service, now, &limits) => Ok(Choice { slot, entry: Entry::Probe }),
        _ => Err(Reason::CircuitOpen),
    }
}

/// Looks at one slot, or at two of which the better one counts. Whether the search is over.
#[inline(always)]
pub fn look<C: Chooser>(rows: &C, search: &mut Search, number: u32) -> bool {
    let (service, set) = (search.service, if number < LOOKS { search.first } else { Set::All });
    // Read again at each look: the range may have been replaced.
    let Shown { range, policy } = Shown::from_word(rows.view(service, set, search.view));
    if range.count == 0 {
        return false;
    }
    let nth = number % LOOKS;
    let drawn = nth < DRAWS;
    let at = match policy {
        Policy::Maglev if nth == 0 => position(policy, rows.client(), range.count),
        Policy::RoundRobin if nth < TURNS && number < LOOKS => position(policy, rows.turn(service), range.count),
        // Of another set not by turns: those that all connects of a moment take in vain before would have them all meet there.
        Policy::RoundRobin | Policy::Random | Policy::LeastConnections if drawn => {
            position(policy, rows.chance(), range.count)
        }
        _ => search.index.wrapping_sub(range.base).wrapping_add(1) % range.count,
    };
    search.index = range.base.wrapping_add(at);
    let Some((mut slot, head)) = seat(rows, service, search.index) else { return false };
    if matches!(policy, Policy::LeastConnections) && drawn {
        // Another slot than the first, where there is another one. No division that the compiler does not see to be one by
        // a number above 0: the kernel loads no program with a panic in it.
        let at = (at + 1 + scale(rows.chance(), range.count - 1)) % range.count;
        if let Some(other) = seat(rows, service, range.base.wrapping_add(at))
            && is_better(rows, &(slot, head), &other)
        {
            slot = other.0;
        }
    }
    let word = rows.circuit(slot.id());
    if word.state() as u8 == State::Closed as u8 {
        return search.find(slot, Entry::Free);
    }
    let (limits, now) = (rows.limits(service), rows.now());
    if let Some(entry) = rows.enter(slot, service, word, now, &limits) {
        return search.find(slot, entry);
    }
    search.refused = true;
    rows.is_wholly_open(service, &limits)
}

/// Why there is nothing to choose from.
#[inline(always)]
fn nothing<R: Rows>(rows: &R, service: u32, view: View) -> Reason {
    let count = |view| Shown::from_word(rows.view(service, Set::All, view)).range.count;
    if count(view) > 0 {
        Reason::StaleRows
    } else if rows.flags(service) & flags::TRIPPED != 0 {
        Reason::CircuitOpen
    } else if count(View::Any) > 0 {
        Reason::FamilyMismatch
    } else {
        Reason::NoEndpoint
    }
}

/// The range that a view shows in a set.
#[must_use]
pub fn shown<R: Rows>(rows: &R, service: u32, set: Set, view: View) -> SlotRange {
    Shown::from_word(rows.view(service, set, view)).range
}

/// Whether the endpoint that a client met last is still to be met: it is the same one, in selection, its circuit is
/// closed, and it did not just fail `threshold` times in a row (one that may not open, since others are, would keep its
/// clients for ever).
#[inline(always)]
pub fn is_kept<R: Rows>(rows: &R, service: u32, slot: Slot, attended: bool, threshold: u32) -> bool {
    let wanted = marks::IN | if attended { marks::HEALTHY } else { 0 };
    let is_wanted = |head: Head| head.tag == slot.tag() && head.service == service && head.marks & wanted == wanted;
    let word = rows.circuit(slot.id());
    let works = word.failures() == 0 || word.failures() < threshold;
    rows.head(slot.id()).is_some_and(is_wanted) && word.state() as u8 == State::Closed as u8 && works
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
