//! W3C Trace Context: `traceparent` (<https://www.w3.org/TR/trace-context/>).

use super::{Came, hex};
use http::HeaderName;

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// It is recorded by whoever sent it.
const SAMPLED: u8 = 1;
/// Its id is random in its lower half (level 2 of the standard): passed on, as nothing here makes it untrue.
const RANDOM: u8 = 2;

/// What a `traceparent` says; `None`: it is not valid. Of a version that is not known yet, what this one has is read.
pub(super) fn read(text: &[u8]) -> Option<Came> {
    let [version, trace, parent, flags] = [text.get(..2)?, text.get(3..35)?, text.get(36..52)?, text.get(53..55)?];
    let dashes = [2, 35, 52].iter().all(|at| text[*at] == b'-');
    let longer = text.len() > 55 && (version == b"00" || text[55] != b'-');
    if !dashes || longer || version == b"ff" {
        return None;
    }
    hex::read(version)?;
    let (trace, parent) = (hex::read_long(trace)?, hex::read(parent)?);
    let flags = u8::try_from(hex::read(flags)?).ok()?;
    (trace != 0 && parent != 0).then_some(Came { trace, parent, flags })
}

/// A `traceparent` of the version that is known here.
pub(super) fn write(trace: u128, parent: u64, flags: u8) -> [u8; 55] {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    hex::write(trace, &mut text[3..35]);
    hex::write(u128::from(parent), &mut text[36..52]);
    // What other flags will mean is not known, and they must not be passed on (section 3.2.2.5).
    hex::write(u128::from(flags & (SAMPLED | RANDOM)), &mut text[53..]);
    text
}

/// The flags of a trace that is sampled, or not.
pub(super) const fn flags(sampled: bool) -> u8 {
    if sampled { SAMPLED } else { 0 }
}

pub(super) const fn is_sampled(flags: u8) -> bool {
    flags & SAMPLED != 0
}
