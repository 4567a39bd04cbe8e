//! How does a build script get an object for the kernel out of `mesh-ebpf`?
//!
//! `mesh-userspace/build.rs` and `tests/build.rs` include this file by path, each for a binary of its own; xtask itself
//! does not use it.

#[allow(dead_code, reason = "shared with xtask, which uses another part of it")]
#[path = "toolchain.rs"]
mod toolchain;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Beginnings of variables that were meant for the build we are part of, not for the one we start.
const NOT_FOR_THE_KERNEL: [&str; 4] = ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS"];
/// What the user said about cargo itself (proxies, mirrors, offline), and stays.
const STILL_VALID: [&str; 4] = ["CARGO_HOME", "CARGO_NET", "CARGO_HTTP", "CARGO_REGISTR"];

/// Compiles `binary` and leaves the object as `object` in `$OUT_DIR`, for the crate to embed.
pub(crate) fn make(binary: &str, object: &str) -> ExitCode {
    match build(binary, object) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn build(binary: &str, object: &str) -> Result<(), String> {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("..");
    for path in ["mesh-ebpf", "mesh-common", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }

    let target = toolchain::target(&variable("CARGO_CFG_TARGET_ENDIAN")?);
    let oldest = toolchain::parse_release(&variable("CARGO_PKG_RUST_VERSION")?).unwrap_or_default();
    let toolchain = match toolchain::choose(&toolchain::gather(target), oldest) {
        Ok(toolchain) => toolchain,
        Err(reasons) => {
            let reasons = reasons.join("; ");
            println!("cargo::error=no toolchain for eBPF ({reasons}). Run `cargo xtask setup`, which installs one.");
            return Ok(());
        }
    };
    for tool in [&toolchain.compiler.rustc, &toolchain.linker] {
        println!("cargo::rerun-if-changed={}", tool.display());
    }

    let out = PathBuf::from(variable("OUT_DIR")?);
    let directory = target_directory(&out);
    let cargo = PathBuf::from(variable("CARGO")?);
    let recipe = toolchain.recipe(&cargo, target, &variable("CARGO_CFG_TARGET_ARCH")?);
    let mut command = Command::new(&recipe.program);
    for (name, _) in std::env::vars_os() {
        if is_foreign(&name) {
            command.env_remove(name);
        }
    }
    command.args(recipe.args).envs(recipe.env).current_dir(&root).arg("--target-dir").arg(&directory);
    command.args(["--package", "mesh-ebpf", "--bin", binary, "--profile", "bpf", "--locked", "--quiet"]);
    let output = command.output().map_err(|error| format!("{}: {error}", recipe.program.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{said}\nthe eBPF programs do not compile (with {})", toolchain.describe()));
    }
    // Quiet, so whatever was said is a warning; cargo would keep it to itself.
    for line in said.lines().filter(|line| !line.is_empty()) {
        println!("cargo::warning={line}");
    }

    let compiled = directory.join(target).join("bpf").join(binary);
    let embedded = out.join(object);
    std::fs::copy(&compiled, &embedded)
        .map_err(|error| format!("{} to {}: {error}", compiled.display(), embedded.display()))?;
    Ok(())
}

/// One directory for all builds of this workspace: the object is the same for debug, release, clippy and doc, and the
/// first compilation takes minutes. Never the directory of the build we are part of, whose lock cargo holds.
fn target_directory(out: &Path) -> PathBuf {
    let top = out.ancestors().find(|ancestor| ancestor.join("CACHEDIR.TAG").is_file());
    top.unwrap_or(out).join("ebpf")
}

/// LD_LIBRARY_PATH too: cargo points it at the libraries of its own compiler.
fn is_foreign(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    let begins = |with: &[&str]| with.iter().any(|prefix| name.starts_with(prefix));
    name == "LD_LIBRARY_PATH" || (begins(&NOT_FOR_THE_KERNEL) && !begins(&STILL_VALID))
}

fn variable(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|error| format!("{name}: {error}"))
}
