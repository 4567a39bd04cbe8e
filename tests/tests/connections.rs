//! `mesh connections`: whose connections are open, where they go, what they carried.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Backend, Daemon, Value, holds, json, service, shape, world};
use socket2::Domain;
use std::{
    io::{BufRead, BufReader, Read, Write},
    process::Stdio,
    sync::Mutex,
    time::{Duration, Instant},
};

const VIP: &str = "10.96.0.10:80";
const VIP2: &str = "10.96.0.11:80";
const VIP6: &str = "[fd00::10]:80";
const E1: &str = "10.1.0.1:8080";
const E2: &str = "10.1.0.2:8080";

/// The listing, with these arguments.
fn list(mesh: &Daemon, arguments: &[&str]) -> Vec<Value> {
    let listing = mesh.json(&[&["connections"], arguments].concat());
    listing.as_array().unwrap().clone()
}

/// The only connection there is, once `wanted` holds for it.
fn only(mesh: &Daemon, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    holds(what, || list(mesh, &[]), |rows| matches!(rows.as_slice(), [row] if wanted(row))).swap_remove(0)
}

#[test]
fn a_connection_is_listed_while_it_is_open_in_the_shape_of_the_contract() {
    let world = world!();
    let _echo = world.echo(E1);
    let mesh = world.daemon(json!([service("web", &[VIP], &[E1])]));
    assert_eq!(list(&mesh, &[]), [] as [Value; 0]);
    let before = Instant::now();
    let mut client = world.client(VIP);
    client.exchange(100_000);
    let row = only(&mesh, "both directions counted", |row| {
        (&row["sent_bytes"], &row["received_bytes"]) == (&json!(100_000), &json!(100_000))
    });
    shape::check(
        &row,
        &[
            ("service", "text"),
            ("endpoint", "text"),
            ("client", "object"),
            ("original_destination", "text"),
            ("path", "text"),
            ("state", "text"),
            ("sent_bytes", "integer"),
            ("received_bytes", "integer"),
            ("rtt_us", "integer|null"),
            ("retransmits", "integer"),
            ("age_ms", "number"),
        ],
    );
    shape::check(
        &row["client"],
        &[("address", "text"), ("pid", "integer"), ("command", "text"), ("cgroup", "text|null"), ("netns", "integer")],
    );
    let words =
        ["service", "endpoint", "original_destination", "path", "state"].map(|field| row[field].as_str().unwrap());
    assert_eq!(words, ["web", E1, VIP, "direct", "established"]);
    assert!(row["rtt_us"].as_u64().is_some_and(|us| us > 0 && us < 1_000_000), "{row}");
    let age = row["age_ms"].as_f64().unwrap();
    assert!(age > 0.0 && age <= before.elapsed().as_secs_f64() * 1000.0, "{row}");
    assert!(row["connect_ms"].as_f64().is_some_and(|ms| ms > 0.0 && ms < age), "{row}");
    assert_eq!((&row["attempt"], &row["retransmits"]), (&json!(1), &json!(0)));
    let over_http = mesh.http_json("/v1/connections");
    assert_eq!(over_http[0]["client"], row["client"], "HTTP says what the command line says");
    drop(client);
    holds("it is gone", || list(&mesh, &[]), Vec::is_empty);
    let nobody = mesh.cli(&["connections"]);
    assert_eq!((nobody.code, nobody.stdout.as_str()), (0, ""));
}

