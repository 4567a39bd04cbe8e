//! Leaving a test out, loudly: Rust has no skipped tests, so each one is written to the file that
//! `MESH_SKIP_FILE` names, where the runner counts them.

use crate::{cgroup, kernel};
use nix::sys::statvfs::{FsFlags, statvfs};
use std::{env, fs::OpenOptions, io::Write, thread};

/// Leaves the running test out and says why.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        $crate::skip::record(module_path!(), &format!($($reason)*));
        return;
    }};
}

/// The world of one test, or a skip.
#[macro_export]
macro_rules! world {
    () => {
        match $crate::World::new() {
            Ok(world) => world,
            Err(reason) => $crate::skip!("{reason}"),
        }
    };
}

/// Writes down that the running test of `module` was left out.
pub fn record(module: &str, reason: &str) {
    let test = test_name();
    eprintln!("SKIPPED {module}::{test}: {reason}");
    if let Some(path) = env::var_os("MESH_SKIP_FILE") {
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("MESH_SKIP_FILE can be written");
        // One write call a line, so that lines of tests running at once do not mix.
        file.write_all(format!("{module}::{test}: {reason}\n").as_bytes()).expect("MESH_SKIP_FILE can be written");
    }
}

/// The name of the running test: its thread's, or, where a single test runs in the main thread, the last argument.
#[must_use]
pub fn test_name() -> String {
    match thread::current().name() {
        Some(name) if name != "main" => name.to_owned(),
        _ => env::args().next_back().unwrap_or_default(),
    }
}

/// Whether this machine can run tests with the kernel at all.
///
/// # Errors
/// What is missing.
pub fn requirements() -> Result<(), String> {
    bpf_requirements()?;
    let root = cgroup::mount_point().ok_or("needs a cgroup2 mount, none in /proc/mounts")?;
    // Containers may have it mounted read-only.
    let read_only = statvfs(&root).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_RDONLY));
    if read_only {
        Err(format!("needs a cgroup2 that can be written, {} is read-only", root.display()))
    } else {
        Ok(())
    }
}

/// Whether it can run those that load a program and attach nothing.
///
/// # Errors
/// What is missing.
pub fn bpf_requirements() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("needs root: network namespaces, cgroups and BPF programs".into());
    }
    kernel::bpf_works().map_err(|e| format!("needs the bpf system call: {e}"))
}
