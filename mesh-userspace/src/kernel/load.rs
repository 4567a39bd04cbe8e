//! From an object to programs at work: tables made or adopted, programs loaded one by one, then attached.

use super::{
    KernelError, Pins, Tables, attach,
    error::chain,
    events::{Endings, Events},
    grow,
    host::open_cgroup,
    live::Live,
    offsets,
    pinned::Pinned,
    pins::{Found, Shape},
    probe_rows::PROBE_ROWS,
    runs::{self, EarlierRuns, Runs},
    sys::{self, AttachType},
    tables::MAX_ORIGINALS,
    verbosity::Unpinned,
    versions,
    work::{Detached, Work},
};
use aya::{
    Ebpf, EbpfLoader,
    programs::{Program, ProgramError},
};
use mesh_common::{
    capture::{ClientEnd, ListenerKey, Original},
    client::{ClientKey, ClientRow},
    connection::Record,
    endpoint::{EndpointCounts, EndpointRow, EndpointState, EndpointTimes, Picks, Slot},
    names,
    reason::ServiceCounts,
    service::{ServiceRow, ServiceState, VipKey, VipRow},
    settings::{Settings, flags},
};
use std::{
    fs::{self, File},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How much the tables hold. Kernel memory: 96 bytes a VIP, 424 a service, 496 an endpoint, 8 a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Services.
    pub services: u32,
    /// VIPs of all services.
    pub vips: u32,
    /// Endpoints of all services.
    pub endpoints: u32,
    /// Slots of all services; twice the needed number, because a changed range is written beside the old one.
    pub slots: u32,
}

/// What to load, and where.
pub struct Options<'a> {
    /// The eBPF object: [`super::OBJECT`], or a test's own.
    pub object: &'a [u8],
    /// Where maps and links are pinned; `None`: nowhere, and all is gone from the kernel with the [`Kernel`].
    pub pins: Option<&'a Pins>,
    /// The least that the tables must hold; adopted ones may hold more.
    pub capacity: Capacity,
    /// The most verbose level of the programs' own logs, 0 (none) to 5 (trace). What is above costs nothing.
    pub log_level: u8,
    /// Settings the hooks find from the first moment.
    pub settings: Settings,
}

/// One program of the object, and where it runs.
pub(super) struct Spec {
    pub(super) name: &'static str,
    pub(super) hook: &'static str,
    pub(super) at: AttachType,
    /// What is lost where the kernel refuses it; `None`: everything, since nothing can be intercepted without it.
    pub(super) without: Option<&'static str>,
}

const PEER: &str = "applications see the endpoint's address in place of the VIP (getpeername)";
const SETTLED: &str = "connects that this node could not make (no route, no local port) are not all counted";

/// In the order of attaching: readers first, so that a connection is known to them from its first moment; connect last.
pub(super) const PROGRAMS: [Spec; 6] = [
    Spec { name: "mesh_sock_ops", hook: "sock_ops", at: AttachType::SockOps, without: None },
    Spec { name: "mesh_peername4", hook: "cgroup/getpeername4", at: AttachType::Getpeername4, without: Some(PEER) },
    Spec { name: "mesh_peername6", hook: "cgroup/getpeername6", at: AttachType::Getpeername6, without: Some(PEER) },
    Spec { name: RELEASE, hook: "cgroup/sock_release", at: AttachType::SockRelease, without: Some(SETTLED) },
    Spec { name: "mesh_connect6", hook: "cgroup/connect6", at: AttachType::Connect6, without: None },
    Spec { name: "mesh_connect4", hook: "cgroup/connect4", at: AttachType::Connect4, without: None },
];

/// Settles connects that TCP never heard of.
const RELEASE: &str = "mesh_release";

/// Runs over the sockets of a namespace, at no cgroup: name, hook, and what is lost without it.
const ITERATOR: (&str, &str, &str) = ("mesh_live", "iter/tcp", offsets::LIVE);

/// Cgroups that `dataplane.bypass` can name.
pub const MAX_BYPASSED: u32 = 1024;

/// Clients of services with affinity that are remembered, 4 MiB of kernel memory; the least recently seen go first.
const MAX_CLIENTS: u32 = 32_768;

/// Listeners of the daemon: of both families in half as many network namespaces. Memory is taken as they come.
const MAX_LISTENERS: u32 = 8192;

