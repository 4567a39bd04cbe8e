//! Where answers are printed, and how.

use super::args::{Color, Format};
use crate::text::is_harmless;
use serde::Serialize;
use std::{
    env,
    io::{self, ErrorKind, IsTerminal, Write},
    process::ExitCode,
};

/// How a text may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// As it is.
    Plain,
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Wrong.
    Bad,
    /// Of little interest.
    Faint,
    /// A heading.
    Bold,
}

impl Look {
    const fn codes(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "\x1b[32m",
            Self::Warn => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Faint => "\x1b[2m",
            Self::Bold => "\x1b[1m",
        }
    }
}

/// Whether a text for people is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    /// Whether it is.
    pub(super) color: bool,
}

impl Style {
    /// As `choice` and the environment want it for standard output.
    pub(super) fn for_stdout(choice: Color) -> Self {
        let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            color: match choice {
                Color::Always => true,
                Color::Never => false,
                Color::Auto => !no_color && !dumb && io::stdout().is_terminal(),
            },
        }
    }

    /// `text` with this look.
    pub(super) fn paint(self, look: Look, text: &str) -> String {
        if !self.color || look == Look::Plain || text.is_empty() {
            return text.to_owned();
        }
        format!("{}{text}\x1b[0m", look.codes())
    }
}

/// `text` from outside, fit for a terminal: whatever could move its cursor, change its colours, turn the direction of
/// writing or hide is shown as a code. That is every character that takes no column of its own, combining ones too.
pub(super) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if !is_harmless(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// JSON that does nothing to a terminal: what is not [`harmless`] there can only be part of a text, and is written as one of
/// its escapes, which `astral` ones are beyond the first plane. Whoever reads it as JSON reads the same.
fn harmless_json(json: String, astral: fn(char) -> String) -> String {
    if is_harmless_document(&json) {
        return json;
    }
    let mut shown = String::with_capacity(json.len());
    for character in json.chars() {
        match u32::from(character) {
            _ if character == '\n' || is_harmless(character) => shown.push(character),
            code @ ..=0xffff => shown.push_str(&format!("\\u{code:04x}")),
            _ => shown.push_str(&astral(character)),
        }
    }
    shown
}

fn is_harmless_document(text: &str) -> bool {
    text.chars().all(|character| character == '\n' || is_harmless(character))
}

/// As JSON has it, in two halves.
fn surrogates(character: char) -> String {
    character.encode_utf16(&mut [0; 2]).iter().map(|half| format!("\\u{half:04x}")).collect()
}

/// As YAML has it.
fn whole(character: char) -> String {
    format!("\\U{:08x}", u32::from(character))
}

/// [`harmless`], and no longer than so many characters.
pub(super) fn cut(text: &str, most: usize) -> String {
    // What is shown may be longer than what there is, and never shorter.
    let start: String = text.chars().take(most + 1).collect();
    let shown = harmless(&start);
    match shown.char_indices().nth(most) {
        None => shown,
        Some(_) => shown.chars().take(most.saturating_sub(1)).chain(['…']).take(most).collect(),
    }
}

/// Text from outside, fit for a terminal; line breaks stay.
#[must_use]
pub fn harmless_lines(text: &str) -> String {
    text.lines().map(harmless).collect::<Vec<_>>().join("\n")
}

/// `value` as JSON or YAML, ending in a line break; a table is made elsewhere.
pub(super) fn document<T: Serialize>(value: &T, format: Format) -> Result<String, String> {
    match format {
        Format::Json => {
            let json = serde_json::to_string_pretty(value).map_err(|e| e.to_string())?;
            Ok(harmless_json(json, surrogates) + "\n")
        }
        Format::Yaml | Format::Table => yaml(value),
    }
}

/// `value` as JSON on one line.
pub(super) fn line<T: Serialize>(value: &T) -> Result<String, String> {
    let json = serde_json::to_string(value).map_err(|e| e.to_string())?;
    Ok(harmless_json(json, surrogates) + "\n")
}

fn yaml<T: Serialize>(value: &T) -> Result<String, String> {
    // Long lines are not folded: the text is to be searched and compared.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let mut text = serde_saphyr::to_string_with_options(value, options).map_err(|e| e.to_string())?;
    if !is_harmless_document(&text) {
        // Not every way to write a text has escapes. That of JSON does, and is YAML too.
        let json = serde_json::to_string_pretty(value).map_err(|e| e.to_string())?;
        text = harmless_json(json, whole);
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Prints `text` on standard output.
///
/// A reader that has seen enough (`mesh services | head -1`) is no failure, but there is nothing more to do.
pub(super) fn print(text: &str) -> Result<(), ExitCode> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Err(ExitCode::SUCCESS),
        Err(e) => {
            complain(&format!("standard output: {e}"));
            Err(ExitCode::FAILURE)
        }
    }
}

/// Says on standard error what went wrong.
pub(super) fn complain(message: &str) {
    // Where even that fails, the exit code still tells.
    let _ = writeln!(io::stderr(), "mesh: {}", harmless_lines(message));
}

/// Says on standard error what is worth knowing.
pub(super) fn note(message: &str) {
    let _ = writeln!(io::stderr(), "{}", harmless_lines(message));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_no_column_is_shown_as_a_code() {
        for (text, shown) in [
            ("plain ünïcode 日本", "plain ünïcode 日本"),
            ("\x1b[2J\r\n", "\\u{1b}[2J\\u{d}\\u{a}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("abc\u{202e}cba", "abc\\u{202e}cba"),
            ("e\u{301}", "e\\u{301}"),
            ("pay\u{200b}ments", "pay\\u{200b}ments"),
            ("a\u{2028}b", "a\\u{2028}b"),
        ] {
            assert_eq!(harmless(text), shown);
        }
    }

    #[test]
    fn documents_do_nothing_to_a_terminal_and_say_the_same() {
        let hostile = "\x1b[2J\u{9b}31m\u{7f}\u{202e}\u{200b}\u{e0041}é日本\u{1f600}\r\n";
        let value = serde_json::json!({ hostile: [hostile] });
        for text in [line(&value).unwrap(), document(&value, Format::Json).unwrap()] {
            assert!(text.chars().all(|c| c == '\n' || is_harmless(c)), "{text:?}");
            assert!(text.contains("é日本\u{1f600}"), "{text}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        }
        let text = document(&value, Format::Yaml).unwrap();
        assert!(text.chars().all(|c| c == '\n' || is_harmless(c)), "{text:?}");
        assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
