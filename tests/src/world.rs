//! One test's surroundings: a cgroup, a network namespace, and sockets of applications inside both.

use crate::{
    Backend, Cgroup, Client, Daemon, Hammer, Netns, Outcome, backend, daemon::Setup, process, skip, sockets::Sockets,
};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

/// A cgroup and a network namespace with clients in both. Backends are in the namespace, outside the cgroup.
#[derive(Debug)]
pub struct World {
    sockets: Sockets,
    cgroup: Cgroup,
    netns: Arc<Netns>,
}

impl World {
    /// Everything new.
    ///
    /// # Errors
    /// Why this machine cannot have it: a reason to skip the test.
    pub fn new() -> Result<Self, String> {
        skip::requirements()?;
        let netns = Netns::new().map_err(|e| format!("needs network namespaces: {e}"))?;
        Ok(Self::inside(Arc::new(netns)))
    }

    /// A second cgroup with its own clients, in the same network namespace.
    #[must_use]
    pub fn sibling(&self) -> Self {
        Self::inside(self.netns.clone())
    }

    /// A new cgroup with its own clients, in `netns`.
    ///
    /// # Panics
    /// Where the cgroup cannot be made.
    #[must_use]
    pub fn inside(netns: Arc<Netns>) -> Self {
        Self::new_in(Cgroup::new().expect("a cgroup can be made"), netns)
    }

    /// Clients in this cgroup and this network namespace.
    ///
    /// # Panics
    /// Where they do not start.
    #[must_use]
    pub fn new_in(cgroup: Cgroup, netns: Arc<Netns>) -> Self {
        let sockets = Sockets::new(&cgroup, &netns).expect("the helper program starts");
        Self { sockets, cgroup, netns }
    }

    /// Removes the cgroup with everything in it.
    pub fn remove_cgroup(&self) {
        self.cgroup.remove();
    }

    /// As a pod: a cgroup of this name below this one, with clients in a new network namespace of their own. To be
    /// dropped first.
    ///
    /// # Panics
    /// Where they cannot be made.
    #[must_use]
    pub fn pod(&self, name: &str) -> Self {
        Self::new_in(self.cgroup.below(name), Arc::new(Netns::new().expect("a network namespace can be made")))
    }

