//! A listing again and again, until Ctrl-C.

use super::{
    args::Format,
    execute::{Screen, failed},
    output::{harmless_lines, note, print},
};
use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    time::Duration,
};
use tokio::time::{MissedTickBehavior, interval};

const EVERY: Duration = Duration::from_secs(1);
/// Clears the screen.
const CLEAR: &str = "\x1b[2J\x1b[H";
/// To the upper left corner, and clears from there: flickers less than clearing first.
const HOME: &str = "\x1b[H\x1b[J";

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
    loop {
        ticks.tick().await;
        let shown = match screen.ask().await {
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
        print(&format!("{between}{text}"))?;
        answered = true;
        away = false;
    }
}
