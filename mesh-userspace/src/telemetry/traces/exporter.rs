//! Sends traces to a collector, on a thread of its own.

use super::{
    Collector, Ring, Traces,
    answer::{Answer, Remarks},
    collector::Protocol,
    grpc, http, otlp,
};
use crate::proxy::{Trace, Try};
use std::{
    future::pending,
    io,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

/// How often it looks for traces. Being woken for each would cost workers a system call.
const EVERY: Duration = Duration::from_millis(200);

/// Traces of one message at most.
const BATCH: usize = 512;

/// About how large a message may be, in bytes: collectors take 4 MiB by default.
const BATCH_BYTES: usize = 1 << 20;

/// How long a collector may take for a message.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it is left alone after it did not take one, at first and at most.
const PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// The longest that a collector may wish to be left alone (`Retry-After`).
const LONGEST_WANTED: Duration = Duration::from_secs(300);

/// Who sends, as a collector is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
}

/// Why a message was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// It may be another time, and not before so long if it says so itself.
    #[error("{0}")]
    Later(String, Option<Duration>),
    /// It never will.
    #[error("{0}")]
    Refused(String),
}

/// Sends traces as they come, until it is stopped or dropped.
#[derive(Debug)]
pub struct Exporter {
    wanted: watch::Sender<Wanted>,
    thread: Option<JoinHandle<()>>,
}

/// What is wanted of it.
#[derive(Clone, Debug, Default)]
struct Wanted {
    /// To whom it sends; `None`: it rests.
    collector: Option<Collector>,
    /// When it has to be done; `None`: it goes on.
    until: Option<Instant>,
}

