//! Is a request to be tried again, and when?

use super::window::Window;
use crate::model::Retries;
use std::time::Duration;

/// Why a try failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There was no connection.
    Connect,
    /// The endpoint said that it has not begun with it: `REFUSED_STREAM`, or a `GOAWAY` that leaves it out.
    Refused,
    /// A connection that was kept had ended before any of the request arrived.
    Unread,
    /// A connection that was kept ended without a byte of the answer: most likely it had ended before.
    Stale,
    /// The connection, or the stream, ended before the head of the answer.
    Reset,
    /// It took too long.
    Timeout,
    /// The answer has this status.
    Status(u16),
}

impl Failure {
    /// Whether the endpoint has surely not begun with the request. A connection that ended may have ended by it: a proxy
    /// must not repeat what is not idempotent then (RFC 9112, section 9.3.1).
    const fn is_before(self) -> bool {
        matches!(self, Self::Connect | Self::Refused | Self::Unread)
    }
}

/// What of a request decides whether it can be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Again {
    /// Whether doing it twice is as doing it once ([`is_idempotent`]).
    pub idempotent: bool,
    /// Whether its body is still there: not begun with, or kept.
    pub replayable: bool,
    /// Tries so far, this one included.
    pub tries: u32,
}

/// Whether a request whose try failed may be tried again, as far as its service's settings and the request itself are
/// asked. The [`Budget`] is asked last, since asking takes from it.
#[must_use]
pub const fn verdict(retries: &Retries, why: Failure, request: Again) -> bool {
    let on = &retries.on;
    let wanted = match why {
        Failure::Connect => on.connect_failure,
        Failure::Refused => on.refused_stream,
        Failure::Unread | Failure::Stale => on.reset_before_request || on.reset,
        Failure::Reset => on.reset,
        Failure::Timeout => on.timeout,
        Failure::Status(status) => {
            on.server_error && status >= 500 && status <= 599 || on.gateway_error && matches!(status, 502..=504)
        }
    };
    wanted && request.replayable && request.tries <= retries.attempts && (request.idempotent || why.is_before())
}

/// Whether a method is idempotent (RFC 9110, section 9.2.2).
#[must_use]
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

/// The pause before extra try `number` (from 1): anything up to the base doubled each time, at most the longest
/// ("full jitter"). `chance` is any number, each as likely as another.
#[must_use]
pub fn backoff(retries: &Retries, number: u32, chance: u32) -> Duration {
    let doubled = 1_u32.checked_shl(number.saturating_sub(1)).unwrap_or(u32::MAX);
    let longest = retries.backoff_base.saturating_mul(doubled).min(retries.backoff_max);
    let nanos = longest.as_nanos() * u128::from(chance) / u128::from(u32::MAX);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Over so many seconds a budget is kept.
const SECONDS: u32 = 10;
const SLOTS: usize = SECONDS as usize;

/// How many extra tries a service may make: a part of its requests of the last 10 s, and a few besides, so that a service
/// in trouble does not get several times its traffic. Shared by workers.
#[derive(Debug)]
pub struct Budget {
    requests: Window<SLOTS>,
    extra: Window<SLOTS>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { requests: Window::new(), extra: Window::new() }
    }
}

impl Budget {
    /// Counts a request. `now` is the time since any fixed point, the same for all callers.
    pub fn request(&self, now: Duration) {
        self.requests.add(tick(now));
    }

    /// Takes an extra try, if one is left.
    #[must_use]
    pub fn take(&self, retries: &Retries, now: Duration) -> bool {
        let tick = tick(now);
        let part = self.requests.sum(tick) * u64::from(retries.budget_ratio) / 1000;
        let allowed = part + u64::from(retries.budget_min_per_second) * u64::from(SECONDS);
        // Taken first: workers that ask at the same time may all get nothing, but not all get the last one.
        self.extra.add(tick);
        let taken = self.extra.sum(tick) <= allowed;
        if !taken {
            self.extra.take_back(tick);
        }
        taken
    }
}

