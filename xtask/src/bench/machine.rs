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
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let spin = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                if become_idle_class() {
                    // No hint to the CPU that it may rest: not to rest is the point.
                    while !stop.load(Ordering::Relaxed) {}
                }
            })
        };
        let threads = (0..cpus).map(spin).collect();
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

/// Whoever else wants the CPU gets it at once. The scheduler spreads such threads over idle CPUs by itself.
fn become_idle_class() -> bool {
    let lowest = libc::sched_param { sched_priority: 0 };
    // SAFETY: reads one struct, which lives until the call is over; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const lowest) == 0 }
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
