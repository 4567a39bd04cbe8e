//! `mesh run`: from the configuration to a daemon at work, and to its end.

use super::{
    admin::Admin,
    daemon::{self, Daemon, Reloaded, State},
    host,
    lock::Locks,
    source::Watch,
};
use crate::{
    api::{Addresses, Mode},
    config::{self, Cgroup, Config},
    datapath::{self, Datapath},
    kernel::{self, Capacity, Kernel, KernelError, Options, Pins},
    model::{Overrides, Snapshot},
    telemetry::log::{self, Levels},
};
use mesh_common::settings::{Settings, flags};
use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

/// How often files, postponed writes and the programs' log are looked at.
const TICK: Duration = Duration::from_millis(500);

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// Why it cannot start, and what to do about it.
pub fn run(named: Option<PathBuf>) -> Result<(), String> {
    let watch = Watch::new(named.as_deref());
    let loaded = config::load(named.as_deref(), &host()).map_err(|errors| errors.to_string())?;
    let config = &loaded.config;
    let levels = start_log(config)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    // From here on a signal waits for its turn: one that comes during the start ends a daemon that is whole.
    let signals = {
        let _context = runtime.enter();
        Signals::new().map_err(|e| format!("signals cannot be handled: {e}"))?
    };
    let mut locks = Locks::default();
    prepare_state(&config.node.state_dir)?;
    locks.add("state directory", &config.node.state_dir).map_err(|e| e.to_string())?;
    let addresses = Addresses {
        listen: Some(config.admin.listen.0),
        metrics_listen: config.admin.metrics_listen.0,
        socket: Some(config.admin.socket.clone()),
    };
    // Before anything is attached: a daemon that cannot be asked must not begin to intercept.
    let admin = Admin::bind(addresses)?;
    let Prepared { mode, kernel, cgroup, notes } = prepare(&loaded, &mut locks)?;
    let (kernel, datapath) = match kernel {
        Ok((kernel, datapath)) => (Ok(kernel), Some(datapath)),
        Err(why) => (Err(why), None),
    };
    let _stats = match config.dataplane.program_stats && kernel.is_ok() {
        true => kernel::program_stats().inspect_err(|e| tracing::warn!("{e}")).ok(),
        false => None,
    };
    let state = State::new(loaded, datapath);
    let mut daemon = Daemon::new(named, mode, kernel, cgroup, levels, notes, state);
    let programs_log = daemon.kernel.as_mut().ok().and_then(Kernel::take_log);
    let daemon = Arc::new(daemon);
    // Again, for whatever did not fit at first and for what there is to say about it.
    daemon.publish(&mut daemon.state());
    let admin = admin.serve(&daemon)?;
    runtime.block_on(serve(&daemon, signals, watch, programs_log));
    daemon.stopping.store(true, Ordering::Relaxed);
    admin.stop();
    tracing::info!("stopped; the kernel goes on with what it was told last (`mesh unload` removes it)");
    drop(locks);
    Ok(())
}

fn start_log(config: &Config) -> Result<Levels, String> {
    let json = config.telemetry.log.format == config::LogFormat::Json;
    log::start(json, &config.telemetry.log.level).map_err(|e| e.to_string())
}

