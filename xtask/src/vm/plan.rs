//! Which tests face the kernel, and which of them are to run.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::build::{self, Profile};
use crate::process::{cargo, step};

/// Test binaries that are the same on every kernel, and that `cargo xtask test` runs. Named are these and not the
/// others, so that a new one runs until somebody says that it need not.
const NOT_FACING: [&[&str]; 4] = [
    // Load no program.
    &[
        "bugreport",
        "dashboard",
        "grpc",
        "http_balance",
        "http_basics",
        "http_circuits",
        "http_descriptors",
        "http_headers",
        "http_hostile",
        "http_hostile_two",
        "http_lifecycle",
        "http_limits",
        "http_names",
        "http_retries",
        "http_routes",
        "http_safety",
        "http_streams",
        "http_told",
        "http_two",
        "layers",
        "programs",
        "prometheus",
        "validate",
        "websocket",
    ],
    // Are about where services come from, and about what is told of requests: what they meet of the kernel, if anything, is
    // what all others meet, and some start servers that would take most of the time.
    &["dns", "etcd", "http_metrics", "kubernetes", "registry", "top", "traces"],
    // Are about what is built and shown: they need cargo, dpkg, helm and the sources, which no guest has.
    &["documentation", "image", "manifests", "package"],
    // Unit tests, none of which asks a kernel.
    &["mesh", "mesh-reference", "mesh-test-peer", "mesh_common", "mesh_tests", "xtask"],
];

/// The library with everything that talks to the kernel, and where its tests of that are.
const LIBRARY: (&str, &str) = ("mesh_userspace", "kernel::");

/// One test.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Test {
    /// The name of its binary, without cargo's hash.
    pub(super) binary: String,
    pub(super) name: String,
}

impl Test {
    /// `binary::name`, by which filters choose.
    pub(super) fn id(&self) -> String {
        format!("{}::{}", self.binary, self.name)
    }
}

/// What runs: tests, the binaries they are in, and the programs that these start.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) tests: Vec<Test>,
    pub(super) binaries: Vec<(String, PathBuf)>,
    pub(super) daemon: PathBuf,
    pub(super) peer: PathBuf,
}

/// Builds the binaries, the daemon too if there is none, and lists the tests in them that `chosen` takes.
pub(super) fn make(daemon: Option<PathBuf>, chosen: impl Fn(&Test) -> bool) -> Result<Plan, String> {
    let daemon = daemon.map_or_else(|| build::run(Profile::Debug), Ok)?;
    step("building the tests");
    let mut command = cargo();
    command.args(["test", "--no-run", "--message-format=json-render-diagnostics"]);
    // All packages, though two are wanted: what `cargo xtask test` builds is compiled the same way.
    command.args(["--workspace", "--exclude", "mesh-ebpf"]);
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| format!("cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("building the tests: cargo: {}", output.status));
    }
    let built = executables(&String::from_utf8_lossy(&output.stdout));
    let peer = built.iter().find(|built| !built.test && built.name == "mesh-test-peer");
    let peer = peer.map(|peer| peer.path.clone()).ok_or("cargo built no mesh-test-peer")?;
    let mut plan = Plan { tests: Vec::new(), binaries: Vec::new(), daemon, peer };
    for Built { name, path, .. } in built.into_iter().filter(|built| built.test && faces_kernel(&built.name)) {
        let output = Command::new(&path).args(["--list", "--format", "terse"]).output();
        let output = output.map_err(|error| format!("{}: {error}", path.display()))?;
        let ignored = Command::new(&path).args(["--list", "--format", "terse", "--ignored"]).output();
        let ignored =
            listed(&ignored.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default());
        let tests = listed(&String::from_utf8_lossy(&output.stdout)).into_iter().filter(|test| !ignored.contains(test));
        let tests = tests.map(|test| Test { binary: name.clone(), name: test });
        let tests: Vec<Test> = tests.filter(|test| worth(test) && chosen(test)).collect();
        if !tests.is_empty() {
            plan.tests.extend(tests);
            plan.binaries.push((name, path));
        }
    }
    plan.tests.sort();
    Ok(plan)
}

struct Built {
    name: String,
    path: PathBuf,
    test: bool,
}

/// The executables in cargo's messages, one JSON object a line.
fn executables(messages: &str) -> Vec<Built> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let built = messages.filter_map(|message| {
        Some(Built {
            name: message["target"]["name"].as_str()?.to_owned(),
            path: PathBuf::from(message["executable"].as_str()?),
            test: message["profile"]["test"].as_bool()?,
        })
    });
    built.collect()
}

/// The names in `--list --format terse`.
fn listed(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// Whether a binary has tests that face the kernel.
fn faces_kernel(binary: &str) -> bool {
    !NOT_FACING.iter().any(|names| names.contains(&binary))
}

/// Of a library's unit tests only those of the part that talks to the kernel.
fn worth(test: &Test) -> bool {
    test.binary != LIBRARY.0 || test.name.starts_with(LIBRARY.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binaries_are_told_from_tests_in_cargos_messages() {
        let messages = r#"
            {"reason":"compiler-artifact","target":{"name":"mesh"},"profile":{"test":false},"executable":"/t/mesh"}
            {"reason":"compiler-artifact","target":{"name":"mesh"},"profile":{"test":true},"executable":"/t/deps/mesh-1"}
            {"reason":"compiler-artifact","target":{"name":"mesh_common"},"profile":{"test":false},"executable":null}
            {"reason":"build-finished","success":true}
        "#;
        let built = executables(messages);
        let built: Vec<(&str, bool)> = built.iter().map(|built| (built.path.to_str().unwrap(), built.test)).collect();
        assert_eq!(built, [("/t/mesh", false), ("/t/deps/mesh-1", true)]);
    }

    #[test]
    fn tests_are_listed_and_benchmarks_are_not() {
        assert_eq!(listed("a::b: test\nc: benchmark\n\nd: test\n"), ["a::b", "d"]);
    }

    #[test]
    fn of_the_library_only_what_talks_to_the_kernel_runs() {
        let test = |binary: &str, name: &str| Test { binary: binary.into(), name: name.into() };
        assert!(worth(&test("mesh_userspace", "kernel::btf::tests::x")));
        assert!(!worth(&test("mesh_userspace", "config::tests::x")));
        assert!(worth(&test("translate", "x")));
        assert!(faces_kernel("translate") && !faces_kernel("mesh") && !faces_kernel("websocket"));
    }
}
