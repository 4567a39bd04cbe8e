//! One check of one endpoint: passes, or fails with a reason.

mod connect;
mod grpc;
mod http;
#[cfg(test)]
mod tests;

use crate::model::{HealthCheck, HealthProbe};
use std::net::SocketAddr;
use tokio::time::timeout;

/// Why a check did not pass, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The endpoint did not do what was asked.
    Endpoint(String),
    /// This host could not ask: that says nothing about the endpoint.
    Here(String),
}

/// Checks `address` once.
pub(super) async fn probe(address: SocketAddr, check: &HealthCheck, mark: u32) -> Result<(), Failure> {
    let asked = async {
        let stream = connect::connect(address, mark).await?;
        match &check.probe {
            // Dropped, and with that closed by an RST: see `connect`.
            HealthProbe::Tcp => Ok(()),
            HealthProbe::Http { path, host, expected_status } => {
                http::ask(stream, address, path, host, expected_status).await.map_err(Failure::Endpoint)
            }
            HealthProbe::Grpc => grpc::ask(stream, address).await.map_err(Failure::Endpoint),
        }
    };
    timeout(check.timeout, asked).await.unwrap_or_else(|_| {
        Err(Failure::Endpoint(format!("no answer within {}", humantime::format_duration(check.timeout))))
    })
}
