//! Header lines as HTTP/1.1 writes them, kept as they came.
//!
//! Most lines pass through a proxy unchanged. Here they stay one text, which is copied as a whole; what is looked for is
//! looked for line by line, of which a message has few. A map of headers has to hash each name, and to give each value a
//! place of its own.

use super::names;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

/// Lines of a head, in order.
///
/// What is removed or replaced stays in the text until all of it goes: a message lives for milliseconds.
#[derive(Clone, Default)]
pub(in super::super) struct Block {
    /// Lines, each `name: value` with CR and LF behind it, and leftovers between them.
    text: Vec<u8>,
    lines: Vec<Line>,
    /// Of each name its [bit]: most that are looked for are in no line.
    seen: u64,
}

/// Where a line is. A head is of 64 KiB or not much more, and what is added comes from a configuration or from here.
#[derive(Clone, Copy)]
struct Line {
    start: u32,
    /// Behind the name.
    colon: u32,
    /// Behind the value.
    end: u32,
    /// No other message has this value ([`super::Fields::insert_id`]).
    is_id: bool,
}

/// A name's bit, by its length and first letter, such that few names that are looked for share it with those that most
/// messages have.
const fn bit(name: &[u8]) -> u64 {
    let first = if name.is_empty() { 0 } else { name[0] as usize };
    1 << ((name.len() * 19 + first) % 64)
}

/// The bits of these names.
pub(in super::super) const fn bits(names: &[&str]) -> u64 {
    let (mut bits, mut at) = (0, 0);
    while at < names.len() {
        bits |= bit(names[at].as_bytes());
        at += 1;
    }
    bits
}

/// What [`lower`] may read behind a name.
const WORD: usize = size_of::<u64>();

