//! Programs in Python: clients and servers of libraries that nobody here wrote. They lie in `tests/python`.

use crate::{
    Outcome, process,
    programs::{Server, Talker, find},
};
use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where the runner of the tests says which Python has the libraries.
const PYTHON: &str = "MESH_TEST_PYTHON";

/// A Python that has a module, or a skip.
#[macro_export]
macro_rules! python {
    ($module:expr) => {
        match $crate::python::Python::with($module) {
            Ok(python) => python,
            Err(reason) => $crate::skip!("{reason}"),
        }
    };
}

/// An interpreter.
#[derive(Clone, Debug)]
pub struct Python(PathBuf);

impl Python {
    /// One that has these modules (`grpc, grpc_health`).
    ///
    /// # Errors
    /// Where there is none.
    pub fn with(modules: &str) -> Result<Self, String> {
        let has = |python: &PathBuf| {
            let mut command = Command::new(python);
            command.args(["-c", &format!("import {modules}")]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let named = env::var_os(PYTHON).map(PathBuf::from);
        let found = named.into_iter().chain(prepared()).chain(find("python3")).find(has).map(Self);
        found.ok_or_else(|| format!("needs a Python with {modules}, which `cargo xtask setup` prepares"))
    }

    fn command(&self, script: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.0);
        command.arg("-u").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script)).args(arguments);
        command
    }

    /// Runs a script to its end.
    pub fn run(&self, script: &str, arguments: &[&str]) -> Outcome {
        process::run(&mut self.command(script, arguments))
    }

    /// Starts a script that says in lines what it sees.
    #[must_use]
    pub fn talk(&self, script: &str, arguments: &[&str]) -> Talker {
        Talker::start(self.command(script, arguments))
    }

    /// Starts a script that serves at the port that its first argument says.
    #[must_use]
    pub fn serve(&self, script: &str, arguments: &[&str]) -> Server {
        let (dir, port) = Server::place();
        let number = port.number.to_string();
        let mut all = vec![number.as_str()];
        all.extend(arguments);
        Server::start(self.command(script, &all), dir, port)
    }
}

/// The one that `cargo xtask setup` prepares, beside what cargo builds.
fn prepared() -> Option<PathBuf> {
    let me = env::current_exe().ok()?;
    me.ancestors().map(|directory| directory.join("python/bin/python")).find(|python| python.is_file())
}
