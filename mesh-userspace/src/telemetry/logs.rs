//! The log of requests and connections: kept on the node, and written to stderr.
//!
//! Whoever tells of them hands over what it has and goes on. A thread writes it down, and keeps it; where it cannot keep up,
//! lines are dropped and counted.

use super::{
    entry::{CONNECTION, Entry, REQUEST},
    outlet::Outlet,
    ring::{Bounds, Ring},
    write::Writer,
};
use crate::proxy;
use std::{
    io, iter,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

/// So many batches may wait, of 64 lines each where there are many.
const WAITING: usize = 256;

/// So many batches are worked off together.
const TOGETHER: usize = 16;

/// How long more lines are waited for after some. A worker that finds the thread waiting has to wake it, which takes it as
/// long as some requests; one that finds it asleep goes on.
const PAUSE: Duration = Duration::from_millis(10);

/// So much is handed to stderr at once.
const WRITTEN_AT_ONCE: usize = 256 << 10;

/// Lines that are told together.
#[derive(Debug)]
enum Batch {
    Requests(proxy::Packed),
    Connections(Vec<Entry>),
    /// There are no more.
    End,
}

/// What is done with lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// How much is kept.
    pub bounds: Bounds,
    /// Whether they are written to stderr.
    pub stderr: bool,
}

/// The log.
#[derive(Debug)]
pub struct Logs {
    /// The newest lines.
    pub ring: Ring<Entry>,
    queue: SyncSender<Batch>,
    writes: AtomicBool,
    told: AtomicU64,
    /// For want of room in the queue.
    dropped: AtomicU64,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Logs {
    /// Starts the thread. `stderr`: where lines are written, and whether as JSON.
    ///
    /// # Errors
    /// The system's, where there can be no thread.
    pub fn start(keeping: Keeping, stderr: Option<(Outlet, bool)>) -> io::Result<Arc<Self>> {
        let (queue, waiting) = sync_channel(WAITING);
        let logs = Arc::new(Self {
            ring: Ring::new(keeping.bounds),
            queue,
            writes: AtomicBool::new(keeping.stderr),
            told: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            thread: Mutex::default(),
        });
        let work = Arc::clone(&logs);
        let thread =
            thread::Builder::new().name("telemetry".to_owned()).spawn(move || work.run(&waiting, stderr.as_ref()))?;
        *logs.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(logs)
    }

    /// From now on lines are kept and written like this.
    pub fn keep(&self, Keeping { bounds, stderr }: Keeping) {
        self.ring.resize(bounds);
        self.writes.store(stderr, Ordering::Relaxed);
    }

    /// Requests are over. Waits for nothing.
    pub fn requests(&self, lines: proxy::Packed) {
        self.tell(lines.len(), Batch::Requests(lines));
    }

    /// Connections ended, or go on. Waits for nothing.
    pub fn connections(&self, entries: Vec<Entry>) {
        self.tell(entries.len(), Batch::Connections(entries));
    }

    fn tell(&self, count: usize, batch: Batch) {
        match self.queue.try_send(batch) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(count as u64, Ordering::Relaxed);
            }
        }
    }

    /// Lines that were kept or written since the start.
    #[must_use]
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    /// Lines that were dropped because the thread could not keep up.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all that was told is kept and handed to stderr. What is told later is dropped.
    pub fn end(&self) {
        // The thread takes everything that comes before, and waits for nobody.
        let _ = self.queue.send(Batch::End);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = thread.map(JoinHandle::join);
    }

    fn run(&self, waiting: &Receiver<Batch>, stderr: Option<&(Outlet, bool)>) {
        let mut entries: Vec<Entry> = Vec::new();
        let mut text = Vec::with_capacity(WRITTEN_AT_ONCE);
        while let Ok(first) = waiting.recv() {
            let (mut is_end, mut batches) = (false, 0);
            // What came meanwhile goes along.
            for batch in iter::once(first).chain(waiting.try_iter().take(TOGETHER - 1)) {
                batches += 1;
                match batch {
                    Batch::Requests(lines) => entries.extend(lines.unpack().map(Entry::from)),
                    Batch::Connections(more) => entries.extend(more),
                    Batch::End => is_end = true,
                }
            }
            if let Some((outlet, json)) = stderr
                && self.writes.load(Ordering::Relaxed)
            {
                let (requests, connections) = (
                    tracing::enabled!(target: REQUEST, tracing::Level::INFO),
                    tracing::enabled!(target: CONNECTION, tracing::Level::INFO),
                );
                let wanted = |entry: &&Entry| if entry.connection.is_some() { connections } else { requests };
                write(entries.iter().filter(wanted), *json, outlet, &mut text);
            }
            self.told.fetch_add(entries.len() as u64, Ordering::Relaxed);
            self.ring.extend(entries.drain(..).map(|entry| {
                let held = entry.held();
                (entry, held)
            }));
            if is_end {
                return;
            }
            // With as many as this more may wait already.
            if batches < TOGETHER {
                thread::sleep(PAUSE);
            }
        }
    }
}

/// Writes lines as they come now; `text` is where.
fn write<'a>(entries: impl Iterator<Item = &'a Entry>, json: bool, outlet: &Outlet, text: &mut Vec<u8>) {
    let mut writer = Writer::new(json, SystemTime::now());
    let mut count = 0;
    for entry in entries {
        writer.write(entry, text);
        count += 1;
        if text.len() >= WRITTEN_AT_ONCE {
            outlet.lines(text, count);
            text.clear();
            count = 0;
        }
    }
    if count > 0 {
        outlet.lines(text, count);
        text.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{super::entry::tests::request, *};

    const ALL: Keeping = Keeping { bounds: Bounds { count: 10_000, bytes: 16 << 20 }, stderr: true };

    #[test]
    fn all_that_was_told_is_kept_in_order_once_it_ends() {
        let logs = Logs::start(ALL, None).unwrap();
        for n in 0..50 {
            logs.requests([format!("/{n}"), "/again".to_owned()].map(|path| request(&path).line).into_iter().collect());
        }
        logs.end();
        let kept = logs.ring.newest(usize::MAX, |_| true);
        assert_eq!((kept.len(), logs.told(), logs.dropped()), (100, 100, 0));
        assert_eq!(kept[1].1.line.path.as_deref(), Some("/49"));
        // Nobody is there any more.
        logs.requests([request("/late").line].into_iter().collect());
        logs.end();
        assert_eq!(logs.dropped(), 1);
    }
}
