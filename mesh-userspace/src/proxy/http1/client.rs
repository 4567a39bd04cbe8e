//! The client half: one request at a time on a connection to an endpoint.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::{Response, StatusCode, header, request};
use http_body::{Body, Frame, SizeHint};

use super::{
    super::{Fault, FaultKind, Reached, Unanswered},
    Limits, Transport,
    chunked::Step,
    decode::Decoder,
    exchange::Exchange,
    framing::Framing,
    head::Head,
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

    /// As [`Connection::is_alive`], with a look at what has come in the last moment: for a request that must not be sent
    /// twice. It costs a system call.
    pub fn is_alive_now(&mut self) -> bool {
        self.is_alive() && !self.wire.io.has_news()
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
        let nowhere = |fault| Unanswered { fault, reached: Reached::Nowhere };
        let Self { wire, limits, served } = self;
        // What came unasked would be taken for the answer.
        if wire.ended || !wire.input.is_empty() {
            return Err(nowhere(Fault::upstream(FaultKind::Closed)));
        }
        let mut exchange =
            Exchange::new(wire, limits, served, head, body).map_err(|kind| nowhere(Fault::downstream(kind)))?;
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

    /// Sends what is left of the request, as polling the body does. For when the body cannot be polled because nobody
    /// takes its data ([`Server::respond_while`](super::Server::respond_while)). What fails here fails the body.
    pub fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if self.failed.is_none() && !self.exchange.is_sent() {
            self.failed = self.exchange.poll_upload(cx).err();
        }
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, Fault>> {
        self.poll_upload(cx);
        let Self { exchange, decoder, failed, .. } = self;
        if let Some(fault) = *failed {
            return Poll::Ready(Err(fault));
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
