//! What this host is.

use crate::{app::host, kernel};
use nix::sys::utsname::uname;
use std::{fmt::Write as _, fs, path::Path};

/// Files that say something about the host, each on its own.
const FILES: [&str; 12] = [
    "/proc/version",
    "/proc/loadavg",
    "/proc/self/cgroup",
    "/sys/kernel/security/lockdown",
    "/proc/sys/kernel/unprivileged_bpf_disabled",
    "/proc/sys/net/core/bpf_jit_enable",
    "/proc/sys/net/core/somaxconn",
    "/proc/sys/net/ipv4/ip_local_port_range",
    "/proc/sys/net/ipv4/tcp_fin_timeout",
    "/proc/sys/net/ipv4/tcp_mem",
    "/proc/sys/net/ipv4/tcp_syn_retries",
    "/proc/sys/net/ipv4/tcp_tw_reuse",
];

/// What of /proc/meminfo is of interest.
const MEMORY: [&str; 4] = ["MemTotal", "MemAvailable", "SwapTotal", "SwapFree"];

/// Kernel, cgroups, file systems, limits; `pid`: of the daemon.
pub(super) fn facts(pid: Option<u64>) -> String {
    let mut text = String::new();
    let mut add = |what: &str, value: &str| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{what}\n  {}\n", value.trim_end().replace('\n', "\n  "));
    };
    if let Ok(name) = uname() {
        let [system, release, version, machine] =
            [name.sysname(), name.release(), name.version(), name.machine()].map(|part| part.to_string_lossy());
        add("uname", &format!("{system} {release} {version} {machine}"));
    }
    add("node name", &host().name);
    add("processors", &std::thread::available_parallelism().map_or_else(|e| e.to_string(), |n| n.to_string()));
    let missing = kernel::missing_capabilities();
    add("missing capabilities", &if missing.is_empty() { "none".to_owned() } else { format!("{missing:?}") });
    let btf = fs::metadata("/sys/kernel/btf/vmlinux");
    add("/sys/kernel/btf/vmlinux", &btf.map_or_else(|e| e.to_string(), |file| format!("{} bytes", file.len())));
    let root = kernel::cgroup2_root();
    add("root of cgroup2", &root.map_or_else(|e| e.to_string(), |path| path.display().to_string()));
    for file in FILES {
        add(file, &read(file));
    }
    let pick = |file: &str, wanted: &dyn Fn(&str) -> bool| -> String {
        read(file).lines().filter(|line| wanted(line)).collect::<Vec<_>>().join("\n")
    };
    let memory = |line: &str| MEMORY.iter().any(|name| line.starts_with(name));
    add("/proc/meminfo", &pick("/proc/meminfo", &memory));
    let mounts = |line: &str| [" - cgroup2 ", " - cgroup ", " - bpf "].iter().any(|kind| line.contains(kind));
    add("/proc/self/mountinfo", &pick("/proc/self/mountinfo", &mounts));
    if let Some(pid) = pid {
        for file in ["limits", "status", "cgroup"] {
            let path = format!("/proc/{pid}/{file}");
            add(&path, &read(&path));
        }
    }
    text
}

/// A file's text, or why it cannot be read.
fn read(path: impl AsRef<Path>) -> String {
    fs::read(path).map_or_else(|e| e.to_string(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_cannot_be_read_is_said_and_the_rest_is_there() {
        let text = super::facts(Some(u64::MAX));
        assert!(text.contains("uname\n  Linux "), "{text}");
        assert!(text.contains(&format!("/proc/{}/limits\n  No such file", u64::MAX)), "{text}");
    }
}
