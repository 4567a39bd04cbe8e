//! The Debian package and the unit in it, on a machine with systemd: installed, reloaded, upgraded, removed, purged.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{
    Machine, Value, World, eventually, holds, http_with, image::xtask, json, process, program, programs, server,
    service, world,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

const VIP: &str = "10.96.0.10:80";
const HTTP: &str = "10.96.0.11:80";
const E1: &str = "10.1.0.1:8080";

/// Stands for the daemon where the package is only looked at: it is packed sooner.
const SMALL: &str = "/bin/true";

/// The package around a binary, in a directory of its own.
fn package(binary: &Path) -> Result<(TempDir, PathBuf), String> {
    for (program, of) in [("cargo-deb", "cargo-deb"), ("dpkg-deb", "dpkg"), ("dpkg-shlibdeps", "dpkg-dev")] {
        // Where cargo installs programs is not on everybody's path.
        let own = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo/bin").join(program));
        let here = programs::find(program).is_some() || own.is_some_and(|path| path.is_file());
        here.then_some(()).ok_or_else(|| format!("needs `{program}` of {of}, which `cargo xtask setup` installs"))?;
    }
    let dir = tempfile::Builder::new().prefix("mesh-test-deb-").tempdir().unwrap();
    let output = dir.path().to_string_lossy().into_owned();
    xtask(&["deb", "--fast", "--binary", &binary.to_string_lossy(), "--output", &output])?.done();
    let mut made = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let deb = made.find(|path| path.extension().is_some_and(|kind| kind == "deb")).expect("a package");
    Ok((dir, deb))
}

fn dpkg_deb(arguments: &[&str]) -> String {
    process::run_long(Command::new("dpkg-deb").args(arguments)).done()
}

/// The same package as a later version, with what else is changed in its tree.
fn later(deb: &Path, version: &str, change: impl FnOnce(&Path)) -> PathBuf {
    let tree = deb.with_extension(version);
    dpkg_deb(&["-R", &deb.to_string_lossy(), &tree.to_string_lossy()]);
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control).unwrap();
    let lines = text
        .lines()
        .map(|line| if line.starts_with("Version:") { format!("Version: {version}") } else { line.to_owned() });
    fs::write(&control, lines.map(|line| line + "\n").collect::<String>()).unwrap();
    change(&tree);
    let made = deb.with_file_name(format!("mesh_{version}.deb"));
    dpkg_deb(&["-Znone", "-b", &tree.to_string_lossy(), &made.to_string_lossy()]);
    fs::remove_dir_all(&tree).unwrap();
    made
}

/// Where the machine sees a package.
fn seen(deb: &Path) -> String {
    format!("/mnt/{}", deb.file_name().unwrap().to_string_lossy())
}

/// What the daemon on the machine says of itself, once it is ready.
fn status(machine: &Machine) -> Value {
    eventually("the daemon intercepts", || {
        let said = machine.run(&["mesh", "status", "-o", "json"]);
        let status: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
        if status["interception_ok"] == json!(true) { Ok(status) } else { Err(said) }
    })
}

#[test]
fn the_package_has_what_it_needs_and_asks_before_it_replaces_the_configuration() {
    let (_dir, deb) = server!(package(Path::new(SMALL)));
    let about = dpkg_deb(&["-I", &deb.to_string_lossy()]);
    for line in ["Package: mesh", "Section: net", "Recommends: ca-certificates"] {
        assert!(about.contains(line), "{line}: {about}");
    }
    assert!(about.contains(&format!("Version: {}", env!("CARGO_PKG_VERSION"))), "{about}");
    let depends = about.lines().find_map(|line| line.trim().strip_prefix("Depends: ")).expect("dependencies");
    assert!(depends.contains("libc6"), "{depends}");
    assert_eq!(dpkg_deb(&["-I", &deb.to_string_lossy(), "conffiles"]).trim(), "/etc/mesh/mesh.yaml");
    for script in ["postinst", "prerm", "postrm"] {
        let text = dpkg_deb(&["-I", &deb.to_string_lossy(), script]);
        assert!(!text.contains("#DEBHELPER#"), "{text}");
    }
    let content = dpkg_deb(&["-c", &deb.to_string_lossy()]);
    let wanted = [
        ("-rwxr-xr-x 0/0", "./usr/bin/mesh"),
        ("-rw-r--r-- 0/0", "./etc/mesh/mesh.yaml"),
        ("-rw-r--r-- 0/0", "systemd/system/mesh.service"),
        ("-rw-r--r-- 0/0", "./usr/share/doc/mesh/copyright"),
    ];
    for (mode, path) in wanted {
        let line = content.lines().find(|line| line.ends_with(path)).unwrap_or_else(|| panic!("{path}: {content}"));
        assert!(line.starts_with(mode), "{line}");
    }
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/debian/mesh.yaml");
    let valid = process::run(Command::new(process::mesh()).args(["config", "validate"]).arg(shipped));
    assert_eq!(valid.ended(0).stderr, "", "without a warning");
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let analyze = program!("systemd-analyze");
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/mesh.service");
    // Where nothing is installed, the program's own path stands for it.
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("mesh.service");
    let text = fs::read_to_string(deploy).unwrap();
    let mesh = process::mesh();
    fs::write(&unit, text.replace("=mesh ", &format!("={} ", mesh.display()))).unwrap();
    let unit = unit.to_string_lossy().into_owned();
    let verified = programs::run(&analyze, &["verify", "--man=no", &unit]);
    if verified.stderr.contains("Failed to initialize manager") {
        mesh_tests::skip!("needs a systemd-analyze that can load units: {}", verified.stderr.trim());
    }
    assert_eq!(verified.ended(0).stderr, "");
    let judged = programs::run(&analyze, &["security", "--no-pager", "--offline=true", "--threshold=50", &unit]);
    // 0 is nothing that it could do, 10 everything: what the daemon is for costs some 3, and that it sees the host's files.
    judged.ended(0);
}

