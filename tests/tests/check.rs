//! `mesh check`: what it says is what happens, and it leaves no trace.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Daemon, Value, ask::find, json, kernel, process, service, shape, world};
use std::{fs, net::TcpListener, process::Command};

const VIP: &str = "10.96.0.10:80";
const E1: &str = "10.1.0.1:8080";

fn web() -> Value {
    json!([service("web", &[VIP], &[E1])])
}

fn checked(mesh: &Daemon, code: i32) -> Value {
    let outcome = mesh.cli(&["check", "--config", &mesh.config_path().to_string_lossy(), "-o", "json"]).ended(code);
    serde_json_value(&outcome.stdout)
}

fn serde_json_value(text: &str) -> Value {
    text.parse().unwrap_or_else(|e| panic!("no JSON ({e}): {text}"))
}

fn finding(check: &Value, name: &str) -> Value {
    find(&check["findings"], "check", name)
}

#[track_caller]
fn fails(check: &Value, name: &str, words: &[&str]) {
    let finding = finding(check, name);
    assert_eq!((&finding["ok"], &finding["required"]), (&json!(false), &json!(true)), "{finding:#}");
    for word in words {
        assert!(finding["detail"].as_str().unwrap().contains(word), "{word}: {finding:#}");
    }
    assert!(finding["remedy"].is_string(), "{finding:#}");
    assert_eq!(check["ok"], false);
}

#[test]
fn on_a_fit_host_everything_is_tried_and_nothing_stays() {
    let world = world!();
    let mesh = world.setup(web()).idle();
    let check = checked(&mesh, 0);
    shape::check(&check, &[("ok", "flag"), ("findings", "list")]);
    let fields = [("check", "text"), ("ok", "flag"), ("required", "flag"), ("detail", "text"), ("remedy", "text|null")];
    shape::check_each(&check["findings"], &fields);
    assert_eq!(check["ok"], true);
    for (name, required) in [
        ("configuration", true),
        ("kernel", false),
        ("capabilities", true),
        ("btf", false),
        ("field sock.sk_err", false),
        ("cgroup", true),
        ("bpffs", true),
        ("state_dir", true),
        ("admin.listen", true),
        ("proxy.port", false),
        ("admin.socket", true),
        ("other programs", false),
        ("map VIPS", true),
        ("program mesh_connect4", true),
        ("program mesh_peername6", false),
        ("program mesh_live", false),
        ("connection IPv4", true),
    ] {
        let finding = finding(&check, name);
        assert_eq!((&finding["ok"], &finding["required"]), (&json!(true), &json!(required)), "{finding:#}");
    }
    assert!(finding(&check, "connection IPv4")["detail"].as_str().unwrap().contains("translated"));
    assert_eq!(mesh.left_behind(), (Vec::new(), 0));
    let below = fs::read_dir(world.cgroup().path()).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(below, 0, "its cgroup is gone");
    assert!(!mesh.dir().join("state").exists(), "it makes no directory");
    mesh.cli(&["check", "--config", &mesh.config_path().to_string_lossy()]).ended(0).says(&["can start here"]);
}

#[test]
fn it_works_beside_a_running_daemon_and_disturbs_nothing() {
    let world = world!();
    let _b1 = world.backend("B1", E1);
    let mesh = world.daemon(web());
    let hammer = world.hammer(&[VIP]);
    for _ in 0..3 {
        let check = checked(&mesh, 0);
        let pid = mesh.pid().to_string();
        assert!(finding(&check, "daemon")["detail"].as_str().unwrap().contains(&pid), "{check:#}");
        assert!(finding(&check, "admin.listen")["detail"].as_str().unwrap().contains("running daemon"));
        assert_eq!(finding(&check, "other programs")["ok"], true, "the daemon's are no strangers: {check:#}");
        assert!(finding(&check, "pins")["detail"].as_str().unwrap().contains("taken over"));
        assert_eq!(finding(&check, "connection IPv4")["ok"], true);
    }
    let mut tally = mesh_tests::hammer::Tally::default();
    tally.add(hammer.stop());
    tally.assert_flawless();
    let status = mesh.json(&["status"]);
    assert!(status["programs"].as_array().unwrap().iter().all(|p| p["attached"] == true), "{status:#}");
}

