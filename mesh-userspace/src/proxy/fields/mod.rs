//! The header lines of a message, whichever dialect it speaks.
//!
//! A message of HTTP/1.1 has them as they came, in a [`block`]; one of HTTP/2 in a map, as the `h2` crate makes and takes
//! them. They become the other only where a message goes from one dialect to the other.

mod block;
pub(super) mod names;
#[cfg(test)]
pub(super) mod tests;

use block::Values;
pub(super) use block::{Block, bits};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AsHeaderName, IntoHeaderName, ValueIter},
};
use std::{fmt, mem};

/// Header lines of a message. Names are in lower case everywhere, also where they are asked for.
#[derive(Clone)]
pub struct Fields(Kept);

#[derive(Clone)]
enum Kept {
    Block(Block),
    Map(HeaderMap),
}

/// By what a field is asked for.
pub trait Name: AsHeaderName + AsRef<str> {}

impl<N: AsHeaderName + AsRef<str>> Name for N {}

/// By what a field is written.
pub trait NewName: IntoHeaderName + AsRef<str> {}

impl<N: IntoHeaderName + AsRef<str>> NewName for N {}

impl Default for Fields {
    fn default() -> Self {
        HeaderMap::new().into()
    }
}

impl From<HeaderMap> for Fields {
    fn from(map: HeaderMap) -> Self {
        Self(Kept::Map(map))
    }
}

impl From<Block> for Fields {
    fn from(block: Block) -> Self {
        Self(Kept::Block(block))
    }
}

impl From<Fields> for HeaderMap {
    fn from(fields: Fields) -> Self {
        match fields.0 {
            Kept::Block(block) => block.into_map(),
            Kept::Map(map) => map,
        }
    }
}

impl Fields {
    /// The first value of this name.
    #[inline]
    pub fn get<N: Name>(&self, name: N) -> Option<&[u8]> {
        match &self.0 {
            Kept::Block(block) => block.first(name.as_ref()),
            Kept::Map(map) => map.get(name).map(HeaderValue::as_bytes),
        }
    }

