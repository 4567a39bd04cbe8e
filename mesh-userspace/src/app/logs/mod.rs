//! The log of requests and connections: what is told, what is kept, and what operators are shown of it.

mod ask;
mod connections;
mod levels;
mod lines;

pub(super) use connections::follow;
pub(super) use levels::ProgramsLog;

use super::daemon::Daemon;
use crate::{
    config::{AccessLog, Telemetry},
    telemetry::{logs::Keeping, ring::Bounds},
};

/// How many in a million are wanted.
pub(super) const fn wanted(log: &AccessLog) -> u32 {
    if log.enabled && (log.stderr || log.keep > 0) { log.sample_rate.parts() } else { 0 }
}

/// What is done with lines. They may take half of what there is for telemetry.
pub(super) fn keeping(telemetry: &Telemetry) -> Keeping {
    let bytes = usize::try_from(telemetry.memory.bytes() / 2).unwrap_or(usize::MAX);
    let AccessLog { enabled, keep, stderr, .. } = telemetry.access_log;
    Keeping { bounds: Bounds { count: if enabled { keep as usize } else { 0 }, bytes }, stderr }
}

/// A part of a million as one of 2^32, all ones: everything.
fn parts(millionths: u32) -> u32 {
    u32::try_from(u64::from(millionths) * u64::from(u32::MAX) / 1_000_000).unwrap_or(u32::MAX)
}

impl Daemon {
    /// From now on it is logged as the configuration says.
    pub(super) fn configure_logs(&self, telemetry: &Telemetry) {
        self.logs.keep(keeping(telemetry));
        if let Some(tables) = self.tables() {
            tables.set_logged(parts(wanted(&telemetry.access_log)));
        }
    }
}
