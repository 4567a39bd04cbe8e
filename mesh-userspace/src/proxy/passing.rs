//! The body of a response on its way to the client: what happens when it ends, however it does.

use super::{
    Fault, Side,
    answer::{Manner, unavailable},
    attempt::reason_of,
    bridge::Bridge,
    http1, http2,
    incoming::Incoming,
    pick::Picked,
    pool::{Http1, Keeper},
    reason::Reason,
    record::Record,
    request_body::RequestBody,
    upstream::Upstream,
};
use bytes::Bytes;
use http::HeaderValue;
use http_body::{Body, Frame, SizeHint};
use std::{
    cell::{Cell, RefCell},
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

/// The body of a response.
#[derive(Debug)]
pub(super) struct ResponseBody {
    source: From,
    /// Until the end.
    passing: Option<Box<Passing>>,
    /// Who gets that where the endpoint breaks the answer off.
    heir: Option<Rc<Heir>>,
}

/// Where what a broken answer leaves is found by whoever can still answer in its place.
pub(super) type Heir = RefCell<Option<Box<Passing>>>;

type FromHttp1 = http1::ResponseBody<Upstream, RequestBody<Incoming>>;

#[derive(Debug)]
enum From {
    /// The proxy itself.
    Here(Option<Bytes>),
    Http1(FromHttp1),
    /// With how its client wants to be told of what goes wrong.
    Http2(http2::Incoming, Manner),
    /// Another protocol, between two dialects.
    Bridge(Bridge),
}

/// What a response that is passed on holds.
#[derive(Debug)]
pub(super) struct Passing {
    pub(super) record: Record,
    /// With what the connection goes to its pool afterwards.
    pub(super) home: Option<Box<Keeper>>,
    /// Which endpoint of the record's service it is from, for its circuit; `None`: from none.
    pub(super) picked: Option<Picked>,
}

impl ResponseBody {
    /// A body of the proxy's own.
    pub(super) fn whole(body: Bytes, record: Record) -> Self {
        let passing = Passing { record, home: None, picked: None };
        let body = (!body.is_empty()).then_some(body);
        Self { source: From::Here(body), passing: Some(Box::new(passing)), heir: None }
    }

    /// No body, of an answer that something else follows.
    pub(super) const fn none() -> Self {
        Self { source: From::Here(None), passing: None, heir: None }
    }

    pub(super) fn http1(body: FromHttp1, passing: Passing) -> Self {
        let mut body = Self { source: From::Http1(body), passing: Some(Box::new(passing)), heir: None };
        if body.is_end_stream() {
            body.go_home();
        }
        body
    }

    /// A response after which another protocol is spoken: the connection does not go home.
    pub(super) fn switching(body: FromHttp1, passing: Passing) -> Self {
        Self { source: From::Http1(body), passing: Some(Box::new(passing)), heir: None }
    }

    pub(super) fn http2(body: http2::Incoming, manner: Manner, passing: Passing) -> Self {
        Self { source: From::Http2(body, manner), passing: Some(Box::new(passing)), heir: None }
    }

    /// The connection behind a response that switches protocols, with what was read of it already, and what counts it.
    pub(super) fn into_upgraded(mut self) -> Option<(Upstream, Bytes, Box<Passing>)> {
        let passing = self.passing.take()?;
        let From::Http1(body) = mem::replace(&mut self.source, From::Here(None)) else { return None };
        let (stream, read) = body.into_upgraded()?;
        Some((stream, read, passing))
    }

    /// What follows an answer that switches protocols, for a client that speaks HTTP/2 and says `after` to it.
    pub(super) fn bridged(mut self, after: Incoming) -> Self {
        let From::Http1(body) = mem::replace(&mut self.source, From::Here(None)) else { return self };
        if let Some((stream, read)) = body.into_upgraded() {
            let sent = Rc::<Cell<u64>>::default();
            if let Some(passing) = &mut self.passing {
                passing.record.counts_sent(Some(Rc::clone(&sent)));
            }
            self.source = From::Bridge(Bridge::new(stream, read, after, sent));
        }
        self
    }

    /// Should the endpoint break it off, then what is known of it is left there.
    pub(super) fn leaves_to(&mut self, heir: &Rc<Heir>) {
        self.heir = Some(Rc::clone(heir));
    }

    /// Sends what is left of the request, as polling the body does.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if let From::Http1(body) = &mut self.source {
            body.poll_upload(cx);
        }
    }

    /// How long a client may let it lie, as its service says.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.passing.as_ref().and_then(|passing| passing.record.patience())
    }

    /// Nobody gets the rest, for this reason.
    pub(super) fn give_up(&mut self, reason: Reason) {
        if let Some(passing) = &mut self.passing {
            passing.record.gave_up(reason);
            passing.home = None;
        }
    }

    /// The connection is free again.
    fn go_home(&mut self) {
        let Some(passing) = &mut self.passing else { return };
        let Some(keeper) = passing.home.take() else { return };
        if let From::Http1(body) = mem::replace(&mut self.source, From::Here(None))
            && let Some(connection) = body.into_connection()
        {
            passing.record.pool().put(Http1 { connection, keeper });
        }
    }

    fn end(&mut self, fault: Option<&Fault>) {
        if let (Some(fault), Some(passing)) = (fault, &mut self.passing) {
            passing.record.broke(match fault.side {
                Side::Downstream => "downstream_reset",
                Side::Upstream => reason_of(fault).word(),
            });
            if fault.side == Side::Upstream
                && let Some(picked) = passing.picked.take()
            {
                passing.record.broken_off(picked);
            }
            passing.home = None;
        }
        self.go_home();
        let left = self.passing.take();
        if let (Some(_), Some(heir)) = (fault, &self.heir) {
            heir.replace(left);
        }
    }
}

