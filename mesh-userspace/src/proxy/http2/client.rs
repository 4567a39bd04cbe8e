//! The half that faces endpoints.

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::{
    PingPong, Reason, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{Request, Response, request::Parts};
use http_body::Body;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::AbortHandle,
};

use super::{
    super::{Fault, FaultKind, Reached, Side, Unanswered, interim},
    Counted, Incoming, Limits, Watch,
    cork::{Cork, Corked, Progress, cork},
    fault::translate,
    incoming::length,
    pump::{self, Cut},
    watch::Account,
};

/// A connection to an endpoint. Clones share it; it ends when the last clone and the last stream are gone.
#[derive(Clone)]
pub struct Connection(Rc<Shared>);

struct Shared {
    handle: RefCell<SendRequest<Bytes>>,
    open: Rc<Cell<u32>>,
    /// Streams at a time.
    limit: u32,
    progress: Rc<Progress>,
    /// Whether there was an answer already.
    served: Cell<bool>,
    /// Until somebody [watches](Connection::watch).
    ping: Cell<Option<PingPong>>,
}

impl Connection {
    /// Begins a connection on `stream`. It does nothing unless the future is run, best by a task of its own: until the
    /// connection ends, with the fault that ended it, if one did.
    ///
    /// # Errors
    ///
    /// The stream does not take the first bytes.
    pub async fn handshake<S>(
        stream: S,
        limits: &Limits,
    ) -> Result<(Self, impl Future<Output = Result<(), Fault>> + use<S>), Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (corked, mut cork) = cork(stream, Bytes::new());
        let (handle, mut connection) = cork.around(Side::Upstream, limits.client().handshake(corked)).await?;
        let ping = connection.ping_pong();
        let shared = Shared {
            handle: RefCell::new(handle),
            open: Rc::default(),
            limit: limits.streams,
            progress: Rc::clone(cork.progress()),
            served: Cell::new(false),
            ping: Cell::new(ping),
        };
        Ok((Self(Rc::new(shared)), drive(connection, cork)))
    }

    /// Whether a request may be sent: the connection is not closed, and the endpoint did not say that it will be.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        let mut handle = self.0.handle.borrow_mut();
        !matches!(handle.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)))
    }

    /// Whether one more stream may be opened at this time, as the endpoint and [`Limits::streams`] say. A request that is
    /// sent all the same waits for the endpoint.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let open = self.0.open.get();
        open < self.0.limit && (open as usize) < self.0.handle.borrow().current_max_send_streams()
    }

    /// Who looks whether anybody is there; `None`: there is one already. It does not keep the connection alive.
    #[must_use]
    pub fn watch(&self) -> Option<Watch> {
        let ping = RefCell::new(self.0.ping.take()?);
        let (open, progress) = (Rc::clone(&self.0.open), Rc::clone(&self.0.progress));
        Some(Watch { open, progress, ping, account: Account::default() })
    }

    /// Whether it answered before.
    #[must_use]
    pub fn has_served(&self) -> bool {
        self.0.served.get()
    }

    /// Requests whose response is not at its end.
    #[must_use]
    pub fn open_streams(&self) -> u32 {
        self.0.open.get()
    }

    /// Whether the endpoint takes extended CONNECT (RFC 8441); known once its settings have come.
    #[must_use]
    pub fn takes_extended_connect(&self) -> bool {
        self.0.handle.borrow().is_extended_connect_protocol_enabled()
    }

    /// Sends a request and waits for the head of the response.
    ///
    /// `head` has to be fit for HTTP/2 ([`super::dialect::prepare_for_http2`]). The body is sent while this future is
    /// polled. If the response begins before the body's end, the rest is sent by a task of the current
    /// [`LocalSet`](tokio::task::LocalSet), which ends with the response's body. Dropping this future or that body before
    /// its end resets the stream with `CANCEL`; a body that fails resets it with the code of its fault, if that is a
    /// reset, else with `CANCEL`.
    ///
    /// # Errors
    ///
    /// There is no answer. The fault is the client's where its body failed.
    pub async fn send<B>(&self, head: Parts, body: B) -> Result<Response<Incoming>, Unanswered>
    where
        B: Body<Data = Bytes, Error = Fault> + 'static,
    {
        let mark = Mark { served: self.0.served.get(), ..Mark::at(&self.0.progress) };
        let end = body.is_end_stream();
        let (mut response, stream) = self.open(Request::from_parts(head, ()), end).map_err(|error| Unanswered {
            fault: translate(Side::Upstream, &error, &self.0.progress),
            reached: Reached::Nowhere,
        })?;
        let open = Counted::new(&self.0.open);
        let sending = async move { pump::send(stream, pin!(body), Reason::CANCEL, None).await };
        let mut upload = (!end).then(|| Box::pin(sending));
        let mut interims = 0;
        let response = poll_fn(|cx| {
            // First, so that what is there goes with the head.
            if let Some(pump) = &mut upload
                && let Poll::Ready(result) = pump.as_mut().poll(cx)
            {
                upload = None;
                if let Err(Cut::ByBody(fault)) = result {
                    return Poll::Ready(Err(Unanswered { fault, reached: Reached::Endpoint }));
                }
                // Cut by the peer: it has answered, or it says below why not.
            }
            while let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
                interims += 1;
                if interims > interim::MOST {
                    let fault = Fault::upstream(FaultKind::TooLarge("number of interim responses"));
                    return Poll::Ready(Err(Unanswered { fault, reached: Reached::Endpoint }));
                }
                interim::say(interim.into_parts().0.into());
            }
            Pin::new(&mut response).poll(cx).map_err(|error| mark.judge(&error, &self.0.progress))
        })
        .await?;
        self.0.served.set(true);
        let length = length(response.headers());
        let ongoing = Ongoing { _open: open, upload: upload.map(Upload::spawn) };
        Ok(response.map(|stream| Incoming::of_response(stream, length, &self.0.progress, ongoing)))
    }

    fn open(&self, request: Request<()>, end: bool) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let mut handle = self.0.handle.borrow_mut();
        // A handle whose last stream waits to be opened takes no other; a clone does.
        if handle.poll_ready(&mut Context::from_waker(Waker::noop()))?.is_pending() {
            *handle = handle.clone();
        }
        handle.send_request(request, end)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("open", &self.0.open.get()).field("progress", &self.0.progress).finish()
    }
}

