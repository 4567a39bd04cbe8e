//! How the story looks: headings, bars, and colour where there is a terminal.

use std::io::{IsTerminal, Write};

use super::cast::Service;
use super::tally::Tally;
use crate::interrupt;

const WIDTH: u64 = 30;

/// Escape sequences, or nothing at all.
#[derive(Clone, Copy)]
pub(super) struct Look {
    pub(super) terminal: bool,
    colour: bool,
}

impl Look {
    pub(super) fn detect() -> Look {
        let terminal = std::io::stdout().is_terminal();
        Look { terminal, colour: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(super) fn heading(self, text: &str) {
        print(&format!("\n{}\n", self.paint("1", text)));
    }

    pub(super) fn say(self, text: &str) {
        print(&format!("  {}\n", text.trim_end()));
    }

    /// A command as it would be typed, and what it printed.
    pub(super) fn command(self, typed: &str, printed: &str) {
        self.say(&self.paint("1;36", &format!("$ {typed}")));
        for line in printed.trim_end().lines() {
            self.say(line);
        }
    }

    /// Who answered how often, beside the share that the weights promise.
    pub(super) fn table(self, service: &Service, tally: &Tally) {
        let total = tally.total(service);
        let weights: u64 = service.backends.iter().map(|backend| backend.weight).sum();
        let what = match service.requests {
            true => {
                let (through, connections) = (tally.through(service), tally.connections(service));
                let over = match connections {
                    0 => "the connections they have".to_owned(),
                    n => format!("{n} new connections"),
                };
                format!("requests over {over}, {through} through the daemon")
            }
            false => "connections".to_owned(),
        };
        let dialled = service.vips.iter().map(|vip| format!("{} to {vip}", tally.dialled(*vip)));
        let dialled = dialled.collect::<Vec<_>>().join(", ");
        self.say(&format!("{}: {total} {what} ({dialled})", self.paint("1", service.name)));
        for backend in &service.backends {
            let count = tally.answers(service, backend);
            let bar = self.paint(backend.colour, &bar(count, total));
            let (share, due) = (percent(count, total), percent(backend.weight, weights));
            let (name, weight) = (backend.name, backend.weight);
            self.say(&format!("  {name:<6} weight {weight} ({due:>2} %) {count:>6} answers {share:>3} % {bar}"));
        }
        for (kind, count) in tally.failures(service) {
            let bar = self.paint("31;1", &"x".repeat(bar(count, total).chars().count()));
            self.say(&format!("  {:<22} {count:>6} failed  {:>3} % {bar}", kind, percent(count, total)));
        }
    }

    /// Overwrites itself on a terminal, where a line too long is cut: one that wraps could not be overwritten.
    pub(super) fn live(self, text: &str) {
        if self.terminal {
            print(&format!("\r\x1b[K\x1b[?7l  {text}\x1b[?7h"));
        } else {
            self.say(text);
        }
    }

    /// What follows does not overwrite the last live line.
    pub(super) fn end_live(self) {
        if self.terminal {
            print("\n");
        }
    }
}

/// Not `print!`, which panics where nobody reads any more. Nobody to tell the story to is a reason to end it in order.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        interrupt::ask();
    }
}

fn bar(count: u64, total: u64) -> String {
    let length = (count * WIDTH).checked_div(total).unwrap_or(0);
    "#".repeat(usize::try_from(length).unwrap_or(0))
}

/// Rounded to the nearest.
fn percent(count: u64, total: u64) -> u64 {
    (count * 200 + total).checked_div(total * 2).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_and_nothing_of_nothing_is_nothing() {
        assert_eq!((percent(1, 3), percent(2, 3), percent(1, 2), percent(0, 0)), (33, 67, 50, 0));
        assert_eq!((bar(1, 2).len(), bar(0, 5).len(), bar(3, 0).len()), (15, 0, 0));
    }
}
