//! The JSON of the contract.
//!
//! Times are RFC 3339 in UTC with milliseconds; what is absent is null; `*_ms` are floating numbers, counters integers;
//! IPv6 stands as `[x]:p`; lists are sorted by name, then address; sent and received are as the client sees them.

mod check;
mod circuits;
mod connections;
mod explain;
mod live;
mod logs;
mod registry;
mod services;
mod status;
mod time;
mod traces;
mod words;

pub use check::{Check, Finding};
pub use circuits::Circuit;
pub use connections::{Client as ConnectionClient, Connection};
pub use explain::{Candidate, Explanation};
pub use live::{EndpointKey, Live, LiveEndpoint, LiveService, Percentiles, Rates, Totals};
pub use logs::{LogLevels, LogLine, LoggedConnection, ModuleLevel};
pub use registry::{Registered, RegistryInstance, WatchedEndpoint};
pub use services::{Changed, Endpoint, EndpointCounts, Service};
pub use status::{ConfigStatus, Map, Memory, OtherProgram, Program, ProxyStatus, Source, Status};
pub use time::Time;
pub use traces::{Span, Trace, TraceSummary};
pub use words::{
    CircuitState, ConnectionOrder, Decision, Health as EndpointHealth, Mode, Path, Policy, Protocol, UnknownWord,
};
