//! Builds the binary `mesh`, with the eBPF object inside.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::process::{cargo, step};
use crate::setup;

/// Which of cargo's profiles.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// For users and for the demo.
    Release,
    /// For tests: compiled in the profile that their own code is.
    Debug,
}

/// Installs the toolchain where it is missing, builds, and asks cargo where it put the binary, which depends on settings
/// that are the caller's own.
pub(crate) fn run(profile: Profile) -> Result<PathBuf, String> {
    setup::toolchain()?;
    let why = match profile {
        Profile::Release => "building mesh (release)",
        Profile::Debug => "building mesh (debug)",
    };
    step(why);
    let mut command = cargo();
    // All packages, though one is wanted: tests are compiled the same way and find everything done.
    command.args(["build", "--workspace", "--exclude", "mesh-ebpf", "--bin", "mesh"]);
    command.arg("--message-format=json-render-diagnostics");
    if profile == Profile::Release {
        command.arg("--release");
    }
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| format!("{why}: cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("{why}: cargo: {}", output.status));
    }
    executable(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| format!("{why}: cargo named no executable"))
}

/// Where cargo puts what it builds, as long as nothing but the environment says so.
pub(crate) fn target_directory() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target"))
}

/// The path of the binary `mesh` in cargo's messages, one JSON object a line.
fn executable(messages: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut mesh = messages.filter(|message| message["target"]["name"] == "mesh" && message["executable"].is_string());
    mesh.find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_found_among_cargos_messages() {
        let messages = r#"
            {"reason":"compiler-artifact","target":{"name":"mesh_common","kind":["lib"]},"executable":null}
            {"reason":"compiler-artifact","target":{"name":"mesh","kind":["bin"]},"executable":"/t/debug/mesh"}
            {"reason":"build-finished","success":true}
        "#;
        assert_eq!(executable(messages), Some(PathBuf::from("/t/debug/mesh")));
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(executable("not JSON"), None);
    }
}
