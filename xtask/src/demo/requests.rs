//! The part of the story that is about requests: an HTTP service, a backend that dies under load, and a daemon that does.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::cast::Service;
use super::page::Excerpt;
use super::show::Look;
use super::stage::Stage;
use super::story::{SCENE, SETTLE, circuit, closed_again, command, excerpt, is_due, require, watch};
use super::tally::{Outcome, Report, Tally};
use crate::interrupt;

/// Within this time a client is brought to the daemon once that runs.
const CAPTURED: Duration = Duration::from_secs(5);
/// How many requests of a client go over one connection where it makes new ones now and then.
const QUESTIONS: u64 = 10;

/// `others`: services of connections, whose clients go on all the time.
pub(super) fn play(stage: &mut Stage, shop: &Service, others: [&Service; 2], look: Look) -> Result<(), String> {
    balance(stage, shop, look)?;
    canary(stage, shop, look)?;
    crash(stage, shop, look)?;
    without_daemon(stage, shop, others, look)?;
    with_another_daemon(stage, shop, look)
}

fn balance(stage: &mut Stage, shop: &Service, look: Look) -> Result<(), String> {
    look.heading("7. HTTP: each request is balanced, not each connection");
    look.say("shop says `protocol: http`. The kernel brings whoever dials it to the daemon,");
    look.say("which picks an endpoint for each request. Clients dial the VIP as before, and");
    look.say("each of these keeps its one connection.");
    captured(stage, shop.vips[0])?;
    stage.start_clients(shop, 0)?;
    let scene = watch(stage, Duration::ZERO)?;
    look.table(shop, &scene);
    nobody_fails(&[shop], &scene)?;
    let (total, through, connections) = (scene.total(shop), scene.through(shop), scene.connections(shop));
    require(through == total, &format!("{} of {total} requests went past the daemon", total - through))?;
    require(connections == shop.vips.len() as u64, &format!("clients made {connections} connections"))?;
    shop.backends.iter().try_for_each(|backend| is_due(shop, backend, &scene))
}

fn canary(stage: &Stage, shop: &Service, look: Look) -> Result<(), String> {
    look.heading("8. A route: requests with `x-canary: 1` go to another version");
    let (vip, url) = (shop.vips[0], url(shop.vips[0]));
    let own = ask(stage, vip, None)?;
    look.command(&format!("curl {url}"), &own);
    require(shop.backends.iter().any(|backend| backend.name == own), &format!("{own} is no backend of shop"))?;
    let canary = ask(stage, vip, Some("x-canary: 1"))?;
    look.command(&format!("curl -H 'x-canary: 1' {url}"), &canary);
    require(canary == "canary", &format!("{canary} answered in place of the canary"))
}

fn crash(stage: &mut Stage, shop: &Service, look: Look) -> Result<(), String> {
    let victim = &shop.backends[1];
    look.heading(&format!("9. {} crashes under load, and no request fails", victim.name));
    let before = stage.tally();
    let pid = stage.kill_backend(victim.name)?;
    look.say(&format!("$ kill -9 {pid}"));
    interrupt::sleep(SCENE)?;
    let scene = stage.tally().since(&before);
    look.table(shop, &scene);
    nobody_fails(&[shop], &scene)?;
    require(circuit(stage, shop, victim)? != "closed", "the circuit of a dead backend is closed")?;
    look.say(&format!("Requests that {} did not answer were sent to another endpoint at once, until", victim.name));
    look.say("its circuit opened. From then on it gets a probe now and then, and no client");
    look.say("sees those either.");
    excerpt(stage, look, &Excerpt { metrics: &["mesh_retries_total"], about: shop.name })?;
    command(stage, look, &["circuit", "list", shop.name])?;
    stage.start_backend(victim, shop.speech)?;
    let took = closed_again(stage, shop, victim)?;
    look.say(&format!("{} is started again; its circuit closes after {} ms.", victim.name, took.as_millis()));
    Ok(())
}

