//! `cargo xtask demo`: a service, its clients and a failure, told as a story about real processes.
//!
//! Every sentence that claims something is checked before it is printed: a demo that shows the wrong thing fails.

mod actors;
mod cast;
mod interrupt;
mod leftovers;
mod show;
mod stage;
mod tally;

use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) use actors::{Speech, backend, client};
use cast::{Backend, Service};
use show::Look;
use stage::Stage;
use tally::Tally;

use crate::build::{self, Profile};
use crate::prerequisites;

/// How long each scene is watched.
const SCENE: Duration = Duration::from_secs(3);
/// How long connections that began before a change may still end after it.
const SETTLE: Duration = Duration::from_millis(200);

/// Plays until `duration` is over, or for ever; never shorter than the story.
pub(crate) fn run(duration: Option<Duration>) -> Result<(), String> {
    let missing = prerequisites::missing();
    if !missing.is_empty() {
        let list: Vec<String> = missing.iter().map(|one| format!("\n  {}: {}", one.what, one.remedy)).collect();
        return Err(format!("the demo needs what this machine lacks:{}", list.concat()));
    }
    let mesh = build::run(Profile::Release)?;
    interrupt::listen();
    let began = Instant::now();
    let services = cast::services()?;
    let mut stage = Stage::set(mesh, &services)?;
    let look = Look::detect();
    let played = play(&mut stage, &services, look).and_then(|()| live(&stage, &services, look, duration, began));
    if let Err(reason) = &played
        && reason != interrupt::INTERRUPTED
    {
        eprintln!("\nthe end of the daemon's log:\n{}\n", stage.end_of_log());
    }
    look.heading("Cleaning up: clients, daemon, programs in the kernel (`mesh unload`), backends, cgroup");
    drop(stage);
    match played {
        Err(reason) if reason == interrupt::INTERRUPTED => Ok(()),
        played => played,
    }
}

fn play(stage: &mut Stage, services: &[Service; 2], look: Look) -> Result<(), String> {
    let [web, _] = services;
    let victim = &web.backends[1];

    look.heading("1. Backends: ordinary programs that answer with their name");
    for service in services {
        for backend in &service.backends {
            let pid = stage.start_backend(backend, service.speech)?;
            look.say(&format!("{:<4} {:<5} at {}, pid {pid}", service.name, backend.name, backend.address));
        }
    }

    look.heading("2. The daemon: writes services into the kernel, attaches its programs to one cgroup");
    let started = Instant::now();
    let pid = stage.start_daemon()?;
    look.say(&format!(
        "pid {pid}, ready after {} ms, cgroup {}",
        started.elapsed().as_millis(),
        stage.cgroup().display()
    ));
    show(stage, look, &["services"])?;

    look.heading(
        "3. Clients in that cgroup dial the services' addresses; the kernel picks a backend for each connect()",
    );
    for service in services {
        stage.start_clients(service)?;
    }
    let phase = watch(stage, Duration::ZERO)?;
    for service in services {
        look.table(service, &phase);
    }
    everyone_answers(services, &phase)?;
    nobody_fails(&phase)?;
    look.say(&format!("Applications see the address they dialled: getpeername says {}.", stage.peers().join(", ")));
    let dialled = |peer: &String| services.iter().flat_map(|service| service.vips).any(|vip| vip.to_string() == *peer);
    require(stage.peers().iter().all(dialled), "an application saw another address than the one it dialled")?;

    look.heading(&format!("4. {} crashes", victim.name));
    let pid = stage.kill_backend(victim.name)?;
    look.say(&format!("kill -9 {pid}"));
    let before = stage.tally();
    interrupt::sleep(SCENE)?;
    look.table(web, &stage.tally().since(&before));
    look.say("Nobody has told the mesh: every connect() that picks it is refused, and the kernel counts it:");
    metrics(stage, look, &format!("endpoint=\"{}\"", victim.address), &["mesh_tcp_connect_failures_total"])?;

    look.heading(&format!("5. The operator takes {} out of selection", victim.name));
    let address = victim.address.to_string();
    show(stage, look, &["endpoints", "drain", web.name, &address])?;
    let phase = watch(stage, SETTLE)?;
    look.table(web, &phase);
    nobody_fails(&phase)?;
    let refused = stage.tally().failures(web.name).get("refused").copied().unwrap_or(0);
    let counted = counter(stage, web, victim, "connect_failures_total")?;
    look.say(&format!("No failures any more. Refused in all: clients saw {refused}, the kernel counted {counted}."));
    require(refused > 0, "no connect was refused while a backend was dead")?;
    require(counted >= refused, "the kernel counted fewer failures than the clients saw")?;

    look.heading(&format!("6. {} is started again and put back", victim.name));
    let pid = stage.start_backend(victim, web.speech)?;
    look.say(&format!("{} at {}, pid {pid}", victim.name, victim.address));
    show(stage, look, &["endpoints", "undrain", web.name, &address])?;
    let phase = watch(stage, SETTLE)?;
    look.table(web, &phase);
    everyone_answers(services, &phase)?;
    nobody_fails(&phase)?;

    look.heading("7. What an operator sees: counted in the kernel, connection by connection");
    for command in [&["services"][..], &["endpoints"]] {
        show(stage, look, command)?;
    }
    let names = ["connections_opened_total", "connect_failures_total", "received_bytes_total"];
    let names = names.map(|name| format!("mesh_tcp_{name}"));
    metrics(stage, look, &format!("service=\"{}\"", web.name), &names.each_ref().map(String::as_str))
}

