//! The daemon's log on stderr: one line a message, JSON or for people, the level changeable while running.
//!
//! Lines are written by a thread of their own and dropped where it cannot keep up: whoever reads stderr, or has stopped
//! reading it, holds up nothing.

use super::{
    levels::{Change, Directives},
    outlet::{Flush, Outlet},
};
use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// Changes the level of a running daemon. The log ends with it.
#[derive(Debug)]
pub struct Levels {
    handle: reload::Handle<EnvFilter, Registry>,
    held: Mutex<Held>,
    outlet: Outlet,
    json: bool,
    /// Writes what is still to be written when it is dropped.
    _flush: Flush,
}

/// What is in force.
#[derive(Debug)]
struct Held {
    /// What the configuration says, as it stands there.
    configured: String,
    directives: Directives,
}

/// What cannot be done about a level.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    /// The directives make no sense.
    #[error("telemetry.log.level {0:?}: {1}")]
    Invalid(String, tracing_subscriber::filter::ParseError),
    /// The log is gone.
    #[error("the level cannot be changed: {0}")]
    Gone(reload::Error),
    /// There is a log already.
    #[error("the log cannot be set up: {0}")]
    Taken(tracing_subscriber::util::TryInitError),
    /// There can be no thread that writes it.
    #[error("the log cannot be written: {0}")]
    NoThread(io::Error),
}

/// Starts the log. `directives` are `error`, `warn`, `info`, `debug`, `trace`, `MODULE=LEVEL`, or several of these
/// with commas between.
///
/// # Errors
/// [`LevelError`].
pub fn start(json: bool, directives: &str) -> Result<Levels, LevelError> {
    let (filter, handle) = reload::Layer::new(parse(directives)?);
    let (outlet, flush) = Outlet::start(io::stderr()).map_err(LevelError::NoThread)?;
    let lines = if json {
        fmt::layer().json().flatten_event(true).with_writer(outlet.clone()).boxed()
    } else {
        let colours = io::IsTerminal::is_terminal(&io::stderr());
        fmt::layer().with_writer(outlet.clone()).with_ansi(colours).boxed()
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(LevelError::Taken)?;
    let held = Held { configured: directives.to_owned(), directives: Directives::parse(directives) };
    Ok(Levels { handle, held: Mutex::new(held), outlet, json, _flush: flush })
}

impl Levels {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the configuration says from now on. Where it says what it said before, changes made meanwhile stay.
    ///
    /// # Errors
    /// [`LevelError`].
    pub fn configure(&self, directives: &str) -> Result<(), LevelError> {
        let mut held = self.held();
        if held.configured != directives {
            self.handle.reload(parse(directives)?).map_err(LevelError::Gone)?;
            *held = Held { configured: directives.to_owned(), directives: Directives::parse(directives) };
        }
        Ok(())
    }

    /// Makes a change, until the configuration says something else or the daemon ends. The level that held before.
    ///
    /// # Errors
    /// [`LevelError`].
    pub fn change(&self, change: &Change) -> Result<String, LevelError> {
        let mut held = self.held();
        let mut directives = held.directives.clone();
        let before = directives.change(change);
        self.handle.reload(parse(&directives.to_string())?).map_err(LevelError::Gone)?;
        held.directives = directives;
        Ok(before)
    }

    /// What is in force.
    #[must_use]
    pub fn directives(&self) -> Directives {
        self.held().directives.clone()
    }

    /// Where lines of the log are written.
    #[must_use]
    pub const fn outlet(&self) -> &Outlet {
        &self.outlet
    }

    /// Whether they are JSON.
    #[must_use]
    pub const fn json(&self) -> bool {
        self.json
    }
}

fn parse(directives: &str) -> Result<EnvFilter, LevelError> {
    // It logs each failure of a request as an error of its own, which whoever asks tells in its place.
    let quiet = if directives.is_empty() {
        String::new()
    } else {
        format!("kube_client=off,{}", Directives::parse(directives))
    };
    EnvFilter::try_new(quiet).map_err(|e| LevelError::Invalid(directives.to_owned(), e))
}
