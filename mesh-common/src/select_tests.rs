//! Choices over tables in plain memory.

use super::*;
use crate::{addr::Address, breaker};
use proptest::prelude::*;
use std::cell::{Cell, RefCell};

const LIMITS: Limits = Limits {
    failure_threshold: 5,
    half_open: 1,
    reset_ms: 30_000,
    max_reset_ms: 300_000,
    lease_ms: 2000,
    probe_interval_ms: 1000,
    max_open: 50,
    endpoints: 0,
};

/// One service with a slot for each endpoint.
struct Plain {
    policy: Policy,
    near: u32,
    circuits: RefCell<Vec<Word>>,
    active: Vec<u64>,
    turn: Cell<u32>,
    chance: Cell<u32>,
    client: u32,
    now: Cell<u64>,
    probe_at: Cell<u64>,
    stale: bool,
    flags: u64,
}

fn plain(policy: Policy, endpoints: usize) -> Plain {
    Plain {
        policy,
        near: u32::try_from(endpoints).unwrap(),
        circuits: RefCell::new(vec![Word::default(); endpoints]),
        active: vec![0; endpoints],
        turn: Cell::new(0),
        chance: Cell::new(12_345),
        client: 0,
        now: Cell::new(0),
        probe_at: Cell::new(0),
        stale: false,
        flags: 0,
    }
}

/// A circuit that is open until `ms`.
fn open(ms: u64) -> Word {
    Word(1 | ms << 24)
}

impl Plain {
    fn open(&self, which: impl IntoIterator<Item = usize>) {
        which.into_iter().for_each(|id| self.circuits.borrow_mut()[id] = open(30_000));
    }

    fn choose(&self) -> Result<u32, Reason> {
        choose(self, 0, View::V4, Set::Attended).map(|choice| choice.slot.id())
    }
}

impl Rows for Plain {
    fn view(&self, _: u32, set: Set, view: View) -> u64 {
        let all = u32::try_from(self.circuits.borrow().len()).unwrap();
        let count = match (view, set) {
            (View::V6, _) => 0,
            (_, Set::All) => all,
            _ => self.near,
        };
        Shown { range: SlotRange { base: 0, count }, policy: self.policy }.word()
    }
    fn flags(&self, _: u32) -> u64 {
        self.flags
    }
    fn slot(&self, index: u32) -> Option<Slot> {
        Some(Slot::new(index, 7))
    }
    fn endpoint(&self, id: u32) -> Option<EndpointRow> {
        let (address, weight) = (Address::v4(id), u16::try_from(id % 3 + 1).unwrap());
        Some(EndpointRow {
            address,
            weight,
            tag: if self.stale { 8 } else { 7 },
            used: 1,
            marks: marks::IN,
            ..EndpointRow::default()
        })
    }
    fn circuit(&self, id: u32) -> Word {
        self.circuits.borrow()[id as usize]
    }
    fn active(&self, id: u32) -> u64 {
        self.active[id as usize]
    }
}