impl Block {
    /// The lines of a parsed head, with room for so many bytes of others: `lines` are parts of `head`, which are names and
    /// values of the characters that those consist of. `note` is told each name, in lower case, and value.
    pub(in super::super) fn of_head<E>(
        head: &[u8],
        lines: &[httparse::Header<'_>],
        room: usize,
        mut note: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let Some(first) = lines.first() else { return Ok(Self::default()) };
        let base = first.name.as_ptr().addr();
        let rest = &head[base - head.as_ptr().addr()..];
        let mut text = Vec::with_capacity(rest.len() + WORD + room);
        text.extend_from_slice(rest);
        text.extend_from_slice(&[0; WORD]);
        let mut block = Self { text, lines: Vec::with_capacity(lines.len() + 6), seen: 0 };
        for httparse::Header { name, value } in lines {
            let start = name.as_ptr().addr() - base;
            let colon = start + name.len();
            lower(&mut block.text, start, colon);
            let end = colon + 2 + value.len();
            // Nearly all are written as they are here, with one blank before the value and none behind it.
            if value.as_ptr().addr().wrapping_sub(base) == colon + 2
                && block.text[colon + 1] == b' '
                && block.text[end] == b'\r'
            {
                block.add(start, colon, end, false);
            } else {
                let start = block.text.len();
                block.text.extend_from_within(colon - name.len()..colon);
                block.finish(start, value, false);
            }
            let (name, value) = block.last();
            note(name, value)?;
        }
        Ok(block)
    }

    fn add(&mut self, start: usize, colon: usize, end: usize, is_id: bool) {
        self.seen |= bit(&self.text[start..colon]);
        self.lines.push(Line { start: start as u32, colon: colon as u32, end: end as u32, is_id });
    }

    /// Makes a line of the name that the text ends with, from `start` on.
    fn finish(&mut self, start: usize, value: &[u8], is_id: bool) {
        let colon = self.text.len();
        self.text.extend_from_slice(b": ");
        self.text.extend_from_slice(value);
        let end = self.text.len();
        self.text.extend_from_slice(b"\r\n");
        self.add(start, colon, end, is_id);
    }

    fn last(&self) -> (&[u8], &[u8]) {
        self.lines.last().map_or((b"", b""), |line| (self.name(line), self.value(line)))
    }

    fn name(&self, line: &Line) -> &[u8] {
        &self.text[line.start as usize..line.colon as usize]
    }

    fn value(&self, line: &Line) -> &[u8] {
        &self.text[line.colon as usize + 2..line.end as usize]
    }

    fn is(&self, line: &Line, name: &[u8]) -> bool {
        (line.colon - line.start) as usize == name.len() && self.name(line) == name
    }

    /// Whether a line may have a name of which these are the bits.
    #[inline]
    pub(super) const fn may_have(&self, bits: u64) -> bool {
        self.seen & bits != 0
    }

    /// The place of the first line of this name, which is in lower case.
    #[inline]
    fn position(&self, name: &str) -> Option<usize> {
        // Seen from where the name is known this is all there is, for most.
        if self.may_have(bit(name.as_bytes())) { self.search(name.as_bytes()) } else { None }
    }

    fn search(&self, name: &[u8]) -> Option<usize> {
        self.lines.iter().position(|line| self.is(line, name))
    }

    /// The first value of this name.
    #[inline]
    pub(super) fn first(&self, name: &str) -> Option<&[u8]> {
        self.position(name).and_then(|at| self.lines.get(at)).map(|line| self.value(line))
    }

    /// Whether there is a line of this name.
    #[inline]
    pub(super) fn contains(&self, name: &str) -> bool {
        self.position(name).is_some()
    }

    /// The values of this name.
    #[inline]
    pub(super) fn values<'a>(&'a self, name: &str) -> Values<'a> {
        Values { block: self, rest: self.position(name).map_or(&[], |first| &self.lines[first..]) }
    }

    /// Shows each name.
    pub(super) fn for_each_name(&self, mut look: impl FnMut(&[u8])) {
        self.lines.iter().for_each(|line| look(self.name(line)));
    }

    /// All lines.
    pub(super) fn iter(&self) -> Iter<'_> {
        Iter { block: self, lines: self.lines.iter() }
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Adds a line behind all others.
    pub(super) fn push(&mut self, name: &str, value: &[u8], is_id: bool) {
        let start = self.text.len();
        self.text.reserve(name.len() + value.len() + 4);
        self.text.extend_from_slice(name.as_bytes());
        self.finish(start, value, is_id);
    }

    /// Puts one line in the place of all of this name.
    pub(super) fn set(&mut self, name: &str, value: &[u8], is_id: bool) {
        let found = self.position(name);
        self.push(name, value, is_id);
        if let Some(first) = found
            && let Some(new) = self.lines.pop()
        {
            self.lines[first] = new;
            self.retain(name, Some(new.start));
        }
    }

    /// Removes all of this name.
    pub(super) fn remove(&mut self, name: &str) {
        if self.contains(name) {
            self.retain(name, None);
        }
    }

    /// Removes the lines of this name, except the one that starts at `kept`.
    fn retain(&mut self, name: &str, kept: Option<u32>) {
        let Self { text, lines, seen } = self;
        *seen = 0;
        lines.retain(|line| {
            let own = &text[line.start as usize..line.colon as usize];
            let stays = own != name.as_bytes() || Some(line.start) == kept;
            *seen |= if stays { bit(own) } else { 0 };
            stays
        });
    }

    /// Writes all lines but those that are `ours` to write, by name and value, of which `bits` are those of the names.
    pub(super) fn write(&self, out: &mut Vec<u8>, bits: u64, ours: impl Fn(&[u8], &[u8]) -> bool) {
        let plain = !self.may_have(bits);
        // Of lines that stand side by side.
        let mut run = 0..0;
        for line in self.lines.iter().filter(|line| plain || !ours(self.name(line), self.value(line))) {
            let (start, end) = (line.start as usize, line.end as usize + 2);
            if start != run.end {
                out.extend_from_slice(&self.text[std::mem::replace(&mut run, start..start)]);
            }
            run.end = end;
        }
        out.extend_from_slice(&self.text[run]);
    }

    /// The bytes of all lines, about.
    pub(super) fn size(&self) -> usize {
        self.text.len()
    }

    pub(super) fn into_map(self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.lines.len());
        let text = Bytes::from(self.text);
        for line in &self.lines {
            let (start, colon, end) = (line.start as usize, line.colon as usize, line.end as usize);
            // Made of valid ones.
            let Ok(name) = names::name(&text[start..colon]) else { continue };
            let Ok(mut value) = HeaderValue::from_maybe_shared(text.slice(colon + 2..end)) else { continue };
            value.set_sensitive(line.is_id);
            let _ = map.try_append(name, value);
        }
        map
    }
}

/// Puts a part of `text` in lower case, eight letters at a time; there are as many bytes more behind it.
fn lower(text: &mut [u8], from: usize, to: usize) {
    const ONES: u64 = u64::MAX / 255;
    let mut at = from;
    while at < to {
        let Some(bytes) = text[at..].first_chunk_mut::<WORD>() else { return };
        let word = u64::from_le_bytes(*bytes);
        // Each byte without its upper bit, which then tells whether adding came over 128.
        let low = word & (ONES * 0x7f);
        let from_a = low + ONES * (0x80 - b'A' as u64);
        let beyond_z = low + ONES * (0x7f - b'Z' as u64);
        let upper = (from_a ^ beyond_z) & !word & (ONES * 0x80);
        let here = if to - at < WORD { upper & ((1 << ((to - at) * 8)) - 1) } else { upper };
        *bytes = (word | here >> 2).to_le_bytes();
        at += WORD;
    }
}

/// Values of a name.
pub(in super::super) struct Values<'a> {
    block: &'a Block,
    /// The first of these has the name.
    rest: &'a [Line],
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (first, rest) = self.rest.split_first()?;
        let name = self.block.name(first);
        let next = rest.iter().position(|line| self.block.is(line, name));
        self.rest = next.map_or(&[], |next| &rest[next..]);
        Some(self.block.value(first))
    }
}

/// Names and values.
pub(in super::super) struct Iter<'a> {
    block: &'a Block,
    lines: std::slice::Iter<'a, Line>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.lines.next().map(|line| (self.block.name(line), self.block.value(line)))
    }
}
