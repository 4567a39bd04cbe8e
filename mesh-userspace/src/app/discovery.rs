//! The sources at work, and what becomes of what they say.

use super::{
    daemon::{Daemon, State},
    dashboard,
    facts::Unsaved,
    host,
    supervise::keep_at_work,
    watches,
};
use crate::{
    config::Config,
    discovery::{
        self, Change, Direct, Source, Teller, Update,
        kubernetes::{self, Pods},
        registry::Registrar,
    },
    kernel,
};
use arc_swap::ArcSwap;
use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    io, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};
use tokio::{
    runtime::{Builder, Handle},
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

/// How many updates may wait to be taken. A source that says more waits itself.
const WAITING: usize = 4096;

/// A burst of more updates than this is taken together with what follows at once.
const BURST: usize = 16;

/// How long a burst is gathered: what changes alone is not kept waiting.
const GATHER: Duration = Duration::from_millis(20);

/// The longest that a burst is gathered.
const GATHER_AT_MOST: Duration = Duration::from_millis(250);

/// What more updates than this needed meanwhile is worth giving back.
const LARGE: usize = 1000;

/// How often it is written down what sources said.
const SAVE: Duration = Duration::from_secs(2);

/// How long to wait while nothing may be changed: another daemon is taking over, or gives up doing so.
const FROZEN: Duration = Duration::from_millis(50);

/// The sources at work.
#[derive(Debug)]
pub(super) struct Discovery {
    runtime: Handle,
    updates: mpsc::Sender<Update>,
    registrar: Arc<Registrar>,
    direct: Direct,
    running: Mutex<HashMap<Source, (Wanted, JoinHandle<Infallible>)>>,
    pods: Arc<ArcSwap<Pods>>,
}

/// What a source is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    Registry,
    Etcd(discovery::Etcd),
    Kubernetes(discovery::Kubernetes),
    Dns(discovery::Resolve, BTreeSet<String>),
}

impl Wanted {
    const fn source(&self) -> Source {
        match self {
            Self::Registry => Source::Registry,
            Self::Etcd(_) => Source::Etcd,
            Self::Kubernetes(_) => Source::Kubernetes,
            Self::Dns(..) => Source::Dns,
        }
    }
}

fn wanted(config: &Config, names: BTreeSet<String>) -> Vec<Wanted> {
    let discovery = &config.discovery;
    let mut wanted = vec![Wanted::Registry];
    wanted.extend(discovery.etcd().map(Wanted::Etcd));
    let in_cluster = super::facts::in_cluster();
    wanted.extend(discovery.kubernetes(&config.node, in_cluster).map(Wanted::Kubernetes));
    if !names.is_empty() {
        wanted.push(Wanted::Dns(discovery.resolve(|| host().addresses), names));
    }
    wanted
}

/// The sources that a configuration uses, whose services draw these names from the DNS.
pub(super) fn used(config: &Config, names: BTreeSet<String>) -> BTreeSet<Source> {
    wanted(config, names).iter().map(Wanted::source).collect()
}

/// Notes what sources have not told yet. Before anybody can ask whether the daemon is ready.
pub(super) fn begin(daemon: &Daemon) {
    let state = daemon.state();
    *daemon.unsynced() = unsynced(&state);
}

/// Starts a thread on which sources work, and in which what they say is taken.
///
/// # Errors
/// Why there is no such thread.
pub(super) fn start(daemon: &Arc<Daemon>) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (updates, said) = mpsc::channel(WAITING);
    let sources = Discovery {
        runtime: runtime.handle().clone(),
        updates,
        registrar: Arc::clone(&daemon.registry.registrar),
        direct: daemon.direct,
        running: Mutex::default(),
        pods: Arc::clone(&daemon.pods),
    };
    {
        let state = daemon.state();
        sources.work(&state.config, state.facts.names());
    }
    let _ = daemon.discovery.set(sources);
    runtime.spawn(watches::follow(Arc::clone(daemon)));
    runtime.spawn(dashboard::follow(Arc::clone(daemon)));
    let daemon = Arc::clone(daemon);
    thread::Builder::new().name("discovery".to_owned()).spawn(move || runtime.block_on(take(&daemon, said)))?;
    Ok(())
}

impl Discovery {
    /// Lets those sources work that are wanted, as they are wanted. Those that work so already go on.
    pub(super) fn work(&self, config: &Config, names: BTreeSet<String>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = wanted(config, names);
        running.retain(|_, (at_work, task)| {
            let stays = wanted.contains(at_work);
            if !stays {
                task.abort();
            }
            stays
        });
        for wanted in wanted {
            let source = wanted.source();
            running.entry(source).or_insert_with(|| {
                let teller = Teller::new(source, self.updates.clone());
                let (registrar, pods, direct) = (Arc::clone(&self.registrar), Arc::clone(&self.pods), self.direct);
                let (wants, tells) = (wanted.clone(), teller.clone());
                let work = move || run(wants.clone(), direct, tells.clone(), Arc::clone(&registrar), Arc::clone(&pods));
                (wanted, self.runtime.spawn(keep_at_work(teller, work)))
            });
        }
    }
}

