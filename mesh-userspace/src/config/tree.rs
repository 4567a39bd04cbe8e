//! A file as a tree in which everything knows its place.

use super::report::Place;
use std::borrow::Cow;

/// A value in a file.
#[derive(Clone, Debug)]
pub(super) struct Node<'t> {
    pub(super) at: Place,
    pub(super) kind: Kind<'t>,
}

#[derive(Clone, Debug)]
pub(super) enum Kind<'t> {
    Scalar {
        text: Cow<'t, str>,
        /// Whether it was in quotes (or a block), and so is text whatever it looks like.
        quoted: bool,
    },
    List(Vec<Node<'t>>),
    Map(Vec<Entry<'t>>),
    /// Refused already: said once, then left out.
    Bad,
}

/// A key with its value.
#[derive(Clone, Debug)]
pub(super) struct Entry<'t> {
    pub(super) key: Cow<'t, str>,
    pub(super) at: Place,
    pub(super) value: Node<'t>,
}

/// What a scalar means, by YAML's core schema.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scalar<'n> {
    Null,
    Bool(bool),
    /// A whole number. None is meaningful outside this range; further out they are cut to it.
    Integer(i128),
    Float(f64),
    Text(&'n str),
}

impl<'t> Node<'t> {
    /// What an empty file means.
    pub(super) fn empty() -> Self {
        Self { at: Place::default(), kind: Kind::Map(Vec::new()) }
    }

    /// What it means, if it is a scalar.
    pub(super) fn scalar(&self) -> Option<Scalar<'_>> {
        match &self.kind {
            Kind::Scalar { text, quoted: true } => Some(Scalar::Text(text)),
            Kind::Scalar { text, quoted: false } => Some(resolve(text)),
            _ => None,
        }
    }

    /// Whether nothing was written: `key:`, `key: null`, `key: ~`.
    pub(super) fn is_null(&self) -> bool {
        self.scalar() == Some(Scalar::Null)
    }

    /// The value of a key, if it is a mapping that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.value),
            _ => None,
        }
    }

    /// Takes the value of a key out.
    pub(super) fn take(&mut self, key: &str) -> Option<Self> {
        match &mut self.kind {
            Kind::Map(entries) => {
                let index = entries.iter().position(|e| e.key == key)?;
                Some(entries.remove(index).value)
            }
            _ => None,
        }
    }

    /// The items that were not refused, each with its index in the file.
    pub(super) fn items(&self) -> impl Iterator<Item = (usize, &Self)> {
        let items: &[Self] = if let Kind::List(items) = &self.kind { items } else { &[] };
        items.iter().enumerate().filter(|(_, item)| !matches!(item.kind, Kind::Bad))
    }

    /// What was found, in words, for a message: `"abc"`, `70000`, `a list`.
    pub(super) fn describe(&self) -> String {
        match (self.scalar(), &self.kind) {
            (Some(Scalar::Null), _) => "nothing".to_owned(),
            (Some(Scalar::Text(text)), _) => quote(text),
            (_, Kind::Scalar { text, .. }) => shorten(text).into_owned(),
            (_, Kind::List(_)) => "a list".to_owned(),
            (_, Kind::Map(_)) => "a mapping".to_owned(),
            (_, Kind::Bad) => "a mistake".to_owned(),
        }
    }
}

/// `text` in quotes, its odd characters escaped, not too long.
pub(super) fn quote(text: &str) -> String {
    format!("{:?}", shorten(text))
}

fn shorten(text: &str) -> Cow<'_, str> {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// YAML 1.2's core schema: what an unquoted scalar means.
fn resolve(text: &str) -> Scalar<'_> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "true" | "True" | "TRUE" => return Scalar::Bool(true),
        "false" | "False" | "FALSE" => return Scalar::Bool(false),
        _ => {}
    }
    // Most scalars are words or addresses: one look at the first byte spares them the rest.
    let Some(b'0'..=b'9' | b'+' | b'-' | b'.') = text.bytes().next() else {
        return Scalar::Text(text);
    };
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let radix = |prefix, radix| {
        let digits = text.strip_prefix(prefix)?;
        let valid = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
        valid.then(|| i128::from_str_radix(digits, radix).unwrap_or(i128::MAX))
    };
    if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return Scalar::Integer(number);
    }
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        let limit = if text.starts_with('-') { i128::MIN } else { i128::MAX };
        return Scalar::Integer(text.parse().unwrap_or(limit));
    }
    match digits {
        ".inf" | ".Inf" | ".INF" => {
            return Scalar::Float(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY });
        }
        ".nan" | ".NaN" | ".NAN" if digits == text => return Scalar::Float(f64::NAN),
        _ => {}
    }
    // Rust also reads "1_0", "inf" and "nan"; the core schema does not.
    let float = digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    match text.parse() {
        Ok(number) if float => Scalar::Float(number),
        _ => Scalar::Text(text),
    }
}
