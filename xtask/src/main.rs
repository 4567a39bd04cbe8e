//! Everything a developer does with this repository, by name: `cargo xtask VERB`.

mod arm64;
mod bench;
mod build;
mod deb;
mod demo;
mod docs;
mod image;
mod interrupt;
mod packing;
mod ports;
mod prerequisites;
mod process;
mod setup;
mod test;
#[allow(dead_code, reason = "shared with build scripts, which use another part of it")]
mod toolchain;
mod vm;

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
    /// Show services with real backends and clients, and what happens when a backend dies, and when the daemon does
    Demo {
        /// End after this time, like 60s (default: at Ctrl-C); the story itself takes about 30 s
        #[arg(long, value_name = "TIME", value_parser = demo::parse_duration)]
        duration: Option<Duration>,
        /// A mesh that is built already (default: build it, for release)
        #[arg(long, value_name = "PATH")]
        binary: Option<PathBuf>,
    },
    /// Write the parts of docs/ that are generated from the code: keys, commands, metrics
    Docs(docs::Options),
    /// Compile everything for arm64, and with --run run what an emulator can run (docs/arm64.md)
    CheckArm64(arm64::Options),
    /// Measure the proxy beside nginx, HAProxy and Envoy: CPU, latency, memory (docs/performance.md)
    Bench(bench::Options),
    /// Write the container image, as a root file system (`rootfs`) and an OCI layout (`oci`); what has these names where it
    /// is written is replaced (docs/operations.md)
    Image(image::Options),
    /// Make the Debian package (docs/operations.md)
    Deb(deb::Options),
    /// Run the tests that face the kernel on other kernels, in virtual machines (docs/kernels.md)
    Vm(vm::Options),
    #[command(hide = true)]
    DemoBackend { name: String, speech: demo::Speech, listen: SocketAddr },
    #[command(hide = true)]
    DemoClient { speech: demo::Speech, vip: SocketAddr, cgroup: PathBuf, pause_ms: u64, questions: u64 },
    #[command(hide = true)]
    DemoRequest { vip: SocketAddr, cgroup: PathBuf, header: Option<String> },
    #[command(hide = true)]
    VmGuest { role: vm::Role },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().verb {
        Verb::Setup => setup::run_all().map(|()| true),
        Verb::Build => {
            build::run(build::Profile::Release).map(|binary| println!("{}", binary.display())).map(|()| true)
        }
        Verb::Test { filters } => test::run_all(&filters),
        Verb::Demo { duration, binary } => demo::run(duration, binary).map(|()| true),
        Verb::Docs(options) => docs::run_all(&options).map(|()| true),
        Verb::CheckArm64(options) => arm64::run_all(&options).map(|()| true),
        Verb::Bench(options) => bench::run(&options).map(|()| true),
        Verb::Image(options) => image::run(&options).map(|()| true),
        Verb::Deb(options) => deb::run(&options).map(|()| true),
        Verb::Vm(options) => vm::run(&options),
        Verb::VmGuest { role } => vm::guest(role).map(|()| true),
        Verb::DemoBackend { name, speech, listen } => demo::backend(&name, speech, listen).map(|()| true),
        Verb::DemoClient { speech, vip, cgroup, pause_ms, questions } => {
            demo::client(speech, vip, &cgroup, Duration::from_millis(pause_ms), questions).map(|()| true)
        }
        Verb::DemoRequest { vip, cgroup, header } => demo::request(vip, &cgroup, header.as_deref()).map(|()| true),
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
