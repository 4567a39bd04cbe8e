//! How a client is answered.

use std::{
    cell::RefCell,
    future::poll_fn,
    mem,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{StatusCode, Version};
use http_body::Body;

use super::{
    super::{Fault, FaultKind, Response, ResponseHead, Side},
    Gone, Server, Stage, Transport,
    encode::{self, Delimited, Persistence},
    outbox::Outbox,
    outgoing::{self, Outgoing},
    server_body::Shared,
};

/// A response was written, as far as the system took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Responded {
    /// Bytes of its body.
    pub bytes: u64,
    /// What comes now.
    pub after: After,
}

/// What comes after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It was an interim one (1xx): the response proper.
    Response,
    /// The next request, if the rest of this one's body comes soon.
    Request,
    /// The end of the connection: [`Server::close`].
    Close,
    /// A tunnel: [`Server::upgrade`].
    Tunnel,
}

/// What a response is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// To say that the response comes.
    Interim,
    /// To begin a tunnel.
    Tunnel,
    /// To answer.
    Final,
}

impl Kind {
    fn of(status: StatusCode, to_connect: bool) -> Self {
        match status {
            StatusCode::SWITCHING_PROTOCOLS => Self::Tunnel,
            _ if to_connect && status.is_success() => Self::Tunnel,
            _ if status.is_informational() => Self::Interim,
            _ => Self::Final,
        }
    }
}

/// Dropped before a body that ends with the connection was written to its end: the client has to see that.
struct ResetUnlessWhole<'a, S: Transport>(&'a RefCell<Shared<S>>);

impl<S: Transport> Drop for ResetUnlessWhole<'_, S> {
    fn drop(&mut self) {
        // It is borrowed only within polls, which this is not.
        if let Ok(mut shared) = self.0.try_borrow_mut() {
            shared.aborted = true;
            shared.wire.io.reset_on_close();
        }
    }
}

impl<S: Transport> Server<S> {
    /// Answers the current request. The head and what is ready of the body leave in one write; the body is not asked for
    /// more before that is written. `close`: the connection ends with it.
    ///
    /// # Errors
    ///
    /// A fault of the client's side, or one of `body`; either is the end of the connection, which then also tells the
    /// client that the body is not whole, unless [no response has begun](Self::has_begun_response).
    pub async fn respond<B>(&mut self, response: Response<B>, close: bool) -> Result<Responded, Fault>
    where
        B: Body<Data = Bytes, Error = Fault>,
    {
        self.respond_while(response, close, |_, _| {}).await
    }

    /// Tells the client what comes before the response, as far as it would understand and there is room for it: nothing
    /// depends on it.
    pub fn inform(&self, head: &ResponseHead, cx: &mut Context<'_>) {
        let mut shared = self.shared.borrow_mut();
        if self.asked.version == Version::HTTP_11 && shared.out.has_room() {
            encode::response(shared.out.small(), head, Delimited::Forbidden, Persistence::Implied);
            // What cannot be written now is written with the response. If the client is gone, then that will show.
            let _ = shared.poll_flush(cx);
        }
    }

