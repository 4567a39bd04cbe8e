//! Plans are replayed write by write on model tables; after each write, every VIP must lead to exactly the old set or
//! exactly the new one, asked through the very function that the connect hook runs.

use super::{super::ids::QUARANTINE, *};
use crate::model::{self, Endpoint, Overrides, Service};
use mesh_common::{
    breaker::{Entry, Limits as Breaker, Word},
    endpoint::EndpointRow,
    reason::Reason,
    select::{self, Chooser, Rows},
    service::{Policy, ServiceRow, Set, SlotRange, View, flags},
};
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

/// Room for all that six snapshots in a row ask for: what one of them frees rests, and may not be used by the next.
const LIMITS: Limits = Limits { services: 64, vips: 32, endpoints: 256, slots: 16_384 };

/// Who answers at a VIP and how often in a turn, or why nobody does. `None`: it is no VIP.
type Answers = Option<Result<BTreeMap<SocketAddr, usize>, Reason>>;

#[derive(Clone, Default)]
struct Model {
    vips: BTreeMap<VipKey, u32>,
    services: BTreeMap<u32, ServiceRow>,
    slots: BTreeMap<u32, Slot>,
    endpoints: BTreeMap<u32, EndpointRow>,
}

/// Draws slot after slot, whatever the policy; every circuit is closed.
struct Turns<'a>(&'a Model, Cell<u32>);

impl Rows for Turns<'_> {
    fn view(&self, service: u32, set: Set, view: View) -> u64 {
        let word = self.0.services.get(&service).map_or(0, |row| row.views[set as usize][view as usize]);
        Shown { policy: Policy::RoundRobin, ..Shown::from_word(word) }.word()
    }
    fn flags(&self, service: u32) -> u64 {
        self.0.services.get(&service).map_or(0, |row| row.flags)
    }
    fn slot(&self, index: u32) -> Option<Slot> {
        self.0.slots.get(&index).copied()
    }
    fn endpoint(&self, id: u32) -> Option<EndpointRow> {
        self.0.endpoints.get(&id).copied()
    }
    fn circuit(&self, _: u32) -> Word {
        Word::default()
    }
    fn active(&self, _: u32) -> u64 {
        0
    }
}

impl Chooser for Turns<'_> {
    fn turn(&self, _: u32) -> u32 {
        self.1.replace(self.1.get() + 1)
    }
    fn chance(&self) -> u32 {
        // So that every slot is met, as by turns.
        self.turn(0)
    }
    fn client(&self) -> u32 {
        0
    }
    fn limits(&self, _: u32) -> Breaker {
        Breaker::default()
    }
    fn now(&self) -> u64 {
        0
    }
    fn enter(&self, _: Slot, _: u32, _: Word, _: u64, _: &Breaker) -> Option<Entry> {
        Some(Entry::Free)
    }
    fn is_wholly_open(&self, _: u32, _: &Breaker) -> bool {
        false
    }
    fn may_try(&self, _: u32, _: u64, _: &Breaker) -> bool {
        false
    }
}

