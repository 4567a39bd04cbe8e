//! Is one more request within a service's rate?

use crate::model::RateLimit;
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A token bucket that all workers share, in one word.
///
/// The generic cell rate algorithm (ITU-T I.371): what is kept is the time at which the bucket is full again, in
/// nanoseconds. A request moves it on by what one token takes to come; it may be ahead of now by as much as the burst.
#[derive(Debug)]
pub struct Bucket {
    /// When it is full again.
    full_at: AtomicU64,
    /// What one token takes to come, in nanoseconds.
    interval: u64,
    /// How far ahead of now `full_at` may be.
    room: u64,
}

impl Bucket {
    /// A full bucket; `None` without a limit.
    #[must_use]
    pub fn new(limit: RateLimit) -> Option<Self> {
        let rate = u64::from(limit.requests_per_second);
        // Rounded up: never more than the rate.
        let interval = 1_000_000_000_u64.checked_div(rate)? + u64::from(!1_000_000_000_u64.is_multiple_of(rate));
        let burst = if limit.burst == 0 { rate } else { u64::from(limit.burst) };
        Some(Self { full_at: AtomicU64::new(0), interval, room: burst * interval })
    }

    /// Takes a token, if there is one. `now` is the time since any fixed point, the same for all callers.
    #[must_use]
    pub fn admit(&self, now: Duration) -> bool {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let take = |full_at: u64| {
            let next = full_at.max(now).saturating_add(self.interval);
            (next <= now.saturating_add(self.room)).then_some(next)
        };
        self.full_at.fetch_update(Relaxed, Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn limit(requests_per_second: u32, burst: u32) -> RateLimit {
        RateLimit { requests_per_second, burst }
    }

    #[test]
    fn no_limit_needs_no_bucket() {
        assert!(Bucket::new(limit(0, 0)).is_none());
        assert!(Bucket::new(limit(0, 5)).is_none());
    }

    #[test]
    fn a_burst_is_admitted_at_once_and_then_the_rate() {
        let bucket = Bucket::new(limit(10, 3)).unwrap();
        let at = |ms| bucket.admit(Duration::from_millis(ms));
        assert_eq!([at(0), at(0), at(0), at(0)], [true, true, true, false]);
        assert_eq!([at(99), at(100), at(100), at(199)], [false, true, false, false]);
        assert_eq!(
            [at(10_000), at(10_000), at(10_000), at(10_000)],
            [true, true, true, false],
            "full again, not fuller"
        );
    }

    #[test]
    fn without_a_burst_as_many_as_in_a_second_come_at_once() {
        let bucket = Bucket::new(limit(100, 0)).unwrap();
        let admitted = (0..1000).filter(|_| bucket.admit(Duration::from_secs(5))).count();
        assert_eq!(admitted, 100);
    }

    #[test]
    fn workers_together_get_no_more_than_one_alone() {
        let bucket = Bucket::new(limit(1000, 500)).unwrap();
        let admitted: usize = std::thread::scope(|scope| {
            let worker = || (0..1000).filter(|_| bucket.admit(Duration::from_secs(1))).count();
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(admitted, 500);
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_admits_more_than_burst_and_rate(
            rate in 1_u32..100_000,
            burst in 1_u32..100,
            steps in proptest::collection::vec(0_u64..50_000_000, 1..300),
        ) {
            let bucket = Bucket::new(limit(rate, burst)).unwrap();
            let (mut now, mut admitted) = (Duration::ZERO, Vec::new());
            for step in steps {
                now += Duration::from_nanos(step);
                if bucket.admit(now) {
                    admitted.push(now);
                }
            }
            for (i, start) in admitted.iter().enumerate() {
                for (n, end) in admitted[i..].iter().enumerate() {
                    let allowed = f64::from(burst) + f64::from(rate) * (*end - *start).as_secs_f64();
                    prop_assert!((n + 1) as f64 <= allowed + 1e-6);
                }
            }
        }
    }
}
