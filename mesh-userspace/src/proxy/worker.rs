//! One thread that serves connections, with everything it need not share.

use super::{
    deadline::Clock,
    exchange::Client,
    lines::{Lines, Packed},
    listener::{self, Listener},
    message::RequestHead,
    pool::Pool,
    reason::ByReason,
    record::Record,
    state::States,
    table::Table,
    told::Trace,
    trace::Context,
};
use arc_swap::{ArcSwap, Cache};
use nix::sys::resource::{Resource, getrlimit};
use std::{
    cell::{Cell, RefCell},
    fmt, io,
    rc::Rc,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    runtime::LocalOptions,
    sync::{Notify, mpsc},
};

/// Told of requests.
pub trait RequestLog: fmt::Debug + Send + Sync {
    /// Requests are over, in this order. A worker calls it, so it waits for nothing.
    fn requests(&self, lines: Packed);
}

/// Keeps traces.
pub trait Tracer: fmt::Debug + Send + Sync {
    /// A request is over whose trace is worth keeping. Called by workers: it must not block.
    fn trace(&self, trace: Trace);
}

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    /// What requests are looked up in.
    pub table: Arc<ArcSwap<Table>>,
    /// What is remembered of services.
    pub states: States,
    /// Answers of the proxy's own to requests that were for no service.
    pub rejected: ByReason,
    log: Arc<dyn RequestLog>,
    /// Parts in 2^32 of requests that are logged; all ones: every one.
    log_rate: AtomicU32,
    tracer: Arc<dyn Tracer>,
    /// Parts in 2^32 of requests whose traces are sampled, where nobody has decided before.
    trace_rate: AtomicU32,
    /// Whether traces are kept at all.
    records: AtomicBool,
    /// When each worker lived last, in milliseconds of its own; 0: it has not begun.
    beats: Box<[AtomicU64]>,
    draining: AtomicBool,
    /// Whether idle connections stay open meanwhile, for one more request.
    patient: AtomicBool,
    /// Connections of all workers.
    connections: AtomicUsize,
    /// How many there may be, once somebody asked.
    most_connections: OnceLock<usize>,
    /// Told when a request waits for a connection that another worker may have at rest.
    wanted: Arc<Notify>,
    started: Instant,
}

impl Shared {
    /// What `workers` share, who tell `log` of requests, and `tracer` of those whose traces are kept.
    #[must_use]
    pub fn new(workers: usize, log: Arc<dyn RequestLog>, tracer: Arc<dyn Tracer>) -> Self {
        Self {
            table: Arc::default(),
            states: States::default(),
            rejected: ByReason::default(),
            log,
            log_rate: AtomicU32::new(u32::MAX),
            tracer,
            trace_rate: AtomicU32::new(0),
            records: AtomicBool::new(false),
            beats: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            draining: AtomicBool::new(false),
            patient: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            most_connections: OnceLock::new(),
            wanted: Arc::default(),
            started: Instant::now(),
        }
    }

    /// From now on so many requests in a million are logged and traced.
    pub fn sample(&self, logged: u32, traced: u32) {
        let parts = |rate: u32| u32::try_from(u64::from(rate) * u64::from(u32::MAX) / 1_000_000).unwrap_or(u32::MAX);
        self.log_rate.store(parts(logged), Ordering::Relaxed);
        self.trace_rate.store(parts(traced), Ordering::Relaxed);
    }

    /// From now on traces are kept, or they only pass by.
    pub fn record_traces(&self, records: bool) {
        self.records.store(records, Ordering::Relaxed);
    }

    /// Whether traces are kept.
    pub(super) fn records(&self) -> bool {
        self.records.load(Ordering::Relaxed)
    }

    /// The oldest sign of life of a worker, in milliseconds of CLOCK_MONOTONIC; 0: one has given none.
    #[must_use]
    pub fn oldest_beat(&self) -> u64 {
        self.beats.iter().map(|beat| beat.load(Ordering::Acquire)).min().unwrap_or(0)
    }

