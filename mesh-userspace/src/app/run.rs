//! `mesh run`: from the configuration to a daemon at work, and to its end.

use super::{
    admin::Admin,
    bypass::BypassedCgroups,
    cgroup,
    daemon::{self, Daemon, Parts, State},
    discovery,
    facts::{self, Facts},
    health, host, http,
    lock::{LockError, Locks},
    logs, names, probe,
    registry::Registry,
    source::Watch,
    succession::{End, Succession},
    takeover::{self, Inheritance},
    traces, transitions,
};
use crate::{
    api::{Addresses, Mode},
    config::{self, Config},
    datapath::{self, Datapath, Limits},
    discovery::{Source, registry::Registrar},
    kernel::{self, Capacity, Kernel, KernelError, Options, Pins, ProgramStatus},
    model::{Overrides, Service, Snapshot},
    telemetry::{
        levels::Directives,
        log::{self, Levels},
        logs::Logs,
    },
};
use mesh_common::settings::{Settings, flags};
use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::geteuid,
};
use std::{
    collections::BTreeSet,
    fs, io, mem,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
    time::{MissedTickBehavior, interval, timeout},
};

/// How often files, postponed writes and the programs' log are looked at.
const TICK: Duration = Duration::from_millis(500);

/// How often the hooks are told that the daemon lives; `dataplane.stale_after` is at least twice that.
const BEAT: Duration = Duration::from_millis(250);

