//! Traces in the words of OTLP.
//!
//! A message asks each part how long it is before it writes it, and each part asks its own: a span five levels down is
//! measured five times, which takes longer than all the rest. So spans are written first, each by itself, and what is
//! around them holds their bytes, which are the same on the wire.

use super::{
    exporter::Node,
    spans::{Kind, Span, Value, spans},
};
use crate::proxy::Trace;
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{Span as Message, Status, span::SpanKind, status::StatusCode},
};
use prost::Message as _;
use std::{sync::Arc, time::SystemTime};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The flags of a span: that it is known whether its parent is from elsewhere, and that it is.
const KNOWS_PARENT: u32 = 0x100;
const PARENT_IS_REMOTE: u32 = 0x200;

/// `ExportTraceServiceRequest`, its spans written already.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Request {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

/// `ResourceSpans`.
#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

/// `ScopeSpans`.
#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<InstrumentationScope>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    spans: Vec<Vec<u8>>,
}

/// What a collector is told of some traces, by this node.
pub(super) fn request(traces: &[Arc<Trace>], node: &Node) -> Request {
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
    let written = |trace, span| message(trace, span).encode_to_vec();
    let spans = traces.iter().flat_map(|trace| spans(trace).into_iter().map(|span| written(trace, span))).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
    Request { resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans }] }
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
