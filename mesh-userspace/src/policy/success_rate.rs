//! Do too few of an endpoint's requests succeed?
//!
//! Counted in ticks of a tenth of the window. A moving average would weigh a lone failure after a pause as heavily as a
//! hundred of them, and could not say on how many requests it rests.

use super::window::Window;
use crate::model;
use std::time::Duration;

const TICKS: u32 = 10;

/// What became of an endpoint's requests of late, shared by workers.
#[derive(Debug)]
pub struct SuccessRate {
    succeeded: Window<{ TICKS as usize }>,
    failed: Window<{ TICKS as usize }>,
    /// In nanoseconds, above 0.
    tick: u128,
}

impl SuccessRate {
    /// Nothing yet, over this window.
    #[must_use]
    pub fn new(window: Duration) -> Self {
        Self { succeeded: Window::new(), failed: Window::new(), tick: (window.as_nanos() / u128::from(TICKS)).max(1) }
    }

    /// Counts a request. `now` is the time since any fixed point, the same for all callers.
    pub fn record(&self, success: bool, now: Duration) {
        let counts = if success { &self.succeeded } else { &self.failed };
        counts.add(self.tick(now));
    }

    /// Whether fewer than `floor` thousandths of the requests of late succeeded, of which there were at least
    /// `min_requests`. Never with a floor of 0.
    #[must_use]
    pub fn is_below(&self, floor: u32, min_requests: u32, now: Duration) -> bool {
        if floor == 0 {
            return false;
        }
        let (succeeded, all) = self.counts(now);
        all >= u64::from(min_requests.max(1)) && succeeded * 1000 < u64::from(floor) * all
    }

    /// As [`SuccessRate::is_below`], with a service's settings.
    #[must_use]
    pub fn is_too_low(&self, settings: &model::SuccessRate, now: Duration) -> bool {
        self.is_below(settings.floor, settings.min_requests, now)
    }

    /// How many requests of late succeeded, and how many there were.
    #[must_use]
    pub fn counts(&self, now: Duration) -> (u64, u64) {
        let tick = self.tick(now);
        let succeeded = self.succeeded.sum(tick);
        (succeeded, succeeded + self.failed.sum(tick))
    }

    /// Forgets all: once a circuit opened, what it opened for must not open it again.
    pub fn clear(&self) {
        self.succeeded.clear();
        self.failed.clear();
    }

    #[expect(clippy::cast_possible_truncation, reason = "ticks are compared modulo 2^32")]
    const fn tick(&self, now: Duration) -> u32 {
        (now.as_nanos() / self.tick) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn recorded(succeeded: u32, failed: u32) -> SuccessRate {
        let rate = SuccessRate::new(at(10));
        (0..succeeded).for_each(|_| rate.record(true, at(50)));
        (0..failed).for_each(|_| rate.record(false, at(50)));
        rate
    }

    #[test]
    fn the_floor_itself_is_enough() {
        assert!(!recorded(80, 20).is_below(800, 100, at(50)));
        assert!(recorded(79, 21).is_below(800, 100, at(50)));
        assert!(recorded(0, 1).is_below(1, 0, at(50)));
    }

    #[test]
    fn few_requests_prove_nothing() {
        assert!(!recorded(0, 99).is_below(800, 100, at(50)));
        assert!(recorded(0, 100).is_below(800, 100, at(50)));
        assert!(!recorded(0, 0).is_below(800, 0, at(50)));
    }

    #[test]
    fn a_floor_of_zero_is_never_missed() {
        assert!(!recorded(0, 1000).is_below(0, 1, at(50)));
        let off = model::SuccessRate { floor: 0, ..model::SuccessRate::default() };
        assert!(!recorded(0, 1000).is_too_low(&off, at(50)));
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let rate = recorded(0, 100);
        assert!(rate.is_below(800, 100, at(59)));
        assert!(!rate.is_below(800, 100, at(60)));
        let rate = recorded(0, 100);
        rate.clear();
        assert_eq!(rate.counts(at(50)), (0, 0));
    }

    proptest! {
        #[test]
        fn one_more_success_never_makes_it_worse(succeeded in 0_u32..50, failed in 0_u32..50, floor in 0_u32..=1000) {
            let rate = recorded(succeeded, failed);
            let below = rate.is_below(floor, 1, at(50));
            rate.record(true, at(50));
            // With the first request there is something to judge, and a success is not below any floor.
            prop_assert!(below || !rate.is_below(floor, 1, at(50)));
        }
    }
}
