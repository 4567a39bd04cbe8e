//! Between HTTP and [`Request`], both ways: the server parses, the client writes, and neither knows more than this.
//!
//! Here is what a request line asks for, in `bodies` what the body of one that changes something says, and in `written` how
//! the client asks.

mod bodies;
#[cfg(test)]
mod tests;
mod written;

pub(super) use bodies::Change;
pub(super) use written::{Written, follow, watch, write};

use super::{
    door::{Connections, Kind, Refusal, Request, Traces},
    logs::Logs,
    query::{Parameters, decode},
    token::Token,
};
use hyper::{Method, StatusCode};
use std::{path::PathBuf, sync::Arc};

/// What may be asked at a listener.
#[derive(Clone, Debug)]
pub(super) enum Surface {
    /// Everything, at the admin socket.
    ReadWrite,
    /// All that changes nothing. The socket is where changes are made; it is named to who tries here.
    ReadOnly { socket: Option<PathBuf> },
    /// What Prometheus and Kubernetes ask.
    MetricsOnly,
    /// The registry, for whoever shows the token, if there is one.
    Registry(Option<Arc<Token>>),
}

/// What a request line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// The page for people.
    Page,
    /// Metrics as text.
    Metrics,
    /// Whether the process works.
    Health,
    /// Whether the node can be relied upon.
    Ready,
    /// Something of the door.
    Ask(Request),
    /// Something of the door that its body says.
    Write(Change),
    /// A registration that its body says.
    Register { service: String, id: String },
    /// Endpoints as they change.
    Watch { service: String },
    /// Lines of the log as they come.
    WatchLogs(Logs),
    /// The whole node as it changes.
    Live,
    /// To be followed by another daemon.
    Takeover,
}

/// A request that gets no answer but this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HttpError {
    pub(super) status: StatusCode,
    /// The word in `{"error": {"kind": …}}`.
    pub(super) kind: &'static str,
    pub(super) message: String,
    /// The methods that this path takes, where that is what is wrong.
    pub(super) allow: Option<&'static str>,
}

impl HttpError {
    pub(super) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into(), allow: None }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Refusal::invalid(message).into()
    }
}

