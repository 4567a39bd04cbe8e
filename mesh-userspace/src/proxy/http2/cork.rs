//! Frames of a scheduler round leave in one write.
//!
//! `h2` writes whenever it is polled. With 32 streams on a connection that is up to 32 small writes for what became ready
//! at the same time. So it gets a [`Corked`] stream, whose writes are gathered and whose flush does nothing, and the task
//! that polls `h2` holds the [`Cork`]: after each poll it asks for one more turn, behind all tasks that are ready now and
//! may have frames for the same connection, and writes then.
//!
//! More than [`BOUND`] is not gathered: then everything is written at once, the last piece without copying it, and if the
//! socket does not take it, `h2` does not get rid of its frames and stops to read.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io::{self, IoSlice},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    super::{Fault, Side},
    ahead::Ahead,
    fault::translate,
};

/// Bytes that are gathered at most: four frames of the usual size with their heads, and as many small ones as come.
pub(super) const BOUND: usize = 65 << 10;

/// Pieces that are written at a time, the gathered one included.
const PIECES: usize = 8;

/// How far a connection came. Shared with its streams, which want to know why they ended.
#[derive(Debug, Default)]
pub(super) struct Progress {
    read: Cell<u64>,
    written: Cell<u64>,
    ended: Cell<bool>,
    failed: Cell<Option<io::ErrorKind>>,
    /// Whether the peer's end is kept from `h2`, which would end all streams with it.
    withholds: Cell<bool>,
    /// Bodies of requests that wait for what the peer says next.
    awaiting: Cell<u32>,
}

impl Progress {
    /// Bytes that came.
    pub(super) fn read(&self) -> u64 {
        self.read.get()
    }

    /// Bytes that the socket took.
    pub(super) fn written(&self) -> u64 {
        self.written.get()
    }

    /// Whether the peer closed its side.
    pub(super) fn ended(&self) -> bool {
        self.ended.get()
    }

    /// The error that ended the connection.
    pub(super) fn failed(&self) -> Option<io::ErrorKind> {
        self.failed.get()
    }

    /// It fails, as found elsewhere.
    pub(super) fn fail(&self, kind: io::ErrorKind) {
        self.failed.set(Some(kind));
    }

    /// From now on the peer's end is kept from `h2`, or from now on it is not.
    pub(super) fn withhold_end(&self, yes: bool) {
        self.withholds.set(yes);
    }

    /// Whether the peer's end has come, and `h2` does not know.
    pub(super) fn withholds_end(&self) -> bool {
        self.ended.get() && self.withholds.get()
    }

    /// Bodies that wait for what will never come, once the peer's end has.
    pub(super) fn awaiting(&self) -> u32 {
        self.awaiting.get()
    }

    /// A body begins or ceases to wait.
    pub(super) fn await_body(&self, begins: bool) {
        let n = self.awaiting.get();
        self.awaiting.set(if begins { n.saturating_add(1) } else { n.saturating_sub(1) });
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            self.failed.set(Some(error.kind()));
        }
        result
    }
}

/// What `h2` reads from and writes to.
pub(super) struct Corked<S>(Rc<RefCell<Inner<S>>>);

/// What writes at the end of a round.
pub(super) struct Cork<S> {
    inner: Rc<RefCell<Inner<S>>>,
    progress: Rc<Progress>,
    /// Whether the turn that was asked for is still to come.
    armed: bool,
}

struct Inner<S> {
    stream: S,
    ahead: Ahead,
    gathered: Vec<u8>,
    /// How much of it the socket has.
    sent: usize,
    progress: Rc<Progress>,
}

/// Both ends of a cork in `stream`, of which `already_read` was read.
pub(super) fn cork<S>(stream: S, already_read: Bytes) -> (Corked<S>, Cork<S>) {
    let progress = Rc::<Progress>::default();
    let inner = Rc::new(RefCell::new(Inner {
        stream,
        ahead: Ahead::new(already_read),
        gathered: Vec::new(),
        sent: 0,
        progress: Rc::clone(&progress),
    }));
    (Corked(Rc::clone(&inner)), Cork { inner, progress, armed: false })
}

