//! Keeping the machine awake, and waiting until others leave it alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::proc;
use crate::interrupt;

/// CPUs that others may keep busy while we measure.
const QUIET: f64 = 0.25;
const LOOK: Duration = Duration::from_millis(500);

/// A busy loop of the lowest class on each CPU. In a virtual machine a CPU that has nothing to do halts, and waking it
/// takes longer than a request. Ended when dropped.
pub(super) struct Spinners {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Spinners {
    pub(super) fn start() -> Spinners {
        let stop = Arc::new(AtomicBool::new(false));
        let spin = |cpu| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                if settle(cpu) {
                    // No hint to the CPU that it may rest: not to rest is the point.
                    while !stop.load(Ordering::Relaxed) {}
                }
            })
        };
        let threads = own_cpus().into_iter().map(spin).collect();
        Spinners { stop, threads }
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It does nothing that could fail.
            let _ = thread.join();
        }
    }
}

/// The CPUs that we may run on.
fn own_cpus() -> Vec<usize> {
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: a set of CPUs is an array of bits, for which all zeroes are valid; the call writes one that lives until it is
    // over; and a bit is looked at only where the set has one.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let known = libc::sched_getaffinity(0, size, &raw mut set) == 0;
        (0..size * 8).filter(|cpu| known && libc::CPU_ISSET(*cpu, &set)).collect()
    }
}

/// Keeps the calling thread on one CPU, where whoever else wants it gets it at once. Says whether that worked.
fn settle(cpu: usize) -> bool {
    let lowest = libc::sched_param { sched_priority: 0 };
    // SAFETY: a set of CPUs is an array of bits, for which all zeroes are valid, and `cpu` is one that it has. Both calls
    // read one struct that lives until they are over; 0 is the calling thread.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const lowest) == 0
            && libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) == 0
    }
}

/// 1,000 connections on both sides of a proxy are more files than a shell usually allows; children inherit what is set here.
pub(super) fn allow_many_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get one struct that lives until they are over. If they fail all stays as it was.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Waits until everybody but us is quiet, at most for `patience`.
pub(super) fn wait_until_quiet(ours: &[u32], patience: Duration) -> Result<(), String> {
    let used = || {
        proc::machine().busy
            - proc::of_ourselves().total()
            - ours.iter().map(|pid| proc::cpu(*pid).total()).sum::<f64>()
    };
    let started = Instant::now();
    while started.elapsed() < patience {
        let before = used();
        interrupt::sleep(LOOK)?;
        if used() - before < QUIET * LOOK.as_secs_f64() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_spinner_for_each_cpu_and_it_ends() {
        assert!(!own_cpus().is_empty());
        let spinners = Spinners::start();
        assert_eq!(spinners.threads.len(), own_cpus().len());
        drop(spinners);
    }
}
