//! `mesh bugreport`: everything a maintainer would ask for, and no secret.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Proxy, Scripted, Value, get, holds, http_with, json};
use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

/// Unpacks an archive; every file of it by its name.
fn unpack(archive: &Path, into: &Path) -> Vec<(String, String)> {
    let done = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(into).status().unwrap();
    assert!(done.success());
    let files = fs::read_dir(into.join("mesh-bugreport")).unwrap().map(Result::unwrap);
    files.map(|file| (file.file_name().into_string().unwrap(), fs::read_to_string(file.path()).unwrap())).collect()
}

#[test]
fn it_holds_what_the_daemon_answers_and_no_secret_of_the_configuration_or_of_requests() {
    let endpoint = Scripted::named("E");
    let secrets =
        ["hunter-two-and-a-half", "Zm9vOmJhcmJheg==", "tenant-of-nobody", "swordfish-in-a-file", "token-in-a-query"];
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    fs::write(&token, secrets[3]).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let route = json!({
        "match": { "headers": { "x-tenant": secrets[2] } },
        "to": [{ "service": "web" }],
        "headers": { "request": { "set": { "authorization": format!("Basic {}", secrets[1]) } } },
    });
    let web = http_with("web", &[&endpoint.address()], json!({ "routes": [route, { "to": [{ "service": "web" }] }] }));
    let mesh = Proxy::with(json!([web]), |c| {
        c["discovery"] = json!({
            "etcd": { "endpoints": ["http://127.0.0.1:9"], "username": "mesh", "password_file": token },
        });
        c["defaults"]["health_check"] = json!({ "type": "none", "path": format!("/live?key={}", secrets[0]) });
    });
    mesh.ask(get("web", &format!("/login?password={}", secrets[4])));
    holds("it is logged", || mesh.json(&["logs"]), |lines| lines.as_array().is_some_and(|lines| !lines.is_empty()));
    let archive = directory.path().join("report.tar.gz");
    let output = archive.to_str().unwrap();
    let said = mesh.cli(&["bugreport", "--output", output]).done();
    assert!(said.contains(output) && said.contains("look through it"), "{said}");
    assert_eq!(fs::metadata(&archive).unwrap().permissions().mode() & 0o777, 0o600);
    let files = unpack(&archive, directory.path());
    let file = |name: &str| &files.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("{name}")).1;
    for name in ["status.json", "services.json", "config.json", "files.json", "logs.json", "check.json", "health.json"]
    {
        assert!(file(name).parse::<Value>().is_ok(), "{name}: {}", file(name));
    }
    assert!(file("metrics.txt").contains("mesh_build_info") && file("host.txt").contains("uname"));
    assert_eq!(file("logs.json").parse::<Value>().unwrap()[0]["path"], "/login?***");
    assert!(file("config.json").contains("x-tenant"), "names stay");
    // What cannot be had is said.
    assert!(file("missing.txt").contains("connections.json"), "{}", file("missing.txt"));
    for (name, text) in &files {
        for secret in secrets {
            assert!(!text.contains(secret), "{secret} in {name}");
        }
    }
    // Nothing is written over.
    mesh.cli(&["bugreport", "--output", output]).ended(1).refused(&["is there already"]);
    mesh.cli(&["bugreport", "--output", "/nonexistent/a.tar.gz"]).ended(1).refused(&["/nonexistent/a.tar.gz"]);
}

#[test]
fn it_works_without_a_daemon_and_with_a_broken_configuration_and_says_so() {
    let mut mesh = Proxy::new(json!([]));
    assert!(mesh.terminate().success());
    mesh.write_text("services: [{ name: web, routes: [{ headers: { request: { set: { x-key: \"s3cr3t\\n value\" } } } }] }]\nnode: { x: 1 }\n");
    let directory = tempfile::tempdir().unwrap();
    // A name of its own, where it is run.
    let mut command = mesh.command(&["bugreport"]);
    let done = command.current_dir(directory.path()).output().unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{said}");
    assert!(said.contains("mesh-bugreport-") && said.contains("no daemon at"), "{said}");
    let archive = fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
    let files = unpack(&archive, directory.path());
    let file = |name: &str| &files.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("{name}")).1;
    assert!(file("missing.txt").contains("no daemon at"), "{}", file("missing.txt"));
    assert!(file("files.txt").contains("node.x: unknown field"), "{}", file("files.txt"));
    assert!(files.iter().all(|(_, text)| !text.contains("s3cr3t")));
}
