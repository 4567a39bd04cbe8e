//! Requests, from clients to endpoints.
//!
//! | file | answers |
//! | --- | --- |
//! | `worker` | what does a thread have to itself, and what do all share? |
//! | `listener`, `detect` | who connects, for whom, and what is spoken? |
//! | `serve` | how does a connection go from one request to the next? |
//! | [`http1`], [`http2`] | what do bytes mean, and how is it said? |
//! | `exchange` | whose request is it, and what is tried? |
//! | `routing`, `headers` | where do routes send it, and what do they change? |
//! | `hop`, `trace` | what changes in every message that a proxy passes on? |
//! | `pick`, `circuit` | which endpoint gets it? |
//! | `attempt` | what became of one try, and what does the endpoint's circuit learn? |
//! | `pool`, `net` | by which connection does it go? |
//! | `request_body`, `incoming`, `passing` | how do bodies flow, and what happens at their end? |
//! | `answer`, `reason` | what does the proxy say itself, and why? |
//! | `record`, `state` | what is remembered and told? |
//! | `tunnel`, `mirror` | what of bytes that are no requests, and of copies? |
//! | `table` | what is all this looked up in? |
//!
//! A request stays on the worker that accepted its connection, its upstream connection included, and is driven by the
//! task of that connection: nothing is locked, sent or spawned for it.

mod answer;
mod attempt;
mod circuit;
mod deadline;
mod detect;
mod exchange;
mod fault;
mod headers;
mod hop;
pub mod http1;
pub mod http2;
mod incoming;
mod listener;
mod mirror;
mod net;
mod passing;
mod pick;
mod pool;
mod reason;
mod record;
mod request_body;
mod routing;
mod serve;
mod state;
mod table;
mod trace;
mod tunnel;
mod worker;

pub use circuit::Circuits;
pub use fault::{Fault, FaultKind, Reached, Side, Unanswered};
pub use headers::{HeaderEdits, NoHeader};
pub use listener::{Listener, Originals};
pub use net::{Destination, Sockets};
pub use reason::{ByReason, Reason};
pub use record::Line;
pub use state::{ByStatus, DURATION_BOUNDS, Durations, EndpointState, METHODS, Retry, ServiceState, States};
pub use table::{Entry, Service, Share, Table};
pub use worker::{RequestLog, Shared, Workers};
