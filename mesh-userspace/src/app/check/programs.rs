//! The programs: loaded as the daemon loads them, and a connection through them.

use super::Report;
use crate::{
    app::{
        others,
        probe::{Prober, Verdict},
        run,
    },
    config::Config,
    datapath,
    kernel::{self, Kernel, Options, Pins},
};
use mesh_common::settings::Settings;
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process, thread,
    time::Duration,
};

/// Who else is at the hooks.
pub(super) fn others(report: &mut Report, config: &Config, cgroup: &Path) {
    const CHECK: &str = "other programs";
    let others = match kernel::others_than(cgroup, &Pins::new(&config.dataplane.bpffs)) {
        Ok(others) => others,
        Err(e) => return report.warn(CHECK, e.to_string(), "run it as root"),
    };
    if others.is_empty() {
        report.add(CHECK, true, false, "none at the hooks that ours use", None);
    }
    for other in &others {
        let when = if other.runs_first { "before" } else { "after" };
        match others::warning(other) {
            Some(why) => report.error(CHECK, false, &why.replacen(": ", "; ", 1)),
            None => {
                let detail = format!("{} (id {}) at {}, runs {when} ours", other.name, other.id, other.hook);
                report.add(CHECK, true, false, detail, None);
            }
        }
    }
}

/// Loads everything, without a trace, and uses it.
pub(super) fn programs(report: &mut Report, config: &Config, cgroup: Option<&Path>) {
    let capacity = run::capacity(config, &datapath::needs(&config.services()));
    pins(report, config, &capacity);
    let options = Options {
        object: kernel::OBJECT,
        pins: None,
        capacity,
        log_level: 0,
        settings: Settings { mark: u64::from(config.dataplane.mark.get()), ..Settings::default() },
    };
    let kernel = match kernel::try_load(&options) {
        Ok(kernel) => kernel,
        Err(e) => {
            let remedy = "see what it says; else use a newer kernel, or smaller tables (dataplane.max_*)";
            return report.bad("maps", e.to_string(), remedy);
        }
    };
    for map in kernel.maps() {
        let detail = format!("{} entries, {} KiB", map.capacity, map.bytes / 1024);
        report.good(&format!("map {}", map.name), detail);
    }
    let mut whole = true;
    for verdict in kernel.verdicts() {
        let check = format!("program {}", verdict.name);
        let required = verdict.required && report.needed;
        match verdict.refused {
            None => report.add(&check, true, required, format!("{}: loads", verdict.hook), None),
            Some(why) => {
                whole &= !verdict.required;
                let remedy =
                    if verdict.required { "use a newer kernel" } else { "it is left out; `mesh status` says so" };
                report.add(&check, false, required, format!("{}: {why}", verdict.hook), Some(remedy.to_owned()));
            }
        }
    }
    iterator(report, &kernel);
    match cgroup {
        Some(cgroup) if whole => connection(report, &kernel, cgroup),
        _ => report.bad("connection", "not tried: what it needs is missing", "see above"),
    }
}

/// Whether the daemon goes on where an earlier one stopped.
fn pins(report: &mut Report, config: &Config, capacity: &kernel::Capacity) {
    match kernel::adoptable(&Pins::new(&config.dataplane.bpffs), capacity) {
        Ok(None) => report.add("pins", true, false, "none of an earlier daemon", None),
        Ok(Some(())) => report.add("pins", true, false, "tables of an earlier daemon, which are taken over", None),
        Err(why) => {
            let detail = format!("tables of an earlier daemon are not taken over, their counters start again: {why}");
            report.warn("pins", detail, "nothing, if the counters are not missed");
        }
    }
}

/// Reads our own namespace's connections once.
fn iterator(report: &mut Report, kernel: &Kernel) {
    let Ok(live) = kernel.live() else { return };
    let own = fs::metadata("/proc/self/ns/net").map(|m| m.ino()).unwrap_or_default();
    let mut namespaces = kernel::namespaces(Path::new("/proc/self/nonexistent"));
    namespaces.retain(|namespace| namespace.inode == own);
    let problems = match live.read(&namespaces, &mut |_| {}) {
        Ok(problems) => problems,
        Err(e) => vec![e.to_string()],
    };
    if problems.is_empty() {
        report.add("iterator", true, false, "live connections can be looked at", None);
    } else {
        let detail = format!("live connections cannot be looked at: {}", problems.join(", "));
        report.warn("iterator", detail, "what they carry is counted when they close");
    }
}

/// A real connection, in a cgroup of its own.
fn connection(report: &mut Report, kernel: &Kernel, cgroup: &Path) {
    let place = match Place::new(cgroup) {
        Ok(place) => place,
        Err(e) => {
            let detail = format!("not tried: no cgroup can be made below {}: {e}", cgroup.display());
            return report.warn("connection", detail, "make cgroups writable, or trust `mesh status` once it runs");
        }
    };
    let notes = match kernel.attach(&place.0) {
        Ok(notes) => notes,
        Err(e) => {
            let remedy = "see whether another program forbids it (bpftool cgroup tree); else use a newer kernel";
            return report.bad("connection", e.to_string(), remedy);
        }
    };
    for note in notes {
        report.warn("connection", note, "nothing");
    }
    let programs = kernel.programs();
    // What did not load was said before.
    let loaded = |name| kernel.verdicts().iter().any(|v| v.name == name && v.refused.is_none());
    for program in programs.iter().filter(|p| p.missing.is_some() && loaded(p.name)) {
        let why = program.missing.clone().unwrap_or_default();
        report.warn(&format!("program {}", program.name), why, "it is left out; `mesh status` says so");
    }
    let attached = |hook| programs.iter().any(|p| p.hook == hook && p.missing.is_none());
    let prober = Prober {
        tables: kernel.tables(),
        cgroup: &place.0,
        shows_peer: ["cgroup/getpeername4", "cgroup/getpeername6"].map(attached),
        given_up: &|| false,
    };
    match prober.probe() {
        Verdict::Works { v6 } => {
            report.good("connection IPv4", "a real one was translated, and counted to the byte");
            match v6 {
                true => report.good("connection IPv6", "a real one was translated, and counted to the byte"),
                false => report.add("connection IPv6", true, false, "not tried: this host has no ::1", None),
            }
        }
        Verdict::Fails(why) => report.bad("connection", why, "see the programs of others above, or report it"),
        Verdict::Unknown(why) => report.warn("connection", why, "trust `mesh status` once the daemon runs"),
    }
}

/// A cgroup of this process's own. Programs attached to it are gone with it.
struct Place(PathBuf);

const PREFIX: &str = "mesh-check-";

impl Place {
    fn new(parent: &Path) -> io::Result<Self> {
        sweep(parent);
        let path = parent.join(format!("{PREFIX}{}", process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for _ in 0..20 {
            match fs::remove_dir(&self.0) {
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy => thread::sleep(Duration::from_millis(5)),
                _ => return,
            }
        }
    }
}

/// Removes what checks left that were killed.
fn sweep(parent: &Path) {
    for path in fs::read_dir(parent).into_iter().flatten().filter_map(Result::ok).map(|e| e.path()) {
        let pid = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_prefix(PREFIX)?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_dir(path.join(crate::app::probe::CGROUP));
            let _ = fs::remove_dir(path);
        }
    }
}
