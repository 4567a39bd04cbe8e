//! What this repository needs on a machine, and how it gets there.
//!
//! Each thing is looked for before it is installed, so a second run only looks.

use std::process::Command;

use crate::process::{cargo, find, is_root, run, step};
use crate::toolchain::{self, Linker, Toolchain};

/// The linker of eBPF programs. Pinned: its LLVM and the compiler's belong together.
const BPF_LINKER: &str = "0.13.0";

/// The distribution's way, as Debian 12 names its packages.
const COMPILER_PACKAGES: [&str; 2] = [
    "rustc-web",               // a compiler recent enough for edition 2024
    "libstd-rust-web-dev-bpf", // its `core` for eBPF
];
/// What bpf-linker is built with: the LLVM of that compiler.
const LLVM: u32 = 22;
const LINKER_PACKAGES: [&str; 5] = ["llvm-22-dev", "libpolly-22-dev", "zlib1g-dev", "libzstd-dev", "libxml2-dev"];

/// Programs that tests and demo run, the package each comes in, and what for.
const PROGRAMS: [(&str, &str, &str); 1] = [("ip", "iproute2", "network namespaces that stand for pods")];

/// How much to say when there is nothing to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Voice {
    /// Asked for by name: say what is there.
    Full,
    /// On the way to something else: silent unless something is missing.
    Terse,
}

/// Installs what is missing.
pub(crate) fn run_all(voice: Voice) -> Result<(), String> {
    let toolchain = match detect() {
        Ok(toolchain) => toolchain,
        Err(reasons) => {
            step("the eBPF toolchain is missing:");
            for reason in reasons {
                eprintln!("    {reason}");
            }
            install_toolchain()?
        }
    };
    install_programs()?;
    install_nextest()?;
    if voice == Voice::Full {
        println!("eBPF toolchain: {}", toolchain.describe());
        println!("nothing is missing");
    }
    Ok(())
}

fn detect() -> Result<Toolchain, Vec<String>> {
    let oldest = toolchain::parse_release(env!("CARGO_PKG_RUST_VERSION")).unwrap_or_default();
    toolchain::choose(&toolchain::gather(toolchain::target(endian())), oldest)
}

fn endian() -> &'static str {
    if cfg!(target_endian = "big") { "big" } else { "little" }
}

/// Tries each way until one leaves a toolchain that fits. Why each failed is said at the end, together.
fn install_toolchain() -> Result<Toolchain, String> {
    type Way = fn() -> Result<(), String>;
    let ways: [(&str, Way); 2] = [("rustup", install_from_rustup), ("the distribution", install_from_distribution)];
    let mut failures = Vec::new();
    for (name, install) in ways {
        match install() {
            Ok(()) => match detect() {
                Ok(toolchain) => return Ok(toolchain),
                Err(reasons) => failures.push(format!("{name}: installed, but {}", reasons.join("; "))),
            },
            Err(reason) => {
                step(&format!("no toolchain from {name}: {reason}"));
                failures.push(format!("{name}: {reason}"));
            }
        }
    }
    Err(format!(
        "no way to an eBPF toolchain worked here:\n  {}\n\
         Install one of these by hand, then run `cargo xtask setup` again:\n  \
         - `rustup toolchain install nightly --component rust-src`, and a bpf-linker with nightly's LLVM version from\n    \
           https://github.com/aya-rs/bpf-linker/releases on PATH\n  \
         - a /usr/bin/rustc of at least {} with `core` for bpfel-unknown-none, and bpf-linker {BPF_LINKER} built with \
         its LLVM",
        failures.join("\n  "),
        env!("CARGO_PKG_RUST_VERSION"),
    ))
}

