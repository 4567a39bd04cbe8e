//! What durations may be, where their form does not say it already: the one list of it, for the rules by which files are
//! checked and for the schema.

use super::{Config, duration::Duration, route::Route, settings::Settings};
use std::{ops::RangeInclusive, time::Duration as Time};

/// What `circuit_breaker.failure_threshold` may be.
pub const FAILURE_THRESHOLD: RangeInclusive<u32> = 0..=1000;
/// What `circuit_breaker.reset_timeout` may be.
pub const RESET_TIMEOUT: RangeInclusive<Time> = Time::from_millis(100)..=DAY;

/// Bounds of a duration in a `T`.
pub(super) struct Bounds<T> {
    /// Its key, from that `T` on.
    pub(super) path: &'static str,
    /// `None`: it was left out, and something else holds.
    pub(super) get: fn(&T) -> Option<Duration>,
    min: Time,
    /// `None`: the longest that can be written.
    max: Option<Time>,
    /// What zero means, where it is allowed besides.
    zero: Option<&'static str>,
    /// What to do about one that is refused, where it does not go without saying.
    remedy: Option<&'static str>,
}

const MS: Time = Time::from_millis(1);
const SECOND: Time = Time::from_secs(1);
const MINUTE: Time = Time::from_secs(60);
const HOUR: Time = Time::from_secs(3600);
const DAY: Time = Time::from_secs(24 * 3600);

/// Those of every service.
pub(super) const SETTINGS: &[Bounds<Settings>] = &[
    bounds("connect_timeout", |s: &Settings| Some(s.connect_timeout), times(MS, 10), times(MINUTE, 10))
        .zero("leaves it to the kernel"),
    bounds("request_timeout", |s: &Settings| Some(s.request_timeout), times(MS, 10), DAY).zero("switches it off"),
    bounds("detect_timeout", |s: &Settings| Some(s.detect_timeout), times(MS, 10), MINUTE),
    bounds("idle_timeout.tcp", |s: &Settings| Some(s.idle_timeout.tcp), times(MS, 100), times(DAY, 30))
        .zero("keeps them for ever"),
    bounds("idle_timeout.http", |s: &Settings| Some(s.idle_timeout.http), times(MS, 100), times(DAY, 30))
        .zero("keeps them for ever"),
    bounds(
        "circuit_breaker.success_rate.window",
        |s: &Settings| Some(s.circuit_breaker.success_rate.window),
        SECOND,
        times(MINUTE, 10),
    ),
    bounds("retries.per_try_timeout", |s: &Settings| Some(s.retries.per_try_timeout), times(MS, 10), HOUR)
        .zero("is as long as the request"),
    bounds("retries.backoff.base", |s: &Settings| Some(s.retries.backoff.base), MS, MINUTE).zero("tries again at once"),
    bounds("retries.backoff.max", |s: &Settings| Some(s.retries.backoff.max), MS, times(MINUTE, 10))
        .zero("tries again at once"),
    bounds("health_check.interval", |s: &Settings| Some(s.health_check.interval), times(MS, 100), HOUR),
    bounds("health_check.timeout", |s: &Settings| Some(s.health_check.timeout), times(MS, 10), MINUTE),
    bounds(
        "circuit_breaker.reset_timeout",
        |s: &Settings| Some(s.circuit_breaker.reset_timeout),
        *RESET_TIMEOUT.start(),
        *RESET_TIMEOUT.end(),
    ),
    bounds(
        "circuit_breaker.max_reset_timeout",
        |s: &Settings| Some(s.circuit_breaker.max_reset_timeout),
        *RESET_TIMEOUT.start(),
        *RESET_TIMEOUT.end(),
    ),
    bounds(
        "circuit_breaker.probe_interval",
        |s: &Settings| Some(s.circuit_breaker.probe_interval),
        times(MS, 100),
        HOUR,
    ),
];

