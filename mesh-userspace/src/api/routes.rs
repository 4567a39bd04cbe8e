//! Between HTTP and [`Request`], both ways: the server parses, the client writes, and neither knows more than this.

use super::{
    door::{Connections, Kind, Refusal, Request},
    query::{Parameters, decode, encode},
};
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// What may be asked at a listener.
#[derive(Clone, Debug)]
pub(super) enum Surface {
    /// Everything, at the admin socket.
    ReadWrite,
    /// All that changes nothing. The socket is where changes are made; it is named to who tries here.
    ReadOnly { socket: Option<PathBuf> },
    /// What Prometheus and Kubernetes ask.
    MetricsOnly,
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
    /// To be followed by another daemon.
    Takeover,
}

/// A request that changes something, its parameters not read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Reload,
    Drain,
    Undrain,
    Weight,
    Lb,
    Trip,
    Reset,
    SetCircuit,
    Bypass,
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
const READS: [&str; 8] = [
    "/",
    "/v1/status",
    "/v1/services",
    "/v1/endpoints",
    "/v1/connections",
    "/v1/circuits",
    "/v1/explain",
    "/v1/config",
];
/// Asked by another daemon, and not with a body.
pub(super) const TAKEOVER: &str = "/v1/takeover";
const CHANGES: [(&str, Change); 9] = [
    ("/v1/bypass", Change::Bypass),
    ("/v1/circuits/reset", Change::Reset),
    ("/v1/circuits/set", Change::SetCircuit),
    ("/v1/circuits/trip", Change::Trip),
    ("/v1/config/reload", Change::Reload),
    ("/v1/endpoints/drain", Change::Drain),
    ("/v1/endpoints/undrain", Change::Undrain),
    ("/v1/endpoints/weight", Change::Weight),
    ("/v1/lb", Change::Lb),
];
/// In the contract and not built yet: refused by name.
const LATER: [&str; 2] = ["/v1/traces", "/v1/logs"];
const LATER_BELOW: [&str; 2] = ["/v1/watch/", "/v1/registry/"];

/// What a request line asks for at this listener.
pub(super) fn parse(surface: &Surface, method: &Method, path: &str, query: Option<&str>) -> Result<Call, HttpError> {
    let path = decode(path, false).ok_or_else(|| HttpError::invalid("the path is not percent-encoded text"))?;
    let path = path.as_ref();
    let probe = PROBES.contains(&path);
    if matches!(surface, Surface::MetricsOnly) && !probe {
        return Err(unknown(surface, path));
    }
    if LATER.contains(&path) || LATER_BELOW.iter().any(|prefix| path.starts_with(prefix)) {
        return Err(Refusal::unsupported(path).into());
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
        _ => Call::Ask(Request::Status),
    };
    parameters.finish(path)?;
    Ok(call)
}

fn parse_change(surface: &Surface, method: &Method, path: &str, query: Option<&str>) -> Result<(), HttpError> {
    if method != Method::POST {
        return Err(wrong_method(method, path, "POST"));
    }
    if let Surface::ReadOnly { socket } = surface {
        let socket = socket.as_ref().map(|path| format!(" ({})", path.display())).unwrap_or_default();
        let message = format!("this address is read-only: {path} is taken at the admin socket{socket}");
        return Err(HttpError::new(StatusCode::FORBIDDEN, "forbidden", message));
    }
    Parameters::parse(query)?.finish(path)
}

fn wrong_method(method: &Method, path: &str, allow: &'static str) -> HttpError {
    let message = format!("{path} does not take {method}, only {allow}");
    HttpError { allow: Some(allow), ..HttpError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message) }
}