    /// A cgroup of this name below this one, with clients in the same network namespace. To be dropped first.
    ///
    /// # Panics
    /// Where they cannot be made.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        Self::new_in(self.cgroup.below(name), self.netns.clone())
    }

    /// Removes the cgroup and makes another one under the same name, with clients of its own.
    ///
    /// # Panics
    /// Where that fails.
    pub fn renew_cgroup(&mut self) {
        self.cgroup.renew();
        self.sockets = Sockets::new(&self.cgroup, &self.netns).expect("the helper program starts");
    }

    /// The clients' cgroup, to which a daemon attaches.
    #[must_use]
    pub const fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// The namespace of clients and backends.
    #[must_use]
    pub const fn netns(&self) -> &Arc<Netns> {
        &self.netns
    }

    /// A backend that says its name.
    #[must_use]
    pub fn backend(&self, name: &str, address: &str) -> Backend {
        Backend::identity(name, &self.netns, address)
    }

    /// A backend that sends back what it receives.
    #[must_use]
    pub fn echo(&self, address: &str) -> Backend {
        Backend::echo(&self.netns, address)
    }

    /// A running daemon on this world's cgroup with these services (the `services` of its configuration).
    #[must_use]
    pub fn daemon(&self, services: Value) -> Daemon {
        self.setup(services).start()
    }

    /// The configuration of a daemon on this world's cgroup, to be changed before it starts.
    #[must_use]
    pub fn setup(&self, services: Value) -> Setup {
        Setup::new(self.cgroup.path(), services)
    }

    /// A client's TCP socket, IPv6 ones with `IPV6_V6ONLY` off, not yet connected. Its waits are limited.
    #[must_use]
    pub fn tcp(&self, domain: Domain) -> Socket {
        let socket = self.sockets.make(domain, Type::STREAM, None).expect("a socket can be made");
        if domain == Domain::IPV6 {
            socket.set_only_v6(false).expect("a new socket takes the option");
        }
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout can be set");
        socket.set_write_timeout(Some(Duration::from_secs(30))).expect("a timeout can be set");
        socket
    }

    /// A client's MPTCP socket, not yet connected. Its waits are limited.
    ///
    /// # Errors
    /// Where the kernel has no MPTCP, or it is switched off.
    pub fn mptcp(&self, domain: Domain) -> io::Result<Socket> {
        let socket = self.sockets.make(domain, Type::STREAM, Some(Protocol::MPTCP))?;
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(socket)
    }

    /// A client's UDP socket.
    #[must_use]
    pub fn udp(&self, domain: Domain) -> Socket {
        let socket = self.sockets.make(domain, Type::DGRAM, None).expect("a socket can be made");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout can be set");
        socket
    }

    /// A client connects to `address`.
    ///
    /// # Errors
    /// What the application gets.
    pub fn dial(&self, address: &str) -> io::Result<Socket> {
        let to = addr(address);
        let socket = self.tcp(Domain::for_address(to));
        socket.connect(&to.into())?;
        Ok(socket)
    }

    /// A client connects to `address` and learns who answers.
    ///
    /// # Errors
    /// What the application gets.
    pub fn ask(&self, address: &str) -> io::Result<String> {
        backend::answer(&mut self.dial(address)?)
    }

    /// `n` clients one after the other: who answered each.
    ///
    /// # Panics
    /// Where a connect fails.
    #[must_use]
    pub fn ask_times(&self, address: &str, n: usize) -> Vec<String> {
        (0..n).map(|i| self.ask(address).unwrap_or_else(|e| panic!("connect {i} to {address}: {e}"))).collect()
    }

    /// A process outside the cgroup, in the same namespace, connects to `address` and learns who answers.
    ///
    /// # Errors
    /// What the application gets.
    pub fn ask_outside(&self, address: &str) -> io::Result<String> {
        let to = addr(address);
        self.netns.enter(|| {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
            socket.connect(&to.into())?;
            backend::answer(&mut &socket)
        })
    }

    /// A process inside the cgroup that dials `addresses` without pause.
    #[must_use]
    pub fn hammer(&self, addresses: &[&str]) -> Hammer {
        Hammer::start(&self.cgroup, &self.netns, addresses)
    }

    /// A process inside the cgroup that connects to `address` and does what the test says.
    #[must_use]
    pub fn client(&self, address: &str) -> Client {
        Client::start(&self.cgroup, &self.netns, address)
    }

    /// A process inside the cgroup that connects to `address`, sends so many bytes and takes what comes.
    ///
    /// # Panics
    /// Where it does not start.
    #[must_use]
    pub fn holding(&self, address: &str, bytes: u64) -> Child {
        let mut command = Command::new(process::peer());
        command.args(["hold", address, &bytes.to_string()]);
        process::place(&mut command, Some(self.cgroup.path()), Some(&self.netns))
            .expect("a test's cgroup can be joined");
        command.spawn().expect("the helper program starts")
    }

    /// A process of its own inside the cgroup connects to `address` and is refused. Its pid.
    ///
    /// # Panics
    /// Where it does not start, or is not refused.
    #[must_use]
    pub fn refused(&self, address: &str) -> u32 {
        let mut command = Command::new(process::peer());
        command.args(["connect", address]).stderr(Stdio::null());
        process::place(&mut command, Some(self.cgroup.path()), Some(&self.netns))
            .expect("a test's cgroup can be joined");
        let mut child = command.spawn().expect("the helper program starts");
        assert!(!child.wait().expect("it is our child").success(), "a connect to {address} is refused");
        child.id()
    }

    /// Runs a program as an application inside the cgroup and the namespace.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Outcome {
        self.run_in(&self.cgroup, program, arguments)
    }

    fn run_in(&self, cgroup: &Cgroup, program: &str, arguments: &[&str]) -> Outcome {
        let mut command = Command::new(program);
        command.args(arguments);
        process::place(&mut command, Some(cgroup.path()), Some(&self.netns)).expect("a test's cgroup can be joined");
        process::run(&mut command)
    }

    /// A separate program inside the cgroup connects once: its output has the peer's address, then the answer.
    pub fn connect_program(&self, address: &str) -> Outcome {
        self.connect_program_in(&self.cgroup, address)
    }

    /// As [`World::connect_program`], in another cgroup.
    pub fn connect_program_in(&self, cgroup: &Cgroup, address: &str) -> Outcome {
        self.run_in(cgroup, &process::peer().to_string_lossy(), &["connect", address])
    }
}

/// The address written as `text`.
///
/// # Panics
/// Where it is none.
#[must_use]
pub fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|e| panic!("{text:?}: {e}"))
}
