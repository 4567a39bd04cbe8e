//! When an endpoint is checked.

use std::time::Duration;
use tokio::time::Instant;

/// The first checks are spread over at most this: a start learns quickly, and many endpoints do not burst.
const FIRST_WITHIN: Duration = Duration::from_secs(1);

/// Checks begin at multiples of this, so that the thread wakes for many at a time.
const TICK: Duration = Duration::from_millis(10);

/// The tick at or before `now`, where ticks are counted from `start`: what was due by then begins.
#[must_use]
pub fn tick(start: Instant, now: Instant) -> Instant {
    let since = now.duration_since(start).as_nanos() % TICK.as_nanos();
    now - Duration::from_nanos(u64::try_from(since).unwrap_or(0))
}

/// The first tick at which what is due at `due` begins.
#[must_use]
pub fn tick_for(start: Instant, due: Instant) -> Instant {
    let tick = tick(start, due);
    if tick < due { tick + TICK } else { tick }
}

/// When an endpoint that became known at `now` is checked first; `chance` is in 0..=1.
#[must_use]
pub fn first(now: Instant, interval: Duration, chance: f64) -> Instant {
    now + interval.min(FIRST_WITHIN).mul_f64(chance.clamp(0.0, 1.0))
}

/// When the second check is due: half an interval to one and a half after the first. Were it one interval, endpoints that
/// became known together, and whose first checks came within a second, would be checked together for a long time.
/// Arguments as of [`next`].
#[must_use]
pub fn second(due: Instant, began: Instant, interval: Duration, chance: f64) -> Instant {
    after(due, began, within(interval).mul_f64(0.5 + chance.clamp(0.0, 1.0)))
}

/// When the next check is due, after one that was due at `due` and began at `began`: one period later, however long the
/// check takes. If a whole period was missed (too many checks, a stopped process), that is not made up for: then the
/// period counts from when the check began. Always after `began`; `chance` is in 0..=1.
#[must_use]
pub fn next(due: Instant, began: Instant, interval: Duration, chance: f64) -> Instant {
    after(due, began, period(interval, chance))
}

fn after(due: Instant, began: Instant, period: Duration) -> Instant {
    if due + period > began { due + period } else { began + period }
}

/// When an endpoint is checked that was due at `due` when its interval became another one at `now`: it keeps its turn,
/// as far as the new interval allows. `chance` is in 0..=1.
#[must_use]
pub fn moved(due: Instant, now: Instant, interval: Duration, chance: f64) -> Instant {
    due.min(now + period(interval, chance))
}

/// From one check to the next: the interval, moved by up to a tenth.
fn period(interval: Duration, chance: f64) -> Duration {
    within(interval).mul_f64(0.9 + 0.2 * chance.clamp(0.0, 1.0))
}

/// The interval, no longer than any daemon runs, so that arithmetic with instants cannot overflow, and never nothing.
fn within(interval: Duration) -> Duration {
    interval.clamp(Duration::from_millis(1), Duration::from_secs(86_400 * 365))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn endpoints_that_became_known_together_are_not_checked_together() {
        let (start, interval, mut chance) = (Instant::now(), Duration::from_secs(5), fastrand::Rng::with_seed(1));
        // Checks in each half second of the third interval.
        let mut made = [0; 10];
        for _ in 0..10_000 {
            let mut due = first(start, interval, chance.f64());
            due = second(due, due, interval, chance.f64());
            while due < start + 3 * interval {
                if let Some(after) = due.checked_duration_since(start + 2 * interval) {
                    made[(after.as_millis() / 500) as usize] += 1;
                }
                due = next(due, due, interval, chance.f64());
            }
        }
        assert!(made.iter().all(|made| (700..1300).contains(made)), "{made:?}");
    }

    proptest! {
        #[test]
        fn checks_are_a_tenth_early_or_late_at_most(
            ms in 1u64..100_000_000, chance in 0.0f64..=1.0, late in 0.0f64..0.8,
        ) {
            let (due, interval) = (Instant::now(), Duration::from_millis(ms));
            let next = next(due, due + interval.mul_f64(late), interval, chance) - due;
            prop_assert!((0.899..=1.101).contains(&(next.as_secs_f64() / interval.as_secs_f64())));
            prop_assert!(first(due, interval, chance) <= due + interval.min(FIRST_WITHIN));
        }

        #[test]
        fn a_check_begins_at_a_tick_that_is_not_before_it_is_due(due in 0u64..10_000_000_000) {
            let start = Instant::now();
            let due = start + Duration::from_nanos(due);
            let begins = tick_for(start, due);
            prop_assert!(due <= begins && begins < due + TICK);
            prop_assert_eq!(tick(start, begins), begins);
            prop_assert!(tick(start, due) <= due);
        }

        #[test]
        fn missed_checks_are_not_made_up_for(ms in 1u64..100_000, chance in 0.0f64..=1.0, missed in 1.2f64..1000.0) {
            let (due, interval) = (Instant::now(), Duration::from_millis(ms));
            let began = due + interval.mul_f64(missed);
            prop_assert!(next(due, began, interval, chance) >= began + interval.mul_f64(0.899));
        }

        #[test]
        fn another_interval_never_puts_a_check_off(
            ms in 1u64..100_000, chance in 0.0f64..=1.0, wait in 0u64..100_000,
        ) {
            let (now, interval) = (Instant::now(), Duration::from_millis(ms));
            let due = now + Duration::from_millis(wait);
            let moved = moved(due, now, interval, chance);
            prop_assert!(moved <= due && moved <= now + interval.mul_f64(1.101));
        }
    }
}
