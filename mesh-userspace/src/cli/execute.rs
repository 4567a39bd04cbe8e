//! Does what a [`ClientCommand`] says.

use super::{
    args::{Arguments, Format},
    command::{Action, ClientCommand, Show},
    events,
    follow::follow,
    keep::keep,
    output::{Style, complain, document, line, note, print},
    rates::Rated,
    register::deregister,
    top, views, watch,
};
use crate::api::{
    Changed, Check, Circuit, Client, ClientError, Endpoint, Explanation, LogLevels, LogLine, Request, Service, Status,
    Time, Trace, TraceSummary,
};
use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::Value;
use std::process::ExitCode;

/// The daemon could not be spoken to.
const UNREACHABLE: u8 = 3;

/// Does it, and says how it ended.
#[must_use]
pub fn execute(command: ClientCommand) -> ExitCode {
    let ClientCommand { socket, color, action } = command;
    let result = match action {
        Action::Completions(shell) => print(&completions(shell)),
        Action::Show { request: Request::Services { name: Some(name) }, format: Format::Json, watch: true } => {
            block_on(events::events(&Client::new(socket), &name))
        }
        Action::Show { request, format, watch } => {
            let screen = Screen::new(Client::new(socket), request, format, Style::for_stdout(color));
            block_on(async { if watch { watch::watch(&screen).await } else { screen.show().await } })
        }
        Action::Follow { wanted, format } => {
            block_on(follow(&Client::new(socket), &wanted, format, Style::for_stdout(color)))
        }
        Action::Top(interval) => block_on(top::top(&Client::new(socket), interval, Style::for_stdout(color))),
        Action::Change(request) => block_on(change(&Client::new(socket), &request)),
        Action::Keep(registration) => block_on(keep(&Client::new(socket), registration)),
        Action::Deregister { service, address } => block_on(deregister(&Client::new(socket), service, address)),
    };
    result.err().unwrap_or(ExitCode::SUCCESS)
}

/// Prints what `mesh check` found; the exit code says whether the daemon can start.
#[must_use]
pub fn report(check: &Check, show: Show) -> ExitCode {
    let text = match show.format {
        Format::Table => Ok(views::check(check, Style::for_stdout(show.color))),
        format => document(check, format),
    };
    let printed = text.map_err(|e| unprintable(&e)).and_then(|text| print(&text));
    // A reader that has seen enough changes nothing about what was found.
    match printed {
        Ok(()) if check.ok => ExitCode::SUCCESS,
        Err(code) if check.ok => code,
        _ => ExitCode::FAILURE,
    }
}

pub(super) fn completions(shell: Shell) -> String {
    // Into memory first: the generator panics where its writer fails.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "mesh", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

fn block_on(work: impl Future<Output = Result<(), ExitCode>>) -> Result<(), ExitCode> {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(e) => {
            complain(&format!("cannot start: {e}"));
            Err(ExitCode::FAILURE)
        }
    }
}

/// Makes a change, and says what changed.
pub(super) async fn change(client: &Client, request: &Request) -> Result<(), ExitCode> {
    said(&client.change(request).await.map_err(|e| failed(&e))?)
}

/// Says what changed.
pub(super) fn said(changed: &Changed) -> Result<(), ExitCode> {
    print(&format!("{}\n", super::output::harmless_lines(&changed.message)))?;
    for warning in &changed.warnings {
        note(&format!("warning: {warning}"));
    }
    Ok(())
}

/// Complains, and gives the exit code.
pub(super) fn failed(e: &ClientError) -> ExitCode {
    complain(&e.to_string());
    if e.is_unreachable() { ExitCode::from(UNREACHABLE) } else { ExitCode::FAILURE }
}

/// A listing to be shown, once or again and again.
pub(super) struct Screen {
    client: Client,
    request: Request,
    format: Format,
    style: Style,
}

/// What the daemon said, and all that is needed to show it.
pub(super) enum Shown {
    Status(Box<Status>),
    Services(Vec<Service>),
    Service(Box<Service>, Vec<Endpoint>),
    Endpoints(Vec<Endpoint>),
    Connections(Vec<Rated>),
    Circuits(Vec<Circuit>),
    Logs(Vec<LogLine>),
    LogLevels(LogLevels),
    Explanation(Box<Explanation>),
    Traces(Vec<TraceSummary>),
    Trace(Box<Trace>),
    Config(Value),
}

impl Screen {
    pub(super) const fn new(client: Client, request: Request, format: Format, style: Style) -> Self {
        Self { client, request, format, style }
    }

    async fn show(&self) -> Result<(), ExitCode> {
        let shown = self.ask().await.map_err(|e| failed(&e))?;
        print(&self.text(&shown)?)?;
        if let Some(empty) = self.empty(&shown) {
            note(empty);
        }
        Ok(())
    }

