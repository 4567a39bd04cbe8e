//! Requests, from clients to endpoints.

mod fault;
mod headers;

pub use fault::{Fault, FaultKind, Reached, Side, Unanswered};
pub use headers::{HeaderEdits, NoHeader};
