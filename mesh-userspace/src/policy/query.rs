//! What does the query of a request say?

/// Whether `query` has the parameter `name` with this value. Of a parameter that stands several times each counts. Names
/// and values are compared as they are meant: `%20` and `+` are a space.
#[must_use]
pub fn has(query: &str, name: &str, value: &str) -> bool {
    query.split('&').any(|pair| {
        let (found, text) = pair.split_once('=').unwrap_or((pair, ""));
        decoded(found).eq(name.bytes()) && decoded(text).eq(value.bytes())
    })
}

/// The bytes that a part of a query means. A `%` without two digits is itself.
fn decoded(text: &str) -> impl Iterator<Item = u8> {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let (byte, after) = match rest {
            [b'%', high, low, after @ ..] => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => (b'%', &rest[1..]),
            },
            [b'+', after @ ..] => (b' ', after),
            [byte, after @ ..] => (*byte, after),
            [] => return None,
        };
        rest = after;
        Some(byte)
    })
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_compared_as_it_is_meant() {
        for (query, name, value, expected) in [
            ("a=1", "a", "1", true),
            ("b=2&a=1", "a", "1", true),
            ("a=2&a=1", "a", "1", true),
            ("a=1", "a", "", false),
            ("a", "a", "", true),
            ("a=", "a", "", true),
            ("aa=1", "a", "1", false),
            ("a=1%202", "a", "1 2", true),
            ("a=1+2", "a", "1 2", true),
            ("a=1%2B2", "a", "1+2", true),
            ("%61=%C3%a9", "a", "é", true),
            ("a=%", "a", "%", true),
            ("a=%2", "a", "%2", true),
            ("a=%zz", "a", "%zz", true),
            ("a=1=2", "a", "1=2", true),
            ("a=1%262", "a", "1&2", true),
            ("A=1", "a", "1", false),
            ("", "a", "", false),
        ] {
            assert_eq!(has(query, name, value), expected, "{query:?} {name:?} {value:?}");
        }
    }
}