/// Lets the clients work, and returns what they saw from `settle` on.
fn watch(stage: &Stage, settle: Duration) -> Result<Tally, String> {
    interrupt::sleep(settle)?;
    let before = stage.tally();
    interrupt::sleep(SCENE.saturating_sub(settle))?;
    Ok(stage.tally().since(&before))
}

/// Keeps running, and says how to look at it from another shell.
fn live(
    stage: &Stage,
    services: &[Service],
    look: Look,
    duration: Option<Duration>,
    began: Instant,
) -> Result<(), String> {
    look.heading("Look for yourself, from another shell:");
    look.say(&format!("curl http://{}/metrics", stage.admin));
    look.say(&format!("export MESH_ADMIN_SOCKET={}   # then: mesh endpoints", stage.socket().display()));
    let [vip, _] = services[0].vips;
    look.say(&format!("sh -c 'echo $$ > {}/cgroup.procs; curl http://{vip}'", stage.cgroup().display()));
    let ends =
        duration.map_or("Ctrl-C".to_owned(), |duration| format!("{} s after its start, or Ctrl-C", duration.as_secs()));
    look.heading(&format!("Running until {ends}"));
    let step = Duration::from_secs(if look.terminal { 1 } else { 5 });
    while duration.is_none_or(|duration| began.elapsed() < duration) {
        let left = duration.map_or(step, |duration| duration.saturating_sub(began.elapsed()));
        let before = stage.tally();
        interrupt::sleep(step.min(left))?;
        let now = stage.tally();
        let rates = services.iter().map(|service| line_of(service, &now, &before)).collect::<Vec<_>>().join("   ");
        look.live(&format!("{:>4} s   {rates}   failed {}", began.elapsed().as_secs(), now.since(&before).failed()));
    }
    if look.terminal {
        println!();
    }
    Ok(())
}

fn line_of(service: &Service, now: &Tally, before: &Tally) -> String {
    let new = now.since(before);
    let count = |backend: &Backend| format!("{} {}", backend.name, new.answers(service.name, backend.name));
    format!("{}: {}", service.name, service.backends.iter().map(count).collect::<Vec<_>>().join(", "))
}

/// Shows a command of the operator and what it answers.
fn show(stage: &Stage, look: Look, arguments: &[&str]) -> Result<(), String> {
    look.command(&format!("mesh {}", arguments.join(" ")), &stage.mesh(arguments)?);
    Ok(())
}

/// Shows the lines of these metrics that carry a label. Histograms and comments are left out.
fn metrics(stage: &Stage, look: Look, label: &str, names: &[&str]) -> Result<(), String> {
    let page = stage.get("/metrics")?;
    let wanted = |line: &&str| line.contains(label) && names.iter().any(|name| line.split('{').next() == Some(*name));
    let lines: Vec<&str> = page.lines().filter(wanted).collect();
    require(!lines.is_empty(), &format!("/metrics has none of {} with {label}", names.join(", ")))?;
    look.command(&format!("curl http://{}/metrics | grep '{label}'", stage.admin), &lines.join("\n"));
    Ok(())
}

/// A number out of `mesh endpoints -o json`.
fn counter(stage: &Stage, service: &Service, backend: &Backend, field: &str) -> Result<u64, String> {
    let text = stage.mesh(&["endpoints", service.name, "-o", "json"])?;
    let rows: Value = serde_json::from_str(&text).map_err(|error| format!("mesh endpoints -o json: {error}"))?;
    let address = backend.address.to_string();
    let row = rows.as_array().and_then(|rows| rows.iter().find(|row| row["address"] == address.as_str()));
    let number = row.and_then(|row| row[field].as_u64());
    number.ok_or_else(|| format!("mesh endpoints -o json: no {field} for {address}"))
}

fn everyone_answers(services: &[Service], tally: &Tally) -> Result<(), String> {
    for service in services {
        for backend in &service.backends {
            let answered = tally.answers(service.name, backend.name) > 0;
            require(answered, &format!("{} of {} answered nobody", backend.name, service.name))?;
        }
    }
    Ok(())
}

fn nobody_fails(tally: &Tally) -> Result<(), String> {
    require(tally.failed() == 0, &format!("{} connections failed that should not have", tally.failed()))
}

fn require(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("this is not what the demo promises: {otherwise}")) }
}

/// `60s`, `2m`, `1h`, `500ms`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("expected a number and ms, s, m or h, like 60s".into()),
    };
    let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    millis.map(Duration::from_millis).ok_or_else(|| "expected a number and ms, s, m or h, like 60s".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        assert_eq!(parse_duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "60", "s", "-1s", "1.5s", "1d", "99999999999999999999s", "9999999999999999999h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
