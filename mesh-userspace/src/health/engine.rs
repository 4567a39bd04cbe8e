//! What runs on the checks' thread: a queue of what is due, and a bounded number of checks under way.

use super::{
    Sink, Target,
    changes::Changes,
    checker::Shared,
    probe::{self, Failure},
    roster::Roster,
    schedule,
    state::step,
};
use crate::model::{Health, HealthProbe};
use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    task::{JoinError, JoinSet},
    time::{Instant, sleep_until},
};

/// So many checks are under way at most; what else is due waits. Each has a socket, and a process may have 1,024 files
/// by default.
pub(super) const AT_ONCE: usize = 512;
/// A check that begins this long after it was due is late.
const LATE: Duration = Duration::from_millis(100);
/// That checks cannot be made is logged this often.
const COMPLAIN: Duration = Duration::from_secs(60);

type Outcome = Result<(), Failure>;

pub(super) struct Engine {
    sink: Arc<dyn Sink>,
    mark: u32,
    shared: Arc<Shared>,
    roster: Roster,
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    under_way: JoinSet<(u64, Outcome)>,
    changes: Changes,
    complained: Option<Instant>,
    start: Instant,
}

impl Engine {
    pub(super) fn new(sink: Arc<dyn Sink>, mark: u32, shared: Arc<Shared>) -> Self {
        Self {
            sink,
            mark,
            shared,
            roster: Roster::default(),
            due: BinaryHeap::new(),
            under_way: JoinSet::new(),
            changes: Changes::default(),
            complained: None,
            start: Instant::now(),
        }
    }

    pub(super) async fn run(mut self, mut asked: UnboundedReceiver<Vec<Target>>) {
        loop {
            self.begin(Instant::now());
            // With no room, what ends makes some; until then it is of no use to wake.
            let next = self.due.peek().filter(|_| self.under_way.len() < AT_ONCE);
            let next = next.map(|Reverse((at, _))| schedule::tick_for(self.start, *at));
            tokio::select! {
                targets = asked.recv() => match targets {
                    Some(targets) => self.retarget(targets),
                    None => return,
                },
                Some(ended) = self.under_way.join_next() => {
                    self.finish(ended);
                    while let Some(ended) = self.under_way.try_join_next() {
                        self.finish(ended);
                    }
                }
                () = until(next), if next.is_some() => {}
                () = until(self.changes.at()), if self.changes.at().is_some() => self.tell(),
            }
        }
    }

    fn retarget(&mut self, targets: Vec<Target>) {
        let now = Instant::now();
        let new = self.roster.retarget(targets, now, fastrand::f64);
        let roster = &mut self.roster;
        self.due.retain(|Reverse((_, number))| roster.contains(*number));
        self.due.extend(new.into_iter().filter_map(|number| Some(Reverse((roster.get_mut(number)?.due, number)))));
        self.agree(now);
    }

    /// Makes what is reported of each endpoint what its check says: one that came to a check which others had already
    /// gets their verdict at once.
    fn agree(&mut self, now: Instant) {
        let mut reports = self.shared.reports();
        let mut old = std::mem::take(&mut *reports);
        for entry in self.roster.entries() {
            for service in &entry.services {
                let key = (service.clone(), entry.address);
                let mut report = old.remove(&key).unwrap_or_default();
                report.take_over(entry, service, now, &mut self.changes);
                reports.insert(key, report);
            }
        }
        self.changes.retain(|key| reports.contains_key(key));
    }

    /// Begins what is due, as far as there is room.
    fn begin(&mut self, now: Instant) {
        let tick = schedule::tick(self.start, now);
        while self.under_way.len() < AT_ONCE && self.due.peek().is_some_and(|Reverse((at, _))| *at <= tick) {
            let Some(Reverse((at, number))) = self.due.pop() else { return };
            let Some(entry) = self.roster.get_mut(number) else { continue };
            let (address, check, mark) = (entry.address, entry.check.clone(), self.mark);
            let next = if entry.placed { schedule::next } else { schedule::second };
            entry.due = next(at, now, check.interval, fastrand::f64());
            entry.placed = true;
            if now.duration_since(at) > LATE {
                self.shared.counters.count_late();
            }
            let passed = |service| self.sink.succeeded_since(service, address, check.interval);
            if check.probe == HealthProbe::Tcp && entry.services.iter().any(|service| passed(service)) {
                self.shared.counters.count_skipped();
                self.due.push(Reverse((entry.due, number)));
                self.record(number, Ok(()));
                continue;
            }
            let probe = async move { (number, probe::probe(address, &check, mark).await) };
            entry.running = Some(self.under_way.spawn(probe));
        }
    }

    fn finish(&mut self, ended: Result<(u64, Outcome), JoinError>) {
        let (number, outcome) = match ended {
            Ok(ended) => ended,
            // Nobody wants its result.
            Err(error) if error.is_cancelled() => return,
            Err(error) => match self.roster.run_by(error.id()) {
                Some(number) => (number, Err(Failure::Here(format!("the check panicked: {error}")))),
                None => return,
            },
        };
        let Some(entry) = self.roster.get_mut(number) else { return };
        entry.running = None;
        // No endpoint has two checks under way: one that outlasts its period is followed by the next at once.
        self.due.push(Reverse((entry.due.max(Instant::now()), number)));
        self.record(number, outcome);
    }

    fn record(&mut self, number: u64, outcome: Outcome) {
        let Some(entry) = self.roster.get_mut(number) else { return };
        let passed = outcome.is_ok();
        let made = match outcome {
            Ok(()) => {
                entry.state = step(entry.state, true, &entry.check);
                entry.error = entry.error.take().filter(|_| entry.state.health == Health::Unhealthy);
                true
            }
            Err(Failure::Endpoint(reason)) => {
                entry.state = step(entry.state, false, &entry.check);
                entry.error = Some(reason);
                true
            }
            Err(Failure::Here(reason)) => {
                self.shared.counters.count_not_made();
                let now = Instant::now();
                if self.complained.is_none_or(|at| now.duration_since(at) >= COMPLAIN) {
                    tracing::warn!(endpoint = %entry.address, reason, "a health check could not be made; its verdict stands");
                    self.complained = Some(now);
                }
                entry.error = Some(reason);
                false
            }
        };
        {
            let (now, mut reports) = (Instant::now(), self.shared.reports());
            for service in &entry.services {
                let Some(report) = reports.get_mut(&(service.clone(), entry.address)) else { continue };
                report.checks_total += u64::from(made);
                report.failures_total += u64::from(made && !passed);
                report.take_over(entry, service, now, &mut self.changes);
            }
        }
        if passed && entry.state.passes >= entry.check.healthy_threshold {
            for service in &entry.services {
                self.sink.passed(service, entry.address, entry.state.passes);
            }
        }
    }

    fn tell(&mut self) {
        let changes = self.changes.take();
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
