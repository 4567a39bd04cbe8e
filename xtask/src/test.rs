//! Runs every test, and says which ones did not really run.
//!
//! Rust has no skipped tests: one that finds no cgroup2 passes. Here such a test adds a line to the file named by
//! `MESH_SKIP_FILE`, and the end of the output shows them all.
//!
//! Where `CI` is set, a test that fails has a second try: a gate that one test of two thousand holds up by chance says
//! little about a change. It is named at the end, for it is a defect of the test or, as likely, of the product.

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::Path;
use std::process::Stdio;

use crate::build::{self, Profile};
use crate::interrupt;
use crate::prerequisites;
use crate::process::{cargo, run, step};
use crate::setup;

/// What tests read: the binary under test, where to say that they skipped, and a Python that has its libraries.
const BINARY: &str = "MESH_BIN";
const SKIP_FILE: &str = "MESH_SKIP_FILE";
const PYTHON: &str = "MESH_TEST_PYTHON";

const PACKAGES: [&str; 3] = ["--workspace", "--exclude", "mesh-ebpf"];

/// Sets up, builds, runs doctests and tests whose name contains one of `filters` (all, if none is given). Says whether
/// all passed; the runner's summary is the last line, whatever the outcome.
pub(crate) fn run_all(filters: &[String]) -> Result<bool, String> {
    setup::for_tests()?;
    let binary = build::run(Profile::Debug)?;
    warn_of_missing();

    let mut doctests = cargo();
    doctests.args(["test", "--doc", "--quiet"]).args(PACKAGES).arg("--").args(filters);
    let documented = run("running the examples in the documentation", &mut doctests);

    let skips = std::env::temp_dir().join(format!("mesh-skips-{}", std::process::id()));
    let tested = nextest(&binary, &skips, filters);
    let skipped = std::fs::read_to_string(&skips).unwrap_or_default();
    // Only a file of ours in the temporary directory; one that stays harms nobody.
    let _ = std::fs::remove_file(&skips);

    if let Err(reason) = &documented {
        println!("error: {reason}");
    }
    let tested = tested?;
    print!("{}", block(&skipped, "DID NOT RUN, though counted as passed below"));
    print!("{}", block(&tested.flaky, "FAILED AT FIRST, though counted as passed below"));
    if let Some(summary) = tested.summary {
        println!("{summary}");
    }
    Ok(tested.passed && documented.is_ok())
}

fn warn_of_missing() {
    let missing = prerequisites::missing_for_tests();
    if missing.is_empty() {
        return;
    }
    step("this machine lacks what many tests need; they will be skipped:");
    for finding in missing {
        eprintln!("    {}: {}", finding.what, finding.remedy);
    }
}

/// What came of the tests.
struct Tested {
    /// The runner's last line.
    summary: Option<String>,
    /// The tests that passed at their second try, a line each.
    flaky: String,
    passed: bool,
}

/// Runs the tests, shows what the runner says as it comes, and keeps its summary line for the end.
fn nextest(binary: &Path, skips: &Path, filters: &[String]) -> Result<Tested, String> {
    step("running the tests");
    let retries = if std::env::var_os("CI").is_some() { "1" } else { "0" };
    let mut command = cargo();
    command
        .args(["nextest", "run", "--no-fail-fast", "--retries", retries, "--final-status-level", "flaky"])
        .args(PACKAGES)
        .args(filters)
        .env(BINARY, binary)
        .env(SKIP_FILE, skips)
        .env(PYTHON, setup::python());
    if std::io::stderr().is_terminal() {
        command.args(["--color", "always"]);
    }
    // Ctrl-C reaches the runner as well, which ends its tests: what it says of them is heard to the end.
    interrupt::listen();
    let mut child = command.stderr(Stdio::piped()).spawn().map_err(|error| format!("cargo nextest: {error}"))?;
    let (mut summary, mut flaky) = (None, String::new());
    if let Some(said) = child.stderr.take() {
        for line in BufReader::new(said).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            if let Some(test) = flaky_test(&line) {
                flaky.push_str(&test);
                flaky.push('\n');
            }
            if is_summary(&line) {
                summary = Some(line.into_owned());
            } else {
                // Who does not want to read it still wants the result.
                let _ = writeln!(std::io::stderr(), "{line}");
            }
        }
    }
    let status = child.wait().map_err(|error| format!("cargo nextest: {error}"))?;
    Ok(Tested { summary, flaky, passed: status.success() })
}

