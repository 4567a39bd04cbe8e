//! The registry of a node: instances come, stay as long as they are heard of, and go; and who watches is told.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

mod instances;
mod keepers;
mod kept;
mod watches;

use mesh_tests::{Daemon, Value, daemon::Setup, http, json, service};

const VIP: &str = "10.96.0.10:80";
const E1: &str = "10.1.0.1:8080";
const E2: &str = "10.1.0.2:8080";

/// A daemon that leaves the kernel alone, with a service that has no endpoints.
fn userspace() -> Setup {
    Setup::userspace(json!([service("web", &[VIP], &[])])).with(|c| c["proxy"] = json!({ "http": "" }))
}

/// Starts it. (It is never ready: nothing is intercepted.)
fn start(mesh: &mut Daemon) {
    mesh.spawn();
    mesh.wait_for("/health", 200);
}

fn started(setup: Setup) -> Daemon {
    let mut mesh = setup.idle();
    start(&mut mesh);
    mesh
}

/// Lets another process take over; it is this daemon from then on.
fn take_over(mesh: &mut Daemon) {
    let successor = mesh.successor();
    let status = mesh.wait();
    assert!(status.success(), "{status}\n{}", mesh.log());
    mesh.follow(successor);
    mesh.wait_for("/health", 200);
}

/// A request to the admin socket.
fn ask(mesh: &Daemon, method: &str, path: &str, body: &str) -> http::Response {
    http::unix(&mesh.socket_path(), method, path, body).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
}

fn put(mesh: &Daemon, path: &str, body: &Value) -> http::Response {
    ask(mesh, "PUT", &format!("/v1/registry/{path}"), &body.to_string())
}

/// The ids that are registered, as `SERVICE/ID`.
fn registered(mesh: &Daemon) -> Vec<String> {
    let list: Value = serde_json::from_str(&mesh.http("GET", "/v1/registry").body).unwrap();
    let name = |i: &Value| format!("{}/{}", i["service"].as_str().unwrap(), i["id"].as_str().unwrap());
    list.as_array().unwrap().iter().map(name).collect()
}

/// The addresses of a service's endpoints; none of one that is not there.
fn endpoints(mesh: &Daemon, service: &str) -> Vec<String> {
    let rows = mesh.json(&["endpoints"]);
    let of = rows.as_array().unwrap().iter().filter(|row| row["service"] == service);
    of.map(|row| row["address"].as_str().unwrap().to_owned()).collect()
}
