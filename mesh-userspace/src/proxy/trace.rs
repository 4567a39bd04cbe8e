//! What ties a request to others: its own id, and the trace that it is part of.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

/// W3C Trace Context (<https://www.w3.org/TR/trace-context/>).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A new request id: 32 hexadecimal digits.
pub(super) fn request_id() -> HeaderValue {
    let mut digits = [0; 32];
    hex(fastrand::u128(..), &mut digits);
    value(digits.to_vec())
}

/// The trace of a request: that which its `traceparent` names, passed on as it is; else a new one, of which `sampled`
/// decides whether it is recorded. Returns its id, 32 hexadecimal digits.
pub(super) fn carry(headers: &mut HeaderMap, sampled: impl FnOnce() -> bool) -> Option<Box<str>> {
    if let Some(id) = headers.get(&TRACEPARENT).and_then(|value| trace_id(value.as_bytes())) {
        return Some(id.into());
    }
    // Other versions are passed on as well, though not understood; what is broken is replaced.
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    hex(fastrand::u128(1..), &mut text[3..35]);
    hex(u128::from(fastrand::u64(1..)) << 64, &mut text[36..52]);
    if sampled() {
        text[54] = b'1';
    }
    headers.insert(TRACEPARENT, value(text.to_vec()));
    std::str::from_utf8(&text[3..35]).ok().map(Box::from)
}

/// The id in a `traceparent`, if it is a valid one.
fn trace_id(text: &[u8]) -> Option<&str> {
    let lower_hex = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let [version, id, parent, flags] = [text.get(..2)?, text.get(3..35)?, text.get(36..52)?, text.get(53..55)?];
    let dashes = [2, 35, 52].iter().all(|at| text[*at] == b'-');
    let valid = dashes && [version, id, parent, flags].into_iter().all(lower_hex);
    let longer = text.len() > 55 && (version == b"00" || text[55] != b'-');
    let nothing = id.iter().all(|b| *b == b'0') || parent.iter().all(|b| *b == b'0');
    (valid && !longer && !nothing && version != b"ff").then(|| std::str::from_utf8(id).ok())?
}

/// The digits of a number, the highest first, as many as fit.
fn hex(number: u128, into: &mut [u8]) {
    for (i, digit) in into.iter_mut().enumerate().take(32) {
        *digit = b"0123456789abcdef"[(number >> (124 - 4 * i) & 15) as usize];
    }
}

fn value(text: Vec<u8>) -> HeaderValue {
    // Of digits and dashes.
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or(HeaderValue::from_static("invalid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_that_is_there_is_passed_on_untouched() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, text.parse().unwrap());
        assert_eq!(carry(&mut headers, || false).unwrap().as_ref(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(headers[TRACEPARENT], text);
    }

    #[test]
    fn a_request_without_a_trace_begins_one() {
        for (sampled, end) in [(true, "-01"), (false, "-00")] {
            let mut headers = HeaderMap::new();
            let id = carry(&mut headers, || sampled).unwrap();
            let text = headers[TRACEPARENT].to_str().unwrap();
            assert_eq!(trace_id(text.as_bytes()), Some(&*id));
            assert!(text.len() == 55 && text.ends_with(end), "{text}");
        }
    }

    #[test]
    fn what_is_no_trace_is_replaced() {
        for text in [
            "",
            "00-0-0-0",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        ] {
            assert_eq!(trace_id(text.as_bytes()), None, "{text}");
        }
        let newer = b"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        assert!(trace_id(newer).is_some());
    }

    #[test]
    fn request_ids_differ() {
        assert_ne!(request_id(), request_id());
        assert_eq!(request_id().len(), 32);
    }
}
