//! What the host offers.

use super::Report;
use crate::{
    app::{self, lock},
    config::Config,
    kernel,
};
use nix::unistd::{AccessFlags, access};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The oldest kernel that the programs were seen working on.
const OLDEST: (u32, u32) = (6, 1);

pub(super) fn kernel(report: &mut Report) {
    let release = nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default();
    match version(&release) {
        Some(seen) if seen < OLDEST => {
            let detail = format!("{release}: older than {}.{}, with which nothing was tried", OLDEST.0, OLDEST.1);
            report.warn("kernel", detail, "use a newer kernel, or trust the programs and the connection below");
        }
        _ => report.add("kernel", true, false, release, None),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Whether programs can be loaded at all.
pub(super) fn capabilities(report: &mut Report) -> bool {
    let missing = kernel::missing_capabilities();
    if missing.is_empty() {
        report.good("capabilities", "all that is needed");
    } else {
        report.error("capabilities", report.needed, &kernel::KernelError::Capabilities(missing.clone()).to_string());
    }
    missing.is_empty()
}

/// What programs read of the kernel's own structures.
pub(super) fn fields(report: &mut Report) {
    const BTF: &str = "/sys/kernel/btf/vmlinux";
    if let Err(e) = fs::metadata(BTF) {
        report.warn("btf", format!("{BTF}: {e}"), "use a kernel with CONFIG_DEBUG_INFO_BTF");
    } else {
        report.add("btf", true, false, BTF, None);
    }
    for field in kernel::fields() {
        let check = format!("field {}", field.name);
        match field.offset {
            Some(offset) => report.add(&check, true, false, format!("at byte {offset}"), None),
            None => report.warn(&check, format!("not shown: {}", field.consequence), "use a kernel whose BTF shows it"),
        }
    }
}

pub(super) fn cgroup(report: &mut Report, config: &Config) -> Option<PathBuf> {
    match app::cgroup(&config.dataplane) {
        Ok(path) => {
            report.good("cgroup", format!("{} on cgroup2", path.display()));
            Some(path)
        }
        Err(why) => {
            report.error("cgroup", report.needed, &why.to_string());
            None
        }
    }
}

pub(super) fn daemon(report: &mut Report, pid: Option<u32>) {
    let detail = match pid {
        Some(pid) => format!("one runs here (pid {pid}), so `mesh run` would be refused"),
        None => "none runs here".to_owned(),
    };
    report.add("daemon", true, false, detail, None);
}

pub(super) fn bpffs(report: &mut Report, config: &Config) {
    let path = &config.dataplane.bpffs;
    if kernel::on_bpffs(path) {
        report.good("bpffs", format!("{}: a bpf file system is mounted", path.display()));
    } else if kernel::can_mount() {
        report.good("bpffs", format!("{}: none is mounted, the daemon mounts one", path.display()));
    } else {
        let detail = format!("{}: none is mounted, and mounting one takes CAP_SYS_ADMIN", path.display());
        report.bad("bpffs", detail, "mount -t bpf bpf /sys/fs/bpf");
    }
}

/// The state directory. Always required: there the daemon keeps what must outlive it.
pub(super) fn state(report: &mut Report, config: &Config, daemon: Option<u32>) {
    let path = &config.node.state_dir;
    let shown = path.display();
    let other = lock::holder_of(&path.join("lock")).filter(|pid| Some(*pid) != daemon);
    let (ok, detail) = match (other, usable(path)) {
        (Some(pid), _) => (false, format!("{shown} belongs to another daemon (pid {pid})")),
        (None, Err(e)) => (false, format!("{shown}: {e}")),
        (None, Ok(true)) => (true, format!("{shown} is there")),
        (None, Ok(false)) => (true, format!("{shown} will be made")),
    };
    let remedy = (!ok).then(|| "set node.state_dir to a directory that the daemon can write to".to_owned());
    report.add("state_dir", ok, true, detail, remedy);
}

/// Whether a directory is there; the error says why it could not be used or made.
pub(super) fn usable(path: &Path) -> io::Result<bool> {
    let nearest = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    if !nearest.is_dir() {
        return Err(io::Error::other(format!("{} is no directory", nearest.display())));
    }
    access(nearest, AccessFlags::W_OK | AccessFlags::X_OK)?;
    Ok(nearest == path)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_release_begins_with_two_numbers() {
        assert_eq!(super::version("6.1.0-50-cloud-amd64"), Some((6, 1)));
        assert_eq!(super::version("6.18.44"), Some((6, 18)));
        assert_eq!(super::version("custom"), None);
    }
}
