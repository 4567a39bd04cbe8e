//! Configuration of HTTP → facts. Names of headers and hosts are lower case from here on.

use super::{
    Counted, HashOf, HeaderChanges, Retries, RetryReason, Route, RouteRetries, Settings, SuccessRate, Upstream,
    WhenDown, pairs::Pairs,
};
use crate::model;

impl From<&Settings> for model::Http {
    fn from(settings: &Settings) -> Self {
        let Settings { limits, rate_limit, circuit_breaker, .. } = settings;
        let count = |what| circuit_breaker.count.contains(&what);
        Self {
            request_timeout: settings.request_timeout.get(),
            detect_timeout: settings.detect_timeout.get(),
            idle_http: settings.idle_timeout.http.get(),
            idle_tcp: settings.idle_timeout.tcp.get(),
            hash: (&settings.load_balancing.hash).into(),
            limits: model::Limits {
                max_connections: limits.max_connections,
                max_pending_requests: limits.max_pending_requests,
                max_requests: limits.max_requests,
            },
            rate_limit: model::RateLimit {
                requests_per_second: rate_limit.requests_per_second,
                burst: rate_limit.burst,
            },
            retries: (&settings.retries).into(),
            upstream: match settings.upstream {
                Upstream::Auto => model::Upstream::Auto,
                Upstream::Http1 => model::Upstream::Http1,
                Upstream::Http2 => model::Upstream::Http2,
            },
            when_daemon_down: match settings.when_daemon_down {
                WhenDown::Direct => model::WhenDown::Direct,
                WhenDown::Refuse => model::WhenDown::Refuse,
            },
            counted: model::Counted {
                connect_failure: count(Counted::ConnectFailure),
                reset: count(Counted::Reset),
                timeout: count(Counted::Timeout),
                server_error: count(Counted::ServerError),
            },
            success_rate: (&circuit_breaker.success_rate).into(),
        }
    }
}

impl From<&HashOf> for model::HashOn {
    fn from(hash: &HashOf) -> Self {
        Self { header: hash.header.to_ascii_lowercase(), cookie: hash.cookie.clone(), source: hash.source }
    }
}

impl From<&SuccessRate> for model::SuccessRate {
    fn from(rate: &SuccessRate) -> Self {
        Self { floor: rate.floor.parts(), window: rate.window.get(), min_requests: rate.min_requests }
    }
}

impl From<&Retries> for model::Retries {
    fn from(retries: &Retries) -> Self {
        let on = |why| retries.on.contains(&why);
        Self {
            attempts: retries.attempts,
            on: model::RetryOn {
                connect_failure: on(RetryReason::ConnectFailure),
                refused_stream: on(RetryReason::RefusedStream),
                reset_before_request: on(RetryReason::ResetBeforeRequest),
                reset: on(RetryReason::Reset),
                server_error: on(RetryReason::ServerError),
                gateway_error: on(RetryReason::GatewayError),
                timeout: on(RetryReason::Timeout),
            },
            per_try_timeout: retries.per_try_timeout.get(),
            backoff_base: retries.backoff.base.get(),
            backoff_max: retries.backoff.max.get(),
            budget_ratio: retries.budget.ratio.parts(),
            budget_min_per_second: retries.budget.min_per_second,
        }
    }
}

impl RouteRetries {
    /// These over those of the service.
    pub(super) fn over(&self, service: &Retries) -> Retries {
        let mut retries = service.clone();
        let Self { attempts, on, per_try_timeout, backoff, budget } = self;
        retries.attempts = attempts.unwrap_or(retries.attempts);
        if let Some(on) = on {
            retries.on.clone_from(on);
        }
        retries.per_try_timeout = per_try_timeout.unwrap_or(retries.per_try_timeout);
        retries.backoff.base = backoff.base.unwrap_or(retries.backoff.base);
        retries.backoff.max = backoff.max.unwrap_or(retries.backoff.max);
        retries.budget.ratio = budget.ratio.unwrap_or(retries.budget.ratio);
        retries.budget.min_per_second = budget.min_per_second.unwrap_or(retries.budget.min_per_second);
        retries
    }
}

/// A route of a service with these settings.
pub(super) fn route(route: &Route, settings: &Settings) -> model::Route {
    let Route { r#match, to, rewrite, headers, redirect, mirror, fault, request_timeout, retries } = route;
    model::Route {
        matches: model::Match {
            path: r#match.path.clone(),
            path_prefix: r#match.path_prefix.clone(),
            path_regex: r#match.path_regex.clone(),
            method: r#match.method.clone(),
            host: r#match.host.to_ascii_lowercase(),
            headers: lower(&r#match.headers),
            query: r#match.query.clone(),
        },
        to: to.iter().map(|to| model::Target { service: to.service.clone(), weight: to.weight }).collect(),
        rewrite: model::Rewrite { path_prefix: rewrite.path_prefix.clone(), host: rewrite.host.clone() },
        request_headers: (&headers.request).into(),
        response_headers: (&headers.response).into(),
        redirect: (!redirect.is_nothing()).then(|| model::Redirect {
            status: redirect.status,
            host: redirect.host.clone(),
            path: redirect.path.clone(),
        }),
        mirror: (!mirror.is_nothing())
            .then(|| model::Mirror { service: mirror.service.clone(), percent: mirror.percent.parts() }),
        fault: model::Fault {
            delay: fault.delay.get(),
            delay_percent: fault.delay_percent.parts(),
            abort_status: fault.abort_status,
            abort_percent: fault.abort_percent.parts(),
        },
        request_timeout: request_timeout.map(super::Duration::get),
        retries: retries.as_ref().map(|retries| (&retries.over(&settings.retries)).into()),
    }
}

impl From<&HeaderChanges> for model::HeaderChanges {
    fn from(changes: &HeaderChanges) -> Self {
        Self {
            set: lower(&changes.set),
            add: lower(&changes.add),
            remove: changes.remove.iter().map(|name| name.to_ascii_lowercase()).collect(),
        }
    }
}

fn lower(headers: &Pairs) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
}
