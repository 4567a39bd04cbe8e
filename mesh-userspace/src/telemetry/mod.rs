//! What happened: the daemon's own log, and the counters of kernel and proxy as metrics.

mod http_metrics;
pub mod log;
pub mod metrics;
mod text;

pub use http_metrics::HttpReport;
