//! The body of a message that comes in.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, header::CONTENT_LENGTH};
use http_body::{Body, Frame, SizeHint};

use super::{
    super::{Fault, FaultKind, Side},
    client::Ongoing,
    cork::Progress,
    fault::translate,
};

/// The body of a request from a client, or of a response from an endpoint.
///
/// The peer may send more as frames are taken, not before. Dropped before its end, the one of a response resets the
/// stream with `CANCEL`; the one of a request is no longer accepted, and the client is told when the response is out.
#[derive(Debug)]
pub struct Incoming {
    stream: RecvStream,
    side: Side,
    progress: Rc<Progress>,
    next: Next,
    /// Bytes to come, where the head says so.
    length: Option<u64>,
    /// Set when somebody wants the body of a request whose client waits for `100 (Continue)`.
    wanted: Option<Rc<Cell<bool>>>,
    /// The rest of the exchange that this response is part of.
    ongoing: Option<Ongoing>,
    /// Whether it waits for the peer.
    waits: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Data,
    Trailers,
    Nothing,
}

impl Incoming {
    /// The body of a request, of the length that its headers say; `wanted` is set when it is first asked for.
    pub(super) fn of_request(
        stream: RecvStream,
        length: Option<u64>,
        progress: &Rc<Progress>,
        wanted: Option<Rc<Cell<bool>>>,
    ) -> Self {
        let mut body = Self::new(stream, length, progress, Side::Downstream);
        body.wanted = wanted;
        body
    }

    /// The body of a response, of the length that its headers say.
    pub(super) fn of_response(
        stream: RecvStream,
        length: Option<u64>,
        progress: &Rc<Progress>,
        ongoing: Ongoing,
    ) -> Self {
        let mut body = Self::new(stream, length, progress, Side::Upstream);
        body.ongoing = Some(ongoing);
        body
    }

    fn new(stream: RecvStream, length: Option<u64>, progress: &Rc<Progress>, side: Side) -> Self {
        let length = if stream.is_end_stream() { Some(0) } else { length };
        Self {
            stream,
            side,
            progress: Rc::clone(progress),
            next: Next::Data,
            length,
            wanted: None,
            ongoing: None,
            waits: false,
        }
    }

    /// Nothing is there at the moment.
    fn wait(&mut self) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if self.side == Side::Downstream {
            if self.progress.withholds_end() {
                self.next = Next::Nothing;
                return Poll::Ready(Some(Err(Fault::downstream(FaultKind::Closed))));
            }
            self.note_wait(true);
        }
        Poll::Pending
    }

    fn note_wait(&mut self, waits: bool) {
        if self.waits != waits {
            self.waits = waits;
            self.progress.await_body(waits);
        }
    }

    fn fail(&mut self, error: &h2::Error) -> Fault {
        self.next = Next::Nothing;
        // What ended the request's body ended the stream, and is the cause.
        let cause = self.ongoing.as_ref().and_then(Ongoing::fault);
        cause.unwrap_or_else(|| translate(self.side, error, &self.progress))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.note_wait(false);
    }
}

/// The length of a body as these headers say it.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let me = &mut *self;
        me.note_wait(false);
        if let Some(wanted) = me.wanted.take() {
            wanted.set(true);
        }
        while me.next == Next::Data {
            let Poll::Ready(data) = me.stream.poll_data(cx) else { return me.wait() };
            match data {
                // Only the end of the stream, or nothing at all.
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    // The only error is that more is given back than came.
                    let _ = me.stream.flow_control().release_capacity(data.len());
                    me.length = me.length.map(|length| length.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(me.fail(&error)))),
                None => me.next = Next::Trailers,
            }
        }
        if me.next == Next::Trailers {
            let Poll::Ready(trailers) = me.stream.poll_trailers(cx) else { return me.wait() };
            me.next = Next::Nothing;
            match trailers {
                Ok(Some(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(me.fail(&error)))),
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.next == Next::Nothing || self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.length {
            _ if self.is_end_stream() => SizeHint::with_exact(0),
            Some(length) => SizeHint::with_exact(length),
            None => SizeHint::default(),
        }
    }
}
