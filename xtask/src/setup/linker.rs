//! bpf-linker, built from crates.io on an LLVM that is here already.
//!
//! Not the binaries of its makers: nothing comes with them by which a download could be verified.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{cargo, run};
use crate::toolchain::{self, Compiler};

/// Pinned: each version knows certain versions of LLVM.
pub(super) const VERSION: &str = "0.13.0";

/// On the LLVM that came with a compiler of rustup: the very one that writes what is to be linked, and no package of the
/// distribution is needed.
pub(super) fn build_for(compiler: &Compiler) -> Result<(), String> {
    let toolchain = compiler.rustc.ancestors().nth(2).ok_or("the nightly lies nowhere")?;
    let library = llvm_of(&toolchain.join("lib"))?;
    // The linker of C asks for a file of exactly this name.
    let links = std::env::temp_dir().join(format!("mesh-llvm-{}", std::process::id()));
    let linked = std::fs::create_dir(&links)
        .and_then(|()| std::os::unix::fs::symlink(library, links.join("libLLVM.so")))
        .map_err(|error| format!("{}: {error}", links.display()));
    let built = linked.and_then(|()| {
        let mut places = vec![links.clone()];
        places.extend(std::env::var_os("LIBRARY_PATH").iter().flat_map(std::env::split_paths));
        let places = std::env::join_paths(places).map_err(|error| error.to_string())?;
        build(compiler.llvm, |command| command.env("LLVM_PREFIX", toolchain).env("LIBRARY_PATH", places))
    });
    // Two files of ours in the temporary directory; if they stay, they harm nobody.
    let _ = std::fs::remove_dir_all(&links);
    built
}

/// The shared LLVM in the library directory of a toolchain.
fn llvm_of(directory: &Path) -> Result<PathBuf, String> {
    let files = std::fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut names = files.flatten().filter(|file| file.file_name().to_string_lossy().starts_with("libLLVM.so."));
    let found = names.next().map(|file| file.path());
    found.ok_or_else(|| format!("{} has no libLLVM.so.* to build bpf-linker on", directory.display()))
}

/// On the distribution's LLVM.
pub(super) fn build_with_system(llvm: u32) -> Result<(), String> {
    // llvm-config of exactly that version must come first: a plain `llvm-config` is often another one.
    let mut path = OsString::from(format!("/usr/lib/llvm-{llvm}/bin:"));
    path.push(std::env::var_os("PATH").unwrap_or_default());
    build(llvm, |command| command.env("PATH", path).env_remove("LLVM_PREFIX"))
}

fn build(llvm: u32, settings: impl FnOnce(&mut Command) -> &mut Command) -> Result<(), String> {
    let home = toolchain::cargo_home().ok_or("neither CARGO_HOME nor HOME is set")?;
    let mut install = cargo();
    // By force: whatever has this name there does not fit, or we would not have come here.
    install.args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force", "--root"]).arg(home);
    install.args(["--no-default-features", "--features", &format!("llvm-{llvm}")]);
    run(&format!("building bpf-linker {VERSION} on LLVM {llvm} (a minute or two)"), settings(&mut install))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_of_a_toolchain_is_the_shared_library_itself() {
        let directory = std::env::temp_dir().join(format!("mesh-llvm-test-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        assert!(llvm_of(&directory).unwrap_err().contains("no libLLVM.so.*"));
        for name in ["libLLVM-23-rust-1.101.0-nightly.so", "libLLVM.so.23.1-rust-1.101.0-nightly"] {
            std::fs::write(directory.join(name), "").unwrap();
        }
        let found = llvm_of(&directory).unwrap();
        assert_eq!(found.file_name().unwrap(), "libLLVM.so.23.1-rust-1.101.0-nightly");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
