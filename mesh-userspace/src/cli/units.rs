//! Numbers as people read them.

use std::time::Duration;

/// `1,234,567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `512 B`, `1.5 KiB`, `20 MiB`: three digits, more are noise at a glance.
pub(super) fn bytes(number: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let mut unit = 0;
    let mut value = approximate(number) / 1024.0;
    // 1023.5 would be printed as 1024.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", three_digits(value), UNITS[unit])
}

/// `512 B/s`, `1.5 KiB/s`.
pub(super) fn rate(bytes_per_second: f64) -> String {
    format!("{}/s", amount(bytes_per_second))
}

/// Bytes that need not be a whole number: `512 B`, `1.5 KiB`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "three digits of it are shown")]
pub(super) fn amount(number: f64) -> String {
    // The cast saturates: what is no number of bytes is none.
    bytes(number.round() as u64)
}

/// `0.25`, `12`, `1.5k`, `20M`: a number in a few columns.
pub(super) fn short(number: f64) -> String {
    const UNITS: [&str; 5] = ["", "k", "M", "G", "T"];
    let (mut unit, mut value) = (0, number);
    // 999.5 would be printed as 1000.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{}{}", three_digits(value), UNITS[unit])
}

/// `0.25 ms`, `12.5 ms`, `1.2 s`.
pub(super) fn milliseconds(value: f64) -> String {
    if value >= 999.5 { format!("{} s", three_digits(value / 1000.0)) } else { format!("{} ms", three_digits(value)) }
}

/// `850 ns`, `1.25 µs`.
pub(super) fn nanoseconds(value: u64) -> String {
    match value {
        0..1_000 => format!("{value} ns"),
        1_000..999_500 => format!("{} µs", three_digits(approximate(value) / 1e3)),
        _ => milliseconds(approximate(value) / 1e6),
    }
}

/// `5s`, `3m 20s`, `4h 7m`, `12d 3h`: the two largest units.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{}d {hours}h", count(days)),
    }
}

/// A part of 1 as `33.3 %`; what is little is not nothing.
pub(super) fn percent(share: f64) -> String {
    if share > 0.0 && share < 0.000_05 {
        return "<0.01 %".to_owned();
    }
    format!("{} %", three_digits(share * 100.0))
}

/// Three digits that count, without zeros at the end: `0.25`, `1.5`, `12.3`, `123`.
fn three_digits(value: f64) -> String {
    let places = match value.abs() {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[expect(clippy::cast_precision_loss, reason = "three digits of it are shown")]
pub(super) fn approximate(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_in_thousands() {
        let cases = [(0, "0"), (999, "999"), (1_000, "1,000"), (123_456, "123,456"), (1_234_567, "1,234,567")];
        for (number, text) in cases {
            assert_eq!(count(number), text);
        }
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn bytes_have_three_digits_and_a_unit() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (10_000, "9.77 KiB"),
            (1024 * 1024 - 1, "1 MiB"),
            (20 << 20, "20 MiB"),
            (1234 << 20, "1.21 GiB"),
            (u64::MAX, "16 EiB"),
        ];
        for (number, text) in cases {
            assert_eq!(bytes(number), text, "{number}");
        }
    }

    #[test]
    fn rates_are_bytes_a_second() {
        assert_eq!((rate(0.4), rate(1536.2), rate(-1.0)), ("0 B/s".into(), "1.5 KiB/s".into(), "0 B/s".into()));
    }

    #[test]
    fn short_numbers_take_few_columns() {
        let cases = [
            (0.0, "0"),
            (0.25, "0.25"),
            (12.34, "12.3"),
            (999.4, "999"),
            (999.6, "1k"),
            (1_234.0, "1.23k"),
            (5e7, "50M"),
        ];
        for (number, text) in cases {
            assert_eq!(short(number), text, "{number}");
        }
    }

    #[test]
    fn short_times_take_the_unit_that_fits() {
        assert_eq!(milliseconds(0.0), "0 ms");
        assert_eq!(milliseconds(0.254), "0.25 ms");
        assert_eq!(milliseconds(12.34), "12.3 ms");
        assert_eq!(milliseconds(999.4), "999 ms");
        assert_eq!(milliseconds(999.6), "1 s");
        assert_eq!(milliseconds(1500.0), "1.5 s");
        assert_eq!(nanoseconds(850), "850 ns");
        assert_eq!(nanoseconds(1250), "1.25 µs");
        assert_eq!(nanoseconds(2_500_000), "2.5 ms");
    }

    #[test]
    fn durations_show_their_two_largest_units() {
        let cases = [
            (0, "0s"),
            (59, "59s"),
            (60, "1m 0s"),
            (3_600 * 4 + 60 * 7 + 3, "4h 7m"),
            (86_400 * 12 + 3_600 * 3 + 59, "12d 3h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn shares_are_percent() {
        assert_eq!(percent(1.0), "100 %");
        assert_eq!(percent(1.0 / 3.0), "33.3 %");
        assert_eq!(percent(0.0005), "0.05 %");
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(0.000_01), "<0.01 %");
    }
}