/// Those that a daemon has once.
pub(super) const CONFIG: &[Bounds<Config>] = &[
    at_least("dataplane.heartbeat_timeout", |c: &Config| Some(c.dataplane.heartbeat_timeout), SECOND)
        .remedy("the daemon beats a few times a second: less would take a busy one for dead"),
    at_least("dataplane.stale_after", |c: &Config| Some(c.dataplane.stale_after), SECOND)
        .remedy("a daemon that is never to be missed has when_stale: last_known"),
    bounds("proxy.drain_timeout", |c: &Config| Some(c.proxy.drain_timeout), Time::ZERO, HOUR),
    bounds("discovery.registry.ttl", |c: &Config| Some(c.discovery.registry.ttl), SECOND, DAY),
    bounds("discovery.dns.refresh", |c: &Config| Some(c.discovery.dns.refresh), SECOND, DAY),
    bounds("discovery.empty_grace", |c: &Config| Some(c.discovery.empty_grace), Time::ZERO, HOUR),
    bounds("telemetry.access_log.open_interval", |c: &Config| Some(c.telemetry.access_log.open_interval), SECOND, DAY)
        .zero("switches it off"),
];

/// Those of a route.
pub(super) const ROUTE: &[Bounds<Route>] = &[
    bounds("request_timeout", |r: &Route| r.request_timeout, times(MS, 10), DAY).zero("switches it off"),
    bounds("fault.delay", |r: &Route| Some(r.fault.delay), MS, times(MINUTE, 10)).zero("switches it off"),
    bounds("retries.per_try_timeout", |r: &Route| r.retries.as_ref()?.per_try_timeout, times(MS, 10), HOUR)
        .zero("switches it off"),
    bounds("retries.backoff.base", |r: &Route| r.retries.as_ref()?.backoff.base, MS, MINUTE).zero("switches it off"),
    bounds("retries.backoff.max", |r: &Route| r.retries.as_ref()?.backoff.max, MS, times(MINUTE, 10))
        .zero("switches it off"),
];

const fn times(time: Time, n: u32) -> Time {
    time.saturating_mul(n)
}

const fn bounds<T>(path: &'static str, get: fn(&T) -> Option<Duration>, min: Time, max: Time) -> Bounds<T> {
    Bounds { path, get, min, max: Some(max), zero: None, remedy: None }
}

const fn at_least<T>(path: &'static str, get: fn(&T) -> Option<Duration>, min: Time) -> Bounds<T> {
    Bounds { path, get, min, max: None, zero: None, remedy: None }
}

impl<T> Bounds<T> {
    const fn zero(self, zero: &'static str) -> Self {
        Self { zero: Some(zero), ..self }
    }

    const fn remedy(self, remedy: &'static str) -> Self {
        Self { remedy: Some(remedy), ..self }
    }

    /// Whether that of `from` is within them; else what is wrong, and what to do.
    pub(super) fn judge(&self, from: &T) -> Result<(), (String, Option<String>)> {
        let Some(found) = (self.get)(from) else { return Ok(()) };
        let within = found.get() >= self.min && self.max.is_none_or(|max| found.get() <= max);
        if within || found.is_zero() && self.zero.is_some() {
            return Ok(());
        }
        let remedy = self.zero.map(|zero| format!("0s {zero}")).or_else(|| self.remedy.map(str::to_owned));
        Err((format!("expected {}, found {found}", self.range()), remedy))
    }

    /// In words: `10ms to 1m`.
    fn range(&self) -> String {
        let min = Duration::from(self.min);
        match self.max {
            Some(max) if min.is_zero() => format!("at most {}", Duration::from(max)),
            Some(max) => format!("{min} to {}", Duration::from(max)),
            None => format!("at least {min}"),
        }
    }

    /// In words that follow a description: `10ms to 1m; 0s switches it off`.
    pub(super) fn words(&self) -> String {
        let range = self.range();
        self.zero.map_or_else(|| range.clone(), |zero| format!("{range}; 0s {zero}"))
    }
}

/// Every duration with bounds: its path in a file, in which `[]` stands for the items of a list, and the bounds in words.
pub(super) fn all() -> impl Iterator<Item = (String, String)> {
    let of_settings = |prefix| SETTINGS.iter().map(move |bounds| (format!("{prefix}.{}", bounds.path), bounds.words()));
    let of_config = CONFIG.iter().map(|bounds| (bounds.path.to_owned(), bounds.words()));
    let of_routes = ROUTE.iter().map(|bounds| (format!("services[].routes[].{}", bounds.path), bounds.words()));
    of_config.chain(of_settings("defaults")).chain(of_settings("services[]")).chain(of_routes)
}