/// One source at work, for ever.
async fn run(wanted: Wanted, direct: Direct, teller: Teller, registrar: Arc<Registrar>, pods: Arc<ArcSwap<Pods>>) {
    match wanted {
        Wanted::Registry => registrar.run(teller).await,
        Wanted::Etcd(settings) => discovery::etcd::run(settings, direct, teller).await,
        Wanted::Dns(settings, names) => discovery::watch_dns(settings, names, direct, teller).await,
        Wanted::Kubernetes(settings) => kubernetes::run(settings, direct, teller, pods).await,
    }
}

/// Takes what sources say, bursts of it together. What needs the state, which may be in use for a while, is done beside:
/// sources go on meanwhile, leases are kept and watches read.
async fn take(daemon: &Arc<Daemon>, mut said: mpsc::Receiver<Update>) {
    let mut save_at = Instant::now() + SAVE;
    let mut saving = tokio::task::spawn_blocking(|| ());
    let mut batch = Vec::new();
    loop {
        // A large cluster takes its time, which changes do not wait for.
        let save = save_at <= Instant::now() && saving.is_finished();
        let taker = Arc::clone(daemon);
        let taken = match tokio::task::spawn_blocking(move || taker.take_updates(batch, save)).await {
            Ok(Ok(taken)) => taken,
            // A daemon that takes over knows what was known when it asked. If it does not, this one goes on.
            Ok(Err(later)) => {
                batch = later;
                sleep(FROZEN).await;
                continue;
            }
            // What was taken halfway is settled with what comes next.
            Err(_) => Taken::default(),
        };
        if let Some(unsaved) = taken.unsaved {
            saving = tokio::task::spawn_blocking(move || unsaved.write());
        }
        if save_at <= Instant::now() {
            save_at = Instant::now() + SAVE;
        }
        let due = taken.due.map_or(save_at, |due| Instant::from_std(daemon.started + due).min(save_at));
        batch = Vec::new();
        tokio::select! {
            received = said.recv_many(&mut batch, WAITING) => if received == 0 { return },
            () = sleep_until(due) => {}
        }
        gather(&mut batch, &mut said).await;
    }
}

/// Adds what follows a burst at once.
async fn gather(batch: &mut Vec<Update>, said: &mut mpsc::Receiver<Update>) {
    let until = Instant::now() + GATHER_AT_MOST;
    while batch.len() > BURST && Instant::now() < until {
        let before = batch.len();
        sleep(GATHER).await;
        while let Ok(update) = said.try_recv() {
            batch.push(update);
        }
        if batch.len() == before {
            break;
        }
    }
}

/// What is to be done after updates were taken.
#[derive(Debug, Default)]
struct Taken {
    /// When there is something to do without anything being said, since the daemon's start.
    due: Option<Duration>,
    /// What is to be written down.
    unsaved: Option<Unsaved>,
}

/// A sentence for each source that has not told yet all it knows. A daemon that followed another one knows what that one
/// knew, and is as ready.
pub(super) fn unsynced(state: &State) -> Vec<String> {
    let waiting = state.facts.sources().iter().filter(|(_, seen)| !seen.synced && !seen.handed_over);
    let sentence = |(source, seen): (&Source, &discovery::SourceState)| match &seen.error {
        Some(why) => format!("{} has not told yet what it knows: {why}", source.word()),
        None => format!("{} has not told yet what it knows", source.word()),
    };
    waiting.map(sentence).collect()
}

impl Daemon {
    pub(super) fn unsynced(&self) -> MutexGuard<'_, Vec<String>> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the updates back where nothing may be changed for the moment. `save`: what is to be written down is wanted.
    fn take_updates(&self, batch: Vec<Update>, save: bool) -> Result<Taken, Vec<Update>> {
        let mut state = self.state();
        if state.may_change().is_err() {
            return Err(batch);
        }
        let now = self.started.elapsed();
        let large = batch.len() > LARGE;
        for update in batch {
            log(&update, state.facts.sources().get(&update.source));
            state.facts.take(update, now);
        }
        let before: BTreeSet<String> = state.facts.problems().map(str::to_owned).collect();
        let changed = state.facts.settle(now);
        for problem in state.facts.problems().filter(|problem| !before.contains(*problem)) {
            tracing::warn!("{problem}");
        }
        if changed {
            self.publish(&mut state);
        }
        // Only now: whoever is told that this daemon is ready may dial what is known.
        let waiting = unsynced(&state);
        let complete = waiting.is_empty();
        let before = mem::replace(&mut *self.unsynced(), waiting);
        // At once, for the first time: a daemon that knew nothing of this would begin by taking it out of the kernel.
        let save = save || (complete && !before.is_empty());
        let told = state.facts.sources().get(&Source::Registry).map_or(0, |registry| registry.updates);
        self.registry.registrar.taken(told);
        let unsaved = if save { state.facts.unsaved() } else { None };
        let taken = Taken { due: state.facts.due(), unsaved };
        drop(state);
        if large {
            kernel::give_back_memory();
        }
        Ok(taken)
    }
}

/// What is worth a word.
fn log(update: &Update, before: Option<&discovery::SourceState>) {
    let Some(before) = before else { return };
    let source = update.source.word();
    match &update.change {
        Change::Lost(why) if before.error.as_ref() != Some(why) => {
            tracing::warn!("{source}: {why}; what it said last stays in force");
        }
        Change::Skipped(why) => tracing::warn!("{source}: left out: {why}"),
        Change::Synced if before.error.is_some() => tracing::info!("{source}: in touch again"),
        Change::Synced if !before.synced => tracing::info!("{source}: synced"),
        _ => {}
    }
}
