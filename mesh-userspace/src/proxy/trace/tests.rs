use super::super::fields::tests::{both, map};
use super::*;
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const PARENT: u64 = 0x00f0_67aa_0ba9_02b7;
const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const NOT_SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    map(lines)
}

/// What mades of a request with these headers; `records` and `decide` as they are for a context.
fn made(lines: &[(&str, &str)], records: bool, decide: bool) -> (Context, HeaderMap) {
    let seed = fastrand::u64(..);
    let [block, map] = both(lines).map(|mut headers| {
        fastrand::seed(seed);
        let context = Context::of(&mut headers, records, || decide);
        (context, headers.to_map())
    });
    assert_eq!(block, map);
    map
}

/// What mades of a request with these headers, nobody having decided for it.
fn of(lines: &[(&str, &str)]) -> (Context, HeaderMap) {
    made(lines, true, false)
}

/// Trace, span and flags that the endpoint is told.
fn told(headers: &HeaderMap) -> (u128, u64, u8) {
    let Came { trace, parent, flags } = w3c::read(headers[TRACEPARENT].as_bytes()).unwrap();
    (trace, parent, flags)
}

#[test]
fn a_sampled_trace_goes_on_from_the_try() {
    let (context, headers) = of(&[("traceparent", SAMPLED), ("tracestate", "a=1"), ("tracestate", "b=2")]);
    assert_eq!((context.trace, context.parent, context.is_sampled()), (TRACE, PARENT, true));
    assert_eq!(told(&headers), (TRACE, context.first(), 1));
    assert_eq!(headers.get_all("tracestate").iter().count(), 2, "it is carried on as it is");
    assert_ne!(context.first(), PARENT);
    assert_eq!((context.first(), context.span()), (context.first(), context.span()), "ids that were told stay");
}

#[test]
fn a_trace_that_is_not_sampled_goes_by_untouched() {
    let lines = [("traceparent", NOT_SAMPLED), ("tracestate", "a=1"), ("b3", "0"), ("x-b3-sampled", "0")];
    let (context, after) = of(&lines);
    assert_eq!((context.trace, context.parent, context.is_sampled()), (TRACE, PARENT, false));
    assert_eq!(after, headers(&lines));
}

#[test]
fn where_nobody_sees_spans_of_here_every_trace_goes_by() {
    for text in [SAMPLED, NOT_SAMPLED] {
        let (_, after) = made(&[("traceparent", text)], false, true);
        assert_eq!(after, headers(&[("traceparent", text)]));
    }
    let (_, after) = made(&[("b3", "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1")], false, true);
    assert_eq!(told(&after), (TRACE, PARENT, 1), "the client's span stays the parent");
}

#[test]
fn a_request_without_a_trace_begins_one() {
    for sampled in [true, false] {
        for records in [true, false] {
            let (context, headers) = made(&[], records, sampled);
            assert_eq!((context.parent, context.is_sampled()), (0, sampled));
            assert_eq!(told(&headers), (context.trace, context.first(), u8::from(sampled)));
            assert_eq!(headers.len(), 1);
            assert_eq!(format!("{:032x}", context.trace), headers[TRACEPARENT].to_str().unwrap()[3..35]);
        }
    }
}

#[test]
fn what_is_no_trace_is_replaced_by_a_new_one_and_its_state_goes() {
    for text in [
        "",
        "00-0-0-0",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "0g-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
        "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
    ] {
        let (context, headers) = of(&[("traceparent", text), ("tracestate", "a=1")]);
        assert_eq!((context.parent, headers.get("tracestate")), (0, None), "{text}");
        assert_ne!(context.trace, TRACE, "{text}");
        assert_eq!(told(&headers), (context.trace, context.first(), 0), "{text}");
    }
    let (context, headers) = of(&[("traceparent", SAMPLED), ("traceparent", SAMPLED)]);
    assert_ne!(context.trace, TRACE, "two are none");
    assert_eq!(headers.get_all("traceparent").iter().count(), 1);
    let (_, headers) = of(&[("tracestate", "a=1")]);
    assert_eq!(headers.get("tracestate"), None, "one without a traceparent belongs to nothing");
}

