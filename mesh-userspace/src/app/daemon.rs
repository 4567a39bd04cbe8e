//! The daemon's state: what is configured, what operators changed, what the kernel was told.

use super::{
    bypass::BypassedCgroups,
    counts::Counts,
    departed::Departed,
    discovery::{self, Discovery},
    facts::Facts,
    guard::Guard,
    host,
    http::Http,
    logs::ProgramsLog,
    names::Names,
    probe::Truth,
    recount::Recount,
    registry::Registry,
    watches::Watches,
};
use crate::{
    api::{Mode, Screen, Time},
    config::{self, Config},
    datapath::Datapath,
    discovery::{Direct, kubernetes::Pods},
    health::Checker,
    kernel::{self, Kernel, Pins, Tables, Untold},
    model::{Node, Overrides, Service, Snapshot},
    telemetry::{log::Levels, logs::Logs},
};
use arc_swap::ArcSwap;
use mesh_common::settings::flags;
use std::{
    collections::HashSet,
    mem,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// The name under which the configuration files are listed as a source of services.
pub(super) const FILES: &str = "files";

/// How often cgroups that are left alone are looked for, in nanoseconds.
const BYPASSED_AGAIN: u64 = 2_000_000_000;

/// How often it is looked whether sets of other layouts are still needed, in nanoseconds.
const RETIRE_AGAIN: u64 = 5_000_000_000;

/// How often it is looked whether the kernel counts open circuits right, in nanoseconds.
const RECOUNT_AGAIN: u64 = 10_000_000_000;

/// A running daemon.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) started: Instant,
    /// The configuration that was named; `None`: the one at the default path.
    pub(super) named: Option<PathBuf>,
    /// What is done with connections.
    pub(super) mode: Mode,
    /// The programs, or why there are none.
    pub(super) kernel: Result<Kernel, String>,
    /// The intercepted cgroup, where there are programs.
    pub(super) cgroup: Option<PathBuf>,
    /// Where everything is pinned.
    pins: Pins,
    pub(super) levels: Levels,
    /// What became of requests and connections.
    pub(super) logs: Arc<Logs>,
    /// The id of its first line: later than whatever a daemon before this one told.
    pub(super) first_line: u64,
    /// What there was no room to tell the log of, as the kernel counts it.
    pub(super) untold: Mutex<Untold>,
    /// What was worth a word at the start and still holds.
    pub(super) notes: Vec<String>,
    pub(super) stopping: AtomicBool,
    /// Which sources have not told yet all they know, for whoever must not wait for the state.
    pub(super) unsynced: Mutex<Vec<String>>,
    /// Whether connects are really intercepted.
    pub(super) truth: Truth,
    pub(super) guard: Guard,
    pub(super) http: Http,
    /// Who answers for the names of services.
    pub(super) names: Names,
    /// Whose connections are whose, in a cluster.
    pub(super) pods: Arc<ArcSwap<Pods>>,
    pub(super) registry: Registry,
    pub(super) watches: Watches,
    /// Whether the kernel sees the daemon's own connections, as it does where this process is in the cgroup that it serves.
    pub(super) seen: bool,
    /// `SO_MARK` of the daemon's own connections; 0: none.
    pub(super) mark: u32,
    /// How sources are reached.
    pub(super) direct: Direct,
    /// Where the node is seen live.
    pub(super) screen: Screen,
    /// Sources of services besides the files.
    pub(super) discovery: OnceLock<Discovery>,
    /// Who checks endpoints, where there is a kernel to be told.
    pub(super) checker: OnceLock<Checker>,
    /// The node's name where the configuration has none: that of the start, whatever the host is called since.
    host_name: String,
    /// What the programs in the kernel log.
    pub(super) programs_log: ProgramsLog,
    pub(super) recount: Mutex<Recount>,
    /// Whether connections may have ended unseen since all counts agreed last. One that cannot be seen, in a namespace that
    /// this process may not enter or that only a thread is in, has not ended.
    pub(super) unseen: AtomicBool,
    /// Held during a look at live connections.
    pub(super) looking: Mutex<()>,
    /// Held from reading files to taking them, so that the last that was read is the one in force.
    reloading: Mutex<()>,
    state: Mutex<State>,
}

