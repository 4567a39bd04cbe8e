//! The client half: one request at a time on a connection to an endpoint.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header, request};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{self, Sleep};

use super::{
    super::{Fault, FaultKind, Reached, Side, Unanswered},
    Limits, Transport,
    chunked::Step,
    decode::Decoder,
    encode::{self, Delimited},
    framing::Framing,
    head::{self, Head},
    outbox::Outbox,
    outgoing::{self, Outgoing},
    wire::{For, Wire},
};

/// A connection to an endpoint, at rest.
#[derive(Debug)]
pub struct Connection<S> {
    wire: Wire<S>,
    limits: Limits,
    /// It answered before.
    served: bool,
}

impl<S: Transport> Connection<S> {
    /// Speaks HTTP/1.1 on `stream`, which is connected.
    #[must_use]
    pub fn new(stream: S, limits: &Limits) -> Self {
        Self { wire: Wire::new(stream, Bytes::new()), limits: *limits, served: false }
    }

    /// Whether it answered before.
    #[must_use]
    pub fn has_served(&self) -> bool {
        self.served
    }

    /// Ready when it is of no use any more: the endpoint closed it, or sent what nobody asked for. Costs no system call
    /// while there is nothing to read.
    pub fn poll_dead(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.wire.poll_fill(cx, For::Head).map(drop)
    }

    /// [`Connection::poll_dead`], asked once.
    pub fn is_alive(&mut self) -> bool {
        self.poll_dead(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Sends a request, and waits for the head of the response while the request's body goes out. `head` has no hop-by-hop
    /// fields but those of an upgrade; its target is written in origin form, for `CONNECT` in authority form. With
    /// `expect: 100-continue` the body is held back until the endpoint asks for it, or for a second.
    ///
    /// # Errors
    ///
    /// There is no response; the connection is closed. How far the request came is in [`Unanswered::reached`].
    pub async fn send<B>(self, head: &request::Parts, body: B) -> Result<Response<Incoming<S, B>>, Unanswered>
    where
        B: Body<Data = Bytes, Error = Fault> + Unpin,
    {
        let mut exchange = match Exchange::new(self, head, body) {
            Ok(exchange) => exchange,
            Err(kind) => return Err(Unanswered { fault: Fault::downstream(kind), reached: Reached::Nowhere }),
        };
        let upgrades = head.headers.contains_key(header::UPGRADE);
        let answer = poll_fn(|cx| exchange.poll_answer(cx, &head.method)).await.and_then(|answer| {
            let is_switch = answer.message.status() == StatusCode::SWITCHING_PROTOCOLS;
            if is_switch && !upgrades {
                return Err(Fault::upstream(FaultKind::Malformed("101 to a request without Upgrade")));
            }
            Ok(answer)
        });
        match answer {
            Ok(Head { message, framing, fields, .. }) => {
                let persists = fields.persists(message.version()) && framing != Framing::UntilClose;
                // If it has a body against all rules, that would be taken for the next response.
                let lies = message.status() == StatusCode::NO_CONTENT && fields.announces_body();
                let tunnel = framing == Framing::Tunnel;
                exchange.unusable |= !persists || lies;
                Ok(message.map(|()| Incoming { exchange, decoder: framing.into(), tunnel, failed: None }))
            }
            Err(fault) => Err(Unanswered { fault, reached: exchange.reached(fault) }),
        }
    }
}

/// How long a request with `expect: 100-continue` waits for an endpoint that may not know what that means.
const PATIENCE: Duration = Duration::from_secs(1);

/// A request on its way, on the connection that it is alone on.
#[derive(Debug)]
struct Exchange<S, B> {
    wire: Wire<S>,
    limits: Limits,
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
    unusable: bool,
}

impl<S, B> Exchange<S, B>
where
    S: Transport,
    B: Body<Data = Bytes, Error = Fault> + Unpin,
{
    fn new(connection: Connection<S>, head: &request::Parts, body: B) -> Result<Self, FaultKind> {
        let Connection { wire, limits, served } = connection;
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
    fn reached(&self, fault: Fault) -> Reached {
        let ended = fault.side == Side::Upstream && matches!(fault.kind, FaultKind::Closed | FaultKind::Reset { .. });
        match self.wrote {
            false => Reached::Nowhere,
            true if ended && self.served && !self.answered => Reached::Stale,
            true => Reached::Endpoint,
        }
    }

    /// The head of the response.
    fn poll_answer(&mut self, cx: &mut Context<'_>, method: &Method) -> Poll<Result<Head<Response<()>>, Fault>> {
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
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
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
    fn is_sent(&self) -> bool {
        self.outgoing.is_ended() && self.out.is_empty() && self.cut.is_none()
    }
}

fn expects(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// The body of a response, as it comes from the endpoint. Polling it also sends what is left of the request. Dropping it
/// closes the connection; [`Incoming::into_connection`] keeps it.
#[derive(Debug)]
pub struct Incoming<S, B> {
    exchange: Exchange<S, B>,
    decoder: Decoder,
    /// There is no body, but a tunnel.
    tunnel: bool,
    failed: Option<Fault>,
}

impl<S, B> Incoming<S, B>
where
    S: Transport,
    B: Body<Data = Bytes, Error = Fault> + Unpin,
{
    /// The connection, where it can serve another request: this one was sent and its response read, to their ends, and
    /// neither side wants to close it.
    #[must_use]
    pub fn into_connection(self) -> Option<Connection<S>> {
        let Exchange { wire, limits, unusable, .. } = &self.exchange;
        let rests = self.decoder.is_over() && self.failed.is_none() && self.exchange.is_sent();
        if !rests || self.tunnel || *unusable || wire.ended || !wire.input.is_empty() {
            return None;
        }
        let limits = *limits;
        Some(Connection { wire: self.exchange.wire, limits, served: true })
    }

    /// The connection and what was read of it, where the endpoint agreed to a tunnel (101, or 2xx to `CONNECT`).
    #[must_use]
    pub fn into_upgraded(self) -> Option<(S, Bytes)> {
        (self.tunnel && self.exchange.is_sent()).then_some((self.exchange.wire.io, self.exchange.wire.input))
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, Fault>> {
        let Self { exchange, decoder, .. } = self;
        if !exchange.is_sent() {
            exchange.poll_upload(cx)?;
        }
        loop {
            match decoder.step(&mut exchange.wire.input, &exchange.limits).map_err(Fault::upstream)? {
                Step::More => {}
                step => return Poll::Ready(Ok(step)),
            }
            if ready!(exchange.wire.poll_fill(cx, For::Body)).map_err(Fault::upstream)? == 0 {
                decoder.end().map_err(Fault::upstream)?;
            }
        }
    }
}

impl<S, B> Body for Incoming<S, B>
where
    S: Transport,
    B: Body<Data = Bytes, Error = Fault> + Unpin,
{
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if let Some(fault) = self.failed {
            return Poll::Ready(Some(Err(fault)));
        }
        Poll::Ready(match ready!(self.poll_part(cx)) {
            Ok(Step::Data(data)) => Some(Ok(Frame::data(data))),
            Ok(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Ok(Step::End | Step::More) => None,
            Err(fault) => {
                self.failed = Some(fault);
                Some(Err(fault))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.failed.is_none() && self.decoder.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.decoder.size_hint()
    }
}