/// Runs the daemon until it is told to stop, or until another one takes over. With `takeover` it begins by taking over
/// from one that runs, if one does.
///
/// # Errors
/// Why it cannot start, and what to do about it.
pub fn run(named: Option<PathBuf>, takeover: bool) -> Result<(), String> {
    let large_pages = kernel::use_small_pages().err();
    let (watch, unwatched) = Watch::new(named.as_deref());
    let mut loaded = config::load(named.as_deref(), &host()).map_err(|errors| errors.to_string())?;
    let files = loaded.config.take_services();
    let config = &loaded.config;
    let levels = start_log(config)?;
    let stderr = (levels.outlet().clone(), levels.json());
    let logs = Logs::start(logs::keeping(&config.telemetry), Some(stderr));
    let logs = logs.map_err(|e| format!("requests cannot be logged: {e}"))?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(error) = unwatched {
        tracing::warn!("files are looked at from time to time only: {error}");
    }
    if let Some(error) = large_pages {
        tracing::warn!(%error, "huge pages cannot be left out: the daemon takes more memory");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    // From here on a signal waits for its turn: one that comes during the start ends a daemon that is whole.
    let signals = {
        let _context = runtime.enter();
        Signals::new().map_err(|e| format!("signals cannot be handled: {e}"))?
    };
    allow_descriptors();
    prepare_state(&config.node.state_dir)?;
    let inheritance = if takeover { takeover::ask(&config.admin.socket)? } else { Inheritance::default() };
    let Inheritance { predecessor, overrides, mut listeners, locks, proxy, names: name_sockets, discovered } =
        inheritance;
    let mut locks = Locks::inheriting(locks);
    locks.add_file_in("state directory", &config.node.state_dir).map_err(|e| not_ours(&e))?;
    // Only now: a daemon that is left has written down what it knows, and another one's files are none of ours to judge.
    let registrar = Registrar::open(&config.node.state_dir, facts::own(config));
    let facts = Facts::new(config, files, registrar.all_said(), &discovered);
    let addresses = Addresses {
        listen: Some(config.admin.listen.0),
        metrics_listen: config.admin.metrics_listen.0,
        socket: Some(config.admin.socket.clone()),
    };
    // Before anything is attached: a daemon that cannot be asked must not begin to intercept.
    let registry = config.discovery.registry();
    let inherited = registry.listen.and_then(|listen| listeners.take(listen));
    let registry = Registry::new(registrar, registry, inherited).map_err(|e| e.to_string())?;
    let mut admin = Admin::bind(addresses, listeners)?;
    // A daemon that intercepts nothing must not follow one that does.
    let must_intercept = predecessor.as_ref().is_some_and(|p| p.intercepts);
    let Prepared { mode, mut kernel, cgroup, mut notes } =
        prepare(&loaded.config, facts.services(), &overrides, must_intercept, &mut locks)?;
    if let Ok((kernel, ..)) = &mut kernel
        && loaded.config.dataplane.program_stats
        && let Err(e) = kernel.count_runs()
    {
        tracing::warn!("{e}");
        notes.push(e.to_string());
    }
    let (kernel, datapath, bypassed) = match kernel {
        Ok((kernel, datapath, bypassed)) => (Ok(kernel), Some(datapath), Some(bypassed)),
        // Requests are balanced all the same.
        Err(why) => (Err(why), Some(Datapath::detached(config.node())), None),
    };
    let had_main_file = config::places(named.as_deref()).0.exists();
    let state = State::new(loaded, facts, had_main_file, overrides, datapath, bypassed);
    let daemon = Daemon::new(Parts { named, mode, kernel, cgroup, levels, logs, notes, registry }, state);
    daemon.programs_log.renew(daemon.kernel());
    let events = daemon.kernel().map(Kernel::take_events).transpose().map_err(|e| e.to_string())?;
    let endings = daemon.kernel().map(Kernel::take_endings).transpose().map_err(|e| e.to_string())?;
    let daemon = Arc::new(daemon);
    // Again, for whatever did not fit at first and for what there is to say about it.
    daemon.publish(&mut daemon.state());
    kernel::give_back_memory();
    daemon.beat();
    locks.forget_the_rest();
    let socket_file = admin.file.take();
    let (succession, end) = Succession::new(locks, mem::take(&mut admin.copies), socket_file.clone());
    // Before anybody is told that this daemon is ready, or that it can go.
    http::start(&daemon, proxy).map_err(|e| format!("the proxy cannot start: {e}"))?;
    traces::start(&daemon).map_err(|e| format!("traces cannot be sent: {e}"))?;
    names::start(&daemon, name_sockets).map_err(|e| format!("names cannot be answered: {e}"))?;
    if let Some(predecessor) = predecessor {
        predecessor.relieve();
    }
    if let Some(file) = socket_file {
        file.remove();
    }
    discovery::begin(&daemon);
    let mut admin = admin.serve(&daemon, &succession)?;
    if let Some(events) = events {
        let listener = Arc::clone(&daemon);
        let missed = move |netns, pid| listener.http.missed(netns, pid);
        transitions::follow(&daemon, events, missed).map_err(|e| format!("circuits cannot be followed: {e}"))?;
    }
    let connections = endings.map(|endings| logs::follow(&daemon, endings)).transpose();
    let connections = connections.map_err(|e| format!("connections cannot be logged: {e}"))?;
    discovery::start(&daemon).map_err(|e| format!("discovery cannot start: {e}"))?;
    if let Some(turned) = daemon.http.turned() {
        transitions::follow_requests(&daemon, turned).map_err(|e| format!("circuits cannot be followed: {e}"))?;
    }
    health::start(&daemon).map_err(|e| format!("endpoints cannot be checked: {e}"))?;
    let probing = probe::start(&daemon).map_err(|e| format!("the probe cannot start: {e}"))?;
    let end = runtime.block_on(serve(&daemon, signals, watch, end));
    // Not while another one is ready in its place.
    daemon.stopping.store(!matches!(end, Some(End::Followed)), Ordering::Relaxed);
    succession.close();
    daemon.names.stop();
    if !matches!(end, Some(End::Followed)) {
        daemon.state().facts.save();
    } else {
        // Whoever asks from now on asks the other one, at the same listeners: this one knows less by the moment.
        admin.end();
    }
    daemon.truth.stop();
    let within = daemon.state().config.proxy.drain_timeout.get();
    daemon.http.drain(within, matches!(end, Some(End::Followed)));
    // What sources said since it was last written down. Who follows knows it, and may have written more.
    if !matches!(end, Some(End::Followed)) {
        daemon.state().facts.save();
    }
    // A probe that is under way ends at once, and takes its cgroup along.
    let _ = probing.join();
    admin.stop();
    daemon.http.stop();
    // All requests are over, and told.
    if let Some(connections) = connections {
        connections.stop(!matches!(end, Some(End::Followed)));
    }
    daemon.logs.end();
    daemon.registry.registrar.save();
    // Last: a collector may take its time.
    daemon.http.tracing.stop();
    match end {
        None => tracing::info!("stopped; the kernel goes on with what it was told last (`mesh unload` removes it)"),
        Some(End::Followed) => tracing::info!("stopped: another daemon goes on"),
        Some(End::Lost(why)) => return Err(why),
    }
    Ok(())
}

fn start_log(config: &Config) -> Result<Levels, String> {
    let json = config.telemetry.log.format == config::LogFormat::Json;
    log::start(json, &config.telemetry.log.level).map_err(|e| e.to_string())
}

/// Allows as many open files as the system lets this process have: the proxy needs two for each client, and the usual limit
/// (1024) is one for programs that use `select(2)`.
fn allow_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) });
    if let Err(e) = raised {
        tracing::warn!("the limit of open files stays as it is (LimitNOFILE, ulimit -n): {e}");
    }
}

