//! Requests, from clients to endpoints.

mod fault;
pub mod http1;

pub use fault::{Fault, FaultKind, Reached, Side, Unanswered};
