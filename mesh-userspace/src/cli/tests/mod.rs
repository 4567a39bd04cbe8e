//! From the words typed to the text printed.

mod documents;
mod tables;
mod usage;
mod words;

use super::{
    args::Format,
    command::{Action, Command, parse_with},
    output::Style,
};
use crate::api::Request;

const PLAIN: Style = Style { color: false };

fn parse(line: &str) -> Result<Command, clap::Error> {
    parse_with(line.split(' '), |_| None)
}

/// What is refused as wrong usage, and how.
fn usage(line: &str) -> String {
    let error = parse(line).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{line}");
    error.to_string()
}

fn action(line: &str) -> Action {
    match parse(line).unwrap_or_else(|e| panic!("{line}: {e}")) {
        Command::Client(client) => client.action,
        other => panic!("{line}: {other:?}"),
    }
}

fn change(line: &str) -> Request {
    match action(line) {
        Action::Change(request) => request,
        other => panic!("{line}: {other:?}"),
    }
}

fn show(line: &str) -> (Request, Format, bool) {
    match action(line) {
        Action::Show { request, format, watch } => (request, format, watch),
        other => panic!("{line}: {other:?}"),
    }
}
