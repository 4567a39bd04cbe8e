//! What is remembered of services and endpoints while snapshots come and go: shared by all workers, counters only grow.

use super::{circuit::Turned, picks::Picks, reason::ByReason};
use crate::{
    model::RateLimit,
    policy::{Bucket, Budget, Ewma, SuccessRate},
};
use mesh_common::{
    breaker::{State, Word},
    endpoint::{Counter, EndpointCounts},
    reason::Failure,
};
use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

/// What is remembered of one service.
#[derive(Debug, Default)]
pub struct ServiceState {
    /// Requests on their way.
    pub active: AtomicU32,
    /// Requests that wait for a connection.
    pub pending: AtomicU32,
    /// Upstream connections.
    pub connections: AtomicU32,
    /// Told when there is one less, or one that is free, while requests wait.
    pub(super) freed: tokio::sync::Notify,
    /// Round robin's turns, one for each worker: they need not agree, only each be even.
    pub(super) turns: Turns,
    /// Endpoints that were picked for requests, and for connections that pass through the proxy.
    pub picks: Picks,
    /// Requests by method, of [`METHODS`].
    pub requests: [AtomicU64; METHODS.len()],
    /// How long requests took, from their head to the end of the answer.
    pub durations: Durations,
    /// Answers of the proxy's own.
    pub rejected: ByReason,
    /// Responses of the proxy's own, by status.
    pub own_responses: ByStatus,
    /// Extra tries by what became of them.
    pub retries: [AtomicU64; Retry::ALL.len()],
    /// Where its circuits are without a kernel.
    pub(super) own_circuits: OwnCircuits,
    /// What may be tried again.
    pub(super) budget: Budget,
    rate: Mutex<Option<(RateLimit, Arc<Bucket>)>>,
    endpoints: Mutex<HashMap<SocketAddr, Arc<EndpointState>>>,
}

/// What is remembered of one endpoint.
#[derive(Debug, Default)]
pub struct EndpointState {
    /// Requests on their way.
    pub active: AtomicU32,
    /// Its circuit, where no kernel has it.
    pub(super) circuit: AtomicU64,
    /// How often that came into a state, by [`State`].
    pub transitions: [AtomicU64; State::COUNT],
    /// Connections to it, for where no kernel counts them.
    pub connections: Connections,
    /// Responses by status.
    pub responses: ByStatus,
    /// How long answers take to begin.
    pub latency: Ewma,
    rate: Mutex<Option<(Duration, Arc<SuccessRate>)>>,
}

/// Connections to one endpoint.
#[derive(Debug, Default)]
pub struct Connections {
    opened: AtomicU64,
    established: AtomicU64,
    closed: AtomicU64,
    failures: [AtomicU64; Failure::COUNT],
    /// Bytes that the proxy wrote and read, where no kernel counts them.
    sent: AtomicU64,
    received: AtomicU64,
}

/// Where connections to an endpoint are counted that no kernel sees.
pub trait Counts: fmt::Debug + Send + Sync {
    /// So many more.
    fn add(&self, counter: Counter, n: u64);
}

impl Counts for EndpointState {
    fn add(&self, counter: Counter, n: u64) {
        self.connections.add(counter, n);
    }
}

impl Connections {
    fn add(&self, counter: Counter, n: u64) {
        let counter = match counter {
            Counter::Opened => &self.opened,
            Counter::Established => &self.established,
            Counter::Closed => &self.closed,
            Counter::Failed(why) => &self.failures[why as usize],
            Counter::Sent => &self.sent,
            Counter::Received => &self.received,
        };
        counter.fetch_add(n, Ordering::Relaxed);
    }

    /// How many there were, and what went over them.
    #[must_use]
    pub fn counts(&self) -> EndpointCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EndpointCounts {
            opened: read(&self.opened),
            established: read(&self.established),
            closed: read(&self.closed),
            failures: std::array::from_fn(|i| read(&self.failures[i])),
            sent: read(&self.sent),
            received: read(&self.received),
            ..EndpointCounts::default()
        }
    }
}