/// What changes while the daemon runs.
#[derive(Debug)]
pub(super) struct State {
    /// What is configured besides the facts, which were taken out of it.
    pub(super) config: Config,
    pub(super) loaded_at: Time,
    /// Why the last load was refused.
    pub(super) error: Option<String>,
    /// Whether there was a main file: one that goes away is a mistake then, not an empty configuration.
    pub(super) had_main_file: bool,
    /// What is worth a word about the files.
    findings: Vec<config::Finding>,
    fingerprint: u64,
    /// What files and sources say.
    pub(super) facts: Facts,
    overrides: Overrides,
    /// The process of a daemon that is taking over: nothing is changed meanwhile.
    pub(super) frozen: Option<i32>,
    /// Facts with overrides.
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) datapath: Option<Datapath>,
    /// What is no longer in the snapshot.
    pub(super) departed: Departed,
    /// Cgroups that are left alone, and when they are looked at again.
    pub(super) bypassed: Option<(BypassedCgroups, u64)>,
    /// When sets of other layouts are looked at again.
    retire_at: u64,
    /// When the tables want another look, in nanoseconds of the monotonic clock.
    pub(super) again_at: Option<u64>,
    /// When circuits are counted again.
    recount_at: u64,
    pub(super) updates: u64,
    pub(super) reload_failures: u64,
}

/// What a daemon is made of, besides its [`State`]: each as in [`Daemon`].
pub(super) struct Parts {
    pub(super) named: Option<PathBuf>,
    pub(super) mode: Mode,
    pub(super) kernel: Result<Kernel, String>,
    pub(super) cgroup: Option<PathBuf>,
    pub(super) levels: Levels,
    pub(super) logs: Arc<Logs>,
    pub(super) notes: Vec<String>,
    pub(super) registry: Registry,
}

/// What a reload did.
pub(super) enum Reloaded {
    /// The files say what they said before.
    Same,
    /// They are in force now.
    Changed {
        /// Services before and after.
        services: (usize, usize),
        /// What is worth a word.
        warnings: Vec<String>,
    },
}

/// Why a reload did nothing.
pub(super) struct NotReloaded {
    pub(super) why: String,
    /// Whether nothing is wrong with the configuration: nothing can be changed for the moment.
    pub(super) later: bool,
}

impl Reloaded {
    fn log(&self, because: &str) {
        match self {
            Self::Same => tracing::info!("configuration unchanged ({because})"),
            Self::Changed { services: (before, after), warnings } => {
                for warning in warnings {
                    tracing::warn!("{warning}");
                }
                tracing::info!(before, after, "configuration reloaded ({because})");
            }
        }
    }
}

impl State {
    /// What the files say of a service, runtime changes aside.
    pub(super) fn fact(&mut self, service: &str) -> Option<&mut Service> {
        self.facts.file(service)
    }

    /// Where this node is: as configured, else as a source knows it.
    pub(super) fn node(&self) -> Node {
        let mut node = self.config.node();
        if let Some(place) = self.facts.place() {
            if node.zone.is_empty() {
                node.zone.clone_from(&place.zone);
            }
            if node.region.is_empty() {
                node.region.clone_from(&place.region);
            }
        }
        node
    }

    /// What is worth a word about the files, and holds with what sources say besides.
    pub(super) fn warnings(&self) -> Vec<String> {
        let holds = |finding: &&config::Finding| match &finding.lacks {
            Some((service, lack)) => self.snapshot.service(service).is_none_or(|service| lack.is_of(service)),
            None => true,
        };
        self.findings.iter().filter(holds).map(ToString::to_string).collect()
    }

    /// What operators changed.
    pub(super) fn overrides(&self) -> &Overrides {
        &self.overrides
    }

    /// The configuration, with all services.
    pub(super) fn whole_config(&self) -> Config {
        self.config.with_services(self.facts.files())
    }

    /// `facts` were taken out of what was `loaded`.
    pub(super) fn new(
        loaded: config::Loaded,
        facts: Facts,
        had_main_file: bool,
        overrides: Overrides,
        datapath: Option<Datapath>,
        bypassed: Option<BypassedCgroups>,
    ) -> Self {
        Self {
            frozen: None,
            snapshot: Arc::new(Snapshot::new(facts.services(), &overrides)),
            facts,
            overrides,
            datapath,
            departed: Departed::default(),
            bypassed: bypassed.map(|bypassed| (bypassed, 0)),
            loaded_at: Time::now(),
            error: None,
            had_main_file,
            findings: loaded.warnings,
            fingerprint: loaded.fingerprint,
            config: loaded.config,
            retire_at: 0,
            again_at: None,
            recount_at: 0,
            updates: 1,
            reload_failures: 0,
        }
    }
}

