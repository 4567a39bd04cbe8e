//! `cargo xtask demo`: services, their clients and a failure, told as a story about real processes.

mod actors;
mod cast;
mod daemon;
mod leftovers;
mod page;
mod requests;
mod show;
mod stage;
mod story;
mod tally;

use std::path::PathBuf;
use std::time::{Duration, Instant};

pub(crate) use actors::{Speech, backend, client, request};
use cast::{Backend, Service};
use show::Look;
use stage::Stage;
use tally::Tally;

use crate::build::{self, Profile};
use crate::interrupt;
use crate::prerequisites;
use crate::process::tell;

/// Plays until `duration` is over, or for ever; never shorter than the story. With `mesh`, or one that is built first.
pub(crate) fn run(duration: Option<Duration>, mesh: Option<PathBuf>) -> Result<(), String> {
    let missing = prerequisites::missing();
    if !missing.is_empty() {
        let list: Vec<String> = missing.iter().map(|one| format!("\n  {}: {}", one.what, one.remedy)).collect();
        return Err(format!("the demo needs what this machine lacks:{}", list.concat()));
    }
    let mesh = mesh.map_or_else(|| build::run(Profile::Release), Ok)?;
    interrupt::listen();
    let began = Instant::now();
    let services = cast::services()?;
    let mut stage = Stage::set(mesh, &services)?;
    let look = Look::detect();
    let played = story::play(&mut stage, &services, look).and_then(|()| live(&stage, &services, look, duration, began));
    // Whoever asked us to end may have broken off a step, which is no failure then.
    let failed = played.err().filter(|_| !interrupt::asked());
    if failed.is_some() {
        tell(&format!("\nthe end of the daemon's log:\n{}\n", stage.daemon.end_of_log()));
    }
    look.heading("Cleaning up: clients, daemon, kernel programs (mesh unload), backends, cgroup");
    let trouble = stage.clear();
    if trouble.is_empty() {
        look.say("Nothing is left of this demo.");
    }
    match (failed, trouble.is_empty()) {
        (None, true) => Ok(()),
        (None, false) => Err(trouble.join("\n")),
        (Some(reason), true) => Err(reason),
        (Some(reason), false) => Err(format!("{reason}\n{}", trouble.join("\n"))),
    }
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
    look.say(&format!("curl {}", stage.daemon.metrics_url()));
    look.say(&format!("export MESH_ADMIN_SOCKET={}", stage.daemon.socket().display()));
    for command in ["endpoints", "services --watch", &format!("explain {}", services[0].vips[0])] {
        look.say(&format!("{} {command}", stage.daemon.mesh.display()));
    }
    let (cgroup, vip) = (stage.cgroup.display(), services[0].vips[0]);
    look.say(&format!("sh -c 'echo $$ > {cgroup}/cgroup.procs; curl http://{vip}'"));
    let ends =
        duration.map_or("Ctrl-C".to_owned(), |duration| format!("{} s after its start, or Ctrl-C", duration.as_secs()));
    look.heading(&format!("Running until {ends}. New connections, and requests:"));
    let step = Duration::from_secs(if look.terminal { 1 } else { 5 });
    while duration.is_none_or(|duration| began.elapsed() < duration) {
        let left = duration.map_or(step, |duration| duration.saturating_sub(began.elapsed()));
        let before = stage.tally();
        interrupt::sleep(step.min(left))?;
        let new = stage.tally().since(&before);
        let dialled = services.iter().filter(|service| !service.vips.is_empty());
        let counts = dialled.map(|service| line_of(service, &new)).collect::<Vec<_>>().join("   ");
        look.live(&format!("{:>4} s   {counts}   failed {}", began.elapsed().as_secs(), new.failed()));
    }
    look.end_live();
    Ok(())
}

fn line_of(service: &Service, new: &Tally) -> String {
    let count = |backend: &Backend| format!("{} {}", backend.name, new.answers(service, backend));
    format!("{}: {}", service.name, service.backends.iter().map(count).collect::<Vec<_>>().join(" "))
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
