use super::{
    collector::{Protocol, Trust},
    *,
};
use crate::{
    model::Policy,
    proxy::{Line, TraceId, Used},
};
use ::http::{Method, StatusCode, Version};
use proptest::prelude::*;
use std::time::{Duration, SystemTime};

const MS: Duration = Duration::from_millis(1);

/// A request that was tried at two endpoints.
fn retried() -> Trace {
    let line = Line {
        time: SystemTime::UNIX_EPOCH + Duration::from_secs(1_769_860_800),
        service: Some("web".into()),
        endpoint: Some("10.0.0.2:80".parse().unwrap()),
        client: Some("[fd00::1]:4000".parse().unwrap()),
        method: Some(Method::GET),
        path: Some("/a?b=1".into()),
        status: Some(StatusCode::OK),
        duration: 40 * MS,
        ended: 40 * MS,
        sent_bytes: 3,
        received_bytes: 7,
        attempts: 2,
        trace_id: TraceId::new(0x2a),
        reason: None,
    };
    let first = Try {
        span: 11,
        endpoint: "10.0.0.1:80".parse().unwrap(),
        tier: "zone",
        picked: Duration::ZERO,
        began: Duration::ZERO,
        answered: None,
        ended: 10 * MS,
        failed: Some("connect_failure"),
        used: Used::default(),
    };
    let second = Try {
        span: 12,
        endpoint: "10.0.0.2:80".parse().unwrap(),
        tier: "remote",
        picked: 10 * MS,
        began: 15 * MS,
        answered: Some((35 * MS, StatusCode::OK)),
        ended: 40 * MS,
        failed: None,
        used: Used { kept: Some(true), again: true },
    };
    Trace {
        line,
        id: 42,
        parent: 9,
        state: None,
        span: 10,
        is_sampled: false,
        failed: false,
        version: Version::HTTP_11,
        grpc_status: None,
        policy: Some(Policy::RoundRobin),
        endpoints: 3,
        tries: vec![first, second],
    }
}

fn attribute<'s>(span: &'s Span, key: &str) -> Option<&'s Value> {
    span.attributes.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
}

fn text(value: &str) -> Option<Value> {
    Some(Value::Text(value.to_owned()))
}

#[test]
fn a_request_has_a_span_of_its_own_and_two_for_each_try() {
    let trace = retried();
    let spans = spans(&trace);
    let shapes: Vec<_> = spans.iter().map(|s| (s.name.as_str(), s.kind, s.parent)).collect();
    let part = |name, kind| (name, kind, 10);
    let of_try = [part("pick", Kind::Internal), part("attempt", Kind::Client)];
    assert_eq!(shapes, [&[("GET web", Kind::Server, 9)], &of_try[..], &of_try].concat());
    let mut ids: Vec<u64> = spans.iter().map(|span| span.id).collect();
    assert_eq!((ids[0], ids[2], ids[4]), (10, 11, 12));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 5, "each has an id");
    assert_eq!(spans, super::spans(&trace), "whoever asks again sees the same");
}

#[test]
fn spans_say_what_there_is_to_know() {
    let spans = spans(&retried());
    let [request, pick, first, _, second] = &spans[..] else { panic!("{spans:?}") };
    for (key, value) in [
        ("mesh.service", text("web")),
        ("http.request.method", text("GET")),
        ("url.path", text("/a")),
        ("url.query", text("b=1")),
        ("http.response.status_code", Some(Value::Number(200))),
        ("network.protocol.version", text("1.1")),
        ("client.address", text("fd00::1")),
        ("client.port", Some(Value::Number(4000))),
        ("mesh.attempts", Some(Value::Number(2))),
        ("mesh.reason", None),
        ("error.type", None),
    ] {
        assert_eq!(attribute(request, key).cloned(), value, "{key}");
    }
    assert_eq!((&request.error, request.duration), (&None, 40 * MS));
    assert_eq!(attribute(pick, "mesh.tier").cloned(), text("zone"));
    assert_eq!(attribute(pick, "mesh.policy").cloned(), text("round_robin"));
    assert_eq!(attribute(pick, "mesh.candidates"), Some(&Value::Number(3)));
    assert_eq!((first.error.as_deref(), first.duration), (Some("connect_failure"), 10 * MS));
    assert_eq!(attribute(first, "mesh.connection"), None, "there was none");
    assert_eq!(second.start.duration_since(request.start).unwrap(), 15 * MS);
    assert_eq!(attribute(second, "mesh.connection").cloned(), text("reused"));
    assert_eq!(attribute(second, "mesh.resent"), Some(&Value::Truth(true)));
    assert_eq!(attribute(second, "mesh.first_byte_us"), Some(&Value::Number(20_000)));
    assert_eq!(attribute(second, "http.request.resend_count"), Some(&Value::Number(1)));
}

