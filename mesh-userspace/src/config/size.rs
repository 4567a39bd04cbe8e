//! How much room: a number, or left to the daemon.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, fmt};

/// `auto`, or a number from 1 to `MAX`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Size<const MAX: u32> {
    /// What the configuration needs at start, with head-room.
    #[default]
    Auto,
    /// This many.
    Exact(u32),
}

impl<const MAX: u32> Size<MAX> {
    /// The number, if one was given.
    #[must_use]
    pub const fn exact(self) -> Option<u32> {
        match self {
            Self::Auto => None,
            Self::Exact(number) => Some(number),
        }
    }
}

impl<const MAX: u32> Serialize for Size<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Exact(number) => serializer.serialize_u32(*number),
        }
    }
}

impl<'de, const MAX: u32> Deserialize<'de> for Size<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<const MAX: u32>;
        impl<const MAX: u32> de::Visitor<'_> for Visitor<MAX> {
            type Value = Size<MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "auto or a whole number from 1 to {MAX}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                if text == "auto" { Ok(Size::Auto) } else { Err(E::invalid_value(de::Unexpected::Str(text), &self)) }
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                match u32::try_from(number) {
                    Ok(exact @ 1..) if exact <= MAX => Ok(Size::Exact(exact)),
                    _ => Err(E::invalid_value(de::Unexpected::Unsigned(number), &self)),
                }
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
                match u64::try_from(number) {
                    Ok(number) => self.visit_u64(number),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl<const MAX: u32> JsonSchema for Size<MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Size{MAX}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1, "maximum": MAX }] })
    }
}
