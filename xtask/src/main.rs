//! Everything a developer does with this repository, by name: `cargo xtask VERB`.

mod build;
mod prerequisites;
mod process;
mod setup;
mod test;
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

/// Every verb does what `setup` does first, where something is missing.
#[derive(Subcommand)]
enum Verb {
    /// Install what is missing to compile eBPF and to run the tests; does nothing where all is there
    Setup,
    /// Build the release binary, with the eBPF programs inside
    Build,
    /// Run the documentation's examples and all tests, and say which could not run here
    Test {
        /// Only tests whose name contains one of these
        #[arg(value_name = "FILTER")]
        filters: Vec<String>,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().verb {
        Verb::Setup => setup::run_all(setup::Voice::Full).map(|()| true),
        Verb::Build => {
            build::run(build::Profile::Release).map(|binary| println!("{}", binary.display())).map(|()| true)
        }
        Verb::Test { filters } => test::run_all(&filters),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        // Whoever found out has said so.
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