/// Where each of our programs runs, by its name: hook and attach type.
pub(super) fn places() -> impl Iterator<Item = (&'static str, &'static str, AttachType)> {
    PROGRAMS.iter().map(|spec| (spec.name, spec.hook, spec.at))
}

/// What became of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramStatus {
    /// Its name.
    pub name: &'static str,
    /// The hook it is for.
    pub hook: &'static str,
    /// Why it is not attached; `None`: it is.
    pub missing: Option<String>,
    /// What is lost without it; `None`: nothing can be intercepted.
    pub without: Option<&'static str>,
    /// Runs and nanoseconds in all, where they are counted ([`Kernel::count_runs`]); never of the iterator.
    pub runs: Option<(u64, u64)>,
}

/// What the kernel said to a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Its name.
    pub name: &'static str,
    /// The hook it is for.
    pub hook: &'static str,
    /// Whether nothing can be intercepted without it.
    pub required: bool,
    /// Why it was refused; `None`: it was not.
    pub refused: Option<String>,
}

/// What a map holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapStatus {
    /// Its name.
    pub name: &'static str,
    /// How many entries fit.
    pub capacity: u32,
    /// Kernel memory in bytes, as the kernel says.
    pub bytes: u64,
}

/// The programs at work. Dropping it leaves them at work: the pins hold them.
#[derive(Debug)]
pub struct Kernel {
    ebpf: Mutex<Ebpf>,
    pub(super) unpinned: Unpinned,
    tables: Arc<Tables>,
    live: Result<Live, String>,
    /// Why the kernel does not run the iterator.
    iterator: Option<String>,
    pub(super) missing: Missing,
    pub(super) earlier: Option<EarlierRuns>,
    work: Mutex<Work>,
    /// Open while the kernel counts runs of programs for us.
    stats: Option<OwnedFd>,
    pub(super) pinned: Option<Pinned>,
    /// What the kernel does not show on this host, and what follows from it.
    pub notes: Vec<String>,
    /// Whether tables of an earlier daemon were adopted.
    pub adopted: bool,
}

/// Loads the object: its tables are there, made or adopted; its programs wait for [`Kernel::attach`].
///
/// An optional program that this kernel refuses is left out and named in [`Kernel::programs`].
///
/// # Errors
/// [`KernelError`]: what is wrong and what to do; nothing new stays in the kernel then.
pub fn load(options: &Options<'_>) -> Result<Kernel, KernelError> {
    let kernel = try_load(options)?;
    let required = kernel.verdicts().into_iter().find(|v| v.required && v.refused.is_some());
    let Some(Verdict { name, hook, refused: Some(why), .. }) = required else { return Ok(kernel) };
    if let Some(pins) = options.pins.filter(|_| !kernel.adopted) {
        pins.remove_maps()?;
    }
    Err(KernelError::Required { program: name, hook, why })
}

