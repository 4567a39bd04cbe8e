//! Processes that hold one connection and do with it what the test says.

use crate::{Cgroup, Netns, kernel, process, world};
use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    os::fd::OwnedFd,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// A client process inside a cgroup with an open connection. It ends, and closes it, when this is dropped.
#[derive(Debug)]
pub struct Client {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// The connection's own end.
    pub local: SocketAddr,
}

impl Client {
    /// Starts a process that connects to `address`.
    ///
    /// # Panics
    /// Where the connect fails.
    #[must_use]
    pub fn start(cgroup: &Cgroup, netns: &Netns, address: &str) -> Self {
        let mut command = Command::new(process::peer());
        command.args(["client", address]).stdin(Stdio::piped()).stdout(Stdio::piped());
        process::place(&mut command, Some(cgroup.path()), Some(netns)).expect("a test's own cgroup can be joined");
        let mut child = command.spawn().expect("the helper program starts");
        let stdin = child.stdin.take().expect("it is a pipe");
        let stdout = BufReader::new(child.stdout.take().expect("it is a pipe"));
        let mut client = Self { child, stdin, stdout, local: world::addr("0.0.0.0:0") };
        client.local = world::addr(&client.answer());
        client
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends `bytes` and receives as many, from a backend that sends back what it gets.
    pub fn exchange(&mut self, bytes: usize) {
        assert_eq!(self.ask(&format!("exchange {bytes}")), bytes.to_string());
    }

    /// Sends until nothing more fits anywhere.
    pub fn fill(&mut self) {
        self.ask("fill");
    }

    /// Its socket, which both hold from now on.
    ///
    /// # Panics
    /// Where it cannot be taken over.
    #[must_use]
    pub fn socket(&mut self) -> OwnedFd {
        let descriptor = self.ask("descriptor").parse().expect("a descriptor");
        kernel::take_fd(self.child.id(), descriptor).expect("a child's socket can be taken over")
    }

    /// Gives the connection to a child process that does nothing with it, and ends. Returns the child's id.
    ///
    /// # Panics
    /// Where there is no child.
    pub fn bequeath(mut self) -> u32 {
        self.ask("bequeath").parse().expect("a process id")
    }

    fn ask(&mut self, what: &str) -> String {
        writeln!(self.stdin, "{what}").expect("the helper listens");
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("the helper answers");
        line.trim().to_owned()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
