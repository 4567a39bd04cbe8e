//! B3, as Zipkin and those before W3C Trace Context speak it (<https://github.com/openzipkin/b3-propagation>): in one
//! header or in several.

use super::{Fields, hex};
use http::{HeaderName, HeaderValue};

const SINGLE: HeaderName = HeaderName::from_static("b3");
const TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
const SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
const PARENT_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// In which way a request speaks B3, so that it goes on speaking it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    /// By `b3`.
    pub(super) single: bool,
    /// By `x-b3-*`.
    pub(super) multi: bool,
    /// Its trace ids have 16 digits.
    short: bool,
    /// It asks for more than to be sampled.
    debug: bool,
}

/// What a request says by B3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// Which trace it is part of: its id, and the client's span. `None`: of none yet, or of what makes no sense.
    pub(super) ids: Option<(u128, u64)>,
    /// Whether that is sampled; `None`: nobody has decided.
    pub(super) sampled: Option<bool>,
    pub(super) form: Form,
}

/// Reads it, where `seen` are the forms that there are.
pub(super) fn read(headers: &Fields, seen: Form) -> Said {
    match (seen.single, seen.multi) {
        // One header says more than several: it is the newer form.
        (true, _) => {
            let said = headers.get(SINGLE).and_then(single).unwrap_or_default();
            Said { form: Form { single: true, multi: seen.multi, ..said.form }, ..said }
        }
        (false, true) => multi(headers, seen),
        (false, false) => Said::default(),
    }
}

/// `TRACE-SPAN`, `TRACE-SPAN-SAMPLED`, `TRACE-SPAN-SAMPLED-PARENT`, or `SAMPLED` alone.
fn single(text: &[u8]) -> Option<Said> {
    let mut parts = text.split(|byte| *byte == b'-');
    let (first, span, sampled) = (parts.next()?, parts.next(), parts.next());
    let Some(span) = span else {
        let (sampled, debug) = decision(first)?;
        return Some(Said { ids: None, sampled: Some(sampled), form: Form { debug, ..Form::default() } });
    };
    let (ids, short) = ids(first, span)?;
    let decided = sampled.map(decision);
    // The parent of the client's span is nobody's business here; more than that there is not.
    let parent = parts.next();
    if decided == Some(None)
        || parent.is_some_and(|id| id.len() != 16 || hex::read(id).is_none())
        || parts.next().is_some()
    {
        return None;
    }
    let (sampled, debug) = decided.flatten().map_or((None, false), |(sampled, debug)| (Some(sampled), debug));
    Some(Said { ids: Some(ids), sampled, form: Form { short, debug, ..Form::default() } })
}

fn multi(headers: &Fields, seen: Form) -> Said {
    let bytes = |name: HeaderName| headers.get(name);
    let ids = bytes(TRACE_ID).zip(bytes(SPAN_ID)).and_then(|(trace, span)| ids(trace, span));
    let debug = bytes(FLAGS) == Some(b"1");
    let sampled = match bytes(SAMPLED) {
        _ if debug => Some(true),
        // Early tracers wrote words.
        Some(b"1" | b"true") => Some(true),
        Some(b"0" | b"false") => Some(false),
        _ => None,
    };
    let short = ids.is_some_and(|(_, short)| short);
    Said { ids: ids.map(|(ids, _)| ids), sampled, form: Form { short, debug, ..seen } }
}

/// A trace id of 16 or 32 digits and a span id of 16, and whether it is the shorter one.
fn ids(trace: &[u8], span: &[u8]) -> Option<((u128, u64), bool)> {
    if !matches!(trace.len(), 16 | 32) || span.len() != 16 {
        return None;
    }
    let (id, span) = (hex::read_long(trace)?, hex::read(span)?);
    (id != 0 && span != 0).then_some(((id, span), trace.len() == 16))
}

fn decision(text: &[u8]) -> Option<(bool, bool)> {
    match text {
        b"0" => Some((false, false)),
        b"1" => Some((true, false)),
        b"d" => Some((true, true)),
        _ => None,
    }
}

/// Says again, in the way that the request says it, that it is part of this trace: sent on as `span`, whose parent is
/// `parent` (0: not known).
pub(super) fn write(headers: &mut Fields, form: Form, trace: u128, span: u64, parent: u64, sampled: bool) {
    let digits = if form.short && trace >> 64 == 0 { 16 } else { 32 };
    if form.single {
        let mut text = vec![b'-'; digits + 1 + 16 + 2];
        hex::write(trace, &mut text[..digits]);
        hex::write(u128::from(span), &mut text[digits + 1..digits + 17]);
        text[digits + 18] = match (form.debug, sampled) {
            (true, _) => b'd',
            (false, true) => b'1',
            (false, false) => b'0',
        };
        if parent != 0 {
            text.push(b'-');
            text.resize(text.len() + 16, 0);
            let at = text.len() - 16;
            hex::write(u128::from(parent), &mut text[at..]);
        }
        headers.insert_id(SINGLE, &text);
    }
    if form.multi {
        headers.insert_id(TRACE_ID, &hex::digits::<32>(trace)[32 - digits..]);
        headers.insert_id(SPAN_ID, &hex::digits::<16>(u128::from(span)));
        match parent {
            0 => headers.remove(PARENT_SPAN_ID),
            parent => headers.insert_id(PARENT_SPAN_ID, &hex::digits::<16>(u128::from(parent))),
        }
        // What says more says this too, and then it must not be said (the description of `x-b3-flags`).
        if !form.debug {
            headers.insert(SAMPLED, &HeaderValue::from_static(if sampled { "1" } else { "0" }));
        }
    }
}
