//! What a command line program did.

use crate::Value;
use std::process::Output;

/// The end of a command, with everything it said.
#[derive(Clone, Debug)]
pub struct Outcome {
    command: String,
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl Outcome {
    pub(crate) fn new(command: &str, output: Output) -> Self {
        Self {
            command: command.to_owned(),
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Fails the test unless it ended with exit code 0; gives what it printed.
    #[track_caller]
    pub fn done(self) -> String {
        self.ended(0).stdout
    }

    /// Fails the test unless it ended with this exit code.
    #[track_caller]
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "the exit code of {self}");
        self
    }

    /// Fails the test unless it was refused (1) or not understood (2), with a reason on stderr that has each word.
    #[track_caller]
    pub fn refused(self, words: &[&str]) -> Self {
        assert!(matches!(self.code, 1 | 2), "this ought to be refused: {self}");
        for word in words {
            assert!(self.stderr.contains(word), "stderr ought to name {word:?}: {self}");
        }
        self
    }

    /// Fails the test unless its output, both streams together, has each word.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stdout.contains(word) || self.stderr.contains(word), "{word:?} is missing: {self}");
        }
        self
    }

    /// Its stdout as JSON.
    #[track_caller]
    pub fn json(self) -> Value {
        let text = self.ended(0).stdout;
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("no JSON ({e}): {text}"))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { command, code, stdout, stderr } = self;
        write!(f, "{command}: exit code {code}\n--- stdout\n{stdout}--- stderr\n{stderr}---")
    }
}
