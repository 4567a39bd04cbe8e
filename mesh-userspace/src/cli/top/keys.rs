//! What can be pressed.

/// A key, or a combination of some that means something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A character, as it was typed.
    Char(char),
    /// Enter.
    Enter,
    /// Escape.
    Escape,
    /// Backspace.
    Backspace,
    /// Ctrl-U: away with all that was typed.
    Erase,
    /// Tab.
    Tab,
    /// Shift and Tab.
    BackTab,
    /// Arrow up.
    Up,
    /// Arrow down.
    Down,
    /// Arrow to the left.
    Left,
    /// Arrow to the right.
    Right,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// Home.
    Home,
    /// End.
    End,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-L: draw everything anew.
    Redraw,
    /// Ctrl-Z: back to the shell for a while.
    Suspend,
}

/// What each key does, as the help shows it.
pub(super) const HELP: [(&str, &str); 15] = [
    ("1 2 3, Tab", "services, endpoints, connections"),
    ("Enter", "the endpoints of a service, the connections of an endpoint"),
    ("Esc", "back; first takes a filter away"),
    ("↑ ↓ k j", "select a row; it stays selected wherever it moves"),
    ("PgUp PgDn", "a page up, down"),
    ("Home End g G", "the first row, the last; the first is whatever comes first"),
    ("/", "show only rows with these words; Enter keeps them"),
    ("< > ← →", "sort by another column"),
    ("r", "sort the other way round"),
    ("Space p", "pause; nothing is asked meanwhile"),
    ("+ -", "look less often, more often"),
    ("Ctrl-L", "draw everything anew"),
    ("Ctrl-Z", "suspend"),
    ("?", "this"),
    ("q Ctrl-C", "quit"),
];

/// The most important ones, for the last line; where there is no room for all, the last go first.
pub(super) const SHORT: [&str; 9] =
    ["? help", "q quit", "/ filter", "< > sort", "r reverse", "Enter open", "Esc back", "Space pause", "+ - interval"];
