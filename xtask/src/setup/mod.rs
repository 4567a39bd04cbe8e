//! What this repository needs on a machine, and how it gets there.
//!
//! Each thing is looked for before it is installed, so a second run only looks.

mod kubernetes;
mod linker;
mod packages;
mod python;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{cargo, find, run, step, tell};
use crate::toolchain::{self, Facts, NIGHTLY, Toolchain};

/// The distribution's way, as Debian 12 names its packages.
const COMPILER_PACKAGES: [&str; 2] = [
    "rustc-web",               // a compiler recent enough for edition 2024
    "libstd-rust-web-dev-bpf", // its `core` for eBPF
];
/// What bpf-linker is built with: the LLVM of that compiler.
const LLVM: u32 = 22;
const LINKER_PACKAGES: [&str; 5] = ["llvm-22-dev", "libpolly-22-dev", "zlib1g-dev", "libzstd-dev", "libxml2-dev"];

/// Programs that tests run, the package each comes in, and what for.
const PROGRAMS: [(&str, &str, &str); 15] = [
    ("ip", "iproute2", "network namespaces that stand for pods"),
    ("curl", "curl", "a client of HTTP/1.1 and HTTP/2"),
    ("nginx", "nginx", "an endpoint of HTTP/1.1 and HTTP/2"),
    ("haproxy", "haproxy", "another one"),
    ("wrk", "wrk", "load of HTTP/1.1"),
    ("h2load", "nghttp2-client", "load of HTTP/2"),
    ("etcd", "etcd-server", "a store that daemons share"),
    ("prometheus", "prometheus", "a reader of metrics, and promtool"),
    ("openssl", "openssl", "certificates"),
    ("chromium", "chromium", "a browser that looks at the dashboard"),
    ("tmux", "tmux", "a terminal to look at"),
    ("skopeo", "skopeo", "a reader of container images"),
    ("dpkg-shlibdeps", "dpkg-dev", "makes Debian packages"),
    ("systemd-analyze", "systemd", "judges units, and runs them in a tree of a test"),
    ("python3", "python3-venv", "clients and servers of gRPC, WebSocket and odd HTTP/2"),
];

/// What the bench runs besides: to count system calls.
const COUNTERS: [(&str, &str, &str); 2] =
    [("perf", "linux-perf", "counts system calls"), ("strace", "strace", "counts them where perf cannot")];
/// Which of the programs it runs too: the others are for tests.
const BENCH: [&str; 4] = ["nginx", "haproxy", "wrk", "h2load"];

/// What compiles for arm64, and what runs it here.
const ARM64: [(&str, &str, &str); 3] = [
    ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu", "compiles C for arm64, and links"),
    ("/usr/aarch64-linux-gnu/lib/libc.so.6", "libc6-dev-arm64-cross", "the C library of arm64"),
    ("qemu-aarch64-static", "qemu-user-static", "runs programs of arm64"),
];

/// What virtual machines are made with.
const MACHINES: [(&str, &str, &str); 4] = [
    ("qemu-system-x86_64", "qemu-system-x86", "boots other kernels"),
    ("dpkg-deb", "dpkg", "unpacks them"),
    ("strip", "binutils", "makes tests small enough for the guest"),
    ("xz", "xz-utils", "unpacks modules"),
];
/// Which of the programs run there: the others have nothing to do with the kernel.
const GUEST: [&str; 6] = ["ip", "curl", "nginx", "etcd", "openssl", "tmux"];

/// The runner of the tests. Pinned: the newest one may ask for a newer compiler than ours.
const NEXTEST: &str = "0.9.143";
/// What makes the Debian package.
const CARGO_DEB: &str = "3.8.0";

/// Installs what is missing of what this repository needs, and says what is there.
pub(crate) fn run_all() -> Result<(), String> {
    let toolchain = toolchain()?;
    for_tests()?;
    println!("eBPF toolchain: {}", toolchain.describe());
    let missing: Vec<&str> =
        PROGRAMS.into_iter().filter(|(program, ..)| !is_here(program)).map(|(_, package, _)| package).collect();
    if missing.is_empty() {
        println!("nothing is missing");
    } else {
        // Tests that need one say so at the end of all.
        println!("missing, and tests that need it will be skipped: {}", missing.join(", "));
    }
    Ok(())
}

