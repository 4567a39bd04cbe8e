//! Chunked bodies (RFC 9112, section 7.1), decoded from whatever parts they arrive in.

use std::mem;

use bytes::{Buf, Bytes};
use http::HeaderMap;

use super::{super::FaultKind, Limits, head};

/// What a step of a decoder gave.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// A part of the body; never empty.
    Data(Bytes),
    /// The trailers; only [`Step::End`] comes after them.
    Trailers(HeaderMap),
    /// The body is over.
    End,
    /// All of the input was used, and the body goes on.
    More,
}

/// Decodes one chunked body.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    state: State,
    /// Bytes of this chunk that are still to come.
    left: u64,
    /// Digits of its size so far.
    digits: u8,
    /// Bytes of chunk extensions so far.
    extensions: usize,
    /// Lines of trailers so far.
    trailers: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum State {
    /// In the digits of a size.
    #[default]
    Size,
    /// In the blanks before a semicolon.
    Blank,
    /// In an extension.
    Extension,
    /// After the CR behind a size.
    SizeEnd,
    /// In the data.
    Data,
    /// After the data.
    DataEnd,
    /// After the CR behind the data.
    DataLineEnd,
    /// After the last chunk.
    Trailers,
    /// After everything.
    Over,
}

/// 16 hexadecimal digits are 64 bits.
const MOST_DIGITS: u8 = 16;

impl Chunked {
    /// Goes on with `input`, of which it takes what it used.
    pub(super) fn step(&mut self, input: &mut Bytes, limits: &Limits) -> Result<Step, FaultKind> {
        loop {
            match self.state {
                State::Over => return Ok(Step::End),
                _ if input.is_empty() => return Ok(Step::More),
                State::Data => {
                    let here = usize::try_from(self.left).map_or(input.len(), |left| left.min(input.len()));
                    self.left -= here as u64;
                    if self.left == 0 {
                        self.state = State::DataEnd;
                    }
                    return Ok(Step::Data(input.split_to(here)));
                }
                State::Trailers => {
                    if let Some(step) = self.trailer_line(input, limits)? {
                        return Ok(step);
                    }
                }
                _ => self.framing_byte(input.get_u8(), limits)?,
            }
        }
    }

    /// One byte between the data of two chunks.
    fn framing_byte(&mut self, byte: u8, limits: &Limits) -> Result<(), FaultKind> {
        self.state = match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.digits += 1;
                if self.digits > MOST_DIGITS {
                    return Err(FaultKind::Malformed("chunk size has more than 16 digits"));
                }
                self.left = self.left << 4 | u64::from(hex(byte));
                // To some it would be a negative number.
                if self.left > i64::MAX as u64 {
                    return Err(FaultKind::Malformed("chunk size overflows"));
                }
                State::Size
            }
            (State::Size, _) if self.digits == 0 => return Err(FaultKind::Malformed("no chunk size")),
            (State::Size | State::Extension, b'\r') => State::SizeEnd,
            (State::Size | State::Blank, b';') => State::Extension,
            (State::Size | State::Blank, b' ' | b'\t') => State::Blank,
            (State::Extension, b'\t' | b' '..=b'~' | 0x80..) => State::Extension,
            (State::SizeEnd, b'\n') => {
                self.digits = 0;
                if self.left == 0 { State::Trailers } else { State::Data }
            }
            (State::DataEnd, b'\r') => State::DataLineEnd,
            (State::DataLineEnd, b'\n') => State::Size,
            (State::DataEnd | State::DataLineEnd, _) => {
                return Err(FaultKind::Malformed("chunk is longer than its size"));
            }
            _ => return Err(FaultKind::Malformed("chunk size")),
        };
        if matches!(self.state, State::Blank | State::Extension) {
            self.extensions += 1;
            if self.extensions > limits.extension_bytes {
                return Err(FaultKind::TooLarge("chunk extensions"));
            }
        }
        Ok(())
    }

    /// A line after the last chunk, or a part of one.
    fn trailer_line(&mut self, input: &mut Bytes, limits: &Limits) -> Result<Option<Step>, FaultKind> {
        let end = memchr::memchr(b'\n', input).map(|at| at + 1);
        let part = input.split_to(end.unwrap_or(input.len()));
        if self.trailers.len() + part.len() > limits.head_bytes {
            return Err(FaultKind::TooLarge("trailers"));
        }
        self.trailers.extend_from_slice(&part);
        if end.is_none() {
            return Ok(None);
        }
        if !self.trailers.ends_with(b"\r\n") {
            return Err(FaultKind::Malformed("line ends in a bare LF"));
        }
        if self.trailers == b"\r\n" {
            self.trailers = Vec::new();
            self.state = State::Over;
            return Ok(Some(Step::End));
        }
        if !self.trailers.ends_with(b"\r\n\r\n") {
            return Ok(None);
        }
        self.state = State::Over;
        let trailers = head::trailers(&Bytes::from(mem::take(&mut self.trailers)), limits)?;
        Ok(Some(if trailers.is_empty() { Step::End } else { Step::Trailers(trailers) }))
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}
