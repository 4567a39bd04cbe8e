//! The body of a request on its way to an endpoint, that may have to be sent a second time.

use super::{Fault, deadline::Alarm};
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

/// What is kept of a body at most, for the case that it has to be sent again.
pub(super) const REPLAYED: usize = 64 * 1024;

/// The body of a request, as one try sees it. Tries share the source: what the first one has read is kept for the next
/// ones, up to [`REPLAYED`] bytes.
#[derive(Debug)]
pub(super) struct RequestBody<B> {
    shared: Option<Rc<Shared<B>>>,
    /// How much of what is kept this try has sent.
    sent: usize,
}

/// The source of a body, and what was read of it.
#[derive(Debug)]
struct Shared<B> {
    source: RefCell<Pin<Box<B>>>,
    kept: RefCell<BytesMut>,
    trailers: RefCell<Option<http::HeaderMap>>,
    /// Whether what was read is not kept: there is too much of it, or no use for it.
    overflowed: Cell<bool>,
    /// Whether any of it was read.
    touched: Cell<bool>,
    ended: Cell<bool>,
    /// Whether the client is to say more before anything goes on.
    awaited: Cell<bool>,
    /// Bytes, for the record as well, which may outlive this.
    read: Rc<Cell<u64>>,
    /// When all of it was read.
    ended_at: Cell<Duration>,
    /// Rings this long after the end of the body, or if none of it comes for `stall` (zero: for ever).
    alarm: Rc<Alarm>,
    answer_within: Cell<Duration>,
    stall: Duration,
}

/// The request's body, from which tries get theirs.
#[derive(Debug)]
pub(super) struct Source<B> {
    /// `None`: there is no body.
    body: Option<Rc<Shared<B>>>,
    /// On the worker's clock.
    made: Duration,
}

impl<B: Body<Data = Bytes, Error = Fault>> Source<B> {
    /// The body of a request; with `keep` it may be sent again. `alarm` is set to `answer_within` once all of it was
    /// read (at once, if there is none), and until then to `stall` whenever a part of it comes (zero: not at all).
    pub(super) fn new(body: B, keep: bool, alarm: &Rc<Alarm>, answer_within: Duration, stall: Duration) -> Self {
        let made = alarm.now();
        if body.is_end_stream() {
            alarm.set(answer_within);
            return Self { body: None, made };
        }
        alarm.set(stall);
        let shared = Rc::new(Shared {
            source: RefCell::new(Box::pin(body)),
            kept: RefCell::default(),
            trailers: RefCell::default(),
            overflowed: Cell::new(!keep),
            touched: Cell::new(false),
            ended: Cell::new(false),
            awaited: Cell::new(false),
            read: Rc::default(),
            ended_at: Cell::default(),
            alarm: Rc::clone(alarm),
            answer_within: Cell::new(answer_within),
            stall,
        });
        Self { body: Some(shared), made }
    }

    /// The body for another try.
    pub(super) fn body(&self) -> RequestBody<B> {
        RequestBody { shared: self.body.clone(), sent: 0 }
    }

    /// Whether another try could send all of it.
    pub(super) fn is_replayable(&self) -> bool {
        self.body.as_ref().is_none_or(|shared| !shared.overflowed.get())
    }

    /// Whether all of it was read.
    pub(super) fn has_ended(&self) -> bool {
        self.body.as_ref().is_none_or(|shared| shared.ended.get())
    }

    /// Whether the client is to say more of it before anything goes on.
    pub(super) fn is_awaited(&self) -> bool {
        self.body.as_ref().is_some_and(|shared| shared.awaited.get())
    }

    /// Whether nothing of it was read.
    pub(super) fn is_untouched(&self) -> bool {
        self.body.as_ref().is_none_or(|shared| !shared.touched.get())
    }

    /// How many bytes of it were read, now and later; `None`: there is none.
    pub(super) fn read(&self) -> Option<Rc<Cell<u64>>> {
        self.body.as_ref().map(|shared| Rc::clone(&shared.read))
    }

    /// For how long the answer is waited for at `now`: since all of the request was there.
    pub(super) fn awaited(&self, now: Duration) -> Duration {
        match &self.body {
            None => now.saturating_sub(self.made),
            Some(shared) if shared.ended.get() => now.saturating_sub(shared.ended_at.get()),
            Some(_) => Duration::ZERO,
        }
    }

    /// All of it, if it has ended and was kept.
    pub(super) fn copy(&self) -> Option<Bytes> {
        match &self.body {
            None => Some(Bytes::new()),
            Some(shared) => {
                (shared.ended.get() && !shared.overflowed.get()).then(|| Bytes::copy_from_slice(&shared.kept.borrow()))
            }
        }
    }

    /// How long the answer may take from now on, or from the end of the body.
    pub(super) fn answer_within(&self, time: Duration, alarm: &Alarm) {
        match &self.body {
            Some(shared) if !shared.ended.get() => shared.answer_within.set(time),
            _ => alarm.set(time),
        }
    }
}