/// The test of `   FLAKY 2/2 [   0.004s] ( 1/9) mesh-tests::admin a_test`, coloured or not.
fn flaky_test(line: &str) -> Option<String> {
    let plain = without_colour(line);
    let (_, test) = plain.trim_start().strip_prefix("FLAKY ")?.split_once("] ")?;
    Some(test.trim_start_matches(|c: char| "(/) ".contains(c) || c.is_ascii_digit()).to_owned())
}

/// `     Summary [   0.027s] 11 tests run: 11 passed, 0 skipped`, coloured or not.
fn is_summary(line: &str) -> bool {
    let plain = without_colour(line);
    let Some(rest) = plain.trim_start().strip_prefix("Summary [") else { return false };
    rest.contains("] ") && rest.contains(" run: ")
}

/// Drops the escape sequences that set colours.
fn without_colour(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let first = parts.next().unwrap_or_default();
    let rest = parts.map(|part| part.split_once('m').map_or("", |(_, text)| text));
    std::iter::once(first).chain(rest).collect()
}

/// Lines about tests, each once and sorted, under what is to be said of them; nothing at all if there are none.
fn block(lines: &str, what: &str) -> String {
    let mut lines: Vec<&str> = lines.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    lines.dedup();
    if lines.is_empty() {
        return String::new();
    }
    let rule = "=".repeat(80);
    let count = lines.len();
    let tests = if count == 1 { "TEST" } else { "TESTS" };
    format!("{rule}\n{count} {tests} {what}:\n  {}\n{rule}\n", lines.join("\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runners_summary_is_recognised_plain_and_coloured() {
        assert!(is_summary("     Summary [   0.027s] 11 tests run: 11 passed, 0 skipped"));
        assert!(is_summary("     Summary [   3.1s] 5/9 tests run: 4 passed, 1 failed, 2 skipped"));
        let coloured = "\x1b[32;1m     Summary\x1b[0m [   0.027s] \x1b[1m11\x1b[0m tests run: \x1b[1m11\x1b[0m passed";
        assert!(is_summary(coloured));
    }

    #[test]
    fn a_test_that_prints_the_word_summary_is_no_summary() {
        assert!(!is_summary("Summary of services"));
        assert!(!is_summary("        PASS [   0.004s] xtask summary"));
        assert!(!is_summary(""));
    }

    #[test]
    fn what_is_said_of_tests_is_shown_once_each_and_sorted() {
        let said = block("b: no cgroup2\na: not root\n\nb: no cgroup2\n", "DID NOT RUN");
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[1..4], ["2 TESTS DID NOT RUN:", "  a: not root", "  b: no cgroup2"]);
        assert_eq!(block("\n", "DID NOT RUN"), "");
    }

    #[test]
    fn a_test_that_passed_at_its_second_try_is_recognised_plain_and_coloured() {
        let line = "   FLAKY 2/2 [   0.011s] (12/90) mesh-tests::admin a_test";
        assert_eq!(flaky_test(line).as_deref(), Some("mesh-tests::admin a_test"));
        let coloured = "\x1b[35;1m   FLAKY 2/2\x1b[0m [   0.011s] \x1b[35;1mmesh-tests\x1b[0m a_test";
        assert_eq!(flaky_test(coloured).as_deref(), Some("mesh-tests a_test"));
        assert_eq!(flaky_test("        PASS [   0.011s] FLAKY 2/2 [ ] x"), None);
    }
}
