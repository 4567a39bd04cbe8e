//! Ctrl-C ends demo, bench and virtual machines in order: it is noted here, and met at the next wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

static ASKED: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_signal: libc::c_int) {
    ask();
}

/// From now on SIGINT, SIGTERM and SIGHUP are noted, and end nothing by themselves.
pub(crate) fn listen() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is allowed in a signal handler.
        unsafe { libc::signal(signal, note as extern "C" fn(libc::c_int) as libc::sighandler_t) };
    }
}

/// Asks us to end, as a signal does.
pub(crate) fn ask() {
    ASKED.store(true, Ordering::Relaxed);
}

/// Whether somebody asked.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Sleeps. An error says that somebody asked us to end.
pub(crate) fn sleep(duration: Duration) -> Result<(), String> {
    let until = Instant::now() + duration;
    loop {
        if asked() {
            return Err("interrupted".into());
        }
        let rest = until.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Ok(());
        }
        std::thread::sleep(rest.min(Duration::from_millis(50)));
    }
}
