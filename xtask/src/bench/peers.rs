//! Who is measured, and how it is started: each with one worker, in front of the same three ports of the backend.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use super::proc;
use super::process::Server;
use super::scenario::Doors;
use crate::ports::{self, Port};
use crate::process::{find, is_root};
use crate::{interrupt, prerequisites::read};

/// How long a server may take until it listens.
const PATIENCE: Duration = Duration::from_secs(15);
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const FIRST_PORT: u16 = 21_000;
/// Of our directory's name; our pid follows.
const PREFIX: &str = "mesh-bench-";
/// Of the body of a download.
const DOWNLOAD: usize = 10 << 20;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The backend, with nothing before it
    Direct,
    Nginx,
    Haproxy,
    /// `ENVOY_BIN`, else `envoy` in PATH
    Envoy,
    Mesh,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Direct => "direct",
            Kind::Nginx => "nginx",
            Kind::Haproxy => "haproxy",
            Kind::Envoy => "envoy",
            Kind::Mesh => "mesh",
        }
    }

    /// Its program; none if it is not installed, or has none.
    pub(super) fn program(self) -> Option<PathBuf> {
        let named = if self == Kind::Envoy { std::env::var_os("ENVOY_BIN").map(PathBuf::from) } else { None };
        named.or_else(|| server(self.name()))
    }
}

/// What a program says of its version, in one line; empty where it says nothing.
pub(super) fn version(kind: Kind, program: &Path) -> String {
    let option = if matches!(kind, Kind::Nginx | Kind::Haproxy) { "-v" } else { "--version" };
    let Ok(output) = Command::new(program).arg(option).stdin(Stdio::null()).output() else { return String::new() };
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned()
}

/// A directory for what all of them write; removed when dropped.
pub(super) struct Home(pub(super) PathBuf);