#[test]
fn a_client_is_who_it_says_it_is() {
    let world = world!();
    let _echo = world.echo(E1);
    let mesh = world.daemon(json!([service("web", &[VIP, VIP6], &[E1])]));
    for vip in [VIP, VIP6] {
        let client = world.client(vip);
        let row = only(&mesh, vip, |row| row["state"] == "established");
        let who = &row["client"];
        // A socket of IPv6 that reaches an endpoint of IPv4 has an address of that family, as a person would write it.
        let ip = client.local.ip().to_canonical();
        let address = std::net::SocketAddr::new(ip, client.local.port()).to_string();
        assert_eq!(who["address"], json!(address));
        assert_eq!(who["pid"], json!(client.pid()));
        assert_eq!(who["command"], "mesh-test-peer");
        assert_eq!(who["cgroup"], json!(world.cgroup().name()));
        assert_eq!(who["netns"], json!(world.netns().inode()));
        assert_eq!(row["original_destination"], vip);
        drop(client);
        holds("it is gone", || list(&mesh, &[]), Vec::is_empty);
    }
}

#[test]
fn a_client_in_a_namespace_of_its_own_meets_the_same_service_under_its_own_name() {
    let world = world!();
    let pod = world.pod("pod");
    pod.netns().join("10.7.0.1/24", world.netns(), "10.7.0.2/24");
    let endpoint = "10.7.0.2:8080";
    let _echo = world.echo(endpoint);
    let mesh = world.daemon(json!([service("web", &[VIP], &[endpoint])]));
    let mut client = pod.client(VIP);
    client.exchange(12_345);
    let row = only(&mesh, "counted", |row| row["sent_bytes"] == 12_345 && row["received_bytes"] == 12_345);
    assert_eq!((&row["service"], &row["endpoint"]), (&json!("web"), &json!(endpoint)));
    let who = &row["client"];
    assert_eq!(who["address"], json!(client.local.to_string()));
    assert_eq!(who["pid"], json!(client.pid()));
    assert_eq!(who["cgroup"], json!(pod.cgroup().name()));
    assert!(pod.cgroup().name().starts_with(&world.cgroup().name()));
    assert_eq!(who["netns"], json!(pod.netns().inode()));
    assert_ne!(pod.netns().inode(), world.netns().inode());
    let at_endpoint = mesh.endpoint("web", endpoint);
    assert_eq!((&at_endpoint["active_connections"], &at_endpoint["sent_bytes_total"]), (&json!(1), &json!(12_345)));
}

#[test]
fn a_listing_is_filtered_sorted_and_cut() {
    let world = world!();
    let _echoes = [world.echo(E1), world.echo(E2)];
    let mesh = world.daemon(json!([service("web", &[VIP], &[E1]), service("api", &[VIP2], &[E1, E2])]));
    let mut clients = Vec::new();
    for (vip, bytes) in [(VIP, 30), (VIP2, 10), (VIP2, 20)] {
        let mut client = world.client(vip);
        client.exchange(bytes);
        clients.push(client);
    }
    holds(
        "all is counted",
        || list(&mesh, &[]),
        |rows| rows.iter().map(|row| row["sent_bytes"].as_u64().unwrap()).sum::<u64>() == 60,
    );
    let sent = |arguments: &[&str]| -> Vec<u64> {
        list(&mesh, arguments).iter().map(|row| row["sent_bytes"].as_u64().unwrap()).collect()
    };
    let ends: Vec<_> = list(&mesh, &[]).iter().map(|r| (r["service"].clone(), r["endpoint"].clone())).collect();
    assert_eq!(
        ends,
        [("api", E1), ("api", E2), ("web", E1)].map(|(s, e)| (json!(s), json!(e))),
        "by name, then address"
    );
    assert_eq!(sent(&["--sort", "sent"]), [30, 20, 10]);
    assert_eq!(sent(&["--sort", "received", "--limit", "2"]), [30, 20]);
    assert_eq!(sent(&["--sort", "age"]), [30, 10, 20], "the oldest first");
    let mut of_api = sent(&["--service", "api"]);
    of_api.sort_unstable();
    assert_eq!(of_api, [10, 20]);
    assert_eq!(list(&mesh, &["--endpoint", E1]).len(), 2);
    assert_eq!(list(&mesh, &["--endpoint", "[::ffff:10.1.0.1]:8080", "--service", "web"]).len(), 1);
    assert_eq!(list(&mesh, &["--endpoint", E2]).len(), 1);
    let rtts: Vec<_> = list(&mesh, &["--sort", "rtt"]).iter().map(|row| row["rtt_us"].as_u64()).collect();
    assert!(rtts.is_sorted_by(|a, b| a >= b), "{rtts:?}");
    let over_http = mesh.http_json("/v1/connections?service=api&endpoint=10.1.0.2:8080&sort=rtt&limit=1");
    assert_eq!(over_http[0]["endpoint"], E2);
    mesh.cli(&["connections", "--service", "wep"]).ended(1).refused(&["no service is named \"wep\""]);
    mesh.cli(&["connections", "--service", "web", "--endpoint", E2]).ended(1).refused(&[E2, "is no endpoint of web"]);
    assert!(mesh.cli(&["connections", "--sort", "sent"]).stdout.lines().nth(1).unwrap().starts_with("web "));
}

