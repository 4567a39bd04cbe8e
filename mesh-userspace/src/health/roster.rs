//! Who is checked, and for which services.

use super::{Target, checker::Key, schedule, state::State};
use crate::model::{Health, HealthCheck};
use std::{
    collections::{HashMap, HashSet, hash_map},
    net::SocketAddr,
    sync::Arc,
};
use tokio::{task::AbortHandle, time::Instant};

/// What makes a check the same as another one.
type Subject = (SocketAddr, Arc<HealthCheck>);

/// One check, repeated.
pub(super) struct Entry {
    pub(super) address: SocketAddr,
    pub(super) check: Arc<HealthCheck>,
    /// Those that get its results; at least one.
    pub(super) services: Vec<Arc<str>>,
    pub(super) state: State,
    /// Why the last check failed, if it did or the verdict is still unhealthy.
    pub(super) error: Option<String>,
    /// When it is due, or, while it runs, will be due again.
    pub(super) due: Instant,
    /// Whether it was made before, so that its place within the interval is its own.
    pub(super) placed: bool,
    /// Set while it runs.
    pub(super) running: Option<AbortHandle>,
}

/// All checks, by numbers that are never used again.
#[derive(Default)]
pub(super) struct Roster {
    entries: HashMap<u64, Entry>,
    numbers: HashMap<Subject, u64>,
    last: u64,
}

impl Roster {
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Entry> {
        self.entries.get_mut(&number)
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.entries.contains_key(&number)
    }

    pub(super) fn entries(&self) -> hash_map::Values<'_, u64, Entry> {
        self.entries.values()
    }

    /// The check that this task makes.
    pub(super) fn run_by(&self, task: tokio::task::Id) -> Option<u64> {
        let runs = |entry: &Entry| entry.running.as_ref().is_some_and(|running| running.id() == task);
        self.entries.iter().find(|(_, entry)| runs(entry)).map(|(number, _)| *number)
    }

    /// Checks exactly `targets` from now on, and returns the numbers of the checks that are new. A check that somebody
    /// still wants goes on as it is; one that nobody wants ends, even where it is under way. If a service names an
    /// address twice, the first counts.
    pub(super) fn retarget(&mut self, targets: Vec<Target>, now: Instant, mut chance: impl FnMut() -> f64) -> Vec<u64> {
        let mut before: HashMap<Key, u64> = HashMap::new();
        for (number, entry) in &mut self.entries {
            before.extend(entry.services.drain(..).map(|service| ((service, entry.address), *number)));
        }
        let mut seen: HashSet<Key> = HashSet::with_capacity(targets.len());
        let mut new = Vec::new();
        for Target { service, address, check } in targets {
            let key = (service, address);
            if !seen.insert(key.clone()) {
                continue;
            }
            let old = before.get(&key).and_then(|number| self.entries.get(number)).map(|old| old.left_to(&check));
            let number = *self.numbers.entry((address, check)).or_insert_with_key(|(_, check)| {
                self.last += 1;
                let (due, placed) = match old.as_ref().and_then(|old| old.turn) {
                    Some((due, placed)) => (schedule::moved(due, now, check.interval, chance()), placed),
                    None => (schedule::first(now, check.interval, chance()), false),
                };
                self.entries.insert(self.last, Entry::new(address, check.clone(), due, placed));
                new.push(self.last);
                self.last
            });
            let Some(entry) = self.entries.get_mut(&number) else { continue };
            entry.services.push(key.0);
            if let Some(old) = old.filter(|_| entry.state.health == Health::Unknown) {
                (entry.state, entry.error) = (old.state, old.error);
            }
        }
        self.entries.retain(|_, entry| {
            let wanted = !entry.services.is_empty();
            if let Some(running) = entry.running.take_if(|_| !wanted) {
                running.abort();
            }
            wanted
        });
        self.numbers.retain(|_, number| self.entries.contains_key(number));
        new
    }
}

/// What a check leaves to one of the same endpoint with other settings.
struct Left {
    state: State,
    error: Option<String>,
    /// When it would have been due, and whether the new one can keep this place within the interval.
    turn: Option<(Instant, bool)>,
}

impl Entry {
    fn new(address: SocketAddr, check: Arc<HealthCheck>, due: Instant, placed: bool) -> Self {
        Self { address, check, services: Vec::new(), state: State::default(), error: None, due, placed, running: None }
    }

    /// The verdict stands until checks say otherwise. What was seen in a row, and the turn, stay only if the endpoint is
    /// asked the same.
    fn left_to(&self, check: &HealthCheck) -> Left {
        let same = self.check.probe == check.probe;
        let state = if same { self.state } else { State { health: self.state.health, ..State::default() } };
        let placed = self.placed && self.check.interval == check.interval;
        let turn = (same && self.running.is_none()).then_some((self.due, placed));
        Left { state, error: self.error.clone(), turn }
    }
}