/// As [`load`], but without required programs too, where the kernel refuses them: [`Kernel::verdicts`] has them all.
///
/// # Errors
/// [`KernelError`], where not even the tables can be had.
pub fn try_load(options: &Options<'_>) -> Result<Kernel, KernelError> {
    let mut notes = Vec::new();
    let mut bypass = options.pins.is_some_and(versions::bypass);
    let shapes = shapes(&options.capacity);
    let mut sizes = None;
    if let Some(pins) = options.pins {
        pins.create()?;
        grow::recover(pins)?;
        match pins.check(&shapes) {
            Found::Nothing => {}
            Found::Fit(found) => sizes = Some(grown(pins, &shapes, found)?),
            Found::Unfit(why) => {
                notes.push(format!("pinned tables were not adopted, their counters start again: {why}"));
                let settings = Tables::pinned_settings(&pins.map(names::SETTINGS));
                bypass |= settings.is_some_and(|s| s.flags & flags::BYPASS != 0);
                // Programs that are attached go on with the old tables until they are replaced.
                pins.remove_maps()?;
            }
        }
    }
    let adopted = sizes.is_some();
    let sizes = sizes.unwrap_or_else(|| shapes.iter().map(|s| s.entries).collect());
    let loaded = load_object(options, &shapes, &sizes, &mut notes);
    if let Some(pins) = options.pins.filter(|_| loaded.is_err() && !adopted) {
        pins.remove_maps()?;
    }
    let (mut ebpf, tables, missing) = loaded?;
    let unpinned = Unpinned::of(&ebpf)?;
    let (live, why) = match Live::load(&mut ebpf, ITERATOR.0) {
        Ok((live, why)) => (Ok(live), why),
        Err(why) => (Err(why.clone()), Some(why)),
    };
    // Cgroups that are left alone are, until the daemon looks for them again. The kill switch holds until it is
    // switched off, whoever restarts the daemon.
    bypass |= tables.settings().flags & flags::BYPASS != 0;
    let kept = tables.settings().flags & flags::BYPASSED | if bypass { flags::BYPASS } else { 0 };
    // Workers of a daemon that is about to be followed go on until it hands their listeners over.
    let workers = tables.settings().workers;
    tables.put_settings(&Settings { flags: options.settings.flags | kept, workers, ..options.settings });
    let earlier = options.pins.map(|pins| EarlierRuns::open(pins, u32::try_from(PROGRAMS.len()).unwrap_or(u32::MAX)));
    if let Some(Err(why)) = &earlier {
        notes.push(format!("runs of replaced programs are not counted: {why}"));
    }
    let earlier = earlier.and_then(Result::ok);
    let pinned = options.pins.map(Pinned::open).transpose()?;
    let tables = Arc::new(tables);
    let (ebpf, work) = (Mutex::new(ebpf), Mutex::default());
    Ok(Kernel {
        ebpf,
        unpinned,
        tables,
        live,
        iterator: why,
        missing,
        earlier,
        work,
        stats: None,
        pinned,
        notes,
        adopted,
    })
}

/// Whether a daemon with tables of this size would go on with those that are pinned; `None`: there are none.
///
/// # Errors
/// Why it would not, and so start with new ones.
pub fn adoptable(pins: &Pins, capacity: &Capacity) -> Result<Option<()>, String> {
    match pins.check(&shapes(capacity)) {
        Found::Nothing => Ok(None),
        Found::Fit(_) => Ok(Some(())),
        Found::Unfit(why) => Err(why),
    }
}

/// Puts larger tables in the place of those that are too small. Returns the sizes of now.
fn grown(pins: &Pins, shapes: &[Shape], mut sizes: Vec<u32>) -> Result<Vec<u32>, KernelError> {
    for (shape, size) in shapes.iter().zip(&mut sizes) {
        if *size < shape.entries {
            tracing::info!("table {} grows from {size} to {} entries", shape.name, shape.entries);
            grow::grow(pins, shape)?;
            *size = shape.entries;
        }
    }
    Ok(sizes)
}

