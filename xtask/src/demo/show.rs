//! How the story looks: headings, bars, and colour where there is a terminal.

use std::io::{IsTerminal, Write};

use super::cast::Service;
use super::tally::Tally;

const WIDTH: u64 = 40;

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
        println!("\n{}", self.paint("1", text));
    }

    pub(super) fn say(self, text: &str) {
        println!("  {text}");
    }

    /// A command as it would be typed, and what it printed.
    pub(super) fn command(self, typed: &str, printed: &str) {
        println!("  {}", self.paint("1;36", &format!("$ {typed}")));
        for line in printed.trim_end().lines() {
            println!("  {line}");
        }
    }

    /// Who answered how often, beside the share that the weights promise.
    pub(super) fn table(self, service: &Service, tally: &Tally) {
        let total = tally.total(service.name);
        let weights: u64 = service.backends.iter().map(|backend| backend.weight).sum();
        println!("  {} at {}", self.paint("1", service.name), service.vips.map(|vip| vip.to_string()).join(" and "));
        for backend in &service.backends {
            let count = tally.answers(service.name, backend.name);
            let bar = self.paint(backend.colour, &bar(count, total));
            let (share, due) = (percent(count, total), percent(backend.weight, weights));
            println!(
                "    {:<6} weight {} ({due:>2} %) {count:>5} answers {share:>3} % {bar}",
                backend.name, backend.weight
            );
        }
        for (kind, count) in tally.failures(service.name) {
            let bar = self.paint("31;1", &"x".repeat(bar(count, total).chars().count()));
            println!("    failed: {kind:<16} {count:>5}         {:>3} % {bar}", percent(count, total));
        }
    }

    /// Overwrites itself on a terminal.
    pub(super) fn live(self, text: &str) {
        if self.terminal {
            print!("\r\x1b[K  {text}");
            // A live line that cannot be shown is not worth an end of the demo.
            let _ = std::io::stdout().flush();
        } else {
            println!("  {text}");
        }
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
        assert_eq!((bar(1, 2).len(), bar(0, 5).len(), bar(3, 0).len()), (20, 0, 0));
    }
}
