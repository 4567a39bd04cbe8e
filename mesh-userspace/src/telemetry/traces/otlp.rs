//! Traces in the words of OTLP.

use super::{
    exporter::Node,
    spans::{Kind, Span, Value, spans},
};
use crate::proxy::Trace;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span as Message, Status, span::SpanKind, status::StatusCode},
};
use std::{sync::Arc, time::SystemTime};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The flags of a span: that it is known whether its parent is from elsewhere, and that it is.
const KNOWS_PARENT: u32 = 0x100;
const PARENT_IS_REMOTE: u32 = 0x200;

/// What a collector is told of some traces, by this node.
pub(super) fn request(traces: &[Arc<Trace>], node: &Node) -> ExportTraceServiceRequest {
    let attributes = [
        ("service.name", "mesh"),
        ("service.version", VERSION),
        ("service.instance.id", &node.name),
        ("host.name", &node.name),
    ];
    let resource = Resource {
        attributes: attributes.into_iter().map(|(key, value)| attribute(key, Value::from(value))).collect(),
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "mesh".to_owned(),
        version: VERSION.to_owned(),
        ..InstrumentationScope::default()
    };
    let spans = traces.iter().flat_map(|trace| spans(trace).into_iter().map(|span| message(trace, span))).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }
}

fn message(trace: &Trace, span: Span) -> Message {
    let remote = if span.id == trace.span && span.parent != 0 { PARENT_IS_REMOTE } else { 0 };
    Message {
        trace_id: trace.id.to_be_bytes().to_vec(),
        span_id: span.id.to_be_bytes().to_vec(),
        parent_span_id: if span.parent == 0 { Vec::new() } else { span.parent.to_be_bytes().to_vec() },
        trace_state: trace.state.as_deref().unwrap_or_default().to_owned(),
        flags: u32::from(trace.is_sampled) | KNOWS_PARENT | remote,
        name: span.name,
        kind: match span.kind {
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
            Kind::Internal => SpanKind::Internal,
        }
        .into(),
        start_time_unix_nano: nanoseconds(span.start),
        end_time_unix_nano: nanoseconds(span.start + span.duration),
        attributes: span.attributes.into_iter().map(|(key, value)| attribute(key, value)).collect(),
        status: span.error.map(|message| Status { message, code: StatusCode::Error.into() }),
        ..Message::default()
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text),
        Value::Number(number) => any_value::Value::IntValue(number),
        Value::Truth(truth) => any_value::Value::BoolValue(truth),
    };
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
