//! Traces and the rest of the daemon: how many are kept, who gets them, and what is answered to who asks.

use super::daemon::Daemon;
use crate::{
    api::{self, Refusal},
    config,
    proxy::{self, Shared},
    telemetry::{
        entry::milliseconds,
        traces::{Collector, Exporter, Node, Span, TraceReport, Traces, Value, spans},
    },
};
use std::{
    io,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

/// How long a collector may take for what is left when the daemon ends.
const FLUSH: Duration = Duration::from_secs(3);

/// Requests of one trace that are shown at most: whoever sends them says of which trace they are.
const MOST_OF_ONE: usize = 1000;

/// The traces of a daemon.
#[derive(Debug, Default)]
pub(super) struct Tracing {
    pub(super) traces: Arc<Traces>,
    exporter: OnceLock<Mutex<Exporter>>,
    /// Whom they go to.
    collector: Mutex<Option<Collector>>,
}

impl Tracing {
    /// From now on traces are kept and sent as this says.
    pub(super) fn configure(&self, telemetry: &config::Telemetry, shared: &Shared) {
        let config::Tracing { otlp, ca_file, keep, .. } = &telemetry.tracing;
        let half = usize::try_from(telemetry.memory.bytes() / 2).unwrap_or(usize::MAX);
        self.traces.configure(*keep as usize, half, otlp.0.is_some());
        shared.record_traces(*keep > 0 || otlp.0.is_some());
        let collector = otlp.0.clone().map(|collector| match ca_file.as_os_str().is_empty() {
            true => collector,
            false => collector.trusting(ca_file.clone()),
        });
        *self.collector.lock().unwrap_or_else(PoisonError::into_inner) = collector;
        self.tell();
    }

    fn tell(&self) {
        if let Some(exporter) = self.exporter.get() {
            let collector = self.collector.lock().unwrap_or_else(PoisonError::into_inner).clone();
            exporter.lock().unwrap_or_else(PoisonError::into_inner).send_to(collector);
        }
    }

    /// Sends what is left, and ends.
    pub(super) fn stop(&self) {
        if let Some(exporter) = self.exporter.get() {
            exporter.lock().unwrap_or_else(PoisonError::into_inner).stop(FLUSH);
        }
    }

    /// What became of traces.
    pub(super) fn report(&self) -> TraceReport {
        self.traces.report()
    }
}

/// Starts sending traces.
///
/// # Errors
/// The system's, where there can be no thread.
pub(super) fn start(daemon: &Daemon) -> io::Result<()> {
    let name = daemon.state().config.node.name.clone();
    let tracing = &daemon.http.tracing;
    let exporter = Exporter::start(Arc::clone(&tracing.traces), Node { name }, daemon.mark)?;
    // It is set once: the daemon starts once.
    let _ = tracing.exporter.set(Mutex::new(exporter));
    tracing.tell();
    Ok(())
}

impl Daemon {
    /// The newest traces that were kept, newest first.
    pub(super) fn traces(&self, wanted: &api::Traces) -> Result<Vec<api::TraceSummary>, Refusal> {
        let limit = wanted.limit.map_or(usize::MAX, |limit| limit as usize);
        let service = wanted.service.as_deref();
        let of_service = |trace: &proxy::Trace| service.is_none() || trace.line.service.as_deref() == service;
        let found = self.http.tracing.traces.newest(limit, of_service);
        if let (Some(name), true) = (service, found.is_empty())
            && self.state().snapshot.service(name).is_none()
        {
            return Err(Refusal::not_found(format!("no service {name}, and no trace of one")));
        }
        Ok(found.iter().map(|trace| summary(trace)).collect())
    }

    /// One trace, as far as this node was part of it and kept it.
    pub(super) fn trace(&self, id: &str) -> Result<api::Trace, Refusal> {
        let digits = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
        let Some(number) = u128::from_str_radix(id, 16).ok().filter(|_| digits) else {
            return Err(Refusal::invalid(format!("no trace id: expected 32 hexadecimal digits, found {id:?}")));
        };
        let requests = self.http.tracing.traces.newest(MOST_OF_ONE, |trace| trace.id == number);
        if requests.is_empty() {
            let why = "it was neither sampled nor failed, or newer ones have taken its place (telemetry.tracing)";
            return Err(Refusal::not_found(format!("no trace {id} here: {why}")));
        }
        let mut spans: Vec<Span> = requests.iter().flat_map(|trace| spans(trace)).collect();
        spans.sort_by_key(|span| span.start);
        let begin = spans.first().map_or(SystemTime::UNIX_EPOCH, |span| span.start);
        let spans = spans.into_iter().map(|span| shown(span, begin)).collect();
        Ok(api::Trace { trace_id: format!("{number:032x}"), spans })
    }
}

fn summary(trace: &proxy::Trace) -> api::TraceSummary {
    let line = &trace.line;
    api::TraceSummary {
        trace_id: format!("{:032x}", trace.id),
        service: line.service.as_deref().map(str::to_owned),
        endpoint: line.endpoint,
        method: line.method.as_ref().map(ToString::to_string).unwrap_or_default(),
        path: line.path.as_deref().unwrap_or_default().to_owned(),
        status: line.status.map(|status| status.as_u16()),
        start: line.time.into(),
        duration_ms: milliseconds(line.duration),
        attempts: line.attempts.into(),
        sampled: trace.is_sampled,
        reason: line.reason.map(str::to_owned),
    }
}

fn shown(span: Span, begin: SystemTime) -> api::Span {
    let value = |value| match value {
        Value::Text(text) => text.into(),
        Value::Number(number) => number.into(),
        Value::Truth(truth) => truth.into(),
    };
    api::Span {
        name: span.name,
        kind: span.kind.word().to_owned(),
        span_id: format!("{:016x}", span.id),
        parent_id: (span.parent != 0).then(|| format!("{:016x}", span.parent)),
        start: span.start.into(),
        offset_ms: milliseconds(span.start.duration_since(begin).unwrap_or_default()),
        duration_ms: milliseconds(span.duration),
        error: span.error,
        attributes: span.attributes.into_iter().map(|(key, it)| (key.to_owned(), value(it))).collect(),
    }
}
