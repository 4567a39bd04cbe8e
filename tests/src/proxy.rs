//! A daemon without the kernel: what clients ask it arrives at its explicit proxy.

use crate::{
    Daemon, Value,
    daemon::Setup,
    json, poll,
    ports::Port,
    raw::{Message, Wire},
};
use std::{
    net::TcpStream,
    ops::{Deref, DerefMut},
    time::Duration,
};

/// A daemon in `dataplane.mode: userspace` with a proxy at a port of its own.
#[derive(Debug)]
pub struct Proxy {
    daemon: Daemon,
    port: Port,
}

impl Proxy {
    /// One with these services, without health checks, with two workers.
    #[must_use]
    pub fn new(services: Value) -> Self {
        Self::with(services, |_| {})
    }

    /// As [`Proxy::new`], with changes to its configuration.
    ///
    /// # Panics
    /// Where it does not serve.
    #[must_use]
    pub fn with(services: Value, change: impl FnOnce(&mut Value)) -> Self {
        let port = Port::new();
        let setup = Setup::userspace(services).with(|config| {
            config["proxy"] = json!({ "http": port.address(), "workers": 2 });
            change(config);
        });
        let mut proxy = Self { daemon: setup.idle(), port };
        proxy.start();
        proxy
    }

    /// Starts the process and waits until it serves.
    pub fn start(&mut self) {
        self.daemon.spawn();
        // Never ready: it intercepts nothing.
        self.daemon.wait_for("/health", 200);
        poll::eventually("the proxy takes connections", || TcpStream::connect(self.address()));
    }

    /// Where the proxy listens.
    #[must_use]
    pub fn address(&self) -> String {
        self.port.address()
    }

    /// `http://` and the address.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// A connection to it.
    #[must_use]
    pub fn dial(&self) -> Wire {
        Wire::connect(&self.address())
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub fn ask(&self, request: impl AsRef<[u8]>) -> Message {
        self.dial().ask(request)
    }

    /// A GET of `/` at a service, on a connection of its own.
    #[track_caller]
    pub fn get(&self, service: &str) -> Message {
        self.ask(crate::raw::get(service, "/"))
    }

    /// Fails the test unless the proxy answers `request` itself, with this status and for this reason, and counts it.
    #[track_caller]
    pub fn refuses(&self, request: impl AsRef<[u8]>, status: u16, reason: &str) -> Message {
        let before = self.rejected(reason);
        let answer = self.ask(request);
        assert_eq!((answer.status(), answer.reason()), (status, Some(reason)), "{answer:?}");
        let counted = || if self.rejected(reason) > before { Ok(()) } else { Err(()) };
        assert!(poll::within(Duration::from_secs(3), counted).is_ok(), "{reason} is not counted");
        answer
    }

    /// How many requests were rejected for this reason, by its metrics.
    #[must_use]
    pub fn rejected(&self, reason: &str) -> f64 {
        self.metrics().count("mesh_requests_rejected_total", &[("reason", reason)])
    }

    /// How much memory the process holds, in KiB, but for pages of its own file: which of those are there says how much
    /// of the program ran before.
    ///
    /// # Panics
    /// Where it does not run.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a process has memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

impl Deref for Proxy {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl DerefMut for Proxy {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}
