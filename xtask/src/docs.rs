//! Keeps the generated parts of `docs/` up to date: the package `mesh-reference` writes them.

use std::path::PathBuf;

use clap::Args;

use crate::process::{cargo, run};
use crate::setup;

#[derive(Args)]
pub(crate) struct Options {
    /// Write nothing, and fail if a page is not up to date; `cargo xtask test` does this too
    #[arg(long)]
    check: bool,
    /// Write manual pages into this directory instead, one for each command of mesh
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "check")]
    man: Option<PathBuf>,
}

pub(crate) fn run_all(options: &Options) -> Result<(), String> {
    // The reference comes from the daemon's own library, which has the eBPF object inside.
    setup::toolchain()?;
    let mut command = cargo();
    command.args(["run", "--quiet", "--package", "mesh-reference", "--"]);
    if options.check {
        command.arg("--check");
    }
    if let Some(directory) = &options.man {
        command.arg("--man").arg(directory);
    }
    run("reading the reference from the code", &mut command)
}
