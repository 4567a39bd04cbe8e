//! Where answers are printed, and how.

use super::args::{Color, Format};
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

/// `text` from outside, fit for a terminal: whatever could move its cursor or change its colours is shown as a code.
pub(super) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// [`harmless`], but line breaks stay.
pub(super) fn harmless_lines(text: &str) -> String {
    text.lines().map(harmless).collect::<Vec<_>>().join("\n")
}

/// `value` as JSON or YAML, ending in a line break; a table is made elsewhere.
pub(super) fn document<T: Serialize>(value: &T, format: Format) -> Result<String, String> {
    match format {
        Format::Json => serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(|e| e.to_string()),
        Format::Yaml | Format::Table => yaml(value),
    }
}

/// `value` as JSON on one line.
pub(super) fn line<T: Serialize>(value: &T) -> Result<String, String> {
    serde_json::to_string(value).map(|text| text + "\n").map_err(|e| e.to_string())
}

fn yaml<T: Serialize>(value: &T) -> Result<String, String> {
    // Long lines are not folded: the text is to be searched and compared.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let mut text = serde_saphyr::to_string_with_options(value, options).map_err(|e| e.to_string())?;
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
