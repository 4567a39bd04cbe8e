//! Runs every test, and says which ones did not really run.
//!
//! Rust has no skipped tests: one that finds no cgroup2 passes. Here such a test adds a line to the file named by
//! `MESH_SKIP_FILE`, and the end of the output shows them all.

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::Path;
use std::process::Stdio;

use crate::build::{self, Profile};
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

    print!("{}", skip_block(&skipped));
    if let Err(reason) = &documented {
        println!("error: {reason}");
    }
    let (summary, passed) = tested?;
    if let Some(summary) = summary {
        println!("{summary}");
    }
    Ok(passed && documented.is_ok())
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

/// Runs the tests, shows what the runner says as it comes, and keeps its summary line for the end.
fn nextest(binary: &Path, skips: &Path, filters: &[String]) -> Result<(Option<String>, bool), String> {
    step("running the tests");
    let mut command = cargo();
    command
        .args(["nextest", "run", "--no-fail-fast"])
        .args(PACKAGES)
        .args(filters)
        .env(BINARY, binary)
        .env(SKIP_FILE, skips)
        .env(PYTHON, setup::python());
    if std::io::stderr().is_terminal() {
        command.args(["--color", "always"]);
    }
    let mut child = command.stderr(Stdio::piped()).spawn().map_err(|error| format!("cargo nextest: {error}"))?;
    let mut summary = None;
    if let Some(said) = child.stderr.take() {
        for line in BufReader::new(said).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            if is_summary(&line) {
                summary = Some(line.into_owned());
            } else {
                // Who does not want to read it still wants the result.
                let _ = writeln!(std::io::stderr(), "{line}");
            }
        }
    }
    let status = child.wait().map_err(|error| format!("cargo nextest: {error}"))?;
    Ok((summary, status.success()))
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

/// What was skipped and why, each once and sorted; nothing at all if nothing was.
fn skip_block(lines: &str) -> String {
    let mut skipped: Vec<&str> = lines.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    skipped.sort_unstable();
    skipped.dedup();
    if skipped.is_empty() {
        return String::new();
    }
    let rule = "=".repeat(80);
    let count = skipped.len();
    let tests = if count == 1 { "TEST" } else { "TESTS" };
    format!(
        "{rule}\n{count} {tests} DID NOT RUN, though counted as passed below:\n  {}\n{rule}\n",
        skipped.join("\n  ")
    )
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
    fn skips_are_shown_once_each_and_sorted() {
        let block = skip_block("b: no cgroup2\na: not root\n\nb: no cgroup2\n");
        let lines: Vec<&str> = block.lines().collect();
        assert_eq!(
            lines[1..4],
            ["2 TESTS DID NOT RUN, though counted as passed below:", "  a: not root", "  b: no cgroup2"]
        );
        assert_eq!(skip_block("\n"), "");
    }
}
