//! The `mesh` binary: dispatches, and is the only place that exits.

use mesh_userspace::{
    app,
    cli::{self, Command, EtcdOptions},
    config,
    discovery::{
        Etcd,
        etcd::{Record, Registration},
    },
    kernel,
};
use std::{io::Write, process::ExitCode};

/// Requests allocate and free the same sizes over and over, thread by thread (docs/performance.md has the difference).
#[global_allocator]
static ALLOCATOR: kernel::Allocator = kernel::Allocator;

fn main() -> ExitCode {
    if let Some(code) = app::probe_client(std::env::args_os()) {
        return code;
    }
    let command = match cli::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(code) => return code,
    };
    let done = match command {
        Command::Client(command) => return cli::execute(command),
        Command::Run { config, takeover } => app::run(config, takeover),
        Command::ConfigValidate { file } => app::validate(&file).map(|warnings| {
            for warning in warnings {
                say(&mut std::io::stderr(), &format!("warning: {warning}"));
            }
            say(&mut std::io::stdout(), &format!("{}: valid", file.display()));
        }),
        Command::ConfigSchema => match serde_json::to_string_pretty(&config::schema()) {
            Ok(schema) => match writeln!(std::io::stdout(), "{schema}") {
                Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(format!("it cannot be written: {e}")),
                _ => Ok(()),
            },
            Err(e) => Err(e.to_string()),
        },
        Command::Check { config, show } => return cli::report(&app::check(config.as_deref()), show),
        Command::Bugreport { config, socket, output } => {
            app::bugreport(config.as_deref(), &socket, output).map(|done| say(&mut std::io::stdout(), &done))
        }
        Command::Unload { config, force } => {
            app::unload(config.as_deref(), force).map(|done| say(&mut std::io::stdout(), &done))
        }
        Command::EtcdRegister(what) => {
            let keep = what.keep;
            let (cluster, what) = registration(*what);
            app::register_in_etcd(cluster, &what, keep, &|done| say(&mut std::io::stdout(), done))
        }
        Command::EtcdDeregister(what) => {
            let done = app::deregister_from_etcd(cluster(what.etcd), &what.service, what.address);
            done.map(|done| say(&mut std::io::stdout(), &done))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            for line in why.lines() {
                say(&mut std::io::stderr(), &format!("mesh: {line}"));
            }
            ExitCode::FAILURE
        }
    }
}

/// How long an instance in etcd counts that does not say it.
const ETCD_TTL: std::time::Duration = std::time::Duration::from_secs(60);

fn registration(typed: cli::Register) -> (Etcd, Registration) {
    let cli::Register { service, address, id, weight, zone, ttl, metadata: _, keep: _, etcd } = typed;
    let record = Record { zone, weight: weight.unwrap_or(1), ..Record::new(address) };
    let id = id.unwrap_or_else(|| address.to_string());
    (cluster(etcd), Registration { service, id, record, ttl: ttl.unwrap_or(ETCD_TTL) })
}

fn cluster(typed: EtcdOptions) -> Etcd {
    let EtcdOptions { endpoints, prefix, user, password_file, ca_file, cert_file, key_file } = typed;
    Etcd { endpoints, prefix, username: user.unwrap_or_default(), password_file, ca_file, cert_file, key_file }
}

/// Prints lines, which do nothing to a terminal; a reader that has gone has no use for them.
fn say(to: &mut impl Write, lines: &str) {
    let _ = writeln!(to, "{}", cli::harmless_lines(lines));
}