impl Home {
    pub(super) fn make() -> Result<Home, String> {
        let directory = std::env::temp_dir();
        // Of runs that were killed outright, whose servers the kernel has ended.
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(is_orphan) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let path = directory.join(format!("{PREFIX}{}", std::process::id()));
        make_directory(&path).map(|()| Home(path))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // Only files of ours in the temporary directory; what stays harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether a directory of this name belongs to a run that is no more.
fn is_orphan(name: &str) -> bool {
    name.strip_prefix(PREFIX).and_then(|pid| pid.parse().ok()).is_some_and(|pid: u32| !proc::lives(pid))
}

/// What all peers are in front of.
pub(super) struct Backend {
    pub(super) server: Server,
    web: [Port; 3],
    stream: [Port; 3],
}

impl Backend {
    pub(super) fn start(home: &Path) -> Result<Backend, String> {
        let program = server("nginx").ok_or("nginx, the backend of all, is not installed")?;
        let three = || Ok::<_, String>([reserve()?, reserve()?, reserve()?]);
        let (web, stream) = (three()?, three()?);
        let home = home.join("backend");
        make_directory(&home)?;
        write(&home.join("10m"), "mesh".repeat(DOWNLOAD / 4).as_bytes())?;
        let words = words(&home, &web, &stream);
        let config = fill(include_str!("peers/backend.conf"), &words, &home.join("nginx.conf"))?;
        let server = Server::start("backend", nginx(&program, &home, &config), &home.join("log"))?;
        let mut backend = Backend { server, web, stream };
        for port in backend.web.iter().chain(&backend.stream) {
            wait_for(&mut backend.server, port.number)?;
        }
        Ok(backend)
    }

    fn doors(&self) -> Doors {
        Doors { http1: address(&self.web[0]), http2: address(&self.stream[0]) }
    }
}

/// One that is measured.
pub(super) struct Peer {
    pub(super) kind: Kind,
    pub(super) doors: Doors,
    /// None: direct.
    pub(super) server: Option<Server>,
    _ports: Vec<Port>,
}

impl Peer {
    /// Starts it and waits until it listens.
    pub(super) fn start(kind: Kind, program: &Path, backend: &Backend, home: &Path) -> Result<Peer, String> {
        let home = home.join(kind.name());
        make_directory(&home)?;
        let (http1, http2, admin) = (reserve()?, reserve()?, reserve()?);
        let mut words = words(&home, &backend.web, &backend.stream);
        for (name, port) in [("HTTP1", &http1), ("HTTP2", &http2), ("ADMIN", &admin)] {
            add_port(&mut words, name, port);
        }
        let (file, template) = match kind {
            Kind::Direct => return Ok(Peer { kind, doors: backend.doors(), server: None, _ports: Vec::new() }),
            Kind::Nginx => ("nginx.conf", include_str!("peers/nginx.conf")),
            Kind::Haproxy => ("haproxy.cfg", include_str!("peers/haproxy.cfg")),
            Kind::Envoy => ("envoy.yaml", include_str!("peers/envoy.yaml")),
            Kind::Mesh => ("mesh.yaml", include_str!("peers/mesh.yaml")),
        };
        let config = fill(template, &words, &home.join(file))?;
        let mut command = Command::new(program);
        match kind {
            Kind::Nginx => command = nginx(program, &home, &config),
            Kind::Haproxy => {
                command.args(["-db", "-f"]).arg(&config);
            }
            Kind::Envoy => {
                command.args(["--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c"]).arg(&config);
            }
            Kind::Direct | Kind::Mesh => {
                command.args(["run", "--config"]).arg(&config);
            }
        }
        let mut server = Server::start(kind.name(), command, &home.join("log"))?;
        // The daemon takes both versions at one port.
        let both = [address(&http1), address(if kind == Kind::Mesh { &http1 } else { &http2 })];
        for door in both {
            wait_for(&mut server, door.port())?;
        }
        let doors = Doors { http1: both[0], http2: both[1] };
        Ok(Peer { kind, doors, server: Some(server), _ports: vec![http1, http2, admin] })
    }
}

/// Where a program lies that may be a server's.
fn server(name: &str) -> Option<PathBuf> {
    find(name).or_else(|| Some(Path::new("/usr/sbin").join(name)).filter(|path| path.is_file()))
}

/// As root its workers would become another user, who may not read our files.
fn nginx(program: &Path, home: &Path, config: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("-p").arg(home).arg("-c").arg(config);
    if is_root() {
        command.args(["-g", "user root;"]);
    }
    command
}

fn reserve() -> Result<Port, String> {
    ports::reserve(FIRST_PORT, &[HERE])
}

fn address(port: &Port) -> SocketAddr {
    (HERE, port.number).into()
}

fn wait_for(server: &mut Server, port: u16) -> Result<(), String> {
    let started = Instant::now();
    while TcpStream::connect((HERE, port)).is_err() {
        server.check()?;
        if started.elapsed() > PATIENCE {
            return Err(format!("{} does not listen on port {port}\n{}", server.name, server.last_words()));
        }
        interrupt::sleep(Duration::from_millis(20))?;
    }
    Ok(())
}

type Words = Vec<(String, String)>;

fn words(home: &Path, web: &[Port; 3], stream: &[Port; 3]) -> Words {
    let mut words =
        vec![("HOME".to_owned(), home.display().to_string()), ("KIB".to_owned(), "0123456789abcdef".repeat(64))];
    for (name, ports) in [("WEB", web), ("STREAM", stream)] {
        for (port, number) in ports.iter().zip(1..) {
            add_port(&mut words, &format!("{name}{number}"), port);
        }
    }
    words
}

fn add_port(words: &mut Words, name: &str, port: &Port) {
    words.push((name.to_owned(), address(port).to_string()));
    words.push((format!("{name}_PORT"), port.number.to_string()));
}

/// Writes a template with its words filled in.
fn fill(template: &str, words: &Words, path: &Path) -> Result<PathBuf, String> {
    let text = words.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value));
    write(path, text.as_bytes()).map(|()| path.to_owned())
}

pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()))
}

fn make_directory(path: &Path) -> Result<(), String> {
    fs::DirBuilder::new().mode(0o700).create(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The release of the kernel, for whoever compares two reports.
pub(super) fn kernel() -> String {
    read("/proc/sys/kernel/osrelease").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_living_run_uses_is_not_swept() {
        assert!(!is_orphan(&format!("{PREFIX}{}", std::process::id())));
        assert!(is_orphan(&format!("{PREFIX}4294967295")));
        assert!(!is_orphan("mesh-bench-template-4294967295") && !is_orphan("mesh"));
    }

    #[test]
    fn no_word_of_a_template_is_left_open() {
        let port = || reserve().unwrap();
        let mut words = words(Path::new("/home"), &[port(), port(), port()], &[port(), port(), port()]);
        for name in ["HTTP1", "HTTP2", "ADMIN"] {
            add_port(&mut words, name, &port());
        }
        let file = std::env::temp_dir().join(format!("mesh-bench-template-{}", std::process::id()));
        for template in [
            include_str!("peers/backend.conf"),
            include_str!("peers/nginx.conf"),
            include_str!("peers/haproxy.cfg"),
            include_str!("peers/envoy.yaml"),
            include_str!("peers/mesh.yaml"),
        ] {
            fill(template, &words, &file).unwrap();
            let text = fs::read_to_string(&file).unwrap();
            let open = text
                .lines()
                .filter(|line| !line.starts_with('#'))
                .find(|line| line.split('@').nth(2).is_some() && !line.contains("@type"));
            assert_eq!(open, None);
        }
        fs::remove_file(file).unwrap();
    }
}