fn prepare_state(directory: &Path) -> Result<(), String> {
    let refuse = |e| format!("node.state_dir {}: {e}; create it, or set another one", directory.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(refuse)?;
    let found = fs::metadata(directory).map_err(refuse)?;
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    // As kubelet makes it. One that holds something may be somebody else's as well.
    let is_new = mode & 0o1002 == 0
        && found.uid() == geteuid().as_raw()
        && fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none());
    if !is_new || fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).is_err() {
        tracing::warn!("node.state_dir {} is open to others (mode {mode:04o}): make it 0700", directory.display());
    }
    Ok(())
}

/// What a daemon says that finds a place held by another one.
fn not_ours(error: &LockError) -> String {
    match error {
        LockError::Held { .. } => format!("{error}; stop it, or give this one its own"),
        LockError::Io { .. } => error.to_string(),
    }
}

/// What the data path will be.
struct Prepared {
    mode: Mode,
    kernel: Result<(Kernel, Datapath, BypassedCgroups), String>,
    cgroup: Option<PathBuf>,
    notes: Vec<String>,
}

/// Loads the programs, as `dataplane.mode` wants it.
fn prepare(
    config: &Config,
    facts: &[Arc<Service>],
    overrides: &Overrides,
    must_intercept: bool,
    locks: &mut Locks,
) -> Result<Prepared, String> {
    let wanted = config.dataplane.mode;
    if wanted == config::Mode::Userspace {
        let notes = left_behind(config);
        let why = Err("dataplane.mode is userspace".to_owned());
        return Ok(Prepared { mode: Mode::Userspace, kernel: why, cgroup: None, notes });
    }
    let observe = wanted == config::Mode::Observe;
    match load(config, facts, overrides, observe, locks) {
        Ok((kernel, datapath, bypassed, cgroup)) => {
            let mut notes = kernel.notes.clone();
            notes.extend(kernel.programs().into_iter().filter_map(|program| {
                let ProgramStatus { name, hook, missing, without, .. } = program;
                let lost = without.map(|lost| format!("; {lost}")).unwrap_or_default();
                missing.map(|why| format!("program {name} ({hook}) is left out: {why}{lost}"))
            }));
            if kernel.tables().settings().flags & flags::BYPASS != 0 {
                tracing::warn!("bypass is still on from before: nothing is translated; `mesh bypass off` ends it");
            }
            notes.iter().for_each(|note| tracing::warn!("{note}"));
            let (programs, adopted) = (kernel.attached(), kernel.adopted);
            tracing::info!(cgroup = %cgroup.display(), programs, adopted, "programs attached");
            let mode = if observe { Mode::Observe } else { Mode::Ebpf };
            Ok(Prepared { mode, kernel: Ok((kernel, datapath, bypassed)), cgroup: Some(cgroup), notes })
        }
        Err(LoadError::Taken(why)) => Err(why),
        Err(LoadError::Kernel(e)) if must_intercept => {
            Err(format!("the running daemon intercepts connections and this one cannot: {e}"))
        }
        Err(LoadError::Kernel(e)) if wanted == config::Mode::Auto => {
            let why = e.to_string();
            tracing::warn!("no connection is intercepted, running as dataplane.mode userspace: {why}");
            let notes = left_behind(config);
            Ok(Prepared { mode: Mode::Userspace, kernel: Err(why), cgroup: None, notes })
        }
        Err(LoadError::Kernel(e)) => Err(format!(
            "dataplane.mode {}: {e}. `mesh check` shows what else is missing; dataplane.mode userspace intercepts nothing \
             and needs none of it",
            wanted.word()
        )),
    }
}

