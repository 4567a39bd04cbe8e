//! The body of a request, by whichever dialect it comes.

use super::{Fault, http1, http2};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{net::TcpStream, runtime::Handle};

/// The body of a request.
#[derive(Debug)]
pub(super) enum Incoming {
    /// Of HTTP/1.
    Http1(http1::RequestBody<TcpStream>),
    /// Of HTTP/2.
    Http2(Http2),
    /// A copy of what another request had.
    Copy(Option<Bytes>),
}

/// Of HTTP/2, always there until it is dropped.
#[derive(Debug)]
pub(super) struct Http2(Option<http2::Incoming>);

impl Incoming {
    pub(super) fn http2(body: http2::Incoming) -> Self {
        Self::Http2(Http2(Some(body)))
    }
}

/// Bytes of a body that nobody wants which are taken all the same, so that its client hears the answer.
const DRAINED: usize = 64 * 1024;

/// How long they are waited for.
const DRAIN: Duration = Duration::from_secs(1);

/// An answer may be whole before its request is. A stream that is reset then is legal (RFC 9113, section 8.1), but there are
/// clients which throw the answer away: a little is read before. HTTP/1 does so by itself.
impl Drop for Http2 {
    fn drop(&mut self) {
        let Some(mut body) = self.0.take() else { return };
        if body.is_end_stream() || Handle::try_current().is_err() {
            return;
        }
        tokio::task::spawn_local(tokio::time::timeout(DRAIN, async move {
            let mut left = DRAINED;
            while let Some(Ok(frame)) = body.frame().await {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if left == 0 {
                    break;
                }
            }
        }));
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match &mut *self {
            Self::Http1(body) => Pin::new(body).poll_frame(cx),
            Self::Http2(Http2(Some(body))) => Pin::new(body).poll_frame(cx),
            Self::Http2(Http2(None)) => Poll::Ready(None),
            Self::Copy(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(Http2(body)) => body.as_ref().is_none_or(Body::is_end_stream),
            Self::Copy(body) => body.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(Http2(body)) => body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint),
            Self::Copy(body) => SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64)),
        }
    }
}