#[test]
fn parameters_that_make_no_sense_are_refused_with_a_reason() {
    let world = world!();
    let mesh = world.daemon(json!([service("web", &[VIP], &[E1])]));
    for (query, why) in [
        ("sort=size", "sort: expected one of sent, received, age, rtt"),
        ("limit=0", "limit: expected a whole number from 1"),
        ("limit=many", "limit: expected a whole number from 1"),
        ("endpoint=10.1.0.1", "endpoint: \\\"10.1.0.1\\\" is no address"),
        ("service=", "is empty"),
        ("pid=1", "has no parameter"),
    ] {
        let answer = mesh.http("GET", &format!("/v1/connections?{query}"));
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        assert!(answer.body.contains(why), "{query}: {}", answer.body);
    }
}

#[test]
fn where_nothing_is_translated_the_listing_is_refused_with_the_reason() {
    let world = world!();
    let setup = world.setup(json!([service("web", &[VIP], &[E1])]));
    let mut mesh = setup.with(|c| c["dataplane"]["mode"] = json!("userspace")).idle();
    mesh.spawn();
    mesh.wait_for("/ready", 503);
    mesh.cli(&["connections"]).ended(1).refused(&["connections cannot be listed", "dataplane.mode is userspace"]);
    assert_eq!(mesh.http("GET", "/v1/connections").status, 409);
}

#[test]
fn a_connect_that_nobody_answers_is_listed_as_such() {
    let world = world!();
    world.netns().black_hole("10.2.0.0/16");
    let mut web = service("web", &[VIP], &["10.2.0.1:80"]);
    web["connect_timeout"] = json!("60s");
    let mesh = world.daemon(json!([web]));
    let client = world.tcp(Domain::IPV4);
    assert!(client.connect_timeout(&mesh_tests::world::addr(VIP).into(), Duration::from_millis(50)).is_err());
    let row = only(&mesh, "connecting", |row| row["state"] == "syn_sent");
    assert_eq!((&row["rtt_us"], &row["connect_ms"], &row["sent_bytes"]), (&Value::Null, &Value::Null, &json!(0)));
}

#[test]
fn a_connection_outlives_its_process_and_is_still_known_as_its() {
    let world = world!();
    // Accepts and never reads.
    let idle = Mutex::new(Vec::new());
    let _backend = Backend::new(world.netns(), E1, move |stream| idle.lock().unwrap().push(stream));
    let mesh = world.daemon(json!([service("web", &[VIP], &[E1])]));
    let mut client = world.client(VIP);
    client.fill();
    let pid = client.pid();
    drop(client);
    // The end of its data, and so its FIN, waits behind the full window.
    let row = only(&mesh, "an orphan", |row| row["state"] == "fin_wait1");
    assert_eq!((&row["client"]["pid"], &row["client"]["command"]), (&json!(pid), &json!("mesh-test-peer")));
    assert_eq!(row["client"]["cgroup"], json!(world.cgroup().name()));
    assert!(row["sent_bytes"].as_u64().unwrap() > 0, "{row}");
}

