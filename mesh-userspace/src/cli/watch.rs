//! A listing again and again, until Ctrl-C.

use super::{
    args::Format,
    execute::{Screen, Shown, failed},
    output::{harmless_lines, note, print},
    rates::Before,
};
use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    time::{Duration, Instant},
};
use tokio::time::{MissedTickBehavior, interval};
use unicode_width::UnicodeWidthChar;

const EVERY: Duration = Duration::from_secs(1);
/// Clears the screen.
const CLEAR: &str = "\x1b[2J\x1b[H";
/// To the upper left corner, and clears from there: flickers less than clearing first.
const HOME: &str = "\x1b[H\x1b[J";

/// Lines are not wrapped at the right edge, and wrapped again afterwards: a frame has as many rows as lines, also where the
/// width is not known.
const CUT: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";
/// Rows of a terminal that does not say how many it has.
const ROWS: usize = 24;

/// Shows `screen` every second: on a terminal in place; elsewhere one after the other, JSON as one line each.
///
/// A daemon that goes away after the first answer is waited for: it is watched most when it is restarted.
pub(super) async fn watch(screen: &Screen) -> Result<(), ExitCode> {
    tokio::select! {
        result = again_and_again(screen, io::stdout().is_terminal() && screen.format() == Format::Table) => result,
        // Being interrupted is how this ends well.
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn again_and_again(screen: &Screen, in_place: bool) -> Result<(), ExitCode> {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut answered = false;
    let mut away = false;
    let mut before = Before::default();
    loop {
        ticks.tick().await;
        let mut shown = match screen.ask().await {
            Ok(shown) => shown,
            Err(e) if answered && e.is_unreachable() => {
                if in_place {
                    print(&format!("{HOME}{}\n", harmless_lines(&e.to_string())))?;
                } else if !away {
                    note(&format!("mesh: {e}; waiting for it"));
                }
                away = true;
                continue;
            }
            Err(e) => return Err(failed(&e)),
        };
        if let Shown::Connections(connections) = &mut shown {
            before.rate(connections, Instant::now());
        }
        let between = match screen.format() {
            Format::Table if in_place && answered => HOME,
            Format::Table if in_place => CLEAR,
            Format::Table if answered => "\n",
            Format::Yaml if answered => "---\n",
            _ => "",
        };
        let mut text = match screen.format() {
            Format::Json => screen.line(&shown)?,
            Format::Table | Format::Yaml => screen.text(&shown)?,
        };
        if let Some(empty) = screen.empty(&shown) {
            text = format!("{empty}\n");
        }
        print(&if in_place { format!("{between}{}", frame(&text, size())) } else { format!("{between}{text}") })?;
        answered = true;
        away = false;
    }
}

/// Columns and rows of the terminal.
fn size() -> (usize, usize) {
    terminal_size::terminal_size().map_or((usize::MAX, ROWS), |(w, h)| (usize::from(w.0), usize::from(h.0)))
}

/// As much of `text` as fits on a terminal of so many columns and rows, its end first to go.
fn frame(text: &str, (columns, rows): (usize, usize)) -> String {
    let lines: Vec<&str> = text.lines().collect();
    // The cursor rests on the last row.
    let room = rows.saturating_sub(1).max(2);
    let mut shown: Vec<String> = lines.iter().take(room).map(|line| cut(line, columns)).collect();
    if lines.len() > room {
        shown.pop();
        shown.push(format!("… {} more lines", lines.len() - room + 1));
    }
    format!("{CUT}{}{WRAP}\n", shown.join("\n"))
}

/// As much of a line as fits into so many columns. Left to the terminal, what is too long would end up in its last column,
/// one character over the other, which could be a digit. Styles take no room, and end where they would.
fn cut(line: &str, columns: usize) -> String {
    let (mut kept, mut taken, mut in_style) = (String::with_capacity(line.len()), 0, false);
    for character in line.chars() {
        if in_style || character == '\x1b' {
            in_style = character != 'm';
            kept.push(character);
            continue;
        }
        taken += character.width().unwrap_or_default();
        if taken <= columns {
            kept.push(character);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_the_terminal_and_says_what_is_missing() {
        assert_eq!(frame("a\nb\nc\n", (80, 4)), "\x1b[?7la\nb\nc\x1b[?7h\n");
        assert_eq!(frame("a\nb\nc\nd\n", (80, 4)), "\x1b[?7la\nb\n… 2 more lines\x1b[?7h\n");
        assert_eq!(frame("a\nb\nc\n", (80, 0)), "\x1b[?7la\n… 2 more lines\x1b[?7h\n");
    }

    #[test]
    fn a_line_is_cut_at_the_edge_and_shows_nothing_of_what_is_beyond() {
        assert_eq!(frame("abc 123\nab\n", (5, 9)), "\x1b[?7labc 1\nab\x1b[?7h\n");
        assert_eq!(cut("\x1b[31mred\x1b[0m plain", 2), "\x1b[31mre\x1b[0m");
        assert_eq!(cut("a漢字b", 4), "a漢", "no half of a wide one, and nothing after it");
        assert_eq!(cut("a漢字b", 5), "a漢字");
    }
}