/// A connection to an endpoint, counted from its begin to its end.
#[derive(Debug)]
pub(super) struct Connected {
    endpoint: Arc<EndpointState>,
    /// Where else.
    also: Option<Arc<dyn Counts>>,
}

impl Connected {
    /// One begins.
    pub(super) fn opens(endpoint: &Arc<EndpointState>, also: Option<Arc<dyn Counts>>) -> Self {
        let connected = Self { endpoint: Arc::clone(endpoint), also };
        connected.count(Counter::Opened);
        connected
    }

    /// It is established.
    pub(super) fn is_established(&self) {
        self.count(Counter::Established);
    }

    /// It is not going to be.
    pub(super) fn failed(self, why: Failure) {
        self.count(Counter::Failed(why));
    }

    fn count(&self, counter: Counter) {
        self.endpoint.add(counter, 1);
        if let Some(also) = &self.also {
            also.add(counter, 1);
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.count(Counter::Closed);
    }
}

/// Circuits of a service in plain memory: what they share.
#[derive(Debug, Default)]
pub(super) struct OwnCircuits {
    pub(super) open: AtomicI64,
    pub(super) probe_at: AtomicU64,
}

impl EndpointState {
    /// Successes and failures over `window`. They are kept while that does not change.
    pub(super) fn success_rate(&self, window: Duration) -> Arc<SuccessRate> {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        match &*rate {
            Some((of, rate)) if *of == window => Arc::clone(rate),
            _ => Arc::clone(&rate.insert((window, Arc::new(SuccessRate::new(window)))).1),
        }
    }

    /// Its circuit, where no kernel has it.
    #[must_use]
    pub fn own_circuit(&self) -> Word {
        Word(self.circuit.load(Ordering::Acquire))
    }
}

/// Methods that are counted each; any other is the last.
pub const METHODS: [&str; 10] =
    ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "CONNECT", "TRACE", "other"];

/// Where a method is counted, in [`METHODS`].
#[must_use]
pub(super) fn method_index(method: &http::Method) -> usize {
    METHODS.iter().position(|m| *m == method.as_str()).unwrap_or(METHODS.len() - 1)
}

/// What became of an extra try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It got an answer that was passed on.
    Success,
    /// It failed too.
    Failure,
    /// It was not made: too many are made already.
    OverBudget,
    /// It was not made: there is no other endpoint.
    NoOther,
}

impl Retry {
    /// Every outcome, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Success, Self::Failure, Self::OverBudget, Self::NoOther];

    /// The word in metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::OverBudget => "over_budget",
            Self::NoOther => "no_other_endpoint",
        }
    }
}

/// Cursors of workers, each on a cache line of its own.
#[derive(Debug, Default)]
pub(super) struct Turns([Turn; Self::COUNT]);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Turn(AtomicU32);

impl Turns {
    /// Workers beyond share them.
    const COUNT: usize = 8;

    /// The next turn of a worker.
    pub(super) fn next(&self, worker: usize) -> u32 {
        let turn = self.0[worker % Self::COUNT].0.fetch_add(1, Ordering::Relaxed);
        // Workers begin at different places, so that few requests do not all meet the first endpoint.
        turn.wrapping_add((worker as u32).wrapping_mul(0x9e37_79b9) >> 16)
    }
}

/// Counters by three-digit status. Room is made for classes that are seen.
#[derive(Debug, Default)]
pub struct ByStatus([OnceLock<Box<[AtomicU64; 100]>>; 9]);

