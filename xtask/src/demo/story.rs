//! The story: what happens, in order. Every sentence that claims something is checked before it is printed.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::cast::{self, Backend, Service};
use super::page::Excerpt;
use super::requests;
use super::show::Look;
use super::stage::Stage;
use super::tally::{Tally, is_fair};
use crate::interrupt;

/// How long each scene is watched.
pub(super) const SCENE: Duration = Duration::from_secs(3);
/// How long connections that began before a change may still end after it.
pub(super) const SETTLE: Duration = Duration::from_millis(200);
/// Within this time a circuit closes whose backend is back: the longest reset time of the demo's configuration, and a
/// probe.
const BACK: Duration = Duration::from_secs(4);

pub(super) fn play(stage: &mut Stage, services: &[Service; 4], look: Look) -> Result<(), String> {
    let [web, echo, shop, _] = services;
    let (connections, victim) = (&services[..2], &web.backends[1]);
    start(stage, services, look)?;
    balance(stage, connections, look)?;
    crash(stage, web, victim, look)?;
    passed_over(stage, web, victim, look)?;
    come_back(stage, connections, victim, look)?;
    requests::play(stage, shop, [web, echo], look)?;
    look_at_counters(stage, connections, look)
}

fn start(stage: &mut Stage, services: &[Service], look: Look) -> Result<(), String> {
    look.heading("mesh: services, balanced inside the kernel");
    look.say("A service has an address of its own, a VIP, that no machine owns. When a");
    look.say("program dials it, the kernel puts one of the service's endpoints in its");
    look.say("place, once, at connect(). Then nothing stands between the two: no proxy.");

    look.heading("1. Backends: ordinary programs that answer with their name");
    for service in services {
        for backend in &service.backends {
            let pid = stage.start_backend(backend, service.speech)?;
            let (name, address, speech) = (backend.name, backend.address, service.speech);
            look.say(&format!("{:<4}  {name:<5}  {address:<16} speaks {speech}, pid {pid}", service.name));
        }
    }

    look.heading("2. The daemon loads its programs into the kernel, for one cgroup");
    let started = Instant::now();
    let pid = stage.daemon.start()?;
    let (took, cgroup) = (started.elapsed().as_millis(), stage.cgroup.display());
    look.say(&format!("pid {pid}, ready after {took} ms, cgroup {cgroup}"));
    command(stage, look, &["services"])
}

fn balance(stage: &mut Stage, services: &[Service], look: Look) -> Result<(), String> {
    look.heading("3. Clients in that cgroup dial the VIPs, a new connection each time");
    for service in services {
        stage.start_clients(service, 1)?;
    }
    let scene = watch(stage, Duration::ZERO)?;
    for service in services {
        look.table(service, &scene);
    }
    all_is_well(services, &scene)?;
    let dialled = |peer: &String| services.iter().flat_map(|service| &service.vips).any(|vip| vip.to_string() == *peer);
    require(stage.peers().iter().all(dialled), "an application saw another address than the one it dialled")?;
    look.say("Programs notice nothing: getpeername() gives them the VIP that they dialled.");
    look.say(if cast::has_v6() {
        "The backends are IPv4 only; clients of the IPv6 VIPs reach them all the same."
    } else {
        "(This kernel has no IPv6, or there would be a second VIP for each service.)"
    });
    Ok(())
}

fn crash(stage: &mut Stage, web: &Service, victim: &Backend, look: Look) -> Result<(), String> {
    look.heading(&format!("4. {} crashes, and its circuit opens", victim.name));
    let pid = stage.kill_backend(victim.name)?;
    look.say(&format!("$ kill -9 {pid}"));
    let before = stage.tally();
    interrupt::sleep(SCENE)?;
    let scene = stage.tally().since(&before);
    look.table(web, &scene);
    let refused = scene.failures(web).get("refused").copied().unwrap_or(0);
    require(refused > 0, "no connect was refused while a backend was dead")?;
    look.say(&format!("Nobody has told mesh. The kernel saw {refused} connects to {} refused, and", victim.name));
    look.say("has taken it out of selection by itself: five failures in a row open a circuit.");
    look.say("Now and then it lets one connection through, a probe, to see whether it is back.");
    command(stage, look, &["circuit", "list", web.name])?;
    let state = circuit(stage, web, victim)?;
    require(state != "closed", "the circuit of a dead backend is closed")
}