/// Moves the frames of a connection until it ends.
async fn drive<S>(mut connection: h2::client::Connection<Corked<S>, Bytes>, mut cork: Cork<S>) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    cork.around(Side::Upstream, poll_fn(|cx| Pin::new(&mut connection).poll(cx))).await
}

/// Where a connection was when a request was sent on it.
struct Mark {
    written: u64,
    read: u64,
    served: bool,
}

impl Mark {
    fn at(progress: &Progress) -> Self {
        Self { written: progress.written(), read: progress.read(), served: false }
    }

    /// How far a request came that was sent here and met `error`.
    fn judge(&self, error: &h2::Error, progress: &Progress) -> Unanswered {
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        // h2 gives a GOAWAY to the streams that it leaves out, and to no others.
        let left_out = error.is_go_away();
        let reached = if error.is_remote() && (refused || left_out) || progress.written() == self.written {
            Reached::Nowhere
        } else if error.is_io()
            && self.served
            && progress.read() == self.read
            && progress.failed() != Some(io::ErrorKind::TimedOut)
        {
            Reached::Stale
        } else {
            Reached::Endpoint
        };
        Unanswered { fault: translate(Side::Upstream, error, progress), reached }
    }
}

/// What a response holds of its exchange until it ends or is dropped.
pub(super) struct Ongoing {
    _open: Counted,
    upload: Option<Upload>,
}

impl Ongoing {
    /// What ended the body of the request, if something did.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.upload.as_ref().and_then(|upload| upload.fault.get())
    }
}

impl fmt::Debug for Ongoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ongoing").field("upload", &self.upload.is_some()).finish()
    }
}

/// The rest of a request's body, sent by a task.
///
/// It could be sent whenever the response's body is polled; but that is not polled while the client does not read, and a
/// client may well read nothing until it has sent all.
struct Upload {
    task: AbortHandle,
    fault: Rc<Cell<Option<Fault>>>,
}

impl Upload {
    fn spawn(rest: Pin<Box<impl Future<Output = Result<(), Cut>> + 'static>>) -> Self {
        let fault = Rc::<Cell<_>>::default();
        let seen = Rc::clone(&fault);
        let task = tokio::task::spawn_local(async move {
            if let Err(Cut::ByBody(fault)) = rest.await {
                seen.set(Some(fault));
            }
        });
        Self { task: task.abort_handle(), fault }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.task.abort();
    }
}
