//! A real Prometheus, and its `promtool`.

use crate::{
    Outcome, Value, http, poll, process,
    programs::{Server, find},
};
use std::{
    fmt::Write,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

/// A Prometheus that scrapes daemons once a second. Dropped, it is killed, and its data with it.
#[derive(Debug)]
pub struct Prometheus(Server);

impl Prometheus {
    /// One that scrapes `targets` as job `mesh`, and evaluates `rules`.
    ///
    /// # Errors
    /// Where it is not installed.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn new(targets: &[String], rules: &Path) -> Result<Self, String> {
        let program = find("prometheus").ok_or("needs `prometheus`, which `cargo xtask setup` installs")?;
        let (dir, port) = Server::place();
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [{rules:?}]\nscrape_configs:\n  \
             - job_name: mesh\n    static_configs: [{{ targets: {targets:?} }}]\n"
        );
        let file = dir.path().join("prometheus.yml");
        fs::write(&file, config).expect("a test's directory can be written");
        let mut command = Command::new(program);
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()));
        command.arg(format!("--web.listen-address={}", port.address()));
        let server = Server::start(command, dir, port);
        // It listens before it has opened its data.
        poll::holds(
            "Prometheus is ready",
            || http::tcp(&server.address(), "GET", "/-/ready", "").ok(),
            |answer| answer.as_ref().is_some_and(|answer| answer.status == 200),
        );
        Ok(Self(server))
    }

    /// What its API says to a path.
    ///
    /// # Errors
    /// What it says is wrong.
    ///
    /// # Panics
    /// Where it says nothing.
    pub fn api(&self, path: &str) -> Result<Value, String> {
        let answer = http::tcp(&self.0.address(), "GET", path, "").expect("it answers");
        let answer: Value = serde_json::from_str(&answer.body).expect("JSON");
        if answer["status"] == "success" { Ok(answer["data"].clone()) } else { Err(answer["error"].to_string()) }
    }

    /// The samples of an expression now.
    ///
    /// # Errors
    /// What is wrong with the expression.
    ///
    /// # Panics
    /// Where it says nothing.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let mut path = "/api/v1/query?query=".to_owned();
        expression.bytes().for_each(|byte| write!(path, "%{byte:02x}").expect("text can grow"));
        let data = self.api(&path)?;
        Ok(data["result"].as_array().expect("a list").clone())
    }
}

/// Runs `promtool`, with a file as its input.
///
/// # Errors
/// Where it is not installed.
///
/// # Panics
/// Where it cannot be run.
pub fn promtool(arguments: &[&str], input: &Path) -> Result<Outcome, String> {
    let program: PathBuf = find("promtool").ok_or("needs `promtool`, which `cargo xtask setup` installs")?;
    let input = File::open(input).expect("the file is there");
    Ok(process::run_with(Command::new(program).args(arguments), input.into()))
}
