//! Which of two endpoints is likely to answer sooner?
//!
//! Peak EWMA as in Finagle (`PeakEwma.scala`) and Linkerd: the time to the head of an answer, averaged so that what is
//! older than the decay hardly counts, but a peak counts at once and whole; times the requests that would be under way.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// After so long without a peak, about a third of it is left.
pub const DECAY: Duration = Duration::from_secs(10);

/// What an endpoint costs that has requests under way and has not answered one yet, in microseconds: more than any that
/// has. One without any is free, so that it gets its first.
const PENALTY: f64 = 1e12;

/// How long an endpoint takes to answer, shared by workers, in one word.
#[derive(Debug, Default)]
pub struct Ewma(
    /// The time of the last change in milliseconds, modulo 2^32 (upper half), and microseconds as an `f32` (lower half).
    /// 0: not known.
    AtomicU64,
);

impl Ewma {
    /// An answer took so long. `now` is the time since any fixed point, the same for all callers.
    pub fn observe(&self, took: Duration, now: Duration) {
        // Above nothing: nothing means unknown.
        let took = (took.as_secs_f64() * 1e6).max(0.001);
        let now = stamp(now);
        let _ = self.0.fetch_update(Relaxed, Relaxed, |found| {
            let Some((then, before)) = open(found) else { return Some(close(now, took)) };
            // The clock of another worker may have been a little ahead.
            let now = if is_after(now, then) { now } else { then };
            let kept = kept(then, now);
            let after = if took > before { took } else { before * kept + took * (1.0 - kept) };
            Some(close(now, after))
        });
    }

    /// The average in microseconds as of now, less the longer nothing was observed; `None`: not known.
    #[must_use]
    pub fn get(&self, now: Duration) -> Option<f64> {
        let (then, average) = open(self.0.load(Relaxed))?;
        Some(average * kept(then, stamp(now)))
    }

    /// What one more request costs with `pending` under way: of two endpoints that weigh the same the cheaper one is better.
    #[must_use]
    pub fn cost(&self, pending: u32, now: Duration) -> f64 {
        match self.get(now) {
            Some(average) => average * (f64::from(pending) + 1.0),
            None if pending == 0 => 0.0,
            None => PENALTY * f64::from(pending),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "stamps are compared modulo 2^32")]
const fn stamp(now: Duration) -> u32 {
    now.as_millis() as u32
}

const fn is_after(now: u32, then: u32) -> bool {
    now.wrapping_sub(then) < u32::MAX / 2
}

/// Which part of an average of `then` is left.
fn kept(then: u32, now: u32) -> f64 {
    let passed = if is_after(now, then) { f64::from(now.wrapping_sub(then)) } else { 0.0 };
    (-passed / (DECAY.as_secs_f64() * 1e3)).exp()
}

#[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
fn open(word: u64) -> Option<(u32, f64)> {
    (word != 0).then(|| ((word >> 32) as u32, f64::from(f32::from_bits(word as u32))))
}

#[expect(clippy::cast_possible_truncation, reason = "seven digits of an average are plenty")]
fn close(stamp: u32, average: f64) -> u64 {
    let bits = (average as f32).max(f32::MIN_POSITIVE).to_bits();
    (u64::from(stamp) << 32) | u64::from(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-3 * b.abs().max(1.0)
    }

    #[test]
    fn a_peak_counts_at_once_and_what_is_faster_little_by_little() {
        let ewma = Ewma::default();
        ewma.observe(ms(10), ms(1000));
        ewma.observe(ms(500), ms(1001));
        assert!(near(ewma.get(ms(1001)).unwrap(), 500_000.0));
        ewma.observe(ms(10), ms(11_001));
        let expected = 500_000.0 / std::f64::consts::E + 10_000.0 * (1.0 - 1.0 / std::f64::consts::E);
        assert!(near(ewma.get(ms(11_001)).unwrap(), expected));
    }

    #[test]
    fn it_fades_while_nothing_is_observed() {
        let ewma = Ewma::default();
        ewma.observe(ms(100), ms(0));
        assert!(near(ewma.get(ms(10_000)).unwrap(), 100_000.0 / std::f64::consts::E));
        assert!(ewma.get(ms(1_000_000)).unwrap() < 1.0);
    }

    #[test]
    fn an_unknown_endpoint_gets_one_request_and_no_second() {
        let (unknown, known) = (Ewma::default(), Ewma::default());
        known.observe(Duration::from_secs(60), ms(5));
        assert_eq!(unknown.get(ms(5)), None);
        assert!(unknown.cost(0, ms(5)) < known.cost(0, ms(5)));
        assert!(known.cost(1000, ms(5)) < unknown.cost(1, ms(5)));
        assert!(unknown.cost(2, ms(5)) > unknown.cost(1, ms(5)));
    }

    #[test]
    fn requests_under_way_count() {
        let ewma = Ewma::default();
        ewma.observe(ms(10), ms(5));
        assert!(near(ewma.cost(4, ms(5)), 50_000.0));
    }

    #[test]
    fn a_clock_that_is_a_little_behind_does_no_harm() {
        let ewma = Ewma::default();
        ewma.observe(ms(10), ms(1000));
        ewma.observe(ms(5), ms(990));
        assert!(near(ewma.get(ms(995)).unwrap(), 10_000.0));
    }

    proptest! {
        #[test]
        fn an_average_lies_between_nothing_and_the_worst(
            observed in proptest::collection::vec((0_u64..5_000_000, 0_u64..20_000), 1..100), start: u32,
        ) {
            let (ewma, mut now, mut worst) = (Ewma::default(), u64::from(start), 0.0_f64);
            for (took, step) in observed {
                now += step;
                ewma.observe(Duration::from_micros(took), ms(now));
                worst = worst.max(took as f64);
                let average = ewma.get(ms(now)).unwrap();
                prop_assert!(average > 0.0 && average <= worst * 1.000_001 + 0.01);
                prop_assert!(average >= took as f64 * 0.999_999 - 0.01 || average < worst);
            }
        }

        #[test]
        fn a_slower_or_busier_endpoint_never_costs_less(a in 0_u64..1_000_000, b in 0_u64..1_000_000, pending in 0_u32..1000) {
            let (first, second) = (Ewma::default(), Ewma::default());
            first.observe(Duration::from_micros(a.min(b)), ms(7));
            second.observe(Duration::from_micros(a.max(b)), ms(7));
            prop_assert!(first.cost(pending, ms(9)) <= second.cost(pending, ms(9)));
            prop_assert!(first.cost(pending, ms(9)) <= first.cost(pending + 1, ms(9)));
        }
    }
}