impl Exporter {
    /// Starts it, with nobody to send to yet. Its sockets carry `mark` (`SO_MARK`), 0: none.
    ///
    /// # Errors
    /// The system's, where there can be no thread.
    pub fn start(traces: Arc<Traces>, node: Node, mark: u32) -> io::Result<Self> {
        let (wanted, told) = watch::channel(Wanted::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let remarks = Remarks::default();
        let following = Following { traces, node, mark, next: [0; 2], sender: None, trouble: None, remarks };
        let thread = std::thread::Builder::new().name("traces".to_owned()).spawn(move || {
            runtime.block_on(following.follow(told));
            // A name that is being looked up is not waited for.
            runtime.shutdown_background();
        })?;
        Ok(Self { wanted, thread: Some(thread) })
    }

    /// From now on traces go to this collector; `None`: nowhere.
    pub fn send_to(&self, collector: Option<Collector>) {
        self.wanted.send_if_modified(|wanted| {
            let changes = wanted.collector != collector;
            wanted.collector = collector;
            changes
        });
    }

    /// Sends what there is, for as long as `within`, and ends.
    pub fn stop(&mut self, within: Duration) {
        self.wanted.send_modify(|wanted| wanted.until = Some(Instant::now() + within));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

/// Speaks to one collector.
enum Sender {
    Http(http::Sender),
    Grpc(grpc::Sender),
}

impl Sender {
    fn new(collector: Collector, mark: u32) -> Self {
        match &collector.protocol {
            Protocol::Http(path) => Self::Http(http::Sender::new(path.clone(), collector, mark)),
            Protocol::Grpc => Self::Grpc(grpc::Sender::new(collector, mark)),
        }
    }

    /// What it says of them.
    async fn send(&mut self, request: otlp::Request) -> Result<Answer, Failure> {
        let sent = async {
            match self {
                Self::Http(sender) => sender.send(&request).await,
                Self::Grpc(sender) => sender.send(request).await,
            }
        };
        let late = || Err(Failure::Later(format!("no answer within {} s", PATIENCE.as_secs()), None));
        timeout(PATIENCE, sent).await.unwrap_or_else(|_| late())
    }
}

/// The exporter, on its thread.
struct Following {
    traces: Arc<Traces>,
    node: Node,
    mark: u32,
    /// The number of the first trace of each ring that was not sent yet.
    next: [u64; 2],
    sender: Option<(Collector, Sender)>,
    /// What keeps it from sending.
    trouble: Option<Trouble>,
    /// What the collector had to say.
    remarks: Remarks,
}

struct Trouble {
    /// As it was logged.
    why: Failure,
    pause: Duration,
    until: Instant,
}

impl Following {
    async fn follow(mut self, mut told: watch::Receiver<Wanted>) {
        loop {
            let Wanted { collector, until } = told.borrow_and_update().clone();
            let Some(collector) = collector else {
                self.sender = None;
                if until.is_some() || told.changed().await.is_err() {
                    return;
                }
                // What came before is none of the next collector's.
                self.next = self.traces.rings.each_ref().map(Ring::next);
                continue;
            };
            if self.sender.as_ref().is_none_or(|(known, _)| *known != collector) {
                let sender = Sender::new(collector.clone(), self.mark);
                (self.sender, self.trouble, self.remarks) = (Some((collector, sender)), None, Remarks::default());
            }
            let sent = tokio::select! {
                sent = self.send() => Some(sent),
                () = overdue(told.clone()) => None,
            };
            let wait = match sent {
                Some(Sent::All) => Instant::now() + EVERY,
                Some(Sent::Some) => continue,
                Some(Sent::Failed(until)) => until,
                None => break,
            };
            if until.is_some() {
                // One more time at the end, and not a second one.
                break;
            }
            tokio::select! {
                () = sleep_until(wait) => {}
                changed = told.changed() => if changed.is_err() { break },
            }
        }
        let left = self.traces.rings.iter().zip(self.next).map(|(ring, next)| ring.next().saturating_sub(next)).sum();
        self.traces.counts.left.fetch_add(left, Ordering::Relaxed);
        if left > 0 {
            tracing::warn!(traces = left, "ended before a collector had them");
        }
    }

    /// Sends a message of each ring that has something: of failures first.
    async fn send(&mut self) -> Sent {
        let mut sent = Sent::All;
        for ring in [1, 0] {
            match self.send_of(ring).await {
                Sent::All => {}
                Sent::Some => sent = Sent::Some,
                failed @ Sent::Failed(_) => return failed,
            }
        }
        sent
    }

    async fn send_of(&mut self, ring: usize) -> Sent {
        let counts = &self.traces.counts;
        let page = self.traces.rings[ring].page(self.next[ring], BATCH);
        counts.overflown.fetch_add(page.missed, Ordering::Relaxed);
        self.next[ring] = page.next - page.items.len() as u64;
        let batch = &page.items[..fitting(&page.items)];
        let Some((collector, sender)) = self.sender.as_mut().filter(|_| !batch.is_empty()) else { return Sent::All };
        let sent = sender.send(otlp::request(batch, &self.node)).await;
        let taken = batch.len() as u64;
        match &sent {
            Ok(answer) => {
                counts.exported.fetch_add(taken, Ordering::Relaxed);
                counts.rejected_spans.fetch_add(answer.rejected, Ordering::Relaxed);
                if let Some(remark) = self.remarks.of(answer, Instant::now()) {
                    tracing::warn!(%collector, "{remark}");
                }
                if self.trouble.take().is_some() {
                    tracing::info!(%collector, "takes traces again");
                }
            }
            Err(why) => {
                counts.failures.fetch_add(1, Ordering::Relaxed);
                let is_known = self.trouble.as_ref().is_some_and(|before| before.why == *why);
                let trouble = Trouble::after(self.trouble.take(), why);
                if !is_known {
                    tracing::warn!(%collector, "takes no traces: {why}");
                }
                self.trouble = Some(trouble);
            }
        }
        if let Err(Failure::Refused(_)) = sent {
            counts.refused.fetch_add(taken, Ordering::Relaxed);
        }
        match (sent, &self.trouble) {
            (Err(Failure::Later(..)), Some(trouble)) => Sent::Failed(trouble.until),
            (_, trouble) => {
                self.next[ring] += taken;
                match trouble {
                    // It is asked no more often than one that is away.
                    Some(trouble) => Sent::Failed(trouble.until),
                    None if batch.len() < page.items.len() || page.items.len() == BATCH => Sent::Some,
                    None => Sent::All,
                }
            }
        }
    }
}

impl Trouble {
    /// What follows from `why`, after what there was before: a longer pause, even if that was something else. One that says
    /// something else each time is no better than one that is away.
    fn after(before: Option<Self>, why: &Failure) -> Self {
        let pause = before.map_or(PAUSE[0], |before| (before.pause * 2).min(PAUSE[1]));
        // Daemons whose collector went away do not all come back to it at the same moment.
        let jittered = pause.mul_f64(1.0 - fastrand::f64() * 0.2);
        let wanted = if let Failure::Later(_, wanted) = why {
            wanted.unwrap_or_default().min(LONGEST_WANTED)
        } else {
            Duration::ZERO
        };
        Self { why: why.clone(), pause, until: Instant::now() + jittered.max(wanted) }
    }
}

/// What came of sending.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    /// There is nothing more at the moment.
    All,
    /// There is more.
    Some,
    /// Not before then again.
    Failed(Instant),
}

/// How many of these fit into a message.
fn fitting(traces: &[Arc<Trace>]) -> usize {
    /// About what a span takes without the texts of others.
    const SPAN: usize = 500;
    let mut bytes = 0;
    let size = |trace: &Trace| {
        let Trace { line, tries, .. } = trace;
        let path = line.path.as_ref().map_or(0, |path| path.len());
        path + SPAN * (1 + 2 * tries.len()) + size_of::<Try>()
    };
    let fits = |trace: &&Arc<Trace>| {
        bytes += size(trace);
        bytes <= BATCH_BYTES
    };
    // One that is larger alone goes alone.
    traces.iter().take_while(fits).count().max(usize::from(!traces.is_empty()))
}

/// Waits until it has to be done.
async fn overdue(mut told: watch::Receiver<Wanted>) {
    loop {
        if let Some(until) = told.borrow_and_update().until {
            return sleep_until(until).await;
        }
        if told.changed().await.is_err() {
            return pending().await;
        }
    }
}
