//! The daemon's log on stderr: one line a message, JSON or for people, the level changeable while running.
//!
//! Lines are written by a thread of their own and dropped where it cannot keep up: whoever reads stderr, or has stopped
//! reading it, holds up nothing.

use std::io;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::LevelFilter, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

/// Changes the level of a running daemon. The log ends with it.
#[derive(Debug)]
pub struct Levels {
    handle: reload::Handle<EnvFilter, Registry>,
    /// Writes what is still to be written when it is dropped.
    _writer: WorkerGuard,
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
}

/// Starts the log. `directives` are `error`, `warn`, `info`, `debug`, `trace`, `MODULE=LEVEL`, or several of these
/// with commas between.
///
/// # Errors
/// [`LevelError`].
pub fn start(json: bool, directives: &str) -> Result<Levels, LevelError> {
    let (filter, handle) = reload::Layer::new(parse(directives)?);
    let (stderr, writer) = NonBlockingBuilder::default().lossy(true).finish(io::stderr());
    let lines = if json {
        fmt::layer().json().flatten_event(true).with_writer(stderr).boxed()
    } else {
        fmt::layer().with_writer(stderr).with_ansi(io::IsTerminal::is_terminal(&io::stderr())).boxed()
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(LevelError::Taken)?;
    Ok(Levels { handle, _writer: writer })
}

impl Levels {
    /// Changes what is logged from now on.
    ///
    /// # Errors
    /// [`LevelError`].
    pub fn set(&self, directives: &str) -> Result<(), LevelError> {
        self.handle.reload(parse(directives)?).map_err(LevelError::Gone)
    }
}

/// The most verbose level that `directives` let through, as the eBPF programs number them: 0 (none) to 5 (trace).
#[must_use]
pub fn most_verbose(directives: &str) -> u8 {
    let level = parse(directives).ok().and_then(|filter| filter.max_level_hint());
    match level {
        Some(LevelFilter::OFF) => 0,
        Some(LevelFilter::ERROR) => 1,
        Some(LevelFilter::WARN) => 2,
        Some(LevelFilter::DEBUG) => 4,
        Some(LevelFilter::TRACE) => 5,
        _ => 3,
    }
}

fn parse(directives: &str) -> Result<EnvFilter, LevelError> {
    EnvFilter::try_new(directives).map_err(|e| LevelError::Invalid(directives.to_owned(), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_log_as_much_as_any_directive_lets_through() {
        assert_eq!(most_verbose("info"), 3);
        assert_eq!(most_verbose("warn,mesh_ebpf=debug"), 4);
        assert_eq!(most_verbose("trace"), 5);
        assert_eq!(most_verbose("off"), 0);
    }
}