impl Daemon {
    pub(super) fn new(parts: Parts, state: State) -> Self {
        let Parts { named, mode, kernel, cgroup, levels, logs, notes, registry } = parts;
        let pins = Pins::new(&state.config.dataplane.bpffs);
        let mark = kernel::mark_or_none(state.config.dataplane.mark);
        let programs_log = ProgramsLog::new(levels.directives().of_programs());
        Self {
            started: Instant::now(),
            named,
            mode,
            kernel,
            seen: cgroup.as_deref().is_none_or(kernel::is_in),
            cgroup,
            pins,
            http: Http::new(&state.config, &logs),
            levels,
            logs,
            first_line: {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since.as_micros()).unwrap_or(0)
            },
            untold: Mutex::default(),
            notes,
            stopping: AtomicBool::new(false),
            // Whoever asks before sources are at work is told so.
            unsynced: Mutex::new(discovery::unsynced(&state)),
            truth: Truth::default(),
            guard: Guard::default(),
            names: Names::default(),
            pods: Arc::default(),
            registry,
            watches: Watches::default(),
            mark,
            direct: Direct::new(mark),
            screen: Screen::default(),
            discovery: OnceLock::new(),
            checker: OnceLock::new(),
            host_name: host().name,
            programs_log,
            recount: Mutex::default(),
            // While no daemon was there; but who may not look into namespaces would take all that is in them for ended.
            unseen: AtomicBool::new(kernel::can_mount()),
            looking: Mutex::new(()),
            reloading: Mutex::new(()),
            state: Mutex::new(state),
        }
    }

    /// The state. A panic in another holder is no reason to stop serving.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kernel's tables, where there are programs.
    pub(super) fn tables(&self) -> Option<&Tables> {
        self.kernel.as_ref().ok().map(|kernel| &**kernel.tables())
    }

    /// Tells the hooks that the daemon lives.
    pub(super) fn beat(&self) {
        if let Some(tables) = self.tables() {
            tables.beat(now());
        }
    }

    /// Whether the kill switch is on.
    pub(super) fn bypass(&self) -> bool {
        self.tables().is_some_and(|tables| tables.settings().flags & flags::BYPASS != 0)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Makes the snapshot and the kernel's tables say what facts and overrides say. Returns what did not fit.
    pub(super) fn publish(&self, state: &mut State) -> Vec<String> {
        state.facts.settle(self.started.elapsed());
        let before =
            mem::replace(&mut state.snapshot, Arc::new(Snapshot::new(state.facts.services(), &state.overrides)));
        let mut departed = mem::take(&mut state.departed);
        departed.note(&before, &state.snapshot, &Counts::new(self, state), self.started.elapsed());
        state.departed = departed;
        let node = state.node();
        if let Some(datapath) = &mut state.datapath {
            datapath.set_node(node);
        }
        let problems = self.write_tables(state);
        self.publish_requests(state);
        self.configure_logs(&state.config.telemetry);
        self.names.publish(&state.facts);
        self.check(state);
        self.watches.touch();
        problems
    }

    fn write_tables(&self, state: &mut State) -> Vec<String> {
        let Some(datapath) = &mut state.datapath else { return Vec::new() };
        let before: HashSet<String> = datapath.problems().iter().cloned().collect();
        state.again_at = match self.tables() {
            Some(tables) => datapath.apply(tables, &state.snapshot, now()),
            None => datapath.note_snapshot(&state.snapshot, now()),
        };
        for problem in datapath.problems().iter().filter(|p| !before.contains(*p)) {
            tracing::warn!("{problem}");
        }
        datapath.problems().to_vec()
    }

    /// Does what was put off until now.
    pub(super) fn tick(&self) {
        self.registry.look();
        let mut state = self.state();
        if state.may_change().is_err() {
            return;
        }
        if state.again_at.is_some_and(|at| at <= now()) {
            self.write_tables(&mut state);
        }
        if state.recount_at <= now() {
            state.recount_at = now() + RECOUNT_AGAIN;
            self.recount(&mut state);
        }
        self.refresh(&mut state);
        self.names.try_again(&state.config.discovery.names(), &state.facts);
        if let (Some(tables), Some((bypassed, at))) = (self.tables(), &mut state.bypassed)
            && *at <= now()
        {
            bypassed.refresh(tables);
            *at = now() + BYPASSED_AGAIN;
        }
        if self.kernel.is_ok() && state.retire_at <= now() {
            state.retire_at = now() + RETIRE_AGAIN;
            // Under the state's lock: a daemon of another layout that takes over must not find its pins removed.
            self.retire();
        }
    }

    /// Removes what daemons of other layouts left, once nobody needs it.
    fn retire(&self) {
        let Some(cgroup) = &self.cgroup else { return };
        match kernel::retire(&self.pins, || kernel::namespaces(cgroup)) {
            Ok(retired) => {
                retired.iter().for_each(|path| tracing::info!("{} is removed: its connections ended", path.display()))
            }
            Err(why) => tracing::debug!("{why}"),
        }
    }

    /// Loads the configuration again, `because` of something: whole, or not at all. The log tells how it went.
    ///
    /// # Errors
    /// [`NotReloaded`]; the running configuration stays.
    pub(super) fn reload(&self, because: &str) -> Result<Reloaded, NotReloaded> {
        let reloaded = self.load_again(because);
        kernel::give_back_memory();
        reloaded
    }

    fn load_again(&self, because: &str) -> Result<Reloaded, NotReloaded> {
        let _turn = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        // Reading and checking may take long: not under the state's lock.
        let (main, _) = config::places(self.named.as_deref());
        let expected = self.named.is_some() || self.state().had_main_file;
        let exists = main.exists();
        let host = config::Host { name: self.host_name.clone(), ..host() };
        let loaded = config::load(expected.then_some(main.as_path()), &host).map_err(|errors| errors.to_string());
        let mut state = self.state();
        if let Err(why) = state.may_change() {
            drop(state);
            tracing::error!("configuration not loaded ({because}): {why}");
            return Err(NotReloaded { why, later: true });
        }
        match loaded.and_then(|loaded| self.take(&mut state, loaded)) {
            Ok(reloaded) => {
                state.error = None;
                state.had_main_file |= exists;
                drop(state);
                reloaded.log(because);
                Ok(reloaded)
            }
            Err(why) => {
                // The same mistake found again, by whatever way, is not another one.
                if state.error.as_ref() != Some(&why) {
                    state.reload_failures += 1;
                }
                state.error = Some(why.clone());
                drop(state);
                tracing::error!("configuration refused ({because}), the running one stays: {why}");
                Err(NotReloaded { why, later: false })
            }
        }
    }

    fn take(&self, state: &mut State, mut loaded: config::Loaded) -> Result<Reloaded, String> {
        if loaded.fingerprint == state.fingerprint {
            state.loaded_at = Time::now();
            return Ok(Reloaded::Same);
        }
        config::reload(&state.config, &loaded.config).map_err(|keys| keys.join("\n"))?;
        let services = loaded.config.take_services();
        if let Some(datapath) = &state.datapath {
            datapath.fits(&services)?;
        }
        let place = self.registry.prepare(loaded.config.discovery.registry(), None).map_err(|e| e.to_string())?;
        self.levels.configure(&loaded.config.telemetry.log.level).map_err(|e| e.to_string())?;
        self.registry.settle(place);
        let before = state.facts.files().len();
        state.facts.configure(&loaded.config, services);
        state.config = loaded.config;
        state.fingerprint = loaded.fingerprint;
        state.loaded_at = Time::now();
        state.updates += 1;
        state.findings = loaded.warnings;
        let problems = self.publish(state);
        if let Some(discovery) = self.discovery.get() {
            discovery.work(&state.config, state.facts.names());
        }
        self.names.work(&state.config.discovery.names(), &state.facts);
        let mut warnings = state.warnings();
        warnings.extend(self.follow_level());
        warnings.extend(problems);
        Ok(Reloaded::Changed { services: (before, state.facts.files().len()), warnings })
    }

    /// Changes the overrides, and then everything that follows from them. Returns what did not fit.
    pub(super) fn change<E>(
        &self,
        state: &mut State,
        change: impl FnOnce(&mut Overrides, &[Arc<Service>]) -> Result<(), E>,
    ) -> Result<Vec<String>, E> {
        state.facts.settle(self.started.elapsed());
        change(&mut state.overrides, state.facts.services())?;
        Ok(self.publish(state))
    }
}

/// CLOCK_MONOTONIC in nanoseconds, the clock of `bpf_ktime_get_ns`.
pub(super) fn now() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    time.map_or(0, |t| u64::try_from(std::time::Duration::from(t).as_nanos()).unwrap_or(u64::MAX))
}
