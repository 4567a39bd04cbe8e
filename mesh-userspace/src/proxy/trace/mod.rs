//! What ties a request to others: its own id, and the trace that it is part of.
//!
//! A trace that is sampled goes on from us: the endpoint is told of the span of the try that it gets. One that is not
//! goes by untouched, which costs nothing; should it be kept all the same, for what went wrong, then its spans here are
//! beside those that others have of it.

mod b3;
mod hex;
#[cfg(test)]
mod tests;
mod w3c;

use super::fields::{Fields, bits};
use b3::Form;
pub(super) use hex::digits;
use http::HeaderValue;
use w3c::{TRACEPARENT, TRACESTATE};

/// Bytes of a `tracestate` that are told: as many as everybody passes on (W3C Trace Context, section 3.3.1.5).
const MOST_OF_STATE: usize = 512;

/// A new request id: 32 hexadecimal digits.
pub(super) fn request_id() -> [u8; 32] {
    digits(fastrand::u128(..))
}

/// The trace that a request is part of, as its client says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Came {
    trace: u128,
    /// The client's span.
    parent: u64,
    /// As W3C has them.
    flags: u8,
}

/// The trace that a request is part of, and the spans that it has here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Context {
    /// Its id.
    pub(super) trace: u128,
    /// The client's span; 0: the trace begins here.
    pub(super) parent: u64,
    /// The span of the request; 0: nobody was told of one.
    request: u64,
    /// The span of its first try; 0: as above.
    first: u64,
    flags: u8,
    form: Form,
}

impl Context {
    /// The trace that a request with these headers is part of: a new one, where they name none or what they say is broken.
    /// Sampled, where nobody has said, as `decide` does. `records`: spans of here are seen by somebody.
    ///
    /// Afterwards the headers are those of the first try.
    pub(super) fn of(headers: &mut Fields, records: bool, decide: impl FnOnce() -> bool) -> Self {
        let mut lines = headers.get_all(&TRACEPARENT);
        let came = match (lines.next(), lines.next()) {
            (Some(line), None) => w3c::read(line),
            _ => None,
        };
        match came {
            Some(Came { trace, parent, flags }) => {
                let mut context = Self { trace, parent, request: 0, first: 0, flags, form: Form::default() };
                if records && context.is_sampled() {
                    let (seen, _) = other_words(headers);
                    context.form = b3::read(headers, seen).form;
                    context.begin(headers, true);
                }
                context
            }
            None => Self::without_w3c(headers, records, decide),
        }
    }

    fn without_w3c(headers: &mut Fields, records: bool, decide: impl FnOnce() -> bool) -> Self {
        let (seen, has_state) = other_words(headers);
        if has_state {
            // It belongs to a `traceparent` (section 3.3.1.4).
            headers.remove(TRACESTATE);
        }
        let said = b3::read(headers, seen);
        let flags = w3c::flags(said.sampled.unwrap_or_else(decide));
        let (trace, parent) = said.ids.unwrap_or_else(|| (fastrand::u128(1..), 0));
        let mut context = Self { trace, parent, request: 0, first: 0, flags, form: said.form };
        context.begin(headers, records || parent == 0);
        context
    }

    /// Gives the request and its first try spans, and tells whoever gets it; `own` is false where nobody will see them.
    fn begin(&mut self, headers: &mut Fields, own: bool) {
        if own {
            (self.request, self.first) = (fastrand::u64(1..), fastrand::u64(1..));
            self.write(headers, self.first);
        } else {
            self.write(headers, self.parent);
        }
    }

    fn write(&self, headers: &mut Fields, span: u64) {
        headers.insert_id(TRACEPARENT, &w3c::write(self.trace, span, self.flags));
        if self.form.single || self.form.multi {
            b3::write(headers, self.form, self.trace, span, self.request, self.is_sampled());
        }
    }

    /// Gives another try a span, and tells whoever gets it; unless a route has taken the trace away, or put another in its
    /// place.
    pub(super) fn again(&mut self, headers: &mut Fields) -> u64 {
        let span = fastrand::u64(1..);
        let named = headers.get(&TRACEPARENT).and_then(w3c::read);
        if named.is_some_and(|named| named.trace == self.trace) {
            if self.request == 0 {
                self.request = fastrand::u64(1..);
            }
            self.write(headers, span);
        }
        span
    }

    /// The span of the request.
    pub(super) fn span(&self) -> u64 {
        or_new(self.request)
    }

    /// The span of its first try.
    pub(super) fn first(&self) -> u64 {
        or_new(self.first)
    }

    /// Whether it is to be recorded.
    pub(super) const fn is_sampled(&self) -> bool {
        w3c::is_sampled(self.flags)
    }
}

/// The lines of a request's `tracestate`.
pub(super) fn state(headers: &Fields) -> Vec<HeaderValue> {
    headers.get_all(&TRACESTATE).filter_map(|line| HeaderValue::from_bytes(line).ok()).collect()
}

/// Lines of `tracestate` as the one that they stand for, without the members, from the right on, that find no room.
pub(super) fn joined(lines: &[HeaderValue]) -> Option<Box<str>> {
    let mut state = String::new();
    let members = lines.iter().flat_map(|line| line.to_str().unwrap_or_default().split(','));
    for member in members.map(str::trim).filter(|member| !member.is_empty()) {
        let comma = usize::from(!state.is_empty());
        if state.len() + comma + member.len() > MOST_OF_STATE {
            break;
        }
        state.push_str(&","[..comma]);
        state.push_str(member);
    }
    (!state.is_empty()).then(|| state.into())
}

/// A span that nobody was told of (0) may have any id.
pub(super) fn or_new(span: u64) -> u64 {
    if span == 0 { fastrand::u64(1..) } else { span }
}

/// What else headers say of a trace: the forms of B3, and whether there is a `tracestate`.
///
/// One look over all names, of which most are told apart by their lengths: it is done for each request that brings no trace.
fn other_words(headers: &Fields) -> (Form, bool) {
    let (mut form, mut has_state) = (Form::default(), false);
    if !headers.may_have(const { bits(&["b3", "tracestate", "x-b3-traceid", "x-b3-sampled", "x-b3-flags"]) }) {
        return (form, has_state);
    }
    headers.for_each_name(|name| match name.len() {
        2 => form.single |= name == b"b3",
        10 if name == b"tracestate" => has_state = true,
        10 | 12 => form.multi |= matches!(name, b"x-b3-traceid" | b"x-b3-sampled" | b"x-b3-flags"),
        _ => {}
    });
    (form, has_state)
}
