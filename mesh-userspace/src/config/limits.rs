//! What the settings of services may be, where their form does not say it already: [`bounds`] of durations, and rules over
//! several of them. A mistake is reported where the value is written, once, whoever inherits it.

use super::{
    Config, bounds,
    merge::Merged,
    report::{Place, Report},
    settings::{CheckType, Policy, Protocol, Settings},
};

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
    for bounds in bounds::SETTINGS {
        if let Some((at, field)) = written(bounds.path)
            && let Err((problem, remedy)) = bounds.judge(settings)
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

/// The range of `maglev_size`, as its schema has it.
const MAGLEV_MIN: u32 = 251;
const MAGLEV_MAX: u32 = 1_048_573;

fn is_prime(n: u32) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}