impl Model {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Endpoint(id, row) => {
                assert_ne!(self.endpoints.get(id).map(|r| r.used), Some(1), "row {id} is in use");
                self.endpoints.insert(*id, *row);
            }
            Change::Again(id, row) => {
                let before = self.endpoints.insert(*id, *row).unwrap();
                let is_the_same = (before.tag, before.service, before.address) == (row.tag, row.service, row.address);
                assert!(is_the_same && before.used == 0, "row {id}: {before:?}");
            }
            Change::Slots(base, slots) => self.slots.extend((*base..).zip(slots.iter().copied())),
            Change::Service(id, row) => {
                self.services.insert(*id, *row);
            }
            Change::View(id, set, view, shown) => {
                self.services.get_mut(id).unwrap().views[*set as usize][*view as usize] = shown.word();
            }
            Change::Terms(id, terms) => {
                let row = self.services.get_mut(id).unwrap();
                *row = ServiceRow { views: row.views, name: row.name, ..*terms };
            }
            Change::Weigh(id, weight, marks) => {
                let row = self.endpoints.get_mut(id).unwrap();
                (row.weight, row.marks) = (*weight, *marks);
            }
            Change::NoVip(key) => {
                self.vips.remove(key);
            }
            Change::Vip(key, id) => {
                self.vips.insert(*key, *id);
            }
            Change::FreeService(id) => self.services.get_mut(id).unwrap().name = 0,
            Change::FreeEndpoint(id) => self.endpoints.get_mut(id).unwrap().used = 0,
        }
    }

    fn answers(&self, vip: SocketAddr, view: View) -> Answers {
        let service = *self.vips.get(&vip_key(Protocol::Tcp, vip))?;
        let turns = Turns(self, Cell::new(0));
        let mut seen = BTreeMap::new();
        let counts = [Set::Attended, Set::All].map(|set| select::shown(&turns, service, set, view).count);
        for _ in 0..counts.into_iter().find(|count| *count > 0).unwrap_or(1) {
            match select::choose(&turns, service, view, Set::Attended) {
                Ok(choice) => {
                    let row = self.endpoints[&choice.slot.id()];
                    let address = SocketAddr::new(IpAddr::from(row.address), u16::from_be(row.port));
                    *seen.entry(address).or_default() += 1;
                }
                Err(reason) => return Some(Err(reason)),
            }
        }
        Some(Ok(seen))
    }

    fn vips(&self) -> Vec<(VipKey, u32)> {
        self.vips.iter().map(|(k, v)| (*k, *v)).collect()
    }

    fn used_services(&self) -> Vec<(u32, ServiceRow)> {
        self.services.iter().filter(|(_, r)| r.name != 0).map(|(id, r)| (*id, *r)).collect()
    }

    fn used_endpoints(&self) -> Vec<(u32, EndpointRow)> {
        self.endpoints.iter().filter(|(_, r)| r.used == 1).map(|(id, r)| (*id, *r)).collect()
    }

    fn adopted(&self, now: u64) -> Planner {
        let (vips, services, endpoints) = (self.vips(), self.used_services(), self.used_endpoints());
        let highest_tag = self.endpoints.values().map(|r| r.tag).max().unwrap_or(0);
        Planner::adopt(
            LIMITS,
            Node::default(),
            &Found { vips: &vips, services: &services, endpoints: &endpoints, highest_tag },
            now,
        )
    }
}

