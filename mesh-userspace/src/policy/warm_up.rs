//! How much of its share does an endpoint get that has just come?
//!
//! It begins with a tenth and grows linearly to the whole over `slow_start`, as Envoy's slow start does with an
//! aggression of 1 and a `min_weight_percent` of 10
//! (<https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/slow_start>). It grows in
//! steps of a tenth: each step is a new layout of the service's slots, and nine of them are enough.

use std::time::Duration;

/// Thousandths: the whole share.
pub const WARM: u16 = 1000;

/// Thousandths: what it begins with, and what a step adds.
const STEP: u16 = 100;

/// How many steps lead from the beginning to the whole.
const STEPS: u16 = WARM / STEP - 1;

/// Thousandths of its share that an endpoint gets `age` after it came: 100 to 1000, in steps of 100; 1000 without slow
/// start.
#[must_use]
pub fn warmth(age: Duration, slow_start: Duration) -> u16 {
    STEP * (1 + steps(age, slow_start))
}

/// The time until [`warmth`] grows next; `None` when the endpoint is warm.
#[must_use]
pub fn next_step(age: Duration, slow_start: Duration) -> Option<Duration> {
    let next = steps(age, slow_start) + 1;
    // The first nanosecond of the step.
    let at = (slow_start.as_nanos() * u128::from(next)).div_ceil(u128::from(STEPS));
    (next <= STEPS).then(|| Duration::from_nanos_u128(at).saturating_sub(age))
}

/// How many steps are done at this age.
fn steps(age: Duration, slow_start: Duration) -> u16 {
    // None: no slow start.
    let done = (age.as_nanos() * u128::from(STEPS)).checked_div(slow_start.as_nanos());
    done.and_then(|done| u16::try_from(done).ok()).map_or(STEPS, |done| done.min(STEPS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn without_slow_start_an_endpoint_is_warm_at_once() {
        assert_eq!(warmth(Duration::ZERO, Duration::ZERO), 1000);
        assert_eq!(next_step(Duration::ZERO, Duration::ZERO), None);
    }

    #[test]
    fn it_grows_from_a_tenth_to_the_whole() {
        let at = |age| warmth(age * S, 90 * S);
        assert_eq!([0, 9, 10, 45, 89, 90, 1000].map(at), [100, 100, 200, 500, 900, 1000, 1000]);
        assert_eq!(next_step(4 * S, 90 * S), Some(6 * S));
        assert_eq!(next_step(90 * S, 90 * S), None);
    }

    #[test]
    fn the_longest_times_do_not_overflow() {
        assert_eq!(warmth(Duration::MAX, Duration::MAX), 1000);
        assert_eq!(warmth(Duration::MAX, Duration::from_nanos(1)), 1000);
        assert_eq!(warmth(Duration::ZERO, Duration::MAX), 100);
        assert!(next_step(Duration::ZERO, Duration::MAX) > Some(S));
    }

    proptest! {
        #[test]
        fn the_next_step_is_the_first_moment_of_more(age in 0..200_000_000_000_u64, slow_start in 1..200_000_000_000_u64) {
            let (age, slow_start) = (Duration::from_nanos(age), Duration::from_nanos(slow_start));
            let now = warmth(age, slow_start);
            match next_step(age, slow_start) {
                None => prop_assert_eq!(now, WARM),
                Some(wait) => {
                    prop_assert!(wait > Duration::ZERO);
                    prop_assert_eq!(warmth(age + wait - Duration::from_nanos(1), slow_start), now);
                    prop_assert!(warmth(age + wait, slow_start) > now);
                }
            }
        }

        #[test]
        fn a_warm_up_has_at_most_nine_steps(slow_start in 1..200_000_000_000_u64) {
            let slow_start = Duration::from_nanos(slow_start);
            let (mut age, mut count) = (Duration::ZERO, 0);
            while let Some(wait) = next_step(age, slow_start) {
                age += wait;
                count += 1;
            }
            prop_assert!(count <= 9 && age == slow_start);
        }

        #[test]
        fn it_is_linear_within_a_step(age in 0..10_000_u32, slow_start in 1..10_000_u32) {
            let exact = (100.0 + 900.0 * f64::from(age) / f64::from(slow_start)).min(1000.0);
            let got = f64::from(warmth(age * S, slow_start * S));
            prop_assert!(got <= exact + 1e-6 && exact < got + 100.0);
        }
    }
}