impl Drop for ResponseBody {
    /// Whoever was to get the rest has gone. Of an answer of our own that rest is not wanted (`HEAD`), or too small to tell.
    fn drop(&mut self) {
        let is_cut_off = !matches!(self.source, From::Here(_)) && !self.is_end_stream();
        if let (true, Some(passing)) = (is_cut_off, &mut self.passing) {
            passing.record.cut_off();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = &mut *self;
        let frame = match &mut this.source {
            From::Here(body) => body.take().map(|body| Ok(Frame::data(body))),
            From::Http1(body) => ready!(Pin::new(body).poll_frame(cx)),
            From::Bridge(bridge) => ready!(bridge.poll_frame(cx)),
            From::Http2(body, manner) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                if let (Some(Err(fault)), Manner::Grpc) = (&frame, *manner)
                    && fault.is_lost_endpoint()
                {
                    // What a reset would say to gRPC is that we have a defect (INTERNAL).
                    this.end(Some(fault));
                    this.source = From::Here(None);
                    return Poll::Ready(Some(Ok(Frame::trailers(unavailable()))));
                }
                frame
            }
        };
        match &frame {
            None => this.end(None),
            Some(Err(fault)) => this.end(Some(fault)),
            Some(Ok(frame)) => {
                if let Some(passing) = &mut this.passing {
                    match (frame.data_ref(), frame.trailers_ref()) {
                        (Some(data), _) => passing.record.received_bytes += data.len() as u64,
                        (None, Some(trailers)) => {
                            passing.record.ends_with(trailers.get("grpc-status").map(HeaderValue::as_bytes));
                        }
                        (None, None) => {}
                    }
                }
                // Whoever polls need not ask again: the connection must not wait for that.
                if this.is_end_stream() {
                    this.go_home();
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            From::Here(body) => body.is_none(),
            From::Http1(body) => body.is_end_stream(),
            From::Http2(body, _) => body.is_end_stream(),
            From::Bridge(bridge) => bridge.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            From::Here(body) => SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64)),
            From::Http1(body) => body.size_hint(),
            From::Http2(body, _) => body.size_hint(),
            From::Bridge(_) => SizeHint::default(),
        }
    }
}
