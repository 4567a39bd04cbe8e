//! The seed of a random test, so that a failure can be repeated.

use std::{env, process, time::SystemTime};

/// The run's seed: `MESH_TEST_SEED`, else another one each time. It is printed, and shown when the test fails.
#[must_use]
pub fn seed() -> u64 {
    let given = env::var("MESH_TEST_SEED").ok().map(|seed| seed.parse().expect("MESH_TEST_SEED is a number"));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the clock is past 1970");
    let seed = given.unwrap_or(now.as_micros() as u64 % 1_000_000_000 + u64::from(process::id()));
    eprintln!("MESH_TEST_SEED={seed}");
    seed
}
