//! System calls for each request: a figure that neighbours on the machine hardly move.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::peers::{Kind, Peer};
use super::proc;
use super::process;
use super::report::table;
use super::rounds::load;
use super::scenario::Scenario;
use crate::interrupt;
use crate::process::{find, step};

/// What must hold of ours.
const BOUNDS: [(Scenario, f64); 3] = [(Scenario::C64, 4.2), (Scenario::C1, 6.1), (Scenario::H2, 0.9)];
/// Tracers are attached by then.
const ATTACHED: Duration = Duration::from_millis(500);

/// What counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counter {
    /// The kernel, which costs little.
    Perf,
    /// A tracer that stops the program at each call, so that more is ready whenever it looks.
    Strace,
}

impl Counter {
    /// The better one of those that work here.
    pub(super) fn find(home: &Path) -> Result<Counter, String> {
        let mut probe = Command::new("perf");
        probe.args(["stat", "-x", ";", "-e", "raw_syscalls:sys_enter", "--", "true"]);
        let said = process::run(probe, Duration::from_secs(10), &home.join("probe")).unwrap_or_default();
        if perf(&said).is_some_and(|calls| calls > 0) {
            return Ok(Counter::Perf);
        }
        if find("strace").is_some() {
            step("perf cannot count system calls here; strace does, and slows down what it counts");
            return Ok(Counter::Strace);
        }
        Err("system calls are counted by perf (as root, with tracefs) or strace; neither works here".into())
    }

    fn command(self, pids: &[u32]) -> Command {
        let list: Vec<String> = pids.iter().map(u32::to_string).collect();
        match self {
            Counter::Perf => {
                let mut command = Command::new("perf");
                command.args(["stat", "-x", ";", "-e", "raw_syscalls:sys_enter", "-p", &list.join(",")]);
                command
            }
            Counter::Strace => {
                let mut command = Command::new("strace");
                command.args(["-c", "-f"]);
                command.args(list.iter().flat_map(|pid| ["-p", pid]));
                command
            }
        }
    }

    fn read(self, text: &str) -> Option<u64> {
        match self {
            Counter::Perf => perf(text),
            Counter::Strace => strace(text),
        }
    }
}

/// One peer in one scenario.
pub(super) struct Count {
    scenario: Scenario,
    kind: Kind,
    requests: u64,
    calls: u64,
}

impl Count {
    fn per_request(&self) -> f64 {
        self.calls as f64 / self.requests.max(1) as f64
    }

    fn bound(&self) -> Option<f64> {
        let ours = BOUNDS.iter().find(|(scenario, _)| *scenario == self.scenario);
        ours.filter(|_| self.kind == Kind::Mesh).map(|(_, bound)| *bound)
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "scenario": self.scenario.name(), "peer": self.kind.name(), "requests": self.requests, "calls": self.calls,
            "per_request": self.per_request(), "bound": self.bound(),
        })
    }
}

/// Counts for each peer and scenario, one after the other.
pub(super) fn count(
    counter: Counter,
    scenarios: &[Scenario],
    peers: &[Peer],
    seconds: u32,
    home: &Path,
) -> Result<Vec<Count>, String> {
    let mut counts = Vec::new();
    for scenario in scenarios.iter().copied() {
        for peer in peers {
            let Some(server) = &peer.server else { continue };
            load(scenario, peer, 1, home)?;
            let said = home.join("calls");
            let running = process::spawn_counter(counter.command(&proc::family(server.pid())), &said)?;
            interrupt::sleep(ATTACHED)?;
            let load = load(scenario, peer, seconds, home)?;
            running.finish();
            let text = std::fs::read_to_string(&said).unwrap_or_default();
            let calls = counter.read(&text).ok_or_else(|| format!("no count of {}:\n{text}", peer.kind.name()))?;
            counts.push(Count { scenario, kind: peer.kind, requests: load.requests, calls });
        }
    }
    Ok(counts)
}

/// The table, with the bounds of ours.
pub(super) fn report(counts: &[Count]) -> String {
    let mut rows = vec![["scenario", "peer", "calls per request", "bound", "verdict"].map(str::to_owned).to_vec()];
    rows.extend(counts.iter().map(|count| {
        let verdict = |bound| if count.per_request() <= bound { "met" } else { "MISSED" };
        vec![
            count.scenario.name().to_owned(),
            count.kind.name().to_owned(),
            format!("{:.2}", count.per_request()),
            count.bound().map_or(String::new(), |bound| format!("≤ {bound}")),
            count.bound().map_or("", verdict).to_owned(),
        ]
    }));
    format!("\nSystem calls\n\n{}", table(&rows))
}

/// `1234;;raw_syscalls:sys_enter;...`
fn perf(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains("raw_syscalls:sys_enter"))?;
    line.split(';').next()?.parse().ok()
}

/// The last line of the table: `100.00    0.123456           1     98765        12 total`.
fn strace(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.trim_end().ends_with(" total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_perf_and_of_strace_are_read() {
        assert_eq!(perf("120034;;raw_syscalls:sys_enter;2000;100.00;;\n"), Some(120_034));
        assert_eq!(perf("<not counted>;;raw_syscalls:sys_enter;0;100.00;;\n"), None);
        let table = "% time     seconds  usecs/call     calls    errors syscall\n\
                     ------ ----------- ----------- --------- --------- ----------------\n \
                     60.00    0.600000           6    100000           writev\n\
                     ------ ----------- ----------- --------- --------- ----------------\n\
                     100.00    1.000000           5    200000        17 total\n";
        assert_eq!(strace(table), Some(200_000));
        assert_eq!(strace("strace: attach: ptrace(PTRACE_SEIZE, 1): Operation not permitted"), None);
    }

    #[test]
    fn only_ours_has_a_bound() {
        let count = |kind| Count { scenario: Scenario::H2, kind, requests: 1000, calls: 800 };
        assert_eq!((count(Kind::Mesh).bound(), count(Kind::Envoy).bound()), (Some(0.9), None));
        assert!(report(&[count(Kind::Mesh)]).contains("| 0.80              | ≤ 0.9 | met"));
    }
}