impl Chooser for Plain {
    fn turn(&self, _: u32) -> u32 {
        self.turn.replace(self.turn.get() + 1)
    }
    fn chance(&self) -> u32 {
        self.chance.set(self.chance.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        self.chance.get()
    }
    fn client(&self) -> u32 {
        self.client
    }
    fn limits(&self, _: u32) -> Limits {
        Limits { endpoints: u32::try_from(self.circuits.borrow().len()).unwrap(), ..LIMITS }
    }
    fn now(&self) -> u64 {
        self.now.get()
    }
    fn enter(&self, slot: Slot, _: u32, word: Word, now: u64, limits: &Limits) -> Option<Entry> {
        match breaker::admit(word, now, limits) {
            breaker::Admission::Yes => Some(Entry::Free),
            breaker::Admission::Probe(new) => {
                self.circuits.borrow_mut()[slot.id() as usize] = new;
                Some(Entry::Probe)
            }
            breaker::Admission::No => None,
        }
    }
    fn is_wholly_open(&self, _: u32, _: &Limits) -> bool {
        self.circuits.borrow().iter().all(|word| word.state() != State::Closed)
    }
    fn may_try(&self, _: u32, now: u64, limits: &Limits) -> bool {
        let mine = now >= self.probe_at.get();
        if mine {
            self.probe_at.set(now + u64::from(limits.probe_interval_ms));
        }
        mine
    }
}

proptest! {
    #[test]
    fn a_position_is_always_inside_the_range(draw: u32, count in 1..1u32 << 28, policy in 0..Policy::COUNT) {
        prop_assert!(position(Policy::ALL[policy], draw, count) < count);
    }

    #[test]
    fn round_robin_visits_every_slot_once_a_turn(start in 0..u32::MAX - 5000, count in 1..500u32) {
        let mut seen = vec![0; count as usize];
        for draw in start..start + count {
            seen[position(Policy::RoundRobin, draw, count) as usize] += 1;
        }
        prop_assert!(seen.iter().all(|n| *n == 1));
    }

    #[test]
    fn an_endpoint_that_admits_is_found_and_no_other(
        policy in 0..Policy::COUNT,
        endpoints in 1..60usize,
        closed in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
        chance: u32,
    ) {
        let rows = plain(Policy::ALL[policy], endpoints);
        rows.chance.set(chance);
        let closed: Vec<usize> = closed.iter().map(|index| index.index(endpoints)).collect();
        rows.open((0..endpoints).filter(|id| !closed.contains(id)));
        for _ in 0..10 {
            let found = rows.choose();
            prop_assert!(found.is_ok_and(|id| closed.contains(&(id as usize))), "{:?} of {:?}", found, closed);
        }
    }
}

#[test]
fn round_robin_over_what_is_left_is_even() {
    let rows = plain(Policy::RoundRobin, 4);
    rows.open([1]);
    let picked: Vec<u32> = (0..6).map(|_| rows.choose().unwrap()).collect();
    assert_eq!(picked, [0, 2, 3, 0, 2, 3]);
}

#[test]
fn round_robin_passes_over_open_circuits_that_lie_side_by_side() {
    let rows = plain(Policy::RoundRobin, 32);
    rows.open(0..16);
    let picked: Vec<u32> = (0..160).map(|_| rows.choose().unwrap()).collect();
    assert!((16..32).all(|id| picked.iter().filter(|one| **one == id).count() == 10), "{picked:?}");
}

#[test]
fn the_others_share_what_a_zone_without_a_way_in_leaves() {
    let rows = Plain { near: 4, ..plain(Policy::RoundRobin, 8) };
    rows.open(0..4);
    let picked: Vec<u32> = (0..400).map(|_| rows.choose().unwrap()).collect();
    assert!((4..8).all(|id| picked.iter().filter(|one| **one == id).count() > 40), "{picked:?}");
}

#[test]
fn where_no_near_endpoint_admits_the_others_are_asked() {
    let rows = Plain { near: 2, ..plain(Policy::RoundRobin, 4) };
    rows.open([0, 1]);
    assert!((0..20).all(|_| rows.choose().unwrap() >= 2));
}

#[test]
fn least_connections_takes_the_less_loaded_of_two_for_its_weight() {
    let rows = Plain { active: vec![100, 0, 0], ..plain(Policy::LeastConnections, 3) };
    let first = (0..900).filter(|_| rows.choose() == Ok(0)).count();
    assert_eq!(first, 0, "the two that are drawn are never the same one");
    let even = Plain { active: vec![10, 20, 30], ..plain(Policy::LeastConnections, 3) };
    let first = (0..900).filter(|_| even.choose() == Ok(0)).count();
    assert!((200..400).contains(&first), "weights are 1, 2 and 3, so loads are equal: {first}");
}

#[test]
fn the_same_client_meets_the_same_endpoint_also_where_its_first_is_open() {
    let rows = Plain { client: 3 << 30, ..plain(Policy::Maglev, 4) };
    assert!((0..10).all(|_| rows.choose() == Ok(3)));
    rows.open([3]);
    assert!((0..10).all(|_| rows.choose() == Ok(0)));
}

#[test]
fn a_wholly_open_service_lets_one_connection_through_each_interval() {
    let rows = plain(Policy::RoundRobin, 3);
    rows.open(0..3);
    let let_through = |from, to| {
        (from..to).filter(|now| {
            rows.now.set(*now);
            rows.choose().is_ok()
        })
    };
    assert_eq!(let_through(1, 3500).collect::<Vec<u64>>(), [1, 1001, 2001, 3001]);
    assert_eq!(rows.choose(), Err(Reason::CircuitOpen));
}

#[test]
fn a_circuit_whose_time_has_come_is_probed_by_whoever_meets_it() {
    let rows = plain(Policy::RoundRobin, 2);
    rows.open([0]);
    rows.now.set(30_000);
    let choice = choose(&rows, 0, View::V4, Set::Attended).unwrap();
    assert_eq!((choice.slot.id(), choice.entry), (0, Entry::Probe));
    assert!((0..10).all(|_| rows.choose() == Ok(1)), "one is out");
}

#[test]
fn rows_that_never_agree_are_refused_and_never_used() {
    let rows = Plain { stale: true, ..plain(Policy::RoundRobin, 3) };
    assert_eq!(rows.choose(), Err(Reason::StaleRows));
}

#[test]
fn nothing_to_choose_from_is_said_with_its_reason() {
    let rows = plain(Policy::Random, 3);
    assert_eq!(choose(&rows, 0, View::V6, Set::Attended), Err(Reason::FamilyMismatch));
    assert_eq!(plain(Policy::Random, 0).choose(), Err(Reason::NoEndpoint));
    assert_eq!(Plain { flags: flags::TRIPPED, ..plain(Policy::Random, 0) }.choose(), Err(Reason::CircuitOpen));
}

#[test]
fn a_client_comes_back_only_to_what_is_in_selection() {
    let rows = plain(Policy::Random, 1);
    let kept = |tag, attended| is_kept(&rows, 0, Slot::new(0, tag), attended, 5);
    assert_eq!((kept(7, true), kept(7, false)), (false, true), "in selection, and unhealthy");
    assert!(!kept(8, false), "another endpoint by now");
    let failed = |failures: u64| rows.circuits.borrow_mut()[0] = Word(failures << 4);
    failed(4);
    assert!(is_kept(&rows, 0, Slot::new(0, 7), false, 5));
    assert!(!is_kept(&rows, 0, Slot::new(0, 7), false, 0), "nothing opens, and it fails");
    failed(5);
    assert!(!is_kept(&rows, 0, Slot::new(0, 7), false, 5), "it should be open, and may not");
}
