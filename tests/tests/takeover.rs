//! One process follows another as the daemon: nobody is turned away, nothing is forgotten, and a failed attempt is none.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{
    Backend, Daemon, Hammer, Value, World, eventually, hammer::Tally, holds, http, json, ports::Port, process, service,
    world,
};
use mesh_userspace::api::{Estate, Greeting, Line, Passed};
use std::{
    fs,
    io::{Read, Write},
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

const VIP: &str = "10.96.0.10:80";
const OTHER: &str = "10.96.0.11:80";
const E1: &str = "10.1.0.1:8080";
const E2: &str = "10.1.0.2:8080";
const SOON: Duration = Duration::from_secs(5);

fn backends(world: &World) -> [Backend; 2] {
    [world.backend("B1", E1), world.backend("B2", E2)]
}

fn services() -> Value {
    json!([service("other", &[OTHER], &[E1, E2]), service("web", &[VIP], &[E1, E2])])
}

fn totals(mesh: &Daemon) -> Vec<u64> {
    let counters = ["connections_total", "sent_bytes_total", "received_bytes_total"];
    let of = |address| {
        let endpoint = mesh.endpoint("web", address);
        counters.map(|name| endpoint[name].as_u64().unwrap())
    };
    [E1, E2].into_iter().flat_map(of).collect()
}

/// Asks for services at the socket and for readiness on TCP, again and again, until told to stop. Every question must
/// be answered.
fn ask_all_the_time(socket: &Path, admin: &str, stop: &AtomicBool, asked: &AtomicU32) {
    while !stop.load(Ordering::Relaxed) {
        let mut command = Command::new(process::mesh());
        command.args(["services", "-o", "json"]).env("MESH_ADMIN_SOCKET", socket);
        assert_eq!(process::run(&mut command).json().as_array().unwrap().len(), 2);
        let ready = http::tcp(admin, "GET", "/ready", "").expect("an answer");
        assert_eq!(ready.status, 200, "{ready:?}");
        asked.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn twenty_takeovers_under_load_turn_nobody_away_and_forget_nothing() {
    let world = world!();
    let _backends = backends(&world);
    let mut mesh = world.daemon(services());
    mesh.cli(&["endpoints", "drain", "other", E2]).done();
    mesh.cli(&["endpoints", "weight", "web", E2, "3"]).done();
    mesh.cli(&["lb", "set", "web", "random"]).done();
    // On a fast machine there are more connects to one endpoint than ports, which rest for a minute.
    let more_ports = || {
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "20000 65000")?;
        std::fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1")
    };
    world.netns().enter(more_ports).unwrap();
    let hammers = [0, 1].map(|_| Hammer::start(world.cgroup(), world.netns(), &[VIP, OTHER]));
    let (stop, asked) = (AtomicBool::new(false), AtomicU32::new(0));
    let (first, socket, admin) = (mesh.pid(), mesh.socket_path(), mesh.admin());
    thread::scope(|scope| {
        let asker = scope.spawn(|| ask_all_the_time(&socket, &admin, &stop, &asked));
        let mut before = totals(&mesh);
        for turn in 0..20 {
            mesh.take_over();
            let after = totals(&mesh);
            assert!(before.iter().zip(&after).all(|(b, a)| a >= b), "counters went back: {before:?} {after:?}");
            before = after;
            assert!(!asker.is_finished(), "somebody was turned away at takeover {turn}");
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(asked.into_inner() >= 20, "hardly anybody asked");
    let mut total = Tally::default();
    hammers.into_iter().for_each(|h| total.add(h.stop()));
    total.assert_flawless();
    assert_eq!(total.answered(OTHER), ["B1"], "drained all the time");
    assert_eq!(total.answered(VIP), ["B1", "B2"]);
    assert_eq!(mesh.endpoint("other", E2)["draining"], true);
    assert_eq!(mesh.endpoint("web", E2)["weight"], 3);
    assert_eq!(mesh.service("web")["policy"], "random");
    let dialled: u64 = total.answers[VIP].values().sum();
    holds("every connection is counted once", || totals(&mesh)[0] + totals(&mesh)[3], |n| *n == dialled);
    assert_ne!(mesh.pid(), first);
    // The locks are those that the first process took, held by the last one.
    let mut second = world.setup(services()).beside_another().idle();
    second.spawn();
    assert_eq!(second.wait().code(), Some(1), "{}", second.log());
    assert!(second.log().contains(&format!("(pid {})", mesh.pid())), "{}", second.log());
    mesh.unload(&[]).ended(1).refused(&[&mesh.pid().to_string()]);
    assert!(mesh.terminate().success());
    assert!(!socket.exists(), "the last one removes the socket");
    mesh.start();
}

/// The daemon takes changes, and where connects go is what it says.
fn assert_well(world: &World, mesh: &Daemon, when: &str) {
    mesh.cli(&["endpoints", "drain", "web", E1]).done();
    assert_eq!(world.ask_times(VIP, 4), ["B2"; 4], "{when}");
    mesh.cli(&["endpoints", "undrain", "web", E1]).done();
    assert_eq!(world.ask_times(VIP, 2).len(), 2, "{when}");
    let ready = mesh.http("GET", "/ready");
    assert_eq!(ready.status, 200, "{when}: {ready:?}");
}

/// Every connect was answered and counted once: those of the hammer and these of [`kill_successors`].
fn assert_all_counted(mesh: &Daemon, tally: &Tally, own: u64) {
    tally.assert_flawless();
    let dialled: u64 = tally.answers[VIP].values().sum();
    holds("every connection is counted once", || totals(mesh)[0] + totals(mesh)[3], |n| *n == dialled + own);
    let active = [E1, E2].map(|address| mesh.endpoint("web", address)["active_connections"].clone());
    assert_eq!(active, [0, 0], "and is over");
}

/// How often the daemon said that it goes on.
fn times_gone_on(mesh: &Daemon) -> usize {
    mesh.log().matches("not taken over").count()
}

/// Kills successors at all moments of their start, each followed by a look whether all is well. `change` is what each
/// one's configuration has and the daemon's has not; it gets a number that rises. A start takes less than half a second;
/// where it takes longer, kills go on until one came when it was `wanted`. Returns how many connects it made itself.
fn kill_successors(
    world: &World,
    mesh: &mut Daemon,
    change: impl Fn(&mut Value, u64),
    wanted: impl Fn(&Daemon) -> bool,
) -> u64 {
    let own = mesh.config().clone();
    let mut connects = 0;
    for milliseconds in (0..3000).step_by(20) {
        if milliseconds >= 500 && wanted(mesh) {
            break;
        }
        let when = format!("after a kill at {milliseconds} ms");
        mesh.configure(|config| change(config, milliseconds));
        let successor = mesh.successor();
        thread::sleep(Duration::from_millis(milliseconds));
        successor.kill();
        mesh.configure(|config| config.clone_from(&own));
        // It may have been the daemon already.
        let ended = eventually(&format!("{when}: an end, or a change is taken"), || {
            if !mesh.is_running() {
                return Ok(true);
            }
            let outcome = mesh.cli(&["endpoints", "weight", "web", E2, "2"]);
            if outcome.code == 0 { Ok(false) } else { Err(outcome) }
        });
        if ended {
            mesh.start();
        }
        assert_well(world, mesh, &when);
        connects += 6;
    }
    connects
}

/// Whether kills came in the middle.
fn in_the_middle(mesh: &Daemon) -> bool {
    times_gone_on(mesh) >= 2
}

#[test]
fn a_successor_killed_at_any_moment_was_none() {
    let world = world!();
    let _backends = backends(&world);
    let mut mesh = world.daemon(services());
    let hammer = Hammer::start(world.cgroup(), world.netns(), &[VIP]);
    let own = kill_successors(&world, &mut mesh, |_, _| (), in_the_middle);
    assert_all_counted(&mesh, &hammer.stop(), own);
    assert!(in_the_middle(&mesh), "no kill came in the middle: {}", mesh.log());
    mesh.take_over();
    assert_well(&world, &mesh, "afterwards");
}

#[test]
fn a_successor_with_larger_tables_killed_at_any_moment_was_none() {
    let world = world!();
    let _backends = backends(&world);
    let mut mesh = world.daemon(services());
    let hammer = Hammer::start(world.cgroup(), world.netns(), &[VIP]);
    // Larger than what any of those before left.
    let change = |config: &mut Value, number| config["dataplane"]["max_endpoints"] = json!(20_000 + 10 * number);
    let between = |mesh: &Daemon| mesh.log().contains("pinned again");
    let own = kill_successors(&world, &mut mesh, change, between);
    assert_all_counted(&mesh, &hammer.stop(), own);
    assert!(between(&mesh), "no kill came between tables and end: {}", mesh.log());
}

#[test]
fn a_successor_in_another_mode_killed_at_any_moment_was_none() {
    let world = world!();
    let _backends = backends(&world);
    let mut mesh = world.daemon(services());
    let change = |config: &mut Value, _| config["dataplane"]["mode"] = json!("observe");
    kill_successors(&world, &mut mesh, change, in_the_middle);
    assert!(in_the_middle(&mesh), "no kill came in the middle: {}", mesh.log());
}

#[test]
fn a_successor_that_cannot_start_says_why_and_the_daemon_goes_on() {
    let world = world!();
    let _backends = backends(&world);
    let mut mesh = world.daemon(services());
    mesh.cli(&["endpoints", "drain", "web", E1]).done();
    let taken = Port::new();
    let _listener = std::net::TcpListener::bind(taken.address()).unwrap();
    let admin = mesh.admin();
    mesh.configure(|c| c["admin"]["listen"] = json!(taken.address()));
    assert_eq!(mesh.successor().wait().code(), Some(1));
    assert!(mesh.log().contains("(admin.listen)"), "{}", mesh.log());
    holds("it goes on", || times_gone_on(&mesh), |n| *n == 1);
    assert_eq!(mesh.endpoint("web", E1)["draining"], true);
    mesh.configure(|c| c["admin"]["listen"] = json!(admin));
    assert_eq!(world.ask_times(VIP, 4), ["B2"; 4]);
    mesh.cli(&["endpoints", "undrain", "web", E1]).done();
    assert_well(&world, &mesh, "afterwards");
    assert!(mesh.socket_path().exists());
}

#[test]
fn another_configuration_holds_after_the_takeover() {
    let world = world!();
    let other = world.sibling();
    let _backends = backends(&world);
    let mut mesh = world.daemon(services());
    let (old, new) = (mesh.admin(), Port::new());
    mesh.cli(&["endpoints", "drain", "web", E1]).done();
    mesh.configure(|c| {
        c["admin"]["listen"] = json!(new.address());
        c["admin"]["metrics_listen"] = json!(old);
        c["dataplane"]["cgroup"] = json!(other.cgroup().path());
        c["services"] = json!([service("web", &[VIP], &[E1, E2]), service("more", &["10.96.0.12:80"], &[E1])]);
    });
    let successor = mesh.successor();
    assert!(mesh.wait().success(), "{}", mesh.log());
    mesh.follow(successor);
    let ready = |address: &str| http::tcp(address, "GET", "/ready", "").map(|r| r.status).map_err(|e| e.to_string());
    eventually("the new address answers", || ready(&new.address()).map(|status| assert_eq!(status, 200)));
    // One listener, other duties: what serves everything before serves metrics alone now.
    assert_eq!(http::tcp(&old, "GET", "/v1/status", "").unwrap().status, 404);
    assert_eq!(ready(&old), Ok(200));
    assert_eq!(other.ask_times(VIP, 4), ["B2"; 4], "the drain holds");
    assert_eq!(other.ask("10.96.0.12:80").unwrap(), "B1");
    assert_eq!(world.cgroup().attached_programs(), 0, "the old cgroup is let go");
    // And so is its lock.
    let third = world.daemon(json!([service("web", &[VIP], &[E1])]));
    assert_eq!(world.ask(VIP).unwrap(), "B1");
    drop(third);
}

#[test]
fn with_nobody_to_take_over_from_it_starts_as_usual() {
    let world = world!();
    let _backends = backends(&world);
    let mut mesh = world.setup(services()).idle();
    mesh.start_with(&["--takeover"]);
    assert!(mesh.log().contains("nobody to take over from"), "{}", mesh.log());
    assert_well(&world, &mesh, "first");
    mesh.kill();
    mesh.start_with(&["--takeover"]);
    assert_well(&world, &mesh, "after a crash, which leaves a dead socket");
}

/// Answers one connection with `text`.
fn say(socket: &Path, text: &'static str) -> thread::JoinHandle<()> {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        stream.write_all(text.as_bytes()).unwrap();
    })
}

#[test]
fn only_a_daemon_that_knows_how_is_taken_over_from() {
    let world = world!();
    let older = "HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n\
                 {\"error\":{\"kind\":\"not_found\",\"message\":\"no such path\"}}";
    let mut mesh = world.setup(services()).idle();
    for (answer, said) in
        [(older, "cannot be taken over"), ("SSH-2.0-OpenSSH_9.6\r\n", "is not understood"), ("", "gave no answer")]
    {
        let _ = fs::remove_file(mesh.socket_path());
        let server = say(&mesh.socket_path(), answer);
        assert_eq!(mesh.successor().wait().code(), Some(1), "{answer}: {}", mesh.log());
        server.join().unwrap();
        assert!(mesh.log().contains(said), "{answer}: {}", mesh.log());
    }
    assert_eq!(mesh.left_behind(), (Vec::new(), 0));
    fs::remove_file(mesh.socket_path()).unwrap();
    mesh.start();
}

/// A successor that does no more than the test says.
fn ask_to_take_over(mesh: &Daemon) -> Result<Line, String> {
    let mut stream = UnixStream::connect(mesh.socket_path()).unwrap();
    let upgrade = "connection: upgrade\r\nupgrade: mesh-takeover/1\r\ncontent-length: 0\r\n";
    write!(stream, "POST /v1/takeover HTTP/1.1\r\nhost: mesh\r\n{upgrade}\r\n").unwrap();
    let mut head = String::new();
    let mut byte = [0];
    while !head.ends_with("\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(char::from(byte[0]));
    }
    if !head.starts_with("HTTP/1.1 101 ") {
        return Err(head);
    }
    Ok(Line::new(stream).unwrap())
}

fn take(line: &Line) -> (Estate, Vec<OwnedFd>) {
    line.send(&Greeting { version: "test".to_owned(), pid: std::process::id() }, &[], SOON).unwrap();
    line.receive::<Estate>(SOON).unwrap()
}

#[test]
fn while_another_one_takes_over_the_daemon_answers_and_changes_nothing() {
    let world = world!();
    let _backends = backends(&world);
    let mut mesh = world.daemon(services());
    mesh.cli(&["endpoints", "drain", "web", E1]).done();
    let line = ask_to_take_over(&mesh).unwrap();
    let (estate, descriptors) = take(&line);
    assert_eq!((estate.pid, estate.intercepts, estate.changes.len()), (mesh.pid(), true, 1));
    assert_eq!(estate.descriptors.len(), descriptors.len());
    let locks = estate.descriptors.iter().filter(|d| matches!(d, Passed::Lock { .. })).count();
    // Whether it has the explicit proxy's depends on who has the port.
    let rest = estate.descriptors.iter().filter(|d| !matches!(d, Passed::Proxy)).count();
    assert_eq!((locks, rest), (3, 5), "{:?}", estate.descriptors);
    // Nothing is known of sources but what the registry, which is always there, has.
    assert_eq!(estate.discovered.sources, ["registry"]);

    for change in [
        &["endpoints", "undrain", "web", E1][..],
        &["endpoints", "weight", "web", E1, "2", "--persist"],
        &["lb", "set", "web", "random"],
        &["bypass", "on"],
        &["config", "reload"],
    ] {
        mesh.cli(change).ended(1).refused(&["taking over", "try again"]);
    }
    let fragment = json!({ "services": [service("new", &["10.96.0.13:80"], &[E1])] });
    mesh.write_fragment("new.yaml", &fragment.to_string());
    assert_eq!(mesh.json(&["services"]).as_array().unwrap().len(), 2);
    assert_eq!(mesh.http("GET", "/ready").status, 200);
    let refusal = ask_to_take_over(&mesh).unwrap_err();
    assert!(refusal.starts_with("HTTP/1.1 409 "), "{refusal}");
    assert_eq!(mesh.successor().wait().code(), Some(1));
    assert!(mesh.log().contains("another daemon is taking over already"), "{}", mesh.log());
    let failures = mesh.json(&["status"])["config"]["error"].clone();
    assert_eq!(failures, Value::Null, "a reload at the wrong moment is no mistake in the file");

    drop((line, descriptors));
    holds("it goes on", || times_gone_on(&mesh), |n| *n == 1);
    holds(
        "the file that changed meanwhile is taken",
        || mesh.json(&["services"]).as_array().unwrap().len(),
        |n| *n == 3,
    );
    mesh.cli(&["endpoints", "undrain", "web", E1]).done();
    mesh.take_over();
    assert_well(&world, &mesh, "afterwards");
}

#[test]
fn a_daemon_that_is_stopped_while_another_one_takes_over_leaves_the_socket_to_it() {
    let world = world!();
    let _backends = backends(&world);
    let mut mesh = world.daemon(services());
    let line = ask_to_take_over(&mesh).unwrap();
    let held = take(&line);
    assert!(mesh.terminate().success());
    assert!(mesh.socket_path().exists());
    assert!(UnixStream::connect(mesh.socket_path()).is_ok(), "its listener lives on in the other process");
    drop((line, held));
    mesh.start();
    assert_well(&world, &mesh, "afterwards");
}
