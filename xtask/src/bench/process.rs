//! What is started here, and how it ends: by pid, whatever happens.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::proc;
use crate::interrupt;

/// How long a server may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(5);

/// A server, with all that it starts itself. Ended when dropped.
pub(super) struct Server {
    pub(super) name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Server {
    pub(super) fn start(name: &'static str, mut command: Command, log: &Path) -> Result<Server, String> {
        let child = spawn(&mut command, log)?;
        Ok(Server { name, child, log: log.to_owned() })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Nothing while it runs, else how it ended and what it said last.
    pub(super) fn check(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("{} ended: {status}\n{}", self.name, self.last_words())),
            Err(error) => Err(format!("{}: {error}", self.name)),
        }
    }

    pub(super) fn last_words(&self) -> String {
        end_of(&self.log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Noted before it ends: those whom it leaves behind have another parent then.
        let family = proc::family(self.pid());
        if matches!(self.child.try_wait(), Ok(None)) {
            signal(self.pid(), libc::SIGTERM);
        }
        let asked = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && asked.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
        for pid in family.into_iter().skip(1).filter(|pid| proc::lives(*pid)) {
            signal(pid, libc::SIGKILL);
        }
        kill(&mut self.child);
    }
}

/// Runs a program to its end and returns what it printed. An error says that it could not start, took longer than `limit`, or that
/// somebody asked us to end. What a program that failed said is for the caller to make sense of.
pub(super) fn run(mut command: Command, limit: Duration, log: &Path) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = Running(spawn(&mut command, log)?);
    let started = Instant::now();
    while matches!(child.0.try_wait(), Ok(None)) {
        if started.elapsed() > limit {
            return Err(format!("{name} did not end within {} s", limit.as_secs()));
        }
        interrupt::sleep(Duration::from_millis(5))?;
    }
    std::fs::read_to_string(log).map_err(|error| format!("{}: {error}", log.display()))
}

/// Starts what counts while something else runs, and is told to stop by SIGINT.
pub(super) fn spawn_counter(mut command: Command, log: &Path) -> Result<Running, String> {
    spawn(&mut command, log).map(Running)
}

/// A child that does not outlive this.
pub(super) struct Running(Child);

impl Running {
    /// SIGINT, upon which it prints what it has counted; returns when it has.
    pub(super) fn finish(mut self) {
        signal(self.0.id(), libc::SIGINT);
        let asked = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && asked.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        kill(&mut self.0);
    }
}

/// The end of what a program printed, for an error.
pub(super) fn end_of(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// In a group of its own, so that Ctrl-C is ours alone; and ended by the kernel if we are killed outright.
fn spawn(command: &mut Command, log: &Path) -> Result<Child, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let file = || File::create(log).and_then(|file| Ok((file.try_clone()?, file)));
    let (out, err) = file().map_err(|error| format!("{}: {error}", log.display()))?;
    command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
    // SAFETY: prctl is one system call, allowed between fork and exec; it touches no memory of ours.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            Ok(())
        });
    }
    command.spawn().map_err(|error| format!("{name}: {error}"))
}

fn signal(pid: u32, signal: libc::c_int) {
    if let Ok(pid) = i32::try_from(pid) {
        // SAFETY: takes two numbers. The pid is of a child that was not waited for, or was seen below one just now.
        unsafe { libc::kill(pid, signal) };
    }
}

/// SIGKILL, and no zombie.
fn kill(child: &mut Child) {
    // Both fail only if it has ended already.
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_takes_too_long_is_ended_and_named() {
        let log = std::env::temp_dir().join(format!("mesh-bench-test-{}", std::process::id()));
        let mut sleep = Command::new("sleep");
        sleep.arg("60");
        let error = run(sleep, Duration::from_millis(20), &log).unwrap_err();
        assert!(error.starts_with("sleep did not end"), "{error}");
        let mut echo = Command::new("echo");
        echo.arg("hello");
        assert_eq!(run(echo, Duration::from_secs(60), &log).unwrap(), "hello\n");
        std::fs::remove_file(log).unwrap();
    }
}