impl<S: AsyncWrite + Unpin> Cork<S> {
    pub(super) fn progress(&self) -> &Rc<Progress> {
        &self.progress
    }

    /// To be called when all that can be done in this turn is done: asks for the turn in which is written, or writes.
    pub(super) fn poll_round(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.borrow_mut();
        if inner.gathered.is_empty() {
            self.armed = false;
            return Poll::Ready(Ok(()));
        }
        if !self.armed {
            self.armed = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(inner.poll_drain(cx))?;
        self.armed = false;
        Poll::Ready(Ok(()))
    }

    /// Fails if the system knows that the peer is gone.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.borrow_mut();
        // Nothing to write is refused as well.
        Pin::new(&mut inner.stream).poll_write(cx, &[]).map_ok(drop)
    }

    /// Runs `future`, which uses the other end, to its end.
    pub(super) async fn around<T>(
        &mut self,
        side: Side,
        future: impl Future<Output = Result<T, h2::Error>>,
    ) -> Result<T, Fault> {
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(result.map_err(|error| translate(side, &error, &self.progress))),
            Poll::Pending => match self.poll_round(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(Fault { side, kind: error.kind().into() })),
                _ => Poll::Pending,
            },
        })
        .await
    }
}

impl<S: AsyncWrite + Unpin> Inner<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.gathered.len() {
            let n = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.gathered[self.sent..]));
            self.sent += self.took(n)?;
        }
        self.sent = 0;
        spare::give(std::mem::take(&mut self.gathered));
        Poll::Ready(Ok(()))
    }

    /// Gathers `pieces`, or writes what is gathered and as much of them as goes.
    fn poll_gather(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let total = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        if self.gathered.len() + total <= BOUND {
            if self.gathered.capacity() == 0 {
                self.gathered = spare::take();
            }
            for piece in pieces {
                self.gathered.extend_from_slice(piece);
            }
            return Poll::Ready(Ok(total));
        }
        loop {
            let before = self.gathered.len() - self.sent;
            let mut all = [IoSlice::new(&[]); PIECES];
            all[0] = IoSlice::new(&self.gathered[self.sent..]);
            let count = pieces.len().min(PIECES - 1);
            all[1..=count].copy_from_slice(&pieces[..count]);
            let skipped = usize::from(before == 0);
            let n = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &all[skipped..=count]));
            let n = self.took(n)?;
            if n < before {
                self.sent += n;
                continue;
            }
            self.sent = 0;
            spare::give(std::mem::take(&mut self.gathered));
            if n > before {
                return Poll::Ready(Ok(n - before));
            }
        }
    }

    fn took(&self, result: io::Result<usize>) -> io::Result<usize> {
        let n = self
            .progress
            .note(result.and_then(|n| if n == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(n) }))?;
        self.progress.written.set(self.progress.written.get() + n as u64);
        Ok(n)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        let inner = &mut *inner;
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if inner.progress.withholds_end() {
            // Whoever withholds it is polled by others.
            return Poll::Pending;
        }
        let n = ready!(inner.ahead.poll_read(&mut inner.stream, cx, buf));
        let n = inner.progress.note(n)?;
        inner.progress.read.set(inner.progress.read.get() + n as u64);
        inner.progress.ended.set(n == 0);
        if inner.progress.withholds_end() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_gather(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_gather(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing: [`Cork::poll_round`] does it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_drain(cx))?;
        Pin::new(&mut inner.stream).poll_shutdown(cx)
    }
}

/// Buffers that are gathered into, a few for each thread: a connection holds one only from a frame to the next write.
mod spare {
    use std::cell::RefCell;

    const KEPT: usize = 8;

    thread_local! {
        static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn take() -> Vec<u8> {
        SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(super::BOUND))
    }

    pub(super) fn give(mut buffer: Vec<u8>) {
        if buffer.capacity() == 0 {
            return;
        }
        buffer.clear();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < KEPT {
                spare.push(buffer);
            }
        });
    }
}
