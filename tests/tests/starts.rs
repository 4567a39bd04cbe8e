//! Starting: the modes, and every way in which a start is refused.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{
    Backend, Scripted, Value, Wire, World, ask::find, get, holds, http_service, json, poll, ports::Port, process,
    service, world,
};
use std::{io, net::TcpStream, os::unix::fs::PermissionsExt, path::Path, process::Command};

const VIP: &str = "10.96.0.10:80";
const E1: &str = "10.1.0.1:8080";
const E2: &str = "10.1.0.2:8080";

fn two(world: &World) -> [Backend; 2] {
    [world.backend("B1", E1), world.backend("B2", E2)]
}

fn web(endpoints: &[&str]) -> Value {
    json!([service("web", &[VIP], endpoints)])
}

#[test]
fn observe_counts_and_translates_nothing() {
    let world = world!();
    world.netns().ip("address add 10.96.0.10/32 dev lo");
    let _real = world.backend("REAL", VIP);
    let backends = two(&world);
    let setup = world.setup(json!([service("web", &[VIP], &[E1, E2]), service("none", &["10.96.0.11:80"], &[])]));
    let mesh = setup.with(|c| c["dataplane"]["mode"] = json!("observe")).start();
    assert_eq!(mesh.json(&["status"])["mode"], "observe");
    let mut client = world.dial(VIP).unwrap();
    assert_eq!(client.peer_addr().unwrap().as_socket().unwrap().to_string(), VIP);
    assert_eq!(mesh_tests::backend::answer(&mut client).unwrap(), "REAL");
    assert_eq!(world.dial("10.96.0.11:80").unwrap_err().raw_os_error(), Some(libc::ENETUNREACH), "nor refused");
    assert_eq!(backends.each_ref().map(Backend::accepted), [0, 0]);
    for service in ["web", "none"] {
        let labels = [("service", service), ("reason", "observe")];
        holds(service, || mesh.metrics().count("mesh_connects_passed_total", &labels), |n| *n == 1.0);
    }
}

#[test]
fn userspace_mode_attaches_nothing_and_is_not_ready() {
    let world = world!();
    let _backends = two(&world);
    let mut mesh = world.setup(web(&[E1])).with(|c| c["dataplane"]["mode"] = json!("userspace")).idle();
    mesh.spawn();
    mesh.wait_for("/health", 200);
    assert_eq!(mesh.http("GET", "/ready").status, 503);
    let status = mesh.json(&["status"]);
    assert_eq!((&status["mode"], &status["interception_ok"]), (&json!("userspace"), &json!(false)));
    assert_eq!(world.dial(VIP).unwrap_err().raw_os_error(), Some(libc::ENETUNREACH));
    assert_eq!(mesh.left_behind(), (Vec::new(), 0));
    assert_eq!(mesh.service("web")["endpoints"]["total"], 1);
}

/// The `mesh` binary where a user without rights can run it, in a directory of that user's.
fn for_nobody(mesh: &mesh_tests::Daemon) -> Command {
    let binary = mesh.dir().join("mesh");
    std::fs::copy(process::mesh(), &binary).unwrap();
    for path in [mesh.dir(), &binary, &mesh.config_path()] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    let mut command = Command::new(binary);
    command.args(["run", "--config", &mesh.config_path().to_string_lossy()]);
    std::os::unix::process::CommandExt::uid(&mut command, 65534);
    std::os::unix::process::CommandExt::gid(&mut command, 65534);
    command
}

#[test]
fn ebpf_mode_without_rights_ends_with_1_and_the_remedy() {
    let world = world!();
    let mesh = world.setup(web(&[E1])).with(|c| c["dataplane"]["mode"] = json!("ebpf")).idle();
    let outcome = process::run(&mut for_nobody(&mesh)).ended(1);
    assert!(outcome.stderr.contains("CAP_") || outcome.stderr.contains("root"), "a remedy: {outcome}");
    assert!(!outcome.stderr.contains("panicked"), "{outcome}");
}

