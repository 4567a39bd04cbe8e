//! Programs that are loaded: put to work on a cgroup, and what they have to offer.

use super::{
    KernelError, Pins, Tables, attach,
    error::chain,
    events::{Endings, Events},
    host::open_cgroup,
    live::Live,
    load::Missing,
    pinned::Pinned,
    programs::{PROGRAMS, Spec},
    runs::{self, EarlierRuns, Runs},
    verbosity::Unpinned,
    versions,
    work::Work,
};
use aya::Ebpf;
use std::{
    fs::File,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The programs at work. Dropping it leaves them at work: the pins hold them.
#[derive(Debug)]
pub struct Kernel {
    pub(super) ebpf: Mutex<Ebpf>,
    pub(super) unpinned: Unpinned,
    pub(super) tables: Arc<Tables>,
    pub(super) live: Result<Live, String>,
    /// Why the kernel does not run the iterator.
    pub(super) iterator: Option<String>,
    pub(super) missing: Missing,
    pub(super) earlier: Option<EarlierRuns>,
    pub(super) work: Mutex<Work>,
    /// Open while the kernel counts runs of programs for us.
    pub(super) stats: Option<OwnedFd>,
    pub(super) pinned: Option<Pinned>,
    /// What the kernel does not show on this host, and what follows from it.
    pub notes: Vec<String>,
    /// Whether tables of an earlier daemon were adopted.
    pub adopted: bool,
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
}

/// What the program counted in its life.
fn runs_of(ebpf: &Ebpf, name: &str) -> Runs {
    let info = ebpf.program(name).and_then(|p| p.info().ok());
    info.map_or((0, 0), |info| runs::counted(&info))
}
