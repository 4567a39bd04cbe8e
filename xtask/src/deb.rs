//! `cargo xtask deb`: the Debian package, by cargo-deb. What is in it stands in `mesh-userspace/Cargo.toml`, what happens
//! when it is installed and removed in `deploy/debian`.

use std::fs;

use clap::Args;

use crate::packing::Packing;
use crate::process::{cargo, run as run_program};
use crate::setup;

/// What is asked for.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    packing: Packing,
    /// Compress less, to have it sooner
    #[arg(long)]
    fast: bool,
}

/// Builds, or takes what is built, and packs it.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    setup::for_deb()?;
    let binary = options.packing.binary()?;
    let output = options.packing.output("debian")?;
    // cargo-deb takes the binary from where cargo puts it, and only from there.
    let stage = output.join("stage");
    let release = stage.join("release");
    let at = |error: std::io::Error| format!("{}: {error}", release.display());
    fs::create_dir_all(&release).map_err(at)?;
    fs::copy(&binary, release.join("mesh")).map_err(|error| format!("{}: {error}", binary.display()))?;
    let mut deb = cargo();
    deb.args(["deb", "--no-build", "--strip", "--package", "mesh-userspace", "--output"]).arg(&output);
    deb.args(options.fast.then_some("--fast"));
    // The manifests of where xtask was built, from wherever it is called.
    deb.current_dir(env!("CARGO_MANIFEST_DIR")).env("CARGO_TARGET_DIR", &stage);
    // With it cargo-deb looks one directory further down.
    deb.env_remove("CARGO_BUILD_TARGET");
    let made = run_program("packing", &mut deb);
    // Copies; one that stays is written over the next time.
    let _ = fs::remove_dir_all(&stage);
    made
}
