//! Lines of the log as they come, until Ctrl-C.

use super::{
    args::Format,
    execute::failed,
    output::{Style, complain, document, line, note, print},
    views,
};
use crate::api::{Client, LogLine, Logs, Received};
use std::{process::ExitCode, time::Duration};
use tokio::time::sleep;

/// A daemon that is away is asked so often whether it is back.
const BACK: Duration = Duration::from_secs(1);

/// Prints the lines that are wanted, those that are kept first: rows, or documents, JSON as one line each. A daemon that goes
/// away after it was heard of is waited for; no line is printed twice.
pub(super) async fn follow(client: &Client, wanted: &Logs, format: Format, style: Style) -> Result<(), ExitCode> {
    tokio::select! {
        result = again_and_again(client, wanted, Printer { format, style, printed: false }) => result,
        // Being interrupted is how this ends well.
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn again_and_again(client: &Client, wanted: &Logs, mut printer: Printer) -> Result<(), ExitCode> {
    let mut last = None;
    let (mut answered, mut away) = (false, false);
    loop {
        let error = match client.follow_logs(wanted, last).await {
            Ok(mut events) => {
                (answered, away) = (true, false);
                loop {
                    match events.next().await {
                        Ok(event) => {
                            last = event.id.or(last);
                            printer.print(&event)?;
                        }
                        Err(e) => break e,
                    }
                }
            }
            Err(e) => e,
        };
        if !answered || !error.is_unreachable() {
            return Err(failed(&error));
        }
        if !away {
            note(&format!("mesh: {error}; waiting for it"));
        }
        away = true;
        sleep(BACK).await;
    }
}

struct Printer {
    format: Format,
    style: Style,
    /// Whether anything was printed.
    printed: bool,
}

impl Printer {
    fn print(&mut self, event: &Received) -> Result<(), ExitCode> {
        if event.kind == "missed" {
            // Not among the lines: a program that reads them would stumble.
            let read = serde_json::from_str::<serde_json::Value>(&event.data).unwrap_or_default();
            let lines = read["lines"].as_u64().map_or_else(String::new, |lines| format!("{lines} "));
            note(&format!("mesh: {lines}lines were missed: they are not kept any more"));
            return Ok(());
        }
        let unprintable = |e: String| {
            complain(&format!("a line cannot be printed: {e}"));
            ExitCode::FAILURE
        };
        let read: LogLine = serde_json::from_str(&event.data).map_err(|e| unprintable(e.to_string()))?;
        let text = match self.format {
            Format::Table => Ok(views::log(&read, !self.printed, self.style)),
            Format::Json => line(&read),
            Format::Yaml if self.printed => document(&read, Format::Yaml).map(|text| format!("---\n{text}")),
            Format::Yaml => document(&read, Format::Yaml),
        };
        self.printed = true;
        print(&text.map_err(unprintable)?)
    }
}
