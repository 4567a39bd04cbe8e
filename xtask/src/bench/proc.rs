//! What /proc says about processes and the machine.

use std::path::Path;

use crate::prerequisites::read;

/// Of `USER_HZ`, in which Linux counts for users on every architecture that we run on.
const TICKS: f64 = 100.0;

/// CPU time in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Cpu {
    pub(super) user: f64,
    pub(super) system: f64,
}

impl Cpu {
    pub(super) fn total(self) -> f64 {
        self.user + self.system
    }

    pub(super) fn since(self, before: Cpu) -> Cpu {
        Cpu { user: self.user - before.user, system: self.system - before.system }
    }
}

/// What the whole machine did since it started, in seconds of CPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Machine {
    pub(super) busy: f64,
    /// What the host gave to somebody else while we had work.
    pub(super) steal: f64,
}

/// The process and all below it.
pub(super) fn family(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let children = tasks.map(|task| read(&task.path().join("children").to_string_lossy()));
        let children: Vec<u32> =
            children.collect::<String>().split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        found.extend(children);
        at += 1;
    }
    found
}

/// CPU time of a process and all below it; what has ended meanwhile is not in it.
pub(super) fn cpu(pid: u32) -> Cpu {
    let all = family(pid).into_iter().filter_map(|pid| times(&read(&format!("/proc/{pid}/stat")), 13));
    all.fold(Cpu::default(), |sum, one| Cpu { user: sum.user + one.user, system: sum.system + one.system })
}

/// CPU time of what we started, waited for, and has ended.
pub(super) fn of_ended_children() -> Cpu {
    times(&read("/proc/self/stat"), 15).unwrap_or_default()
}

/// CPU time of this process alone, which spins if asked to.
pub(super) fn of_ourselves() -> Cpu {
    times(&read("/proc/self/stat"), 13).unwrap_or_default()
}

/// Memory of a process and all below it, in MiB. What several share is counted once.
pub(super) fn memory(pid: u32) -> f64 {
    let shares = family(pid).into_iter().filter_map(|pid| pss(&read(&format!("/proc/{pid}/smaps_rollup"))));
    shares.sum::<f64>() / 1024.0
}

pub(super) fn machine() -> Machine {
    of_machine(&read("/proc/stat")).unwrap_or(Machine { busy: 0.0, steal: 0.0 })
}

/// Whether there is such a process still, a zombie not counted.
pub(super) fn lives(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// Two fields of /proc/PID/stat, of which `first` is the number of the first, from 0. The name before them, in brackets,
/// may have spaces and brackets itself.
fn times(stat: &str, first: usize) -> Option<Cpu> {
    let (_, fields) = stat.rsplit_once(')')?;
    // The name was the second field.
    let mut fields = fields.split_whitespace().skip(first - 2);
    let mut next = || Some(fields.next()?.parse::<f64>().ok()? / TICKS);
    Some(Cpu { user: next()?, system: next()? })
}

/// The proportional share in /proc/PID/smaps_rollup, in KiB.
fn pss(rollup: &str) -> Option<f64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// The first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal; time of guests is in user already.
fn of_machine(stat: &str) -> Option<Machine> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<f64> = line.split_whitespace().filter_map(|number| number.parse().ok()).take(8).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal] = ticks[..] else { return None };
    Some(Machine { busy: (user + nice + system + irq + softirq) / TICKS, steal: steal / TICKS })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 1250 250 300 50 20 0 4 0 12345 0 0";
        assert_eq!(times(stat, 13), Some(Cpu { user: 12.5, system: 2.5 }));
        assert_eq!(times(stat, 15), Some(Cpu { user: 3.0, system: 0.5 }));
        assert_eq!(times("", 13), None);
    }

    #[test]
    fn shared_memory_is_counted_by_share() {
        assert_eq!(
            pss("00400000-7fff [rollup]\nRss:  9000 kB\nPss:            2048 kB\nPss_Dirty: 1 kB\n"),
            Some(2048.0)
        );
        assert_eq!(pss(""), None);
    }

    #[test]
    fn a_machine_is_busy_except_when_idle_waiting_or_robbed() {
        let stat = "cpu  100 10 200 9000 500 5 15 70 30 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(of_machine(stat), Some(Machine { busy: 3.3, steal: 0.7 }));
        assert_eq!(of_machine("intr 1\n"), None);
    }

    #[test]
    fn we_are_in_our_own_family_and_have_memory() {
        let own = std::process::id();
        assert_eq!(family(own)[0], own);
        assert!(lives(own) && !lives(u32::MAX));
    }
}
