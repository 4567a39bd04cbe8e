//! Runs the tests that face the kernel on other kernels than this one, in virtual machines.

mod console;
mod guest;
mod image;
mod kernels;
mod machine;
mod matrix;
mod modules;
mod newc;
mod plan;
mod protocol;
mod qemu;
mod runner;
mod smoke;

pub(crate) use guest::{Role, run as guest};

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::process::{step, tell};
use crate::{interrupt, setup};

use kernels::Kernel;
use machine::{Listener, Results};
use plan::{Plan, Test};
use qemu::Accelerator;

/// The kernel that runs here, as a column of the matrix.
const NATIVE: &str = "native";
/// Says with `required` that a smoke run which cannot run has failed.
const DEMAND: &str = "MESH_VM";

/// What to run, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// A series (6.1, 6.12, any that apt has), the path of an image, or `native`: the kernel that runs here, without a
    /// machine. May be given several times (default: 6.1 and 6.12)
    #[arg(long, value_name = "KERNEL")]
    kernel: Vec<String>,
    /// 6.1, 6.12 and the kernel that runs here, and print the matrix that docs/kernels.md holds
    #[arg(long, conflicts_with_all = ["kernel", "smoke", "list"])]
    all: bool,
    /// Show the known kernels, what apt offers of them and which are here, and run nothing
    #[arg(long, conflicts_with_all = ["smoke", "filters"])]
    list: bool,
    /// Only tests that touch every program and table once, in a few minutes. Where there is no machine or no kernel to
    /// be had, says so and succeeds, unless MESH_VM=required is set
    #[arg(long)]
    smoke: bool,
    /// A mesh that is built already, such as one for release, which takes half the time (default: build it for debug)
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Only tests whose name, like `translate::a_test`, contains one of these
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
}

/// Runs the tests. Says whether all passed.
pub(crate) fn run(options: &Options) -> Result<bool, String> {
    fs::create_dir_all(directory()).map_err(|error| format!("{}: {error}", directory().display()))?;
    if options.list {
        print!("{}", kernels::list());
        return Ok(true);
    }
    // A smoke run is part of other runs, on whatever machine.
    let lenient = options.smoke && std::env::var_os(DEMAND).is_none_or(|demand| demand != "required");
    match machines(options, lenient) {
        Ok((kernels, native)) => tests(options, &kernels, native),
        Err(reason) if lenient => {
            left_out("no test ran on another kernel", &reason);
            Ok(true)
        }
        Err(reason) => Err(reason),
    }
}

/// Says loudly what a lenient run leaves out.
fn left_out(what: &str, reason: &str) {
    let rule = "=".repeat(80);
    tell(&format!("{rule}\n{}: {reason}\n(an error if {DEMAND}=required is set)\n{rule}", what.to_uppercase()));
}

/// Everything a run needs that may not be had: qemu and kernels, `lenient` only those that are. And whether the kernel
/// that runs here is one of them.
fn machines(options: &Options, lenient: bool) -> Result<(Vec<Kernel>, bool), String> {
    let default = || kernels::SERIES.map(str::to_owned).to_vec();
    let wanted = if options.kernel.is_empty() { default() } else { options.kernel.clone() };
    let native = options.all || wanted.iter().any(|kernel| kernel == NATIVE);
    if native && let [missing, ..] = &crate::prerequisites::missing_for_tests()[..] {
        return Err(format!("the kernel that runs here, {NATIVE}: {} is missing: {}", missing.what, missing.remedy));
    }
    let wanted: Vec<String> = wanted.into_iter().filter(|kernel| kernel != NATIVE).collect();
    if wanted.is_empty() {
        return Ok((Vec::new(), native));
    }
    if std::env::consts::ARCH != "x86_64" {
        return Err(format!("virtual machines are made for x86_64 only, and this is {}", std::env::consts::ARCH));
    }
    setup::for_vm();
    qemu::provide()?;
    let mut found = Vec::new();
    for kernel in &wanted {
        match kernels::get(kernel) {
            Ok(kernel) => found.push(kernel),
            Err(reason) if lenient && wanted.len() > 1 => left_out(&format!("no test ran on Linux {kernel}"), &reason),
            Err(reason) => return Err(reason),
        }
    }
    if found.is_empty() { Err("none of the kernels can be had".into()) } else { Ok((found, native)) }
}

fn tests(options: &Options, kernels: &[Kernel], native: bool) -> Result<bool, String> {
    let began = Instant::now();
    let plan = plan::make(options.binary.clone(), |test| wanted(options, test))?;
    if plan.tests.is_empty() {
        return Err("no test has such a name".into());
    }
    interrupt::listen();
    let mut results = if kernels.is_empty() { Vec::new() } else { virtually(&plan, kernels)? };
    if native && !interrupt::asked() {
        results.push(natively(&plan));
    }
    if options.all {
        print!("{}", matrix::markdown(&plan.tests, &results));
    }
    let good = results.iter().all(|results| results.good(plan.tests.len()));
    tell(&summary(plan.tests.len(), &results, began.elapsed().as_secs_f64()));
    Ok(good)
}