    /// The time on the clock that all workers share, for what is counted over time.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Downstream connections that are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// Whether one more is logged.
    pub(super) fn is_logged(&self) -> bool {
        let rate = self.log_rate.load(Ordering::Relaxed);
        rate == u32::MAX || (rate > 0 && fastrand::u32(..) < rate)
    }

    /// Whether another downstream connection may be taken: they get three quarters of the descriptors that this process
    /// may have, since what they ask for needs some too.
    pub(super) fn has_room(&self) -> bool {
        let most = self.most_connections.get_or_init(|| {
            let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((u64::MAX, u64::MAX));
            usize::try_from(soft - soft / 4).unwrap_or(usize::MAX)
        });
        self.connections() < *most
    }

    pub(super) fn trace(&self, trace: Trace) {
        self.tracer.trace(trace);
    }
}

/// What a worker is told.
enum Order {
    Listen(Listener),
    /// Stops listening where a listener says that it is not wanted any more.
    Forget(u64),
    Drain,
    Stop,
}

/// The workers.
#[derive(Debug)]
pub struct Workers {
    shared: Arc<Shared>,
    orders: Vec<mpsc::UnboundedSender<Order>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` of them. `beat` is called by a worker that lives, a few times a second, with the oldest sign of
    /// life of all.
    ///
    /// # Errors
    /// The system's, where there can be no thread.
    pub fn start(
        shared: &Arc<Shared>,
        count: usize,
        beat: &(impl Fn(&Shared) + Clone + Send + 'static),
    ) -> io::Result<Self> {
        let mut workers = Self { shared: Arc::clone(shared), orders: Vec::new(), threads: Vec::new() };
        for number in 0..count {
            let (order, orders) = mpsc::unbounded_channel();
            let (shared, beat) = (Arc::clone(shared), beat.clone());
            let thread = std::thread::Builder::new().name(format!("worker-{number}"));
            workers.threads.push(thread.spawn(move || {
                // A runtime of tasks that stay on their thread: cheaper to wake than those of a `LocalSet` in a runtime.
                let built =
                    tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
                match built {
                    Ok(runtime) => runtime.block_on(run(shared, number, orders, beat)),
                    Err(e) => tracing::error!("worker {number} cannot begin: {e}"),
                }
            })?);
            workers.orders.push(order);
        }
        Ok(workers)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.orders.len()
    }

    /// A worker accepts what comes to a listener.
    pub fn listen(&self, worker: usize, listener: Listener) {
        if let Some(orders) = self.orders.get(worker) {
            // A worker ends only with all of them.
            let _ = orders.send(Order::Listen(listener));
        }
    }

    /// Nobody is in a network namespace any more: all workers stop listening for what is captured there.
    pub fn forget(&self, namespace: u64) {
        self.orders.iter().for_each(|orders| drop(orders.send(Order::Forget(namespace))));
    }

    /// Nothing new is accepted, and connections end when their requests do. Returns when all have, or after `within`;
    /// how many were left. `patient`: a connection that is idle is told to end with its next answer, and not closed before:
    /// a request that crosses the close would be lost.
    #[must_use]
    pub fn drain(&self, within: Duration, patient: bool) -> usize {
        self.shared.patient.store(patient, Ordering::Release);
        self.shared.draining.store(true, Ordering::Release);
        self.orders.iter().for_each(|orders| drop(orders.send(Order::Drain)));
        let until = Instant::now() + within;
        while self.shared.connections() > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.shared.connections()
    }

    /// Ends them, and with them every connection.
    pub fn stop(&mut self) {
        self.orders.iter().for_each(|orders| drop(orders.send(Order::Stop)));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A worker, as its connections see it.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) number: usize,
    pub(super) clock: Rc<Clock>,
    pub(super) pool: Rc<Pool>,
    table: RefCell<Cache<Arc<ArcSwap<Table>>, Arc<Table>>>,
    pub(super) draining: Cell<bool>,
    /// Copies of requests on their way.
    pub(super) mirrored: Cell<usize>,
    pub(super) lines: Lines,
}

/// How often a worker shows that it lives, and the longest that a line waits for others.
const BEAT: Duration = Duration::from_millis(250);

async fn run(
    shared: Arc<Shared>,
    number: usize,
    mut orders: mpsc::UnboundedReceiver<Order>,
    beat: impl Fn(&Shared) + 'static,
) {
    let worker = Rc::new(Worker::new(shared, number));
    tokio::task::spawn_local(Rc::clone(&worker.clock).keep());
    tokio::task::spawn_local(live(Rc::clone(&worker), beat));
    let mut capturing: Vec<(u64, tokio::task::AbortHandle)> = Vec::new();
    while let Some(order) = orders.recv().await {
        match order {
            Order::Listen(listener) => {
                // The explicit proxy's stays, whoever leaves the namespace that it is in.
                let namespace = listener.captures.is_some().then(|| listener.sockets.namespace());
                let task = tokio::task::spawn_local(listener::accept(Rc::clone(&worker), listener));
                capturing.extend(namespace.map(|namespace| (namespace, task.abort_handle())));
            }
            Order::Forget(namespace) => {
                capturing.retain(|(of, task)| {
                    if *of == namespace {
                        task.abort();
                    }
                    *of != namespace
                });
                worker.pool.forget(namespace);
            }
            Order::Drain => {
                worker.draining.set(true);
                worker.pool.clear();
                worker.clock.wake_all();
            }
            Order::Stop => return,
        }
    }
}

/// Shows that the worker lives, and closes what has been at rest for too long.
async fn live(worker: Rc<Worker>, beat: impl Fn(&Shared)) {
    let mut beats = tokio::time::interval(BEAT);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut number = 0_u32;
    loop {
        let wanted = worker.shared.wanted.notified();
        // What was wanted while this worker did something else is seen at the next beat.
        worker.pool.make_room();
        tokio::select! {
            _ = beats.tick() => {}
            () = wanted => continue,
        }
        worker.shared.beats[worker.number].store(super::circuit::now_ms(), Ordering::Release);
        beat(&worker.shared);
        worker.lines.flush();
        number = number.wrapping_add(1);
        if number.is_multiple_of(4) {
            worker.pool.sweep(worker.now());
        }
    }
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, number: usize) -> Self {
        let clock = Clock::new(shared.started);
        Self {
            number,
            pool: Rc::new(Pool::new(&clock, &shared.wanted)),
            clock,
            table: RefCell::new(Cache::new(Arc::clone(&shared.table))),
            draining: Cell::new(false),
            mirrored: Cell::new(0),
            lines: Lines::new(Arc::clone(&shared.log)),
            shared,
        }
    }

    /// Whether an idle connection ends at once.
    pub(super) fn closes_idle(&self) -> bool {
        self.draining.get() && !self.shared.patient.load(Ordering::Acquire)
    }

    /// What requests are looked up in now.
    pub(super) fn table(&self) -> Arc<Table> {
        Arc::clone(self.table.borrow_mut().load())
    }

    /// The time on the clock that all workers share, for what is counted over time.
    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// What time of day it was then, on the clock that all workers share.
    pub(super) fn time_of_day(&self, then: Duration) -> SystemTime {
        self.clock.time_of_day(then)
    }

    /// The record of a request that has just come, part of a trace from now on.
    pub(super) fn record(self: &Rc<Self>, client: &Client, parts: &mut RequestHead) -> Record {
        let Shared { trace_rate, .. } = &*self.shared;
        let sampled = || fastrand::u32(..) < trace_rate.load(Ordering::Relaxed);
        let trace = Context::of(&mut parts.headers, self.shared.records(), sampled);
        Record::of_request(self, client, parts, trace)
    }
}

/// A downstream connection, counted as long as it is open.
#[derive(Debug)]
pub(super) struct Open(Arc<Shared>);

impl Open {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        shared.connections.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
    }
}
