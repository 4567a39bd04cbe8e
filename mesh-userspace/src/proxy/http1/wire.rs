//! Reading: what was read and not used yet, and nothing else, stays with a connection.

use std::{
    cell::Cell,
    mem,
    pin::pin,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::AsyncReadExt;

use super::{super::FaultKind, Transport};

thread_local! {
    /// Where all connections of a thread read to. Taken out while it is used.
    static SCRATCH: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// Bytes of one read at most.
const READ: usize = 256 << 10;
/// Bytes of one read at least, as long as the last part is in use.
const LEAST: usize = 64 << 10;
/// Bytes of one read where a head is expected.
const HEAD: usize = 64 << 10;
/// From here on what was read is split off and not copied: a part in use then holds at most eight times its size.
const SPLIT: usize = 32 << 10;

/// What a read is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// A head, which lives as long as its message: always copied.
    Head,
    /// A body, which is passed on.
    Body,
}

/// A connection's reading side.
#[derive(Debug)]
pub(super) struct Wire<S> {
    /// The connection.
    pub(super) io: S,
    /// Read, and not used yet.
    pub(super) input: Bytes,
    /// Nothing more will come.
    pub(super) ended: bool,
}

impl<S: Transport> Wire<S> {
    pub(super) fn new(io: S, input: Bytes) -> Self {
        Self { io, input, ended: false }
    }

    /// Reads once and adds to `input`; 0: the peer ended its side.
    ///
    /// One read suffices where the peer sent less than fits: the transport (tokio's `poll_read`, epoll) knows after a
    /// short read that there is no more, without asking the kernel.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, purpose: For) -> Poll<Result<usize, FaultKind>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        // Most looks find nothing.
        ready!(self.io.poll_readable(cx)).map_err(|error| FaultKind::from(error.kind()))?;
        let mut scratch = SCRATCH.take();
        if !scratch.try_reclaim(READ) && scratch.capacity() < LEAST {
            scratch.reserve(READ);
        }
        let most = if purpose == For::Head { HEAD } else { READ };
        let read = pin!(self.io.read_buf(&mut (&mut scratch).limit(most))).poll(cx);
        if let Poll::Ready(Ok(1..)) = read {
            self.keep(&mut scratch, purpose);
        }
        SCRATCH.set(scratch);
        let read = ready!(read).map_err(|error| FaultKind::from(error.kind()))?;
        self.ended = read == 0;
        Poll::Ready(Ok(read))
    }

    fn keep(&mut self, scratch: &mut BytesMut, purpose: For) {
        if !self.input.is_empty() {
            // Rare: a head in several parts. Its buffer grows by doubling, as it is nobody else's yet.
            let mut input =
                mem::take(&mut self.input).try_into_mut().unwrap_or_else(|input| BytesMut::from(&input[..]));
            input.extend_from_slice(scratch);
            scratch.clear();
            self.input = input.freeze();
        } else if purpose == For::Body && scratch.len() >= SPLIT {
            self.input = scratch.split().freeze();
        } else {
            self.input = Bytes::copy_from_slice(scratch);
            scratch.clear();
        }
    }
}
