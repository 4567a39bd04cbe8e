//! Requests, from clients to endpoints.

mod fault;

pub use fault::{Fault, FaultKind, Reached, Side, Unanswered};
