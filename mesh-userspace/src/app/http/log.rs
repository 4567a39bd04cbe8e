//! Requests on their way into the log.

use crate::{
    proxy::{Packed, RequestLog},
    telemetry::logs::Logs,
};
use std::sync::Arc;

/// Tells the log of requests.
#[derive(Debug)]
pub(super) struct ToLogs(pub(super) Arc<Logs>);

impl RequestLog for ToLogs {
    fn requests(&self, lines: Packed) {
        self.0.requests(lines);
    }
}