/// What a snapshot says about `vip`, told without any table.
fn expected(snapshot: &Snapshot, vip: SocketAddr, view: View) -> Answers {
    let service = snapshot.owner(vip)?;
    let usable: Vec<&Endpoint> = service.endpoints.iter().filter(|e| !e.draining && e.weight > 0).collect();
    let seen: Vec<&&Endpoint> = usable
        .iter()
        .filter(|e| match view {
            View::V4 => e.address.is_ipv4(),
            View::V6 => e.address.is_ipv6(),
            View::Any => true,
        })
        .collect();
    if usable.is_empty() {
        return Some(Err(Reason::NoEndpoint));
    }
    if seen.is_empty() {
        return Some(Err(Reason::FamilyMismatch));
    }
    let divisor = seen.iter().fold(0, |d, e| gcd(d, usize::from(e.weight)));
    Some(Ok(seen.iter().map(|e| (e.address, usize::from(e.weight) / divisor)).collect()))
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn vip(n: u8) -> SocketAddr {
    let text = if n.is_multiple_of(2) { format!("10.96.0.{n}:80") } else { format!("[fd00::{n}]:80") };
    text.parse().unwrap()
}

prop_compose! {
    fn endpoint()(n in 0..12u8, weight in 0..6u16, draining in prop::bool::weighted(0.2)) -> Endpoint {
        let text = if n.is_multiple_of(3) { format!("[fd01::{n}]:8080") } else { format!("10.0.0.{n}:8080") };
        Endpoint { weight, draining, ..Endpoint::new(text.parse().unwrap()) }
    }
}

/// Up to six services over ten VIPs; a VIP has one owner at a time, but may move from snapshot to snapshot.
fn snapshot() -> impl Strategy<Value = Snapshot> {
    let service = (prop::collection::vec(endpoint(), 0..6), prop::bool::ANY);
    (prop::collection::vec(prop::option::weighted(0.8, service), 6), prop::collection::vec(0..7usize, 10)).prop_map(
        |(services, owners)| {
            let services: Vec<Service> = services
                .into_iter()
                .enumerate()
                .filter_map(|(n, service)| {
                    let (mut endpoints, random) = service?;
                    endpoints.sort_by_key(|e| e.address);
                    endpoints.dedup_by_key(|e| e.address);
                    Some(Service {
                        name: format!("s{n}"),
                        hosts: Vec::new(),
                        routes: Arc::default(),
                        addresses: (0..10).filter(|v| owners[usize::from(*v)] == n).map(vip).collect(),
                        protocol: Protocol::Tcp,
                        policy: if random { model::Policy::Random } else { model::Policy::RoundRobin },
                        settings: std::sync::Arc::default(),
                        endpoints,
                    })
                })
                .collect();
            Snapshot::new(&services.into_iter().map(Into::into).collect::<Vec<_>>(), &Overrides::default())
        },
    )
}

/// Whether services exchange VIPs in a circle, so that no order of writes can hide it.
fn exchange(old: &Snapshot, new: &Snapshot) -> bool {
    let moves = (0..10).map(vip).filter_map(|v| Some((old.owner(v)?.name.clone(), new.owner(v)?.name.clone())));
    let mut moves: Vec<(String, String)> = moves.filter(|(from, to)| from != to).collect();
    loop {
        let before = moves.len();
        // A move into a service that no VIP leaves is harmless, and so is what then leads to such a service.
        let leaving: Vec<String> = moves.iter().map(|(from, _)| from.clone()).collect();
        moves.retain(|(_, to)| leaving.contains(to));
        if moves.is_empty() || moves.len() == before {
            return !moves.is_empty();
        }
    }
}

/// The other complete sets of the services that own `vip`: one that loses it in its new shape, one that gets it in its
/// old shape.
fn in_exchange(old: &Snapshot, new: &Snapshot, vip: SocketAddr, view: View) -> Vec<Answers> {
    let moved = |snapshot: &Snapshot, owner: Option<&std::sync::Arc<Service>>| {
        let service = snapshot.service(&owner?.name)?;
        let mut alone = Service::clone(service);
        alone.addresses = vec![vip];
        expected(&of(&[alone]), vip, view)
    };
    vec![moved(new, old.owner(vip)), moved(old, new.owner(vip))]
}

/// Between two writes a refusal may name the other reason: it tells from a second view why the first one is empty.
fn same(a: &Answers, b: &Answers) -> bool {
    a == b || matches!((a, b), (Some(Err(_)), Some(Err(_))))
}

/// Applies a plan write by write and looks at every VIP after each.
fn replay(model: &mut Model, plan: &Plan, old: &Snapshot, new: &Snapshot) -> Result<(), TestCaseError> {
    prop_assert_eq!(&plan.problems, &[]);
    // Hooks that found their service just before the plan began, and go on from there at any moment of it.
    let found: BTreeSet<u32> = model.vips.values().copied().collect();
    for (step, change) in plan.changes.iter().enumerate() {
        model.apply(change);
        for (service, view) in found.iter().flat_map(|s| View::ALL.map(|view| (*s, view))) {
            let turns = Turns(model, Cell::new(0));
            for _ in 0..select::shown(&turns, service, Set::Attended, view).count {
                let chosen = select::choose(&turns, service, view, Set::Attended);
                prop_assert!(chosen.is_ok(), "after write {step} ({change:?}) a late hook is refused: {chosen:?}");
            }
        }
        for (vip, view) in (0..10).map(vip).flat_map(|v| View::ALL.map(|view| (v, view))) {
            let seen = model.answers(vip, view);
            prop_assert!(
                same(&seen, &expected(old, vip, view))
                    || same(&seen, &expected(new, vip, view))
                    || exchange(old, new) && in_exchange(old, new, vip, view).iter().any(|other| same(&seen, other)),
                "after write {step} ({change:?}) {vip} {view:?} leads to {seen:?}"
            );
        }
    }
    for (vip, view) in (0..10).map(vip).flat_map(|v| View::ALL.map(|view| (v, view))) {
        prop_assert_eq!(model.answers(vip, view), expected(new, vip, view));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_prefix_of_a_plan_shows_each_vip_the_old_set_or_the_new_one(
        snapshots in prop::collection::vec((snapshot(), 0..QUARANTINE * 2), 1..6)
    ) {
        let (mut planner, mut model, mut now) = (Planner::new(LIMITS, Node::default()), Model::default(), 0);
        let mut old = Snapshot::default();
        for (new, pause) in snapshots {
            now += pause;
            let plan = planner.plan(&new, now, |_| true);
            replay(&mut model, &plan, &old, &new)?;
            prop_assert_eq!(planner.plan(&new, now, |_| true), Plan::default(), "nothing is left to do");
            old = new;
        }
    }

    #[test]
    fn a_daemon_that_dies_between_any_two_writes_is_followed_by_one_that_repairs(
        (first, second, third) in (snapshot(), snapshot(), snapshot()), cut: prop::sample::Index
    ) {
        let (mut planner, mut model) = (Planner::new(LIMITS, Node::default()), Model::default());
        let plan = planner.plan(&first, 0, |_| true);
        replay(&mut model, &plan, &Snapshot::default(), &first)?;
        let plan = planner.plan(&second, QUARANTINE, |_| true);
        for change in plan.changes.iter().take(cut.index(plan.changes.len() + 1)) {
            model.apply(change);
        }
        let mut planner = model.adopted(QUARANTINE);
        for change in planner.plan(&third, QUARANTINE, |_| true).changes {
            model.apply(&change);
        }
        for (vip, view) in (0..10).map(vip).flat_map(|v| View::ALL.map(|view| (v, view))) {
            prop_assert_eq!(model.answers(vip, view), expected(&third, vip, view));
        }
        prop_assert_eq!(planner.plan(&third, QUARANTINE, |_| true), Plan::default());
        // Nothing is lost: the tables hold just what the snapshot needs.
        prop_assert_eq!(model.used_services().len(), third.services().len());
        prop_assert_eq!(
            model.used_endpoints().len(),
            third.services().iter().map(|s| s.endpoints.len()).sum::<usize>()
        );
        prop_assert_eq!(model.vips().len(), third.services().iter().map(|s| s.addresses.len()).sum::<usize>());
    }

    #[test]
    fn an_adopted_endpoint_keeps_its_row_and_so_its_counters(only in snapshot()) {
        let (mut planner, mut model) = (Planner::new(LIMITS, Node::default()), Model::default());
        for change in planner.plan(&only, 0, |_| true).changes {
            model.apply(&change);
        }
        let mut next = model.adopted(5);
        next.plan(&only, 5, |_| true);
        for service in only.services() {
            prop_assert_eq!(next.service_row(&service.name), planner.service_row(&service.name));
            for e in &service.endpoints {
                prop_assert_eq!(
                    next.endpoint_row(&service.name, e.address),
                    planner.endpoint_row(&service.name, e.address)
                );
            }
        }
    }

    #[test]
    fn a_reader_that_is_late_by_less_than_the_rest_finds_the_slots_it_was_sent_to(
        snapshots in prop::collection::vec((snapshot(), 0..REST / 2), 2..8)
    ) {
        let (mut planner, mut model, mut now) = (Planner::new(LIMITS, Node::default()), Model::default(), 0);
        // Ranges as published, and until when a late reader may still look.
        let mut published: Vec<(SlotRange, Vec<Option<Slot>>, u64)> = Vec::new();
        for (new, pause) in snapshots {
            now += pause;
            for change in planner.plan(&new, now, |_| true).changes {
                model.apply(&change);
            }
            for (range, slots, until) in &published {
                if now < *until {
                    let still: Vec<Option<Slot>> =
                        (range.base..range.base + range.count).map(|i| model.slots.get(&i).copied()).collect();
                    prop_assert_eq!(&still, slots);
                }
            }
            for row in model.services.values().filter(|r| r.name != 0) {
                for range in row.views.into_iter().flatten().map(|word| Shown::from_word(word).range) {
                    let slots = (range.base..range.base + range.count).map(|i| model.slots.get(&i).copied()).collect();
                    published.push((range, slots, now + REST));
                }
            }
        }
    }
}

fn service(name: &str, vips: &[&str], endpoints: &[&str]) -> Service {
    Service {
        name: name.to_owned(),
        hosts: Vec::new(),
        routes: Arc::default(),
        addresses: vips.iter().map(|v| v.parse().unwrap()).collect(),
        protocol: Protocol::Tcp,
        policy: model::Policy::RoundRobin,
        settings: std::sync::Arc::default(),
        endpoints: endpoints.iter().map(|e| Endpoint::new(e.parse().unwrap())).collect(),
    }
}

fn of(services: &[Service]) -> Snapshot {
    Snapshot::new(&services.iter().cloned().map(Into::into).collect::<Vec<_>>(), &Overrides::default())
}

#[test]
fn a_full_arena_keeps_the_old_endpoints_and_says_so() {
    let limits = Limits { slots: 3, ..LIMITS };
    let (mut planner, mut model) = (Planner::new(limits, Node::default()), Model::default());
    let old = of(&[service("a", &["10.96.0.2:80"], &["10.0.0.1:1", "10.0.0.2:1"])]);
    for change in planner.plan(&old, 0, |_| true).changes {
        model.apply(&change);
    }
    let new = of(&[service("a", &["10.96.0.2:80"], &["10.0.0.1:1", "10.0.0.3:1"])]);
    let plan = planner.plan(&new, 1, |_| true);
    assert_eq!(plan.problems, [Problem::NoSlots("a".to_owned(), 2)]);
    assert_eq!(plan.changes, []);
    assert_eq!(model.answers(vip(2), View::V4), expected(&old, vip(2), View::V4));
    assert_eq!(plan.again_at, Some(1 + REST));
}

#[test]
fn a_change_of_protocol_changes_flags_and_no_slot_and_no_endpoint() {
    let mut web = service("a", &["10.96.0.2:80"], &["10.0.0.1:1", "10.0.0.2:1"]);
    let mut planner = Planner::new(LIMITS, Node::default());
    planner.plan(&of(&[web.clone()]), 0, |_| true);
    let mut flags_after = |web: &Service| {
        let changes = planner.plan(&of(std::slice::from_ref(web)), 1, |_| true).changes;
        match changes.as_slice() {
            [Change::Terms(_, terms)] => terms.flags,
            other => panic!("{other:?}"),
        }
    };
    web.protocol = Protocol::Http;
    assert_eq!(flags_after(&web), flags::PROXIED);
    Arc::make_mut(&mut web.settings).http.when_daemon_down = model::WhenDown::Refuse;
    assert_eq!(flags_after(&web), flags::PROXIED | flags::REFUSE_ALONE);
    web.protocol = Protocol::Tcp;
    assert_eq!(flags_after(&web), 0);
}

#[test]
fn weights_are_laid_out_coarsely_while_the_arena_is_short_and_exactly_later() {
    let heavy = |first: u16, second: u16| {
        let mut service = service("a", &["10.96.0.2:80"], &["10.0.0.1:1", "10.0.0.2:1"]);
        (service.endpoints[0].weight, service.endpoints[1].weight) = (first, second);
        of(&[service])
    };
    let (mut planner, mut model) = (Planner::new(Limits { slots: 3000, ..LIMITS }, Node::default()), Model::default());
    let mut step = |snapshot: &Snapshot, now: u64| {
        let plan = planner.plan(snapshot, now, |_| true);
        plan.changes.iter().for_each(|change| model.apply(change));
        let shares = model.answers(vip(2), View::V4).unwrap().unwrap();
        (plan.again_at, shares.values().copied().collect::<Vec<usize>>())
    };
    assert_eq!(step(&heavy(1, 1999), 0), (None, vec![1, 1999]));
    // The old range still shows: only a rounded layout fits beside it.
    assert_eq!(step(&heavy(2, 1997), 1), (Some(1 + REST), vec![1, 255]));
    assert_eq!(step(&heavy(2, 1997), 1 + REST), (None, vec![2, 1997]));
}

#[test]
fn too_many_endpoints_leave_the_service_with_those_that_fit() {
    let mut planner = Planner::new(Limits { endpoints: 1, ..LIMITS }, Node::default());
    let plan = planner.plan(&of(&[service("a", &["10.96.0.2:80"], &["10.0.0.1:1", "10.0.0.2:1"])]), 0, |_| true);
    assert_eq!(plan.problems, [Problem::NoEndpointRow("a".to_owned(), "10.0.0.2:1".parse().unwrap(), 1)]);
    assert!(plan.changes.iter().any(|c| matches!(c, Change::Vip(..))));
}

#[test]
fn an_endpoint_that_comes_back_has_its_row_again_until_another_one_has_it() {
    let (mut planner, mut model) = (Planner::new(Limits { endpoints: 2, ..LIMITS }, Node::default()), Model::default());
    let mut at = |endpoints: &[&str], now: u64| {
        let plan = planner.plan(&of(&[service("a", &["10.96.0.2:80"], endpoints)]), now, |_| true);
        assert_eq!(plan.problems, []);
        plan.changes.iter().for_each(|change| model.apply(change));
        let slot = |address: &str| planner.endpoint_row("a", address.parse().unwrap());
        endpoints.iter().map(|address| slot(address).unwrap()).collect::<Vec<_>>()
    };
    let both = at(&["10.0.0.1:1", "10.0.0.2:1"], 0);
    assert_eq!(at(&["10.0.0.2:1"], 1), both[1..]);
    assert_eq!(at(&["10.0.0.1:1", "10.0.0.2:1"], 2), both, "the same rows with the same tags");
    at(&["10.0.0.2:1"], 3);
    let later = 4 + QUARANTINE;
    assert_eq!(at(&["10.0.0.2:1", "10.0.0.3:1"], later)[1].id(), both[0].id(), "it is another's");
    at(&["10.0.0.2:1"], later + 1);
    let back = at(&["10.0.0.1:1", "10.0.0.2:1"], later + 2 + QUARANTINE);
    assert!(back[0].id() == both[0].id() && back[0].tag() != both[0].tag(), "{back:?}");
}

#[test]
fn vips_that_do_not_fit_are_named_and_those_in_place_stay() {
    let mut planner = Planner::new(Limits { vips: 1, ..LIMITS }, Node::default());
    assert_eq!(planner.plan(&of(&[service("b", &["10.96.0.2:80"], &[])]), 0, |_| true).problems, []);
    let both = of(&[service("a", &["10.96.0.4:80"], &[]), service("b", &["10.96.0.2:80"], &[])]);
    let plan = planner.plan(&both, 0, |_| true);
    assert_eq!(plan.problems, [Problem::NoVipRow("a".to_owned(), "10.96.0.4:80".parse().unwrap(), 1)]);
}

#[test]
fn a_mark_stays_while_what_endpoints_get_stays_and_changes_with_it() {
    let mut planner = Planner::new(LIMITS, Node::default());
    let both = of(&[service("a", &[], &["10.0.0.1:80", "10.0.0.2:80"]), service("b", &[], &["10.0.0.1:80"])]);
    planner.plan(&both, 1, |_| true);
    let marks = |planner: &Planner| ["a", "b"].map(|name| planner.mark(name).unwrap());
    let before = marks(&planner);
    planner.plan(&both, 2, |_| true);
    assert_eq!(marks(&planner), before);
    let ill = "10.0.0.2:80".parse().unwrap();
    planner.conditions.set("a", ill, |condition| condition.health = model::Health::Unhealthy);
    planner.refresh(&both, 3);
    let after = marks(&planner);
    assert!(after[0] != before[0] && after[1] == before[1], "one is ill, of one service");
    let shares = planner.shares(both.service("a").unwrap(), None, View::Any, 3);
    assert_eq!(shares.iter().map(|share| (share.attended, share.all)).collect::<Vec<_>>(), [(1, 1), (0, 0)]);
    planner.conditions.set("a", ill, |condition| condition.health = model::Health::Healthy);
    planner.refresh(&both, 4);
    assert_eq!(marks(&planner), before, "the same again");
    let fewer = of(&[service("b", &[], &["10.0.0.1:80"])]);
    planner.plan(&fewer, 5, |_| true);
    assert_eq!((planner.mark("a"), planner.mark("b")), (None, Some(before[1])));
}

#[test]
fn what_lies_as_it_should_is_not_laid_again_until_facts_place_or_conditions_change() {
    let mut planner = Planner::new(LIMITS, Node::default());
    let one = "10.0.0.1:80".parse().unwrap();
    let mut near = service("a", &[], &["10.0.0.1:80", "10.0.0.2:80"]);
    near.endpoints[0].zone = "here".to_owned();
    let all = of(&[near, service("b", &[], &["10.0.0.1:80"])]);
    let lies =
        |planner: &Planner| ["a", "b"].map(|name| planner.lies(all.service(name).unwrap(), name_hash(name)).is_some());
    assert_eq!(lies(&planner), [false, false]);
    planner.plan(&all, 1, |_| true);
    assert_eq!(lies(&planner), [true, true]);
    assert_eq!(planner.plan(&all, 2, |_| true), Plan::default());
    planner.conditions.set("b", one, |condition| condition.warms_since = Some(3));
    assert_eq!(lies(&planner), [true, false], "of one something was learned");
    planner.plan(&all, 3, |_| true);
    assert_eq!(lies(&planner), [true, false], "it warms up as time goes by");
    planner.conditions.set("b", one, |condition| condition.warms_since = None);
    planner.plan(&all, 4, |_| true);
    assert_eq!(lies(&planner), [true, true]);
    planner.set_node(Node { zone: "here".to_owned(), ..Node::default() });
    let moved = planner.plan(&all, 5, |_| true).changes;
    assert!(moved.iter().any(|change| matches!(change, Change::View(..))), "{moved:?}");
}
