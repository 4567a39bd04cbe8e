//! What tests and demo ask of the machine, and which of it is not here.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::process::is_root;

/// Something the running system does not give.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) what: &'static str,
    pub(crate) remedy: &'static str,
}

/// Numbers of capabilities, from linux/capability.h.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// What the daemon asks for and is missing, the most telling first.
pub(crate) fn missing() -> Vec<Missing> {
    let mounts = read("/proc/self/mounts");
    let may_load = can_load_programs(&read("/proc/self/status"));
    // One finding for one cause: who is not root cannot mount bpffs either.
    let root = is_root();
    let user = if root {
        (
            may_load,
            "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN",
            "run in a machine or container that has them (docker: --privileged)",
        )
    } else {
        // With a directory of its own: what root has built there, others could not build anew.
        let remedy = "sudo -E env \"PATH=$PATH\" CARGO_TARGET_DIR=target/root cargo xtask ...: loading programs and making \
                      cgroups needs it";
        (false, "root", remedy)
    };
    let cgroup2 = mounted(&mounts, "cgroup2");
    let may_make = !root || cgroup2.is_none_or(can_make_cgroups);
    let checks = [
        user,
        (cgroup2.is_some(), "cgroup2", "mount -t cgroup2 none DIRECTORY"),
        (may_make, "a cgroup2 that can be written", "run where `mkdir` in it succeeds (docker: --privileged)"),
        (mounted(&mounts, "bpf").is_some() || may_load || !root, "bpffs", "mount -t bpf bpf /sys/fs/bpf"),
    ];
    checks.into_iter().filter(|(here, ..)| !here).map(|(_, what, remedy)| Missing { what, remedy }).collect()
}

/// What the tests ask for and is missing.
pub(crate) fn missing_for_tests() -> Vec<Missing> {
    let mut missing = missing();
    if is_root() && !can_make_namespaces() {
        missing.push(Missing { what: "network namespaces", remedy: "run where `unshare --net true` succeeds" });
    }
    missing
}

/// Where a filesystem of this type is mounted first. `mounts` is /proc/self/mounts.
pub(crate) fn mounted<'a>(mounts: &'a str, filesystem: &str) -> Option<&'a str> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_device, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == filesystem).then_some(place)
    })
}

/// Whether the effective capabilities in /proc/self/status are enough to load and attach programs.
fn can_load_programs(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let has = |capability: u32| effective & (1 << capability) != 0;
    has(CAP_NET_ADMIN) && (has(CAP_BPF) && has(CAP_PERFMON) || has(CAP_SYS_ADMIN))
}

/// Tried: containers have it mounted and read-only.
fn can_make_cgroups(root: &str) -> bool {
    let trial = Path::new(root).join(format!("mesh-test-{}-tried", std::process::id()));
    let made = std::fs::create_dir(&trial).is_ok();
    // Empty, and nobody else's.
    let _ = std::fs::remove_dir(&trial);
    made
}

/// Tried, not deduced: seccomp and sysctls forbid it in ways that no file tells.
fn can_make_namespaces() -> bool {
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "true"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    unshare.status().is_ok_and(|status| status.success())
}

pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                          cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                          cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";

    #[test]
    fn cgroup2_is_found_beside_cgroup1_and_not_mistaken_for_it() {
        assert_eq!(mounted(HYBRID, "cgroup2"), Some("/sys/fs/cgroup/unified"));
        assert_eq!(mounted(HYBRID, "bpf"), None);
        assert_eq!(mounted("", "cgroup2"), None);
    }

    #[test]
    fn capabilities_are_judged_by_their_bits() {
        let status = |hex: &str| format!("Name:\tx\nCapEff:\t{hex}\nCapBnd:\t000001ffffffffff\n");
        assert!(can_load_programs(&status("000001ffffffffff")));
        assert!(can_load_programs(&status("000000c000001000")));
        assert!(!can_load_programs(&status("0000008000001000")));
        assert!(!can_load_programs(&status("0000008000000000")));
        assert!(!can_load_programs(&status("00000000a80425fb")));
        assert!(!can_load_programs("garbage"));
    }
}