fn passed_over(stage: &Stage, web: &Service, victim: &Backend, look: Look) -> Result<(), String> {
    look.heading(&format!("5. Clients do not notice that {} is dead", victim.name));
    let scene = watch(stage, SETTLE)?;
    look.table(web, &scene);
    require(scene.answers(web, victim) == 0, "a dead backend answered")?;
    let probes = scene.failures(web).get("refused").copied().unwrap_or(0);
    let total = scene.total(web);
    require(probes * 20 < total, &format!("{probes} of {total} connections were refused: the circuit is not open"))?;
    let refused = stage.tally().failures(web).get("refused").copied().unwrap_or(0);
    let counted = counter(&endpoints(stage, web)?, victim, "connect_failures_total")?;
    look.say(&format!(
        "Of {total} connections {probes} were refused: probes, which see whether {} is back.",
        victim.name
    ));
    look.say(&format!("In all, clients saw {refused} refused; the kernel counted {counted}."));
    require(counted >= refused, "the kernel counted fewer failures than the clients saw")?;
    excerpt(stage, look, &Excerpt { metrics: &["mesh_tcp_connect_failures_total"], about: &victim.address.to_string() })
}

fn come_back(stage: &mut Stage, services: &[Service], victim: &Backend, look: Look) -> Result<(), String> {
    let web = &services[0];
    look.heading(&format!("6. {} is started again, and its circuit closes", victim.name));
    let pid = stage.start_backend(victim, web.speech)?;
    look.say(&format!("{} at {}, pid {pid}", victim.name, victim.address));
    let took = closed_again(stage, web, victim)?;
    look.say(&format!("A probe succeeded after {} ms. Nobody had to do anything.", took.as_millis()));
    command(stage, look, &["circuit", "list", web.name])?;
    let scene = watch(stage, SETTLE)?;
    look.table(web, &scene);
    all_is_well(services, &scene)
}

/// How long it takes until the circuit of a backend that is back closes.
pub(super) fn closed_again(stage: &Stage, service: &Service, backend: &Backend) -> Result<Duration, String> {
    let started = Instant::now();
    while circuit(stage, service, backend)? != "closed" {
        require(started.elapsed() < BACK, "the circuit of a backend that is back stays open")?;
        interrupt::sleep(Duration::from_millis(50))?;
    }
    Ok(started.elapsed())
}

fn look_at_counters(stage: &Stage, services: &[Service], look: Look) -> Result<(), String> {
    look.heading("12. What the kernel has counted, for each endpoint");
    command(stage, look, &["endpoints"])?;
    excerpt(
        stage,
        look,
        &Excerpt {
            metrics: &["mesh_tcp_sent_bytes_total", "mesh_tcp_connect_failures_total"],
            about: services[0].name,
        },
    )?;
    // Clients are asked first: they go on, so that the kernel may only be ahead.
    let tally = stage.tally();
    for service in services {
        let rows = endpoints(stage, service)?;
        for backend in &service.backends {
            let (answers, counted) = (tally.answers(service, backend), counter(&rows, backend, "connections_total")?);
            require(counted >= answers, &format!("{}: {answers} answers, but {counted} counted", backend.name))?;
        }
    }
    Ok(())
}

/// Lets the clients work, and returns what they saw from `settle` on.
pub(super) fn watch(stage: &Stage, settle: Duration) -> Result<Tally, String> {
    interrupt::sleep(settle)?;
    let before = stage.tally();
    interrupt::sleep(SCENE.saturating_sub(settle))?;
    Ok(stage.tally().since(&before))
}

/// Shows a command of the operator and what it answers.
pub(super) fn command(stage: &Stage, look: Look, arguments: &[&str]) -> Result<(), String> {
    look.command(&format!("mesh {}", arguments.join(" ")), &stage.daemon.command(arguments)?);
    Ok(())
}

/// Shows some lines of the metrics.
pub(super) fn excerpt(stage: &Stage, look: Look, excerpt: &Excerpt<'_>) -> Result<(), String> {
    let typed = excerpt.typed(&stage.daemon.metrics_url());
    let page = stage.daemon.metrics()?;
    let lines = excerpt.of(&page);
    require(!lines.is_empty(), &format!("nothing comes of `{typed}`"))?;
    look.command(&typed, &lines.join("\n"));
    Ok(())
}

