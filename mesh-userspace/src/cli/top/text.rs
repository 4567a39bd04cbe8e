//! Text that fits.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns that a text takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// `text` in at most so many columns, its end left out if need be.
pub(super) fn cut_end(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut cut = within(text.chars(), columns.saturating_sub(1));
    cut.extend((columns > 0).then_some('…'));
    cut
}

/// `text` in at most so many columns, its beginning left out if need be: of a path the end says more.
pub(super) fn cut_start(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let end = within(text.chars().rev(), columns.saturating_sub(1));
    (columns > 0).then_some('…').into_iter().chain(end.chars().rev()).collect()
}

/// The first characters, in at most so many columns.
fn within(characters: impl Iterator<Item = char>, columns: usize) -> String {
    let mut taken = 0;
    let fits = characters.take_while(|character| {
        taken += character.width().unwrap_or_default();
        taken <= columns
    });
    fits.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_where_it_says_less() {
        assert_eq!(cut_end("checkout", 8), "checkout");
        assert_eq!(cut_end("checkout", 5), "chec…");
        assert_eq!(cut_start("/system.slice/nginx.service", 14), "…nginx.service");
        assert_eq!(
            (cut_end("ab", 1), cut_end("ab", 0), cut_start("ab", 0)),
            ("…".into(), String::new(), String::new())
        );
    }

    #[test]
    fn a_wide_character_is_not_halved() {
        assert_eq!(cut_end("日本語", 4), "日…");
        assert_eq!(cut_end("日本語", 5), "日本…");
        assert_eq!(cut_start("日本語", 4), "…語");
    }
}