impl ByStatus {
    /// One more of `status`.
    pub fn count(&self, status: http::StatusCode) {
        let (class, rest) = (usize::from(status.as_u16() / 100), usize::from(status.as_u16() % 100));
        if let Some(class) = class.checked_sub(1).and_then(|class| self.0.get(class)) {
            class.get_or_init(|| Box::new([const { AtomicU64::new(0) }; 100]))[rest].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many there are in all, and how many of them have a status of 500 or more.
    #[must_use]
    pub fn sums(&self) -> (u64, u64) {
        let sum = |class: &OnceLock<Box<[AtomicU64; 100]>>| {
            class.get().map_or(0, |counts| counts.iter().map(|n| n.load(Ordering::Relaxed)).sum())
        };
        let by_class = self.0.each_ref().map(sum);
        (by_class.iter().sum(), by_class[4..].iter().sum())
    }

    /// Every status that was counted, with its number.
    pub fn counts(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        let classes = (1_u16..).zip(&self.0).filter_map(|(class, counts)| Some((class, &**counts.get()?)));
        let each = |(class, counts): (u16, &[AtomicU64; 100])| {
            let counts = counts.iter().map(|n| n.load(Ordering::Relaxed)).collect::<Vec<_>>();
            (0_u16..).zip(counts).map(move |(rest, n)| (class * 100 + rest, n))
        };
        classes.flat_map(each).filter(|(_, n)| *n > 0)
    }
}

/// Upper bounds of the histogram's buckets, in microseconds: doubling, from half a millisecond to half a minute.
pub const DURATION_BOUNDS: [u64; 17] = {
    let mut bounds = [500; 17];
    let mut i = 1;
    while i < bounds.len() {
        bounds[i] = bounds[i - 1] * 2;
        i += 1;
    }
    bounds
};

/// How long things took.
#[derive(Debug, Default)]
pub struct Durations {
    /// By bound; the last one: longer than all.
    buckets: [AtomicU64; DURATION_BOUNDS.len() + 1],
    /// In microseconds.
    sum: AtomicU64,
}

impl Durations {
    /// One more.
    pub fn add(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = DURATION_BOUNDS.partition_point(|bound| *bound < us);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(us, Ordering::Relaxed);
    }

    /// How many there are in each bucket, and their sum in microseconds.
    #[must_use]
    pub fn read(&self) -> ([u64; DURATION_BOUNDS.len() + 1], u64) {
        (std::array::from_fn(|i| self.buckets[i].load(Ordering::Relaxed)), self.sum.load(Ordering::Relaxed))
    }
}

impl ServiceState {
    /// What admits requests at this rate; `None`: all are. It goes on as it is while that does not change.
    pub(super) fn bucket(&self, limit: RateLimit) -> Option<Arc<Bucket>> {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        match &*rate {
            Some((of, bucket)) if *of == limit => return Some(Arc::clone(bucket)),
            _ => *rate = Bucket::new(limit).map(|bucket| (limit, Arc::new(bucket))),
        }
        rate.as_ref().map(|(_, bucket)| Arc::clone(bucket))
    }

    /// What is remembered of an endpoint; from now on, if nothing was.
    pub(super) fn endpoint(&self, address: SocketAddr) -> Arc<EndpointState> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(endpoints.entry(address).or_default())
    }

    /// Forgets endpoints that are not `there` any more. What their circuits took of the service's places is free again.
    pub(super) fn retain(&self, there: impl Fn(SocketAddr) -> bool) {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        endpoints.retain(|address, endpoint| {
            let stays = there(*address);
            if !stays {
                self.forget_circuit(endpoint);
            }
            stays
        });
    }

    /// Closes the circuit of an endpoint of this service where no kernel has it, and forgets what spoke against the
    /// endpoint. What it was.
    pub fn close_circuit(&self, endpoint: &EndpointState) -> Word {
        let before = self.forget_circuit(endpoint);
        if before.state() != State::Closed {
            endpoint.transitions[State::Closed as usize].fetch_add(1, Ordering::Relaxed);
        }
        before
    }

    fn forget_circuit(&self, endpoint: &EndpointState) -> Word {
        let before = Word(endpoint.circuit.swap(0, Ordering::AcqRel));
        if before.state() != State::Closed {
            self.own_circuits.open.fetch_sub(1, Ordering::AcqRel);
        }
        before
    }

    /// Whether there is anything to tell of it: it was asked, or something is on its way.
    #[must_use]
    pub fn was_asked(&self) -> bool {
        let counted = |counts: &[AtomicU64]| counts.iter().any(|n| n.load(Ordering::Relaxed) > 0);
        let now = [&self.active, &self.pending, &self.connections].into_iter().any(|n| n.load(Ordering::Relaxed) > 0);
        now || counted(&self.requests) || counted(&self.retries) || self.rejected.counts().next().is_some()
    }
}

/// What is remembered of all services.
#[derive(Debug, Default)]
pub struct States {
    /// By name.
    services: Mutex<HashMap<Arc<str>, Arc<ServiceState>>>,
    /// Who is told of circuits that requests turn.
    turned: OnceLock<mpsc::Sender<Turned>>,
}

impl States {
    /// What is remembered of a service; from now on, if nothing was.
    pub(super) fn service(&self, name: &Arc<str>) -> Arc<ServiceState> {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(services.entry(Arc::clone(name)).or_default())
    }