/// What is worth a word where this daemon has no programs: those of an earlier one.
fn left_behind(config: &Config) -> Vec<String> {
    if !Pins::new(&config.dataplane.bpffs).any_link() {
        return Vec::new();
    }
    let note = "programs of an earlier daemon are still attached, and translate by what they were told last; \
                `mesh unload` removes them";
    tracing::warn!("{note}");
    vec![note.to_owned()]
}

/// Why there are no programs.
enum LoadError {
    /// Another daemon is there: never worked around.
    Taken(String),
    /// This host does not offer what they need.
    Kernel(KernelError),
}

impl From<KernelError> for LoadError {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}

type Loaded = (Kernel, Datapath, BypassedCgroups, PathBuf);

fn load(
    config: &Config,
    facts: &[Arc<Service>],
    overrides: &Overrides,
    observe: bool,
    locks: &mut Locks,
) -> Result<Loaded, LoadError> {
    let missing = kernel::missing_capabilities();
    if !missing.is_empty() {
        return Err(KernelError::Capabilities(missing).into());
    }
    let path = cgroup(&config.dataplane)?;
    let bpffs = &config.dataplane.bpffs;
    if let Some(point) = kernel::ensure_bpffs(bpffs)? {
        tracing::info!("no bpf file system was mounted: mounted one at {}", point.display());
    }
    let taken = |e: LockError| LoadError::Taken(not_ours(&e));
    locks.add("cgroup", &path).map_err(taken)?;
    locks.add("pin directory", bpffs).map_err(taken)?;
    let pins = Pins::new(bpffs);
    let mut kernel = kernel::load(&Options {
        object: kernel::OBJECT,
        pins: Some(&pins),
        capacity: capacity(config, &datapath::needs(facts)),
        log_level: Directives::parse(&config.telemetry.log.level).of_programs(),
        settings: Settings {
            flags: if observe { flags::OBSERVE } else { 0 },
            mark: u64::from(config.dataplane.mark.get()),
            heartbeat: daemon::now(),
            stale_after: stale_after(config),
            heartbeat_timeout: nanoseconds(config.dataplane.heartbeat_timeout.get()),
            netns: kernel::netns_cookie().unwrap_or(0),
            workers: 0,
        },
    })?;
    // A start may take longer than `dataplane.stale_after`: each step of it is a sign of life.
    kernel.tables().beat(daemon::now());
    // Tables first, programs after them: no connect is ever looked up in tables that are not filled.
    let bypassed = config.dataplane.bypass.cidrs.iter().map(|cidr| cidr.0).collect();
    let mut datapath = Datapath::adopt(kernel.tables(), bypassed, config.node(), daemon::now());
    datapath.apply(kernel.tables(), &Snapshot::new(facts, overrides), daemon::now());
    let root = kernel::cgroup2_root().unwrap_or_else(|_| path.clone());
    let mut bypassed = BypassedCgroups::new(&root, &config.dataplane.bypass.cgroups);
    bypassed.refresh(kernel.tables());
    kernel.tables().beat(daemon::now());
    let notes = kernel.attach(&path).inspect_err(|_| kernel.give_up())?;
    kernel.notes.extend(notes);
    Ok((kernel, datapath, bypassed, path))
}

