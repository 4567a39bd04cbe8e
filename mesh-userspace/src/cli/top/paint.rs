//! How things look on the screen, with colours or without.

use crate::cli::output::{Look, Style};
use ratatui::style::{Color, Modifier, Style as Paint};

/// The paint for a look. Without colours, what is wrong is told by bold and reversed letters.
pub(super) fn paint(look: Look, style: Style) -> Paint {
    let plain = Paint::new();
    let colored = |color| if style.color { plain.fg(color) } else { plain };
    match look {
        Look::Plain => plain,
        Look::Good => colored(Color::Green),
        Look::Warn => colored(Color::Yellow).add_modifier(Modifier::BOLD),
        Look::Bad => colored(Color::Red).add_modifier(Modifier::BOLD | Modifier::REVERSED),
        Look::Faint => plain.add_modifier(Modifier::DIM),
        Look::Bold => plain.add_modifier(Modifier::BOLD),
    }
}

/// The selected row, and what else is pointed at.
pub(super) const fn reversed() -> Paint {
    Paint::new().add_modifier(Modifier::REVERSED)
}