/// The rows of `mesh endpoints SERVICE -o json`.
fn endpoints(stage: &Stage, service: &Service) -> Result<Value, String> {
    let text = stage.daemon.command(&["endpoints", service.name, "-o", "json"])?;
    serde_json::from_str(&text).map_err(|error| format!("mesh endpoints -o json: {error}"))
}

/// The state of a backend's circuit.
pub(super) fn circuit(stage: &Stage, service: &Service, backend: &Backend) -> Result<String, String> {
    let text = stage.daemon.command(&["circuit", "list", service.name, "-o", "json"])?;
    let rows: Value = serde_json::from_str(&text).map_err(|error| format!("mesh circuit -o json: {error}"))?;
    let address = backend.address.to_string();
    let row = rows.as_array().and_then(|rows| rows.iter().find(|row| row["endpoint"] == address.as_str()));
    let state = row.and_then(|row| row["state"].as_str());
    state.map(str::to_owned).ok_or_else(|| format!("mesh circuit -o json: no state for {address}"))
}

/// A number of one backend in such rows.
fn counter(rows: &Value, backend: &Backend, field: &str) -> Result<u64, String> {
    let address = backend.address.to_string();
    let row = rows.as_array().and_then(|rows| rows.iter().find(|row| row["address"] == address.as_str()));
    let number = row.and_then(|row| row[field].as_u64());
    number.ok_or_else(|| format!("mesh endpoints -o json: no {field} for {address}"))
}

/// Every VIP reaches every backend, each as often as its weight promises, and nothing fails.
fn all_is_well(services: &[Service], tally: &Tally) -> Result<(), String> {
    nobody_fails(tally)?;
    for service in services {
        let name = service.name;
        for backend in &service.backends {
            for vip in &service.vips {
                let answers = tally.answers_at(*vip, backend);
                require(answers > 0, &format!("{} of {name} answered nobody who dialled {vip}", backend.name))?;
            }
            is_due(service, backend, tally)?;
        }
    }
    Ok(())
}

/// The backend got what its weight promises.
pub(super) fn is_due(service: &Service, backend: &Backend, tally: &Tally) -> Result<(), String> {
    let weights = service.backends.iter().map(|backend| backend.weight).sum();
    let (answers, total) = (tally.answers(service, backend), tally.total(service));
    let fair = is_fair(answers, total, backend.weight, weights);
    let (own, name, weight) = (backend.name, service.name, backend.weight);
    require(fair, &format!("{own} of {name} got {answers} of {total}; its weight is {weight} of {weights}"))
}

fn nobody_fails(tally: &Tally) -> Result<(), String> {
    require(tally.failed() == 0, &format!("{} connections failed that should not have", tally.failed()))
}

pub(super) fn require(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("this is not what the demo promises: {otherwise}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_that_of_the_backend_asked_for_and_its_absence_is_named() {
        let [web, ..] = cast::services().unwrap();
        let rows: Value = serde_json::json!([
            { "address": web.backends[0].address.to_string(), "connections_total": 3 },
            { "address": web.backends[1].address.to_string(), "connections_total": 5 },
        ]);
        assert_eq!(counter(&rows, &web.backends[1], "connections_total"), Ok(5));
        assert!(counter(&rows, &web.backends[2], "connections_total").unwrap_err().contains("no connections_total"));
    }

    #[test]
    fn a_backend_that_answers_nobody_or_too_few_is_noticed() {
        let [web, ..] = cast::services().unwrap();
        let services = [web];
        let vips = &services[0].vips;
        let tally = |counts: [u64; 3]| {
            let mut tally = Tally::default();
            for (backend, count) in services[0].backends.iter().zip(counts) {
                for _ in 0..count {
                    vips.iter()
                        .for_each(|vip| tally.add(*vip, super::super::tally::Outcome::Answer(backend.name.into())));
                }
            }
            tally
        };
        assert_eq!(all_is_well(&services, &tally([300, 200, 100])), Ok(()));
        assert!(all_is_well(&services, &tally([3, 2, 0])).unwrap_err().contains("blue of web answered nobody"));
        assert!(all_is_well(&services, &tally([200, 200, 200])).unwrap_err().contains("its weight is 3 of 6"));
    }
}
