//! The daemon of the demo: started, asked, ended.

use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::page;
use crate::interrupt;

/// How long the daemon may take to be ready, or to end.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) struct Daemon {
    pub(super) mesh: PathBuf,
    /// Configuration, socket and log lie here.
    home: PathBuf,
    cgroup: PathBuf,
    admin: SocketAddr,
    child: Option<Child>,
    /// From then on it knows what to do at SIGTERM.
    ready: bool,
}

impl Daemon {
    pub(super) fn new(mesh: PathBuf, home: &Path, cgroup: &Path, admin: SocketAddr) -> Daemon {
        Daemon { mesh, home: home.to_owned(), cgroup: cgroup.to_owned(), admin, child: None, ready: false }
    }

    pub(super) fn config(&self) -> PathBuf {
        self.home.join("mesh.yaml")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.home.join("admin.sock")
    }

    fn log(&self) -> PathBuf {
        self.home.join("mesh.log")
    }

    /// Starts it and waits until it says that it is ready. Returns its pid.
    pub(super) fn start(&mut self) -> Result<u32, String> {
        let path = self.log();
        let log = std::fs::File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut command = Command::new(&self.mesh);
        command.args(["run", "--config"]).arg(self.config());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        // SAFETY: prctl is one system call, allowed between fork and exec; it touches no memory of ours.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
                Ok(())
            });
        }
        let child = command.spawn().map_err(|error| format!("{}: {error}", self.mesh.display()))?;
        let pid = child.id();
        let child = self.child.insert(child);
        self.ready = false;
        // So that the kernel counts its connections to endpoints as well: as where it serves the whole node.
        let procs = self.cgroup.join("cgroup.procs");
        std::fs::write(&procs, pid.to_string()).map_err(|error| format!("{}: {error}", procs.display()))?;
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("the daemon ended: {status}"));
            }
            if page::get(self.admin, "/ready").is_ok() {
                self.ready = true;
                return Ok(pid);
            }
            interrupt::sleep(Duration::from_millis(20))?;
        }
        Err(format!("the daemon is not ready after {} s", PATIENCE.as_secs()))
    }

    /// Runs the command line against it and returns what was printed.
    pub(super) fn command(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&self.mesh);
        command.args(arguments).env("MESH_ADMIN_SOCKET", self.socket()).stdin(Stdio::null());
        // Apart from Ctrl-C, like all children: one that is interrupted would look like one that failed.
        let output = command.process_group(0).output().map_err(|error| format!("{}: {error}", self.mesh.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("`mesh {}`: {}: {}{}", arguments.join(" "), output.status, text, said.trim_end()))
    }

    /// Where the metrics are.
    pub(super) fn metrics_url(&self) -> String {
        format!("http://{}/metrics", self.admin)
    }

    pub(super) fn metrics(&self) -> Result<String, String> {
        page::get(self.admin, "/metrics")
    }

    /// The end of its log, for a demo that fails.
    pub(super) fn end_of_log(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// SIGKILL, as if it had crashed.
    pub(super) fn kill(&mut self) -> Result<u32, String> {
        let mut child = self.child.take().ok_or("no daemon runs")?;
        end(&mut child);
        Ok(child.id())
    }

    /// SIGTERM, as an operator ends it. Killed where that does not work, which is an error.
    pub(super) fn stop(&mut self) -> Result<(), String> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Ok(pid) = i32::try_from(child.id()) {
            // SAFETY: takes two numbers. The pid is of a child that was not waited for, so it is still that child's.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            match child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                Ok(Some(status)) if status.success() || !self.ready => return Ok(()),
                Ok(Some(status)) => {
                    let how = status.signal().map_or(status.to_string(), |signal| format!("signal {signal}"));
                    return Err(format!("the daemon did not end well: {how}\n{}", self.end_of_log()));
                }
                Err(_) => break,
            }
        }
        end(&mut child);
        Err(format!("the daemon did not end within {} s and was killed", PATIENCE.as_secs()))
    }
}

/// SIGKILL, and no zombie.
pub(super) fn end(child: &mut Child) {
    // Both fail only if it has ended already.
    let _ = child.kill();
    let _ = child.wait();
}