impl From<Refusal> for HttpError {
    fn from(refusal: Refusal) -> Self {
        let (status, kind) = match refusal.kind {
            Kind::Invalid => (StatusCode::BAD_REQUEST, "invalid"),
            Kind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Kind::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Kind::Conflict => (StatusCode::CONFLICT, "conflict"),
            Kind::Unsupported => (StatusCode::NOT_IMPLEMENTED, "unsupported"),
            Kind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Kind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        Self::new(status, kind, refusal.message)
    }
}

const PROBES: [&str; 3] = ["/metrics", "/health", "/ready"];
const READS: [&str; 12] = [
    "/",
    "/v1/status",
    "/v1/services",
    "/v1/endpoints",
    "/v1/connections",
    "/v1/circuits",
    "/v1/explain",
    "/v1/config",
    "/v1/log-level",
    LOGS,
    TRACES,
    REGISTRY,
];
const REGISTRY: &str = "/v1/registry";
const TRACES: &str = "/v1/traces";
const TRACE_BELOW: &str = "/v1/traces/";
const REGISTRY_BELOW: &str = "/v1/registry/";
const LOGS: &str = "/v1/logs";
const WATCH_BELOW: &str = "/v1/watch/services/";
const WATCH_LOGS: &str = "/v1/watch/logs";
pub(super) const LIVE: &str = "/v1/watch/live";
/// Asked by another daemon, and not with a body.
pub(super) const TAKEOVER: &str = "/v1/takeover";
const CHANGES: [(&str, Change); 10] = [
    ("/v1/bypass", Change::Bypass),
    ("/v1/circuits/reset", Change::Reset),
    ("/v1/circuits/set", Change::SetCircuit),
    ("/v1/circuits/trip", Change::Trip),
    ("/v1/config/reload", Change::Reload),
    ("/v1/endpoints/drain", Change::Drain),
    ("/v1/endpoints/undrain", Change::Undrain),
    ("/v1/endpoints/weight", Change::Weight),
    ("/v1/lb", Change::Lb),
    ("/v1/log-level/set", Change::LogLevel),
];

/// What a request line asks for at this listener.
pub(super) fn parse(surface: &Surface, method: &Method, path: &str, query: Option<&str>) -> Result<Call, HttpError> {
    let (encoded, not_encoded) = (path, || HttpError::invalid("the path is not percent-encoded text"));
    let path = decode(path, false).ok_or_else(not_encoded)?;
    let path = path.as_ref();
    let probe = PROBES.contains(&path);
    if matches!(surface, Surface::MetricsOnly) && !probe {
        return Err(unknown(surface, path));
    }
    // A name may have a slash in it, encoded: it is refused for that where names are checked.
    if let Some(rest) = encoded.strip_prefix(REGISTRY_BELOW) {
        let names: Option<Vec<_>> = rest.split('/').map(|name| decode(name, false)).collect();
        let names = names.ok_or_else(not_encoded)?;
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        return parse_registry(surface, method, path, &names, query);
    }
    if matches!(surface, Surface::Registry(_)) && path != REGISTRY {
        return Err(unknown(surface, path));
    }
    if let Some(service) = path.strip_prefix(WATCH_BELOW).filter(|service| !service.is_empty()) {
        if method != Method::GET {
            return Err(wrong_method(method, path, "GET"));
        }
        Parameters::parse(query)?.finish(path)?;
        return Ok(Call::Watch { service: service.to_owned() });
    }
    if path == WATCH_LOGS {
        if method != Method::GET {
            return Err(wrong_method(method, path, "GET"));
        }
        let mut parameters = Parameters::parse(query)?;
        let wanted = take_logs(&mut parameters)?;
        parameters.finish(path)?;
        return Ok(Call::WatchLogs(wanted));
    }
    if let Some(id) = path.strip_prefix(TRACE_BELOW).filter(|id| !id.is_empty() && !id.contains('/')) {
        if method != Method::GET && method != Method::HEAD {
            return Err(wrong_method(method, path, "GET, HEAD"));
        }
        Parameters::parse(query)?.finish(path)?;
        return Ok(Call::Ask(Request::Trace { id: id.to_owned() }));
    }
    if path == LIVE {
        if method != Method::GET {
            return Err(wrong_method(method, path, "GET"));
        }
        Parameters::parse(query)?.finish(path)?;
        return Ok(Call::Live);
    }
    if let Some((_, change)) = CHANGES.iter().find(|(known, _)| *known == path) {
        return parse_change(surface, method, path, query).map(|()| Call::Write(*change));
    }
    if path == TAKEOVER {
        return parse_change(surface, method, path, query).map(|()| Call::Takeover);
    }
    if !probe && !READS.contains(&path) {
        return Err(unknown(surface, path));
    }
    if method != Method::GET && method != Method::HEAD {
        return Err(wrong_method(method, path, "GET, HEAD"));
    }
    let mut parameters = Parameters::parse(query)?;
    let call = match path {
        "/" => Call::Page,
        // Scrapers and browsers add parameters of their own here; they ask for nothing that could be missed.
        "/metrics" => return Ok(Call::Metrics),
        "/health" => return Ok(Call::Health),
        "/ready" => return Ok(Call::Ready),
        "/v1/services" => Call::Ask(Request::Services { name: parameters.take("name")? }),
        "/v1/endpoints" => Call::Ask(Request::Endpoints { service: parameters.take("service")? }),
        "/v1/connections" => Call::Ask(Request::Connections(Connections {
            service: parameters.take("service")?,
            endpoint: parameters.take_address_if_any("endpoint")?,
            sort: parameters.take_word("sort")?,
            limit: parameters.take_count("limit")?,
        })),
        "/v1/circuits" => Call::Ask(Request::Circuits { service: parameters.take("service")? }),
        "/v1/explain" => Call::Ask(Request::Explain {
            address: parameters.take_address("address")?,
            host: parameters.take("host")?,
            path: parameters.take("path")?,
            zone: parameters.take("zone")?,
        }),
        "/v1/config" => Call::Ask(Request::ConfigDump),
        "/v1/log-level" => Call::Ask(Request::LogLevels),
        LOGS => Call::Ask(Request::Logs(Box::new(take_logs(&mut parameters)?))),
        TRACES => Call::Ask(Request::Traces(Traces {
            service: parameters.take("service")?,
            limit: parameters.take_count("limit")?,
        })),
        REGISTRY => Call::Ask(Request::Registry { service: None }),
        _ => Call::Ask(Request::Status),
    };
    parameters.finish(path)?;
    Ok(call)
}

fn take_logs(parameters: &mut Parameters) -> Result<Logs, HttpError> {
    Ok(Logs {
        service: parameters.take("service")?,
        endpoint: parameters.take_address_if_any("endpoint")?,
        status: parameters.take_parsed("status")?,
        method: parameters.take_parsed("method")?,
        path: parameters.take_parsed("path")?,
        duration: parameters.take_parsed("duration")?,
        trace: parameters.take_parsed("trace")?,
        since: parameters.take_parsed("since")?,
        limit: parameters.take_count("limit")?,
    })
}

fn parse_change(surface: &Surface, method: &Method, path: &str, query: Option<&str>) -> Result<(), HttpError> {
    if method != Method::POST {
        return Err(wrong_method(method, path, "POST"));
    }
    may_change(surface, path, "")?;
    Parameters::parse(query)?.finish(path)
}

fn may_change(surface: &Surface, path: &str, or_else: &str) -> Result<(), HttpError> {
    let Surface::ReadOnly { socket } = surface else { return Ok(()) };
    let socket = socket.as_ref().map(|path| format!(" ({})", path.display())).unwrap_or_default();
    let message = format!("this address is read-only: {path} is taken at the admin socket{socket}{or_else}");
    Err(HttpError::new(StatusCode::FORBIDDEN, "forbidden", message))
}

/// `names` are what stands below `/v1/registry`.
fn parse_registry(
    surface: &Surface,
    method: &Method,
    path: &str,
    names: &[&str],
    query: Option<&str>,
) -> Result<Call, HttpError> {
    let reads = method == Method::GET || method == Method::HEAD;
    let call = match *names {
        [service] if !service.is_empty() => match method {
            _ if reads => Call::Ask(Request::Registry { service: Some(service.to_owned()) }),
            _ => return Err(wrong_method(method, path, "GET, HEAD")),
        },
        [service, id] if !service.is_empty() && !id.is_empty() => {
            let (service, id) = (service.to_owned(), id.to_owned());
            match *method {
                _ if reads => Call::Ask(Request::Instance { service, id }),
                Method::PUT => Call::Register { service, id },
                Method::DELETE => Call::Ask(Request::Deregister { service, id }),
                _ => return Err(wrong_method(method, path, "GET, HEAD, PUT, DELETE")),
            }
        }
        [service, id, "heartbeat"] if !service.is_empty() && !id.is_empty() => match *method {
            Method::POST => Call::Ask(Request::Heartbeat { service: service.to_owned(), id: id.to_owned() }),
            _ => return Err(wrong_method(method, path, "POST")),
        },
        _ => {
            let message = format!(
                "no such path: {path}; there are /v1/registry, /v1/registry/SERVICE, /v1/registry/SERVICE/INSTANCE and \
                 /v1/registry/SERVICE/INSTANCE/heartbeat"
            );
            return Err(Refusal::not_found(message).into());
        }
    };
    if !reads {
        may_change(surface, path, ", and at discovery.registry.listen where that is configured")?;
    }
    Parameters::parse(query)?.finish(path)?;
    Ok(call)
}

fn wrong_method(method: &Method, path: &str, allow: &'static str) -> HttpError {
    let message = format!("{path} does not take {method}, only {allow}");
    HttpError { allow: Some(allow), ..HttpError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message) }
}

fn unknown(surface: &Surface, path: &str) -> HttpError {
    let mut known = match surface {
        Surface::Registry(_) => vec![REGISTRY],
        _ => PROBES.to_vec(),
    };
    if matches!(surface, Surface::ReadOnly { .. } | Surface::ReadWrite) {
        known.extend(READS);
    }
    if matches!(surface, Surface::ReadWrite) {
        known.extend(CHANGES.map(|(path, _)| path));
    }
    known.sort_unstable();
    HttpError::from(Refusal::not_found(format!("no such path: {path}; there are {}", known.join(" "))))
}