type Missing = Vec<(&'static str, String)>;

fn load_object(
    options: &Options<'_>,
    shapes: &[Shape],
    sizes: &[u32],
    notes: &mut Vec<String>,
) -> Result<(Ebpf, Tables, Missing), KernelError> {
    let mut loader = EbpfLoader::new();
    for (shape, entries) in shapes.iter().zip(sizes) {
        if shape.entries > 0 {
            loader.map_max_entries(shape.name, *entries);
        }
        if let Some(pins) = options.pins {
            loader.map_pin_path(shape.name, pins.map(shape.name));
        }
    }
    let offsets = offsets::find(notes);
    for (name, value) in &offsets {
        loader.override_global(name, value, true);
    }
    loader.override_global(aya_log::LEVEL, &options.log_level, false);
    // The loader tries what the kernel can do, and takes a refusal for a lack that it then stumbles over.
    let mut ebpf = loader.load(options.object).map_err(|error| match sys::can_load() {
        Ok(()) => KernelError::Object(chain(&error)),
        Err(refused) => KernelError::Forbidden(refused),
    })?;
    let tables = Tables::take(&mut ebpf, options.pins)?;
    let mut missing = Vec::new();
    for spec in &PROGRAMS {
        if let Err(why) = load_program(&mut ebpf, spec.name) {
            missing.push((spec.name, why));
        }
    }
    Ok((ebpf, tables, missing))
}

impl Kernel {
    /// Puts the programs to work on a cgroup, under links that an earlier daemon pinned or under new ones. The tables
    /// must be filled by now: from the first program on, connects are looked up in them. Returns what is worth a word.
    ///
    /// Called again, it puts them to work on the cgroup that has the place of one that was removed.
    ///
    /// # Errors
    /// [`KernelError::Cgroup`]; [`KernelError::Required`], and links that are new are gone again then.
    pub fn attach(&self, cgroup: &Path) -> Result<Vec<String>, KernelError> {
        self.attach_from(&self.ebpf(), cgroup)
    }

    /// Puts the programs of `ebpf` to work.
    pub(super) fn attach_from(&self, ebpf: &Ebpf, cgroup: &Path) -> Result<Vec<String>, KernelError> {
        let directory = open_cgroup(cgroup)?;
        let inode = directory.metadata().map_err(|e| KernelError::io("looking at the cgroup", e))?.ino();
        let mut work = Work { cgroup: cgroup.to_owned(), inode, ..Work::default() };
        let mut notes = Vec::new();
        let pins = self.pins();
        let mut made = Vec::new();
        for (position, spec) in PROGRAMS.iter().enumerate() {
            // An older version that is still attached would work on tables that may not be these.
            let take_off = || {
                if let Some(pins) = pins.filter(|pins| pins.link(spec.name).exists()) {
                    let _ = pins.remove_link(spec.name);
                }
            };
            if self.missing.iter().any(|(name, _)| *name == spec.name) {
                take_off();
                continue;
            }
            // Not 0 where it was at work before, and another daemon's program after it.
            let own = runs_of(ebpf, spec.name);
            match self.attach_one(ebpf, spec, &directory) {
                Ok(attached) => {
                    if let (Some(earlier), Some(replaced)) = (&self.earlier, attached.replaced) {
                        earlier.replace(position, replaced, own);
                    }
                    if attached.new {
                        made.push(spec.name);
                    }
                    notes.extend(attached.note);
                    work.links.push((spec.name, attached.link));
                }
                Err(why) if spec.without.is_none() => {
                    for program in made {
                        // Worth a try; what is reported is why the program could not be attached.
                        let _ = pins.map(|pins| pins.remove_link(program));
                    }
                    return Err(KernelError::Required { program: spec.name, hook: spec.hook, why });
                }
                Err(why) => {
                    take_off();
                    work.missing.push((spec.name, why));
                }
            }
        }
        // Both translate for a moment: whoever comes first leaves an endpoint's address, which is no VIP to the other.
        match pins.map_or(Ok(Vec::new()), versions::succeed) {
            Ok(others) => notes.extend(others.iter().map(|path| {
                format!("{} is of another layout: it serves the connections it has until they end", path.display())
            })),
            Err(why) => notes.push(why.to_string()),
        }
        *self.work() = work;
        Ok(notes)
    }

    /// Forgets the tables of a start that came to nothing, unless they are those of an earlier daemon.
    pub fn give_up(&self) {
        if let Some(pins) = self.pins().filter(|pins| !self.adopted && !pins.any_link()) {
            // Worth a try: what is reported is why the start came to nothing.
            let _ = pins.remove_maps();
        }
    }

    fn attach_one(&self, ebpf: &Ebpf, spec: &Spec, cgroup: &File) -> Result<attach::Attached, String> {
        let program = ebpf.program(spec.name).ok_or("the object does not have it")?;
        let fd = program.fd().map_err(|e| chain(&e))?;
        attach::attach(self.pins(), spec.name, fd.as_fd(), cgroup, spec.at).map_err(|e| e.to_string())
    }

    /// The object that the programs are from.
    pub(super) fn ebpf(&self) -> MutexGuard<'_, Ebpf> {
        self.ebpf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pins(&self) -> Option<&Pins> {
        self.pinned.as_ref().map(|pinned| &pinned.pins)
    }

    /// What the kernel said to every program, attached or not.
    #[must_use]
    pub fn verdicts(&self) -> Vec<Verdict> {
        let refused = |name| self.missing.iter().find(|(n, _)| *n == name).map(|(_, why)| why.clone());
        let of = |spec: &Spec| Verdict {
            name: spec.name,
            hook: spec.hook,
            required: spec.without.is_none(),
            refused: refused(spec.name),
        };
        let (name, hook, _) = ITERATOR;
        let live = Verdict { name, hook, required: false, refused: self.iterator.clone() };
        PROGRAMS.iter().map(of).chain([live]).collect()
    }

    /// The tables.
    #[must_use]
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// The look at live connections, or why there is none.
    ///
    /// # Errors
    /// What the kernel said to the iterator.
    pub fn live(&self) -> Result<&Live, &str> {
        self.live.as_ref().map_err(String::as_str)
    }

    /// Has the kernel count how often programs run, and how long, as long as this lives.
    ///
    /// # Errors
    /// [`KernelError::Io`].
    pub fn count_runs(&mut self) -> Result<(), KernelError> {
        let stats = aya::sys::enable_stats(aya::sys::Stats::RunTime);
        self.stats = Some(stats.map_err(|e| KernelError::io("switching program statistics on", e.io_error))?);
        Ok(())
    }

    /// Takes the programs' log records out of the object, once: they go to the `log` crate's logger whenever the
    /// returned function is called. `None` if the programs were built without logs.
    pub fn take_log(&self) -> Option<impl FnMut() + Send + use<>> {
        let mut logger = aya_log::EbpfLogger::init(&mut self.ebpf()).ok()?;
        Some(move || logger.flush())
    }

    /// Takes the ring buffer of events out of the object, once.
    ///
    /// # Errors
    /// [`KernelError::Map`], if it was taken before.
    pub fn take_events(&self) -> Result<Events, KernelError> {
        Events::of(&mut self.ebpf())
    }

    /// Takes the ring buffer of connections that ended out of the object, once.
    ///
    /// # Errors
    /// [`KernelError::Map`], if it was taken before.
    pub fn take_endings(&self) -> Result<Endings, KernelError> {
        Endings::of(&mut self.ebpf())
    }

    /// What became of every program.
    #[must_use]
    pub fn programs(&self) -> Vec<ProgramStatus> {
        let (ebpf, work) = (self.ebpf(), self.work());
        let status = |(position, spec): (usize, &Spec)| {
            let refused = self.missing.iter().chain(&work.missing).find(|(name, _)| *name == spec.name);
            let gone = || (!work.is_attached(spec.name)).then(|| work.detached().to_string());
            let missing = refused.map(|(_, why)| why.clone()).or_else(gone);
            let info = ebpf.program(spec.name).and_then(|p| p.info().ok());
            let (runs, ns) = self.earlier.as_ref().map_or((0, 0), |earlier| earlier.of(position));
            let runs = info.map(|info| runs::counted(&info)).map(|now| (runs + now.0, ns.saturating_add(now.1)));
            let runs = runs.filter(|_| missing.is_none() && self.stats.is_some());
            ProgramStatus { name: spec.name, hook: spec.hook, without: spec.without, runs, missing }
        };
        let (name, hook, without) = ITERATOR;
        // Only the daemon itself makes it run.
        let live = ProgramStatus { name, hook, without: Some(without), runs: None, missing: self.iterator.clone() };
        PROGRAMS.iter().enumerate().map(status).chain([live]).collect()
    }

    /// Whether connects that this node could not make are all counted.
    #[must_use]
    pub fn settles_all(&self) -> bool {
        self.work().links.iter().any(|(name, _)| *name == RELEASE)
    }

    /// What the tables take up.
    #[must_use]
    pub fn maps(&self) -> Vec<MapStatus> {
        let maps = self.tables.maps().into_iter();
        maps.map(|(name, fd, capacity)| MapStatus { name, capacity, bytes: memory(fd.as_raw_fd()) }).collect()
    }

    /// How many programs are attached now.
    #[must_use]
    pub fn attached(&self) -> usize {
        let work = self.work();
        PROGRAMS.iter().filter(|spec| work.is_attached(spec.name)).count()
    }

    /// Why connects are not intercepted although the programs were attached, and what comes of it; `None`: they are.
    #[must_use]
    pub fn detached(&self) -> Option<Detached> {
        let work = self.work();
        let all = PROGRAMS.iter().filter(|spec| spec.without.is_none()).all(|spec| work.is_attached(spec.name));
        (!all).then(|| work.detached())
    }

    /// The numbers of our programs, as the kernel lists them.
    pub(super) fn program_ids(&self) -> Vec<u32> {
        let ebpf = self.ebpf();
        PROGRAMS.iter().filter_map(|spec| Some(ebpf.program(spec.name)?.info().ok()?.id())).collect()
    }
}

fn shapes(capacity: &Capacity) -> [Shape; 16] {
    let with_probe = |rows: u32| rows.saturating_add(PROBE_ROWS);
    // enum bpf_map_type and flags of include/uapi/linux/bpf.h.
    const HASH: u32 = 1;
    const ARRAY: u32 = 2;
    const LRU_HASH: u32 = 9;
    const SOCKHASH: u32 = 18;
    const SK_STORAGE: u32 = 24;
    const NO_PREALLOC: u32 = 1;
    const MMAPABLE: u32 = 1024;
    let array = |name, value: usize, entries| Shape {
        name,
        kind: ARRAY,
        key: 4,
        value: value as u32,
        flags: MMAPABLE,
        entries,
    };
    [
        Shape {
            name: names::VIPS,
            kind: HASH,
            key: size_of::<VipKey>() as u32,
            value: size_of::<VipRow>() as u32,
            flags: 0,
            entries: with_probe(capacity.vips),
        },
        array(names::SERVICES, size_of::<ServiceRow>(), with_probe(capacity.services)),
        array(names::SLOTS, size_of::<Slot>(), with_probe(capacity.slots)),
        array(names::ENDPOINTS, size_of::<EndpointRow>(), with_probe(capacity.endpoints)),
        array(names::SERVICE_STATES, size_of::<ServiceState>(), with_probe(capacity.services)),
        array(names::ENDPOINT_STATES, size_of::<EndpointState>(), with_probe(capacity.endpoints)),
        array(names::PICKS, size_of::<Picks>(), with_probe(capacity.services)),
        array(names::SERVICE_COUNTS, size_of::<ServiceCounts>(), with_probe(capacity.services)),
        array(names::ENDPOINT_COUNTS, size_of::<EndpointCounts>(), with_probe(capacity.endpoints)),
        array(names::ENDPOINT_TIMES, size_of::<EndpointTimes>(), with_probe(capacity.endpoints)),
        Shape {
            name: names::CLIENTS,
            kind: LRU_HASH,
            key: size_of::<ClientKey>() as u32,
            value: size_of::<ClientRow>() as u32,
            flags: 0,
            entries: MAX_CLIENTS,
        },
        Shape {
            name: names::BYPASSED,
            kind: HASH,
            key: size_of::<u64>() as u32,
            value: size_of::<u64>() as u32,
            flags: 0,
            entries: MAX_BYPASSED,
        },
        array(names::SETTINGS, size_of::<Settings>(), 1),
        Shape {
            name: names::CONNECTIONS,
            kind: SK_STORAGE,
            key: 4,
            value: size_of::<Record>() as u32,
            flags: NO_PREALLOC,
            entries: 0,
        },
        Shape {
            name: names::LISTENERS,
            kind: SOCKHASH,
            key: size_of::<ListenerKey>() as u32,
            value: 4,
            flags: 0,
            entries: MAX_LISTENERS,
        },
        Shape {
            name: names::ORIGINALS,
            kind: LRU_HASH,
            key: size_of::<ClientEnd>() as u32,
            value: size_of::<Original>() as u32,
            flags: 0,
            entries: MAX_ORIGINALS,
        },
    ]
}

/// Loads one program; the error is the kernel's verdict in one line.
pub(super) fn load_program(ebpf: &mut Ebpf, name: &str) -> Result<(), String> {
    let program = ebpf.program_mut(name).ok_or("the object does not have it")?;
    let loaded: Result<(), ProgramError> = match program {
        Program::CgroupSockAddr(p) => p.load(),
        Program::CgroupSock(p) => p.load(),
        Program::SockOps(p) => p.load(),
        other => return Err(format!("unexpected kind {:?}", other.prog_type())),
    };
    loaded.map_err(|e| chain(&e))
}

/// What the program counted in its life.
fn runs_of(ebpf: &Ebpf, name: &str) -> Runs {
    let info = ebpf.program(name).and_then(|p| p.info().ok());
    info.map_or((0, 0), |info| runs::counted(&info))
}

/// Kernel memory of a map: `memlock` of its descriptor's fdinfo.
fn memory(fd: std::os::fd::RawFd) -> u64 {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    text.lines().find_map(|l| l.strip_prefix("memlock:")?.trim().parse().ok()).unwrap_or(0)
}
