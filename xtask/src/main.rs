//! Everything a developer does with this repository, by name: `cargo xtask VERB`.

mod bench;
mod build;
mod demo;
mod interrupt;
mod ports;
mod prerequisites;
mod process;
mod setup;
mod test;
#[allow(dead_code, reason = "shared with build scripts, which use another part of it")]
mod toolchain;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Build, test and try mesh")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

/// Every verb first installs what it needs itself, where that is missing.
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
    /// Show a service with real backends and clients, and what happens when a backend dies
    Demo {
        /// End after this time, like 60s (default: at Ctrl-C); the story itself takes about 15 s
        #[arg(long, value_name = "TIME", value_parser = demo::parse_duration)]
        duration: Option<Duration>,
    },
    /// Measure the proxy beside nginx, HAProxy and Envoy: CPU, latency, memory (docs/performance.md)
    Bench(bench::Options),
    #[command(hide = true)]
    DemoBackend { name: String, speech: demo::Speech, listen: SocketAddr },
    #[command(hide = true)]
    DemoClient { speech: demo::Speech, vip: SocketAddr, cgroup: PathBuf, pause_ms: u64 },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().verb {
        Verb::Setup => setup::run_all().map(|()| true),
        Verb::Build => {
            build::run(build::Profile::Release).map(|binary| println!("{}", binary.display())).map(|()| true)
        }
        Verb::Test { filters } => test::run_all(&filters),
        Verb::Demo { duration } => demo::run(duration).map(|()| true),
        Verb::Bench(options) => bench::run(&options).map(|()| true),
        Verb::DemoBackend { name, speech, listen } => demo::backend(&name, speech, listen).map(|()| true),
        Verb::DemoClient { speech, vip, cgroup, pause_ms } => {
            demo::client(speech, vip, &cgroup, Duration::from_millis(pause_ms)).map(|()| true)
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        // Whoever found out has said so.
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            process::tell(&format!("error: {message}"));
            ExitCode::FAILURE
        }
    }
}