/// After how many nanoseconds without a heartbeat the hooks let everything pass; 0: never.
fn stale_after(config: &Config) -> u64 {
    let passthrough = match config.dataplane.when_stale {
        config::WhenStale::Auto => facts::in_cluster(),
        config::WhenStale::Passthrough => true,
        config::WhenStale::LastKnown => false,
    };
    if passthrough { nanoseconds(config.dataplane.stale_after.get()) } else { 0 }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// How much the tables must hold: as configured, else what is known at the start needs with a quarter to spare, and no
/// less than what a small node grows into without a restart; where services come from a cluster, a large one.
pub(super) fn capacity(config: &Config, needs: &Limits) -> Capacity {
    let used = discovery::used(config, BTreeSet::new());
    let floors = match used.contains(&Source::Kubernetes) || used.contains(&Source::Etcd) {
        // 5,000 services of 20 endpoints, with as many more ports and changes as are usual: some 90 MiB.
        true => Limits { services: 16_384, vips: 32_768, endpoints: 131_072, slots: 1_048_576 },
        false => Limits { services: 4096, vips: 8192, endpoints: 16_384, slots: 262_144 },
    };
    let config = &config.dataplane;
    let roomy = |needed: u32, floor: u32| needed.saturating_add(needed / 4).max(floor);
    let services = config.max_services.exact().unwrap_or_else(|| roomy(needs.services, floors.services));
    Capacity {
        services,
        vips: roomy(needs.vips, services.saturating_mul(2)),
        endpoints: config.max_endpoints.exact().unwrap_or_else(|| roomy(needs.endpoints, floors.endpoints)),
        slots: config.max_slots.exact().unwrap_or_else(|| roomy(needs.slots.saturating_mul(2), floors.slots)),
    }
}

/// What the daemon is told by signals.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

/// Waits for signals and postponed work, and follows files, until it is told to stop or another daemon takes over.
async fn serve(
    daemon: &Arc<Daemon>,
    mut signals: Signals,
    watch: Watch,
    mut end: oneshot::Receiver<End>,
) -> Option<End> {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    {
        let state = daemon.state();
        tracing::info!(
            node = state.config.node.name,
            mode = daemon.mode.word(),
            services = state.snapshot.services().len(),
            "ready"
        );
    }
    tokio::spawn(beat(Arc::clone(daemon)));
    tokio::spawn(follow_files(Arc::clone(daemon), watch));
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return None,
            _ = signals.interrupt.recv() => return None,
            // The sender lives as long as this daemon does.
            Ok(end) = &mut end => return Some(end),
            _ = signals.hang_up.recv() => reload(daemon, "SIGHUP").await,
            _ = ticks.tick() => {
                let daemon = Arc::clone(daemon);
                // Large tables take their time, and the heartbeat goes on meanwhile.
                let _ = tokio::task::spawn_blocking(move || {
                    daemon.tick();
                    daemon.guard();
                    daemon.recount_active();
                    daemon.programs_log.flush();
                })
                .await;
            }
        }
    }
}

/// Reloads whenever the files are others.
async fn follow_files(daemon: Arc<Daemon>, watch: Watch) {
    let stirred = watch.stirred();
    let watch = Arc::new(Mutex::new(watch));
    loop {
        // What is mounted over the network stirs nothing here.
        let _ = timeout(TICK, stirred.wait()).await;
        let (daemon, watch) = (Arc::clone(&daemon), Arc::clone(&watch));
        // Files may be far away, and the state in use for a while.
        let _ = tokio::task::spawn_blocking(move || reload_changed(&daemon, &watch)).await;
    }
}

/// Reloads if the files are others now.
fn reload_changed(daemon: &Daemon, watch: &Mutex<Watch>) {
    let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
    // What changes during a takeover is looked at afterwards, by whoever is there.
    if daemon.state().may_change().is_ok()
        && watch.changed()
        && daemon.reload("the files changed").is_err_and(|refused| refused.later)
    {
        watch.not_loaded();
    }
}

/// Tells the hooks that the daemon lives, as long as it does.
async fn beat(daemon: Arc<Daemon>) {
    let mut beats = interval(BEAT);
    loop {
        beats.tick().await;
        daemon.beat();
    }
}

/// Reloads where it may take its time. How it went is logged there.
async fn reload(daemon: &Arc<Daemon>, because: &'static str) {
    let daemon = Arc::clone(daemon);
    let _ = tokio::task::spawn_blocking(move || daemon.reload(because)).await;
}
