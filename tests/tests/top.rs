//! `mesh top` on a real terminal.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in tests a broken expectation is a failure"
)]

use mesh_tests::{Daemon, Terminal, World, holds, json, process, server, service, world};
use std::{fs, process::Command};

const WEB: &str = "10.96.0.10:80";
const DB: &str = "10.96.0.20:5432";
const E1: &str = "10.1.0.1:8080";
const E2: &str = "10.1.0.2:8080";
const E3: &str = "10.1.0.3:5432";

fn daemon(world: &World) -> Daemon {
    world.daemon(json!([service("web", &[WEB], &[E1, E2]), service("db", &[DB], &[E3])]))
}

fn terminal(mesh: &Daemon) -> Result<Terminal, String> {
    let binary = process::mesh();
    Terminal::new(&[("MESH", &binary), ("MESH_ADMIN_SOCKET", &mesh.socket_path())])
}

/// The line that begins with `name`.
fn row<'a>(screen: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let line = screen.lines().find(|line| line.starts_with(&format!("{name} ")))?;
    Some(line.split_whitespace().collect())
}

/// The cell of row `name` in the column `title`, where every column has one word.
fn cell<'a>(screen: &'a str, name: &str, title: &str) -> Option<&'a str> {
    let titles = screen.lines().find(|line| line.starts_with("NAME") || line.starts_with("ENDPOINT"))?;
    let at = titles.split_whitespace().position(|word| word.trim_end_matches(['▲', '▼']) == title)?;
    row(screen, name)?.get(at).copied()
}

#[test]
fn services_their_rates_and_what_is_below_are_shown_live() {
    let world = world!();
    let _backends = [world.backend("B1", E1), world.backend("B2", E2), world.echo(E3)];
    let mesh = daemon(&world);
    let terminal = server!(terminal(&mesh));
    let (hammer, mut client) = (world.hammer(&[WEB]), world.client(DB));
    terminal.line("$MESH top");

    let screen = terminal
        .until("rates of web", |screen| cell(screen, "web", "CONN/S").is_some_and(|rate| rate != "-" && rate != "0"));
    assert!(screen.starts_with("test-node  mesh "), "{screen}");
    assert!(screen.lines().nth(1).is_some_and(|line| line.contains("  req/s 0  conn/s ")), "{screen}");
    assert_eq!((cell(&screen, "web", "HEALTHY"), cell(&screen, "web", "CIRCUIT")), (Some("2/2"), Some("closed")));
    assert_eq!(cell(&screen, "db", "ACTIVE"), Some("1"), "{screen}");

    terminal.press("End");
    terminal.until("the details of web", |screen| screen.contains(&format!("web: tcp, round_robin, {WEB}")));
    terminal.press("Enter");
    let screen = terminal.shows("2 Endpoints of web");
    assert!(row(&screen, E1).is_some() && row(&screen, E2).is_some() && row(&screen, E3).is_none(), "{screen}");
    terminal.until("rates of an endpoint", |screen| {
        cell(screen, E1, "CONN/S").is_some_and(|rate| rate != "-" && rate != "0")
    });
    mesh.cli(&["circuit", "trip", "web", E2]).done();
    terminal.until("an open circuit", |screen| cell(screen, E2, "CIRCUIT") == Some("OPEN"));
    let painted = terminal.painted();
    let line = painted.lines().find(|line| line.contains("OPEN")).unwrap();
    assert!(line.contains("\x1b[1m\x1b[7m") || line.contains(";7m"), "it stands out: {line:?}");

    terminal.press("Escape");
    terminal.until("an endpoint's circuit at its service", |screen| {
        row(screen, "web").is_some_and(|cells| cells.windows(2).any(|two| two == ["1", "OPEN"]))
    });
    drop(hammer.stop());

    terminal.press("3");
    client.exchange(1000);
    let pid = format!("[{}]", client.pid());
    let screen = terminal.until("a connection", |screen| screen.contains(&pid) && screen.contains(E3));
    assert!(screen.contains(" db "), "{screen}");
    terminal.write("/nothing like it");
    terminal.shows("none of 1 connections has: nothing like it");
    terminal.press("Escape");
    terminal.until("all again", |screen| screen.contains(&pid));

    terminal.write("1/DB");
    terminal.until("only what the filter lets through", |screen| {
        row(screen, "db").is_some() && row(screen, "web").is_none()
    });
    terminal.press("Enter");
    terminal.resize(60, 12);
    terminal.until("a smaller screen", |screen| row(screen, "db").is_some() && !screen.contains("ACTIVE"));
    terminal.resize(30, 8);
    terminal.shows("30x8 is too small");
}

