//! What runs on the checks' thread: a queue of what is due, and a bounded number of checks under way.

use super::{
    Change, Sink, Target,
    checker::{Key, Shared},
    probe, schedule,
    state::{State, step},
};
use crate::model::{Health, HealthProbe};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// So many checks are under way at most; what else is due waits.
const AT_ONCE: usize = 512;
/// A check that begins this long after it was due is late.
const LATE: Duration = Duration::from_millis(100);
/// Changes are held back this long, so that many come as one.
const GATHER: Duration = Duration::from_millis(20);

struct Entry {
    target: Target,
    state: State,
    /// Tells this entry's checks from those of an earlier one for the same endpoint.
    number: u64,
}

type Outcome = (Key, u64, Result<(), String>);

pub(super) struct Engine {
    sink: Arc<dyn Sink>,
    mark: u32,
    shared: Arc<Shared>,
    entries: HashMap<Key, Entry>,
    due: BinaryHeap<Reverse<(Instant, u64, Arc<str>, SocketAddr)>>,
    under_way: JoinSet<Outcome>,
    changes: HashMap<Key, Change>,
    tell_at: Option<Instant>,
    numbers: u64,
}

impl Engine {
    pub(super) fn new(sink: Arc<dyn Sink>, mark: u32, shared: Arc<Shared>) -> Self {
        Self {
            sink,
            mark,
            shared,
            entries: HashMap::new(),
            due: BinaryHeap::new(),
            under_way: JoinSet::new(),
            changes: HashMap::new(),
            tell_at: None,
            numbers: 0,
        }
    }

    pub(super) async fn run(mut self, mut asked: UnboundedReceiver<Vec<Target>>) {
        loop {
            self.begin(Instant::now());
            // With no room, what ends makes some; until then it is of no use to wake.
            let next = self.due.peek().map(|Reverse((at, ..))| *at).filter(|_| self.under_way.len() < AT_ONCE);
            tokio::select! {
                targets = asked.recv() => match targets {
                    Some(targets) => self.retarget(targets),
                    None => return,
                },
                Some(ended) = self.under_way.join_next() => {
                    if let Ok((key, number, outcome)) = ended {
                        self.finish(&key, number, outcome);
                    }
                }
                () = until(next), if next.is_some() => {}
                () = until(self.tell_at), if self.tell_at.is_some() => self.tell(),
            }
        }
    }

    fn retarget(&mut self, targets: Vec<Target>) {
        let now = Instant::now();
        let mut old = std::mem::take(&mut self.entries);
        for target in targets {
            let key = (target.service.clone(), target.address);
            let entry = match old.remove(&key) {
                Some(entry) if entry.target.check == target.check => entry,
                // Checked in another way: the verdict stands until the new checks say otherwise.
                before => {
                    self.numbers += 1;
                    let health = before.map_or(Health::Unknown, |entry| entry.state.health);
                    let at = now + schedule::first(target.check.interval, fastrand::f64());
                    self.due.push(Reverse((at, self.numbers, key.0.clone(), key.1)));
                    Entry { target, state: State { health, ..State::default() }, number: self.numbers }
                }
            };
            self.entries.insert(key, entry);
        }
        let entries = &self.entries;
        self.due.retain(|Reverse((_, number, service, address))| {
            entries.get(&(service.clone(), *address)).is_some_and(|entry| entry.number == *number)
        });
        self.changes.retain(|key, _| entries.contains_key(key));
        self.shared.reports().retain(|key, _| entries.contains_key(key));
    }

    /// Begins what is due, as far as there is room.
    fn begin(&mut self, now: Instant) {
        while self.under_way.len() < AT_ONCE && self.due.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            let Some(Reverse((at, number, service, address))) = self.due.pop() else { return };
            let key = (service, address);
            let Some(entry) = self.entries.get(&key).filter(|entry| entry.number == number) else { continue };
            let check = entry.target.check.clone();
            let next = now + schedule::next(check.interval, fastrand::f64());
            if now.duration_since(at) > LATE {
                self.shared.counters.count_late();
            }
            if check.probe == HealthProbe::Tcp && self.sink.succeeded_since(&key.0, address, check.interval) {
                self.shared.counters.count_skipped();
                self.due.push(Reverse((next, number, key.0.clone(), address)));
                self.record(&key, number, Ok(()));
                continue;
            }
            let mark = self.mark;
            self.under_way.spawn(async move {
                let outcome = probe::probe(address, &check, mark).await;
                (key, number, outcome)
            });
        }
    }

    fn finish(&mut self, key: &Key, number: u64, outcome: Result<(), String>) {
        let Some(entry) = self.entries.get(key).filter(|entry| entry.number == number) else { return };
        // From its end: no endpoint has two checks under way, however long they take.
        let next = Instant::now() + schedule::next(entry.target.check.interval, fastrand::f64());
        self.due.push(Reverse((next, number, key.0.clone(), key.1)));
        self.record(key, number, outcome);
    }

    fn record(&mut self, key: &Key, number: u64, outcome: Result<(), String>) {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.number == number) else { return };
        let passed = outcome.is_ok();
        let (state, changed) = step(entry.state, passed, &entry.target.check);
        entry.state = state;
        let threshold = entry.target.check.healthy_threshold;
        let reason = {
            let mut reports = self.shared.reports();
            let report = reports.entry(key.clone()).or_default();
            report.checks_total += 1;
            if let Err(error) = outcome {
                report.failures_total += 1;
                report.last_error = Some(error);
            }
            report.health = state.health;
            if changed {
                report.since = Some(std::time::Instant::now());
            }
            changed.then(|| report.last_error.clone()).flatten()
        };
        if changed {
            let change = Change { service: key.0.clone(), address: key.1, health: state.health, reason };
            self.changes.insert(key.clone(), change);
            self.tell_at.get_or_insert_with(|| Instant::now() + GATHER);
        }
        if passed && state.passes >= threshold {
            self.sink.passed(&key.0, key.1, state.passes);
        }
    }

    fn tell(&mut self) {
        self.tell_at = None;
        let changes: Vec<_> = self.changes.drain().map(|(_, change)| change).collect();
        if !changes.is_empty() {
            self.sink.changed(changes);
        }
    }
}

async fn until(at: Option<Instant>) {
    if let Some(at) = at {
        sleep_until(at).await;
    }
}
