//! Which compiler and linker can make the eBPF object on this machine?
//!
//! The object needs `core` for a target that rustup ships no `core` for, and a linker whose LLVM can read what the
//! compiler writes. Two ways are known: a nightly that compiles `core` itself, and a distribution's compiler that
//! comes with it. Facts are gathered first and judged apart, so that the judging is tested without a machine.
//!
//! `bpf_object.rs`, a part of build scripts, includes this file by path: std only, and no crate of this workspace.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The compiler that Debian and its family put here, beside whatever rustup manages.
const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";

/// The toolchain of rustup that `cargo xtask setup` installs. Pinned: aya and bpf-linker follow the nightlies, and not
/// on the same day. Whatever `nightly` is here serves as well, if it fits.
pub(crate) const NIGHTLY: &str = "nightly-2026-10-30";

/// The target of the object: eBPF has the byte order of the machine it runs on.
pub(crate) fn target(endian: &str) -> &'static str {
    if endian == "big" { "bpfeb-unknown-none" } else { "bpfel-unknown-none" }
}

/// A compiler, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    pub(crate) rustc: PathBuf,
    /// Major and minor.
    pub(crate) release: (u32, u32),
    /// Major version of the LLVM that writes its bitcode.
    pub(crate) llvm: u32,
    /// Whether it has `core` for the target: as sources (nightly) or compiled (distribution).
    pub(crate) core: bool,
}

/// A bpf-linker found on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Linker {
    pub(crate) path: PathBuf,
    /// Major version of the shared LLVM it loads; none if LLVM is linked into it.
    pub(crate) llvm: Option<u32>,
}

impl Linker {
    /// LLVM reads the bitcode of its own and of older versions. A linker with LLVM inside is a release of its
    /// makers, who follow nightly.
    pub(crate) fn reads(&self, compiler: &Compiler) -> bool {
        self.llvm.is_none_or(|own| own >= compiler.llvm)
    }
}

/// What this machine has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) nightly: Option<Compiler>,
    pub(crate) distribution: Option<Compiler>,
    pub(crate) linkers: Vec<Linker>,
}

/// How the object gets its `core`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Compiled from rust-src, by a nightly of rustup.
    Nightly,
    /// Compiled beforehand, by the distribution.
    Distribution,
}

/// A compiler and a linker that fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    pub(crate) way: Way,
    pub(crate) compiler: Compiler,
    pub(crate) linker: PathBuf,
}

/// What to run: a program, its arguments, its environment. The caller adds package, profile and directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recipe {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(&'static str, OsString)>,
}

impl Toolchain {
    /// How to compile for `target`, whose programs will run on kernels of `arch`. `cargo` is the one that was called.
    pub(crate) fn recipe(&self, cargo: &Path, target: &str, arch: &str) -> Recipe {
        let mut args: Vec<OsString> = ["build", "--target", target].map(OsString::from).to_vec();
        let mut env = vec![("RUSTC", self.compiler.rustc.clone().into_os_string())];
        let program = match self.way {
            Way::Nightly => {
                args.extend(["-Z", "build-std=core"].map(OsString::from));
                // Its own cargo: build-std belongs to cargo, and is unknown to a stable one.
                self.compiler.rustc.with_file_name("cargo")
            }
            Way::Distribution => {
                // aya-ebpf uses features that are not stable; the distribution has no nightly.
                env.push(("RUSTC_BOOTSTRAP", "1".into()));
                cargo.to_path_buf()
            }
        };
        env.push(("CARGO_ENCODED_RUSTFLAGS", self.rustflags(arch)));
        Recipe { program, args, env }
    }

    fn rustflags(&self, arch: &str) -> OsString {
        let mut linker = OsString::from("-Clinker=");
        linker.push(&self.linker);
        let flags = [
            linker,
            "-Cdebuginfo=2".into(),
            "-Clink-arg=--btf".into(),
            "-Cpanic=abort".into(),
            // v3: atomics that return the old value, and 32-bit registers.
            "-Ctarget-cpu=v3".into(),
            // aya-ebpf would otherwise take the machine that compiles for the one that runs.
            format!("--cfg=bpf_target_arch=\"{arch}\"").into(),
        ];
        // Not separated by spaces: a path may contain one.
        flags.join(std::ffi::OsStr::new("\x1f"))
    }

    /// One line for people.
    pub(crate) fn describe(&self) -> String {
        let (major, minor) = self.compiler.release;
        let core = match self.way {
            Way::Nightly => "core built from rust-src",
            Way::Distribution => "core from the distribution",
        };
        let (rustc, linker) = (self.compiler.rustc.display(), self.linker.display());
        format!("{rustc} ({major}.{minor}, LLVM {}, {core}), {linker}", self.compiler.llvm)
    }
}

