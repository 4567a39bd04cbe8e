//! The server half: requests of one client, in order, each answered before the next is taken up.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http::{Method, Version};
use tokio::time;

use super::{
    super::{Fault, FaultKind, Message, Request, RequestHead},
    Limits, Progress, RequestBody, Stage, Transport,
    chunked::Step,
    decode::Decoder,
    head::{self, Parsed},
    outbox::Outbox,
    server_body::Shared,
    wire::{For, Wire},
};

/// A client's connection.
#[derive(Debug)]
pub struct Server<S> {
    pub(super) shared: Rc<RefCell<Shared<S>>>,
    pub(super) progress: Rc<Progress>,
    /// What the answer depends on.
    pub(super) asked: Asked,
    /// There may be a further request.
    pub(super) open: bool,
    /// Some of the current response was written.
    pub(super) begun: Cell<bool>,
    /// How much of the next head was looked at.
    searched: usize,
    /// How much of the last body was thrown away.
    drained: u64,
}

/// What of a request the answer to it depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) head: bool,
    pub(super) connect: bool,
    pub(super) version: Version,
    pub(super) persists: bool,
}

impl Asked {
    /// Of bytes that are no request: they are answered, and that is the end.
    const NOTHING: Self = Self { head: false, connect: false, version: Version::HTTP_11, persists: false };
}

/// How a client went away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// It sends nothing more. It may still wait for the response: TCP does not tell.
    HalfClosed,
    /// It reset the connection: nobody will read a response.
    Reset,
}

impl<S: Transport> Server<S> {
    /// Speaks HTTP/1.1 on `stream`, of which `already_read` was read.
    #[must_use]
    pub fn new(stream: S, already_read: Bytes, limits: &Limits) -> Self {
        let progress = Rc::new(Progress::default());
        let shared = Shared {
            wire: Wire::new(stream, already_read),
            limits: *limits,
            progress: Rc::clone(&progress),
            decoder: Decoder::Over,
            turn: 0,
            awaits_continue: false,
            out: Outbox::default(),
            broken: false,
            aborted: false,
        };
        let shared = Rc::new(RefCell::new(shared));
        Self { shared, progress, asked: Asked::NOTHING, open: true, begun: Cell::new(false), searched: 0, drained: 0 }
    }

    /// Where this connection is, to be looked at while a future of it is waiting.
    #[must_use]
    pub fn progress(&self) -> &Rc<Progress> {
        &self.progress
    }

    /// The next request. `None`: there is none, and the connection should be [closed](Self::close). May be dropped while
    /// it waits and called again. A fault may be [answered](Self::respond) if it is one of form.
    ///
    /// # Errors
    ///
    /// What came is no request, or the connection failed in the midst of one.
    pub async fn request(&mut self) -> Result<Option<Request<RequestBody<S>>>, Fault> {
        if !self.open || !poll_fn(|cx| self.poll_drain(cx)).await {
            self.open = false;
            return Ok(None);
        }
        self.asked = Asked::NOTHING;
        self.begun.set(false);
        let head = poll_fn(|cx| self.poll_head(cx)).await;
        self.open = matches!(head, Ok(Some(_)));
        let Some(Parsed { head, framing, noted, .. }) = head.map_err(Fault::downstream)? else { return Ok(None) };
        self.asked = Asked {
            head: head.method == Method::HEAD,
            connect: head.method == Method::CONNECT,
            version: head.version,
            persists: noted.persists(head.version),
        };
        self.progress.begin_request();
        self.drained = 0;
        {
            let mut shared = self.shared.borrow_mut();
            shared.turn += 1;
            shared.decoder = framing.into();
            // RFC 9110, section 10.1.1: not in 1.0, and not for a body that is on its way.
            shared.awaits_continue = noted.expects
                && head.version == Version::HTTP_11
                && !shared.decoder.is_over()
                && shared.wire.input.is_empty();
        }
        Ok(Some(Message { head, body: RequestBody::new(Rc::clone(&self.shared)) }))
    }

