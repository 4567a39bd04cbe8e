//! The request log: one structured line a request.

use crate::proxy::{Line, RequestLog};

/// Writes requests into the daemon's log.
#[derive(Debug, Default)]
pub(super) struct ToStderr;

impl RequestLog for ToStderr {
    fn request(&self, line: &Line) {
        let Line { service, endpoint, client, method, path, status, duration, .. } = line;
        tracing::info!(
            target: "request",
            service = service.as_deref(),
            endpoint = endpoint.map(tracing::field::display),
            %client,
            %method,
            path = &**path,
            status = status.map(|status| status.as_u16()),
            duration_ms = duration.as_secs_f64() * 1000.0,
            sent_bytes = line.sent_bytes,
            received_bytes = line.received_bytes,
            attempts = line.attempts,
            trace_id = line.trace_id.as_deref(),
            reason = line.reason,
        );
    }
}