/// The toolchain to use, or for each way the reason why it cannot be used. `oldest` is the workspace's `rust-version`.
pub(crate) fn choose(facts: &Facts, oldest: (u32, u32)) -> Result<Toolchain, Vec<String>> {
    let ways = [(Way::Nightly, &facts.nightly), (Way::Distribution, &facts.distribution)];
    let mut reasons = Vec::new();
    for (way, compiler) in ways {
        match usable(way, compiler.as_ref(), &facts.linkers, oldest) {
            Ok(toolchain) => return Ok(toolchain),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(reasons)
}

fn usable(way: Way, compiler: Option<&Compiler>, linkers: &[Linker], oldest: (u32, u32)) -> Result<Toolchain, String> {
    let (name, core) = match way {
        Way::Nightly => ("rustup nightly", "rust-src"),
        Way::Distribution => (DISTRIBUTION_RUSTC, "core for eBPF"),
    };
    let compiler = compiler.ok_or_else(|| format!("{name}: not installed"))?;
    let (major, minor) = compiler.release;
    if compiler.release < oldest {
        return Err(format!("{name}: {major}.{minor} is older than {}.{}", oldest.0, oldest.1));
    }
    if !compiler.core {
        return Err(format!("{name}: {major}.{minor} has no {core}"));
    }
    let Some(linker) = linkers.iter().find(|linker| linker.reads(compiler)) else {
        return Err(match linkers.first() {
            None => format!("{name}: no bpf-linker on PATH or in cargo's bin directory"),
            Some(linker) => format!(
                "{name}: it writes LLVM {}, {} reads only up to LLVM {}",
                compiler.llvm,
                linker.path.display(),
                linker.llvm.unwrap_or_default(),
            ),
        });
    };
    Ok(Toolchain { way, compiler: compiler.clone(), linker: linker.path.clone() })
}

/// Looks at this machine. Takes some tens of milliseconds: a handful of programs are asked who they are.
pub(crate) fn gather(target: &str) -> Facts {
    let nightlies = [NIGHTLY, "nightly"].into_iter().filter_map(|name| {
        let path = output(Command::new("rustup").args(["which", "--toolchain", name, "rustc"]))?;
        compiler(Path::new(path.trim()), |sysroot| source_of_core(sysroot).is_file())
    });
    let nightly = prefer(nightlies, |nightly| nightly.core);
    let prebuilt = |sysroot: &Path| sysroot.join("lib/rustlib").join(target).join("lib").is_dir();
    let distribution = compiler(Path::new(DISTRIBUTION_RUSTC), prebuilt);
    let linkers = directories().into_iter().filter_map(|directory| linker(&directory.join("bpf-linker"))).collect();
    Facts { nightly, distribution, linkers }
}

/// The first that has what is wanted, or else the first, by which to say what is not.
fn prefer<T>(all: impl Iterator<Item = T>, wanted: impl Fn(&T) -> bool) -> Option<T> {
    let mut first = None;
    for one in all {
        if wanted(&one) {
            return Some(one);
        }
        first = first.or(Some(one));
    }
    first
}

/// Where a program may lie: PATH, and where `cargo install` puts things even if PATH does not say so.
pub(crate) fn directories() -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    directories.extend(cargo_home().map(|home| home.join("bin")));
    directories
}

/// Where cargo keeps its things, and `cargo install` puts programs into `bin`.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))
}

fn source_of_core(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs")
}

fn compiler(rustc: &Path, has_core: impl Fn(&Path) -> bool) -> Option<Compiler> {
    let version = output(Command::new(rustc).arg("-vV"))?;
    let (release, llvm) = parse_version(&version)?;
    let sysroot = output(Command::new(rustc).args(["--print", "sysroot"]))?;
    Some(Compiler { rustc: rustc.to_path_buf(), release, llvm, core: has_core(Path::new(sysroot.trim())) })
}

fn linker(path: &Path) -> Option<Linker> {
    let program = std::fs::read(path).ok()?;
    // One whose LLVM went away with a toolchain does not even start.
    output(Command::new(path).arg("--version"))?;
    Some(Linker { path: path.to_path_buf(), llvm: parse_needed_llvm(&program) })
}

/// Release and LLVM's major version out of `rustc -vV`.
pub(crate) fn parse_version(text: &str) -> Option<((u32, u32), u32)> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let release = parse_release(field("release:")?)?;
    let llvm = field("LLVM version:")?.split('.').next()?.parse().ok()?;
    Some((release, llvm))
}

/// Major and minor out of `1.95.0` or `1.101.0-nightly`.
pub(crate) fn parse_release(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The major version in the name of the shared LLVM a program loads: `libLLVM.so.22.1`, before LLVM 18
/// `libLLVM-17.so.1`. bpf-linker itself does not tell.
pub(crate) fn parse_needed_llvm(program: &[u8]) -> Option<u32> {
    const PREFIX: &[u8] = b"libLLVM";
    program.windows(PREFIX.len()).enumerate().filter(|(_, window)| *window == PREFIX).find_map(|(at, _)| {
        let rest = &program[at + PREFIX.len()..];
        let rest = rest.strip_prefix(b".so.").or_else(|| rest.strip_prefix(b"-"))?;
        let digits: String =
            rest.iter().take_while(|byte| byte.is_ascii_digit()).map(|byte| char::from(*byte)).collect();
        digits.parse().ok()
    })
}

fn output(command: &mut Command) -> Option<String> {
    // A proxy of rustup that is asked about a toolchain must not go and fetch it. And cargo hands its own libraries
    // on to build scripts, where another compiler would find them before its own.
    let command = command.env("RUSTUP_AUTO_INSTALL", "0").env_remove("LD_LIBRARY_PATH");
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then_some(())?;
    String::from_utf8(output.stdout).ok()
}

#[cfg(test)]
#[path = "toolchain_tests.rs"]
mod tests;
