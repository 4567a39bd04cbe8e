//! HTTP/1.1, both halves: [`Server`] for clients, [`Connection`] for endpoints.
//!
//! Strict where leniency lets two parties see different messages in the same bytes: what is ambiguous is refused, never
//! repaired. And fast where it is used for each request:
//!
//! - a connection at rest holds no buffer: reads go to one buffer of the thread, of which a head is copied out (its
//!   header lines stay together) and large parts of bodies are split off without a copy;
//! - a message leaves in one write where it is there at once, and no more than 64 KiB and one read (256 KiB) is buffered;
//! - no timers, no tasks, no channels: everything happens in the futures that the caller polls. How long something may
//!   take is up to the caller, who sees in [`Progress`] where a connection is.
//!
//! The parts: `head` and `target` (bytes to heads), `framing` (where a message ends), `chunked` and `decode` (bytes to
//! bodies), `encode` (heads to bytes), `outgoing` and `outbox` (bodies to bytes), `wire` (reading); `server` with
//! `respond` and `server_body`, `client` with `exchange`.

mod chunked;
mod client;
mod decode;
mod encode;
mod exchange;
mod framing;
pub mod fuzz;
mod head;
mod outbox;
mod outgoing;
mod progress;
mod respond;
mod server;
mod server_body;
mod target;
mod transport;
mod wire;

#[cfg(test)]
mod tests;

pub use client::{Connection, Incoming as ResponseBody};
pub use progress::{Progress, Stage};
pub use respond::{After, Responded};
pub use server::{Gone, Server};
pub use server_body::Incoming as RequestBody;
pub use transport::Transport;

/// How large what is not a body may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head, its start line included; of the trailers too.
    pub head_bytes: usize,
    /// Header lines of a head; [`Limits::MOST_HEADERS`] at most.
    pub headers: usize,
    /// Bytes of all chunk extensions of a body.
    pub extension_bytes: usize,
    /// Bytes of a request's body that are read and thrown away to keep a connection; with more left it is closed.
    pub drained_bytes: u64,
}

impl Limits {
    /// More header lines than this are never accepted.
    pub const MOST_HEADERS: usize = 256;
}

impl Default for Limits {
    fn default() -> Self {
        Self { head_bytes: 64 << 10, headers: 128, extension_bytes: 4 << 10, drained_bytes: 64 << 10 }
    }
}