#[test]
fn a_daemon_that_goes_away_is_waited_for() {
    let world = world!();
    let _backends = [world.backend("B1", E1), world.backend("B2", E2), world.echo(E3)];
    let mut mesh = daemon(&world);
    let terminal = server!(terminal(&mesh));
    terminal.line("$MESH top");
    terminal.until("services", |screen| row(screen, "web").is_some());
    mesh.kill();
    let screen = terminal.shows("NO ANSWER since");
    assert!(row(&screen, "web").is_some(), "the last values are still there: {screen}");
    mesh.start();
    terminal.until("it goes on", |screen| !screen.contains("NO ANSWER") && row(screen, "web").is_some());
    world.ask(WEB).unwrap();
    mesh.cli(&["circuit", "trip", "web"]).done();
    terminal.until("what is new", |screen| cell(screen, "web", "CIRCUIT") == Some("OPEN"));
}

#[test]
fn the_terminal_is_left_as_it_was_however_it_ends() {
    let world = world!();
    let mesh = daemon(&world);
    let terminal = server!(terminal(&mesh));
    let pid = mesh.dir().join("pid");
    // Lines of two numbers: sums of the terminal's settings.
    let sums = |screen: &str| -> Vec<String> {
        let is_sum = |line: &&str| line.split(' ').count() == 2 && line.split(' ').all(|n| n.parse::<u64>().is_ok());
        screen.lines().filter(is_sum).map(str::to_owned).collect()
    };
    for end in ["q", "C-c", "TERM", "INT", "HUP", "QUIT"] {
        terminal.line("clear; echo still here; stty -g | cksum");
        terminal.until("the settings of the terminal", |screen| sums(screen).len() == 1);
        terminal.line(&format!("sh -c 'echo $$ > {}; exec $MESH top'; echo ended $?; stty -g | cksum", pid.display()));
        terminal.until("services", |screen| row(screen, "web").is_some());
        holds("a screen of its own, and no cursor", || terminal.modes(), |modes| *modes == (true, true));
        if end.chars().all(|character| character.is_ascii_uppercase()) {
            let pid = fs::read_to_string(&pid).unwrap();
            let sent = Command::new("kill").args([&format!("-{end}"), pid.trim()]).status();
            assert!(sent.unwrap().success());
        } else {
            terminal.press(end);
        }
        let screen = terminal.until("the end, and the settings of the terminal", |screen| sums(screen).len() == 2);
        assert!(screen.contains("still here") && screen.contains("ended 0"), "{end}: what was there is back: {screen}");
        assert_eq!(sums(&screen)[0], sums(&screen)[1], "{end}: the settings are what they were: {screen}");
        assert_eq!(terminal.modes(), (false, false), "{end}");
    }
}

#[test]
fn where_there_is_no_screen_it_says_what_there_is_instead() {
    let world = world!();
    let mut mesh = daemon(&world);
    mesh.cli(&["top"]).ended(2).says(&["standard output is not a terminal", "mesh services --watch", "-o json"]);
    let terminal = server!(terminal(&mesh));
    terminal.line("TERM=dumb $MESH top; echo ended $?");
    terminal.until("a refusal", |screen| screen.contains("TERM=dumb") && screen.contains("ended 2"));
    mesh.terminate();
    terminal.line("clear; $MESH top; echo ended $?");
    terminal.until("no daemon", |screen| screen.contains("no daemon at") && screen.contains("ended 3"));
    assert_eq!(terminal.modes(), (false, false));
}

#[test]
fn it_can_be_suspended() {
    let world = world!();
    let mesh = daemon(&world);
    let terminal = server!(terminal(&mesh));
    terminal.line("echo still here; $MESH top");
    terminal.until("services", |screen| row(screen, "web").is_some());
    terminal.press("C-z");
    let screen = terminal.shows("Stopped");
    assert!(screen.contains("still here") && !screen.contains("NAME"), "{screen}");
    assert_eq!(terminal.modes(), (false, false));
    terminal.line("fg");
    terminal.until("services again", |screen| row(screen, "web").is_some() && !screen.contains("still here"));
    assert_eq!(terminal.modes(), (true, true));
    terminal.press("C-l");
    terminal.press("End");
    terminal.until("services, drawn anew", |screen| row(screen, "web").is_some() && screen.contains("web: tcp"));
}
