//! Everything a developer does with this repository, by name: `cargo xtask VERB`.

mod process;
mod setup;
#[allow(dead_code, reason = "shared with mesh-userspace/build.rs, which uses another part of it")]
mod toolchain;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Build, test and try mesh")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what is missing to compile eBPF and to run the tests; does nothing where all is there
    Setup,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().verb {
        Verb::Setup => setup::run_all(setup::Voice::Full),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
