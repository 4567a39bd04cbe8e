//! What the settings of services may be, where their form does not say it already: bounds of durations, and rules over
//! several of them. A mistake is reported where the value is written, once, whoever inherits it.

use super::{
    Config,
    duration::Duration,
    merge::Merged,
    report::{Place, Report},
    settings::{CheckType, Settings},
};
use std::{ops::RangeInclusive, time::Duration as Time};

/// The services of `config` and of `merged` are the same, in the same order.
pub(super) fn check(config: &Config, merged: &Merged<'_>, report: &mut Report) {
    settings(&config.defaults, &|path| merged.written(&format!("defaults.{path}")), report);
    for (service, source) in config.services.iter().zip(&merged.services) {
        settings(&service.settings, &|path| source.written(path), report);
    }
}

/// `written`: the place and the name of a key, where it is written.
fn settings(settings: &Settings, written: &dyn Fn(&str) -> Option<(Place, String)>, report: &mut Report) {
    let Settings { load_balancing, health_check, circuit_breaker, .. } = settings;
    for bounds in BOUNDS {
        if let Some((at, field)) = written(bounds.path)
            && let Err((problem, remedy)) = bounds.judge((bounds.get)(settings))
        {
            report.mistake(at, field, problem, remedy);
        }
    }
    if let Some((at, field)) = written("load_balancing.maglev_size")
        && !is_prime(load_balancing.maglev_size)
    {
        let size = load_balancing.maglev_size;
        let below = (MAGLEV_MIN..size).rev().find(|n| is_prime(*n));
        let above = (size..=MAGLEV_MAX).find(|n| is_prime(*n));
        let near: Vec<String> = below.into_iter().chain(above).map(|n| n.to_string()).collect();
        let remedy = format!("the nearest: {}", near.join(" and "));
        report.mistake(at, field, format!("expected a prime, found {size}"), Some(remedy));
    }
    if let Some((at, field)) = written("load_balancing.hash.source")
        && !load_balancing.hash.source
    {
        let problem = "false would leave nothing to hash: header and cookie are not supported yet";
        report.mistake(at, field, problem, Some("leave it out, or write true".to_owned()));
    }
    if let Some((at, field)) = written("health_check.expected_status")
        && health_check.expected_status.is_empty()
    {
        let remedy = "leave it out for 200-399; type: tcp asks for no status".to_owned();
        report.mistake(at, field, "expected at least one status, found none: no endpoint would pass", Some(remedy));
    }
    if let Some((at, field)) = written("health_check.timeout").or_else(|| written("health_check.interval"))
        && health_check.r#type != CheckType::None
        && health_check.timeout > health_check.interval
    {
        let (timeout, interval) = (health_check.timeout, health_check.interval);
        let problem = format!("timeout, {timeout}, is longer than interval, {interval}");
        let remedy = "an endpoint that does not answer is checked less often than interval says".to_owned();
        report.warning(at, field, problem, Some(remedy));
    }
    let (reset, max) = (circuit_breaker.reset_timeout, circuit_breaker.max_reset_timeout);
    if max < reset {
        let at = |key: &str| written(&format!("circuit_breaker.{key}"));
        if let Some((at, field)) = at("max_reset_timeout").or_else(|| at("reset_timeout")) {
            let problem = format!("max_reset_timeout, {max}, is less than reset_timeout, {reset}");
            let remedy = format!("write max_reset_timeout: {reset} or more");
            report.mistake(at, field, problem, Some(remedy));
        }
    }
}

/// What `circuit_breaker.failure_threshold` may be.
pub const FAILURE_THRESHOLD: RangeInclusive<u32> = 0..=1000;
/// What `circuit_breaker.reset_timeout` may be.
pub const RESET_TIMEOUT: RangeInclusive<Time> = Time::from_millis(100)..=Time::from_secs(24 * 3600);

/// Bounds of a duration.
struct Bounds {
    path: &'static str,
    get: fn(&Settings) -> Duration,
    min: Time,
    max: Time,
    /// What zero means, where it is allowed.
    zero: Option<&'static str>,
}

const HOUR: Time = Time::from_secs(3600);

const BOUNDS: &[Bounds] = &[
    Bounds {
        path: "connect_timeout",
        get: |s| s.connect_timeout,
        min: Time::from_millis(10),
        max: Time::from_secs(600),
        zero: Some("0s leaves it to the kernel"),
    },
    Bounds {
        path: "health_check.interval",
        get: |s| s.health_check.interval,
        min: Time::from_millis(100),
        max: HOUR,
        zero: None,
    },
    Bounds {
        path: "health_check.timeout",
        get: |s| s.health_check.timeout,
        min: Time::from_millis(10),
        max: Time::from_secs(60),
        zero: None,
    },
    Bounds {
        path: "circuit_breaker.reset_timeout",
        get: |s| s.circuit_breaker.reset_timeout,
        min: *RESET_TIMEOUT.start(),
        max: *RESET_TIMEOUT.end(),
        zero: None,
    },
    Bounds {
        path: "circuit_breaker.max_reset_timeout",
        get: |s| s.circuit_breaker.max_reset_timeout,
        min: *RESET_TIMEOUT.start(),
        max: *RESET_TIMEOUT.end(),
        zero: None,
    },
    Bounds {
        path: "circuit_breaker.probe_interval",
        get: |s| s.circuit_breaker.probe_interval,
        min: Time::from_millis(100),
        max: HOUR,
        zero: None,
    },
];

impl Bounds {
    fn judge(&self, found: Duration) -> Result<(), (String, Option<String>)> {
        let allowed = (self.min..=self.max).contains(&found.get()) || found.is_zero() && self.zero.is_some();
        if allowed {
            return Ok(());
        }
        let (min, max) = (Duration::from(self.min), Duration::from(self.max));
        Err((format!("expected {min} to {max}, found {found}"), self.zero.map(str::to_owned)))
    }
}

/// The range of `maglev_size`, as its schema has it.
const MAGLEV_MIN: u32 = 251;
const MAGLEV_MAX: u32 = 1_048_573;

fn is_prime(n: u32) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}