/// A pod of the machine: a network namespace with a server, and a client that asks the service whose endpoint it is. Both are in the
/// cgroup that is served: a namespace is looked for among processes there, and clients are gone too soon.
const POD: &str =
    "echo 0 > /sys/fs/cgroup/cgroup.procs; ip netns add pod && ip -n pod link set lo up && cd /usr/share/doc/mesh &&
    { ip netns exec pod python3 -m http.server --bind 127.0.0.1 8080 >/dev/null 2>&1 & }";
const ASK: &str =
    "echo 0 > /sys/fs/cgroup/cgroup.procs; exec ip netns exec pod curl -si --max-time 5 http://10.96.0.11/";

/// The package's story on one machine, as an operator would tell it.
#[test]
fn connections_go_on_from_the_installation_to_the_purge() {
    let world: World = world!();
    let (dir, deb) = server!(package(&process::mesh()));
    let machine = server!(Machine::boot(&world, dir.path()));
    let _backend = world.backend("B1", E1);
    let services = json!([
        service("web", &[VIP], &[E1]),
        http_with("shop", &["127.0.0.1:8080"], json!({ "addresses": [HTTP], "health_check": { "type": "none" } })),
    ]);
    // Stricter than the unit, which answers with an error: who makes a call that it forbids is killed.
    machine.write("/etc/systemd/system/mesh.service.d/strict.conf", "[Service]\nSystemCallErrorNumber=kill\n");

    // Installed: it runs, with the rights that the unit leaves it and no others, and serves what is configured.
    machine.run(&["dpkg", "-i", &seen(&deb)]).done();
    let first = status(&machine);
    assert_eq!((&first["mode"], &first["warnings"]), (&json!("ebpf"), &json!([])), "{first}");
    assert_eq!(machine.property("mesh", "UnitFileState"), "enabled");
    let pid = machine.property("mesh", "MainPID");
    let confined = machine.read(&format!("/proc/{pid}/status")).unwrap();
    for line in ["CapBnd:\t000000c000281404", "CapEff:\t000000c000281404", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(confined.contains(line), "{line}: {confined}");
    }
    machine.write("/etc/mesh/mesh.yaml", &json!({ "services": services }).to_string());
    machine.run(&["systemctl", "reload", "mesh"]).done();
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    let client = world.client(VIP);
    let who = || -> Value {
        let said = machine.run(&["mesh", "connections", "-o", "json"]);
        serde_json::from_str(&said.stdout).unwrap_or_default()
    };
    holds("a connection with its process", who, |all| all[0]["client"]["pid"].is_u64());
    drop(client);
    machine.run(&["sh", "-c", POD]).done();
    eventually("requests of a pod go through the daemon", || {
        let answer = machine.run(&["sh", "-c", ASK]);
        if answer.stdout.contains(" mesh\r\n") && answer.stdout.contains("LICENSE") { Ok(()) } else { Err(answer) }
    });
    assert_eq!(machine.property("mesh", "NRestarts"), "0");

    // A mistake is told to whoever reloads, and changes nothing.
    let good = machine.read("/etc/mesh/mesh.yaml").unwrap();
    machine.write("/etc/mesh/mesh.yaml", "services: 5\n");
    assert_ne!(machine.run(&["systemctl", "reload", "mesh"]).code, 0);
    assert_eq!(world.ask(VIP).unwrap(), "B1");

    // Upgraded to a version that refuses the configuration: the running daemon stays.
    let second = later(&deb, "0.1.0-2", |_| {});
    let upgraded = machine.run(&["dpkg", "--force-confold", "-i", &seen(&second)]).ended(0);
    assert!(upgraded.stderr.contains("the running daemon stays"), "{upgraded}");
    assert_eq!(machine.property("mesh", "MainPID"), pid);
    machine.write("/etc/mesh/mesh.yaml", &good);

    // Upgraded: another process, which adopts what is in the kernel, and no connect fails.
    let hammer = world.hammer(&[VIP]);
    let third = later(&deb, "0.1.0-3", |_| {});
    machine.run(&["dpkg", "--force-confold", "-i", &seen(&third)]).done();
    assert_ne!(machine.property("mesh", "MainPID"), pid);
    status(&machine);
    hammer.stop().assert_flawless();
    assert_eq!(machine.read("/etc/mesh/mesh.yaml").unwrap(), good, "what was changed is kept");

    // Removed: no daemon, and connections go on.
    machine.run(&["dpkg", "-r", "mesh"]).done();
    assert!(!machine.has("/usr/bin/mesh") && machine.has("/etc/mesh/mesh.yaml"));
    assert_ne!(machine.run(&["systemctl", "is-active", "mesh"]).code, 0);
    assert_eq!(world.ask(VIP).unwrap(), "B1");

    // Purged: nothing.
    machine.run(&["dpkg", "-P", "mesh"]).done();
    assert!(world.ask(VIP).is_err());
    for gone in ["/var/lib/mesh", "/etc/mesh", "/sys/fs/bpf/mesh"] {
        assert!(!machine.has(gone), "{gone}");
    }
    assert_eq!(world.cgroup().attached_programs(), 0);
}
