//! Running other programs, and saying so.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use crate::toolchain;

/// Runs `command` with its output where ours goes, after a line that says why. An exit other than 0 is an error.
pub(crate) fn run(why: &str, command: &mut Command) -> Result<(), String> {
    step(why);
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|error| format!("{why}: {name}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{why}: {name}: {status}")) }
}

/// One line to stderr that stands out from what children print.
pub(crate) fn step(text: &str) {
    tell(&format!("==> {text}"));
}

/// One line to stderr. Not `eprintln!`, which panics where nobody listens any more, as after a terminal is closed: what
/// is left to do then, such as cleaning up, must still be done.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The cargo that called us, as if it were called by hand: what `cargo run` tells us of this package would have build
/// scripts that look at it, and all that depends on them, run again.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|begin| name.to_string_lossy().starts_with(begin)) {
            command.env_remove(name);
        }
    }
    command
}

/// Where a program lies, if it is installed.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    toolchain::directories().into_iter().map(|directory| directory.join(program)).find(|path| path.is_file())
}

/// Whether we are root, which apt and most of the tests ask for.
pub(crate) fn is_root() -> bool {
    // SAFETY: takes nothing, changes nothing, cannot fail.
    unsafe { libc::geteuid() == 0 }
}