    /// What is told from now on of circuits that requests turn, in tables that are made from now on. `None`: somebody is
    /// told already.
    #[must_use]
    pub fn turned(&self) -> Option<mpsc::Receiver<Turned>> {
        let (tell, told) = mpsc::channel();
        self.turned.set(tell).is_ok().then_some(told)
    }

    /// How that is told.
    pub(super) fn teller(&self) -> Option<mpsc::Sender<Turned>> {
        self.turned.get().cloned()
    }

    /// Forgets services that are not `there` any more.
    pub(super) fn retain(&self, there: impl Fn(&str) -> bool) {
        self.services.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| there(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_common::breaker;

    #[test]
    fn statuses_are_counted_each() {
        let counts = ByStatus::default();
        for status in [200, 200, 404, 599, 999] {
            counts.count(http::StatusCode::from_u16(status).unwrap());
        }
        assert_eq!(counts.counts().collect::<Vec<_>>(), [(200, 2), (404, 1), (599, 1), (999, 1)]);
        assert_eq!(counts.sums(), (5, 2));
    }

    #[test]
    fn the_places_of_circuits_are_free_again_when_they_close_or_go() {
        let service = ServiceState::default();
        let [a, b]: [SocketAddr; 2] = ["10.0.0.1:80".parse().unwrap(), "10.0.0.2:80".parse().unwrap()];
        let open = |address| {
            let endpoint = service.endpoint(address);
            let cell = crate::proxy::circuit::Cell { shared: None, service: &service, endpoint: &endpoint, told: None };
            let limits = breaker::Limits {
                failure_threshold: 1,
                half_open: 1,
                reset_ms: 1000,
                max_reset_ms: 1000,
                lease_ms: 900,
                probe_interval_ms: 100,
                max_open: 2,
                endpoints: 2,
            };
            let failure = breaker::Report { outcome: breaker::Outcome::Failure, probe: false, now: 1, chance: 0 };
            breaker::report(&cell, &failure, &limits);
            endpoint
        };
        let (first, second) = (open(a), open(b));
        let states = |endpoint: &EndpointState| endpoint.own_circuit().state();
        assert_eq!([states(&first), states(&second)], [State::Open; 2]);
        assert_eq!(service.own_circuits.open.load(Ordering::Relaxed), 2);
        assert_eq!(service.close_circuit(&first).state(), State::Open);
        assert_eq!(service.close_circuit(&first).state(), State::Closed, "closed already");
        assert_eq!(first.transitions.each_ref().map(|n| n.load(Ordering::Relaxed)), [1, 1, 0]);
        service.retain(|address| address == a);
        assert_eq!(service.own_circuits.open.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_is_not_too_small() {
        let durations = Durations::default();
        for us in [0, 500, 501, 40_000_000] {
            durations.add(Duration::from_micros(us));
        }
        let (buckets, sum) = durations.read();
        assert_eq!((buckets[0], buckets[1], buckets[DURATION_BOUNDS.len()], sum), (2, 1, 1, 40_001_001));
    }
}