    /// Asks the daemon.
    pub(super) async fn ask(&self) -> Result<Shown, ClientError> {
        let client = &self.client;
        Ok(match &self.request {
            Request::Services { name } => {
                let mut services = client.services(name.clone()).await?;
                match name {
                    // People see a service with its endpoints, which JSON has in a listing of their own.
                    Some(name) if self.format == Format::Table && services.len() == 1 => {
                        let endpoints = client.endpoints(Some(name.clone())).await?;
                        Shown::Service(Box::new(services.swap_remove(0)), endpoints)
                    }
                    _ => Shown::Services(services),
                }
            }
            Request::Endpoints { service } => Shown::Endpoints(client.endpoints(service.clone()).await?),
            Request::Connections(_) => {
                let connections = client.connections(&self.request).await?;
                Shown::Connections(connections.into_iter().map(Rated::from).collect())
            }
            Request::Circuits { service } => Shown::Circuits(client.circuits(service.clone()).await?),
            Request::Logs(_) => Shown::Logs(client.logs(&self.request).await?),
            Request::LogLevels => Shown::LogLevels(client.log_levels().await?),
            Request::Explain { .. } => Shown::Explanation(Box::new(client.explain(&self.request).await?)),
            Request::Traces(_) => Shown::Traces(client.traces(&self.request).await?),
            Request::Trace { id } => Shown::Trace(Box::new(client.trace(id.clone()).await?)),
            Request::ConfigDump => Shown::Config(client.config().await?),
            _ => Shown::Status(Box::new(client.status().await?)),
        })
    }

    /// The text to print.
    pub(super) fn text(&self, shown: &Shown) -> Result<String, ExitCode> {
        let style = self.style;
        let text = match (self.format, shown) {
            (Format::Table, Shown::Status(status)) => Ok(views::status(status, Time::now(), style)),
            (Format::Table, Shown::Services(services)) if services.is_empty() => Ok(String::new()),
            (Format::Table, Shown::Services(services)) => Ok(views::services(services, style)),
            (Format::Table, Shown::Endpoints(endpoints)) if endpoints.is_empty() => Ok(String::new()),
            (Format::Table, Shown::Endpoints(endpoints)) => Ok(views::endpoints(endpoints, style)),
            (Format::Table, Shown::Connections(connections)) if connections.is_empty() => Ok(String::new()),
            (Format::Table, Shown::Connections(connections)) => Ok(views::connections(connections, style)),
            (Format::Table, Shown::Circuits(circuits)) if circuits.is_empty() => Ok(String::new()),
            (Format::Table, Shown::Circuits(circuits)) => Ok(views::circuits(circuits, Time::now(), style)),
            (Format::Table, Shown::Logs(lines)) if lines.is_empty() => Ok(String::new()),
            (Format::Table, Shown::Logs(lines)) => Ok(views::logs(lines, style)),
            (Format::Table, Shown::LogLevels(levels)) => Ok(views::log_levels(levels, style)),
            (Format::Table, Shown::Explanation(explanation)) => Ok(views::explanation(explanation, style)),
            (Format::Table, Shown::Traces(traces)) if traces.is_empty() => Ok(String::new()),
            (Format::Table, Shown::Traces(traces)) => Ok(views::traces(traces, style)),
            (Format::Table, Shown::Trace(trace)) => Ok(views::trace(trace, columns(), style)),
            (_, Shown::Service(service, endpoints)) => Ok(views::service(service, endpoints, style)),
            (format, Shown::Config(config)) => document(config, format),
            (format, Shown::Status(status)) => document(status, format),
            (format, Shown::Services(services)) => document(services, format),
            (format, Shown::Endpoints(endpoints)) => document(endpoints, format),
            (format, Shown::Connections(connections)) => document(connections, format),
            (format, Shown::Circuits(circuits)) => document(circuits, format),
            (format, Shown::Logs(lines)) => document(lines, format),
            (format, Shown::LogLevels(levels)) => document(levels, format),
            (format, Shown::Explanation(explanation)) => document(explanation, format),
            (format, Shown::Traces(traces)) => document(traces, format),
            (format, Shown::Trace(trace)) => document(trace, format),
        };
        text.map_err(|e| unprintable(&e))
    }

    /// The text to print where every answer is one line.
    pub(super) fn line(&self, shown: &Shown) -> Result<String, ExitCode> {
        match shown {
            Shown::Status(status) => line(status),
            Shown::Services(services) => line(services),
            Shown::Service(service, _) => line(&[service]),
            Shown::Endpoints(endpoints) => line(endpoints),
            Shown::Connections(connections) => line(connections),
            Shown::Circuits(circuits) => line(circuits),
            Shown::Logs(lines) => line(lines),
            Shown::LogLevels(levels) => line(levels),
            Shown::Explanation(explanation) => line(explanation),
            Shown::Traces(traces) => line(traces),
            Shown::Trace(trace) => line(trace),
            Shown::Config(config) => line(config),
        }
        .map_err(|e| unprintable(&e))
    }

    /// What to say in words where a table would be empty. It goes to standard error: who counts lines counts none.
    pub(super) fn empty(&self, shown: &Shown) -> Option<&'static str> {
        match shown {
            _ if self.format != Format::Table => None,
            Shown::Services(services) if services.is_empty() => Some("no services"),
            Shown::Endpoints(endpoints) if endpoints.is_empty() => Some("no endpoints"),
            Shown::Connections(connections) if connections.is_empty() => Some("no connections"),
            Shown::Logs(lines) if lines.is_empty() => Some("no lines"),
            Shown::Circuits(circuits) if circuits.is_empty() => Some("no endpoints, hence no circuits"),
            Shown::Traces(traces) if traces.is_empty() => Some("no traces"),
            _ => None,
        }
    }

    /// How it is printed.
    pub(super) const fn format(&self) -> Format {
        self.format
    }
}

/// How wide the terminal is.
fn columns() -> usize {
    /// Of one that does not say, and of what is none.
    const USUAL: usize = 80;
    terminal_size::terminal_size().map_or(USUAL, |(width, _)| usize::from(width.0))
}

fn unprintable(e: &str) -> ExitCode {
    complain(&format!("the answer cannot be printed: {e}"));
    ExitCode::FAILURE
}
