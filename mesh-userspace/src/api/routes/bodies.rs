//! What the bodies of requests say that change something: the client writes them, the server reads them.

use super::HttpError;
use crate::api::Request;
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, time::Duration};

/// A request that changes something, its parameters not read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum Change {
    Reload,
    Drain,
    Undrain,
    Weight,
    Lb,
    Trip,
    Reset,
    SetCircuit,
    Bypass,
    LogLevel,
}

/// An endpoint.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TargetBody {
    pub(super) service: String,
    pub(super) address: SocketAddr,
    #[serde(default)]
    pub(super) persist: bool,
}

/// An endpoint, and its weight.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WeightBody {
    pub(super) service: String,
    pub(super) address: SocketAddr,
    pub(super) weight: u16,
    #[serde(default)]
    pub(super) persist: bool,
}

/// A service, and its policy.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LbBody {
    pub(super) service: String,
    pub(super) policy: crate::api::Policy,
    #[serde(default)]
    pub(super) persist: bool,
}

/// A service, or an endpoint of it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CircuitBody {
    pub(super) service: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<SocketAddr>,
}

/// When circuits of a service open, and for how long.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CircuitSetBody {
    pub(super) service: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) failure_threshold: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reset_timeout_ms: Option<u64>,
    #[serde(default)]
    pub(super) persist: bool,
}

/// Whether it is on.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BypassBody {
    pub(super) on: bool,
}

/// A level, or that of a module.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogLevelBody {
    pub(super) directive: String,
}

/// Nothing.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoBody {}

impl Change {
    /// The whole request, `body` read.
    pub(in crate::api) fn read(self, body: &[u8]) -> Result<Request, HttpError> {
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
            Self::LogLevel => {
                let LogLevelBody { directive } = read(body)?;
                Request::SetLogLevel { directive }
            }
        })
    }

    /// Where it is asked for.
    pub(super) fn path(self) -> &'static str {
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
            Self::LogLevel => "/v1/log-level/set",
        }
    }
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, HttpError> {
    serde_json::from_slice(body).map_err(|e| HttpError::invalid(format!("the body is not what is expected: {e}")))
}
