//! The JSON of the contract.
//!
//! Times are RFC 3339 in UTC with milliseconds; what is absent is null; `*_ms` are floating numbers, counters integers;
//! IPv6 stands as `[x]:p`; lists are sorted by name, then address; sent and received are as the client sees them.

mod check;
mod circuits;
mod connections;
mod explain;
mod services;
mod status;
mod time;
mod words;

pub use check::{Check, Finding};
pub use circuits::Circuit;
pub use connections::{Client as ConnectionClient, Connection};
pub use explain::{Candidate, Explanation};
pub use services::{Changed, Endpoint, EndpointCounts, Service};
pub use status::{ConfigStatus, Map, Memory, OtherProgram, Program, ProxyStatus, Source, Status};
pub use time::Time;
pub use words::{
    CircuitState, ConnectionOrder, Decision, Health as EndpointHealth, Mode, Path, Policy, Protocol, UnknownWord,
};
