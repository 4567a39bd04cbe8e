//! Which network namespaces the processes of a cgroup are in.

use nix::{
    sched::{CloneFlags, setns},
    sys::statfs::{FsType, fstatfs},
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead, BufReader},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
};

/// `NSFS_MAGIC` of include/uapi/linux/magic.h.
const NSFS: FsType = FsType(0x6e73_6673);
/// The one we are in.
const OWN: &str = "/proc/self/ns/net";
/// Where `ip netns` and container runtimes keep namespaces that have a name.
const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// A network namespace. It lives at least as long as this does: hold it no longer than needed.
#[derive(Debug)]
pub struct Namespace {
    /// Its inode, as `lsns -t net` shows it.
    pub inode: u64,
    pub(super) file: File,
}

/// Every network namespace that a process in or below `cgroup` is in, the daemon's own, and those with a name.
///
/// Processes that go away while we look are left out. A namespace that only a thread went to (setns) is not found
/// unless it has a name.
#[must_use]
pub fn namespaces(cgroup: &Path) -> Vec<Namespace> {
    let mut found = BTreeMap::new();
    add(&mut found, Path::new(OWN));
    for_each_process(cgroup, &mut |pid| add(&mut found, &PathBuf::from(format!("/proc/{pid}/ns/net"))));
    add_named(&mut found);
    listed(found)
}

/// Every network namespace that a process in or below `cgroup` is in; none besides.
#[must_use]
pub fn namespaces_in(cgroup: &Path) -> Vec<Namespace> {
    let mut found = BTreeMap::new();
    for_each_process(cgroup, &mut |pid| add(&mut found, &PathBuf::from(format!("/proc/{pid}/ns/net"))));
    listed(found)
}

/// The daemon's own.
#[must_use]
pub fn own_namespace() -> Option<Namespace> {
    let mut found = BTreeMap::new();
    add(&mut found, Path::new(OWN));
    listed(found).pop()
}

/// Those that have a name, whoever is in them.
#[must_use]
pub fn named_namespaces() -> Vec<Namespace> {
    let mut found = BTreeMap::new();
    add_named(&mut found);
    listed(found)
}

fn add_named(found: &mut BTreeMap<u64, File>) {
    for directory in NAMED {
        for entry in fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
            add(found, &entry.path());
        }
    }
}

fn listed(found: BTreeMap<u64, File>) -> Vec<Namespace> {
    found.into_iter().map(|(inode, file)| Namespace { inode, file }).collect()
}

/// Does some `work` inside each of some namespaces. Returns why it failed in some; the others were visited.
///
/// # Errors
/// If no thread can be made.
pub(super) fn visit(
    namespaces: &[Namespace],
    work: &mut (dyn FnMut(&Namespace) -> io::Result<()> + Send),
) -> io::Result<Vec<String>> {
    // A thread changes its namespace for good: one for this visit, that nobody else depends on.
    thread::scope(|scope| {
        let visitor = thread::Builder::new().name("namespaces".to_owned()).spawn_scoped(scope, || {
            let mut problems = Vec::new();
            // The one we are in comes first and need not be entered, which takes a capability (CAP_SYS_ADMIN).
            let here = fs::metadata(OWN).map_or(0, |m| m.ino());
            let (own, others): (Vec<_>, Vec<_>) = namespaces.iter().partition(|namespace| namespace.inode == here);
            let enter = |namespace: &Namespace| match namespace.inode == here {
                true => Ok(()),
                false => setns(&namespace.file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from),
            };
            for namespace in own.into_iter().chain(others) {
                if let Err(e) = enter(namespace).and_then(|()| work(namespace)) {
                    problems.push(format!("network namespace {}: {e}", namespace.inode));
                }
            }
            problems
        })?;
        visitor.join().map_err(|_| io::Error::other("the visit of network namespaces failed"))
    })
}

fn add(found: &mut BTreeMap<u64, File>, path: &Path) {
    // A look first: opening costs more, and most processes share a namespace.
    let Ok(metadata) = fs::metadata(path) else { return };
    if found.contains_key(&metadata.ino()) {
        return;
    }
    let Ok(file) = File::open(path) else { return };
    let is_namespace = fstatfs(&file).is_ok_and(|s| s.filesystem_type() == NSFS);
    if let Some(metadata) = file.metadata().ok().filter(|_| is_namespace) {
        found.insert(metadata.ino(), file);
    }
}

/// Whether this process is in or below `cgroup`.
#[must_use]
pub fn is_in(cgroup: &Path) -> bool {
    // The root, which has no type, has everybody.
    let mut found = !cgroup.join("cgroup.type").exists();
    if !found {
        for_each_process(cgroup, &mut |pid| found |= pid == std::process::id());
    }
    found
}

fn for_each_process(cgroup: &Path, visit: &mut dyn FnMut(u32)) {
    if let Ok(file) = File::open(cgroup.join("cgroup.procs")) {
        // Reads fail in a threaded cgroup; the processes stand at its root.
        BufReader::new(file).lines().map_while(Result::ok).filter_map(|l| l.parse().ok()).for_each(&mut *visit);
    }
    for entry in fs::read_dir(cgroup).into_iter().flatten().filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            for_each_process(&entry.path(), visit);
        }
    }
}
