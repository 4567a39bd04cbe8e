//! Numbers that need not be whole: percents, and parts of a whole.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, fmt};

/// A number from 0 to `MAX`, kept as so many parts, of which `SCALE` make one. What is finer is rounded, but not to nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal<const MAX: u32, const SCALE: u32>(u32);

/// 0 to 100, in thousandths of a percent.
pub type Percent = Decimal<100, 1000>;
/// 0 to 1, in thousandths.
pub type Ratio = Decimal<1, 1000>;
/// 0 to 1, in millionths.
pub type Rate = Decimal<1, 1_000_000>;

impl<const MAX: u32, const SCALE: u32> Decimal<MAX, SCALE> {
    /// `parts`, at most as many as make `MAX`.
    #[must_use]
    pub const fn from_parts(parts: u32) -> Self {
        Self(if parts < MAX * SCALE { parts } else { MAX * SCALE })
    }

    /// In parts of one: 0 to `MAX * SCALE`.
    #[must_use]
    pub const fn parts(self) -> u32 {
        self.0
    }
}

impl<const MAX: u32, const SCALE: u32> fmt::Display for Decimal<MAX, SCALE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (f64::from(self.0) / f64::from(SCALE)).fmt(f)
    }
}

impl<const MAX: u32, const SCALE: u32> Serialize for Decimal<MAX, SCALE> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(SCALE) {
            serializer.serialize_u32(self.0 / SCALE)
        } else {
            serializer.serialize_f64(f64::from(self.0) / f64::from(SCALE))
        }
    }
}

impl<'de, const MAX: u32, const SCALE: u32> Deserialize<'de> for Decimal<MAX, SCALE> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<const MAX: u32, const SCALE: u32>;
        impl<const MAX: u32, const SCALE: u32> de::Visitor<'_> for Visitor<MAX, SCALE> {
            type Value = Decimal<MAX, SCALE>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a number from 0 to {MAX}")
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
                if !(0.0..=f64::from(MAX)).contains(&number) {
                    return Err(E::invalid_value(de::Unexpected::Float(number), &self));
                }
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to MAX * SCALE")]
                let parts = (number * f64::from(SCALE)).round() as u32;
                Ok(Decimal::from_parts(parts.max(u32::from(number > 0.0))))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                match u32::try_from(number) {
                    Ok(number) if number <= MAX => Ok(Decimal::from_parts(number * SCALE)),
                    _ => Err(E::invalid_value(de::Unexpected::Unsigned(number), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor::<MAX, SCALE>)
    }
}

impl<const MAX: u32, const SCALE: u32> JsonSchema for Decimal<MAX, SCALE> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Decimal{MAX}_{SCALE}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0, "maximum": MAX })
    }
}
