//! What the host must offer: cgroup2, bpffs, capabilities. Where something is missing, the error says what to do.

use super::{KernelError, netns};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, FsType, statfs},
};
use socket2::{Domain, Socket, Type};
use std::{
    fs::{self, File},
    num::NonZeroU32,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

/// The file system as the host's init sees it.
pub const INITS_ROOT: &str = "/proc/1/root";

/// The root of the cgroup2 mount as the host's init sees it: `/sys/fs/cgroup`, or `.../unified` on hybrid hosts.
///
/// # Errors
/// [`KernelError::NoCgroup2`].
pub fn cgroup2_root() -> Result<PathBuf, KernelError> {
    // Through init's eyes first: in a container that shares the host's pid namespace, our own mounts may show only
    // our own cgroup.
    for (mounts, root) in [("/proc/1/mounts", INITS_ROOT), ("/proc/self/mounts", "/")] {
        let Ok(text) = fs::read_to_string(mounts) else { continue };
        let mount = text.lines().filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        });
        for (point, _) in mount.filter(|(_, kind)| *kind == "cgroup2") {
            let path = Path::new(root).join(point.trim_start_matches('/'));
            if is(&path, CGROUP2_SUPER_MAGIC) {
                return Ok(path);
            }
        }
    }
    Err(KernelError::NoCgroup2)
}

/// Opens a cgroup directory, making sure that it is one.
///
/// # Errors
/// [`KernelError::Cgroup`].
pub fn open_cgroup(path: &Path) -> Result<File, KernelError> {
    let refuse = |why: String| KernelError::Cgroup { path: path.to_owned(), why };
    let file = File::open(path).map_err(|e| refuse(e.to_string()))?;
    if !path.is_dir() {
        return Err(refuse("not a directory".to_owned()));
    }
    if !is(path, CGROUP2_SUPER_MAGIC) {
        return Err(refuse("not on a cgroup2 file system".to_owned()));
    }
    Ok(file)
}

/// Makes sure that `path` is a directory on bpffs, mounting one if there is none. Returns where it was mounted.
///
/// # Errors
/// [`KernelError::Bpffs`].
pub fn ensure_bpffs(path: &Path) -> Result<Option<PathBuf>, KernelError> {
    let refuse = |why: String| KernelError::Bpffs { path: path.to_owned(), why };
    let nearest = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let mut mounted = None;
    if !is(nearest, BPF_FS_MAGIC) {
        let usual = Path::new("/sys/fs/bpf");
        let point = if path.starts_with(usual) { usual } else { path };
        if point != usual {
            fs::create_dir_all(point).map_err(|e| refuse(e.to_string()))?;
        }
        mount(Some("bpf"), point, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
            .map_err(|e| refuse(format!("none is mounted there, and mounting one failed: {e}")))?;
        mounted = Some(point.to_owned());
    }
    fs::create_dir_all(path).map_err(|e| refuse(e.to_string()))?;
    if !is(path, BPF_FS_MAGIC) {
        return Err(refuse("not on a bpf file system".to_owned()));
    }
    Ok(mounted)
}

/// Whether `path` is, or would be made, on a bpf file system that is mounted already.
#[must_use]
pub fn on_bpffs(path: &Path) -> bool {
    path.ancestors().find(|p| p.exists()).is_some_and(|nearest| is(nearest, BPF_FS_MAGIC))
}

/// Whether this process may mount file systems.
#[must_use]
pub fn can_mount() -> bool {
    capabilities().is_none_or(|set| has(set, SYS_ADMIN))
}

fn is(path: &Path, kind: FsType) -> bool {
    statfs(path).is_ok_and(|s| s.filesystem_type() == kind)
}

/// `mark`, or 0, which is none, where this process may not set it on its sockets (`CAP_NET_ADMIN`): it can attach no
/// program either, so its connections have none of its own to get past.
#[must_use]
pub fn mark_or_none(mark: NonZeroU32) -> u32 {
    let marked = Socket::new(Domain::IPV4, Type::STREAM, None).and_then(|socket| socket.set_mark(mark.get()));
    if marked.is_ok() { mark.get() } else { 0 }
}

/// Which of the capabilities that loading and attaching need this process lacks.
#[must_use]
pub fn missing_capabilities() -> Vec<&'static str> {
    const NET_ADMIN: u32 = 12;
    const PERFMON: u32 = 38;
    const BPF: u32 = 39;
    let Some(set) = capabilities() else { return Vec::new() };
    let mut missing = Vec::new();
    if !has(set, NET_ADMIN) {
        missing.push("CAP_NET_ADMIN");
    }
    for (capability, name) in [(BPF, "CAP_BPF"), (PERFMON, "CAP_PERFMON")] {
        if !has(set, capability) && !has(set, SYS_ADMIN) {
            missing.push(name);
        }
    }
    missing
}

// Numbers of include/uapi/linux/capability.h. CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON.
const SYS_ADMIN: u32 = 21;

/// The effective capabilities of this process; `None`: not known.
fn capabilities() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(effective.trim(), 16).ok()
}

const fn has(set: u64, capability: u32) -> bool {
    set >> capability & 1 == 1
}

/// The cookie of this process's network namespace, as programs see it (`SO_NETNS_COOKIE`, Linux 5.14).
///
/// # Errors
/// [`KernelError::Io`].
pub fn netns_cookie() -> Result<u64, KernelError> {
    let failed = |e| KernelError::io("asking for the network namespace", e);
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0)).map_err(failed)?;
    netns::socket_netns(socket.as_fd()).map_err(failed)
}