fn unknown(surface: &Surface, path: &str) -> HttpError {
    let mut known = PROBES.to_vec();
    if !matches!(surface, Surface::MetricsOnly) {
        known.extend(READS);
    }
    if matches!(surface, Surface::ReadWrite) {
        known.extend(CHANGES.map(|(path, _)| path));
    }
    known.sort_unstable();
    HttpError::from(Refusal::not_found(format!("no such path: {path}; there are {}", known.join(" "))))
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetBody {
    service: String,
    address: SocketAddr,
    #[serde(default)]
    persist: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightBody {
    service: String,
    address: SocketAddr,
    weight: u16,
    #[serde(default)]
    persist: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LbBody {
    service: String,
    policy: super::types::Policy,
    #[serde(default)]
    persist: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CircuitBody {
    service: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<SocketAddr>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CircuitSetBody {
    service: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure_threshold: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reset_timeout_ms: Option<u64>,
    #[serde(default)]
    persist: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BypassBody {
    on: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoBody {}

impl Change {
    /// The whole request, `body` read.
    pub(super) fn read(self, body: &[u8]) -> Result<Request, HttpError> {
        Ok(match self {
            Self::Reload if body.is_empty() => Request::ConfigReload,
            Self::Reload => {
                let NoBody {} = read(body)?;
                Request::ConfigReload
            }
            Self::Drain => {
                let TargetBody { service, address, persist } = read(body)?;
                Request::EndpointDrain { service, address, persist }
            }
            Self::Undrain => {
                let TargetBody { service, address, persist } = read(body)?;
                Request::EndpointUndrain { service, address, persist }
            }
            Self::Weight => {
                let WeightBody { service, address, weight, persist } = read(body)?;
                Request::EndpointWeight { service, address, weight, persist }
            }
            Self::Lb => {
                let LbBody { service, policy, persist } = read(body)?;
                Request::LbSet { service, policy, persist }
            }
            Self::Trip => {
                let CircuitBody { service, address } = read(body)?;
                Request::CircuitTrip { service, address }
            }
            Self::Reset => {
                let CircuitBody { service, address } = read(body)?;
                Request::CircuitReset { service, address }
            }
            Self::SetCircuit => {
                let CircuitSetBody { service, failure_threshold, reset_timeout_ms, persist } = read(body)?;
                let reset_timeout = reset_timeout_ms.map(Duration::from_millis);
                Request::CircuitSet { service, failure_threshold, reset_timeout, persist }
            }
            Self::Bypass => {
                let BypassBody { on } = read(body)?;
                Request::Bypass { on }
            }
        })
    }

    fn path(self) -> &'static str {
        match self {
            Self::Reload => "/v1/config/reload",
            Self::Drain => "/v1/endpoints/drain",
            Self::Undrain => "/v1/endpoints/undrain",
            Self::Weight => "/v1/endpoints/weight",
            Self::Lb => "/v1/lb",
            Self::Trip => "/v1/circuits/trip",
            Self::Reset => "/v1/circuits/reset",
            Self::SetCircuit => "/v1/circuits/set",
            Self::Bypass => "/v1/bypass",
        }
    }
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, HttpError> {
    serde_json::from_slice(body).map_err(|e| HttpError::invalid(format!("the body is not what is expected: {e}")))
}

/// A request as the client sends it.
pub(super) struct Written {
    pub(super) method: Method,
    pub(super) path_and_query: String,
    pub(super) body: Vec<u8>,
}

/// How the client asks for `request`: what [`parse`] and [`Change::read`] understand.
pub(super) fn write(request: &Request) -> Result<Written, serde_json::Error> {
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
        Request::Circuits { service } => return Ok(get("/v1/circuits", &[("service", service)])),
        Request::Explain { address, host, path, zone } => {
            let parameters = [("address", Some(address.to_string())), ("host", host), ("path", path), ("zone", zone)];
            return Ok(get("/v1/explain", &parameters));
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
    };
    Ok(Written { method: Method::POST, path_and_query: change.path().to_owned(), body })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ConnectionOrder, Policy};
    use proptest::prelude::*;

    fn request() -> impl Strategy<Value = Request> {
        let text = || ".{1,20}";
        let maybe = || proptest::option::of(".{1,20}");
        let address = || any::<(std::net::IpAddr, u16)>().prop_map(SocketAddr::from);
        let target = move || (text(), address(), any::<bool>());
        prop_oneof![
            Just(Request::Status),
            maybe().prop_map(|name| Request::Services { name }),
            maybe().prop_map(|service| Request::Endpoints { service }),
            (
                maybe(),
                proptest::option::of(address()),
                proptest::option::of(proptest::sample::select(ConnectionOrder::ALL)),
                proptest::option::of(1..=u32::MAX),
            )
                .prop_map(|(service, endpoint, sort, limit)| {
                    Request::Connections(Connections { service, endpoint, sort, limit })
                }),
            (address(), maybe(), maybe(), maybe()).prop_map(|(address, host, path, zone)| Request::Explain {
                address,
                host,
                path,
                zone
            }),
            Just(Request::ConfigDump),
            Just(Request::ConfigReload),
            target().prop_map(|(service, address, persist)| Request::EndpointDrain { service, address, persist }),
            target().prop_map(|(service, address, persist)| Request::EndpointUndrain { service, address, persist }),
            (target(), any::<u16>()).prop_map(|((service, address, persist), weight)| Request::EndpointWeight {
                service,
                address,
                weight,
                persist
            }),
            (text(), proptest::sample::select(Policy::ALL), any::<bool>())
                .prop_map(|(service, policy, persist)| Request::LbSet { service, policy, persist }),
            maybe().prop_map(|service| Request::Circuits { service }),
            (text(), proptest::option::of(address()))
                .prop_map(|(service, address)| Request::CircuitTrip { service, address }),
            (text(), proptest::option::of(address()))
                .prop_map(|(service, address)| Request::CircuitReset { service, address }),
            (text(), any::<Option<u32>>(), any::<Option<u64>>(), any::<bool>()).prop_map(
                |(service, failure_threshold, reset, persist)| Request::CircuitSet {
                    service,
                    failure_threshold,
                    reset_timeout: reset.map(Duration::from_millis),
                    persist
                }
            ),
            any::<bool>().prop_map(|on| Request::Bypass { on }),
        ]
    }

    /// What the server makes of what the client writes.
    fn received(surface: &Surface, written: &Written) -> Result<Request, HttpError> {
        let uri: hyper::Uri = written.path_and_query.parse().unwrap();
        match parse(surface, &written.method, uri.path(), uri.query())? {
            Call::Ask(request) => Ok(request),
            Call::Write(change) => change.read(&written.body),
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn the_server_understands_what_the_client_means(request in request()) {
            let written = write(&request).unwrap();
            prop_assert_eq!(received(&Surface::ReadWrite, &written), Ok(request));
        }

        #[test]
        fn a_read_only_listener_lets_no_change_through(request in request()) {
            let written = write(&request).unwrap();
            let result = received(&Surface::ReadOnly { socket: None }, &written);
            if request.is_write() {
                prop_assert_eq!(result.unwrap_err().status, StatusCode::FORBIDDEN);
            } else {
                prop_assert_eq!(result, Ok(request));
            }
        }

        #[test]
        fn no_path_or_query_is_a_panic(path in "(/[a-z0-9%.+/]{0,30})|(/v1/[a-z%]{0,20})", query in "[a-z0-9%+&=]{0,30}") {
            for surface in [Surface::ReadWrite, Surface::ReadOnly { socket: None }, Surface::MetricsOnly] {
                let _ = parse(&surface, &Method::GET, &path, Some(&query));
            }
        }
    }
}
