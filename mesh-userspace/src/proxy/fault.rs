//! What can go wrong with a message on its way, and on which side.

use std::io;

/// Why a message did not come through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{side}: {kind}")]
pub struct Fault {
    /// On which side.
    pub side: Side,
    /// What happened there.
    pub kind: FaultKind,
}

/// A side of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Downstream,
    /// The endpoint.
    Upstream,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Downstream => "client",
            Self::Upstream => "endpoint",
        })
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// The connection ended in the middle of a message, or before the answer to it.
    #[error("connection closed early")]
    Closed,
    /// The connection was reset (`ECONNRESET`, `EPIPE`), or the stream was.
    #[error("connection or stream reset")]
    Reset {
        /// The error code of the stream (RFC 9113, section 7), where it was one.
        code: Option<u32>,
    },
    /// It took too long.
    #[error("timed out")]
    TimedOut,
    /// It is no HTTP, or ambiguous HTTP.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// It is larger than what is accepted.
    #[error("too large: {0}")]
    TooLarge(&'static str),
    /// Another error of the system.
    #[error("{0}")]
    Io(io::ErrorKind),
}

impl Fault {
    /// A fault of the client's side.
    #[must_use]
    pub const fn downstream(kind: FaultKind) -> Self {
        Self { side: Side::Downstream, kind }
    }

    /// Whether the endpoint's connection went away, and not one stream of it by its own wish.
    #[must_use]
    pub const fn is_lost_endpoint(&self) -> bool {
        matches!(self.side, Side::Upstream)
            && matches!(
                self.kind,
                FaultKind::Closed | FaultKind::Reset { code: None } | FaultKind::TimedOut | FaultKind::Io(_)
            )
    }

    /// A fault of the endpoint's side.
    #[must_use]
    pub const fn upstream(kind: FaultKind) -> Self {
        Self { side: Side::Upstream, kind }
    }
}

impl From<io::ErrorKind> for FaultKind {
    fn from(kind: io::ErrorKind) -> Self {
        match kind {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
                Self::Reset { code: None }
            }
            io::ErrorKind::UnexpectedEof => Self::Closed,
            io::ErrorKind::TimedOut => Self::TimedOut,
            other => Self::Io(other),
        }
    }
}

/// A request that got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct Unanswered {
    /// Why.
    pub fault: Fault,
    /// How far it came.
    pub reached: Reached,
}

/// How far a request came that got no answer: what decides whether it may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// The endpoint has surely not begun with it: none of it was written, or the endpoint said so (`REFUSED_STREAM`, a
    /// `GOAWAY` that leaves it out).
    Nowhere,
    /// It was written, on a connection that had served before, and the system shows that the endpoint had ended that
    /// connection before any of it arrived.
    Unread,
    /// It was written, in part or whole, on a connection that had served before and that ended without a byte of an
    /// answer: most likely the endpoint closed it meanwhile.
    Stale,
    /// The endpoint may have acted on it.
    Endpoint,
}
