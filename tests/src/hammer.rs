//! Processes that connect to services as fast as they can and write down every answer.

use crate::{Cgroup, Netns, poll, process};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

/// A running client process inside a cgroup.
#[derive(Debug)]
pub struct Hammer {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

/// What a [`Hammer`] met.
#[derive(Debug, Default)]
pub struct Tally {
    /// Connects that were tried.
    pub connects: u64,
    /// Connects that failed or brought no answer, with the address and the error.
    pub failures: Vec<String>,
    /// Answers by dialled address, then by who answered.
    pub answers: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Tally {
    /// Adds another process's tally.
    pub fn add(&mut self, other: Self) {
        self.connects += other.connects;
        self.failures.extend(other.failures);
        for (address, answers) in other.answers {
            let mine = self.answers.entry(address).or_default();
            answers.into_iter().for_each(|(who, n)| *mine.entry(who).or_default() += n);
        }
    }

    /// Everybody who answered at `address`.
    #[must_use]
    pub fn answered(&self, address: &str) -> Vec<&str> {
        self.answers.get(address).into_iter().flat_map(BTreeMap::keys).map(String::as_str).collect()
    }

    /// Fails the test unless something was tried and every connect was answered.
    pub fn assert_flawless(&self) {
        let shown: Vec<_> = self.failures.iter().take(10).collect();
        assert!(self.connects > 0, "nothing was tried");
        assert!(shown.is_empty(), "{} of {} connects failed: {shown:#?}", self.failures.len(), self.connects);
    }
}

impl Hammer {
    /// Starts a process that dials `addresses` in turn, and waits for its first connect to end.
    pub fn start(cgroup: &Cgroup, netns: &Netns, addresses: &[&str]) -> Self {
        let mut command = Command::new(process::peer());
        command.arg("hammer").args(addresses).stdin(Stdio::piped()).stdout(Stdio::piped());
        process::place(&mut command, Some(cgroup.path()), Some(netns)).expect("a test's own cgroup can be joined");
        let mut child = command.spawn().expect("the helper program starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("the helper program speaks");
        assert_eq!(line, "started\n", "the helper program begins");
        Self { child, stdout }
    }

    /// Ends the process after its current connect.
    pub fn stop(mut self) -> Tally {
        // End of input is the sign to stop.
        drop(self.child.stdin.take());
        // A connect that hangs would hang the process: then it is ended, and the missing report fails the test.
        let ended = poll::within(Duration::from_secs(150), || match self.child.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        ended.expect("a hammering process ends when told");
        let mut report = String::new();
        self.stdout.read_to_string(&mut report).expect("the helper program reports");
        parse(&serde_json::from_str(&report).expect("the helper program reports JSON"))
    }
}

impl Drop for Hammer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(report: &Value) -> Tally {
    let texts = |v: &Value| v.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let counts = |v: &Value| {
        let entries = v.as_object().into_iter().flatten();
        entries.map(|(who, n)| (who.clone(), n.as_u64().unwrap_or_default())).collect()
    };
    Tally {
        connects: report["connects"].as_u64().unwrap_or_default(),
        failures: texts(&report["failures"]),
        answers: report["answers"].as_object().into_iter().flatten().map(|(a, v)| (a.clone(), counts(v))).collect(),
    }
}
