//! Waiting for something to become true, with a deadline.

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

/// How long a test waits for what ought to happen soon. Generous: a slow machine is no failure.
pub const PATIENCE: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(10);

/// Looks again and again until `look` finds something, and fails the test with what it last saw after [`PATIENCE`].
pub fn eventually<T, E: Display>(what: &str, look: impl FnMut() -> Result<T, E>) -> T {
    within(PATIENCE, look).unwrap_or_else(|seen| panic!("{what}: not within {PATIENCE:?}; last seen: {seen}"))
}

/// As [`eventually`], for a plain condition on a value that is shown when the condition stays false.
pub fn holds<T: std::fmt::Debug>(what: &str, mut value: impl FnMut() -> T, condition: impl Fn(&T) -> bool) -> T {
    eventually(what, || {
        let seen = value();
        if condition(&seen) { Ok(seen) } else { Err(format!("{seen:?}")) }
    })
}

/// Looks again and again for at most `limit`.
///
/// # Errors
/// What `look` said the last time.
pub fn within<T, E>(limit: Duration, mut look: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(seen) if Instant::now() >= deadline => return Err(seen),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}