    /// All values of this name, in order.
    #[inline]
    pub fn get_all<N: Name>(&self, name: N) -> All<'_> {
        All(match &self.0 {
            Kept::Block(block) => Either::Block(block.values(name.as_ref())),
            Kept::Map(map) => Either::Map(map.get_all(name).into_iter()),
        })
    }

    /// As [`Fields::get`], to be kept.
    pub fn value<N: Name>(&self, name: N) -> Option<HeaderValue> {
        match &self.0 {
            Kept::Block(block) => HeaderValue::from_bytes(block.first(name.as_ref())?).ok(),
            Kept::Map(map) => map.get(name).cloned(),
        }
    }

    /// Whether there is a line of this name.
    #[must_use]
    #[inline]
    pub fn contains(&self, name: &HeaderName) -> bool {
        match &self.0 {
            Kept::Block(block) => block.contains(name.as_str()),
            // A look at each name costs less than to look for one.
            Kept::Map(map) => map.keys().any(|key| key == name),
        }
    }

    /// Names and values. Values of a name are in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        match &self.0 {
            Kept::Block(block) => Either::Block(block.iter()),
            Kept::Map(map) => Either::Map(map.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))),
        }
    }

    /// Whether a line may have a name of which these are the [bits]; where it is not known at once, it may.
    #[inline]
    pub(super) const fn may_have(&self, bits: u64) -> bool {
        match &self.0 {
            Kept::Block(block) => block.may_have(bits),
            Kept::Map(_) => true,
        }
    }

    /// Shows each name.
    pub(super) fn for_each_name(&self, mut look: impl FnMut(&[u8])) {
        match &self.0 {
            Kept::Block(block) => block.for_each_name(look),
            Kept::Map(map) => map.keys().for_each(|name| look(name.as_str().as_bytes())),
        }
    }

    /// Lines.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Kept::Block(block) => block.len(),
            Kept::Map(map) => map.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts one line in the place of all of this name. More than a map holds (2^15) are left out, here and below.
    pub fn insert<N: NewName>(&mut self, name: N, value: &HeaderValue) {
        match &mut self.0 {
            Kept::Block(block) => block.set(name.as_ref(), value.as_bytes(), false),
            Kept::Map(map) => drop(map.try_insert(name, value.clone())),
        }
    }

    /// Adds a line.
    pub fn append<N: NewName>(&mut self, name: N, value: &HeaderValue) {
        match &mut self.0 {
            Kept::Block(block) => block.push(name.as_ref(), value.as_bytes(), false),
            Kept::Map(map) => drop(map.try_append(name, value.clone())),
        }
    }

    /// As [`Fields::insert`], a value of digits and dashes that no other message has. It stays out of the tables of HPACK, as
    /// sensitive ones do: there it would push out what other messages have too, and be looked for among all that are like it.
    pub fn insert_id<N: NewName>(&mut self, name: N, id: &[u8]) {
        match &mut self.0 {
            Kept::Block(block) => block.set(name.as_ref(), id, true),
            Kept::Map(map) => {
                let value = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(id));
                let mut value = value.unwrap_or(HeaderValue::from_static("invalid"));
                value.set_sensitive(true);
                let _ = map.try_insert(name, value);
            }
        }
    }

    /// Makes one line of all of this name, with another `member` behind them: some servers read the first line only.
    pub fn join(&mut self, name: &HeaderName, between: &str, member: Option<&HeaderValue>) {
        let mut joined = Vec::with_capacity(64);
        for value in self.get_all(name).chain(member.map(HeaderValue::as_bytes)) {
            if !joined.is_empty() {
                joined.extend_from_slice(between.as_bytes());
            }
            joined.extend_from_slice(value);
        }
        // Made of valid values.
        if let Ok(joined) = HeaderValue::from_maybe_shared(Bytes::from(joined)) {
            self.insert(name, &joined);
        }
    }

    /// Removes all lines of this name.
    pub fn remove<N: Name>(&mut self, name: N) {
        match &mut self.0 {
            Kept::Block(block) => block.remove(name.as_ref()),
            Kept::Map(map) => drop(map.remove(name)),
        }
    }

    /// Writes all lines but those that are `ours` to write, by name and value, each with its end. `bits` are those of the
    /// names.
    pub(super) fn write(&self, out: &mut Vec<u8>, bits: u64, ours: impl Fn(&[u8], &[u8]) -> bool) {
        match &self.0 {
            Kept::Block(block) => block.write(out, bits, ours),
            Kept::Map(map) => {
                for (name, value) in map {
                    let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
                    if !ours(name, value) {
                        write_line(out, name, value);
                    }
                }
            }
        }
    }

    /// About how many bytes that takes.
    pub(super) fn size(&self) -> usize {
        match &self.0 {
            Kept::Block(block) => block.size(),
            Kept::Map(map) => map.len() * 48,
        }
    }

    /// Makes a map of them, for when much is to be looked for.
    pub(super) fn become_map(&mut self) {
        *self = HeaderMap::from(mem::take(self)).into();
    }

    /// As a map.
    #[must_use]
    pub fn to_map(&self) -> HeaderMap {
        self.clone().into()
    }
}

/// A value as text, if it is some: visible ASCII.
pub(super) fn text(value: &[u8]) -> Option<&str> {
    let plain = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~');
    str::from_utf8(value).ok().filter(|_| value.iter().all(plain))
}

/// Writes one line with its end.
pub(super) fn write_line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    debug_assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "HeaderValue allows none");
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy;
        f.debug_map().entries(self.iter().map(|(name, value)| (text(name), text(value)))).finish()
    }
}

/// All values of a name.
pub struct All<'a>(Either<Values<'a>, ValueIter<'a, HeaderValue>>);

impl<'a> Iterator for All<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        match &mut self.0 {
            Either::Block(values) => values.next(),
            Either::Map(values) => values.next().map(HeaderValue::as_bytes),
        }
    }
}

/// The same from either.
enum Either<B, M> {
    Block(B),
    Map(M),
}

impl<B: Iterator, M: Iterator<Item = B::Item>> Iterator for Either<B, M> {
    type Item = B::Item;

    fn next(&mut self) -> Option<B::Item> {
        match self {
            Self::Block(block) => block.next(),
            Self::Map(map) => map.next(),
        }
    }
}
