//! The body of a message that goes out: from wherever it comes into a stream, no faster than the peer takes it.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

use super::{super::Fault, fault::code};

/// Bytes that a body may begin with without waiting for room: they go with the head. It is what the smallest frame
/// carries, and less than the window that every stream begins with.
const WITH_HEAD: usize = 16 << 10;

/// Why a body did not get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The peer takes no more: it reset the stream, or the connection ended.
    ByPeer,
    /// The body failed; the stream has been reset.
    ByBody(Fault),
}

/// Sends `body` into `stream` until its end is queued. A body that fails and says no code of its own resets the stream
/// with `otherwise`. `held` counts those that wait for the peer to take some.
pub(super) async fn send<B>(
    mut stream: SendStream<Bytes>,
    mut body: Pin<&mut B>,
    otherwise: Reason,
    held: Option<&Cell<u32>>,
) -> Result<(), Cut>
where
    B: Body<Data = Bytes, Error = Fault>,
{
    // What is left of the frame that is being sent.
    let mut rest = Bytes::new();
    let mut first = true;
    let mut held = Held { count: held, is_held: false };
    poll_fn(|cx| {
        loop {
            if !rest.is_empty() {
                let room = if std::mem::take(&mut first) && rest.len() <= WITH_HEAD {
                    rest.len()
                } else {
                    let room = poll_room(&mut stream, rest.len(), cx);
                    held.set(room.is_pending());
                    ready!(room).ok_or(Cut::ByPeer)?
                };
                let piece = rest.split_to(room.min(rest.len()));
                let end = rest.is_empty() && body.is_end_stream();
                stream.send_data(piece, end).map_err(|_| Cut::ByPeer)?;
                if end {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            match body.as_mut().poll_frame(cx) {
                // A peer that gives up is noticed while there is nothing to send, too.
                Poll::Pending => return stream.poll_reset(cx).map(|_| Err(Cut::ByPeer)),
                Poll::Ready(None) => {
                    return Poll::Ready(stream.send_data(Bytes::new(), true).map_err(|_| Cut::ByPeer));
                }
                Poll::Ready(Some(Err(fault))) => {
                    stream.send_reset(code(fault, otherwise));
                    return Poll::Ready(Err(Cut::ByBody(fault)));
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => rest = data,
                    Err(frame) => {
                        let Ok(trailers) = frame.into_trailers() else { continue };
                        let sent = stream.send_trailers(trailers);
                        if sent.is_err() {
                            // The peer is gone, or HTTP/2 forbids these trailers: then the message must not look whole.
                            stream.send_reset(otherwise);
                        }
                        return Poll::Ready(sent.map_err(|_| Cut::ByPeer));
                    }
                },
            }
        }
    })
    .await
}

/// Counts one while a body waits for the peer.
struct Held<'a> {
    count: Option<&'a Cell<u32>>,
    is_held: bool,
}

impl Held<'_> {
    fn set(&mut self, is_held: bool) {
        if let (Some(count), true) = (self.count, self.is_held != is_held) {
            self.is_held = is_held;
            count.set(if is_held { count.get() + 1 } else { count.get() - 1 });
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// Waits until some of `wanted` bytes may be sent. `None`: no more will be.
fn poll_room(stream: &mut SendStream<Bytes>, wanted: usize, cx: &mut Context<'_>) -> Poll<Option<usize>> {
    stream.reserve_capacity(wanted);
    match stream.capacity() {
        0 => stream.poll_capacity(cx).map(|room| room.and_then(Result::ok)),
        room => Poll::Ready(Some(room)),
    }
}