#[test]
fn every_mistake_of_the_configuration_is_a_finding_and_the_rest_is_checked_too() {
    let world = world!();
    let mesh = world.setup(web()).idle();
    mesh.write_text(&format!(
        "dataplane: {{ cgroup: {} }}\nadmin: {{ lisen: 1 }}\nservices: [ {{ name: A_B }} ]\n",
        world.cgroup().path().display()
    ));
    let check = checked(&mesh, 1);
    let mistakes: Vec<_> =
        check["findings"].as_array().unwrap().iter().filter(|f| f["check"] == "configuration").collect();
    assert_eq!(mistakes.len(), 2, "{check:#}");
    assert!(mistakes.iter().all(|f| f["ok"] == false && f["required"] == true));
    assert!(mistakes[0]["detail"].as_str().unwrap().contains("mesh.yaml:2:"), "{mistakes:#?}");
    assert_eq!(finding(&check, "connection IPv4")["ok"], true);
    assert!(finding(&check, "cgroup")["detail"].as_str().unwrap().contains(&*world.cgroup().path().to_string_lossy()));
}

#[test]
fn what_the_daemon_could_not_start_with_is_named_with_its_remedy() {
    let world = world!();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().to_string();
    let file = tempfile();
    let setup = world.setup(web()).with(|c| {
        c["admin"]["listen"] = json!(port);
        c["node"]["state_dir"] = json!(file.join("file/state"));
        c["dataplane"]["cgroup"] = json!(world.cgroup().path().join("none"));
    });
    let mut mesh = setup.idle();
    let check = checked(&mesh, 1);
    fails(&check, "admin.listen", &[&port, &std::process::id().to_string()]);
    fails(&check, "state_dir", &["is no directory"]);
    fails(&check, "cgroup", &["none"]);
    mesh.cli(&["check"]).ended(1).says(&["FAILED", "cannot start here", &port]);
    mesh.spawn();
    assert_eq!(mesh.wait().code(), Some(1), "and so it is: {}", mesh.log());
    fs::remove_dir_all(file).unwrap();
}

/// A directory with a file in it.
fn tempfile() -> std::path::PathBuf {
    let directory = std::env::temp_dir().join(format!("mesh-test-check-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("file"), "").unwrap();
    directory
}

#[test]
fn without_capabilities_it_says_which_are_missing() {
    let world = world!();
    let mesh = world.setup(web()).idle();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-net_admin,-sys_admin,-bpf,-perfmon", "--"]).arg(process::mesh());
    command.args(["check", "-o", "json", "--config"]).arg(mesh.config_path());
    let check = serde_json_value(&process::run(&mut command).ended(1).stdout);
    fails(&check, "capabilities", &["CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON"]);
    fails(&check, "programs", &["not tried"]);
}

#[test]
fn in_userspace_mode_nothing_of_the_kernel_is_required() {
    let world = world!();
    let setup = world.setup(web()).with(|c| {
        c["dataplane"]["mode"] = json!("userspace");
        c["dataplane"]["cgroup"] = json!(world.cgroup().path().join("none"));
    });
    let check = checked(&setup.idle(), 0);
    assert_eq!(finding(&check, "cgroup")["ok"], false);
    assert_eq!(check["ok"], true);
}

#[test]
fn programs_of_others_are_named_with_their_place() {
    let world = world!();
    let _other = kernel::stranger(world.cgroup().path(), "other_one").unwrap();
    let mesh = world.setup(web()).beside_another().idle();
    let check = checked(&mesh, 0);
    let finding = finding(&check, "other programs");
    assert_eq!((&finding["ok"], &finding["required"]), (&json!(false), &json!(false)));
    assert!(finding["detail"].as_str().unwrap().contains("other_one"), "{finding:#}");
}
