//! How the client asks.

use super::{
    LOGS, REGISTRY, TRACE_BELOW, TRACES, WATCH_BELOW, WATCH_LOGS,
    bodies::{BypassBody, Change, CircuitBody, CircuitSetBody, LbBody, LogLevelBody, NoBody, TargetBody, WeightBody},
};
use crate::api::{
    Request,
    door::{Connections, Traces},
    logs::Logs,
    query::encode,
    registration,
};
use hyper::Method;
use std::time::Duration;

/// A request as the client sends it.
pub(in crate::api) struct Written {
    pub(in crate::api) method: Method,
    pub(in crate::api) path_and_query: String,
    pub(in crate::api) body: Vec<u8>,
}

/// How the client asks for `request`: what [`parse`](super::parse) and [`Change::read`] understand.
pub(in crate::api) fn write(request: &Request) -> Result<Written, serde_json::Error> {
    let (change, body) = match request.clone() {
        Request::Status => return Ok(get("/v1/status", &[])),
        Request::Services { name } => return Ok(get("/v1/services", &[("name", name)])),
        Request::Endpoints { service } => return Ok(get("/v1/endpoints", &[("service", service)])),
        Request::Connections(Connections { service, endpoint, sort, limit }) => {
            let parameters = [
                ("service", service),
                ("endpoint", endpoint.map(|endpoint| endpoint.to_string())),
                ("sort", sort.map(|sort| sort.to_string())),
                ("limit", limit.map(|limit| limit.to_string())),
            ];
            return Ok(get("/v1/connections", &parameters));
        }
        Request::Logs(wanted) => return Ok(get(LOGS, &written_logs(&wanted))),
        Request::LogLevels => return Ok(get("/v1/log-level", &[])),
        Request::SetLogLevel { directive } => (Change::LogLevel, serde_json::to_vec(&LogLevelBody { directive })?),
        Request::Circuits { service } => return Ok(get("/v1/circuits", &[("service", service)])),
        Request::Explain { address, host, path, zone } => {
            let parameters = [("address", Some(address.to_string())), ("host", host), ("path", path), ("zone", zone)];
            return Ok(get("/v1/explain", &parameters));
        }
        Request::Traces(Traces { service, limit }) => {
            let parameters = [("service", service), ("limit", limit.map(|limit| limit.to_string()))];
            return Ok(get(TRACES, &parameters));
        }
        Request::Trace { id } => {
            let mut path = TRACE_BELOW.to_owned();
            encode(&id, &mut path);
            return Ok(get(&path, &[]));
        }
        Request::ConfigDump => return Ok(get("/v1/config", &[])),
        Request::ConfigReload => (Change::Reload, serde_json::to_vec(&NoBody {})?),
        Request::EndpointDrain { service, address, persist } => {
            (Change::Drain, serde_json::to_vec(&TargetBody { service, address, persist })?)
        }
        Request::EndpointUndrain { service, address, persist } => {
            (Change::Undrain, serde_json::to_vec(&TargetBody { service, address, persist })?)
        }
        Request::EndpointWeight { service, address, weight, persist } => {
            (Change::Weight, serde_json::to_vec(&WeightBody { service, address, weight, persist })?)
        }
        Request::LbSet { service, policy, persist } => {
            (Change::Lb, serde_json::to_vec(&LbBody { service, policy, persist })?)
        }
        Request::CircuitTrip { service, address } => {
            (Change::Trip, serde_json::to_vec(&CircuitBody { service, address })?)
        }
        Request::CircuitReset { service, address } => {
            (Change::Reset, serde_json::to_vec(&CircuitBody { service, address })?)
        }
        Request::CircuitSet { service, failure_threshold, reset_timeout, persist } => {
            let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            let reset_timeout_ms = reset_timeout.map(milliseconds);
            let body = CircuitSetBody { service, failure_threshold, reset_timeout_ms, persist };
            (Change::SetCircuit, serde_json::to_vec(&body)?)
        }
        Request::Bypass { on } => (Change::Bypass, serde_json::to_vec(&BypassBody { on })?),
        Request::Registry { service } => return Ok(registry(Method::GET, service.as_slice(), "")),
        Request::Instance { service, id } => return Ok(registry(Method::GET, &[service, id], "")),
        Request::Heartbeat { service, id } => return Ok(registry(Method::POST, &[service, id], "/heartbeat")),
        Request::Deregister { service, id } => return Ok(registry(Method::DELETE, &[service, id], "")),
        Request::Register(said) => {
            let body = serde_json::to_vec(&registration::write(&said))?;
            return Ok(Written { body, ..registry(Method::PUT, &[said.service, said.id], "") });
        }
    };
    Ok(Written { method: Method::POST, path_and_query: change.path().to_owned(), body })
}

fn registry(method: Method, names: &[String], end: &str) -> Written {
    let mut path_and_query = REGISTRY.to_owned();
    for name in names {
        path_and_query.push('/');
        encode(name, &mut path_and_query);
    }
    path_and_query.push_str(end);
    Written { method, path_and_query, body: Vec::new() }
}

/// The path at which a service is watched.
pub(in crate::api) fn watch(service: &str) -> String {
    let mut path = WATCH_BELOW.to_owned();
    encode(service, &mut path);
    path
}

/// The path at which these lines of the log are followed.
pub(in crate::api) fn follow(wanted: &Logs) -> String {
    get(WATCH_LOGS, &written_logs(wanted)).path_and_query
}

fn written_logs(wanted: &Logs) -> [(&'static str, Option<String>); 9] {
    let Logs { service, endpoint, status, method, path, duration, trace, since, limit } = wanted;
    [
        ("service", service.clone()),
        ("endpoint", endpoint.map(|endpoint| endpoint.to_string())),
        ("status", status.as_ref().map(ToString::to_string)),
        ("method", method.as_ref().map(ToString::to_string)),
        ("path", path.as_ref().map(ToString::to_string)),
        ("duration", duration.map(|duration| duration.to_string())),
        ("trace", trace.as_ref().map(ToString::to_string)),
        ("since", since.map(|since| since.to_string())),
        ("limit", limit.map(|limit| limit.to_string())),
    ]
}

fn get(path: &str, parameters: &[(&str, Option<String>)]) -> Written {
    let mut path_and_query = path.to_owned();
    let mut separator = '?';
    for (name, value) in parameters {
        let Some(value) = value else { continue };
        path_and_query.push(separator);
        path_and_query.push_str(name);
        path_and_query.push('=');
        encode(value, &mut path_and_query);
        separator = '&';
    }
    Written { method: Method::GET, path_and_query, body: Vec::new() }
}
