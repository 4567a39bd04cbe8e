//! `mesh bugreport`: what a maintainer would ask for, in one archive, without secrets. What cannot be had is noted in it.

mod archive;
mod host;

use super::check;
use super::secrets::Secrets;
use crate::{
    api::{Client, Time},
    config,
};
use archive::Archive;
use serde_json::Value;
use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

/// What the daemon is asked, and the file that its answer goes to. Listings that grow with traffic are cut.
const ASKED: [(&str, &str); 13] = [
    ("status.json", "/v1/status"),
    ("config.json", "/v1/config"),
    ("services.json", "/v1/services"),
    ("endpoints.json", "/v1/endpoints"),
    ("circuits.json", "/v1/circuits"),
    ("connections.json", "/v1/connections?limit=10000"),
    ("logs.json", "/v1/logs?limit=1000"),
    ("traces.json", "/v1/traces?limit=1000"),
    ("log-level.json", "/v1/log-level"),
    ("registry.json", "/v1/registry"),
    ("health.json", "/health"),
    ("ready.json", "/ready"),
    ("metrics.txt", "/metrics"),
];

const README: &str = "\
What this archive holds, made by `mesh bugreport`. Secrets were taken out, but names, addresses and paths are in it: look
through it before you hand it on. *** stands where something was.

  config.json         the running configuration; files.json: what the configuration files say now
  status.json         programs, tables (maps), sources, warnings
  services.json, endpoints.json, circuits.json, connections.json, registry.json
  logs.json, traces.json, log-level.json, metrics.txt, health.json, ready.json
  check.json          `mesh check -o json`
  host.txt            kernel, cgroups, limits
";

/// Makes the archive. `socket`: the admin socket of the daemon that is asked. What is to be said about it.
///
/// # Errors
/// Why there is none.
pub fn bugreport(named: Option<&Path>, socket: &Path, output: Option<PathBuf>) -> Result<String, String> {
    let now = Time::now();
    let output = output.unwrap_or_else(|| {
        let compact: String = now.to_string().chars().filter(char::is_ascii_alphanumeric).collect();
        PathBuf::from(format!("mesh-bugreport-{compact}.tar.gz"))
    });
    // First of all, and not after a minute of work: whether it can be written.
    let mut archive = Archive::create(&output).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => {
            format!("{} is there already; name another file with --output", output.display())
        }
        _ => format!("{}: {e}; name another file with --output", output.display()),
    })?;
    match fill(&mut archive, named, socket, now) {
        Ok(notes) => {
            let bytes = archive.finish().map_err(|e| format!("{}: {e}", output.display()))?;
            let mut said = format!("{} ({bytes} bytes): look through it before you hand it on", output.display());
            for note in &notes {
                // Writing to a String does not fail.
                let _ = write!(said, "\nnot in it: {note}");
            }
            Ok(said)
        }
        Err(e) => Err(format!("{}: {e}", output.display())),
    }
}

/// Returns what could not be had.
fn fill(archive: &mut Archive, named: Option<&Path>, socket: &Path, now: Time) -> std::io::Result<Vec<String>> {
    let (mut secrets, mut notes) = (Secrets::strict(), Vec::new());
    let files = match config::load(named, &super::host()) {
        Ok(loaded) => serde_json::to_value(loaded.config).map_err(|e| e.to_string()),
        Err(errors) => Err(errors.to_string()),
    };
    let answers = answers(socket, &mut notes);
    // Every secret has to be known before the first text is cleaned of them: they may stand anywhere.
    files.iter().chain(answers.iter().filter_map(|(_, answer)| answer.json())).for_each(|value| secrets.learn(value));
    archive.add("README.txt", README.as_bytes())?;
    archive.add("version.txt", format!("mesh {} at {now}\n", env!("CARGO_PKG_VERSION")).as_bytes())?;
    match &files {
        Ok(value) => archive.add("files.json", &secrets.cleaned(value))?,
        Err(why) => {
            notes.push("files.json: the configuration has mistakes, which are in files.txt".to_owned());
            archive.add("files.txt", secrets.clean(why).as_bytes())?;
        }
    }
    let pid = answers.iter().find_map(|(_, answer)| answer.json()?["pid"].as_u64());
    for (name, answer) in &answers {
        match answer {
            Answer::Json(value) => archive.add(name, &secrets.cleaned(value))?,
            Answer::Text(text) => archive.add(name, secrets.clean(text).as_bytes())?,
        }
    }
    match serde_json::to_value(check(named)) {
        Ok(value) => archive.add("check.json", &secrets.cleaned(&value))?,
        Err(e) => notes.push(format!("check.json: {e}")),
    }
    archive.add("host.txt", secrets.clean(&host::facts(pid)).as_bytes())?;
    let notes: Vec<String> = notes.iter().map(|note| secrets.clean(note)).collect();
    if !notes.is_empty() {
        archive.add("missing.txt", format!("{}\n", notes.join("\n")).as_bytes())?;
    }
    Ok(notes)
}

/// What the daemon said.
enum Answer {
    Json(Value),
    Text(String),
}

impl Answer {
    fn json(&self) -> Option<&Value> {
        match self {
            Self::Json(value) => Some(value),
            Self::Text(_) => None,
        }
    }
}

/// What the daemon answers; what it does not is noted.
fn answers(socket: &Path, notes: &mut Vec<String>) -> Vec<(&'static str, Answer)> {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            notes.push(format!("what the daemon would have answered: {e}"));
            return Vec::new();
        }
    };
    let client = Client::new(socket);
    let mut answers = Vec::new();
    for (name, path) in ASKED {
        match runtime.block_on(client.get(path)) {
            // Readiness and health are answers whatever their status.
            Ok((status, body)) if status.is_success() || matches!(path, "/health" | "/ready") => {
                let text = String::from_utf8_lossy(&body).into_owned();
                answers.push((name, serde_json::from_str(&text).map_or(Answer::Text(text), Answer::Json)));
            }
            Ok((status, body)) => {
                notes.push(format!("{name}: {status}: {}", String::from_utf8_lossy(&body).trim_end()))
            }
            Err(e) if e.is_unreachable() => {
                // Nor would it answer anything else.
                notes.push(format!("what the daemon would have answered from {name} on: {e}"));
                break;
            }
            Err(e) => notes.push(format!("{name}: {e}")),
        }
    }
    answers
}