impl<B: Body<Data = Bytes, Error = Fault>> Shared<B> {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        self.touched.set(true);
        let polled = self.source.borrow_mut().as_mut().poll_frame(cx);
        self.awaited.set(polled.is_pending());
        let frame = ready!(polled);
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.keep(data);
                } else if let Some(trailers) = frame.trailers_ref() {
                    *self.trailers.borrow_mut() = Some(trailers.clone());
                }
                if self.source.borrow().is_end_stream() {
                    self.end();
                }
            }
            None => self.end(),
            Some(Err(_)) => self.overflowed.set(true),
        }
        Poll::Ready(frame)
    }

    fn keep(&self, data: &Bytes) {
        if !self.stall.is_zero() {
            self.alarm.set(self.stall);
        }
        self.read.set(self.read.get() + data.len() as u64);
        if self.overflowed.get() {
            return;
        }
        let mut kept = self.kept.borrow_mut();
        if kept.len() + data.len() > REPLAYED {
            self.overflowed.set(true);
            *kept = BytesMut::new();
        } else {
            kept.extend_from_slice(data);
        }
    }

    fn end(&self) {
        if !self.ended.replace(true) {
            self.ended_at.set(self.alarm.now());
            self.alarm.set(self.answer_within.get());
        }
    }
}

impl<B: Body<Data = Bytes, Error = Fault>> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = &mut *self;
        let Some(shared) = &this.shared else { return Poll::Ready(None) };
        let kept = shared.kept.borrow().len();
        if this.sent < kept {
            let again = Bytes::copy_from_slice(&shared.kept.borrow()[this.sent..]);
            this.sent = kept;
            return Poll::Ready(Some(Ok(Frame::data(again))));
        }
        if shared.ended.get() {
            // Each try has its trailers once.
            let trailers = shared.trailers.borrow().clone();
            this.shared = None;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = ready!(shared.poll(cx));
        this.sent = shared.kept.borrow().len();
        if matches!(&frame, None | Some(Err(_)))
            || frame.as_ref().is_some_and(|f| matches!(f, Ok(f) if f.is_trailers()))
        {
            this.shared = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let Some(shared) = &self.shared else { return true };
        shared.ended.get() && self.sent >= shared.kept.borrow().len() && shared.trailers.borrow().is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let Some(shared) = &self.shared else { return SizeHint::with_exact(0) };
        let kept = shared.kept.borrow().len();
        if !shared.overflowed.get() && self.sent < kept {
            // What was read before comes on top of what is still to be read.
            let again = (kept - self.sent) as u64;
            let mut hint = shared.source.borrow().size_hint();
            if let Some(upper) = hint.upper() {
                hint.set_upper(upper + again);
            }
            hint.set_lower(hint.lower() + again);
            return hint;
        }
        shared.source.borrow().size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::deadline::Clock;
    use http_body_util::{BodyExt, StreamBody};
    use std::time::Instant;

    fn source(chunks: &[&'static [u8]]) -> Source<impl Body<Data = Bytes, Error = Fault> + use<>> {
        let frames: Vec<_> = chunks.iter().map(|c| Ok(Frame::data(Bytes::from_static(c)))).collect();
        Source::new(
            StreamBody::new(futures_util::stream::iter(frames)),
            true,
            &Clock::new(Instant::now()).alarm(),
            Duration::ZERO,
            Duration::ZERO,
        )
    }

    async fn all<B: Body<Data = Bytes, Error = Fault>>(body: RequestBody<B>) -> Bytes {
        body.collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn a_small_body_can_be_sent_again_also_after_half_of_it() {
        let source = source(&[b"one ", b"two ", b"three"]);
        assert!(source.is_untouched());
        let mut first = source.body();
        first.frame().await.unwrap().unwrap();
        drop(first);
        assert!(source.is_replayable() && !source.is_untouched() && !source.has_ended());
        assert_eq!(all(source.body()).await, "one two three");
        assert_eq!(all(source.body()).await, "one two three");
        assert!(source.has_ended());
        assert_eq!((source.copy().unwrap(), source.read().unwrap().get()), (Bytes::from("one two three"), 13));
    }

    #[tokio::test]
    async fn a_large_body_is_sent_once() {
        static LARGE: [u8; REPLAYED] = [7; REPLAYED];
        let source = source(&[&LARGE, b"and more"]);
        assert_eq!(all(source.body()).await.len(), REPLAYED + 8);
        assert!(!source.is_replayable() && source.copy().is_none());
    }

    #[tokio::test]
    async fn no_body_is_over_at_once_and_always_replayable() {
        let source = Source::new(
            http_body_util::Empty::new().map_err(|e| match e {}),
            true,
            &Clock::new(Instant::now()).alarm(),
            Duration::ZERO,
            Duration::ZERO,
        );
        assert!(source.body().is_end_stream() && source.is_replayable() && source.has_ended());
    }
}
