//! `HAProxy` as an endpoint: it answers by itself, with what it saw of the request.

use crate::programs::{Server, find};
use std::{fs, process::Command};

/// It takes the port at once from one that was killed, and says who it is and how it was asked.
const CONFIG: &str = r#"
global
  nbthread 1
  maxconn 2000
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 5s
frontend in
  bind ADDRESS LISTEN
  http-request return status 500 content-type text/plain string "NAME" if { path /status/500 }
  http-request return status 503 content-type text/plain string "NAME" if { path /status/503 }
  http-request return status 200 content-type text/plain hdr x-name NAME lf-string "%[req.ver] %[method] %[path]\n%[req.hdrs]"
"#;

/// A running `HAProxy`.
#[derive(Debug)]
pub struct Haproxy(Server);

impl Haproxy {
    /// One that speaks HTTP/1.1.
    ///
    /// # Errors
    /// Where it is not installed.
    pub fn http1(name: &str) -> Result<Self, String> {
        Self::start(name, "")
    }

    /// One that speaks HTTP/2 in clear text and nothing else.
    ///
    /// # Errors
    /// Where it is not installed.
    pub fn http2(name: &str) -> Result<Self, String> {
        Self::start(name, "proto h2")
    }

    fn start(name: &str, listen: &str) -> Result<Self, String> {
        let program = find("haproxy").ok_or("needs `haproxy`, which `cargo xtask setup` installs")?;
        let (dir, port) = Server::place();
        let config = CONFIG.replace("ADDRESS", &port.address()).replace("LISTEN", listen).replace("NAME", name);
        let file = dir.path().join("haproxy.cfg");
        fs::write(&file, config).expect("a test's directory can be written");
        let mut command = Command::new(program);
        command.arg("-db").arg("-f").arg(&file);
        Ok(Self(Server::start(command, dir, port)))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        self.0.address()
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        self.0.kill();
    }
}
