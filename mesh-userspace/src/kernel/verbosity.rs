//! Programs that log more, or less, in the place of those at work. How much they log is a constant of theirs, so that they
//! contain no code for what is not logged: another level is another set of programs, on the same tables.

use super::{Kernel, KernelError, OBJECT, error::chain, load::load_program, offsets, programs::PROGRAMS, sys};
use aya::{Ebpf, EbpfLoader, maps::Map};
use mesh_common::names;
use std::{
    ffi::OsStr,
    fs, io, mem,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

/// What the daemon reads of the programs as it happens: unlike tables these are pinned nowhere.
const UNPINNED: [&str; 5] = [names::EVENTS, names::ENDED, names::REFUSED, names::UNTOLD, names::TOLD];

/// Descriptors of what other programs have to share with these, tables aside.
#[derive(Debug)]
pub(super) struct Unpinned(Vec<(&'static str, OwnedFd)>);

impl Unpinned {
    /// Before anything of it is taken out of the object.
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self, KernelError> {
        let descriptor = |name: &'static str| {
            let refuse = |why: String| KernelError::Map { map: name.to_owned(), why };
            let data = match ebpf.map(name) {
                Some(Map::RingBuf(data) | Map::Array(data) | Map::HashMap(data) | Map::LruHashMap(data)) => data,
                _ => return Err(refuse("the object does not have it".to_owned())),
            };
            let fd = data.fd().as_fd().try_clone_to_owned().map_err(|e| refuse(e.to_string()))?;
            Ok((name, fd))
        };
        UNPINNED.into_iter().map(descriptor).collect::<Result<_, _>>().map(Self)
    }
}

/// Pins for as long as it takes to load an object on these maps: there is no other way to hand them to it.
struct Meanwhile(PathBuf);

impl Meanwhile {
    fn new(directory: PathBuf) -> Result<Self, KernelError> {
        // What a daemon left here that was killed in the middle of this.
        drop(Self(directory.clone()));
        fs::create_dir_all(&directory)
            .map_err(|e| KernelError::Bpffs { path: directory.clone(), why: e.to_string() })?;
        Ok(Self(directory))
    }
}

impl Drop for Meanwhile {
    fn drop(&mut self) {
        let files = fs::read_dir(&self.0).into_iter().flatten().filter_map(Result::ok);
        files.for_each(|file| drop(fs::remove_file(file.path())));
        let _ = fs::remove_dir(&self.0);
    }
}

impl Kernel {
    /// Puts programs in the place of those at work that log as much as `level`, 0 (nothing) to 5 (trace). No connect is
    /// missed meanwhile: they are replaced under their links. What they log is to be taken anew ([`Kernel::take_log`]).
    ///
    /// # Errors
    /// [`KernelError`]; the programs at work stay then.
    pub fn log_as_much_as(&self, level: u8) -> Result<(), KernelError> {
        let refuse = |why: &str| KernelError::Object(why.to_owned());
        let Some(pinned) = &self.pinned else { return Err(refuse("nothing is pinned")) };
        if let Some(why) = self.detached() {
            return Err(refuse(&format!("the programs are {why}")));
        }
        let meanwhile = Meanwhile::new(pinned.pins.root().join("meanwhile"))?;
        // Tables that were set aside have other names, and no program uses them.
        let tables = pinned.maps.iter().filter_map(|(path, map)| {
            let name = path.file_name()?;
            names::MAPS.into_iter().find(|known| name == OsStr::new(known)).map(|name| (name, map))
        });
        let maps = tables.chain(self.unpinned.0.iter().map(|(name, map)| (*name, map)));
        let maps: Vec<_> = maps.map(|(name, map)| (name, map, meanwhile.0.join(name))).collect();
        let mut loader = EbpfLoader::new();
        for (name, map, path) in &maps {
            let failed = |e: io::Error| KernelError::io(format!("pinning {}", path.display()), e);
            sys::obj_pin(map.as_fd(), path).map_err(failed)?;
            loader.map_pin_path(name, path);
        }
        let offsets = offsets::find(&mut Vec::new());
        for (name, value) in &offsets {
            loader.override_global(name, value, true);
        }
        loader.override_global(aya_log::LEVEL, &level, false);
        let mut others = loader.load(OBJECT).map_err(|e| KernelError::Object(chain(&e)))?;
        drop(meanwhile);
        for spec in PROGRAMS.iter().filter(|spec| self.missing.iter().all(|(name, _)| *name != spec.name)) {
            let (program, hook) = (spec.name, spec.hook);
            load_program(&mut others, program).map_err(|why| KernelError::Required { program, hook, why })?;
        }
        let cgroup = self.work().cgroup.clone();
        let mut ebpf = self.ebpf();
        let before = mem::replace(&mut *ebpf, others);
        self.attach_from(&ebpf, &cgroup).map(drop).inspect_err(|_| {
            *ebpf = before;
            // The error says why; that these cannot be put back either would say no more.
            let _ = self.attach_from(&ebpf, &cgroup);
        })
    }
}
