//! Metrics, alerts and the dashboard, as real Prometheus programs read them.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{
    Daemon, Prometheus, Value, World, http_service, http_with, json, poll, prometheus::promtool, server, service, world,
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const TCP: &str = "10.96.0.10:80";
const HTTP: &str = "10.96.0.11:80";
const E1: &str = "10.1.0.1:8080";
const E2: &str = "10.1.0.2:8080";
const DEAD: &str = "10.1.0.9:9";

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file)
}

/// A daemon that has something to tell in every family: connections, failures, requests, retries, refusals.
fn busy(world: &World) -> (Daemon, Vec<mesh_tests::Backend>) {
    let backends = vec![world.backend("B1", E1), world.backend("B2", E2)];
    let mut http = http_with("shop", &[E1, DEAD], json!({ "addresses": [HTTP] }));
    http["health_check"] = json!({ "type": "none" });
    let setup =
        world.setup(json!([service("web", &[TCP], &[E1, E2, DEAD]), service("none", &["10.96.0.12:80"], &[]), http]));
    let mesh = setup.with(|config| config["dataplane"]["program_stats"] = json!(true)).start();
    for _ in 0..12 {
        let _ = world.ask(TCP);
        let _ = world.ask("10.96.0.12:80");
    }
    (mesh, backends)
}

#[test]
fn promtool_finds_nothing_to_say_about_the_metrics() {
    let world = world!();
    let (mesh, _backends) = busy(&world);
    let text = mesh.dir().join("metrics.txt");
    fs::write(&text, mesh.http("GET", "/metrics").body).unwrap();
    let said = server!(promtool(&["check", "metrics"], &text)).ended(0);
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("", ""));
}

#[test]
fn alerts_are_valid_and_fire_on_what_they_are_for() {
    let rules = deploy("prometheus/mesh.rules.yaml");
    let check = server!(promtool(&["check", "rules", &rules.display().to_string()], &rules)).ended(0);
    assert!(check.stdout.contains("SUCCESS"), "{check}");
    let tests = deploy("prometheus/mesh.rules.test.yaml");
    server!(promtool(&["test", "rules", &tests.display().to_string()], &tests)).ended(0);
}

/// Names of metrics in an expression.
fn metrics_in(expression: &str) -> BTreeSet<String> {
    // What stands between quotes is a label's value.
    let bare = expression.split('"').step_by(2);
    let words = bare.flat_map(|part| part.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    let known = |word: &&str| ["mesh_", "http_", "process_"].iter().any(|prefix| word.starts_with(prefix));
    words.filter(known).map(str::to_owned).collect()
}

/// Every expression below a value: of panels, annotations and rules alike.
fn expressions(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str().filter(|_| key == "expr") {
                    Some(text) => into.push(text.to_owned()),
                    None => expressions(value, into),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, into)),
        _ => {}
    }
}

#[test]
fn prometheus_scrapes_the_node_and_understands_the_dashboard() {
    let world = world!();
    let (mesh, _backends) = busy(&world);
    let rules = deploy("prometheus/mesh.rules.yaml");
    let prometheus = server!(Prometheus::new(&[mesh.admin()], &rules));
    // The one that says most: it is there as soon as a scrape was read whole.
    let opened = r#"mesh_tcp_connections_opened_total{service="web",job="mesh"}"#;
    let seen = poll::eventually("a scrape", || match prometheus.query(opened).unwrap() {
        samples if samples.len() == 3 => Ok(samples),
        samples => Err(format!("{samples:?}")),
    });
    let metrics = mesh.metrics();
    for sample in &seen {
        let endpoint = sample["metric"]["endpoint"].as_str().unwrap();
        let labels = [("service", "web"), ("endpoint", endpoint)];
        let value: f64 = sample["value"][1].as_str().unwrap().parse().unwrap();
        assert_eq!(metrics.sum("mesh_tcp_connections_opened_total", &labels), Some(value), "{sample}");
    }
    // One scrape may be too slow, and so here and below.
    let targets = || prometheus.api("/api/v1/targets").unwrap();
    poll::holds("it is scraped", targets, |targets| targets["activeTargets"][0]["lastError"] == "");

    let dashboard: Value = serde_json::from_str(&fs::read_to_string(deploy("grafana/mesh.json")).unwrap()).unwrap();
    let mut all = Vec::new();
    expressions(&dashboard, &mut all);
    assert!(all.len() > 20, "{all:?}");
    let documented = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md")).unwrap();
    for expression in &all {
        let plain = expression.replace("$__rate_interval", "1m").replace("$service", ".*").replace("$instance", ".*");
        prometheus.query(&plain).unwrap_or_else(|e| panic!("{expression}: {e}"));
        for name in metrics_in(&plain) {
            let family = name.trim_end_matches("_bucket");
            assert!(documented.contains(&format!("`{family}`")), "{family} of {expression} is not documented");
        }
    }
    let loaded = prometheus.api("/api/v1/rules").unwrap();
    let groups = loaded["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 4, "{loaded}");
    for (group, rule) in
        groups.iter().flat_map(|group| group["rules"].as_array().unwrap().iter().map(move |r| (group, r)))
    {
        let query = rule["query"].as_str().unwrap();
        let name = rule["name"].as_str().unwrap();
        let is_alert = rule["type"] == "alerting";
        assert!(!is_alert || documented.contains(&format!("`{name}`")), "{name} is not documented");
        // Services of this node are in trouble, the node is not.
        if is_alert && group["name"] != "mesh.services" {
            poll::holds(query, || prometheus.query(query).unwrap(), Vec::is_empty);
        }
        for name in metrics_in(query) {
            let family = name.trim_end_matches("_bucket");
            assert!(documented.contains(&format!("`{family}`")), "{family} of {query} is not documented");
        }
    }
}

#[test]
fn alerts_name_programs_and_reasons_as_the_daemon_does() {
    let world = world!();
    let (mesh, _backends) = busy(&world);
    let metrics = mesh.metrics();
    let rules = fs::read_to_string(deploy("prometheus/mesh.rules.yaml")).unwrap();
    let mut looked_at = 0;
    for (metric, label) in [("mesh_bpf_program_attached", "program"), ("mesh_connects_passed_total", "reason")] {
        let start = format!("{metric}{{{label}=~\"");
        for rest in rules.split(&start).skip(1) {
            for value in rest.split('"').next().unwrap().split('|') {
                assert!(metrics.sum(metric, &[(label, value)]).is_some(), "there is no {metric} of {label} {value}");
                looked_at += 1;
            }
        }
    }
    assert_eq!(looked_at, 5, "three programs and two reasons");
}

#[test]
fn every_metric_is_documented_and_has_no_label_of_a_connection() {
    let world = world!();
    let (mesh, _backends) = busy(&world);
    let documented = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md")).unwrap();
    for sample in mesh.metrics().samples() {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| sample.name.strip_suffix(end));
        let names = [Some(sample.name.as_str()), family];
        assert!(names.iter().flatten().any(|name| documented.contains(&format!("`{name}`"))), "{}", sample.name);
        for label in ["pid", "client", "command", "path", "connection"] {
            assert!(!sample.labels.contains_key(label), "{sample:?}");
        }
    }
}