#[test]
fn a_connection_that_another_process_holds_is_of_the_one_that_dialled() {
    let world = world!();
    let _echo = world.echo(E1);
    let mesh = world.daemon(json!([service("web", &[VIP], &[E1])]));
    let mut client = world.client(VIP);
    client.exchange(1000);
    let pid = client.pid();
    let heir = client.bequeath();
    let row = only(&mesh, "still open", |row| row["sent_bytes"] == 1000 && row["received_bytes"] == 1000);
    assert_eq!((&row["state"], &row["client"]["pid"]), (&json!("established"), &json!(pid)));
    assert_ne!(pid, heir);
}

#[test]
fn a_cgroup_that_is_gone_has_no_path() {
    let world = world!();
    let _echo = world.echo(E1);
    let mesh = world.daemon(json!([service("web", &[VIP], &[E1])]));
    let part = world.cgroup().below("part");
    let mut client = mesh_tests::Client::start(&part, world.netns(), VIP);
    client.exchange(1);
    assert_eq!(only(&mesh, "open", |_| true)["client"]["cgroup"], json!(part.name()));
    // The test, which is in no part of it, holds the connection from here on.
    let held = client.socket();
    drop(client);
    drop(part);
    let row = only(&mesh, "without its cgroup", |row| row["client"]["cgroup"].is_null());
    assert!(row["client"]["cgroup_id"].as_u64().unwrap() > 0);
    drop(held);
}

#[test]
fn an_mptcp_connection_is_listed_at_most_once() {
    let world = world!();
    let _echo = world.echo(E1);
    let mesh = world.daemon(json!([service("web", &[VIP], &[E1])]));
    let client = match world.mptcp(Domain::IPV4) {
        Ok(client) => client,
        Err(why) => mesh_tests::skip!("no MPTCP: {why}"),
    };
    client.connect(&mesh_tests::world::addr(VIP).into()).unwrap();
    (&client).write_all(b"x").unwrap();
    (&client).read_exact(&mut [0]).unwrap();
    let active = mesh.endpoint("web", E1)["active_connections"].as_u64().unwrap();
    assert_eq!(list(&mesh, &[]).len() as u64, active);
    assert!(active <= 1, "{active}");
}

#[test]
fn a_connection_that_outlives_its_service_keeps_the_name() {
    let world = world!();
    let _echo = world.echo(E1);
    let mut mesh = world.daemon(json!([service("web", &[VIP], &[E1]), service("api", &[VIP2], &[E1])]));
    let mut client = world.client(VIP);
    mesh.set_services(json!([service("api", &[VIP2], &[E1])]));
    client.exchange(500);
    let row = only(&mesh, "counted on", |row| row["sent_bytes"] == 500 && row["received_bytes"] == 500);
    assert_eq!((&row["service"], &row["endpoint"]), (&json!("web"), &json!(E1)));
    assert_eq!(list(&mesh, &["--service", "web"]).len(), 1, "and can be asked for by it");
}

#[test]
fn watching_shows_what_connections_carry_a_second() {
    let world = world!();
    let _echo = world.echo(E1);
    let mesh = world.daemon(json!([service("web", &[VIP], &[E1])]));
    let mut client = world.client(VIP);
    client.exchange(1);
    let mut command = mesh.command(&["connections", "--watch", "-o", "json"]);
    let mut watch = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let first = next();
    assert_eq!((&first[0]["sent_bytes_per_s"], &first[0]["service"]), (&Value::Null, &json!("web")));
    client.exchange(100_000);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let rate = next()[0]["sent_bytes_per_s"].as_f64().unwrap();
        // All of it between two listings, a second apart, or in two parts.
        if rate > 20_000.0 {
            assert!(rate < 1_000_000.0, "{rate}");
            break;
        }
        assert!(Instant::now() < deadline);
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
    drop(client);
}
