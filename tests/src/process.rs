//! Children: where they live, and how long they may take.

use crate::{Netns, Outcome, cgroup};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    env,
    io::{self, Write},
    os::{fd::AsFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// How long a command of a test may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Lets `command` start inside a cgroup and a network namespace.
///
/// # Errors
/// Where these cannot be opened.
pub fn place(command: &mut Command, cgroup: Option<&Path>, netns: Option<&Netns>) -> io::Result<()> {
    let mut procs = cgroup.map(cgroup::procs).transpose()?;
    let netns = netns.map(|n| n.as_fd().try_clone_to_owned()).transpose()?;
    let join = move || {
        if let Some(procs) = &mut procs {
            procs.write_all(b"0")?;
        }
        if let Some(netns) = &netns {
            setns(netns, CloneFlags::CLONE_NEWNET)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only two plain system calls are made, on descriptors opened before.
    unsafe { command.pre_exec(join) };
    Ok(())
}

/// How long one may take that packs, unpacks or installs things.
const LONG: Duration = Duration::from_secs(300);

/// Runs `command` to its end.
pub fn run(command: &mut Command) -> Outcome {
    run_with(command, Stdio::null())
}

/// As [`run`], for what may take minutes on a busy machine.
pub fn run_long(command: &mut Command) -> Outcome {
    run_within(LONG, command, Stdio::null())
}

/// As [`run`], with something to read.
///
/// # Panics
/// As [`run`].
pub fn run_with(command: &mut Command, input: Stdio) -> Outcome {
    run_within(LIMIT, command, input)
}

fn run_within(limit: Duration, command: &mut Command, input: Stdio) -> Outcome {
    let shown = format!("{command:?}");
    let child = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap_or_else(|e| panic!("{shown} does not start: {e}"));
    let pid = child.id();
    let (sender, receiver) = mpsc::channel();
    let waiter = thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = receiver.recv_timeout(limit) else {
        // Not reaped before the thread ends, so the number is still this child's.
        signal(pid, Signal::SIGKILL);
        let _ = waiter.join();
        panic!("{shown}: no end after {limit:?}");
    };
    Outcome::new(&shown, output.expect("a child's output can be read"))
}

/// Sends a signal to a child that has not been waited for.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        // It may be a zombie already.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// The `mesh` binary under test: `MESH_BIN`, else the one built beside this test.
#[must_use]
pub fn mesh() -> PathBuf {
    if let Some(path) = env::var_os("MESH_BIN") {
        return PathBuf::from(path);
    }
    let path = beside("mesh");
    assert!(path.exists(), "{} is missing: run `cargo xtask build` first, or set MESH_BIN", path.display());
    path
}

/// The helper program of this package; cargo builds it before any test of the package.
pub(crate) fn peer() -> PathBuf {
    let path = beside("mesh-test-peer");
    assert!(path.exists(), "{} is missing: `cargo build -p mesh-tests` builds it", path.display());
    path
}

/// A binary in the directory above the test's own (`target/debug/deps/TEST` → `target/debug/NAME`).
pub(crate) fn beside(name: &str) -> PathBuf {
    let me = env::current_exe().expect("a test knows its own path");
    let directory = me.ancestors().find(|d| d.is_dir() && !d.ends_with("deps")).expect("a test lies in a directory");
    directory.join(name)
}
