//! Runtime changes that are to outlive the daemon: written to `conf.d/99-runtime.yaml`, which wins over the other files.

use super::{Duration, Endpoint, Errors, Policy, check, decode, report::Report, yaml};
use crate::model;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// The file in `conf.d` that the daemon writes.
pub const RUNTIME_FILE: &str = "99-runtime.yaml";

const HEADER: &str = "# Written by mesh for changes made with --persist; it wins over the other files.\n\
                      # To change it by hand, move what is here into another file and remove this one.\n";

/// A change to one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This policy from now on.
    Policy(model::Policy),
    /// These thresholds of its circuits from now on; what is `None` stays as it is.
    Breaker {
        /// So many failures in a row open a circuit.
        failure_threshold: Option<u32>,
        /// How long a circuit stays open at first.
        reset_timeout: Option<std::time::Duration>,
        /// The longest that it stays open.
        max_reset_timeout: Option<std::time::Duration>,
    },
    /// These endpoints from now on: all of them, since a list is replaced as a whole.
    Endpoints(Vec<model::Endpoint>),
}

/// Why a change cannot be persisted.
#[derive(Debug, thiserror::Error)]
pub enum PersistError {
    /// What is there is no valid configuration.
    #[error("the file there has mistakes: {0}")]
    Mistakes(Errors),
    /// What is there would be lost in part.
    #[error(
        "the file there was changed by hand, and writing it would lose that; move its content into another file in conf.d and remove it"
    )]
    HandMade,
    /// The file belongs to something else, such as a ConfigMap.
    #[error("{0} is a symbolic link: something else keeps this file")]
    Link(PathBuf),
    /// It cannot be written.
    #[error("{path} cannot be written: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It cannot be expressed as YAML.
    #[error("the change cannot be written as YAML: {0}")]
    Yaml(String),
}

/// What the file holds: of each service what was changed.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Runtime {
    #[serde(default)]
    services: Vec<Changed>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Changed {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    load_balancing: Option<ChangedBalancing>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    circuit_breaker: Option<ChangedBreaker>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endpoints: Option<Vec<Endpoint>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ChangedBalancing {
    policy: Policy,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct ChangedBreaker {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure_threshold: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reset_timeout: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_reset_timeout: Option<Duration>,
}

/// The text of the runtime file after `change`, from the text that is there.
///
/// # Errors
/// [`PersistError::Mistakes`], [`PersistError::HandMade`], [`PersistError::Yaml`].
pub fn persisted(existing: Option<&str>, service: &str, change: Change) -> Result<String, PersistError> {
    let mut runtime = match existing {
        Some(text) if !text.trim().is_empty() => read(text)?,
        _ => Runtime::default(),
    };
    let index = runtime.services.iter().position(|s| s.name == service).unwrap_or_else(|| {
        runtime.services.push(Changed { name: service.to_owned(), ..Changed::default() });
        runtime.services.len() - 1
    });
    if let Some(changed) = runtime.services.get_mut(index) {
        match change {
            Change::Policy(policy) => changed.load_balancing = Some(ChangedBalancing { policy: policy.into() }),
            Change::Breaker { failure_threshold, reset_timeout, max_reset_timeout } => {
                let breaker = changed.circuit_breaker.get_or_insert_default();
                breaker.failure_threshold = failure_threshold.or(breaker.failure_threshold);
                breaker.reset_timeout = reset_timeout.map(Duration::from).or(breaker.reset_timeout);
                breaker.max_reset_timeout = max_reset_timeout.map(Duration::from).or(breaker.max_reset_timeout);
            }
            Change::Endpoints(endpoints) => changed.endpoints = Some(endpoints.iter().map(Endpoint::from).collect()),
        }
    }
    render(&runtime)
}

/// Applies `change` to the runtime file in `directory` (`conf.d`), whole or not at all, and says where it is.
/// Reads, then writes: callers take turns.
///
/// # Errors
/// [`PersistError`]; the file is then as it was.
pub fn persist(directory: &Path, service: &str, change: Change) -> Result<PathBuf, PersistError> {
    let path = directory.join(RUNTIME_FILE);
    let failed = |error| PersistError::Io { path: path.clone(), error };
    if path.is_symlink() {
        return Err(PersistError::Link(path));
    }
    let existing = match fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    let text = persisted(existing.as_deref(), service, change)?;
    if existing.as_ref() != Some(&text) {
        fs::create_dir_all(directory).map_err(failed)?;
        replace(directory, &path, &text).map_err(failed)?;
    }
    Ok(path)
}

fn read(text: &str) -> Result<Runtime, PersistError> {
    let mut report = Report::new(vec![RUNTIME_FILE.to_owned()]);
    let root = yaml::parse(0, text, &mut report).map(|mut root| {
        check::check(&mut root, &mut report);
        root
    });
    report.finish().map_err(PersistError::Mistakes)?;
    let runtime = root.and_then(|root| decode::decode::<Runtime>(&root, None).ok()).ok_or(PersistError::HandMade)?;
    // Comments, sections and keys that are not ours show in that the text is not what we would have written.
    if render(&runtime)? == text { Ok(runtime) } else { Err(PersistError::HandMade) }
}

fn render(runtime: &Runtime) -> Result<String, PersistError> {
    let yaml = serde_saphyr::to_string(runtime).map_err(|error| PersistError::Yaml(error.to_string()))?;
    Ok(format!("{HEADER}{yaml}"))
}

/// Writes beside the file and renames, so that a reader finds the old text or the new one.
fn replace(directory: &Path, path: &Path, text: &str) -> io::Result<()> {
    // Hidden, hence never taken for a part of the configuration.
    let beside = directory.join(format!(".{RUNTIME_FILE}.{}", std::process::id()));
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&beside)?;
        // Whatever the umask.
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        fs::File::open(directory)?.sync_all()
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })
}
