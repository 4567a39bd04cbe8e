//! When an endpoint is checked.

use std::time::Duration;

/// The first checks are spread over at most this: a start learns quickly, and many endpoints do not burst.
const FIRST_WITHIN: Duration = Duration::from_secs(1);

/// How long after it became known an endpoint is checked first; `chance` is in 0..=1.
#[must_use]
pub fn first(interval: Duration, chance: f64) -> Duration {
    interval.min(FIRST_WITHIN).mul_f64(chance.clamp(0.0, 1.0))
}

/// How long after one check the next is due: the interval, moved by up to a tenth; `chance` is in 0..=1.
#[must_use]
pub fn next(interval: Duration, chance: f64) -> Duration {
    // Longer than any daemon runs, and far from where arithmetic with instants overflows.
    interval.min(Duration::from_secs(86_400 * 365)).mul_f64(0.9 + 0.2 * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn checks_are_a_tenth_early_or_late_at_most(ms in 1u64..100_000_000, chance in 0.0f64..=1.0) {
            let interval = Duration::from_millis(ms);
            let next = next(interval, chance).as_secs_f64() / interval.as_secs_f64();
            prop_assert!((0.899..=1.101).contains(&next));
            prop_assert!(first(interval, chance) <= interval.min(FIRST_WITHIN));
        }
    }
}
