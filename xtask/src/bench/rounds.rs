//! Rounds: scenario by scenario, all peers take turns, every second round in the other order.

use std::path::Path;
use std::time::{Duration, Instant};

use super::machine::wait_until_quiet;
use super::parse::{self, Load};
use super::peers::{Backend, Kind, Peer};
use super::proc::{self, Cpu};
use super::process;
use super::scenario::Scenario;
use crate::process::tell;

/// How long each measurement takes, and how often it is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) rounds: u32,
    pub(super) seconds: u32,
    /// How long to wait for a quiet machine before each.
    pub(super) patience: Duration,
}

/// What one peer did in one round of a scenario.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    pub(super) load: Load,
    /// Of the peer alone, all its threads and processes.
    pub(super) cpu: Cpu,
    /// Of peer, backend and load generator together.
    pub(super) path: f64,
    /// MiB at the end.
    pub(super) memory: f64,
    /// CPUs that others kept busy meanwhile.
    pub(super) others: f64,
    /// CPUs that the host gave to others meanwhile.
    pub(super) steal: f64,
}

/// All rounds of one peer in one scenario.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) scenario: Scenario,
    pub(super) kind: Kind,
    pub(super) rounds: Vec<Sample>,
}

/// Measures all. What has been measured is in `series` also when an error ends it.
pub(super) fn run(
    plan: Plan,
    scenarios: &[Scenario],
    peers: &mut [Peer],
    backend: &mut Backend,
    home: &Path,
    series: &mut Vec<Series>,
) -> Result<(), String> {
    for scenario in scenarios {
        series.extend(peers.iter().map(|peer| Series { scenario: *scenario, kind: peer.kind, rounds: Vec::new() }));
    }
    for round in 0..plan.rounds {
        for scenario in scenarios.iter().copied() {
            if round % 2 == 0 {
                peers.sort_by_key(|peer| peer.kind as u8);
            } else {
                peers.sort_by_key(|peer| std::cmp::Reverse(peer.kind as u8));
            }
            for at in 0..peers.len() {
                let ours: Vec<u32> =
                    peers.iter().filter_map(|peer| peer.server.as_ref()).map(|server| server.pid()).collect();
                wait_until_quiet(&[&ours[..], &[backend.server.pid()]].concat(), plan.patience)?;
                let sample = measure(scenario, &mut peers[at], backend, plan.seconds, home)?;
                let kind = peers[at].kind;
                tell(&progress(round + 1, scenario, kind, &sample));
                let mut all = series.iter_mut();
                if let Some(one) = all.find(|one| one.scenario == scenario && one.kind == kind) {
                    one.rounds.push(sample);
                }
            }
        }
    }
    Ok(())
}

/// One load, after a second of the same to make connections and fill pools.
fn measure(
    scenario: Scenario,
    peer: &mut Peer,
    backend: &mut Backend,
    seconds: u32,
    home: &Path,
) -> Result<Sample, String> {
    load(scenario, peer, 1, home)?;
    let look = |peer: &Peer| {
        let own = peer.server.as_ref().map_or(Cpu::default(), |server| proc::cpu(server.pid()));
        let others_of_ours = proc::cpu(backend.server.pid()).total() + proc::of_ended_children().total();
        (own, others_of_ours, proc::of_ourselves().total(), proc::machine())
    };
    let (cpu, path, ourselves, machine) = look(peer);
    let began = Instant::now();
    let load = load(scenario, peer, seconds, home)?;
    let wall = began.elapsed().as_secs_f64();
    let after = look(peer);
    let memory = peer.server.as_ref().map_or(0.0, |server| proc::memory(server.pid()));
    let cpu = after.0.since(cpu);
    let path = after.1 - path + cpu.total();
    let others = after.3.busy - machine.busy - path - (after.2 - ourselves);
    backend.server.check()?;
    peer.server.as_mut().map_or(Ok(()), |server| server.check())?;
    Ok(Sample {
        load,
        cpu,
        path,
        memory,
        others: others.max(0.0) / wall,
        steal: (after.3.steal - machine.steal) / wall,
    })
}

/// Runs a load generator. A peer that it cannot talk to at all ends the run.
pub(super) fn load(scenario: Scenario, peer: &Peer, seconds: u32, home: &Path) -> Result<Load, String> {
    let (message, times, log) = (home.join("message"), home.join("times"), home.join("load"));
    // It would be added to.
    let _ = std::fs::remove_file(&times);
    let command = scenario.command(peer.doors, seconds, &message, &times);
    let text = process::run(command, Duration::from_secs(u64::from(seconds) + 30), &log)?;
    let load = if scenario.is_http2() {
        let times = std::fs::read_to_string(&times).unwrap_or_default();
        parse::h2load(&text, &times, f64::from(seconds))
    } else {
        parse::wrk(&text)
    };
    load.ok_or_else(|| format!("{} at {}: no report:\n{}", scenario.name(), peer.kind.name(), process::end_of(&log)))
}

fn progress(round: u32, scenario: Scenario, kind: Kind, sample: &Sample) -> String {
    let per_second = sample.load.requests as f64 / sample.load.seconds;
    let cpu = sample.per_unit(scenario, sample.cpu.total()).unwrap_or(0.0);
    format!(
        "round {round}  {:<8} {:<8} {per_second:>8.0} requests/s  CPU {cpu:>7.1} ms  errors {}  others {:.2} CPUs",
        scenario.name(),
        kind.name(),
        sample.load.errors,
        sample.others
    )
}

impl Sample {
    /// Milliseconds of CPU for 1,000 requests, or for a GiB where bodies are what counts. None: nothing was answered.
    pub(super) fn per_unit(&self, scenario: Scenario, cpu: f64) -> Option<f64> {
        let units =
            if scenario.by_size() { self.load.bytes / 1_073_741_824.0 } else { self.load.requests as f64 / 1000.0 };
        (units > 0.0).then(|| cpu * 1000.0 / units)
    }

    /// Whether so much failed that the other figures say nothing: a proxy that refuses needs little CPU.
    pub(super) fn is_void(&self) -> bool {
        self.load.requests == 0 || self.load.errors * 100 > self.load.requests
    }
}
