//! Where the demo plays: a cgroup, a bpffs directory and a temporary directory of its own, and every process it starts.
//! Whatever ends the demo, `Drop` takes all of it away again.

use std::fs::DirBuilder;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::actors::Speech;
use super::cast::{self, Backend, Service};
use super::interrupt;
use super::leftovers::{BPFFS, PREFIX, remove_all, remove_cgroup, sweep};
use super::tally::{Report, Tally};
use crate::prerequisites::{mounted, read};

/// How long one client waits between two connections.
const PAUSE: Duration = Duration::from_millis(15);
/// How long the daemon may take to be ready, or to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the clients have seen so far.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) tally: Tally,
    /// Addresses that `getpeername` gave, in the order of their first appearance.
    pub(super) peers: Vec<String>,
}

pub(super) struct Stage {
    mesh: PathBuf,
    cgroup: PathBuf,
    bpffs: PathBuf,
    home: PathBuf,
    pub(super) admin: SocketAddr,
    daemon: Option<Child>,
    backends: Vec<(&'static str, Child)>,
    clients: Vec<Child>,
    seen: Arc<Mutex<Seen>>,
}

impl Stage {
    /// Makes the places; starts nothing.
    pub(super) fn set(mesh: PathBuf, services: &[Service]) -> Result<Stage, String> {
        let mounts = read("/proc/self/mounts");
        let root = PathBuf::from(mounted(&mounts, "cgroup2").ok_or("no cgroup2 is mounted")?);
        sweep(&root);
        let name = format!("{PREFIX}{}", std::process::id());
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| format!("a port for the daemon: {error}"))?;
        let admin = listener.local_addr().map_err(|error| format!("a port for the daemon: {error}"))?;
        let stage = Stage {
            mesh,
            cgroup: root.join(&name),
            bpffs: Path::new(BPFFS).join(&name),
            home: std::env::temp_dir().join(&name),
            admin,
            daemon: None,
            backends: Vec::new(),
            clients: Vec::new(),
            seen: Arc::default(),
        };
        make_directory(&stage.home)?;
        make_directory(&stage.cgroup)?;
        let text = cast::configuration(services, &stage.home, &stage.cgroup, &stage.bpffs, admin);
        let path = stage.config();
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(stage)
    }

