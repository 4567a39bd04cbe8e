//! Where the demo plays: a cgroup, a bpffs directory and a temporary directory of its own, and every process it starts.
//! Whatever ends the demo, all of it is taken away again.

use std::fs::DirBuilder;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::actors::Speech;
use super::cast::{self, Backend, Service};
use super::daemon::{Daemon, end};
use super::leftovers::{BPFFS, PREFIX, remove_all, remove_cgroup, sweep};
use super::tally::{Report, Tally};
use crate::ports::{self, Port};
use crate::prerequisites::{mounted, read};
use crate::process::tell;

/// How long one client waits between two connections.
const PAUSE: Duration = Duration::from_millis(15);

/// What the clients have seen so far.
#[derive(Default)]
struct Seen {
    tally: Tally,
    /// Addresses that `getpeername` gave, in the order of their first appearance.
    peers: Vec<String>,
}

pub(super) struct Stage {
    pub(super) daemon: Daemon,
    pub(super) cgroup: PathBuf,
    bpffs: PathBuf,
    home: PathBuf,
    backends: Vec<(&'static str, Child)>,
    clients: Vec<(&'static str, Child)>,
    seen: Arc<Mutex<Seen>>,
    _admin: Port,
    _proxy: Port,
}

impl Stage {
    /// Makes the places; starts nothing.
    pub(super) fn set(mesh: PathBuf, services: &[Service]) -> Result<Stage, String> {
        let mounts = read("/proc/self/mounts");
        let root = PathBuf::from(mounted(&mounts, "cgroup2").ok_or("no cgroup2 is mounted")?);
        sweep(&root);
        let name = format!("{PREFIX}{}", std::process::id());
        let home = std::env::temp_dir().join(&name);
        let here = IpAddr::from(Ipv4Addr::LOCALHOST);
        let port = ports::reserve(19901, &[here])?;
        let admin = (here, port.number).into();
        let proxy = ports::reserve(15001, &[here])?;
        let cgroup = root.join(&name);
        let stage = Stage {
            daemon: Daemon::new(mesh, &home, &cgroup, admin),
            cgroup,
            bpffs: Path::new(BPFFS).join(&name),
            home,
            backends: Vec::new(),
            clients: Vec::new(),
            seen: Arc::default(),
            _admin: port,
            _proxy: proxy,
        };
        make_directory(&stage.home)?;
        make_directory(&stage.cgroup)?;
        let text = cast::configuration(services, &stage.home, &stage.cgroup, &stage.bpffs, admin, stage._proxy.number);
        let path = stage.daemon.config();
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(stage)
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

    /// One client for each VIP of the service, in the cgroup, who asks so many questions by a connection (0: all).
    pub(super) fn start_clients(&mut self, service: &Service, questions: u64) -> Result<(), String> {
        for vip in service.vips.iter().copied() {
            let mut command = ourselves()?;
            command.args(["demo-client", speech_name(service.speech), &vip.to_string()]).arg(&self.cgroup);
            command.args([PAUSE.as_millis().to_string(), questions.to_string()]);
            let mut child = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
            if let Some(reports) = child.stdout.take() {
                let seen = Arc::clone(&self.seen);
                std::thread::spawn(move || {
                    for report in BufReader::new(reports).lines().map_while(Result::ok) {
                        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                        match Report::parse(&report) {
                            Some(Report::Peer(peer)) if !seen.peers.contains(&peer) => seen.peers.push(peer),
                            Some(report) => seen.tally.hear(vip, report),
                            None => {}
                        }
                    }
                });
            }
            self.clients.push((service.name, child));
        }
        Ok(())
    }

    /// Ends the clients of a service.
    pub(super) fn stop_clients(&mut self, service: &Service) {
        let (ended, stay) = std::mem::take(&mut self.clients).into_iter().partition(|(of, _)| *of == service.name);
        self.clients = stay;
        let ended: Vec<(&str, Child)> = ended;
        ended.into_iter().for_each(|(_, mut child)| end(&mut child));
    }

    /// One request by a client in the cgroup.
    pub(super) fn ask(&self, vip: SocketAddr, header: Option<&str>) -> Result<Report, String> {
        let mut command = ourselves()?;
        command.args(["demo-request", &vip.to_string()]).arg(&self.cgroup).args(header).stdin(Stdio::null());
        let output = command.process_group(0).output().map_err(|error| format!("demo-request: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        Report::parse(&said).ok_or_else(|| format!("demo-request: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// What the clients have seen up to now.
    pub(super) fn tally(&self) -> Tally {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).tally.clone()
    }

    /// The addresses that applications believe to be connected to.
    pub(super) fn peers(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).peers.clone()
    }

    /// Takes everything away, and returns what went wrong with that. Does nothing the second time.
    pub(super) fn clear(&mut self) -> Vec<String> {
        let mut trouble = Vec::new();
        self.clients.iter_mut().for_each(|(_, child)| end(child));
        self.clients.clear();
        trouble.extend(self.daemon.stop().err());
        if self.bpffs.exists() {
            let config = self.daemon.config();
            trouble.extend(self.daemon.command(&["unload", "--config", &config.to_string_lossy()]).err());
        }
        self.backends.iter_mut().for_each(|(_, child)| end(child));
        self.backends.clear();
        for place in [&self.bpffs, &self.home] {
            remove_all(place);
        }
        remove_cgroup(&self.cgroup);
        let left = [&self.bpffs, &self.home, &self.cgroup].into_iter().filter(|place| place.exists());
        trouble.extend(left.map(|place| format!("left behind: {}", place.display())));
        trouble
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.clear().iter().for_each(|trouble| tell(trouble));
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

fn speech_name(speech: Speech) -> &'static str {
    match speech {
        Speech::Http => "http",
        Speech::Line => "line",
    }
}
