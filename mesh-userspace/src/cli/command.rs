//! From what was typed to what is to be done.

use super::args::{
    Arguments, BypassVerb, CircuitName, CircuitVerb, Color, ConfigVerb, EndpointVerb, Format, LbVerb, LogsArguments,
    Options, Target, Verb,
};
use super::register::{Deregister, Register};
use crate::api::{Connections, Logs, Request, Traces};
use clap::Parser;
use clap_complete::Shell;
use std::{
    env,
    ffi::{OsStr, OsString},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

const DEFAULT_SOCKET: &str = "/run/mesh/admin.sock";

/// Rows of `mesh traces` where nobody says how many.
const TRACES: u32 = 50;

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
    /// Put what a maintainer would ask for into an archive.
    Bugreport {
        /// The configuration that was named; `None`: the one at the default path, if there is one.
        config: Option<PathBuf>,
        /// The admin socket of the daemon that is asked.
        socket: PathBuf,
        /// The archive; `None`: one with a name of its own in the working directory.
        output: Option<PathBuf>,
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
    /// Register an instance in etcd.
    EtcdRegister(Box<Register>),
    /// Take an instance out of etcd.
    EtcdDeregister(Box<Deregister>),
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
    /// Print lines of the log as they come.
    Follow { wanted: Box<Logs>, format: Format },
    /// Show everything live, asking so often.
    Top(Duration),
    /// Change, and say what changed.
    Change(Request),
    /// Register, and stay.
    Keep(crate::api::Registration),
    /// Deregister the instance at an address, whatever it is called.
    Deregister { service: String, address: std::net::SocketAddr },
    /// Print a completion script.
    Completions(Shell),
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
    let socket = || {
        let socket = admin_socket.clone().or_else(|| environment("MESH_ADMIN_SOCKET"));
        socket.unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET))
    };
    let client = |action| Command::Client(ClientCommand { socket: socket(), color, action });
    let show = |request, format| client(Action::Show { request, format, watch: false });
    let change = |request| client(Action::Change(request));
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
        Verb::Logs(asked) => {
            let LogsArguments { service, endpoint, status, method, path, duration, trace, since, limit, .. } = *asked;
            let wanted = Logs { service, endpoint, status, method, path, duration, trace, since, limit };
            let format = asked.listing.output;
            match asked.follow {
                true => client(Action::Follow { wanted: Box::new(wanted), format }),
                false => show(Request::Logs(Box::new(wanted)), format),
            }
        }
        Verb::LogLevel { directive: Some(directive), .. } => change(Request::SetLogLevel { directive }),
        Verb::LogLevel { directive: None, listing } => show(Request::LogLevels, listing.output),
        Verb::Bugreport { output, config } => Command::Bugreport { config: named(config), socket: socket(), output },
        Verb::Top { interval } => client(Action::Top(interval)),
        Verb::Explain { address, host, path, zone, listing } => {
            show(Request::Explain { address, host, path, zone }, listing.output)
        }
        Verb::Traces { id: Some(id), listing, .. } => show(Request::Trace { id }, listing.output),
        Verb::Traces { id: None, service, limit, listing } => {
            let limit = limit.or((listing.output == Format::Table).then_some(TRACES));
            show(Request::Traces(Traces { service, limit }), listing.output)
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
        Verb::Register(what) if !what.etcd.endpoints.is_empty() => Command::EtcdRegister(what),
        Verb::Register(what) => {
            let keep = what.keep;
            let registration = what.at_the_daemon();
            if keep { client(Action::Keep(registration)) } else { change(Request::Register(registration)) }
        }
        Verb::Deregister(what) if !what.etcd.endpoints.is_empty() => Command::EtcdDeregister(what),
        Verb::Deregister(what) => client(what.at_the_daemon()),
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
