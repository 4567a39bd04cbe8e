//! The body of a request, as it comes from the client.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    super::{Fault, FaultKind},
    Limits, Progress, Transport,
    chunked::Step,
    decode::Decoder,
    outbox::Outbox,
    wire::{For, Wire},
};

/// What the server and the body of its current request share. Borrowed only inside of a poll.
#[derive(Debug)]
pub(super) struct Shared<S> {
    pub(super) wire: Wire<S>,
    pub(super) limits: Limits,
    pub(super) progress: Rc<Progress>,
    /// Decodes the body of the current request.
    pub(super) decoder: Decoder,
    /// Counts requests, so that a body that outlives its request reads nothing of the next one.
    pub(super) turn: u64,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) awaits_continue: bool,
    /// What goes out before the response: the rest of a `100 Continue`.
    pub(super) out: Outbox,
    /// Reading failed: there will be no further request.
    pub(super) broken: bool,
    /// The client has to see that the response is not whole: nothing more is sent, not even an end.
    pub(super) aborted: bool,
}

impl<S: Transport> Shared<S> {
    /// The next part of the current request's body.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, FaultKind>> {
        let step = self.poll_step(cx);
        self.broken |= matches!(step, Poll::Ready(Err(_)));
        step
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, FaultKind>> {
        loop {
            match self.decoder.step(&mut self.wire.input, &self.limits)? {
                Step::More => {}
                step => return Poll::Ready(Ok(step)),
            }
            if self.awaits_continue {
                self.awaits_continue = false;
                self.out.small().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            // What cannot be written now is written with the response, or at the next poll.
            if let Poll::Ready(Err(fault)) = self.poll_flush(cx) {
                return Poll::Ready(Err(fault));
            }
            if ready!(self.poll_fill(cx, For::Body))? == 0 {
                self.decoder.end()?;
            }
        }
    }

    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, purpose: For) -> Poll<Result<usize, FaultKind>> {
        let read = ready!(self.wire.poll_fill(cx, purpose))?;
        self.progress.moved(read);
        Poll::Ready(Ok(read))
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), FaultKind>> {
        let progress = &self.progress;
        self.out.poll_write(cx, &mut self.wire.io, |bytes| progress.moved(bytes))
    }
}

/// The body of a request, as it comes. Its first poll asks a client that waits for it to go on (`100 Continue`).
#[derive(Debug)]
pub struct Incoming<S> {
    shared: Rc<RefCell<Shared<S>>>,
    turn: u64,
}

impl<S: Transport> Incoming<S> {
    pub(super) fn new(shared: Rc<RefCell<Shared<S>>>) -> Self {
        let turn = shared.borrow().turn;
        Self { shared, turn }
    }
}

impl<S: Transport> Body for Incoming<S> {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let mut shared = self.shared.borrow_mut();
        if shared.turn != self.turn || shared.broken {
            return Poll::Ready(Some(Err(Fault::downstream(FaultKind::Closed))));
        }
        Poll::Ready(match ready!(shared.poll_body(cx)) {
            Ok(Step::Data(data)) => Some(Ok(Frame::data(data))),
            Ok(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Ok(Step::End | Step::More) => None,
            Err(kind) => Some(Err(Fault::downstream(kind))),
        })
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.shared.borrow();
        shared.turn == self.turn && !shared.broken && shared.decoder.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        let shared = self.shared.borrow();
        if shared.turn == self.turn { shared.decoder.size_hint() } else { SizeHint::default() }
    }
}
