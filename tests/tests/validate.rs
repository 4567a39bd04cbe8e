//! Checking a configuration without a daemon: every mistake at once, with its place.
//!
//! The many kinds of mistakes have unit tests beside the code; here is what a user sees of them.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Outcome, Value, process};
use std::{fs, process::Command};

fn mesh(arguments: &[&str]) -> Outcome {
    process::run(Command::new(process::mesh()).args(arguments))
}

/// `mesh config validate` of a file `mesh.yaml` with this text.
fn validate(text: &str) -> Outcome {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mesh.yaml");
    fs::write(&file, text).unwrap();
    mesh(&["config", "validate", &file.to_string_lossy()])
}

/// Whether some line of the output names this line of the file and has all the words.
fn has_finding(outcome: &Outcome, line: usize, words: &[&str]) -> bool {
    let all = format!("{}\n{}", outcome.stdout, outcome.stderr);
    all.lines().any(|l| l.contains(&format!(":{line}:")) && words.iter().all(|w| l.contains(w)))
}

const GOOD: &str = "\
node: { name: node-a }
admin:
  listen: 127.0.0.1:9901
  socket: /run/mesh/admin.sock
dataplane:
  mode: ebpf
  mark: 0x6d657368
defaults:
  protocol: tcp
  load_balancing: { policy: random }
services:
  - name: checkout
    addresses: [\"10.96.0.10:80\", \"[fd00::10]:80\"]
    load_balancing: { policy: round_robin }
    endpoints:
      - { address: \"10.0.1.5:8080\", weight: 2, zone: eu-west-1a, region: eu-west, node: node-b }
      - { address: \"[fd01::1]:8080\", weight: 0 }
  - name: empty
";

#[test]
fn a_good_file_is_valid() {
    validate(GOOD).done();
    validate("").done();
    validate("services: []\n").done();
}

#[test]
fn every_mistake_is_listed_at_once_with_line_and_column() {
    let text = "\
nodee: { name: a }
dataplane:
  mode: turbo
  mark: banana
services:
  - name: Web Shop
    addresses:
      - 0.0.0.0:80
      - 224.0.0.1:80
      - 10.96.0.11:0
      - nonsense
    load_balancing: { policy: alphabetical }
    endpoints:
      - { address: \"10.1.0.1:8080\", weight: 65536 }
      - { address: \"10.1.0.2:8080\", wieght: 1 }
      - { weight: 1 }
  - name: first
    addresses: [\"10.96.0.10:80\"]
  - name: second
    addresses: [\"10.96.0.10:80\"]
  - name: first
";
    let outcome = validate(text).ended(1);
    for (line, words) in [
        (1, &["nodee"][..]),
        (3, &["turbo"]),
        (4, &["mark"]),
        (6, &["Web Shop"]),
        (8, &["0.0.0.0:80"]),
        (9, &["224.0.0.1:80"]),
        (10, &["10.96.0.11:0"]),
        (11, &["nonsense"]),
        (12, &["alphabetical"]),
        (14, &["65536"]),
        (15, &["wieght"]),
        (16, &["address"]),
        (20, &["10.96.0.10:80"]),
        (21, &["first"]),
    ] {
        assert!(has_finding(&outcome, line, words), "line {line}, {words:?}: {outcome}");
    }
}

#[test]
fn a_finding_has_the_column_of_the_mistake() {
    let outcome = validate("services:\n  - name: web\n    bogus: 1\n").ended(1);
    assert!(has_finding(&outcome, 3, &["mesh.yaml:3:5", "bogus"]), "{outcome}");
}

#[test]
fn broken_yaml_is_reported_with_its_place() {
    for text in ["services: [", "services:\n\t- name: web\n", "a: b: c\n", "\"", "services: &a [*a]\n", "{}\n---\n{}\n"]
    {
        let outcome = validate(text).ended(1);
        assert!(!outcome.stderr.contains("panicked"), "{text:?}: {outcome}");
        assert!(format!("{}{}", outcome.stdout, outcome.stderr).contains("mesh.yaml"), "{text:?}: {outcome}");
    }
}

#[test]
fn keys_of_later_work_are_refused_by_name() {
    let service = |more: &str| format!("services:\n  - name: web\n    addresses: [\"10.96.0.10:80\"]\n    {more}\n");
    let outcome = validate(&service("protocol: udp")).ended(1).says(&["not supported yet"]);
    let all = format!("{}\n{}", outcome.stdout, outcome.stderr);
    assert!(all.lines().any(|l| l.contains("not supported yet") && l.contains("udp")), "{outcome}");
}

#[test]
fn a_missing_file_is_named() {
    mesh(&["config", "validate", "/no/such/mesh.yaml"]).ended(1).says(&["/no/such/mesh.yaml"]);
    mesh(&["config", "validate"]).ended(2);
}

#[test]
fn warnings_do_not_make_a_file_invalid() {
    let text = "services:\n  - name: web\n    addresses: [\"127.0.0.1:8080\"]\n    endpoints: [{ address: \"127.0.0.1:9090\" }]\n";
    validate(text).says(&["127.0.0.1:8080"]).done();
}

#[test]
fn the_schema_is_json_and_knows_the_sections() {
    let schema: Value = serde_json::from_str(&mesh(&["config", "schema"]).done()).unwrap();
    for section in ["node", "admin", "dataplane", "defaults", "services"] {
        assert!(schema["properties"][section].is_object(), "{section}: {schema:#}");
    }
}

#[test]
fn huge_and_deep_files_are_answered() {
    let deep = format!("services: {}{}\n", "[".repeat(10_000), "]".repeat(10_000));
    let outcome = validate(&deep).ended(1);
    assert!(!outcome.stderr.contains("overflow"), "{outcome}");
    let many: String = (0..2000)
        .map(|n| format!("  - {{ name: s{n}, addresses: [\"10.96.{}.{}:80\"] }}\n", n / 250, n % 250 + 1))
        .collect();
    validate(&format!("services:\n{many}")).done();
}
