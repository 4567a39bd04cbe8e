//! A process as a container runtime starts it: in a root file system of its own, with what is mounted there, as some user,
//! with some capabilities and no way to more. Namespaces of processes and networks are the host's, as the DaemonSet asks.

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{Gid, Uid, chdir, chroot, setgid, setgroups, setuid},
};
use std::{
    ffi::{CStr, CString},
    io,
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

/// Capabilities by number, from linux/capability.h.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// How to start processes in a container. Nothing of it outlives them.
#[derive(Clone, Debug)]
pub struct Container {
    root: PathBuf,
    program: PathBuf,
    mounts: Vec<Mount>,
    kept: Vec<usize>,
    user: u32,
}

#[derive(Clone, Debug)]
struct Mount {
    source: CString,
    target: CString,
    read_only: bool,
}

impl Container {
    /// One whose root is the tree at `root`, read-only, as root without any capability. `program` is what it runs. /proc,
    /// /sys and /dev are the host's.
    ///
    /// # Panics
    /// Where a path is odd.
    #[must_use]
    pub fn new(root: &Path, program: &Path) -> Self {
        let none =
            Self { root: root.to_owned(), program: program.to_owned(), mounts: Vec::new(), kept: Vec::new(), user: 0 };
        ["/proc", "/sys", "/dev"].iter().fold(none, |container, place| container.mount(Path::new(place), place, false))
    }

    /// Shows `source` at `target`, a directory of the tree that is made where it is missing.
    ///
    /// # Panics
    /// Where that cannot be made.
    #[must_use]
    pub fn mount(mut self, source: &Path, target: &str, read_only: bool) -> Self {
        let target = self.root.join(target.trim_start_matches('/'));
        std::fs::create_dir_all(&target).expect("a test's tree can be written");
        let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).expect("a path without NUL");
        self.mounts.push(Mount { source: text(source), target: text(&target), read_only });
        self
    }

    /// Leaves it these capabilities, with or without `CAP_` before them.
    ///
    /// # Panics
    /// Where one is unknown.
    #[must_use]
    pub fn capabilities<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.kept = names.into_iter().map(number).collect();
        self
    }

    /// Runs it as this user and the group of the same number.
    #[must_use]
    pub const fn user(mut self, user: u32) -> Self {
        self.user = user;
        self
    }

    /// The program, before it is run.
    ///
    /// # Panics
    /// Where a path is odd.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        // As in an image: nothing of whoever runs the tests.
        command.args(arguments).env_clear().env("PATH", "/usr/bin").current_dir("/");
        let (mounts, kept, user) = (self.mounts.clone(), self.kept.clone(), self.user);
        let root = CString::new(self.root.as_os_str().as_bytes()).expect("a path without NUL");
        let enter = move || {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP)?;
            let (bind, all) = (MsFlags::MS_BIND, MsFlags::MS_REC);
            let none = None::<&CStr>;
            mount(none, c"/", none, MsFlags::MS_PRIVATE | all, none)?;
            mount(Some(root.as_c_str()), root.as_c_str(), none, bind | all, none)?;
            for one in &mounts {
                mount(Some(one.source.as_c_str()), one.target.as_c_str(), none, bind | all, none)?;
                if one.read_only {
                    mount(none, one.target.as_c_str(), none, bind | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none)?;
                }
            }
            mount(none, root.as_c_str(), none, bind | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none)?;
            chroot(root.as_c_str())?;
            chdir(c"/")?;
            drop_all_but(&kept)?;
            if user != 0 {
                let (user, group) = (Uid::from_raw(user), Gid::from_raw(user));
                setgroups(&[group])?;
                setgid(group)?;
                setuid(user)?;
            }
            // allowPrivilegeEscalation: false
            prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
        };
        // SAFETY: between fork and exec only system calls are made, on text that was made before.
        unsafe { command.pre_exec(enter) };
        command
    }
}

/// Starts `command` with these capabilities at most (`NET_ADMIN`, `CAP_BPF`).
///
/// # Panics
/// Where there is none of that name.
pub fn keep(command: &mut Command, names: &[&str]) {
    let kept: Vec<usize> = names.iter().map(|name| number(name)).collect();
    // SAFETY: between fork and exec only system calls are made.
    unsafe { command.pre_exec(move || drop_all_but(&kept)) };
}

fn number(name: &str) -> usize {
    let short = name.trim_start_matches("CAP_");
    NAMES.iter().position(|known| *known == short).unwrap_or_else(|| panic!("{name}: no such capability"))
}

fn drop_all_but(kept: &[usize]) -> io::Result<()> {
    (0..NAMES.len())
        .filter(|number| !kept.contains(number))
        .try_for_each(|number| prctl(libc::PR_CAPBSET_DROP, number as libc::c_ulong))
}

fn prctl(option: libc::c_int, argument: libc::c_ulong) -> io::Result<()> {
    const UNUSED: libc::c_ulong = 0;
    // SAFETY: plain numbers.
    let done = unsafe { libc::prctl(option, argument, UNUSED, UNUSED, UNUSED) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
