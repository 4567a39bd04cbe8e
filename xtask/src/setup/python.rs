//! A Python with the libraries that tests talk to, in a directory of its own beside what cargo builds.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::build;
use crate::process::{find, run};

/// What is installed, pinned: a library that changes its mind must not fail tests of ours.
const LIBRARIES: [&str; 5] =
    ["grpcio==1.85.1", "grpcio-health-checking==1.85.1", "websockets==17.4", "h2==4.4.1", "hpack==4.2.0"];

/// Makes it where it is missing or has other libraries than these.
pub(super) fn prepare() -> Result<(), String> {
    let directory = directory();
    // Written last, so that it is there only where all went well.
    let stamp = directory.join("libraries");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == LIBRARIES.join("\n")) {
        return Ok(());
    }
    let python = find("python3").ok_or("python3 is not installed")?;
    let mut make = Command::new(python);
    run("preparing a Python for tests", make.args(["-m", "venv", "--clear"]).arg(&directory))?;
    let mut pip = Command::new(interpreter());
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]);
    run(&format!("installing {}", LIBRARIES.join(", ")), pip.args(LIBRARIES))?;
    fs::write(&stamp, LIBRARIES.join("\n")).map_err(|error| format!("{}: {error}", stamp.display()))
}

/// Whether the system's Python can make another one: Debian's needs a package for that.
pub(super) fn can_be_copied() -> bool {
    let Some(python) = find("python3") else { return false };
    let tried = Command::new(python).args(["-c", "import ensurepip, venv"]).output();
    tried.is_ok_and(|output| output.status.success())
}

/// The interpreter, whether it is there or not.
pub(super) fn interpreter() -> PathBuf {
    directory().join("bin/python")
}

fn directory() -> PathBuf {
    build::target_directory().join("python")
}
