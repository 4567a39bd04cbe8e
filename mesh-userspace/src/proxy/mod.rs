//! Requests, from clients to endpoints.
//!
//! | file | answers |
//! | --- | --- |
//! | `worker` | what does a thread have to itself, and what do all share? |
//! | `listener`, `detect` | who connects, for whom, and what is spoken? |
//! | `serve` | how does a connection go from one request to the next? |
//! | [`http1`], [`http2`] | what do bytes mean, and how is it said? |
//! | `message`, `fields` | what is a message, and its header lines, whichever dialect it speaks? |
//! | `exchange` | whose request is it, and what is tried? |
//! | `routing`, `headers` | where do routes send it, and what do they change? |
//! | `hop`, `date`, `forwards`, `trace` | what changes in every message that a proxy passes on? |
//! | `pick`, `circuit` | which endpoint gets it? |
//! | `attempt` | what became of one try, and what does the endpoint's circuit learn? |
//! | `pool`, `net`, `upstream` | by which connection does it go, and how much? |
//! | `request_body`, `incoming`, `passing` | how do bodies flow, and what happens at their end? |
//! | `interim` | what do endpoints say before their answers? |
//! | `answer`, `reason` | what does the proxy say itself, and why? |
//! | `record`, `told`, `state`, `picks` | what is remembered and told? |
//! | `tunnel`, `bridge`, `mirror` | what of bytes that are no requests, and of copies? |
//! | `table` | what is all this looked up in? |
//!
//! A request stays on the worker that accepted its connection, its upstream connection included, and is driven by the
//! task of that connection: nothing is locked, sent or spawned for it.

mod answer;
mod attempt;
mod bridge;
mod circuit;
mod date;
mod deadline;
mod detect;
mod exchange;
mod fault;
mod fields;
#[cfg(test)]
mod fixture;
mod forwards;
mod headers;
mod hop;
pub mod http1;
pub mod http2;
mod incoming;
mod interim;
mod lines;
mod listener;
mod message;
mod mirror;
mod net;
mod passing;
mod pick;
mod picks;
mod pool;
mod reason;
mod record;
mod request_body;
mod routing;
mod serve;
mod state;
mod table;
mod told;
mod trace;
mod tunnel;
mod upstream;
mod worker;

pub use circuit::{Circuits, Turned};
pub use fault::{Fault, FaultKind, Reached, Side, Unanswered};
pub use fields::Fields;
pub use headers::{HeaderEdits, NoHeader};
pub use lines::Packed;
pub use listener::{Listener, Originals};
pub use message::{Message, Request, RequestHead, Response, ResponseHead};
pub use net::{Destination, Sockets};
pub use picks::Picks;
pub use reason::{ByReason, Reason};
pub use state::{ByStatus, Counts, DURATION_BOUNDS, Durations, EndpointState, METHODS, Retry, ServiceState, States};
pub use table::{Entry, Service, Share, Table};
pub use told::{Line, Trace, TraceId, Try, Used};
pub use worker::{RequestLog, Shared, Tracer, Workers};
