//! The client half: one request at a time on a connection to an endpoint.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{StatusCode, header};
use http_body::{Body, Frame, SizeHint};

use super::{
    super::{Fault, FaultKind, Message, Reached, RequestHead, Response, Unanswered},
    Limits, Transport,
    chunked::Step,
    exchange::{Exchange, Link},
    framing::Framing,
    head::Parsed,
    wire::{For, Wire},
};

/// A connection to an endpoint, at rest.
#[derive(Debug)]
pub struct Connection<S>(Box<Link<S>>);

impl<S: Transport> Connection<S> {
    /// Speaks HTTP/1.1 on `stream`, which is connected.
    #[must_use]
    pub fn new(stream: S, limits: &Limits) -> Self {
        Self(Box::new(Link::new(Wire::new(stream, Bytes::new()), *limits)))
    }

    /// Whether it answered before.
    #[must_use]
    pub fn has_served(&self) -> bool {
        self.0.before > 0
    }

    /// As [`Connection::is_alive`], with a look at what has come in the last moment: for a request that must not be sent
    /// twice. It costs a system call.
    pub fn is_alive_now(&mut self) -> bool {
        self.is_alive() && !self.0.wire.io.has_news()
    }

    /// Whether it is of use still: as far as is known the endpoint did not close it, and sent nothing that nobody asked
    /// for. Costs no system call while there is nothing to read.
    pub fn is_alive(&mut self) -> bool {
        let wire = &mut self.0.wire;
        !wire.ended && wire.input.is_empty() && wire.io.is_quiet()
    }

    /// Sends a request, and waits for the head of the response while the request's body goes out. `head` has no hop-by-hop
    /// fields but those of an upgrade; its target is written in origin form, for `CONNECT` in authority form. With
    /// `expect: 100-continue` the body is held back until the endpoint asks for it, or for a second.
    ///
    /// # Errors
    ///
    /// There is no response; the connection is closed. How far the request came is in [`Unanswered::reached`].
    pub async fn send<B>(self, head: &RequestHead, body: B) -> Result<Response<Incoming<S, B>>, Unanswered>
    where
        B: Body<Data = Bytes, Error = Fault> + Unpin,
    {
        let nowhere = |fault| Unanswered { fault, reached: Reached::Nowhere };
        let Self(link) = self;
        // What came unasked would be taken for the answer.
        if link.wire.ended || !link.wire.input.is_empty() {
            return Err(nowhere(Fault::upstream(FaultKind::Closed)));
        }
        let mut exchange = Exchange::new(link, head, body).map_err(|kind| nowhere(Fault::downstream(kind)))?;
        let upgrades = head.headers.contains(&header::UPGRADE);
        let answer = poll_fn(|cx| exchange.poll_answer(cx, &head.method)).await.and_then(|answer| {
            let is_switch = answer.head.status == StatusCode::SWITCHING_PROTOCOLS;
            if is_switch && !upgrades {
                return Err(Fault::upstream(FaultKind::Malformed("101 to a request without Upgrade")));
            }
            Ok(answer)
        });
        match answer {
            Ok(Parsed { head, framing, noted, .. }) => {
                let persists = noted.persists(head.version) && framing != Framing::UntilClose;
                // If it has a body against all rules, that would be taken for the next response.
                let lies = head.status == StatusCode::NO_CONTENT && noted.announces_body();
                let link = &mut *exchange.link;
                link.unusable |= !persists || lies;
                link.tunnel = framing == Framing::Tunnel;
                link.decoder = framing.into();
                Ok(Message { head, body: Incoming(exchange) })
            }
            Err(fault) => Err(Unanswered { fault, reached: exchange.reached(fault) }),
        }
    }
}

/// The body of a response, as it comes from the endpoint. Polling it also sends what is left of the request. Dropping it
/// closes the connection; [`Incoming::into_connection`] keeps it.
#[derive(Debug)]
pub struct Incoming<S, B>(Exchange<S, B>);

impl<S, B> Incoming<S, B>
where
    S: Transport,
    B: Body<Data = Bytes, Error = Fault> + Unpin,
{
    /// The connection, where it can serve another request: this one was sent and its response read, to their ends, and
    /// neither side wants to close it.
    #[must_use]
    pub fn into_connection(self) -> Option<Connection<S>> {
        let mut link = self.0.link;
        let rests = link.decoder.is_over() && link.failed.is_none() && link.is_sent();
        if !rests || link.tunnel || link.unusable || link.wire.ended || !link.wire.input.is_empty() {
            return None;
        }
        link.before += link.wrote;
        Some(Connection(link))
    }

    /// The connection and what was read of it, where the endpoint agreed to a tunnel (101, or 2xx to `CONNECT`).
    #[must_use]
    pub fn into_upgraded(self) -> Option<(S, Bytes)> {
        let link = self.0.link;
        (link.tunnel && link.is_sent()).then_some((link.wire.io, link.wire.input))
    }

    /// Sends what is left of the request, as polling the body does. For when the body cannot be polled because nobody
    /// takes its data ([`Server::respond_while`](super::Server::respond_while)). What fails here fails the body.
    pub fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if self.0.link.failed.is_none() && !self.0.link.is_sent() {
            self.0.link.failed = self.0.poll_upload(cx).err();
        }
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, Fault>> {
        self.poll_upload(cx);
        let link = &mut *self.0.link;
        if let Some(fault) = link.failed {
            return Poll::Ready(Err(fault));
        }
        loop {
            match link.decoder.step(&mut link.wire.input, &link.limits).map_err(Fault::upstream)? {
                Step::More => {}
                step => return Poll::Ready(Ok(step)),
            }
            if ready!(link.wire.poll_fill(cx, For::Body)).map_err(Fault::upstream)? == 0 {
                link.decoder.end().map_err(Fault::upstream)?;
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
                self.0.link.failed = Some(fault);
                Some(Err(fault))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.link.failed.is_none() && self.0.link.decoder.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.link.decoder.size_hint()
    }
}
