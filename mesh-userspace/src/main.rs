//! The `mesh` binary: dispatches, and is the only place that exits.

use mesh_userspace::{
    app,
    cli::{self, Command},
    config,
};
use std::{io::Write, process::ExitCode};

/// Requests allocate and free the same sizes over and over, thread by thread (docs/performance.md has the difference).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
            Ok(schema) => {
                say(&mut std::io::stdout(), &schema);
                Ok(())
            }
            Err(e) => Err(e.to_string()),
        },
        Command::Check { config, show } => return cli::report(&app::check(config.as_deref()), show),
        Command::Unload { config, force } => {
            app::unload(config.as_deref(), force).map(|done| say(&mut std::io::stdout(), &done))
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

/// Prints a line; a reader that has gone has no use for it.
fn say(to: &mut impl Write, line: &str) {
    let _ = writeln!(to, "{line}");
}
