//! Asking a daemon: by its command line, as operators do, and over HTTP, as machines do.

use crate::{Daemon, Outcome, Value, http::Response, metrics::Metrics, process};
use std::process::Command;

impl Daemon {
    /// The `mesh` command for this daemon, before it is run.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.program(arguments);
        command.env("MESH_ADMIN_SOCKET", self.socket_path()).env("MESH_CONFIG", self.config_path());
        command
    }

    /// Runs a `mesh` command against this daemon.
    pub fn cli(&self, arguments: &[&str]) -> Outcome {
        process::run(&mut self.command(arguments))
    }

    /// Runs a listing command with `-o json`.
    ///
    /// # Panics
    /// Where it fails.
    #[must_use]
    pub fn json(&self, arguments: &[&str]) -> Value {
        self.cli(&[arguments, &["-o", "json"]].concat()).json()
    }

    /// One service of `mesh services`.
    ///
    /// # Panics
    /// Where there is none of this name.
    #[must_use]
    pub fn service(&self, name: &str) -> Value {
        find(&self.json(&["services"]), "name", name)
    }

    /// One endpoint of `mesh endpoints SERVICE`.
    ///
    /// # Panics
    /// Where there is none with this address.
    #[must_use]
    pub fn endpoint(&self, service: &str, address: &str) -> Value {
        find(&self.json(&["endpoints", service]), "address", address)
    }

    /// A request to the admin port.
    ///
    /// # Panics
    /// Where no answer comes.
    #[must_use]
    pub fn http(&self, method: &str, path: &str) -> Response {
        self.try_http(method, path).unwrap_or_else(|e| panic!("{method} {path}: {e}\n{}", self.log()))
    }

    /// A JSON answer of the admin port.
    ///
    /// # Panics
    /// Where it fails or is no JSON.
    #[must_use]
    pub fn http_json(&self, path: &str) -> Value {
        let response = self.http("GET", path);
        assert_eq!(response.status, 200, "{path}: {response:?}");
        let kind = response.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/json"), "{path}: {response:?}");
        serde_json::from_str(&response.body).unwrap_or_else(|e| panic!("{path}: no JSON ({e}): {}", response.body))
    }

    /// A scrape of `/metrics`.
    ///
    /// # Panics
    /// Where it fails.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let response = self.http("GET", "/metrics");
        assert_eq!(response.status, 200, "/metrics: {response:?}");
        Metrics::parse(&response.body)
    }
}

/// The entry of a list whose `field` is `wanted`.
///
/// # Panics
/// Where there is none.
#[must_use]
pub fn find(list: &Value, field: &str, wanted: &str) -> Value {
    let entries = list.as_array().unwrap_or_else(|| panic!("not a list: {list}"));
    let found = entries.iter().find(|e| e[field] == wanted);
    found.unwrap_or_else(|| panic!("no {field} {wanted:?} in {list:#}")).clone()
}
