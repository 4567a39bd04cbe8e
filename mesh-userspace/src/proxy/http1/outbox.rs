//! Writing: what goes out together, in one write.

use std::{
    cell::Cell,
    io::IoSlice,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};

use super::{super::FaultKind, Transport};

thread_local! {
    /// The buffer of whoever on this thread writes next. Taken out while it is used.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Bytes that are gathered before they are written.
pub(super) const ROOM: usize = 64 << 10;
/// A part of a body from here on is written from where it is, smaller ones are copied behind what goes before.
const LARGE: usize = 16 << 10;

/// What is to be written: small things copied together, then one large part of a body, then the end of its chunk.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    small: Vec<u8>,
    /// How much of `small` was written.
    written: usize,
    large: Bytes,
    tail: &'static [u8],
}

impl Outbox {
    /// Where the next small things go. Only while there is [room](Self::has_room).
    pub(super) fn small(&mut self) -> &mut Vec<u8> {
        debug_assert!(self.large.is_empty() && self.tail.is_empty(), "what comes later must not overtake");
        if self.small.capacity() == 0 {
            self.small = SPARE.take();
        }
        &mut self.small
    }

    /// Adds a part of a body, and what follows it.
    pub(super) fn push(&mut self, data: Bytes, tail: &'static [u8]) {
        if data.len() < LARGE {
            let small = self.small();
            small.extend_from_slice(&data);
            small.extend_from_slice(tail);
        } else {
            self.large = data;
            self.tail = tail;
        }
    }

    /// Whether more may be added before it is written.
    pub(super) fn has_room(&self) -> bool {
        self.large.is_empty() && self.tail.is_empty() && self.small.len() < ROOM
    }

    /// Whether everything was written.
    pub(super) fn is_empty(&self) -> bool {
        self.written == self.small.len() && self.large.is_empty() && self.tail.is_empty()
    }

    /// Writes everything.
    pub(super) fn poll_write<S: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut S,
        mut written: impl FnMut(usize),
    ) -> Poll<Result<(), FaultKind>> {
        while !self.is_empty() {
            let small = &self.small[self.written..];
            let io = Pin::new(&mut *io);
            let wrote = if self.large.is_empty() && self.tail.is_empty() {
                io.poll_write(cx, small)
            } else {
                let parts = [IoSlice::new(small), IoSlice::new(&self.large), IoSlice::new(self.tail)];
                io.poll_write_vectored(cx, if small.is_empty() { &parts[1..] } else { &parts })
            };
            match ready!(wrote) {
                Ok(0) => return Poll::Ready(Err(FaultKind::Reset { code: None })),
                Ok(bytes) => {
                    written(bytes);
                    self.advance(bytes);
                }
                Err(error) => return Poll::Ready(Err(error.kind().into())),
            }
        }
        self.give_back();
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, bytes: usize) {
        let small = bytes.min(self.small.len() - self.written);
        self.written += small;
        let large = (bytes - small).min(self.large.len());
        self.large.advance(large);
        self.tail = &self.tail[bytes - small - large..];
        if self.large.is_empty() {
            // Lets go of the buffer that it was a part of.
            self.large = Bytes::new();
        }
    }

    /// A connection that waits for more to write holds no buffer meanwhile.
    fn give_back(&mut self) {
        self.written = 0;
        let mut small = std::mem::take(&mut self.small);
        if (1..=2 * ROOM).contains(&small.capacity()) {
            small.clear();
            // Fails in a thread that ends.
            let _ = SPARE.try_with(|spare| spare.set(small));
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.give_back();
    }
}
