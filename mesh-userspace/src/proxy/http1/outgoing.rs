//! Bodies to bytes: how a body that we send is delimited, and taking from it what is ready.

use std::{
    io::Write as _,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::Body;

use super::{
    super::{Fault, FaultKind, Fields, Side},
    encode::{self, Delimited},
    framing,
    outbox::Outbox,
};

/// How a body of this length is delimited: as its head says, else as it knows itself; a receiver that knows no chunks
/// has to take the end of the connection for the end of a body of unknown length.
pub(super) fn delimit<B: Body>(headers: &Fields, body: &B, knows_chunks: bool) -> Result<Delimited, FaultKind> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH);
    match (lengths.next(), lengths.next()) {
        (Some(length), None) => Ok(Delimited::Length(framing::content_length(length)?)),
        (Some(_), Some(_)) => Err(FaultKind::Malformed("more than one Content-Length")),
        (None, _) => Ok(match body.size_hint().exact() {
            Some(length) => Delimited::Length(length),
            None if body.is_end_stream() => Delimited::Length(0),
            None if knows_chunks => Delimited::Chunked,
            None => Delimited::Close,
        }),
    }
}

/// What is still to be sent of a body.
#[derive(Debug)]
pub(super) struct Outgoing {
    delimited: Delimited,
    /// Of [`Delimited::Length`].
    left: u64,
    /// Bytes of the body that were taken.
    pub(super) taken: u64,
    ended: bool,
}

impl Outgoing {
    pub(super) fn new(delimited: Delimited) -> Self {
        let left = if let Delimited::Length(length) = delimited { length } else { 0 };
        Self { delimited, left, taken: 0, ended: matches!(delimited, Delimited::Absent | Delimited::Forbidden) }
    }

    /// Whether everything was taken.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Takes what is ready while `out` has room for it. Ready: the body is over, or `out` is full; pending: there will be
    /// more, and what is there should be written.
    pub(super) fn poll_take<B>(
        &mut self,
        cx: &mut Context<'_>,
        mut body: Pin<&mut B>,
        side: Side,
        out: &mut Outbox,
    ) -> Poll<Result<(), Fault>>
    where
        B: Body<Data = Bytes, Error = Fault>,
    {
        let wrong = |what| Poll::Ready(Err(Fault { side, kind: FaultKind::Malformed(what) }));
        while !self.ended && out.has_room() {
            if body.is_end_stream() {
                if self.left > 0 {
                    return wrong("body is shorter than its Content-Length");
                }
                self.end(None, out);
                continue;
            }
            let frame = match body.as_mut().poll_frame(cx) {
                Poll::Ready(frame) => frame.transpose()?,
                // Its end has nothing to say, and the receiver does not wait for it.
                Poll::Pending if self.is_filled() => {
                    self.end(None, out);
                    continue;
                }
                Poll::Pending => return Poll::Pending,
            };
            match frame.map(http_body::Frame::into_data) {
                Some(Ok(data)) => {
                    if matches!(self.delimited, Delimited::Length(_)) && data.len() as u64 > self.left {
                        return wrong("body is longer than its Content-Length");
                    }
                    self.data(data, out);
                }
                None if self.left > 0 => return wrong("body is shorter than its Content-Length"),
                None => self.end(None, out),
                Some(Err(frame)) if self.left == 0 => self.end(frame.trailers_ref(), out),
                Some(Err(_)) => return wrong("body is shorter than its Content-Length"),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the receiver has all that the head promised.
    fn is_filled(&self) -> bool {
        self.left == 0 && matches!(self.delimited, Delimited::Length(_))
    }

    fn data(&mut self, data: Bytes, out: &mut Outbox) {
        // An empty chunk would be the last one.
        if data.is_empty() {
            return;
        }
        self.taken += data.len() as u64;
        self.left = self.left.saturating_sub(data.len() as u64);
        if self.delimited == Delimited::Chunked {
            // Cannot fail: a Vec grows.
            let _ = write!(out.small(), "{:x}\r\n", data.len());
            out.push(data, b"\r\n");
        } else {
            out.push(data, b"");
        }
    }

    fn end(&mut self, trailers: Option<&HeaderMap>, out: &mut Outbox) {
        self.ended = true;
        if self.delimited == Delimited::Chunked {
            out.small().extend_from_slice(b"0\r\n");
            match trailers {
                Some(trailers) => encode::trailers(out.small(), trailers),
                None => out.small().extend_from_slice(b"\r\n"),
            }
        }
    }
}
