//! From what was typed to what is to be done.

use super::args::{
    AnyVerb, Arguments, BypassVerb, CircuitName, CircuitVerb, Color, ConfigVerb, EndpointVerb, Format, LbVerb, Options,
    Target, Verb,
};
use crate::api::{Connections, Request};
use clap::Parser;
use clap_complete::Shell;
use std::{
    env,
    ffi::{OsStr, OsString},
    path::PathBuf,
    process::ExitCode,
};

const DEFAULT_SOCKET: &str = "/run/mesh/admin.sock";

/// Everything that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the daemon.
    Run {
        /// The configuration that was named; `None`: the one at the default path, if there is one.
        config: Option<PathBuf>,
        /// Take over from the daemon that runs, if one does.
        takeover: bool,
    },
    /// Say whether the daemon can start, and work.
    Check {
        /// The configuration that was named; `None`: the one at the default path, if there is one.
        config: Option<PathBuf>,
        /// How to print what was found.
        show: Show,
    },
    /// Check a configuration.
    ConfigValidate {
        /// The file.
        file: PathBuf,
    },
    /// Print the JSON Schema of the configuration.
    ConfigSchema,
    /// Remove everything from the kernel.
    Unload {
        /// The configuration that was named; `None`: the one at the default path, if there is one.
        config: Option<PathBuf>,
        /// Even while a daemon runs.
        force: bool,
    },
    /// Something that [`execute`](super::execute()) does.
    Client(ClientCommand),
}

/// How something is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Show {
    pub(super) format: Format,
    pub(super) color: Color,
}

/// A command that talks to a daemon, or to nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCommand {
    pub(super) socket: PathBuf,
    pub(super) color: Color,
    pub(super) action: Action,
}

/// What a [`ClientCommand`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Ask, and print the answer.
    Show { request: Request, format: Format, watch: bool },
    /// Change, and say what changed.
    Change(Request),
    /// Print a completion script.
    Completions(Shell),
    /// In the contract and not built yet.
    Later(&'static str),
}

/// The command in `arguments` (the program's name first).
///
/// # Errors
/// The exit code, where there is nothing more to do: help and version have been printed (0), or what is wrong with the
/// usage (2).
pub fn parse<T>(arguments: impl IntoIterator<Item = T>) -> Result<Command, ExitCode>
where
    T: Into<OsString> + Clone,
{
    parse_with(arguments, |name| env::var_os(name)).map_err(|e| {
        // A reader that has gone has no use for it.
        let _ = e.print();
        ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2))
    })
}

pub(super) fn parse_with<T>(
    arguments: impl IntoIterator<Item = T>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, clap::Error>
where
    T: Into<OsString> + Clone,
{
    let Arguments { options: Options { admin_socket, color }, verb } = Arguments::try_parse_from(arguments)?;
    // An empty variable is one that is not set, as with most programs.
    let environment = |name: &str| environment(name).filter(|value| value != OsStr::new("")).map(PathBuf::from);
    let named = |config: Option<PathBuf>| config.or_else(|| environment("MESH_CONFIG"));
    let client = |action| {
        let socket = admin_socket.clone().or_else(|| environment("MESH_ADMIN_SOCKET"));
        let socket = socket.unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET));
        Command::Client(ClientCommand { socket, color, action })
    };
    let show = |request, format| client(Action::Show { request, format, watch: false });
    let change = |request| client(Action::Change(request));
    let later = |name| client(Action::Later(name));
    let verb = match verb {
        AnyVerb::Built(verb) => verb,
        AnyVerb::Later(verb) => return Ok(later(verb.name())),
    };
    let command = match verb {
        Verb::Run { config, takeover } => Command::Run { config: named(config), takeover },
        Verb::Check { config, listing } => {
            Command::Check { config: named(config), show: Show { format: listing.output, color } }
        }
        Verb::Config(ConfigVerb::Validate { file }) => Command::ConfigValidate { file },
        Verb::Config(ConfigVerb::Schema) => Command::ConfigSchema,
        Verb::Config(ConfigVerb::Dump { output }) => show(Request::ConfigDump, output),
        Verb::Config(ConfigVerb::Reload) => change(Request::ConfigReload),
        Verb::Unload { config, force } => Command::Unload { config: named(config), force },
        Verb::Status { listing } => show(Request::Status, listing.output),
        Verb::Services { name, watch, listing } => {
            client(Action::Show { request: Request::Services { name }, format: listing.output, watch })
        }
        Verb::Endpoints { change: Some(verb), .. } => change(endpoint_change(verb)),
        Verb::Endpoints { service, listing, change: None } => show(Request::Endpoints { service }, listing.output),
        Verb::Connections { service, endpoint, sort, limit, watch, listing } => {
            let request = Request::Connections(Connections { service, endpoint, sort, limit });
            client(Action::Show { request, format: listing.output, watch })
        }
        Verb::Explain { address, host, path, zone, listing } => {
            show(Request::Explain { address, host, path, zone }, listing.output)
        }
        Verb::Lb(LbVerb::Set { service, policy, persist }) => {
            change(Request::LbSet { service, policy, persist: persist.persist })
        }
        Verb::Circuit { listing, verb: None } => show(Request::Circuits { service: None }, listing.output),
        Verb::Circuit { verb: Some(CircuitVerb::List { service, listing }), .. } => {
            show(Request::Circuits { service }, listing.output)
        }
        Verb::Circuit { verb: Some(CircuitVerb::Trip(CircuitName { service, address })), .. } => {
            change(Request::CircuitTrip { service, address })
        }
        Verb::Circuit { verb: Some(CircuitVerb::Reset(CircuitName { service, address })), .. } => {
            change(Request::CircuitReset { service, address })
        }
        Verb::Circuit {
            verb: Some(CircuitVerb::Set { service, failure_threshold, reset_timeout, persist }), ..
        } => change(Request::CircuitSet { service, failure_threshold, reset_timeout, persist: persist.persist }),
        Verb::Bypass(BypassVerb::On) => change(Request::Bypass { on: true }),
        Verb::Bypass(BypassVerb::Off) => change(Request::Bypass { on: false }),
        Verb::Completions { shell } => client(Action::Completions(shell)),
    };
    Ok(command)
}

fn endpoint_change(change: EndpointVerb) -> Request {
    match change {
        EndpointVerb::Drain(Target { name, persist }) => {
            Request::EndpointDrain { service: name.service, address: name.address, persist: persist.persist }
        }
        EndpointVerb::Undrain(Target { name, persist }) => {
            Request::EndpointUndrain { service: name.service, address: name.address, persist: persist.persist }
        }
        EndpointVerb::Weight { target, weight, persist } => Request::EndpointWeight {
            service: target.service,
            address: target.address,
            weight,
            persist: persist.persist,
        },
    }
}