fn wanted(options: &Options, test: &Test) -> bool {
    let id = test.id();
    (!options.smoke || smoke::has(&id))
        && (options.filters.is_empty() || options.filters.iter().any(|filter| id.contains(filter)))
}

/// On each kernel, all at once: each machine keeps about one processor busy.
fn virtually(plan: &Plan, kernels: &[Kernel]) -> Result<Vec<Results>, String> {
    let Some(first) = kernels.first() else { return Ok(Vec::new()) };
    let accelerator = qemu::accelerator(first)?;
    let image = image::make(plan, kernels)?;
    step(&format!("running {} tests on {}, {}", plan.tests.len(), labels(kernels), accelerator.describe()));
    let results = std::thread::scope(|scope| {
        let machines: Vec<_> = kernels
            .iter()
            .map(|kernel| {
                let image = &image;
                scope.spawn(move || one(accelerator, kernel, image, &plan.tests))
            })
            .collect();
        let ended = machines.into_iter().map(|machine| machine.join().unwrap_or_else(|_| Err("it panicked".into())));
        ended.collect::<Result<Vec<Results>, String>>()
    });
    // Large, and made anew each time.
    let _ = fs::remove_file(&image);
    results
}

fn one(accelerator: Accelerator, kernel: &Kernel, image: &Path, tests: &[Test]) -> Result<Results, String> {
    let console = directory().join(format!("console-{}-{}.log", kernel.label, std::process::id()));
    machine::run(accelerator, kernel, image, &console, tests)
}

/// On the kernel that runs here, by the same runner.
fn natively(plan: &Plan) -> Results {
    step(&format!("running {} tests on the kernel that runs here", plan.tests.len()));
    let release = crate::prerequisites::read("/proc/sys/kernel/osrelease").trim().to_owned();
    let series: Vec<&str> = release.splitn(3, '.').take(2).collect();
    let mut listener = Listener::new(&format!("{} ({NATIVE})", series.join(".")), &plan.tests);
    listener.hear(protocol::Line::Up { release });
    let path = |binary: &str| plan.binaries.iter().find(|(name, _)| name == binary).map(|(_, path)| path.clone());
    let jobs: Vec<runner::Job> = plan
        .tests
        .iter()
        .map(|test| runner::Job { binary: path(&test.binary).unwrap_or_default(), name: test.name.clone() })
        .collect();
    let surroundings = runner::Surroundings { daemon: plan.daemon.clone(), python: Some(setup::python()) };
    runner::run(&jobs, &surroundings, &mut |line| {
        listener.hear(line);
        !interrupt::asked()
    });
    listener.finish()
}

fn labels(kernels: &[Kernel]) -> String {
    kernels
        .iter()
        .map(|kernel| format!("Linux {} ({})", kernel.label, kernel.release))
        .collect::<Vec<_>>()
        .join(" and ")
}

/// The end of the output: a line for each kernel, and one for all, as the runner of tests writes it.
fn summary(planned: usize, results: &[Results], seconds: f64) -> String {
    let (mut text, mut all) = (String::new(), (0, 0, 0));
    for column in results {
        let (passed, failed, skipped) = column.counts();
        all = (all.0 + passed, all.1 + failed, all.2 + skipped);
        text.push_str(&format!("  {}: {passed} passed, {failed} failed, {skipped} skipped", column.release_or_label()));
        let missing = planned - column.outcomes.len().min(planned);
        if missing > 0 {
            text.push_str(&format!(", {missing} did not run"));
        }
        if let Some(trouble) = &column.trouble {
            text.push_str(&format!("; {trouble}"));
        }
        text.push('\n');
    }
    let (passed, failed, skipped) = all;
    let run = passed + failed;
    text.push_str(&format!(
        "     Summary [{seconds:>8.3}s] {run} tests run: {passed} passed, {failed} failed, {skipped} skipped"
    ));
    text
}

/// Where kernels, images and consoles lie.
fn directory() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target");
    target.unwrap_or_else(beside).join("vm")
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Outcome;

    #[test]
    fn the_summary_counts_every_kernel_and_says_what_did_not_run() {
        let mut old = Results::new("6.1");
        old.outcomes.insert(0, Outcome::Passed);
        old.outcomes.insert(1, Outcome::Failed("x".into()));
        let mut new = Results::new("6.12");
        new.outcomes.insert(0, Outcome::Passed);
        new.outcomes.insert(1, Outcome::Passed);
        new.outcomes.insert(2, Outcome::Skipped("x".into()));
        let text = summary(3, &[old, new], 12.5);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "  6.1: 1 passed, 1 failed, 0 skipped, 1 did not run");
        assert_eq!(lines[1], "  6.12: 2 passed, 0 failed, 1 skipped");
        assert_eq!(lines[2], "     Summary [  12.500s] 4 tests run: 3 passed, 1 failed, 1 skipped");
    }
}