#[test]
fn an_endpoint_that_left_is_counted_to_its_end() {
    let world = world!();
    let _echo = world.echo(E1);
    let mut mesh = world.daemon(json!([service("web", &[TCP], &[E1]), service("gone", &["10.96.0.13:80"], &[E1])]));
    let open = world.dial(TCP).unwrap();
    assert!(world.dial("10.96.0.13:80").is_ok());
    let count =
        |mesh: &Daemon, service: &str, name: &str| mesh.metrics().sum(name, &[("service", service), ("endpoint", E1)]);
    let opened = "mesh_tcp_connections_opened_total";
    poll::holds("counted", || count(&mesh, "gone", "mesh_tcp_connections_closed_total"), |n| *n == Some(1.0));
    mesh.set_services(json!([service("web", &[TCP], &[E2])]));
    mesh.reload();
    assert_eq!(count(&mesh, "web", opened), Some(1.0), "it left with a connection that is open");
    assert_eq!(count(&mesh, "gone", opened), Some(1.0), "its service left");
    assert!(mesh.json(&["endpoints", "web"]).as_array().unwrap().len() == 1, "it is listed nowhere else");
    // What it did after it left counts as well.
    drop(open);
    poll::holds("closed", || count(&mesh, "web", "mesh_tcp_connections_closed_total"), |n| *n == Some(1.0));
    // It comes back, is told once and counted on; where its service had left too it begins anew.
    mesh.set_services(json!([service("web", &[TCP], &[E1]), service("gone", &["10.96.0.13:80"], &[E1])]));
    mesh.reload();
    let samples: Vec<_> = mesh.metrics().samples().iter().filter(|s| s.name == opened).cloned().collect();
    let of_e1 = samples.iter().filter(|s| s.labels["endpoint"] == E1).map(|s| (s.labels["service"].clone(), s.value));
    assert_eq!(of_e1.collect::<Vec<_>>(), [("gone".to_owned(), 0.0), ("web".to_owned(), 1.0)]);
}

#[test]
fn responses_of_an_endpoint_that_left_stay_for_a_while() {
    use mesh_tests::{Proxy, Scripted};
    let (one, two) = (Scripted::named("one"), Scripted::named("two"));
    let mut proxy =
        Proxy::new(json!([http_service("web", &[&one.address()]), http_service("gone", &[&one.address()])]));
    assert_eq!(proxy.get("web").status(), 200);
    assert_eq!(proxy.get("gone").status(), 200);
    proxy.set_services(json!([http_service("web", &[&two.address()])]));
    proxy.reload();
    assert_eq!(proxy.get("web").text(), "two");
    let responses = |service: &str, at: &str| {
        proxy.metrics().count("http_responses_total", &[("service", service), ("endpoint", at), ("status", "200")])
    };
    assert_eq!(responses("web", &one.address()), 1.0);
    assert_eq!(responses("web", &two.address()), 1.0);
    assert_eq!(responses("gone", &one.address()), 1.0);
    assert_eq!(proxy.metrics().count("http_requests_total", &[("service", "gone")]), 1.0);
}