#[test]
fn a_later_version_is_read_as_far_as_it_is_known_and_goes_on_as_the_known_one() {
    let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff-what-the-future-will-be-like";
    let (context, headers) = of(&[("traceparent", later)]);
    assert_eq!((context.trace, context.parent), (TRACE, PARENT));
    assert_eq!(told(&headers), (TRACE, context.first(), 3), "of the flags those that are known");
    assert_eq!(headers[TRACEPARENT].len(), 55);
}

#[test]
fn b3_in_one_header_goes_on_as_it_came_and_as_w3c() {
    let (context, headers) = of(&[("b3", "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1-0000000000000009")]);
    assert_eq!((context.trace, context.parent, context.is_sampled()), (TRACE, PARENT, true));
    assert_eq!(told(&headers), (TRACE, context.first(), 1));
    let (span, request) = (context.first(), context.span());
    assert_eq!(headers["b3"], format!("{TRACE:032x}-{span:016x}-1-{request:016x}"));
    // 64 bits, and whoever sent it leaves it to us.
    let (context, headers) = of(&[("b3", "a3ce929d0e0e4736-00f067aa0ba902b7")]);
    assert_eq!((context.trace, context.is_sampled()), (0xa3ce_929d_0e0e_4736, false));
    let (span, request) = (context.first(), context.span());
    assert_eq!(headers["b3"], format!("a3ce929d0e0e4736-{span:016x}-0-{request:016x}"));
    let (_, headers) = of(&[("b3", "a3ce929d0e0e4736-00f067aa0ba902b7-d")]);
    assert!(headers["b3"].to_str().unwrap().contains("-d-"), "{headers:?}");
    assert_eq!(told(&headers).2, 1);
}

#[test]
fn b3_in_several_headers_goes_on_as_it_came_and_as_w3c() {
    let ids = [("x-b3-traceid", "4bf92f3577b34da6a3ce929d0e0e4736"), ("x-b3-spanid", "00f067aa0ba902b7")];
    let (context, headers) = of(&[ids[0], ids[1], ("x-b3-parentspanid", "0000000000000009"), ("x-b3-sampled", "1")]);
    assert_eq!((context.trace, context.parent, context.is_sampled()), (TRACE, PARENT, true));
    assert_eq!(told(&headers), (TRACE, context.first(), 1));
    assert_eq!(headers["x-b3-traceid"], ids[0].1);
    assert_eq!(headers["x-b3-spanid"], format!("{:016x}", context.first()));
    assert_eq!(headers["x-b3-parentspanid"], format!("{:016x}", context.span()));
    assert_eq!((&headers["x-b3-sampled"], headers.get("b3")), (&HeaderValue::from_static("1"), None));
    let (context, headers) = of(&[ids[0], ids[1], ("x-b3-flags", "1")]);
    assert!(context.is_sampled());
    assert_eq!((headers.get("x-b3-sampled"), told(&headers).2), (None, 1), "its flags say so already");
}

#[test]
fn a_decision_that_comes_alone_holds_for_the_new_trace() {
    for (name, value, sampled) in [
        ("b3", "0", false),
        ("b3", "1", true),
        ("b3", "d", true),
        ("x-b3-sampled", "0", false),
        ("x-b3-sampled", "true", true),
        ("x-b3-flags", "1", true),
    ] {
        let (context, headers) = made(&[(name, value)], true, !sampled);
        assert_eq!((context.parent, context.is_sampled()), (0, sampled), "{name}: {value}");
        assert_eq!(told(&headers), (context.trace, context.first(), u8::from(sampled)));
    }
}

#[test]
fn b3_that_makes_no_sense_is_replaced() {
    for text in [
        "",
        "x",
        "-",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-2",
        "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1-9",
        "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1-0000000000000009-1",
        "00000000000000000000000000000000-00f067aa0ba902b7-1",
        "4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-1",
    ] {
        let (context, headers) = of(&[("b3", text)]);
        assert_eq!((context.parent, context.is_sampled()), (0, false), "{text}");
        assert!(headers["b3"].to_str().unwrap().starts_with(&format!("{:032x}", context.trace)), "{text}: {headers:?}");
    }
}

