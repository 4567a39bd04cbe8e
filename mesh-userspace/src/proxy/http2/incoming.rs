//! The body of a message that comes in.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, header::CONTENT_LENGTH};
use http_body::{Body, Frame, SizeHint};

use super::{
    super::{Fault, Side},
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Data,
    Trailers,
    Nothing,
}

impl Incoming {
    /// The body of a request with `headers`; `wanted` is set when it is first asked for.
    pub(super) fn of_request(
        stream: RecvStream,
        headers: &HeaderMap,
        progress: &Rc<Progress>,
        wanted: Option<Rc<Cell<bool>>>,
    ) -> Self {
        Self { wanted, ..Self::new(stream, headers, progress, Side::Downstream) }
    }

    /// The body of a response with `headers`.
    pub(super) fn of_response(
        stream: RecvStream,
        headers: &HeaderMap,
        progress: &Rc<Progress>,
        ongoing: Ongoing,
    ) -> Self {
        Self { ongoing: Some(ongoing), ..Self::new(stream, headers, progress, Side::Upstream) }
    }

    fn new(stream: RecvStream, headers: &HeaderMap, progress: &Rc<Progress>, side: Side) -> Self {
        let length = if stream.is_end_stream() { Some(0) } else { length(headers) };
        Self { stream, side, progress: Rc::clone(progress), next: Next::Data, length, wanted: None, ongoing: None }
    }

    fn fail(&mut self, error: &h2::Error) -> Fault {
        self.next = Next::Nothing;
        // What ended the request's body ended the stream, and is the cause.
        let cause = self.ongoing.as_ref().and_then(Ongoing::fault);
        cause.unwrap_or_else(|| translate(self.side, error, &self.progress))
    }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let me = &mut *self;
        if let Some(wanted) = me.wanted.take() {
            wanted.set(true);
        }
        while me.next == Next::Data {
            match ready!(me.stream.poll_data(cx)) {
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
            let trailers = ready!(me.stream.poll_trailers(cx));
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
