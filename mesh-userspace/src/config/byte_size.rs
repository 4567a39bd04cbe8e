//! How much memory: `32MiB`.

use super::text::{Complaint, text_value};
use std::fmt;

/// A number of bytes from 1 MiB to 64 GiB, written as a whole number with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// Each unit with its bytes, largest first.
const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

const MIN: u64 = 1 << 20;
const MAX: u64 = 64 << 30;

const EXPECTED: &str = "a size from 1MiB to 64GiB, such as 32MiB";

impl ByteSize {
    /// So many MiB, brought into range.
    #[must_use]
    pub const fn from_mib(mib: u32) -> Self {
        let bytes = (mib as u64) << 20;
        Self(if bytes < MIN {
            MIN
        } else if bytes > MAX {
            MAX
        } else {
            bytes
        })
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    pub(super) fn parse(text: &str) -> Result<Self, Complaint> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = UNITS.iter().find(|(name, _)| *name == unit);
        match (number.parse::<u64>(), unit) {
            (Ok(number), Some((_, bytes))) => match number.checked_mul(*bytes) {
                Some(bytes @ MIN..=MAX) => Ok(Self(bytes)),
                _ => Err(Complaint::new(EXPECTED)),
            },
            _ => Err(Complaint::new(EXPECTED).remedy("write a whole number and KiB, MiB or GiB")),
        }
    }
}

impl fmt::Display for ByteSize {
    /// The shortest text with the same meaning.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [.., smallest] = UNITS;
        let (unit, bytes) = UNITS.into_iter().find(|(_, bytes)| self.0.is_multiple_of(*bytes)).unwrap_or(smallest);
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

text_value!(ByteSize, EXPECTED, { "pattern": "^[0-9]+(KiB|MiB|GiB)$" });
