//! What happened: the daemon's own log, the log of requests and connections, traces of requests, and the counters of kernel
//! and proxy as metrics.

pub mod entry;
mod http_metrics;
pub mod levels;
pub mod log;
pub mod logs;
pub mod metrics;
mod outlet;
pub mod rates;
pub mod ring;
mod text;
pub mod traces;
mod write;

pub use http_metrics::HttpReport;
pub use outlet::Outlet;