fn prepare_state(directory: &Path) -> Result<(), String> {
    let refuse = |e| format!("node.state_dir {}: {e}; create it, or set another one", directory.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(refuse)
}

/// What the data path will be.
struct Prepared {
    mode: Mode,
    kernel: Result<(Kernel, Datapath), String>,
    cgroup: Option<PathBuf>,
    notes: Vec<String>,
}

/// Loads the programs, as `dataplane.mode` wants it.
fn prepare(loaded: &config::Loaded, locks: &mut Locks) -> Result<Prepared, String> {
    let wanted = loaded.config.dataplane.mode;
    if wanted == config::Mode::Userspace {
        let pins = Pins::new(&loaded.config.dataplane.bpffs);
        let left = "programs of an earlier daemon are still attached and translate; `mesh unload` removes them";
        let notes: Vec<String> = pins.any_link().then(|| left.to_owned()).into_iter().collect();
        notes.iter().for_each(|note| tracing::warn!("{note}"));
        let why = Err("dataplane.mode is userspace".to_owned());
        return Ok(Prepared { mode: Mode::Userspace, kernel: why, cgroup: None, notes });
    }
    let observe = wanted == config::Mode::Observe;
    match load(loaded, observe, locks) {
        Ok((kernel, datapath, cgroup)) => {
            let mut notes = kernel.notes.clone();
            notes.extend(
                kernel
                    .programs()
                    .into_iter()
                    .filter_map(|p| p.missing.map(|why| format!("program {} ({}) is left out: {why}", p.name, p.hook))),
            );
            if kernel.tables().settings().flags & flags::BYPASS != 0 {
                notes.push(
                    "bypass is still on from before: nothing is translated; `mesh bypass off` ends it".to_owned(),
                );
            }
            notes.iter().for_each(|note| tracing::warn!("{note}"));
            let (programs, adopted) = (kernel.attached(), kernel.adopted);
            tracing::info!(cgroup = %cgroup.display(), programs, adopted, "programs attached");
            let mode = if observe { Mode::Observe } else { Mode::Ebpf };
            Ok(Prepared { mode, kernel: Ok((kernel, datapath)), cgroup: Some(cgroup), notes })
        }
        Err(LoadError::Taken(why)) => Err(why),
        Err(LoadError::Kernel(e)) if wanted == config::Mode::Auto => {
            let why = e.to_string();
            tracing::warn!("no connection is intercepted, running as dataplane.mode userspace: {why}");
            Ok(Prepared { mode: Mode::Userspace, kernel: Err(why), cgroup: None, notes: Vec::new() })
        }
        Err(LoadError::Kernel(e)) => Err(format!("dataplane.mode {}: {e}", wanted.word())),
    }
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

fn load(loaded: &config::Loaded, observe: bool, locks: &mut Locks) -> Result<(Kernel, Datapath, PathBuf), LoadError> {
    let config = &loaded.config;
    let missing = kernel::missing_capabilities();
    if !missing.is_empty() {
        return Err(KernelError::Capabilities(missing).into());
    }
    let path = match &config.dataplane.cgroup {
        Cgroup::Auto => kernel::cgroup2_root()?,
        Cgroup::Path(path) => path.clone(),
    };
    let cgroup = kernel::open_cgroup(&path)?;
    let bpffs = &config.dataplane.bpffs;
    if let Some(point) = kernel::ensure_bpffs(bpffs)? {
        tracing::info!("no bpf file system was mounted: mounted one at {}", point.display());
    }
    let taken = |e: super::lock::LockError| LoadError::Taken(e.to_string());
    locks.add("cgroup", &path).map_err(taken)?;
    locks.add("pin directory", bpffs).map_err(taken)?;
    let pins = Pins::new(bpffs);
    let mut kernel = kernel::load(&Options {
        object: kernel::OBJECT,
        pins: &pins,
        capacity: capacity(config),
        log_level: log::most_verbose(&config.telemetry.log.level),
        settings: Settings {
            flags: if observe { flags::OBSERVE } else { 0 },
            mark: u64::from(config.dataplane.mark.get()),
        },
    })?;
    // Tables first, programs after them: no connect is ever looked up in tables that are not filled.
    let mut datapath = Datapath::adopt(kernel.tables(), daemon::now());
    let facts: Vec<_> = config.services().into_iter().map(Arc::new).collect();
    datapath.apply(kernel.tables(), &Snapshot::new(&facts, &Overrides::default()), daemon::now());
    kernel.attach(&pins, &cgroup)?;
    Ok((kernel, datapath, path))
}

/// How much the tables must hold: as configured, else what the configuration needs with a quarter to spare, and no
/// less than what a small node grows into without a restart.
fn capacity(config: &Config) -> Capacity {
    let needs = datapath::needs(&config.services());
    let roomy = |needed: u32, floor: u32| needed.saturating_add(needed / 4).max(floor);
    let services = config.dataplane.max_services.exact().unwrap_or_else(|| roomy(needs.services, 4096));
    Capacity {
        services,
        vips: roomy(needs.vips, services.saturating_mul(2)),
        endpoints: config.dataplane.max_endpoints.exact().unwrap_or_else(|| roomy(needs.endpoints, 16_384)),
        slots: config.dataplane.max_slots.exact().unwrap_or_else(|| roomy(needs.slots.saturating_mul(2), 262_144)),
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

/// Waits for signals, changed files and postponed work, until it is told to stop.
async fn serve(
    daemon: &Arc<Daemon>,
    mut signals: Signals,
    mut watch: Watch,
    mut programs_log: Option<impl FnMut() + Send>,
) {
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
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.hang_up.recv() => reload(daemon, "SIGHUP"),
            _ = ticks.tick() => {
                if watch.changed() {
                    reload(daemon, "the files changed");
                }
                daemon.tick();
                if let Some(flush) = &mut programs_log {
                    flush();
                }
            }
        }
    }
}

fn reload(daemon: &Daemon, because: &str) {
    match daemon.reload() {
        Ok(Reloaded::Same) => tracing::info!("configuration unchanged ({because})"),
        Ok(Reloaded::Changed { services: (before, after), warnings }) => {
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            tracing::info!(before, after, "configuration reloaded ({because})");
        }
        Err(why) => tracing::error!("configuration refused ({because}), the running one stays: {why}"),
    }
}
