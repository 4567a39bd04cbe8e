//! How long: `250ms`, `5s`, `1m30s`.

use super::text::{Complaint, text_value};
use std::fmt;

/// A length of time in whole milliseconds, written as numbers with units: `h`, `m`, `s` and `ms`, largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(std::time::Duration);

/// Each unit with its milliseconds, in the order in which they are written.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The longest duration in milliseconds: 30 days. Nothing a daemon waits for is longer; more is a mistyped unit.
const LONGEST: u64 = 30 * 24 * 3_600_000;

const EXPECTED: &str = "a duration such as 250ms, 5s or 1m30s";

impl Duration {
    /// `milliseconds`, cut to the longest duration that can be written (30 days).
    #[must_use]
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(std::time::Duration::from_millis(if milliseconds < LONGEST { milliseconds } else { LONGEST }))
    }

    /// The same as a standard duration.
    #[must_use]
    pub const fn get(self) -> std::time::Duration {
        self.0
    }

    /// Whether it is no time at all, which is how a feature is switched off.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    pub(super) fn parse(text: &str) -> Result<Self, Complaint> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Complaint::new(EXPECTED).remedy("add the unit: ms, s, m or h"));
        }
        let malformed = || {
            let complaint = Complaint::new(EXPECTED);
            if text.contains('.') { complaint.remedy("use whole numbers: 1500ms, not 1.5s") } else { complaint }
        };
        let (mut rest, mut total, mut units) = (text, 0_u64, UNITS.iter());
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let letters = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
            let (number, unit) = (&rest[..digits], &rest[digits..digits + letters]);
            // Each unit once and largest first: the iterator goes on where the last unit was found.
            let (_, milliseconds) = units.find(|(name, _)| *name == unit).ok_or_else(malformed)?;
            let number = match number.parse::<u64>() {
                Ok(number) => number,
                Err(_) if digits == 0 => return Err(malformed()),
                Err(_) => u64::MAX,
            };
            total = total.saturating_add(number.saturating_mul(*milliseconds));
            rest = &rest[digits + letters..];
        }
        if text.is_empty() {
            return Err(malformed());
        }
        if total > LONGEST {
            return Err(Complaint::new("a duration of at most 720h (30 days)"));
        }
        Ok(Self::from_millis(total))
    }
}

/// Whole milliseconds of it, at most 30 days.
impl From<std::time::Duration> for Duration {
    fn from(duration: std::time::Duration) -> Self {
        Self::from_millis(u64::try_from(duration.as_millis()).unwrap_or(LONGEST))
    }
}

impl fmt::Display for Duration {
    /// The shortest text with the same meaning: `1m30s`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(LONGEST);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, milliseconds) in UNITS {
            if rest >= milliseconds {
                write!(f, "{}{unit}", rest / milliseconds)?;
                rest %= milliseconds;
            }
        }
        Ok(())
    }
}

text_value!(Duration, EXPECTED, { "minLength": 2, "pattern": "^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$" });