#[expect(clippy::cast_possible_truncation, reason = "ticks are compared modulo 2^32")]
const fn tick(now: Duration) -> u32 {
    now.as_secs() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RetryOn;
    use proptest::prelude::*;

    const ALL: RetryOn = RetryOn {
        connect_failure: true,
        refused_stream: true,
        reset_before_request: true,
        reset: true,
        server_error: true,
        gateway_error: true,
        timeout: true,
    };
    const GET: Again = Again { idempotent: true, replayable: true, tries: 1 };
    const POST: Again = Again { idempotent: false, ..GET };

    fn on(on: RetryOn) -> Retries {
        Retries { on, ..Retries::default() }
    }

    #[test]
    fn what_the_endpoint_has_not_begun_with_is_tried_again_whatever_the_method() {
        for why in [Failure::Connect, Failure::Refused, Failure::Unread] {
            for request in [GET, POST] {
                assert!(verdict(&Retries::default(), why, request), "{why:?}");
                assert!(!verdict(&Retries::default(), why, Again { replayable: false, ..request }));
                assert!(!verdict(&on(RetryOn::NONE), why, request));
            }
        }
    }

    #[test]
    fn a_request_whose_kept_connection_ended_is_tried_again_only_if_twice_is_as_once() {
        assert!(verdict(&Retries::default(), Failure::Stale, GET));
        assert!(!verdict(&Retries::default(), Failure::Stale, POST));
    }

    #[test]
    fn what_it_may_have_acted_on_is_tried_again_only_if_twice_is_as_once() {
        for why in [Failure::Reset, Failure::Timeout, Failure::Status(500), Failure::Status(503)] {
            assert!(!verdict(&Retries::default(), why, GET), "not asked for: {why:?}");
            assert!(verdict(&on(ALL), why, GET), "{why:?}");
            assert!(!verdict(&on(ALL), why, POST), "{why:?}");
            assert!(!verdict(&on(ALL), why, Again { replayable: false, ..GET }), "{why:?}");
        }
    }

    #[test]
    fn each_reason_stands_for_itself() {
        let none = RetryOn::NONE;
        for (reasons, why, expected) in [
            (RetryOn { connect_failure: true, ..none }, Failure::Connect, true),
            (RetryOn { refused_stream: true, ..none }, Failure::Connect, false),
            (RetryOn { refused_stream: true, ..none }, Failure::Refused, true),
            (RetryOn { reset_before_request: true, ..none }, Failure::Stale, true),
            (RetryOn { reset_before_request: true, ..none }, Failure::Unread, true),
            (RetryOn { reset_before_request: true, ..none }, Failure::Reset, false),
            (RetryOn { reset: true, ..none }, Failure::Stale, true),
            (RetryOn { reset: true, ..none }, Failure::Reset, true),
            (RetryOn { timeout: true, ..none }, Failure::Timeout, true),
            (RetryOn { gateway_error: true, ..none }, Failure::Status(500), false),
            (RetryOn { gateway_error: true, ..none }, Failure::Status(502), true),
            (RetryOn { gateway_error: true, ..none }, Failure::Status(504), true),
            (RetryOn { gateway_error: true, ..none }, Failure::Status(505), false),
            (RetryOn { server_error: true, ..none }, Failure::Status(599), true),
            (ALL, Failure::Status(499), false),
            (ALL, Failure::Status(200), false),
        ] {
            assert_eq!(verdict(&on(reasons), why, GET), expected, "{reasons:?} {why:?}");
        }
    }

    #[test]
    fn attempts_are_extra_tries() {
        let tries = |attempts, tries| {
            verdict(&Retries { attempts, ..Retries::default() }, Failure::Connect, Again { tries, ..GET })
        };
        assert_eq!(
            [tries(0, 1), tries(1, 1), tries(1, 2), tries(3, 3), tries(3, 4)],
            [false, true, false, true, false]
        );
    }

    #[test]
    fn methods_are_idempotent_as_the_standard_says() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
            assert!(is_idempotent(method));
        }
        for method in ["POST", "PATCH", "CONNECT", "get", ""] {
            assert!(!is_idempotent(method));
        }
    }

    #[test]
    fn the_pause_doubles_up_to_the_longest() {
        let longest = |number| backoff(&Retries::default(), number, u32::MAX).as_millis();
        assert_eq!([1, 2, 3, 4, 5, 6, 40, u32::MAX].map(longest), [25, 50, 100, 200, 250, 250, 250, 250]);
        assert_eq!(backoff(&Retries::default(), 3, 0), Duration::ZERO);
        assert_eq!(backoff(&Retries::default(), 1, u32::MAX / 2).as_millis(), 12);
    }

    #[test]
    fn a_few_tries_are_allowed_without_requests_and_come_back_after_the_window() {
        let (budget, retries) = (Budget::default(), Retries::default());
        let take = |secs| (0..1000).filter(|_| budget.take(&retries, Duration::from_secs(secs))).count();
        assert_eq!([take(100), take(100), take(109), take(110)], [100, 0, 0, 100]);
        let none = Retries { budget_min_per_second: 0, budget_ratio: 0, ..retries };
        assert!(!Budget::default().take(&none, Duration::from_secs(1)));
    }

    #[test]
    fn workers_together_do_not_exceed_it() {
        let (budget, retries) = (Budget::default(), Retries { budget_min_per_second: 7, ..Retries::default() });
        let taken: usize = std::thread::scope(|scope| {
            let worker = || (0..500).filter(|_| budget.take(&retries, Duration::from_secs(3))).count();
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert!(taken <= 70, "{taken}");
        let rest = (0..500).filter(|_| budget.take(&retries, Duration::from_secs(3))).count();
        assert_eq!(taken + rest, 70, "what was not taken is still there");
    }

    proptest! {
        #[test]
        fn a_budget_is_never_exceeded(
            ratio in 0_u32..1000,
            min in 0_u32..5,
            steps in proptest::collection::vec((0_u64..4000, 0_u32..20, 0_u32..20), 1..100),
        ) {
            let retries = Retries { budget_ratio: ratio, budget_min_per_second: min, ..Retries::default() };
            let budget = Budget::default();
            let (mut now, mut requests, mut extra) = (0, Vec::new(), Vec::new());
            for (step, come, tried) in steps {
                now += step;
                let time = Duration::from_millis(now);
                for _ in 0..come {
                    budget.request(time);
                    requests.push(now);
                }
                extra.extend((0..tried).filter(|_| budget.take(&retries, time)).map(|_| now));
                let recent = |times: &[u64]| times.iter().filter(|t| now / 1000 - **t / 1000 < 10).count() as u64;
                // What was taken earlier was allowed by requests that are no longer recent.
                if tried > 0 && extra.last() == Some(&now) {
                    prop_assert!(recent(&extra) <= recent(&requests) * u64::from(ratio) / 1000 + u64::from(min) * 10);
                }
            }
        }

        #[test]
        fn no_pause_is_longer_than_the_longest(number: u32, chance: u32) {
            prop_assert!(backoff(&Retries::default(), number, chance) <= Retries::default().backoff_max);
        }
    }
}
