//! How much which module of the daemon logs, and the programs in the kernel.

use crate::{
    api::{Changed, LogLevels, ModuleLevel, Refusal},
    app::daemon::Daemon,
    kernel::Kernel,
    telemetry::levels::{Change, Directives},
};
use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What the programs in the kernel log: how much, and where it comes out.
pub(in crate::app) struct ProgramsLog(Mutex<Log>);

struct Log {
    /// With which the programs were loaded.
    level: u8,
    /// Brings what they logged into the daemon's log.
    flush: Option<Box<dyn FnMut() + Send>>,
}

impl ProgramsLog {
    /// That of programs which were loaded with this level.
    pub(in crate::app) fn new(level: u8) -> Self {
        Self(Mutex::new(Log { level, flush: None }))
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is logged by the programs that are at work now.
    pub(in crate::app) fn renew(&self, kernel: Option<&Kernel>) {
        let flush = kernel.and_then(Kernel::take_log);
        self.log().flush = flush.map(|flush| Box::new(flush) as _);
    }

    /// Brings what was logged into the daemon's log.
    pub(in crate::app) fn flush(&self) {
        if let Some(flush) = &mut self.log().flush {
            flush();
        }
    }
}

impl fmt::Debug for ProgramsLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProgramsLog").field(&self.log().level).finish()
    }
}

impl Daemon {
    /// How much which module logs.
    pub(in crate::app) fn log_levels(&self) -> LogLevels {
        let Directives { level, modules } = self.levels.directives();
        let module = |(module, level)| ModuleLevel { module, level };
        LogLevels { level, modules: modules.into_iter().map(module).collect() }
    }

    /// Changes how much a module logs, until the daemon ends or the configuration says something else.
    pub(in crate::app) fn set_log_level(&self, directive: &str) -> Result<Changed, Refusal> {
        let change = Change::parse(directive).map_err(|e| Refusal::invalid(e.to_string()))?;
        // Programs are not replaced while another daemon does so.
        let _state = self.state_to_change()?;
        let before = self.levels.change(&change).map_err(|e| Refusal::internal(e.to_string()))?;
        let module = change.module.as_deref().unwrap_or("all other modules");
        let message = format!("{module}: log level {before} → {}", change.level);
        tracing::info!("operator: {message}");
        let mut changed = Changed::new(message);
        changed.warnings.extend(self.follow_level());
        Ok(changed)
    }

    /// Puts programs to work that log as much as is wanted of them. What is worth a word: those at work stay. Nobody else
    /// changes what is in the kernel meanwhile.
    pub(in crate::app) fn follow_level(&self) -> Option<String> {
        let (kernel, wanted) = (self.kernel()?, self.levels.directives().of_programs());
        let level = self.programs_log.log().level;
        if level == wanted {
            return None;
        }
        if let Err(e) = kernel.log_as_much_as(wanted) {
            return (wanted > level).then(|| format!("the programs in the kernel log as much as before: {e}"));
        }
        self.programs_log.flush();
        self.programs_log.renew(Some(kernel));
        self.programs_log.log().level = wanted;
        None
    }
}
