//! What the settings of services may be, where their form does not say it already: bounds of durations, and rules over
//! several of them. A mistake is reported where the value is written, once, whoever inherits it.

use super::{
    Config,
    duration::Duration,
    merge::Merged,
    report::{Place, Report},
    settings::{CheckType, Policy, Protocol, Settings},
};
use std::{ops::RangeInclusive, time::Duration as Time};

/// The services of `config` and of `merged` are the same, in the same order.
pub(super) fn check(config: &Config, merged: &Merged<'_>, report: &mut Report) {
    let of_defaults = |path: &str| merged.written(&format!("defaults.{path}"));
    settings(&config.defaults, &of_defaults, report);
    let mut said = false;
    for (service, source) in config.services.iter().zip(&merged.services) {
        settings(&service.settings, &|path| source.written(path), report);
        if service.settings.protocol == Protocol::Tcp {
            without_effect(&service.settings, &config.defaults, &|path| source.written(path), report);
            if service.settings.load_balancing.policy == Policy::PeakEwma {
                let own = ["load_balancing.policy", "protocol"].iter().find_map(|path| source.written(path));
                // What services merely inherit is said once.
                if own.is_some() || !said {
                    said |= own.is_none();
                    let (at, field) =
                        own.or_else(|| of_defaults("load_balancing.policy")).unwrap_or_else(|| source.itself());
                    let problem =
                        format!("peak_ewma measures requests, but the protocol of the service {} is tcp", service.name);
                    let remedy = "write protocol: http, or a policy such as least_connections";
                    report.mistake(at, field, problem, Some(remedy.to_owned()));
                }
            }
        }
    }
}

/// What a TCP service states of what only HTTP services have. What says the same as the defaults is left alone: a dump
/// states all.
fn without_effect(
    settings: &Settings,
    defaults: &Settings,
    written: &dyn Fn(&str) -> Option<(Place, String)>,
    report: &mut Report,
) {
    for (path, differs) in HTTP_ONLY {
        if differs(settings, defaults)
            && let Some((at, field)) = written(path)
        {
            let problem = "it has no effect: the protocol of the service is tcp";
            report.warning(at, field, problem, Some("leave it out, or write protocol: http".to_owned()));
        }
    }
}

/// Whether a setting differs between two services.
type Differs = fn(&Settings, &Settings) -> bool;

/// Settings that TCP services do not have.
const HTTP_ONLY: &[(&str, Differs)] = &[
    ("load_balancing.hash.header", |a, b| a.load_balancing.hash.header != b.load_balancing.hash.header),
    ("load_balancing.hash.cookie", |a, b| a.load_balancing.hash.cookie != b.load_balancing.hash.cookie),
    // The address of the client is hashed anyway.
    ("load_balancing.hash.source", |a, b| !a.load_balancing.hash.source && b.load_balancing.hash.source),
    ("request_timeout", |a, b| a.request_timeout != b.request_timeout),
    ("detect_timeout", |a, b| a.detect_timeout != b.detect_timeout),
    ("idle_timeout", |a, b| a.idle_timeout != b.idle_timeout),
    ("circuit_breaker.count", |a, b| a.circuit_breaker.count != b.circuit_breaker.count),
    ("circuit_breaker.success_rate", |a, b| a.circuit_breaker.success_rate != b.circuit_breaker.success_rate),
    ("limits", |a, b| a.limits != b.limits),
    ("rate_limit", |a, b| a.rate_limit != b.rate_limit),
    ("retries", |a, b| a.retries != b.retries),
    ("upstream", |a, b| a.upstream != b.upstream),
    ("when_daemon_down", |a, b| a.when_daemon_down != b.when_daemon_down),
];

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
    let hash = &load_balancing.hash;
    if !hash.source
        && hash.header.is_empty()
        && hash.cookie.is_empty()
        && let Some((at, field)) = written("load_balancing.hash.source").or_else(|| written("load_balancing.hash"))
    {
        let problem = "false leaves nothing to hash: header and cookie are empty";
        report.mistake(at, field, problem, Some("leave it out, or name a header or a cookie".to_owned()));
    }
    let backoff = &settings.retries.backoff;
    if backoff.max < backoff.base
        && let Some((at, field)) = written("retries.backoff")
    {
        let problem = format!("max, {}, is less than base, {}", backoff.max, backoff.base);
        report.mistake(at, field, problem, Some(format!("write max: {} or more", backoff.base)));
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
        path: "request_timeout",
        get: |s| s.request_timeout,
        min: Time::from_millis(10),
        max: Time::from_secs(24 * 3600),
        zero: Some("0s switches it off"),
    },
    Bounds {
        path: "detect_timeout",
        get: |s| s.detect_timeout,
        min: Time::from_millis(10),
        max: Time::from_secs(60),
        zero: None,
    },
    Bounds {
        path: "idle_timeout.tcp",
        get: |s| s.idle_timeout.tcp,
        min: Time::from_millis(100),
        max: Time::from_secs(720 * 3600),
        zero: Some("0s keeps them for ever"),
    },
    Bounds {
        path: "idle_timeout.http",
        get: |s| s.idle_timeout.http,
        min: Time::from_millis(100),
        max: Time::from_secs(720 * 3600),
        zero: Some("0s keeps them for ever"),
    },
    Bounds {
        path: "circuit_breaker.success_rate.window",
        get: |s| s.circuit_breaker.success_rate.window,
        min: Time::from_secs(1),
        max: Time::from_secs(600),
        zero: None,
    },
    Bounds {
        path: "retries.per_try_timeout",
        get: |s| s.retries.per_try_timeout,
        min: Time::from_millis(10),
        max: HOUR,
        zero: Some("0s is as long as the request"),
    },
    Bounds {
        path: "retries.backoff.base",
        get: |s| s.retries.backoff.base,
        min: Time::from_millis(1),
        max: Time::from_secs(60),
        zero: Some("0s tries again at once"),
    },
    Bounds {
        path: "retries.backoff.max",
        get: |s| s.retries.backoff.max,
        min: Time::from_millis(1),
        max: Time::from_secs(600),
        zero: Some("0s tries again at once"),
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