/// A nightly that compiles `core` itself. The linker first: without it the nightly is of no use, and it is the part
/// that fails.
fn install_from_rustup() -> Result<(), String> {
    if find("rustup").is_none() {
        return Err("rustup is not installed".into());
    }
    let facts = toolchain::gather(toolchain::target(endian()));
    let serves = |linker: &Linker| linker.llvm.is_none() || facts.nightly.as_ref().is_some_and(|own| linker.reads(own));
    if !facts.linkers.iter().any(serves) {
        download_linker()?;
    }
    let mut rustup = Command::new("rustup");
    rustup.args(["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"]);
    run("installing nightly with rust-src", rustup.arg("--no-self-update"))
}

/// The release of its makers, with LLVM inside. From source it would need exactly the LLVM of today's nightly, which
/// no distribution has.
fn download_linker() -> Result<(), String> {
    let into = toolchain::cargo_bin().ok_or("neither CARGO_HOME nor HOME is set")?;
    let machine = std::env::consts::ARCH;
    let url = format!(
        "https://github.com/aya-rs/bpf-linker/releases/download/v{BPF_LINKER}/bpf-linker-{machine}-unknown-linux-musl.tar.zst"
    );
    let archive = std::env::temp_dir().join(format!("bpf-linker-{}.tar.zst", std::process::id()));
    let mut curl = Command::new("curl");
    curl.args(["-fsSL", "--connect-timeout", "5", "--max-time", "300", "-o"]).arg(&archive).arg(url);
    let done = run("downloading bpf-linker", &mut curl).and_then(|()| {
        run(
            "unpacking bpf-linker",
            Command::new("tar").args(["--zstd", "-xf"]).arg(&archive).arg("-C").arg(into).arg("bpf-linker"),
        )
    });
    // Only a file of ours in the temporary directory; one that stays harms nobody.
    let _ = std::fs::remove_file(&archive);
    done
}

fn install_from_distribution() -> Result<(), String> {
    let wanted: Vec<&str> = COMPILER_PACKAGES.into_iter().chain(LINKER_PACKAGES).collect();
    install_packages(&wanted)?;
    let fits = |linker: &Linker| linker.llvm.is_none_or(|llvm| llvm >= LLVM);
    if toolchain::gather(toolchain::target(endian())).linkers.iter().any(fits) {
        return Ok(());
    }
    // llvm-config of exactly that version must come first: a plain `llvm-config` is often another one.
    let mut path = std::ffi::OsString::from(format!("/usr/lib/llvm-{LLVM}/bin:"));
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let feature = format!("llvm-{LLVM}");
    let mut install = cargo();
    install.args(["install", "bpf-linker", "--version", BPF_LINKER, "--no-default-features", "--features", &feature]);
    run("building bpf-linker (about a minute)", install.env("PATH", path))
}

fn install_programs() -> Result<(), String> {
    for (program, package, what_for) in PROGRAMS {
        if find(program).is_none() {
            step(&format!("`{program}` is missing ({what_for})"));
            install_packages(&[package])?;
        }
    }
    Ok(())
}

fn install_nextest() -> Result<(), String> {
    if find("cargo-nextest").is_some() {
        return Ok(());
    }
    run("building cargo-nextest (some minutes)", cargo().args(["install", "--locked", "cargo-nextest"]))
}

fn install_packages(packages: &[&str]) -> Result<(), String> {
    if find("apt-get").is_none() {
        return Err(format!("no apt-get here; install by hand what corresponds to {}", packages.join(", ")));
    }
    // A list of packages that could not be brought up to date may still know ours.
    if let Err(reason) = run("bringing the list of packages up to date", apt().args(["update", "-q"])) {
        step(&reason);
    }
    let why = format!("installing {}", packages.join(", "));
    run(&why, apt().args(["install", "-q", "-y", "--no-install-recommends"]).args(packages))
}

/// apt-get as root, which asks nothing and waits for another one to finish.
fn apt() -> Command {
    let mut command = if is_root() {
        Command::new("env")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("env");
        sudo
    };
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=300"]);
    command.args(["-o", "Dpkg::Use-Pty=0"]);
    command
}