/// Installs what only tests need, where it is missing.
pub(crate) fn for_tests() -> Result<(), String> {
    install_programs(&PROGRAMS);
    install_nextest()?;
    // Tests that need it are skipped without, and say so.
    python::prepare().unwrap_or_else(|reason| step(&format!("no Python with the libraries of tests: {reason}")));
    kubernetes::prepare().unwrap_or_else(|reason| step(&format!("manifests are not rendered: {reason}")));
    cargo_deb().unwrap_or_else(|reason| step(&format!("no Debian package is made: {reason}")));
    Ok(())
}

/// Installs what the bench runs, where it is missing; with `counters` also what counts system calls.
pub(crate) fn for_bench(counters: bool) {
    let mut wanted: Vec<_> = PROGRAMS.into_iter().filter(|(program, ..)| BENCH.contains(program)).collect();
    wanted.extend(COUNTERS.into_iter().filter(|_| counters));
    install_programs(&wanted);
}

/// Installs what compiles for arm64, where it is missing; with `emulator` also what runs it.
pub(crate) fn for_arm64(emulator: bool) {
    let wanted = ARM64.len() - usize::from(!emulator);
    install_programs(&ARM64[..wanted]);
}

/// Installs what virtual machines are made with and what tests run in them, where it is missing.
pub(crate) fn for_vm() {
    let inside = PROGRAMS.into_iter().filter(|(program, ..)| GUEST.contains(program));
    let wanted: Vec<_> = MACHINES.into_iter().chain(inside).collect();
    install_programs(&wanted);
}

/// The package that has this of what virtual machines are made with, and all that it depends on and is not installed.
pub(crate) fn packages_of(machine: &str) -> Result<Vec<String>, String> {
    let (_, package, _) =
        MACHINES.iter().find(|(program, ..)| *program == machine).ok_or_else(|| format!("{machine}: no package"))?;
    packages::closure(package)
}

/// Brings what the distribution's package manager knows up to date.
pub(crate) fn update_packages() -> Result<(), String> {
    packages::update()
}

/// The Python that has what tests need, for the environment of tests.
pub(crate) fn python() -> PathBuf {
    python::interpreter()
}

/// The toolchain that compiles for the kernel, installed where it is missing. Silent where it is not.
pub(crate) fn toolchain() -> Result<Toolchain, String> {
    detect().or_else(|reasons| {
        step("the eBPF toolchain is missing:");
        for reason in reasons {
            tell(&format!("    {reason}"));
        }
        install_toolchain()
    })
}

fn gather() -> Facts {
    toolchain::gather(toolchain::target(if cfg!(target_endian = "big") { "big" } else { "little" }))
}

fn detect() -> Result<Toolchain, Vec<String>> {
    toolchain::choose(&gather(), oldest())
}

/// The oldest compiler that compiles this.
fn oldest() -> (u32, u32) {
    toolchain::parse_release(env!("CARGO_PKG_RUST_VERSION")).unwrap_or_default()
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
    Err(by_hand(&failures))
}

/// What to do where nothing worked.
fn by_hand(failures: &[String]) -> String {
    let (oldest, linker) = (env!("CARGO_PKG_RUST_VERSION"), linker::VERSION);
    format!(
        "no way to an eBPF toolchain worked here:\n  {}\n\
         Install one of these by hand, then run `cargo xtask setup` again:\n  \
         - `rustup toolchain install {NIGHTLY} --component rust-src`, and bpf-linker {linker} on PATH, from\n    \
           https://github.com/aya-rs/bpf-linker/releases or built with nightly's LLVM version\n  \
         - a /usr/bin/rustc of at least {oldest} with `core` for bpfel-unknown-none (Debian: {}),\n    \
           and bpf-linker {linker} built with its LLVM (Debian: {})",
        failures.join("\n  "),
        COMPILER_PACKAGES.join(", "),
        LINKER_PACKAGES.join(", "),
    )
}

