//! Connections to the VIP of an HTTP service, caught in the client's own network namespace.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests a broken expectation is a failure")]

use mesh_tests::{Backend, Daemon, Value, Wire, World, eventually, get, http_with, json, world};
use std::{io::Write, thread, time::Duration};

const VIP: &str = "10.96.0.10:80";
const ENDPOINT: &str = "10.1.0.1:8080";

/// An endpoint in a pod, which says whose it is and which way a request came to it.
fn endpoint(pod: &World, name: &'static str) -> Backend {
    Backend::new(pod.netns(), ENDPOINT, move |stream| {
        thread::spawn(move || {
            let mut wire = Wire::over(stream);
            while let Ok(request) = wire.request() {
                let body = format!("{name} {}", request.header("via").unwrap_or("direct"));
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                if wire.stream().write_all(format!("{head}{body}").as_bytes()).is_err() {
                    return;
                }
            }
        });
    })
}

fn daemon(world: &World, more: &Value) -> Daemon {
    let mut web = http_with("web", &[ENDPOINT], more.clone());
    web["addresses"] = json!([VIP]);
    // Nobody else is to find a proxy at the usual port.
    world.setup(json!([web])).with(|config| config["proxy"] = json!({ "http": "", "workers": 2 })).start()
}

/// One request on a new connection of a pod to the VIP.
fn ask(pod: &World) -> Result<String, String> {
    let mut wire = Wire::over(pod.dial(VIP).map_err(|e| e.to_string())?.into());
    wire.try_answer_to(&get("web", "/")).map(|answer| answer.text()).map_err(|e| e.to_string())
}

/// Asks until the request is proxied: the first connection of a new namespace goes direct.
fn until_captured(pod: &World) -> String {
    eventually("connections of the pod are caught", || match ask(pod) {
        Ok(said) if said.ends_with("mesh") => Ok(said),
        other => Err(format!("{other:?}")),
    })
}

#[test]
fn clients_in_three_namespaces_each_reach_their_own_endpoint_through_the_proxy() {
    let world = world!();
    let names = ["one", "two", "three"];
    let pods: Vec<World> = names.iter().map(|name| world.pod(name)).collect();
    let _endpoints: Vec<Backend> = pods.iter().zip(names).map(|(pod, name)| endpoint(pod, name)).collect();
    let mesh = daemon(&world, &json!({}));
    for (pod, name) in pods.iter().zip(names) {
        assert!(until_captured(pod).starts_with(name), "a pod's endpoint is the one in its own namespace");
    }
    thread::scope(|scope| {
        for (pod, name) in pods.iter().zip(names) {
            scope.spawn(move || {
                let mut wire = Wire::over(pod.dial(VIP).unwrap().into());
                for _ in 0..50 {
                    assert_eq!(wire.ask(get("web", "/")).text(), format!("{name} 1.1 mesh"));
                }
            });
        }
    });
    drop(mesh);
}

#[test]
fn a_killed_daemon_refuses_no_new_connection() {
    let world = world!();
    let pod = world.pod("pod");
    let _endpoint = endpoint(&pod, "pod");
    let mut mesh = daemon(&world, &json!({}));
    until_captured(&pod);
    mesh.kill();
    for _ in 0..20 {
        assert_eq!(ask(&pod).unwrap(), "pod direct");
    }
    mesh.start();
    until_captured(&pod);
}

#[test]
fn where_the_service_says_refuse_nothing_goes_past_the_proxy() {
    let world = world!();
    let pod = world.pod("pod");
    let endpoint = endpoint(&pod, "pod");
    let mut mesh = daemon(&world, &json!({ "when_daemon_down": "refuse" }));
    until_captured(&pod);
    mesh.kill();
    let accepted = endpoint.accepted();
    for _ in 0..5 {
        assert!(ask(&pod).is_err());
    }
    assert_eq!(endpoint.accepted(), accepted);
    mesh.start();
    until_captured(&pod);
}

#[test]
fn a_daemon_killed_under_load_costs_only_what_it_had_in_hand() {
    let world = world!();
    let pod = world.pod("pod");
    let _endpoint = endpoint(&pod, "pod");
    let mut mesh = daemon(&world, &json!({}));
    until_captured(&pod);
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            // Every connection is new: at most the one that is open at the moment of the kill may break.
            (0..300).map(|_| ask(&pod)).filter(Result::is_err).count()
        });
        thread::sleep(Duration::from_millis(60));
        mesh.kill();
        let failed = asking.join().unwrap();
        assert!(failed <= 1, "{failed} of 300");
    });
}

#[test]
fn explain_says_who_serves_the_requests_of_a_captured_client() {
    let world = world!();
    let pod = world.pod("pod");
    let _endpoint = endpoint(&pod, "pod");
    let mesh = daemon(&world, &json!({}));
    until_captured(&pod);
    for arguments in [&["explain", VIP][..], &["explain", VIP, "--host", "web", "--path", "/x"]] {
        let explained = mesh.json(arguments);
        assert_eq!(explained["service"], "web", "{explained}");
        assert_eq!(explained["decision"], "forwarded", "{explained}");
        assert_eq!(explained["endpoints"][0]["address"], ENDPOINT, "{explained}");
    }
    assert!(mesh.json(&["status"])["interception_ok"].is_boolean(), "and the daemon still answers");
}
