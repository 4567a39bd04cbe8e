//! Services from a real etcd: what is put there is dialled, whatever becomes of etcd.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{
    Backend, Certificates, Daemon, Etcd, Outcome, Relay, Value, World, etcd::base64, eventually, holds, json, process,
    server, service, world,
};
use nix::sys::signal::{Signal, kill};
use std::{
    fs,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const VIP: &str = "10.96.0.10:80";
const E1: &str = "10.1.0.1:8080";
const E2: &str = "10.1.0.2:8080";
const E3: &str = "10.1.0.3:8080";

/// A daemon that has `shop` from etcd.
fn daemon(world: &World, urls: &[&str]) -> Daemon {
    daemon_with(world, json!({ "endpoints": urls }))
}

fn daemon_with(world: &World, etcd: Value) -> Daemon {
    let setup = world.setup(json!([service("shop", &[VIP], &[])]));
    setup.with(|c| c["discovery"] = json!({ "etcd": etcd, "empty_grace": "8s" })).start()
}

fn backends(world: &World) -> [Backend; 3] {
    [world.backend("B1", E1), world.backend("B2", E2), world.backend("B3", E3)]
}

fn endpoints(mesh: &Daemon, service: &str) -> Vec<String> {
    let answer = mesh.try_http("GET", "/v1/endpoints").unwrap();
    let rows: Value = serde_json::from_str(&answer.body).unwrap();
    let of = rows.as_array().unwrap().iter().filter(|row| row["service"] == service);
    of.map(|row| row["address"].as_str().unwrap().to_owned()).collect()
}

fn source(mesh: &Daemon) -> Value {
    let status = mesh.json(&["status"]);
    status["sources"].as_array().unwrap().iter().find(|s| s["name"] == "etcd").unwrap().clone()
}

/// Waits until etcd is in touch, or is not.
fn is_in_touch(mesh: &Daemon, expected: bool) -> Value {
    holds("the source says how it does", || source(mesh), |seen| seen["error"].is_null() == expected)
}

/// An etcd with the instance `one` of `shop`, a cable to it, and a daemon at its end that is in touch.
fn cabled(world: &World) -> Result<(Etcd, Relay, Daemon), String> {
    let etcd = Etcd::new()?;
    etcd.instance("shop", "one", E1);
    let relay = Relay::new(&etcd.address());
    let mesh_daemon = daemon(world, &[&format!("http://{}", relay.address())]);
    answers(world, "B1");
    Ok((etcd, relay, mesh_daemon))
}

/// Cuts the cable, and waits until that is noticed.
fn cut(relay: &Relay, mesh: &Daemon) {
    relay.cut(true);
    is_in_touch(mesh, false);
}

fn has(mesh: &Daemon, expected: &[&str]) {
    holds("the endpoints of shop", || endpoints(mesh, "shop"), |seen| seen == expected);
}

fn answers(world: &World, who: &str) {
    eventually(&format!("{who} answers"), || match world.ask(VIP) {
        Ok(answer) if answer == who => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn refused(world: &World) {
    let error = || world.ask(VIP).err().and_then(|e| e.raw_os_error());
    holds("connects are refused", error, |seen| *seen == Some(libc::ECONNREFUSED));
}

fn mesh(arguments: &[&str]) -> Outcome {
    process::run(Command::new(process::mesh()).args(arguments))
}

/// `mesh register --keep` at work. Dropped, it is killed.
struct Keeper(Child);

impl Keeper {
    fn new(url: &str, more: &[&str]) -> Self {
        let mut command = Command::new(process::mesh());
        command.args(["register", "shop", E1, "--keep", "--etcd", url]).args(more);
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill(nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_instance_registered_by_command_is_dialled_until_its_lease_runs_out() {
    let (world, etcd) = (world!(), server!(Etcd::new()));
    let _backends = backends(&world);
    let mesh_daemon = daemon(&world, &[&etcd.url()]);
    refused(&world);
    let said = mesh(&["register", "shop", E1, "--ttl", "5s", "--etcd", &etcd.url()]).done();
    assert!(said.contains("shop: 10.1.0.1:8080 registered in etcd for 5s"), "{said}");
    answers(&world, "B1");
    refused(&world);
    has(&mesh_daemon, &[]);
}

#[test]
fn what_anyone_puts_there_is_dialled_and_what_is_deleted_is_not() {
    let (world, etcd) = (world!(), server!(Etcd::new()));
    let _backends = backends(&world);
    etcd.instance("shop", "one", E1);
    let mesh_daemon = daemon(&world, &[&etcd.url()]);
    answers(&world, "B1");
    etcd.instance("shop", "two", E2);
    has(&mesh_daemon, &[E1, E2]);
    etcd.delete("/mesh/services/shop/one");
    answers(&world, "B2");
    has(&mesh_daemon, &[E2]);
    // A service that no file knows is one too.
    etcd.instance("cart", "a", E3);
    holds("the endpoints of cart", || endpoints(&mesh_daemon, "cart"), |seen| seen == &[E3]);
    // Changes of what is there.
    let value = json!({ "address": E3, "weight": 7, "zone": "z", "colour": "red", "metadata": { "a": 1 } });
    etcd.put("/mesh/services/shop/two", value.to_string().as_bytes());
    answers(&world, "B3");
    let row = mesh_daemon.json(&["endpoints", "shop"])[0].clone();
    assert_eq!((&row["weight"], &row["zone"]), (&json!(7), &json!("z")));
    let gone = mesh(&["deregister", "shop", E3, "--etcd", &etcd.url()]).done();
    assert!(gone.contains("shop: 10.1.0.3:8080 deregistered (two)"), "{gone}");
    refused(&world);
    mesh(&["deregister", "shop", E3, "--etcd", &etcd.url()]).refused(&["shop has no instance at 10.1.0.3:8080"]);
}

#[test]
fn two_daemons_see_each_others_instances_soon() {
    let (world, etcd) = (world!(), server!(Etcd::new()));
    let other = world!();
    let daemons = [daemon(&world, &[&etcd.url()]), daemon(&other, &[&etcd.url()])];
    let mut delays = Vec::new();
    for n in 1..=20_u8 {
        let address = format!("10.1.1.{n}:8080");
        etcd.instance("shop", &address, &address);
        let put = Instant::now();
        for daemon in &daemons {
            holds("the new endpoint", || endpoints(daemon, "shop"), |seen| seen.contains(&address));
        }
        delays.push(put.elapsed());
    }
    delays.sort();
    println!("seen by both after: median {:?}, at most {:?}", delays[10], delays[19]);
    assert!(delays[10] < Duration::from_secs(2), "{delays:?}");
}

#[test]
fn what_was_known_stays_while_etcd_is_down() {
    let (world, mut etcd) = (world!(), server!(Etcd::new()));
    let _backends = backends(&world);
    etcd.instance("shop", "one", E1);
    let mut mesh_daemon = daemon(&world, &[&etcd.url()]);
    answers(&world, "B1");
    etcd.kill();
    let seen = is_in_touch(&mesh_daemon, false);
    assert!(seen["error"].as_str().unwrap().contains(&etcd.url()), "{seen}");
    assert_eq!(seen["synced"], true, "{seen}");
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    // So it does over a restart of the daemon.
    mesh_daemon.terminate();
    mesh_daemon.spawn();
    holds("the daemon answers", || mesh_daemon.try_http("GET", "/health").is_ok(), |up| *up);
    answers(&world, "B1");
    has(&mesh_daemon, &[E1]);
    etcd.start();
    is_in_touch(&mesh_daemon, true);
    etcd.instance("shop", "two", E2);
    etcd.delete("/mesh/services/shop/one");
    answers(&world, "B2");
}

#[test]
fn an_etcd_that_lost_its_data_is_believed_after_the_grace() {
    let (world, mut etcd) = (world!(), server!(Etcd::new()));
    let _backends = backends(&world);
    for _ in 0..5 {
        etcd.instance("shop", "one", E1);
    }
    let mesh_daemon = daemon(&world, &[&etcd.url()]);
    answers(&world, "B1");
    etcd.kill();
    is_in_touch(&mesh_daemon, false);
    etcd.wipe();
    let since = Instant::now();
    etcd.start();
    is_in_touch(&mesh_daemon, true);
    assert_eq!(world.ask(VIP).unwrap(), "B1", "held back");
    refused(&world);
    assert!(since.elapsed() > Duration::from_secs(1), "{:?}", since.elapsed());
    // What comes next is seen, though its revisions have been seen before.
    etcd.instance("shop", "two", E2);
    answers(&world, "B2");
}

#[test]
fn a_wiped_etcd_that_has_caught_up_is_not_taken_for_the_old_one() {
    let world = world!();
    let _backends = backends(&world);
    let (mut etcd, relay, mesh_daemon) = server!(cabled(&world));
    cut(&relay, &mesh_daemon);
    etcd.kill();
    etcd.wipe();
    etcd.start();
    for _ in 0..5 {
        etcd.instance("shop", "two", E2);
    }
    relay.cut(false);
    answers(&world, "B2");
    has(&mesh_daemon, &[E2]);
}

#[test]
fn a_cut_connection_is_taken_up_again_where_it_was() {
    let world = world!();
    let _backends = backends(&world);
    let (etcd, relay, mesh_daemon) = server!(cabled(&world));
    cut(&relay, &mesh_daemon);
    etcd.instance("shop", "two", E2);
    // Seen as an event, and so believed at once.
    etcd.delete("/mesh/services/shop/one");
    relay.cut(false);
    answers(&world, "B2");
    has(&mesh_daemon, &[E2]);
}

#[test]
fn a_history_that_was_compacted_meanwhile_is_listed_again() {
    let world = world!();
    let _backends = backends(&world);
    let (etcd, relay, mesh_daemon) = server!(cabled(&world));
    cut(&relay, &mesh_daemon);
    etcd.instance("shop", "two", E2);
    etcd.delete("/mesh/services/shop/one");
    etcd.compact();
    relay.cut(false);
    answers(&world, "B2");
    has(&mesh_daemon, &[E2]);
    etcd.instance("shop", "three", E3);
    has(&mesh_daemon, &[E2, E3]);
}

#[test]
fn a_member_that_hangs_is_noticed_and_one_that_is_dead_passed_over() {
    let (world, etcd) = (world!(), server!(Etcd::new()));
    let _backends = backends(&world);
    let mut dead = server!(Etcd::new());
    dead.kill();
    etcd.instance("shop", "one", E1);
    let mesh_daemon = daemon(&world, &[&dead.url(), &etcd.url()]);
    answers(&world, "B1");
    assert!(source(&mesh_daemon)["error"].is_null());
    etcd.freeze(true);
    let seen = is_in_touch(&mesh_daemon, false);
    assert!(seen["error"].as_str().unwrap().contains(&dead.url()), "{seen}");
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    etcd.freeze(false);
    is_in_touch(&mesh_daemon, true);
    etcd.instance("shop", "two", E2);
    has(&mesh_daemon, &[E1, E2]);
}

#[test]
fn a_malformed_record_is_left_out_alone_and_named_once() {
    let (world, etcd) = (world!(), server!(Etcd::new()));
    let _backends = backends(&world);
    etcd.put("/mesh/services/shop/torn", b"{\"address\":");
    etcd.put("/mesh/services/shop", b"{}");
    etcd.put("/mesh/services/Shop/a", json!({ "address": E1 }).to_string().as_bytes());
    etcd.put("/mesh/services/shop/bytes", b"\xff\x00\xfe");
    etcd.put(
        "/mesh/services/shop/large",
        json!({ "address": E2, "metadata": { "a": "x".repeat(1_000_000) } }).to_string().as_bytes(),
    );
    etcd.instance("shop", "one", E1);
    let relay = Relay::new(&etcd.address());
    let mesh_daemon = daemon(&world, &[&format!("http://{}", relay.address())]);
    has(&mesh_daemon, &[E1, E2]);
    let named = |what: &str| mesh_daemon.log().lines().filter(|line| line.contains(what)).count();
    for key in ["services/shop/torn: ", "services/shop: ", "services/Shop/a: ", "services/shop/bytes: "] {
        // The log is written by a thread of its own.
        holds(key, || named(key), |n| *n == 1);
    }
    let errors = || mesh_daemon.metrics().sum("mesh_discovery_errors_total", &[("source", "etcd")]).unwrap();
    assert_eq!(errors(), 4.0);
    // Listed again, they are known.
    cut(&relay, &mesh_daemon);
    etcd.compact();
    relay.cut(false);
    is_in_touch(&mesh_daemon, true);
    etcd.put("/mesh/services/shop/one", b"worse");
    has(&mesh_daemon, &[E2]);
    holds("the log names it", || named("services/shop/one: "), |n| *n == 1);
    assert_eq!(named("services/shop/torn: "), 1);
}

#[test]
fn a_user_is_let_in_with_its_password_and_again_when_its_token_is_too_old() {
    let (world, etcd) = (world!(), server!(Etcd::with(&["--auth-token-ttl", "1"])));
    let _backends = backends(&world);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    fs::write(&file, "wrong\n").unwrap();
    etcd.ask("auth/user/add", &json!({ "name": "root", "password": "secret" }));
    etcd.ask("auth/user/grant", &json!({ "user": "root", "role": "root" }));
    etcd.ask("auth/user/add", &json!({ "name": "mesh", "password": "right" }));
    etcd.ask("auth/role/add", &json!({ "name": "services" }));
    let permission = json!({
        "permType": "READWRITE", "key": base64(b"/mesh/services/"), "range_end": base64(b"/mesh/services0")
    });
    etcd.ask("auth/role/grant", &json!({ "name": "services", "perm": permission }));
    etcd.ask("auth/user/grant", &json!({ "user": "mesh", "role": "services" }));
    etcd.ask("auth/enable", &json!({}));
    let options = ["--etcd-user", "mesh", "--etcd-password-file", file.to_str().unwrap()];
    let register = |options: &[&str]| mesh(&[&["register", "shop", E1, "--etcd", &etcd.url()], options].concat());
    register(&[]).refused(&["user name is empty"]);
    register(&options).refused(&["authentication failed", &etcd.url()]);
    let setup = world.setup(json!([service("shop", &[VIP], &[])]));
    let mut mesh_daemon = setup
        .with(|c| {
            let etcd = json!({ "endpoints": [etcd.url()], "username": "mesh", "password_file": file });
            c["discovery"] = json!({ "etcd": etcd });
        })
        .idle();
    mesh_daemon.spawn();
    holds("the daemon answers", || mesh_daemon.try_http("GET", "/health").is_ok(), |up| *up);
    let seen = is_in_touch(&mesh_daemon, false);
    assert!(seen["error"].as_str().unwrap().contains("authentication failed"), "{seen}");
    fs::write(&file, "right\n").unwrap();
    is_in_touch(&mesh_daemon, true);
    register(&options).done();
    answers(&world, "B1");
    // It asks every three seconds, each time with a token that is too old.
    let mut keeper = Keeper::new(&etcd.url(), &[&["--ttl", "9s"][..], &options].concat());
    std::thread::sleep(Duration::from_secs(14));
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    keeper.signal(Signal::SIGTERM);
    assert!(keeper.0.wait().unwrap().success());
    refused(&world);
    assert!(!mesh_daemon.log().contains("right"), "no password in the log");
}

#[test]
fn members_and_clients_show_each_other_certificates() {
    let world = world!();
    let made = server!(Certificates::new());
    let _backends = backends(&world);
    made.authority("ca");
    made.authority("other");
    made.signed("server", "ca");
    made.signed("client", "ca");
    let etcd = server!(Etcd::with_tls(&made.at("server.pem"), &made.at("server.key"), &made.at("ca.pem")));
    let register = |ca: &str, cert: &str, key: &str| {
        let (ca, cert, key) = (made.text(ca), made.text(cert), made.text(key));
        let options = ["--etcd-ca", &ca, "--etcd-cert", &cert, "--etcd-key", &key];
        mesh(&[&["register", "shop", E1, "--etcd", &etcd.url()][..], &options].concat())
    };
    register("ca.pem", "client.pem", "client.key").done();
    register("other.pem", "client.pem", "client.key").refused(&["certificate", &etcd.url()]);
    register("ca.pem", "other.pem", "other.key").refused(&[&etcd.url()]);
    register("ca.key", "client.pem", "client.key").refused(&["no certificate in it"]);
    register("none.pem", "client.pem", "client.key").refused(&["none.pem"]);
    let mesh_daemon = daemon_with(
        &world,
        json!({
            "endpoints": [etcd.url()], "ca_file": made.at("ca.pem"),
            "cert_file": made.at("client.pem"), "key_file": made.at("client.key"),
        }),
    );
    answers(&world, "B1");
    has(&mesh_daemon, &[E1]);
}

#[test]
fn it_goes_on_with_the_members_that_are_left_and_with_what_it_knows_without_a_quorum() {
    let (world, mut members) = (world!(), server!(Etcd::three()));
    let _backends = backends(&world);
    members[0].instance("shop", "one", E1);
    // The one that is asked first leads, so that its end is the end of everything at once.
    let leader = eventually("one leads", || members.iter().position(Etcd::leads).ok_or("none"));
    members.rotate_left(leader);
    let urls = members.each_ref().map(Etcd::url);
    let mesh_daemon = daemon(&world, &urls.each_ref().map(String::as_str));
    answers(&world, "B1");
    let [leader, second, third] = &mut members;
    leader.kill();
    third.instance("shop", "two", E2);
    has(&mesh_daemon, &[E1, E2]);
    is_in_touch(&mesh_daemon, true);
    third.delete("/mesh/services/shop/one");
    has(&mesh_daemon, &[E2]);
    // One of three is none that knows: it is in touch with nobody who could tell what is so.
    second.kill();
    let seen = is_in_touch(&mesh_daemon, false);
    let error = seen["error"].as_str().unwrap();
    assert!(urls.iter().all(|url| error.contains(url)), "what each of them says: {seen}");
    assert_eq!((&seen["synced"], seen["stale_since"].is_string()), (&json!(true), true), "{seen}");
    assert_eq!(world.ask(VIP).unwrap(), "B2");
    second.start();
    is_in_touch(&mesh_daemon, true);
    second.instance("shop", "three", E3);
    has(&mesh_daemon, &[E2, E3]);
    leader.start();
    leader.instance("shop", "one", E1);
    has(&mesh_daemon, &[E1, E2, E3]);
}

#[test]
fn what_is_kept_comes_back_after_etcd_lost_it_and_goes_when_interrupted() {
    let (world, mut etcd) = (world!(), server!(Etcd::new()));
    let _backends = backends(&world);
    let mesh_daemon = daemon(&world, &[&etcd.url()]);
    let mut keeper = Keeper::new(&etcd.url(), &["--ttl", "4s", "--id", "a"]);
    answers(&world, "B1");
    // For longer than it would last by itself.
    let until = Instant::now() + Duration::from_secs(7);
    while Instant::now() < until {
        assert_eq!(world.ask(VIP).unwrap(), "B1");
    }
    etcd.delete("/mesh/services/shop/a");
    answers(&world, "B1");
    etcd.kill();
    etcd.wipe();
    etcd.start();
    let prefix = json!({ "key": base64(b"/mesh/services/shop/a") });
    holds("it is registered again", || etcd.ask("kv/range", &prefix), |seen| !seen["kvs"].is_null());
    answers(&world, "B1");
    keeper.signal(Signal::SIGTERM);
    assert!(keeper.0.wait().unwrap().success());
    refused(&world);
    has(&mesh_daemon, &[]);
}

#[test]
fn a_burst_of_changes_arrives_whole() {
    let (world, etcd) = (world!(), server!(Etcd::new()));
    let mesh_daemon = daemon(&world, &[&etcd.url()]);
    let put = |n: usize| {
        let address = format!("10.2.{}.{}:80", n / 250, n % 250 + 1);
        let value = json!({ "address": address }).to_string();
        json!({ "requestPut": { "key": base64(format!("/mesh/services/shop/{n}").as_bytes()), "value": base64(value.as_bytes()) } })
    };
    // As many as etcd takes at once.
    for first in (0..2_000).step_by(100) {
        etcd.ask("kv/txn", &json!({ "success": (first..first + 100).map(put).collect::<Vec<_>>() }));
    }
    holds("all of them", || endpoints(&mesh_daemon, "shop").len(), |n| *n == 2_000);
}

#[test]
fn what_makes_no_sense_is_refused_before_etcd_is_asked() {
    let url = "http://127.0.0.1:1";
    mesh(&["register", "Shop", E1, "--etcd", url]).refused(&["Shop", "a-z"]);
    mesh(&["register", "shop", E1, "--etcd", "127.0.0.1:1"]).refused(&["write http://127.0.0.1:1"]);
    mesh(&["register", "shop", E1, "--etcd", url, "--etcd-prefix", "x"]).refused(&["a path such as /mesh/services"]);
    mesh(&["register", "shop", "0.0.0.0:80", "--etcd", url]).refused(&["0.0.0.0"]);
    mesh(&["register", "shop", E1, "--etcd", url, "--id", "a/b"]).refused(&["a/b"]);
    mesh(&["register", "shop", E1, "--etcd", url, "--ttl", "0s"]).refused(&["1s to 24h"]);
    mesh(&["register", "shop", E1, "--etcd", url, "--etcd-user", "u"]).refused(&["--etcd-password-file"]);
    mesh(&["register", "shop", E1, "--etcd-user", "u"]).refused(&["--etcd"]);
    mesh(&["register", "shop", E1, "--etcd", url]).refused(&["http://127.0.0.1:1: "]);
}