#[test]
fn auto_mode_without_rights_runs_as_userspace() {
    let world = world!();
    let (endpoint, port) = (Scripted::named("B1"), Port::new());
    let mut http = http_service("http", &[&endpoint.address()]);
    http["health_check"] = json!({ "type": "tcp" });
    let mut services = web(&[E1]);
    services.as_array_mut().unwrap().push(http);
    let setup = world.setup(services).with(|c| c["proxy"] = json!({ "http": port.address(), "workers": 1 }));
    let mesh = setup.idle();
    let mut child = for_nobody(&mesh).stdin(std::process::Stdio::null()).spawn().unwrap();
    let status = poll::within(poll::PATIENCE, || {
        let response = mesh_tests::http::tcp(&mesh.admin(), "GET", "/v1/status", "").map_err(|e| e.to_string())?;
        serde_json::from_str::<Value>(&response.body).map_err(|e| e.to_string())
    });
    let ready = mesh_tests::http::tcp(&mesh.admin(), "GET", "/ready", "").map(|r| r.status);
    // It serves what needs no rights: requests at its explicit proxy, to endpoints that it checks.
    let asked = poll::within(poll::PATIENCE, || TcpStream::connect(port.address())).map(|stream| {
        Wire::over(stream).try_answer_to(&get("http", "/")).map(|answer| (answer.status(), answer.text()))
    });
    let checked = poll::within(poll::PATIENCE, || {
        let response = mesh_tests::http::tcp(&mesh.admin(), "GET", "/v1/endpoints", "").map_err(|e| e.to_string())?;
        let endpoints: Value = serde_json::from_str(&response.body).map_err(|e| e.to_string())?;
        match find(&endpoints, "service", "http")["health"] == json!("healthy") {
            true => Ok(()),
            false => Err(format!("{endpoints:#}")),
        }
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let status = status.unwrap();
    assert_eq!((&status["mode"], &status["interception_ok"]), (&json!("userspace"), &json!(false)));
    assert_eq!(ready.unwrap(), 503);
    assert_eq!(asked.unwrap().unwrap(), (200, "B1".to_owned()));
    checked.unwrap();
}

#[test]
fn a_state_directory_that_was_just_made_is_shut_to_others_and_one_in_use_is_left() {
    let world = world!();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let setup = world.setup(web(&[E1]));
    let state = std::path::PathBuf::from(setup.config["node"]["state_dir"].as_str().unwrap());
    let open = std::fs::Permissions::from_mode(0o755);
    // As kubelet makes it.
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(&state, open.clone()).unwrap();
    let mut mesh = setup.start();
    assert_eq!(mode(&state), 0o700);
    assert!(!mesh.log().contains("open to others"), "{}", mesh.log());
    mesh.terminate();
    std::fs::set_permissions(&state, open).unwrap();
    mesh.start();
    assert_eq!(mode(&state), 0o755);
    assert!(mesh.log().contains("open to others"), "{}", mesh.log());
}

#[test]
fn a_cgroup_that_is_none_ends_the_start_with_1_and_its_name() {
    let world = world!();
    for path in ["/sys/fs/cgroup/unified/no/such/cgroup", "/tmp"] {
        let setup = world.setup(web(&[E1]));
        let mesh = setup
            .with(|c| c["dataplane"] = json!({ "mode": "ebpf", "cgroup": path, "bpffs": c["dataplane"]["bpffs"] }));
        let mut mesh = mesh.idle();
        mesh.spawn();
        assert_eq!(mesh.wait().code(), Some(1), "{}", mesh.log());
        assert!(mesh.log().contains(path) && mesh.log().contains("dataplane.cgroup"), "{}", mesh.log());
        assert!(mesh.pins().is_empty(), "a start that fails leaves nothing");
    }
}

#[test]
fn a_start_with_a_bad_configuration_ends_with_1_and_every_mistake() {
    let world = world!();
    let mut mesh = world.setup(web(&[E1])).idle();
    let good = mesh.config().clone();
    mesh.configure(|c| c["services"] = json!([{ "name": "UPPER", "addresses": ["0.0.0.0:80"] }]));
    mesh.spawn();
    assert_eq!(mesh.wait().code(), Some(1));
    assert!(mesh.log().contains("UPPER") && mesh.log().contains("0.0.0.0"), "{}", mesh.log());
    mesh.configure(|c| *c = good);
    let missing = mesh.dir().join("missing.yaml");
    let mut command = mesh.command(&["run", "--config", &missing.to_string_lossy()]);
    process::run(&mut command).ended(1).refused(&["missing.yaml"]);
}

#[test]
fn a_taken_admin_port_ends_the_start_with_1_and_its_address() {
    let world = world!();
    let mut mesh = world.setup(web(&[E1])).idle();
    let taken = std::net::TcpListener::bind(mesh.admin()).unwrap();
    mesh.spawn();
    assert_eq!(mesh.wait().code(), Some(1), "{}", mesh.log());
    assert!(mesh.log().contains(&mesh.admin()), "{}", mesh.log());
    assert_eq!(world.dial(VIP).unwrap_err().kind(), io::ErrorKind::NetworkUnreachable, "nothing is intercepted");
    drop(taken);
    mesh.start();
}

/// A second daemon with everything of its own but one thing of the first.
fn second_is_refused(section: &str, key: &str) {
    let world = world!();
    let other = world.sibling();
    let _backends = two(&world);
    let mesh = world.daemon(web(&[E1]));
    let taken = mesh.config()[section][key].clone();
    let mut second = other.setup(web(&[E2])).with(|c| c[section][key] = taken.clone()).beside_another().idle();
    second.spawn();
    assert_eq!(second.wait().code(), Some(1), "{}", second.log());
    assert!(second.log().contains(taken.as_str().unwrap()), "it is named: {}", second.log());
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    assert_eq!(mesh.cli(&["status"]).code, 0, "the first one goes on");
    assert_eq!(other.cgroup().attached_programs(), 0);
}

#[test]
fn the_pins_of_a_running_daemon_are_not_shared() {
    second_is_refused("dataplane", "bpffs");
}

#[test]
fn the_state_of_a_running_daemon_is_not_shared() {
    second_is_refused("node", "state_dir");
}

#[test]
fn the_admin_socket_of_a_running_daemon_is_not_taken_away() {
    second_is_refused("admin", "socket");
}

#[test]
fn userspace_mode_after_another_one_says_what_is_still_attached() {
    let world = world!();
    let _backends = two(&world);
    let mut mesh = world.daemon(web(&[E1]));
    mesh.terminate();
    mesh.configure(|c| c["dataplane"]["mode"] = json!("userspace"));
    mesh.spawn();
    mesh.wait_for("/health", 200);
    assert_eq!(mesh.json(&["status"])["interception_ok"], false);
    // What was attached stays: connections go on. But an operator must not believe that nothing is translated.
    assert!(world.dial(VIP).is_err() || mesh.log().contains("mesh unload"), "{}", mesh.log());
}

#[test]
fn the_admin_socket_may_lie_in_the_state_directory() {
    let world = world!();
    let _backends = two(&world);
    let setup = world.setup(web(&[E1])).with(|c| {
        let state = c["node"]["state_dir"].as_str().unwrap().to_owned();
        c["admin"]["socket"] = json!(format!("{state}/admin.sock"));
    });
    let _mesh = setup.start();
    assert_eq!(world.ask(VIP).unwrap(), "B1");
}

#[test]
fn the_kill_switch_stays_on_over_a_restart_that_needs_larger_tables() {
    let world = world!();
    let _backends = two(&world);
    let mut mesh = world.daemon(web(&[E1]));
    mesh.cli(&["bypass", "on"]).done();
    mesh.terminate();
    mesh.configure(|c| c["dataplane"]["max_services"] = json!(50_000));
    mesh.start();
    assert_eq!(mesh.json(&["status"])["bypass"], true);
    assert_eq!(world.dial(VIP).unwrap_err().raw_os_error(), Some(libc::ENETUNREACH), "nothing is translated");
    mesh.cli(&["bypass", "off"]).done();
    assert_eq!(world.ask(VIP).unwrap(), "B1");
}

#[test]
fn programs_that_an_earlier_daemon_left_are_named_where_this_one_has_none() {
    let world = world!();
    let _backends = two(&world);
    let mut mesh = world.daemon(web(&[E1]));
    mesh.terminate();
    mesh.configure(|c| c["dataplane"]["mode"] = json!("userspace"));
    mesh.spawn();
    mesh.wait_for("/health", 200);
    let warnings = mesh.json(&["status"])["warnings"].to_string();
    assert!(warnings.contains("mesh unload"), "{warnings}");
    assert_eq!(world.ask(VIP).unwrap(), "B1", "as it says, they translate on");
}

#[test]
fn a_daemon_whose_programs_were_taken_away_does_not_say_that_it_is_ready() {
    let world = world!();
    let _backends = two(&world);
    let mesh = world.daemon(web(&[E1]));
    mesh.unload(&["--force"]).done();
    let ready = mesh.http("GET", "/ready");
    assert_eq!(ready.status, 503);
    let status = mesh.json(&["status"]);
    assert_eq!(status["interception_ok"], false);
    // The iterator is at no cgroup.
    let mut at_cgroup = status["programs"].as_array().unwrap().iter().filter(|p| p["hook"] != "iter/tcp");
    assert!(at_cgroup.all(|p| p["attached"] == false), "{status}");
    assert_eq!(mesh.service("web")["intercepted"], false);
}
