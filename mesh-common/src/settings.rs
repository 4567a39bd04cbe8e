//! What the daemon tells every hook: one row, words that are written whole.

use bytemuck::{Pod, Zeroable};

/// The one row of the settings table. Written by the daemon only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Settings {
    /// A set of [`flags`].
    pub flags: u64,
    /// `SO_MARK` of the daemon's own upstream sockets, which pass untouched; 0 for none.
    pub mark: u64,
    /// When the daemon last said that it lives, CLOCK_MONOTONIC in nanoseconds.
    pub heartbeat: u64,
    /// Nanoseconds without a heartbeat after which every connect passes untouched; 0: never.
    pub stale_after: u64,
    /// Nanoseconds without a heartbeat after which nobody looks after health any more.
    pub heartbeat_timeout: u64,
    /// Cookie of the daemon's own network namespace.
    pub netns: u64,
    /// When the threads that accept connections last said that they live, the oldest word of them, CLOCK_MONOTONIC in
    /// nanoseconds; 0: there are none.
    pub workers: u64,
}

impl Settings {
    /// Whether the daemon has been gone for too long at `now`.
    #[inline(always)]
    #[must_use]
    pub const fn is_stale(&self, now: u64) -> bool {
        self.stale_after != 0 && now.saturating_sub(self.heartbeat) > self.stale_after
    }

    /// Whether the daemon takes connections at `now`: all of its threads that accept them lived a moment ago.
    #[inline(always)]
    #[must_use]
    pub const fn takes_connections(&self, now: u64) -> bool {
        self.workers != 0 && now.saturating_sub(self.workers) <= self.heartbeat_timeout
    }

    /// Whether the daemon looks after health and all else that changes: it lived a moment ago.
    #[inline(always)]
    #[must_use]
    pub const fn is_attended(&self, now: u64) -> bool {
        now.saturating_sub(self.heartbeat) <= self.heartbeat_timeout
    }
}

/// Bits of [`Settings::flags`].
pub mod flags {
    /// Every hook passes everything untouched.
    pub const BYPASS: u64 = 1;
    /// Count what would be translated, translate nothing.
    pub const OBSERVE: u64 = 2;
    /// There are cgroups whose processes are left alone.
    pub const BYPASSED: u64 = 4;
    /// The upper half says how many connections the daemon wants to hear the end of, in parts of 2^32; all ones: of every
    /// one, none: of none.
    pub const LOGGED: u64 = 0xffff_ffff << LOGGED_SHIFT;
    /// Where [`LOGGED`] begins.
    pub const LOGGED_SHIFT: u32 = 32;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_stale_only_after_the_time_it_was_given() {
        let settings = Settings { heartbeat: 100, stale_after: 50, ..Settings::default() };
        assert!(!settings.is_stale(0) && !settings.is_stale(150) && settings.is_stale(151));
        assert!(!Settings { stale_after: 0, ..settings }.is_stale(u64::MAX));
    }

    #[test]
    fn a_daemon_whose_workers_never_said_that_they_live_takes_no_connections() {
        let settings = Settings { workers: 100, heartbeat_timeout: 50, ..Settings::default() };
        assert!(settings.takes_connections(90) && settings.takes_connections(150) && !settings.takes_connections(151));
        assert!(!Settings { workers: 0, ..settings }.takes_connections(1));
    }
}
