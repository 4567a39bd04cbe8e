//! Compiles everything for arm64 on a machine that is none, and runs there what an emulator of user space can run.
//!
//! The eBPF programs are the same object for both: what differs is the daemon. An emulator has no bpf(2) of its own kernel
//! to offer, so what talks to the kernel is compiled and not run.

use std::process::Command;

use clap::Args;

use crate::process::{cargo, find, run, step};
use crate::setup;

const TARGET: &str = "aarch64-unknown-linux-gnu";
/// Apart: it would have what is compiled for this machine compiled again.
const DIRECTORY: &str = "target/arm64";
/// Where Debian's cross compiler keeps the C library of arm64.
const SYSROOT: &str = "/usr/aarch64-linux-gnu";

#[derive(Args)]
pub(crate) struct Options {
    /// Also link, and run the tests that need no kernel of their own in an emulator; takes some minutes more
    #[arg(long)]
    run: bool,
}

pub(crate) fn run_all(options: &Options) -> Result<(), String> {
    setup::toolchain()?;
    setup::for_arm64(options.run);
    add_target()?;
    let mut check = for_arm64();
    check.args(["check", "--workspace", "--exclude", "mesh-ebpf", "--all-targets"]);
    run("checking everything for arm64", targeted(&mut check))?;
    if !options.run {
        return Ok(());
    }
    let mut tests = for_arm64();
    // Decisions, rows, configuration, words: what needs neither kernel nor network.
    tests.args(["test", "--package", "mesh-common", "--package", "mesh-userspace", "--lib"]);
    targeted(&mut tests).args(["--", "breaker", "select", "endpoint", "service", "config::", "policy::", "datapath::"]);
    run("running tests for arm64 in an emulator", &mut tests)?;
    let mut version = for_arm64();
    version.args(["run", "--package", "mesh-userspace", "--bin", "mesh"]);
    targeted(&mut version).args(["--", "--version"]);
    run("running mesh for arm64 in an emulator", &mut version)
}

fn targeted(command: &mut Command) -> &mut Command {
    command.args(["--target", TARGET, "--target-dir", DIRECTORY])
}

/// The standard library for arm64, of the compiler that the repository pins.
fn add_target() -> Result<(), String> {
    if find("rustup").is_none() {
        step(&format!("no rustup here: the compiler has to have a standard library for {TARGET} already"));
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    run(&format!("adding {TARGET}"), rustup.args(["target", "add", TARGET]))
}

/// Cargo with a C compiler, a linker and an emulator for arm64.
fn for_arm64() -> Command {
    let mut command = cargo();
    command.env("CC_aarch64_unknown_linux_gnu", "aarch64-linux-gnu-gcc");
    command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
    command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", format!("qemu-aarch64-static -L {SYSROOT}"));
    command
}
