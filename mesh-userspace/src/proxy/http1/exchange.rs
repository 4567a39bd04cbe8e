//! A request on its way to an endpoint, and the head of the answer.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header, request};
use http_body::Body;
use tokio::time::{self, Sleep};

use super::{
    super::{Fault, FaultKind, Reached, Side},
    Limits, Transport,
    encode::{self, Delimited},
    head::{self, Head},
    outbox::Outbox,
    outgoing::{self, Outgoing},
    wire::{For, Wire},
};

/// How long a request with `expect: 100-continue` waits for an endpoint that may not know what that means.
const PATIENCE: Duration = Duration::from_secs(1);

/// A request on its way, on the connection that it is alone on.
#[derive(Debug)]
pub(super) struct Exchange<S, B> {
    pub(super) wire: Wire<S>,
    pub(super) limits: Limits,
    out: Outbox,
    body: B,
    outgoing: Outgoing,
    /// The body is held back for so long.
    held: Option<Pin<Box<Sleep>>>,
    /// How much of the answer was looked at for the end of its head.
    searched: usize,
    served: bool,
    /// Some of the request was written.
    wrote: bool,
    /// Some of an answer was read.
    answered: bool,
    /// The request cannot be sent further.
    cut: Option<FaultKind>,
    /// This is the last request on this connection.
    pub(super) unusable: bool,
}

impl<S, B> Exchange<S, B>
where
    S: Transport,
    B: Body<Data = Bytes, Error = Fault> + Unpin,
{
    /// The head of the request and what is ready of its body leave in one write, at the first poll. `served`: the connection
    /// answered before.
    pub(super) fn new(
        wire: Wire<S>,
        limits: Limits,
        served: bool,
        head: &request::Parts,
        body: B,
    ) -> Result<Self, FaultKind> {
        let delimited = match head.method {
            Method::CONNECT => Delimited::Forbidden,
            _ => outgoing::delimit(&head.headers, &body, true)?,
        };
        let mut out = Outbox::default();
        encode::request(out.small(), head, delimited);
        let held = (expects(&head.headers) && !body.is_end_stream()).then(|| Box::pin(time::sleep(PATIENCE)));
        Ok(Self {
            wire,
            limits,
            out,
            body,
            outgoing: Outgoing::new(delimited),
            held,
            searched: 0,
            served,
            wrote: false,
            answered: false,
            cut: None,
            unusable: false,
        })
    }

    /// How far the request came, given that this is why there will be no answer.
    pub(super) fn reached(&self, fault: Fault) -> Reached {
        let ended = fault.side == Side::Upstream && matches!(fault.kind, FaultKind::Closed | FaultKind::Reset { .. });
        match self.wrote {
            false => Reached::Nowhere,
            true if ended && self.served && !self.answered => Reached::Stale,
            true => Reached::Endpoint,
        }
    }

    /// The head of the response.
    pub(super) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        method: &Method,
    ) -> Poll<Result<Head<Response<()>>, Fault>> {
        loop {
            self.poll_upload(cx)?;
            match self.poll_head(cx, method).map_err(Fault::upstream)? {
                // Nobody asked for it, or it is that which was waited for.
                Poll::Ready(head) if is_interim(head.message.status()) => {
                    if head.message.status() == StatusCode::CONTINUE {
                        self.held = None;
                    }
                }
                Poll::Ready(head) => {
                    // It wants no body any more, and whether it would skip a late one is not known.
                    if self.held.is_some() {
                        self.cut = Some(FaultKind::Closed);
                    }
                    return Poll::Ready(Ok(head));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// A head, of whatever response.
    fn poll_head(&mut self, cx: &mut Context<'_>, method: &Method) -> Poll<Result<Head<Response<()>>, FaultKind>> {
        loop {
            let input = &self.wire.input;
            let worth = self.wire.ended || memchr::memchr(b'\n', &input[self.searched..]).is_some();
            if worth || input.len() > self.limits.head_bytes {
                self.searched = input.len();
                if let Some(head) = head::response(input, method, &self.limits)? {
                    self.searched = 0;
                    let _ = self.wire.input.split_to(head.bytes);
                    return Poll::Ready(Ok(head));
                }
            }
            if self.wire.ended {
                // If the request could not be sent, then that is why there is no answer.
                return Poll::Ready(Err(self.cut.unwrap_or(FaultKind::Closed)));
            }
            ready!(self.wire.poll_fill(cx, For::Head))?;
            self.answered |= !self.wire.input.is_empty();
        }
    }

    /// Sends of the request what can be sent now. An endpoint that does not take it may still answer, so only a fault of
    /// the request's own body is one here.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        while self.cut.is_none() {
            let taken = match self.is_held(cx) {
                true => Poll::Pending,
                false => self.outgoing.poll_take(cx, Pin::new(&mut self.body), Side::Downstream, &mut self.out),
            };
            if let Poll::Ready(Err(fault)) = taken {
                self.unusable = true;
                return Err(fault);
            }
            let wrote = &mut self.wrote;
            match self.out.poll_write(cx, &mut self.wire.io, |_| *wrote = true) {
                Poll::Ready(Ok(())) if taken.is_pending() || self.outgoing.is_ended() => break,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(kind)) => self.cut = Some(kind),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    fn is_held(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(sleep) = &mut self.held else { return false };
        if sleep.as_mut().poll(cx).is_ready() {
            self.held = None;
        }
        self.held.is_some()
    }

    /// Whether all of the request was written.
    pub(super) fn is_sent(&self) -> bool {
        self.outgoing.is_ended() && self.out.is_empty() && self.cut.is_none()
    }
}

fn expects(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}
