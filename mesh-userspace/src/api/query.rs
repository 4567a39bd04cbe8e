//! Parameters of a query, and percent-encoding.

use super::{routes::HttpError, types::UnknownWord};
use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    net::SocketAddr,
    str::FromStr,
};

/// The parameters of a query, each at most once.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(super) fn parse(query: Option<&str>) -> Result<Self, HttpError> {
        let mut found: Vec<(String, String)> = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (decode(name, true), decode(value, true)) else {
                return Err(HttpError::invalid(format!("the parameter {pair:?} is not percent-encoded text")));
            };
            if found.iter().any(|(other, _)| *other == name) {
                return Err(HttpError::invalid(format!("the parameter {name:?} stands more than once")));
            }
            found.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(found))
    }

    /// An empty value is refused: `?name=` of an unset shell variable must not mean "all".
    pub(super) fn take(&mut self, name: &str) -> Result<Option<String>, HttpError> {
        let Some(at) = self.0.iter().position(|(other, _)| other == name) else { return Ok(None) };
        let (_, value) = self.0.swap_remove(at);
        if value.is_empty() {
            return Err(HttpError::invalid(format!("the parameter {name:?} is empty; leave it out or give a value")));
        }
        Ok(Some(value))
    }

    pub(super) fn take_address(&mut self, name: &str) -> Result<SocketAddr, HttpError> {
        self.take_address_if_any(name)?.ok_or_else(|| {
            HttpError::invalid(format!("the parameter {name:?} is missing: ip:port, or [ip]:port for IPv6"))
        })
    }

    pub(super) fn take_address_if_any(&mut self, name: &str) -> Result<Option<SocketAddr>, HttpError> {
        let parse = |value: String| {
            value.parse().map_err(|_| {
                HttpError::invalid(format!("{name}: {value:?} is no address: expected ip:port, or [ip]:port for IPv6"))
            })
        };
        self.take(name)?.map(parse).transpose()
    }

    pub(super) fn take_word<T: FromStr<Err = UnknownWord>>(&mut self, name: &str) -> Result<Option<T>, HttpError> {
        self.take_parsed(name)
    }

    /// A value that says itself what is expected of it.
    pub(super) fn take_parsed<T: FromStr<Err: fmt::Display>>(&mut self, name: &str) -> Result<Option<T>, HttpError> {
        let parse = |value: String| value.parse().map_err(|e| HttpError::invalid(format!("{name}: {e}")));
        self.take(name)?.map(parse).transpose()
    }

    /// A number of things, at least one.
    pub(super) fn take_count(&mut self, name: &str) -> Result<Option<u32>, HttpError> {
        let parse = |value: String| match value.parse() {
            Ok(count) if count > 0 => Ok(count),
            _ => Err(HttpError::invalid(format!(
                "{name}: expected a whole number from 1 to {}, not {value:?}",
                u32::MAX
            ))),
        };
        self.take(name)?.map(parse).transpose()
    }

    pub(super) fn finish(self, path: &str) -> Result<(), HttpError> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(HttpError::invalid(format!("{path} has no parameter {name:?}"))),
        }
    }
}

/// Undoes percent-encoding; `None` where it is broken or not UTF-8. In a query a plus is a space.
pub(super) fn decode(text: &str, plus_is_space: bool) -> Option<Cow<'_, str>> {
    if !text.contains(['%', '+']) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let (high, low) = (hex(bytes.next()?)?, hex(bytes.next()?)?);
                high * 16 + low
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Percent-encodes all but what never needs it.
pub(super) fn encode(value: &str, to: &mut String) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            to.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(to, "%{byte:02X}");
        }
    }
}
