//! What happened: the daemon's own log, and the kernel's counters as metrics.

pub mod log;
pub mod metrics;