/// The errors of the request and of its last try.
fn errors(change: impl FnOnce(&mut Trace)) -> (Option<String>, Option<String>) {
    let mut trace = retried();
    change(&mut trace);
    let spans = spans(&trace);
    (spans[0].error.clone(), spans.last().unwrap().error.clone())
}

#[test]
fn what_went_wrong_is_said_where_it_did() {
    let both = |why: &str| (Some(why.to_owned()), Some(why.to_owned()));
    assert_eq!(errors(|_| {}), (None, None));
    let status = |trace: &mut Trace, status: StatusCode| {
        trace.line.status = Some(status);
        trace.tries[1].answered = Some((35 * MS, status));
        trace.failed = status.is_server_error();
    };
    assert_eq!(errors(|trace| status(trace, StatusCode::INTERNAL_SERVER_ERROR)), both("500"));
    let not_found = errors(|trace| status(trace, StatusCode::NOT_FOUND));
    assert_eq!(not_found, (None, Some("404".to_owned())), "who asked for it failed, not who was asked");
    let broke = |trace: &mut Trace| (trace.line.reason, trace.failed) = (Some("upstream_reset"), true);
    assert_eq!(errors(broke), both("upstream_reset"));
    let gone = |trace: &mut Trace| {
        (trace.line.status, trace.failed, trace.tries[1].answered) = (None, true, None);
    };
    assert_eq!(errors(gone), both("cancelled"));
    assert_eq!(errors(|trace| (trace.grpc_status, trace.failed) = (Some(14), true)), both("grpc_status_14"));
    let refused = |trace: &mut Trace| {
        trace.tries.clear();
        trace.line.status = Some(StatusCode::SERVICE_UNAVAILABLE);
        (trace.line.reason, trace.failed) = (Some("circuit_open"), true);
    };
    assert_eq!(errors(refused), both("circuit_open"), "the pick failed");
    let limited = |trace: &mut Trace| {
        trace.tries.clear();
        trace.line.status = Some(StatusCode::TOO_MANY_REQUESTS);
        (trace.line.reason, trace.failed) = (Some("rate_limited"), true);
    };
    assert_eq!(errors(limited), (None, None));
}

#[test]
fn a_method_of_the_clients_own_names_no_span() {
    let mut trace = retried();
    trace.line.method = Some("X".repeat(64).parse().unwrap());
    let request = spans(&trace).remove(0);
    assert_eq!(request.name, "HTTP web");
    assert_eq!(attribute(&request, "http.request.method").cloned(), text("_OTHER"));
    assert_eq!(attribute(&request, "http.request.method_original").cloned(), text(&"X".repeat(64)));
}

#[test]
fn as_many_are_kept_as_are_wanted_whatever_waits_for_a_collector() {
    let traces = Traces::default();
    traces.trace(retried());
    assert!(traces.newest(9, |_| true).is_empty(), "nobody wants any");
    for (exported, waiting) in [(false, 3), (true, 10)] {
        traces.configure(3, 1 << 20, exported);
        (0..10).for_each(|_| traces.trace(retried()));
        assert_eq!(traces.newest(usize::MAX, |_| true).len(), 3);
        assert_eq!(traces.newest(2, |_| true).len(), 2);
        assert_eq!(traces.sizes()[0].0.min(10), waiting);
    }
    assert!(traces.newest(9, |trace| trace.id != 42).is_empty());
    assert_eq!(traces.report().kept, 21);
}

/// Traces of requests that ended one after the other, and whether they failed.
fn ended(traces: &Traces, failed: bool, times: std::ops::Range<u64>) {
    for ms in times {
        let mut trace = retried();
        (trace.failed, trace.line.ended) = (failed, Duration::from_millis(ms));
        traces.trace(trace);
    }
}

