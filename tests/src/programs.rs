//! Programs that nobody here wrote: servers that end with the test, and clients that run to their end.

use crate::{Outcome, poll, ports::Port, process};
use nix::sys::signal::Signal;
use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
};
use tempfile::TempDir;

/// Where an installed program lies, or a skip.
#[macro_export]
macro_rules! program {
    ($name:expr) => {
        match $crate::programs::find($name) {
            Some(path) => path,
            None => $crate::skip!("needs `{}`, which `cargo xtask setup` installs", $name),
        }
    };
}

/// A server that was started, or a skip where its program is missing.
#[macro_export]
macro_rules! server {
    ($made:expr) => {
        match $made {
            Ok(server) => server,
            Err(reason) => $crate::skip!("{reason}"),
        }
    };
}

/// Where an installed program lies.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let mut directories: Vec<PathBuf> =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    // Where servers lie, which is not on the path of users.
    directories.extend(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    directories.into_iter().map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// Runs a client to its end.
pub fn run(program: &Path, arguments: &[&str]) -> Outcome {
    process::run(Command::new(program).args(arguments))
}

/// A server in a process and a directory of its own. Dropped, it is killed.
#[derive(Debug)]
pub struct Server {
    child: Child,
    port: Port,
    /// What it was started from; its log is the file `log` here.
    dir: TempDir,
}

impl Server {
    /// A new directory and a port, for what comes into a configuration.
    ///
    /// # Panics
    /// Where there is no temporary directory.
    #[must_use]
    pub fn place() -> (TempDir, Port) {
        let dir = tempfile::Builder::new().prefix("mesh-test-server-").tempdir();
        (dir.expect("a temporary directory can be made"), Port::new())
    }

    /// Starts `command` and waits until it listens at `port`.
    ///
    /// # Panics
    /// Where it does not.
    #[must_use]
    pub fn start(mut command: Command, dir: TempDir, port: Port) -> Self {
        let log = fs::File::create(dir.path().join("log")).expect("a test's directory can be written");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        let shown = format!("{command:?}");
        let child = command.spawn().unwrap_or_else(|e| panic!("{shown} does not start: {e}"));
        let mut server = Self { child, port, dir };
        poll::eventually(&format!("{shown} listens at {}", server.address()), || {
            if let Ok(Some(ended)) = server.child.try_wait() {
                panic!("{shown} ended: {ended}\n{}", server.log());
            }
            TcpStream::connect(server.address())
        });
        server
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        self.port.address()
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Stops the process as it is, or lets it go on: it says nothing meanwhile, not even that it ends.
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        crate::process::signal(self.child.id(), signal);
    }

    /// What it wrote.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir().join("log")).unwrap_or_default()
    }

    /// Ends it as a crash does: connections are reset or closed, and new ones refused.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("--- the log of the server at {}\n{}---", self.address(), self.log());
        }
    }
}

/// A program that says in lines what it sees, such as a client in the middle of something. Dropped, it is killed.
#[derive(Debug)]
pub struct Talker {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Talker {
    /// Starts it.
    ///
    /// # Panics
    /// Where it does not start.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
        let lines = BufReader::new(child.stdout.take().expect("it is a pipe"));
        Self { child, lines }
    }

    /// The next line, without its end; empty after the last one.
    ///
    /// # Panics
    /// Where it cannot be read.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a child's output can be read");
        line.trim_end().to_owned()
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        self.kill();
    }
}