#[test]
fn where_a_request_says_both_w3c_counts_and_both_are_told_the_same() {
    let (context, headers) = of(&[("traceparent", SAMPLED), ("b3", "a3ce929d0e0e4736-00f067aa0ba902b7-0")]);
    assert_eq!(context.trace, TRACE);
    assert!(headers["b3"].to_str().unwrap().starts_with(&format!("{TRACE:032x}-{:016x}-1", context.first())));
}

#[test]
fn another_try_is_another_span_unless_a_route_took_the_trace_away() {
    for text in [SAMPLED, NOT_SAMPLED] {
        let (mut context, first) = of(&[("traceparent", text)]);
        for mut after in both(&[("traceparent", first["traceparent"].to_str().unwrap())]) {
            let (second, third) = (context.again(&mut after), context.again(&mut after));
            assert_ne!(second, third);
            assert_eq!(told(&after.to_map()), (TRACE, third, told(&first).2));
        }
        assert_eq!(context.span(), context.span(), "from here on the request has one");
        for replaced in
            [headers(&[]), headers(&[("traceparent", "00-00000000000000000000000000000001-0000000000000001-01")])]
        {
            let mut after = Fields::from(replaced.clone());
            context.again(&mut after);
            assert_eq!(after.to_map(), replaced);
        }
    }
}

#[test]
fn request_ids_differ() {
    assert_ne!(request_id(), request_id());
    assert_eq!(request_id().len(), 32);
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(trace in 1..=u128::MAX, span in 1..=u64::MAX, flags in 0..4_u8) {
        let written = w3c::write(trace, span, flags);
        prop_assert_eq!(w3c::read(&written), Some(Came { trace, parent: span, flags }));
    }

    #[test]
    fn b3_that_is_written_is_read_again(trace in 1..=u128::MAX, span in 1..=u64::MAX, parent: u64, sampled: bool, single: bool) {
        let mut form = Form::default();
        (form.single, form.multi) = (single, !single);
        for mut headers in both(&[]) {
            b3::write(&mut headers, form, trace, span, parent, sampled);
            let said = b3::read(&headers, form);
            prop_assert_eq!((said.ids, said.sampled, said.form), (Some((trace, span)), Some(sampled), form));
        }
    }

    #[test]
    fn whatever_comes_one_valid_trace_goes_on(
        parent in proptest::option::of("(00-[0-9a-f]{32}-[0-9a-f]{16}-0[01])|([0-9a-fx-]{0,60})"),
        b3 in proptest::option::of("([0-9a-f]{16}-[0-9a-f]{16}(-[01d])?)|([0-9a-fd-]{0,60})"),
        id in proptest::option::of("([0-9a-f]{16})|([0-9a-fx]{0,33})"),
        records: bool,
    ) {
        let lines = [("traceparent", parent), ("b3", b3), ("x-b3-traceid", id.clone()), ("x-b3-spanid", id)];
        let lines: Vec<_> = lines.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
        let (context, headers) = made(&lines, records, true);
        prop_assert_eq!(told(&headers).0, context.trace);
        prop_assert_eq!(w3c::is_sampled(told(&headers).2), context.is_sampled());
        prop_assert_eq!(headers.get_all(TRACEPARENT).iter().count(), 1);
    }
}

#[test]
fn a_state_is_told_as_one_line_of_so_many_members_as_fit() {
    let joined = |lines: &[&str]| {
        let lines: Vec<HeaderValue> =
            lines.iter().map(|line| HeaderValue::from_bytes(line.as_bytes()).unwrap()).collect();
        super::joined(&lines).map(String::from)
    };
    assert_eq!((joined(&[]), joined(&["", " , "])), (None, None));
    assert_eq!(joined(&["a=1, b=2", "c=3"]).unwrap(), "a=1,b=2,c=3");
    let long = format!("a={}", "x".repeat(507));
    assert_eq!(joined(&[&long, "b=2", "c"]).unwrap(), long, "none is left out for a shorter one behind it");
    assert_eq!(joined(&[&"x".repeat(513)]), None);
    assert_eq!(joined(&["é=1"]), None, "no text");
}
