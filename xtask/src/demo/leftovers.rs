//! What a demo puts on the machine besides processes, and how it goes away again.

use std::path::Path;
use std::time::Duration;

use crate::prerequisites::read;

/// Every name of ours begins with this and ends with our pid.
pub(super) const PREFIX: &str = "mesh-demo-";
pub(super) const BPFFS: &str = "/sys/fs/bpf";

/// Removes what demos left behind that were killed outright: their pid is in the name, and nobody has it now.
pub(super) fn sweep(cgroups: &Path) {
    for directory in [cgroups, Path::new(BPFFS), &std::env::temp_dir()] {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_str().is_some_and(is_orphan)) {
            if directory == cgroups { remove_cgroup(&entry.path()) } else { remove_all(&entry.path()) }
        }
    }
}

fn is_orphan(name: &str) -> bool {
    let pid = name.strip_prefix(PREFIX).and_then(|pid| pid.parse::<u32>().ok());
    pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

/// On bpffs this detaches what is pinned.
pub(super) fn remove_all(path: &Path) {
    // What could not be removed is named by whoever called.
    let _ = std::fs::remove_dir_all(path);
}

/// A cgroup goes when its last process has gone. One that a user moved in is moved out to the parent.
pub(super) fn remove_cgroup(cgroup: &Path) {
    for _ in 0..50 {
        for pid in read(&cgroup.join("cgroup.procs").to_string_lossy()).lines() {
            // A process that has just ended cannot be moved, and need not be.
            let _ = std::fs::write(cgroup.with_file_name("cgroup.procs"), pid);
        }
        if std::fs::remove_dir(cgroup).is_ok() || !cgroup.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_living_demo_uses_is_not_swept() {
        assert!(!is_orphan(&format!("{PREFIX}{}", std::process::id())));
        assert!(is_orphan(&format!("{PREFIX}4294967295")));
        assert!(!is_orphan("mesh-demo-mine"));
        assert!(!is_orphan("mesh"));
    }
}
