//! Client sockets that belong to a cgroup and a network namespace while the test itself stays outside.

use crate::{Cgroup, Netns, kernel, process};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{self, BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Mutex,
};

/// A child that makes sockets, one at a time, and lets go of each once the test holds it.
#[derive(Debug)]
pub struct Sockets {
    child: Child,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Sockets {
    /// Starts the child inside `cgroup` and `netns`.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn new(cgroup: &Cgroup, netns: &Netns) -> io::Result<Self> {
        let mut command = Command::new(process::peer());
        command.arg("sockets").stdin(Stdio::piped()).stdout(Stdio::piped());
        process::place(&mut command, Some(cgroup.path()), Some(netns))?;
        let mut child = command.spawn()?;
        let stdin = child.stdin.take().ok_or_else(|| io::Error::other("no stdin"))?;
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no stdout"))?;
        Ok(Self { child, pipes: Mutex::new((stdin, BufReader::new(stdout))) })
    }

    /// A new socket, as an application in the cgroup would have it.
    ///
    /// # Errors
    /// What the child or the kernel answered.
    pub fn make(&self, domain: Domain, kind: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
        let mut pipes = self.pipes.lock().expect("no test panics while it holds the pipes");
        let (stdin, stdout) = &mut *pipes;
        let family = if domain == Domain::IPV6 { "v6" } else { "v4" };
        let kind = match (kind, protocol) {
            (Type::DGRAM, _) => "udp",
            (_, Some(Protocol::MPTCP)) => "mptcp",
            _ => "tcp",
        };
        let mut ask = |request: String| -> io::Result<i32> {
            writeln!(stdin, "{request}")?;
            let mut answer = String::new();
            stdout.read_line(&mut answer)?;
            answer.trim().parse().map_err(|_| io::Error::other(format!("the socket maker said {answer:?}")))
        };
        let there = ask(format!("open {family} {kind}"))?;
        let here = kernel::take_fd(self.child.id(), there)?;
        ask(format!("close {there}"))?;
        Ok(Socket::from(here))
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