#[test]
fn a_flood_of_failures_leaves_half_of_the_room_to_others_and_the_other_way_round() {
    let traces = Traces::default();
    traces.configure(10, 1 << 20, false);
    let shown = || {
        let newest = traces.newest(usize::MAX, |_| true);
        newest.iter().map(|trace| (trace.failed, trace.line.ended.as_millis())).collect::<Vec<_>>()
    };
    ended(&traces, false, 0..20);
    assert_eq!(
        shown(),
        (10..20).rev().map(|ms| (false, ms)).collect::<Vec<_>>(),
        "all of the room, where nobody else needs it"
    );
    ended(&traces, true, 20..22);
    assert_eq!(shown()[..3], [(true, 21), (true, 20), (false, 19)]);
    assert_eq!(shown().len(), 10);
    ended(&traces, true, 22..100);
    let (failures, others) = ((95..100).rev().map(|ms| (true, ms)), (15..20).rev().map(|ms| (false, ms)));
    assert_eq!(shown(), failures.chain(others).collect::<Vec<_>>());
    ended(&traces, false, 100..200);
    assert_eq!(shown().iter().filter(|(failed, _)| *failed).count(), 5);
    assert_eq!(traces.newest(3, |trace| trace.failed).len(), 3);
}

proptest! {
    #[test]
    fn both_kinds_together_never_take_more_than_there_is(keep in 0usize..9, some in prop::collection::vec(any::<bool>(), 0..40)) {
        let traces = Traces::default();
        traces.configure(keep, 1 << 20, false);
        let (mut of, mut total) = ([0; 2], 0);
        for failed in some {
            ended(&traces, failed, 0..1);
            (of[usize::from(failed)], total) = (of[usize::from(failed)] + 1, total + 1);
            let [well, ill] = traces.sizes();
            prop_assert_eq!(well.0 + ill.0, keep.min(total));
            prop_assert!(well.0 >= of[0].min(keep / 2) && ill.0 >= of[1].min(keep / 2));
        }
    }
}

#[test]
fn long_paths_take_the_room_of_many_short_ones() {
    let traces = Traces::default();
    traces.configure(100_000, 1 << 20, false);
    for n in 0..100_000 {
        let mut trace = retried();
        trace.line.path = Some(format!("/{n}/{}", "x".repeat(4000)).into());
        traces.trace(trace);
    }
    let (count, bytes) = traces.sizes()[0];
    assert!(bytes <= 1 << 20 && (100..300).contains(&count), "{count} in {bytes} bytes");
}

#[test]
fn a_collector_is_written_as_a_url() {
    for (written, host, port, shown) in [
        ("http://127.0.0.1:4318", "127.0.0.1", 4318, "http://127.0.0.1:4318/v1/traces"),
        ("http://collector", "collector", 4318, "http://collector:4318/v1/traces"),
        ("http://[::1]:80/", "::1", 80, "http://[::1]:80/v1/traces"),
        ("http://a:1/otlp/v1/traces", "a", 1, "http://a:1/otlp/v1/traces"),
        ("grpc://collector.observability", "collector.observability", 4317, "grpc://collector.observability:4317"),
        ("grpc://[fd00::5]", "fd00::5", 4317, "grpc://[fd00::5]:4317"),
        ("grpc://a:1/", "a", 1, "grpc://a:1"),
        ("https://a", "a", 4318, "https://a:4318/v1/traces"),
        ("grpcs://a:443", "a", 443, "grpcs://a:443"),
    ] {
        let collector = Collector::parse(written).unwrap_or_else(|e| panic!("{written}: {e:?}"));
        assert_eq!((collector.host.as_str(), collector.port, collector.to_string()), (host, port, shown.to_owned()));
        assert_eq!(Collector::parse(shown), Ok(collector), "what is shown may be written");
    }
    let [grpc, grpcs] = ["grpc://a", "grpcs://a"].map(|written| Collector::parse(written).unwrap());
    assert_eq!((&grpc.protocol, &grpc.trust, &grpcs.trust), (&Protocol::Grpc, &None, &Some(Trust::System)));
    assert_eq!(grpcs.trusting("/ca.pem".into()).trust, Some(Trust::File("/ca.pem".into())));
    assert_eq!(grpc.trusting("/ca.pem".into()).trust, None);
    for written in [
        "collector:4317",
        "grpcs://a/path",
        "httpss://a",
        "grpc://a/path",
        "ftp://a",
        "http://",
        "http://:4318",
        "http://a:0",
        "http://a:99999",
        "http://a:",
        "http://u:p@a",
        "http://a/x?y",
        "http://a/x#y",
        "http://a?y",
        "http://a b",
    ] {
        assert!(Collector::parse(written).is_err(), "{written}");
    }
}

proptest! {
    #[test]
    fn no_text_is_a_panic(text in "(http|grpc)?s?(://)?[a-z:@/?#\\[\\]0-9 é]{0,20}") {
        if let Ok(collector) = Collector::parse(&text) {
            prop_assert_eq!(Collector::parse(&collector.to_string()), Ok(collector));
        }
    }
}
