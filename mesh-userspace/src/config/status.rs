//! HTTP statuses: `200`, `200-399`.

use super::text::{Complaint, Kind, text_kind};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, fmt, ops::RangeInclusive};

const LOWEST: u16 = 100;
const HIGHEST: u16 = 599;

/// One HTTP status, or a range of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StatusRange {
    first: u16,
    last: u16,
}

impl StatusRange {
    const EXPECTED: &str = "a status from 100 to 599, or a range such as 200-399";

    pub(super) const KIND: Kind = text_kind!(StatusRange, Self::EXPECTED);

    pub(super) const fn new(first: u16, last: u16) -> Self {
        Self { first, last }
    }

    /// The statuses, first to last.
    #[must_use]
    pub const fn get(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }

    pub(super) fn parse(text: &str) -> Result<Self, Complaint> {
        let number = |text: &str| {
            let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|status| digits && (LOWEST..=HIGHEST).contains(status))
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            (Some(first), Some(last)) => Err(Complaint::new(Self::EXPECTED).remedy(format!("write {last}-{first}"))),
            _ => Err(Complaint::new(Self::EXPECTED)),
        }
    }
}

impl Serialize for StatusRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.first == self.last {
            serializer.serialize_u16(self.first)
        } else {
            serializer.collect_str(&format_args!("{}-{}", self.first, self.last))
        }
    }
}

impl<'de> Deserialize<'de> for StatusRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = StatusRange;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(StatusRange::EXPECTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                StatusRange::parse(text).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                match u16::try_from(number) {
                    Ok(status) if (LOWEST..=HIGHEST).contains(&status) => Ok(StatusRange::new(status, status)),
                    _ => Err(E::invalid_value(de::Unexpected::Unsigned(number), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for StatusRange {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "StatusRange".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string", "pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$", "x-kind": "StatusRange" },
            { "type": "integer", "minimum": LOWEST, "maximum": HIGHEST },
        ] })
    }
}
