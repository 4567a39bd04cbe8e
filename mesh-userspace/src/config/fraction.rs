//! A part of a whole: `0.7`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, fmt};

/// More than nothing and at most all, in thousandths: 1 to 1000. What is finer is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fraction(u32);

impl Fraction {
    pub(super) const MIN: f64 = 0.001;
    pub(super) const MAX: f64 = 1.0;

    /// So many thousandths, brought into range.
    #[must_use]
    pub const fn from_thousandths(thousandths: u32) -> Self {
        Self(if thousandths < 1 {
            1
        } else if thousandths > 1000 {
            1000
        } else {
            thousandths
        })
    }

    /// In thousandths, 1 to 1000.
    #[must_use]
    pub const fn thousandths(self) -> u32 {
        self.0
    }
}

/// That of `locality.spill_below`.
impl Default for Fraction {
    fn default() -> Self {
        Self(700)
    }
}

impl Serialize for Fraction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / 1000.0)
    }
}

impl<'de> Deserialize<'de> for Fraction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Fraction;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a number from {} to {}", Fraction::MIN, Fraction::MAX)
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
                if (Fraction::MIN..=Fraction::MAX).contains(&number) {
                    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 1000")]
                    let thousandths = (number * 1000.0).round() as u32;
                    Ok(Fraction::from_thousandths(thousandths))
                } else {
                    Err(E::invalid_value(de::Unexpected::Float(number), &self))
                }
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                match number {
                    1 => Ok(Fraction::from_thousandths(1000)),
                    _ => Err(E::invalid_value(de::Unexpected::Unsigned(number), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Fraction {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Fraction".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": Self::MIN, "maximum": Self::MAX })
    }
}