    /// Reads and throws away what was left of the last body; whether the connection can go on.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut shared = self.shared.borrow_mut();
        while !shared.decoder.is_over() {
            self.progress.enter(Stage::Drain);
            match ready!(shared.poll_body(cx)) {
                Ok(Step::Data(data)) => {
                    self.drained += data.len() as u64;
                    if self.drained > shared.limits.drained_bytes {
                        return Poll::Ready(false);
                    }
                }
                Ok(_) => {}
                Err(_) => return Poll::Ready(false),
            }
        }
        Poll::Ready(!shared.broken)
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Parsed<RequestHead>>, FaultKind>> {
        let mut shared = self.shared.borrow_mut();
        loop {
            let input = &shared.wire.input;
            // Parsed again only with a further line: a head that comes byte by byte costs no more than its lines.
            let worth = shared.wire.ended || memchr::memchr(b'\n', &input[self.searched..]).is_some();
            if worth || input.len() > shared.limits.head_bytes {
                self.searched = input.len();
                if let Some(head) = head::request(input, &shared.limits)? {
                    self.searched = 0;
                    shared.wire.input.advance(head.bytes);
                    return Poll::Ready(Ok(Some(head)));
                }
            }
            let is_idle = input.is_empty() || **input == *b"\r\n";
            self.progress.enter(if is_idle { Stage::Idle } else { Stage::Head });
            if shared.wire.ended {
                return Poll::Ready(if is_idle { Ok(None) } else { Err(FaultKind::Closed) });
            }
            match ready!(shared.poll_fill(cx, For::Head)) {
                // A client that resets a connection it does not need any more has asked for nothing.
                Err(_) if is_idle => return Poll::Ready(Ok(None)),
                read => read?,
            };
        }
    }

    /// Whether the client went away, while the response is awaited. What it sends meanwhile is kept: requests after this
    /// one, 64 KiB at most; behind more than that, or behind a body that is not read, nothing is noticed. Ready once:
    /// what comes after a half-close shows when the response is written.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<Gone> {
        let mut shared = self.shared.borrow_mut();
        if shared.broken {
            return Poll::Ready(Gone::Reset);
        }
        while shared.decoder.is_over() && !shared.wire.ended && shared.wire.input.len() < shared.limits.head_bytes {
            match ready!(shared.poll_fill(cx, For::Head)) {
                Ok(0) => return Poll::Ready(Gone::HalfClosed),
                Ok(_) => {}
                Err(_) => {
                    shared.broken = true;
                    return Poll::Ready(Gone::Reset);
                }
            }
        }
        Poll::Pending
    }

    /// Whether there may be a further request.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open && !self.shared.borrow().broken
    }

    /// The connection, and what was read of it, to go on as a tunnel. `None`: somebody still has the request's body.
    #[must_use]
    pub fn upgrade(self) -> Option<(S, Bytes)> {
        let shared = Rc::try_unwrap(self.shared).ok()?.into_inner();
        Some((shared.wire.io, shared.wire.input))
    }

    /// Ends the connection such that the client sees that something is missing, and that the system keeps nothing for it.
    pub fn abort(self) {
        self.shared.borrow().wire.io.reset_on_close();
    }

    /// Ends the connection such that a client that is still sending can read the response: closing at once would reset
    /// it. Waits for the client's end, at most two seconds.
    pub async fn close(self) {
        // Nothing is lost by closing at once where all that was sent was read.
        let lingers = {
            let shared = self.shared.borrow();
            !shared.aborted && (!shared.decoder.is_over() || shared.broken || !shared.wire.input.is_empty())
        };
        if !lingers {
            return;
        }
        self.progress.enter(Stage::Drain);
        let mut left = MOST_LINGERED;
        let end = poll_fn(|cx| {
            let mut shared = self.shared.borrow_mut();
            if ready!(Pin::new(&mut shared.wire.io).poll_shutdown(cx)).is_err() {
                return Poll::Ready(());
            }
            loop {
                shared.wire.input = Bytes::new();
                match ready!(shared.poll_fill(cx, For::Head)) {
                    Ok(read @ 1..) if read < left => left -= read,
                    _ => return Poll::Ready(()),
                }
            }
        });
        // However it ended: it ends.
        let _ = time::timeout(LINGER, end).await;
    }
}

/// How long a closing connection waits for the client to have read.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes that are thrown away meanwhile.
const MOST_LINGERED: usize = 4 << 20;
