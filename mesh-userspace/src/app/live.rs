//! Live connections: a look at them brings the counters of their endpoints up to now.

use super::daemon::Daemon;
use crate::kernel::{self, Connection, Live};
use std::sync::PoisonError;

impl Daemon {
    /// Shows every live connection to `visit`. Once this returns, the counters have all that those carried.
    ///
    /// # Errors
    /// Why nothing, or not everything, could be looked at.
    pub(super) fn look(&self, visit: &mut (dyn FnMut(Connection) + Send)) -> Result<(), String> {
        let kernel = self.kernel.as_ref().map_err(Clone::clone)?;
        let live = kernel.live()?;
        let Some(cgroup) = &self.cgroup else { return Ok(()) };
        // One at a time: a second look would only wait for the same locks.
        let _turn = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let problems = live.read(&kernel::namespaces(cgroup), visit).map_err(|e| e.to_string())?;
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }

    /// Brings the counters up to now before they are shown. Where that is not possible they are those of connections
    /// that were closed, or looked at before.
    pub(super) fn count_live(&self) {
        if self.kernel.as_ref().is_ok_and(|kernel| kernel.live().is_ok_and(Live::counts))
            && let Err(why) = self.look(&mut |_| ())
        {
            tracing::debug!("not all live connections were counted: {why}");
        }
    }
}
