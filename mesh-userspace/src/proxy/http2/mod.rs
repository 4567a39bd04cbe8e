//! HTTP/2 in the clear with prior knowledge (RFC 9113), both halves, over the `h2` crate.
//!
//! [`serve`] is the half that faces clients, [`Connection`] the half that faces endpoints. Both speak
//! `http::{Request, Response}` whose bodies are [`http_body::Body`]s that fail with a [`Fault`](super::Fault), so what
//! lies above does not see which dialect a message came in; [`dialect`] has what changes in a head between the two.
//!
//! What holds for both:
//!
//! - Nothing is spawned for a stream and nothing crosses threads. The streams of a client's connection are served by
//!   the task of that connection; an upstream connection has one task (its driver) that moves its frames. The one
//!   exception is a request whose response begins before its body ended (a gRPC stream): the rest of its body gets a
//!   task, so that both directions flow even if one of them is stuck.
//! - Frames of a scheduler round leave in one write (`cork.rs`).
//! - Every buffer has a bound, and a peer that does not read is not read from ([`Limits`] has the sums).
//! - A reset keeps its code on the way through, both ways.
//!
//! hyper's HTTP/2 was the alternative. It spawns a task for each stream, flushes each time one of them is done, and
//! hides the codes of resets.

mod activity;
mod ahead;
mod calm;
mod client;
mod cork;
pub mod dialect;
mod fault;
mod incoming;
mod limits;
mod pump;
mod server;
#[cfg(test)]
mod tests;
mod watch;

pub use activity::Activity;
pub use client::Connection;
pub use incoming::Incoming;
pub use limits::Limits;
pub use server::serve;
pub use watch::Watch;

use std::{cell::Cell, rc::Rc};

/// Counts one while it lives.
struct Counted(Rc<Cell<u32>>);

impl Counted {
    fn new(counter: &Rc<Cell<u32>>) -> Self {
        counter.set(counter.get().saturating_add(1));
        Self(Rc::clone(counter))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
