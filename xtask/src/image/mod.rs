//! `cargo xtask image`: the container image, as a root file system and as an OCI image layout.
//!
//! There is one recipe. `deploy/Dockerfile` runs it too, and a registry is needed by neither. The same files in give the
//! same bytes out: times are fixed, names sorted, nothing says when or where it was made.

mod elf;
mod layout;
mod root;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::packing::Packing;
use crate::process::{find, run as run_program, step};

/// What is asked for.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    packing: Packing,
}

/// Builds, or takes what is built, and writes both forms.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let built = options.packing.binary()?;
    let output = options.packing.output("image")?;

    let stripped = output.join("mesh.stripped");
    let made = strip(&built, &stripped).and_then(|()| {
        let platform = elf::platform(&stripped)?;
        let entries = root::entries(&stripped, &elf::libraries(&stripped)?)?;
        let tree = fresh(&output.join("rootfs"))?;
        step(&format!("writing {}", tree.display()));
        root::write(&entries, &tree)?;
        let layout = fresh(&output.join("oci"))?;
        step(&format!("writing {}", layout.display()));
        layout::write(&entries, platform, &layout)
    });
    // It is in the tree by now. One that stays is written over the next time.
    let _ = fs::remove_file(&stripped);
    println!("{}", made?);
    Ok(())
}

/// Without what only a debugger reads, which is most of the file. Names of functions stay, for traces of a panic.
fn strip(binary: &Path, to: &Path) -> Result<(), String> {
    if find("strip").is_none() || !elf::is_native(binary)? {
        step("`strip` of binutils is missing, or for other machines: the image keeps the line numbers, and is larger");
        return fs::copy(binary, to).map(drop).map_err(at(binary));
    }
    let mut strip = Command::new("strip");
    run_program("leaving out what only debuggers read", strip.args(["--strip-debug", "-o"]).arg(to).arg(binary))
}

/// An empty directory of this name.
fn fresh(directory: &Path) -> Result<PathBuf, String> {
    if directory.exists() {
        fs::remove_dir_all(directory).map_err(at(directory))?;
    }
    fs::create_dir_all(directory).map_err(at(directory))?;
    Ok(directory.to_owned())
}

/// An error with the path that it is about.
fn at<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> String {
    let path = path.display().to_string();
    move |error| format!("{path}: {error}")
}
