//! One check of one endpoint: passes, or fails with a reason.

mod connect;
mod grpc;
mod http;
#[cfg(test)]
mod tests;

use crate::model::{HealthCheck, HealthProbe};
use std::net::SocketAddr;
use tokio::time::timeout;

/// Checks `address` once; the error says in words why it failed.
pub(super) async fn probe(address: SocketAddr, check: &HealthCheck, mark: u32) -> Result<(), String> {
    let asked = async {
        let stream = connect::connect(address, mark).await?;
        match &check.probe {
            // Dropped, and with that closed by an RST: see `connect`.
            HealthProbe::Tcp => Ok(()),
            HealthProbe::Http { path, host, expected_status } => {
                http::ask(stream, address, path, host, expected_status).await
            }
            HealthProbe::Grpc => grpc::ask(stream, address).await,
        }
    };
    timeout(check.timeout, asked)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {}", humantime::format_duration(check.timeout))))
}