fn without_daemon(stage: &mut Stage, shop: &Service, others: [&Service; 2], look: Look) -> Result<(), String> {
    look.heading("10. The daemon is killed, and traffic goes on");
    look.say(&format!("Clients of shop now make a new connection for every {QUESTIONS} requests."));
    stage.stop_clients(shop);
    stage.start_clients(shop, QUESTIONS)?;
    interrupt::sleep(SETTLE * 3)?;
    let before = stage.tally();
    let pid = stage.daemon.kill()?;
    look.say(&format!("$ kill -9 {pid}        (the daemon)"));
    interrupt::sleep(SETTLE)?;
    let broken = stage.tally().since(&before);
    let scene = watch(stage, Duration::ZERO)?;
    look.table(shop, &scene);
    for service in others {
        look.say(&format!(
            "{}: {} connections, {} failed",
            service.name,
            scene.total(service),
            failed(service, &scene)
        ));
    }
    nobody_fails(&[shop, others[0], others[1]], &scene)?;
    nobody_fails(&others, &broken)?;
    require(scene.through(shop) == 0, "an answer came through a daemon that is dead")?;
    let lost = failed(shop, &broken);
    // One by the connection it has, and one by the next if that is made before the kernel has closed the listeners.
    require(lost <= 2 * shop.vips.len() as u64, &format!("{lost} requests broke when the daemon was killed"))?;
    look.say(&format!("{lost} requests broke, which were on their way through the daemon. The kernel sends new"));
    look.say("connections straight to endpoints, from the very next one: shop is balanced by");
    look.say("connections now, and its circuits still open and close.");
    Ok(())
}

fn with_another_daemon(stage: &mut Stage, shop: &Service, look: Look) -> Result<(), String> {
    look.heading("11. A new daemon starts, and looks at requests again");
    let before = stage.tally();
    let started = Instant::now();
    let pid = stage.daemon.start()?;
    look.say(&format!("pid {pid}, ready after {} ms", started.elapsed().as_millis()));
    captured(stage, shop.vips[0])?;
    // The last direct connections see their last request.
    interrupt::sleep(SETTLE * 3)?;
    let scene = watch(stage, Duration::ZERO)?;
    look.table(shop, &scene);
    nobody_fails(&[shop], &stage.tally().since(&before))?;
    let (total, through) = (scene.total(shop), scene.through(shop));
    require(through == total, &format!("{} of {total} requests went past the daemon", total - through))?;
    look.say("No request failed on the way back. What went past the daemon is counted:");
    excerpt(stage, look, &Excerpt { metrics: &["mesh_connects_passed_total", "http_requests_total"], about: shop.name })
}

/// Waits until clients are brought to the daemon. The first connection of a network namespace may be what tells it to
/// listen there.
fn captured(stage: &Stage, vip: SocketAddr) -> Result<(), String> {
    let started = Instant::now();
    while !matches!(stage.ask(vip, None)?, Report::Through(_)) {
        require(started.elapsed() < CAPTURED, "clients are not brought to the daemon")?;
        interrupt::sleep(Duration::from_millis(50))?;
    }
    Ok(())
}

/// Who answers a request.
fn ask(stage: &Stage, vip: SocketAddr, header: Option<&str>) -> Result<String, String> {
    match stage.ask(vip, header)? {
        Report::Through(name) | Report::Outcome(Outcome::Answer(name)) => Ok(name),
        other => Err(format!("a request to {vip}: {other}")),
    }
}

/// What a user would type: HTTP's own port goes without saying.
fn url(vip: SocketAddr) -> String {
    if vip.port() == 80 { format!("http://{}/", vip.ip()) } else { format!("http://{vip}/") }
}

fn failed(service: &Service, tally: &Tally) -> u64 {
    tally.failures(service).values().sum()
}

fn nobody_fails(services: &[&Service], tally: &Tally) -> Result<(), String> {
    services.iter().try_for_each(|service| {
        let failures = tally.failures(service);
        require(failures.is_empty(), &format!("{}: {failures:?} failed that should not have", service.name))
    })
}

#[cfg(test)]
mod tests {
    use super::super::cast;
    use super::*;

    #[test]
    fn a_failure_of_one_service_is_named_and_is_not_anothers() {
        let [web, _, shop, _] = cast::services().unwrap();
        let mut tally = Tally::default();
        tally.hear(shop.vips[0], Report::Outcome(Outcome::Failure("503".into())));
        assert_eq!((failed(&shop, &tally), failed(&web, &tally)), (1, 0));
        assert_eq!(nobody_fails(&[&web], &tally), Ok(()));
        assert!(nobody_fails(&[&web, &shop], &tally).unwrap_err().contains("shop: {\"503\": 1}"));
    }

    #[test]
    fn a_url_leaves_out_only_the_port_of_http() {
        let of = |vip: &str| url(vip.parse().unwrap());
        assert_eq!([of("240.0.0.88:80"), of("240.0.0.88:81")], ["http://240.0.0.88/", "http://240.0.0.88:81/"]);
    }
}
