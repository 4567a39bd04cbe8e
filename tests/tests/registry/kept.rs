//! Instances outlive the daemon: what is written down, and what is wrong with that.

use crate::{E1, E2, endpoints, put, start, started, userspace};
use mesh_tests::{Daemon, Value, eventually, json, ports::Port};
use std::fs;

#[test]
fn instances_survive_a_restart_and_a_crash_with_a_whole_ttl() {
    let mut mesh = started(userspace());
    let said = json!({ "address": E1, "weight": 3, "zone": "z", "metadata": { "k": "v" }, "ttl": "20s" });
    assert_eq!(put(&mesh, "web/a", &said).status, 201);
    let before: Value = serde_json::from_str(&mesh.http("GET", "/v1/registry/web/a").body).unwrap();
    assert!(mesh.terminate().success());
    start(&mut mesh);
    assert_eq!(endpoints(&mesh, "web"), [E1], "from the first moment on");
    let after: Value = serde_json::from_str(&mesh.http("GET", "/v1/registry/web/a").body).unwrap();
    for field in ["address", "weight", "zone", "metadata", "ttl", "registered_at"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert!(after["ttl_remaining_ms"].as_f64().unwrap() > 15_000.0, "{after}");
    assert_eq!(put(&mesh, "web/b", &json!({ "address": E2 })).status, 201);
    let file = mesh.dir().join("state/registry.json");
    eventually("it is written down", || match fs::read_to_string(&file).unwrap_or_default() {
        text if text.contains(E2) => Ok(()),
        text => Err(text),
    });
    mesh.kill();
    start(&mut mesh);
    assert_eq!(endpoints(&mesh, "web"), [E1, E2]);
}

#[test]
fn a_torn_or_foreign_file_is_set_aside_and_said() {
    let mut mesh = userspace().idle();
    let state = mesh.dir().join("state");
    fs::create_dir(&state).unwrap();
    for (text, aside) in [
        ("{\"version\":1,\"instances\":[{\"serv", "registry.json.bad"),
        ("not ours at all\n", "registry.json.bad.2"),
        ("", "registry.json.bad.3"),
    ] {
        fs::write(state.join("registry.json"), text).unwrap();
        start(&mut mesh);
        assert_eq!(fs::read_to_string(state.join(aside)).unwrap(), text);
        assert!(mesh.log().contains(&format!("it is {} now", state.join(aside).display())), "{}", mesh.log());
        trouble(&mesh, aside);
        mesh.cli(&["register", "web", E1]).done();
        assert_eq!(endpoints(&mesh, "web"), [E1]);
        assert!(mesh.terminate().success());
    }
    start(&mut mesh);
    no_trouble(&mesh);
}

/// The registry says wherever it is asked how it is that something is wrong with it.
fn trouble(mesh: &Daemon, words: &str) {
    eventually("it says so", || {
        let source = mesh_tests::ask::find(&mesh.json(&["status"])["sources"], "name", "registry");
        let said = source["error"].as_str().is_some_and(|error| error.contains(words));
        if said { Ok(()) } else { Err(source.to_string()) }
    });
    let component = mesh.http_json("/health")["components"]["registry"].clone();
    let detail = component["detail"].as_str().unwrap_or_default();
    assert!(component["ok"] == false && detail.contains(words), "{component}");
    assert!(mesh.metrics().count("mesh_discovery_errors_total", &[("source", "registry")]) >= 1.0);
}

fn no_trouble(mesh: &Daemon) {
    eventually("nothing is wrong", || {
        let source = mesh_tests::ask::find(&mesh.json(&["status"])["sources"], "name", "registry");
        if source["error"].is_null() { Ok(()) } else { Err(source.to_string()) }
    });
    assert_eq!(mesh.http_json("/health")["components"]["registry"]["ok"], true);
}

#[test]
fn what_is_wrong_with_the_registry_stands_where_it_is_asked_how_it_is() {
    let port = Port::new();
    let mut mesh = userspace().idle();
    let token = mesh.dir().join("token");
    fs::write(&token, "secret\n").unwrap();
    mesh.configure(|c| c["discovery"] = json!({ "registry": { "listen": port.address(), "token_file": token } }));
    start(&mut mesh);
    no_trouble(&mesh);
    fs::rename(&token, mesh.dir().join("away")).unwrap();
    trouble(&mesh, "token: No such file or directory");
    fs::rename(mesh.dir().join("away"), &token).unwrap();
    no_trouble(&mesh);
    // Nobody can write there: not even root can make a file where a directory is.
    let obstacle = mesh.dir().join("state/registry.json.new");
    fs::create_dir(&obstacle).unwrap();
    mesh.cli(&["register", "web", E1]).done();
    trouble(&mesh, "not written down");
    fs::remove_dir(&obstacle).unwrap();
    no_trouble(&mesh);
}

#[test]
fn a_second_daemon_leaves_the_state_of_the_first_one_alone() {
    let mesh = started(userspace());
    let state = mesh.dir().join("state");
    let mut second = userspace().with(|c| c["node"]["state_dir"] = json!(state)).idle();
    let files = ["registry.json", "vips.json", "discovered.json"].map(|name| state.join(name));
    files.iter().for_each(|file| fs::write(file, "not yet whole").unwrap());
    second.spawn();
    assert_eq!(second.wait().code(), Some(1), "{}", second.log());
    assert!(second.log().contains("belongs to a running daemon"), "{}", second.log());
    assert!(!second.log().contains("json.bad"), "{}", second.log());
    assert!(!state.join("registry.json.bad").exists() && !state.join("vips.json.bad").exists());
}