    pub(super) fn cgroup(&self) -> &Path {
        &self.cgroup
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

    /// Starts a backend and waits until it listens. Returns its pid.
    pub(super) fn start_backend(&mut self, backend: &Backend, speech: Speech) -> Result<u32, String> {
        let mut command = ourselves()?;
        command.args(["demo-backend", backend.name, speech_name(speech), &backend.address.to_string()]);
        let mut child = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let pid = child.id();
        let mut line = String::new();
        let said = child.stdout.take().map(|said| BufReader::new(said).read_line(&mut line));
        self.backends.push((backend.name, child));
        if !matches!(said, Some(Ok(1..))) {
            return Err(format!("backend {} did not start", backend.name));
        }
        Ok(pid)
    }

    /// SIGKILL, as if it had crashed.
    pub(super) fn kill_backend(&mut self, name: &str) -> Result<u32, String> {
        let at = self.backends.iter().position(|(own, _)| *own == name).ok_or(format!("no backend {name} runs"))?;
        let (_, mut child) = self.backends.remove(at);
        end(&mut child);
        Ok(child.id())
    }

    /// Starts the daemon and waits until it says that it is ready. Returns its pid.
    pub(super) fn start_daemon(&mut self) -> Result<u32, String> {
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
        let child = self.daemon.insert(child);
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(format!("the daemon ended: {status}"));
            }
            if get(self.admin, "/ready").is_ok() {
                return Ok(pid);
            }
            interrupt::sleep(Duration::from_millis(20))?;
        }
        Err(format!("the daemon is not ready after {} s", PATIENCE.as_secs()))
    }

    /// One client for each VIP of the service, in the cgroup.
    pub(super) fn start_clients(&mut self, service: &Service) -> Result<(), String> {
        for vip in service.vips {
            let mut command = ourselves()?;
            command.args(["demo-client", speech_name(service.speech), &vip.to_string()]).arg(&self.cgroup);
            command.arg(PAUSE.as_millis().to_string());
            let mut child = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
            if let Some(reports) = child.stdout.take() {
                let (seen, name) = (Arc::clone(&self.seen), service.name);
                std::thread::spawn(move || {
                    for report in BufReader::new(reports).lines().map_while(Result::ok) {
                        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                        match Report::parse(&report) {
                            Some(Report::Outcome(outcome)) => seen.tally.add(name, outcome),
                            Some(Report::Peer(peer)) if !seen.peers.contains(&peer) => seen.peers.push(peer),
                            _ => {}
                        }
                    }
                });
            }
            self.clients.push(child);
        }
        Ok(())
    }

    /// What the clients have seen up to now.
    pub(super) fn tally(&self) -> Tally {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).tally.clone()
    }

    /// The addresses that applications believe to be connected to.
    pub(super) fn peers(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).peers.clone()
    }

    /// Runs the command line against our daemon and returns what it printed.
    pub(super) fn mesh(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&self.mesh);
        command.args(arguments).env("MESH_ADMIN_SOCKET", self.socket()).stdin(Stdio::null());
        let output = command.output().map_err(|error| format!("{}: {error}", self.mesh.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("`mesh {}`: {}: {}{}", arguments.join(" "), output.status, text, said.trim_end()))
    }

    /// A page of the daemon's HTTP side.
    pub(super) fn get(&self, path: &str) -> Result<String, String> {
        get(self.admin, path)
    }

    /// The end of the daemon's log, for a demo that fails.
    pub(super) fn end_of_log(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// SIGTERM first: how it ends is part of what is shown.
    fn stop_daemon(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        if let Ok(pid) = i32::try_from(daemon.id()) {
            // SAFETY: takes two numbers. The pid is of a child that was not waited for, so it is still that child's.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            match daemon.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                Ok(Some(status)) if status.success() => return,
                Ok(Some(status)) => {
                    let how = status.signal().map_or(status.to_string(), |signal| format!("signal {signal}"));
                    return eprintln!("the daemon did not end well: {how}\n{}", self.end_of_log());
                }
                Err(_) => break,
            }
        }
        eprintln!("the daemon did not end within {} s and was killed", PATIENCE.as_secs());
        end(&mut daemon);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.clients.iter_mut().for_each(end);
        self.stop_daemon();
        if self.bpffs.exists() {
            let config = self.config();
            if let Err(reason) = self.mesh(&["unload", "--config", &config.to_string_lossy()]) {
                eprintln!("{reason}");
            }
        }
        self.backends.iter_mut().for_each(|(_, child)| end(child));
        for place in [&self.bpffs, &self.home] {
            remove_all(place);
        }
        remove_cgroup(&self.cgroup);
        for place in [&self.bpffs, &self.home, &self.cgroup] {
            if place.exists() {
                eprintln!("left behind: {}", place.display());
            }
        }
    }
}

fn make_directory(path: &Path) -> Result<(), String> {
    DirBuilder::new().mode(0o700).create(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn ourselves() -> Result<Command, String> {
    std::env::current_exe().map(Command::new).map_err(|error| format!("where are we? {error}"))
}

/// In a process group of its own: Ctrl-C is for the demo, which ends its children in order.
fn spawn(command: &mut Command) -> Result<Child, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.process_group(0).spawn().map_err(|error| format!("{name}: {error}"))
}

fn end(child: &mut Child) {
    // Both fail only if it has ended already.
    let _ = child.kill();
    let _ = child.wait();
}

fn speech_name(speech: Speech) -> &'static str {
    match speech {
        Speech::Http => "http",
        Speech::Line => "line",
    }
}

/// The body of a page, if the answer is 200. HTTP/1.0, so that it comes in one piece.
fn get(address: SocketAddr, path: &str) -> Result<String, String> {
    let what = |error: std::io::Error| format!("http://{address}{path}: {error}");
    let mut stream = TcpStream::connect(address).map_err(what)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(what)?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes()).map_err(what)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(what)?;
    body(&text)
        .map(str::to_owned)
        .ok_or_else(|| format!("http://{address}{path}: {}", text.lines().next().unwrap_or("no answer")))
}

fn body(answer: &str) -> Option<&str> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    (head.split_whitespace().nth(1) == Some("200")).then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_page_that_was_found_has_a_body() {
        assert_eq!(body("HTTP/1.0 200 OK\r\nx: y\r\n\r\nhello"), Some("hello"));
        assert_eq!(body("HTTP/1.0 503 Service Unavailable\r\n\r\nno"), None);
        assert_eq!(body("nonsense"), None);
    }
}
