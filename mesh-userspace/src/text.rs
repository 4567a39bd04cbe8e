//! Text from outside, wherever it is shown: what of it may a terminal get?
//!
//! What becomes of the rest depends on the place: a code, a percent-encoding, an escape of JSON.

use unicode_width::UnicodeWidthChar;

/// Whether a character can do nothing to a terminal but take its columns: none that moves the cursor, changes colours,
/// turns the direction of writing, combines with the one before, or hides.
#[must_use]
pub fn is_harmless(character: char) -> bool {
    match character {
        ' '..='~' => true,
        // Separators of lines and paragraphs count as a column.
        '\u{2028}' | '\u{2029}' => false,
        _ => character.width().is_some_and(|width| width > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_a_column_and_no_more_is_harmless() {
        assert!("plain ünïcode 日本\u{1f600}".chars().all(is_harmless));
        for character in "\x1b\r\n\t\u{7f}\u{9b}\u{301}\u{200b}\u{202e}\u{2028}\u{2029}\u{e0041}".chars() {
            assert!(!is_harmless(character), "{character:?}");
        }
    }
}