    /// [`Server::respond`] to a client that reads nothing before all of its request is taken, by an endpoint that answers
    /// before that: `meanwhile` is called with the body while the client does not read
    /// ([`ResponseBody::poll_upload`](super::ResponseBody::poll_upload)).
    ///
    /// # Errors
    ///
    /// As those of [`Server::respond`].
    pub async fn respond_while<B>(
        &mut self,
        response: Response<B>,
        close: bool,
        meanwhile: impl FnMut(Pin<&mut B>, &mut Context<'_>),
    ) -> Result<Responded, Fault>
    where
        B: Body<Data = Bytes, Error = Fault>,
    {
        let Response { head: parts, body } = response;
        let kind = Kind::of(parts.status, self.asked.connect);
        let speaks_1_1 = self.asked.version == Version::HTTP_11;
        if kind == Kind::Interim && !speaks_1_1 {
            // RFC 9110, section 15.2: 1.0 does not know them.
            return Ok(Responded { bytes: 0, after: After::Response });
        }
        let delimited = match (kind, parts.status) {
            (Kind::Interim | Kind::Tunnel, _) | (_, StatusCode::NO_CONTENT) => Delimited::Forbidden,
            (_, StatusCode::NOT_MODIFIED) => Delimited::Absent,
            _ if self.asked.head => Delimited::Absent,
            _ => outgoing::delimit(&parts.headers, &body, speaks_1_1).map_err(Fault::upstream)?,
        };
        let after = match kind {
            Kind::Interim => After::Response,
            Kind::Tunnel => After::Tunnel,
            Kind::Final if !close && delimited != Delimited::Close && self.may_go_on() => After::Request,
            Kind::Final => After::Close,
        };
        let persistence = match after {
            After::Close => Persistence::Close,
            After::Request if !speaks_1_1 => Persistence::KeepAlive,
            _ => Persistence::Implied,
        };

        // Should this future be dropped, then that was the end.
        let open = mem::take(&mut self.open);
        let whole = (delimited == Delimited::Close).then(|| ResetUnlessWhole(&self.shared));
        self.progress.enter(Stage::Response);
        let awaited = mem::take(&mut self.shared.borrow_mut().awaits_continue);
        // What is left of a `100 Continue` goes first.
        let mut out = mem::take(&mut self.shared.borrow_mut().out);
        self.begun.set(!out.is_empty());
        encode::response(out.small(), &parts, delimited, persistence);
        let sent = self.send(Outgoing::new(delimited), body, &mut out, meanwhile).await;
        let replaceable = sent.is_err_and(|fault| fault.side == Side::Upstream) && !self.begun.get();
        if sent.is_ok() || replaceable {
            mem::forget(whole);
            self.open = open && (replaceable || after != After::Close);
        }
        let bytes = sent?;
        if kind == Kind::Interim {
            self.progress.enter(Stage::Exchange);
            self.begun.set(false);
            self.shared.borrow_mut().awaits_continue = awaited && parts.status != StatusCode::CONTINUE;
        }
        Ok(Responded { bytes, after })
    }

    /// Whether a request may follow the current one.
    fn may_go_on(&self) -> bool {
        let shared = self.shared.borrow();
        // A client that was never told to go on may send the body, or not.
        self.open && self.asked.persists && !shared.broken && !shared.awaits_continue
    }

    /// Writes what is in `out`, and the body after it.
    async fn send<B>(
        &self,
        mut outgoing: Outgoing,
        body: B,
        out: &mut Outbox,
        mut meanwhile: impl FnMut(Pin<&mut B>, &mut Context<'_>),
    ) -> Result<u64, Fault>
    where
        B: Body<Data = Bytes, Error = Fault>,
    {
        let mut body = pin!(body);
        poll_fn(|cx| {
            loop {
                let taken = outgoing.poll_take(cx, body.as_mut(), Side::Upstream, out);
                if let Poll::Ready(Err(fault)) = taken {
                    // What was taken before the fault is the client's, unless there can still be a better answer.
                    if self.begun.get() {
                        let _ = self.poll_write(cx, out);
                    }
                    return Poll::Ready(Err(fault));
                }
                let Poll::Ready(written) = self.poll_write(cx, out) else {
                    meanwhile(body.as_mut(), cx);
                    return Poll::Pending;
                };
                written?;
                if outgoing.is_ended() {
                    return Poll::Ready(Ok(outgoing.taken));
                }
                if taken.is_pending() {
                    // Nobody will read the rest: the endpoint need not be waited for.
                    while let Poll::Ready(gone) = self.poll_gone(cx) {
                        if gone == Gone::Reset {
                            return Poll::Ready(Err(Fault::downstream(FaultKind::Reset { code: None })));
                        }
                    }
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    fn poll_write(&self, cx: &mut Context<'_>, out: &mut Outbox) -> Poll<Result<(), Fault>> {
        let mut shared = self.shared.borrow_mut();
        let written = |bytes| {
            self.begun.set(true);
            self.progress.moved(bytes);
        };
        out.poll_write(cx, &mut shared.wire.io, written).map_err(Fault::downstream)
    }

    /// Whether some of the current response was written. If not, then [`Server::respond`], having failed because of the
    /// body, may be called again with an answer that says so.
    #[must_use]
    pub fn has_begun_response(&self) -> bool {
        self.begun.get()
    }
}
