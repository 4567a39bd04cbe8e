//! A request on its way to an endpoint, and the head of the answer.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http::{Method, StatusCode, header};
use http_body::Body;
use tokio::time::{self, Sleep};

use super::{
    super::{Fault, FaultKind, Fields, Reached, RequestHead, ResponseHead, Side, interim},
    Limits, Transport,
    decode::Decoder,
    encode::{self, Delimited},
    head::{self, Parsed},
    outbox::Outbox,
    outgoing::{self, Outgoing},
    wire::{For, Wire},
};

/// How long a request with `expect: 100-continue` waits for an endpoint that may not know what that means.
const PATIENCE: Duration = Duration::from_secs(1);

/// A request on its way, on the connection that it is alone on.
#[derive(Debug)]
pub(super) struct Exchange<S, B> {
    pub(super) link: Box<Link<S>>,
    body: B,
}

/// A connection to an endpoint, with how far its request and the answer came. In one place for all its requests: what
/// holds a response is moved from hand to hand, and this is large.
#[derive(Debug)]
pub(super) struct Link<S> {
    pub(super) wire: Wire<S>,
    pub(super) limits: Limits,
    out: Outbox,
    outgoing: Outgoing,
    /// The body is held back for so long.
    held: Option<Pin<Box<Sleep>>>,
    /// How much of the answer was looked at for the end of its head.
    searched: usize,
    /// Bytes that were written for requests before, all of which were answered.
    pub(super) before: u64,
    /// Bytes that were written for this one.
    pub(super) wrote: u64,
    /// Some of an answer was read.
    answered: bool,
    /// Interim responses that came.
    interims: u8,
    /// The request cannot be sent further.
    cut: Option<FaultKind>,
    /// This is the last request on this connection.
    pub(super) unusable: bool,
    /// Decodes the body of the answer.
    pub(super) decoder: Decoder,
    /// There is no body, but a tunnel.
    pub(super) tunnel: bool,
    /// Why the body ended.
    pub(super) failed: Option<Fault>,
}

impl<S> Link<S> {
    pub(super) fn new(wire: Wire<S>, limits: Limits) -> Self {
        Self {
            wire,
            limits,
            out: Outbox::default(),
            outgoing: Outgoing::new(Delimited::Absent),
            held: None,
            searched: 0,
            before: 0,
            wrote: 0,
            answered: false,
            interims: 0,
            cut: None,
            unusable: false,
            decoder: Decoder::Over,
            tunnel: false,
            failed: None,
        }
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

impl<S, B> Exchange<S, B>
where
    S: Transport,
    B: Body<Data = Bytes, Error = Fault> + Unpin,
{
    /// The head of the request and what is ready of its body leave in one write, at the first poll. `link` is at rest.
    pub(super) fn new(mut link: Box<Link<S>>, head: &RequestHead, body: B) -> Result<Self, FaultKind> {
        let delimited = match head.method {
            Method::CONNECT => Delimited::Forbidden,
            _ => outgoing::delimit(&head.headers, &body, true)?,
        };
        encode::request(link.out.small(), head, delimited);
        link.outgoing = Outgoing::new(delimited);
        link.held = (expects(&head.headers) && !body.is_end_stream()).then(|| Box::pin(time::sleep(PATIENCE)));
        (link.wrote, link.answered, link.interims) = (0, false, 0);
        Ok(Self { link, body })
    }

    /// How far the request came, given that this is why there will be no answer.
    pub(super) fn reached(&self, fault: Fault) -> Reached {
        let ended = fault.side == Side::Upstream && matches!(fault.kind, FaultKind::Closed | FaultKind::Reset { .. });
        match self.link.wrote {
            0 => Reached::Nowhere,
            _ if !ended || self.link.before == 0 || self.link.answered => Reached::Endpoint,
            _ if self.is_unread() => Reached::Unread,
            _ => Reached::Stale,
        }
    }

    /// Whether the endpoint had ended the connection before any of the request arrived there.
    ///
    /// Its FIN confirms all that had arrived until then. Where that is nothing of the request, who ended the connection
    /// had not read any of it, and has no way left to answer what came later. A reset proves nothing: what it confirms is
    /// not taken note of, and the confirmation of what was read may have been waiting (seen: read, then reset, and nothing
    /// confirmed, 20 times of 20). That what was sent before is confirmed exactly shows that this is counted at all:
    /// it is not where a kernel passes bytes from socket to socket (sockmap).
    fn is_unread(&self) -> bool {
        // After a write that failed the end may be that of a reset.
        let Link { wire, cut, before, .. } = &*self.link;
        wire.ended && cut.is_none() && wire.io.confirmed() == Some(*before)
    }

    /// The head of the response.
    pub(super) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        method: &Method,
    ) -> Poll<Result<Parsed<ResponseHead>, Fault>> {
        loop {
            self.poll_upload(cx)?;
            match self.poll_head(cx, method).map_err(Fault::upstream)? {
                // Nobody asked for it, or it is that which was waited for.
                Poll::Ready(Parsed { head, .. }) if is_interim(head.status) => {
                    if head.status == StatusCode::CONTINUE {
                        self.link.held = None;
                    }
                    self.link.interims += 1;
                    if self.link.interims > interim::MOST {
                        return Poll::Ready(Err(Fault::upstream(FaultKind::TooLarge("number of interim responses"))));
                    }
                    interim::say(*head);
                }
                Poll::Ready(head) => {
                    // It wants no body any more, and whether it would skip a late one is not known.
                    if self.link.held.is_some() {
                        self.link.cut = Some(FaultKind::Closed);
                    }
                    return Poll::Ready(Ok(head));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// A head, of whatever response.
    fn poll_head(&mut self, cx: &mut Context<'_>, method: &Method) -> Poll<Result<Parsed<ResponseHead>, FaultKind>> {
        let link = &mut *self.link;
        loop {
            let input = &link.wire.input;
            let worth = link.wire.ended || memchr::memchr(b'\n', &input[link.searched..]).is_some();
            if worth || input.len() > link.limits.head_bytes {
                link.searched = input.len();
                if let Some(head) = head::response(input, method, &link.limits)? {
                    link.searched = 0;
                    link.wire.input.advance(head.bytes);
                    return Poll::Ready(Ok(head));
                }
            }
            if link.wire.ended {
                // If the request could not be sent, then that is why there is no answer.
                return Poll::Ready(Err(link.cut.unwrap_or(FaultKind::Closed)));
            }
            ready!(link.wire.poll_fill(cx, For::Head))?;
            link.answered |= !link.wire.input.is_empty();
        }
    }

    /// Sends of the request what can be sent now. An endpoint that does not take it may still answer, so only a fault of
    /// the request's own body is one here.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        let Self { link, body } = self;
        let link = &mut **link;
        while link.cut.is_none() {
            let taken = match link.is_held(cx) {
                true => Poll::Pending,
                false => link.outgoing.poll_take(cx, Pin::new(&mut *body), Side::Downstream, &mut link.out),
            };
            if let Poll::Ready(Err(fault)) = taken {
                link.unusable = true;
                return Err(fault);
            }
            let wrote = &mut link.wrote;
            match link.out.poll_write(cx, &mut link.wire.io, |bytes| *wrote += bytes as u64) {
                Poll::Ready(Ok(())) if taken.is_pending() || link.outgoing.is_ended() => break,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(kind)) => link.cut = Some(kind),
                Poll::Pending => break,
            }
        }
        Ok(())
    }
}

fn expects(headers: &Fields) -> bool {
    headers.get(header::EXPECT).is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
}

fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}
