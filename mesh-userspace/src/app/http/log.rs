//! Requests on their way into the log.

use crate::{
    proxy::{Line, RequestLog},
    telemetry::logs::Logs,
};
use std::sync::Arc;

/// Tells the log of requests.
#[derive(Debug)]
pub(super) struct ToLogs(pub(super) Arc<Logs>);

impl RequestLog for ToLogs {
    fn requests(&self, lines: Vec<Line>) {
        self.0.requests(lines);
    }
}
