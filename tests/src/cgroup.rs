//! Throw-away cgroups: never the root one, gone when the test ends, however it ends.

use crate::{kernel, poll};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    process,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

const PREFIX: &str = "mesh-test-";

/// Where cgroup2 is mounted.
#[must_use]
pub fn mount_point() -> Option<PathBuf> {
    mounted("cgroup2")
}

/// The first mount of a file system type.
pub(crate) fn mounted(kind: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let path = fields.nth(1)?;
        (fields.next()? == kind).then(|| PathBuf::from(path))
    })
}

/// `mesh-test-PID-N`: a name by which leftovers of dead tests are recognised.
pub(crate) fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Entries of `directory` that belong to tests whose process is gone.
pub(crate) fn leftovers(directory: &Path) -> Vec<PathBuf> {
    let dead = |path: &PathBuf| {
        let name = path.file_name()?.to_str()?.strip_prefix(PREFIX)?;
        let pid: u32 = name.split('-').next()?.parse().ok()?;
        (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    };
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().map(|e| e.path()).filter(|p| dead(p).is_some()).collect()
}

/// A cgroup of one test.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// A new cgroup below the root of the cgroup2 mount.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn new() -> io::Result<Self> {
        static SWEEP: Once = Once::new();
        let root = mount_point().ok_or_else(|| io::Error::other("no cgroup2 mount"))?;
        SWEEP.call_once(|| leftovers(&root).iter().for_each(|path| remove(path, Duration::from_millis(200))));
        let path = root.join(unique_name());
        fs::create_dir(&path)?;
        Ok(Self { path })
    }

    /// Its path from the root of the hierarchy, as /proc/PID/cgroup shows it.
    ///
    /// # Panics
    /// Where there is no such hierarchy.
    #[must_use]
    pub fn name(&self) -> String {
        let root = mount_point().expect("the cgroup is on a mount");
        format!("/{}", self.path.strip_prefix(root).expect("the cgroup is on the mount").display())
    }

    /// A new cgroup below this one, removed when dropped; those on the way to it, if there are any, stay.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn below(&self, name: &str) -> Self {
        let path = self.path.join(name);
        fs::create_dir_all(&path).expect("a test's cgroup can have others below it");
        Self { path }
    }

    /// Removes it, with everything in it.
    pub fn remove(&self) {
        remove(&self.path, Duration::from_secs(5));
    }

    /// Removes it, with everything in it, and makes another one under the same name, as a restarted unit does.
    ///
    /// # Panics
    /// Where that fails.
    pub fn renew(&self) {
        remove(&self.path, Duration::from_secs(5));
        fs::create_dir(&self.path).expect("a test's cgroup can be made again");
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many BPF programs are attached to it.
    #[must_use]
    pub fn attached_programs(&self) -> u32 {
        kernel::attached_programs(&self.path).expect("a test's cgroup can be queried")
    }
}

/// The `cgroup.procs` of a cgroup; a process that writes `0` there joins.
pub(crate) fn procs(cgroup: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(cgroup.join("cgroup.procs"))
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.path, Duration::from_secs(5));
    }
}

/// Removes a cgroup and those below it, ending the processes in them first.
fn remove(path: &Path, patience: Duration) {
    if let Ok(entries) = fs::read_dir(path) {
        let below = entries.flatten().map(|e| e.path()).filter(|p| p.is_dir());
        below.for_each(|p| remove(&p, patience));
    }
    let gone = poll::within(patience, || {
        let members = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        for pid in members.lines().filter_map(|l| l.parse().ok()).filter(|pid| *pid > 0) {
            // It may have ended by itself meanwhile.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        fs::remove_dir(path).or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
    });
    if let Err(error) = gone {
        eprintln!("cgroup {} stays behind: {error}", path.display());
    }
}