/// A nightly that compiles `core` itself, and a linker on top of that nightly's own LLVM.
fn install_from_rustup() -> Result<(), String> {
    if find("rustup").is_none() {
        return Err("rustup is not installed".into());
    }
    let mut facts = gather();
    // What is there already is not asked of the network.
    if facts.nightly.as_ref().is_none_or(|nightly| !nightly.core || nightly.release < oldest()) {
        let mut rustup = Command::new("rustup");
        rustup.args(["toolchain", "install", NIGHTLY, "--profile", "minimal", "--component", "rust-src"]);
        run(&format!("installing {NIGHTLY} with rust-src"), rustup.arg("--no-self-update"))?;
        facts = gather();
    }
    let nightly = facts.nightly.ok_or_else(|| format!("{NIGHTLY} does not run"))?;
    if facts.linkers.iter().any(|linker| linker.reads(&nightly)) { Ok(()) } else { linker::build_for(&nightly) }
}

fn install_from_distribution() -> Result<(), String> {
    let wanted: Vec<&str> = COMPILER_PACKAGES.into_iter().chain(LINKER_PACKAGES).collect();
    packages::install(&wanted)?;
    let facts = gather();
    let rustc = facts.distribution.ok_or("its compiler does not run")?;
    if facts.linkers.iter().any(|linker| linker.reads(&rustc)) { Ok(()) } else { linker::build_with_system(LLVM) }
}

/// All that are missing at once. One that cannot be had is no reason to run nothing at all: what needs it is skipped, and
/// says so.
fn install_programs(programs: &[(&str, &str, &str)]) {
    let missing: Vec<_> = programs.iter().filter(|(program, ..)| !is_here(program)).collect();
    for (program, _, what_for) in &missing {
        step(&format!("`{program}` is missing ({what_for})"));
    }
    let wanted: Vec<&str> = missing.iter().map(|(_, package, _)| *package).collect();
    if wanted.is_empty() {
        return;
    }
    if let Err(reason) = packages::install_what_there_is(&wanted) {
        step(&reason);
    }
}

/// Servers lie where the path of users does not lead. A Python without what `venv` needs, as distributions come with, is
/// none.
fn is_here(program: &str) -> bool {
    let here = find(program).is_some() || Path::new("/usr/sbin").join(program).is_file();
    here && (program != "python3" || python::can_be_copied())
}

fn install_nextest() -> Result<(), String> {
    // It need not update itself, which would be a third of what there is to compile.
    install_crate("cargo-nextest", NEXTEST, &["--no-default-features", "--features", "default-no-update"])
}

/// Installs what makes the Debian package, where it is missing. Without dpkg's part of that, cargo-deb would make one that
/// names no library it needs.
pub(crate) fn for_deb() -> Result<(), String> {
    let dpkg: Vec<_> = PROGRAMS.into_iter().filter(|(program, ..)| *program == "dpkg-shlibdeps").collect();
    install_programs(&dpkg);
    if !is_here("dpkg-shlibdeps") {
        return Err(
            "dpkg-shlibdeps is missing (Debian: dpkg-dev): a package without it would name no dependencies".into()
        );
    }
    cargo_deb()
}

fn cargo_deb() -> Result<(), String> {
    install_crate("cargo-deb", CARGO_DEB, &[])
}

/// A program of the same name as its crate.
fn install_crate(name: &str, version: &str, features: &[&str]) -> Result<(), String> {
    if find(name).is_some() {
        return Ok(());
    }
    let mut install = cargo();
    install.args(["install", "--locked", name, "--version", version]).args(features);
    run(&format!("building {name} (some minutes)"), &mut install)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gets_no_toolchain_reads_every_reason_and_what_to_install() {
        let said = by_hand(&["rustup: offline".into(), "the distribution: no package rustc-web".into()]);
        for part in
            ["rustup: offline\n", "no package rustc-web\n", NIGHTLY, "rustc-web, ", "llvm-22-dev", "cargo xtask setup"]
        {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
}
