//! Reads much at a time for somebody who asks for little.
//!
//! `h2` reads into 8 KiB, or into what is left of a frame. The frames of a round are more than that together, and each
//! read is a system call, so they are read into a large buffer and handed over from there. A connection holds that buffer
//! only while something is in it, which is until `h2` is polled to rest.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, ReadBuf};

/// Bytes that are read at a time.
const SIZE: usize = 64 << 10;

/// Buffers that a thread keeps for the next that reads.
const KEPT: usize = 4;

thread_local! {
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// What was read of a connection and not yet handed over.
pub(super) struct Ahead {
    /// Read before the connection came here.
    already_read: Bytes,
    /// Read since, from `start` to `end`.
    buffer: Option<Box<[u8]>>,
    start: usize,
    end: usize,
}

impl Ahead {
    pub(super) fn new(already_read: Bytes) -> Self {
        Self { already_read, buffer: None, start: 0, end: 0 }
    }

    /// Reads from what is there, else from `stream`; 0: that is at its end.
    pub(super) fn poll_read<S>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>>
    where
        S: AsyncRead + Unpin,
    {
        if !self.already_read.is_empty() {
            let n = self.already_read.len().min(buf.remaining());
            buf.put_slice(&self.already_read[..n]);
            self.already_read.advance(n);
            return Poll::Ready(Ok(n));
        }
        if self.start == self.end {
            let mut buffer = self.buffer.take().or_else(|| SPARE.with_borrow_mut(Vec::pop)).unwrap_or_else(empty);
            let mut read = ReadBuf::new(&mut buffer);
            let result = Pin::new(stream).poll_read(cx, &mut read);
            (self.start, self.end) = (0, read.filled().len());
            self.buffer = Some(buffer);
            if self.end == 0 {
                self.give_back();
                return result.map_ok(|()| 0);
            }
        }
        let filled = self.buffer.as_ref().map_or(&[][..], |buffer| &buffer[self.start..self.end]);
        let n = filled.len().min(buf.remaining());
        buf.put_slice(&filled[..n]);
        self.start += n;
        if self.start == self.end {
            self.give_back();
        }
        Poll::Ready(Ok(n))
    }

    fn give_back(&mut self) {
        (self.start, self.end) = (0, 0);
        if let Some(buffer) = self.buffer.take() {
            SPARE.with_borrow_mut(|spare| {
                if spare.len() < KEPT {
                    spare.push(buffer);
                }
            });
        }
    }
}

fn empty() -> Box<[u8]> {
    vec![0; SIZE].into_boxed_slice()
}
