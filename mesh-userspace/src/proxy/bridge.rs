//! WebSockets of HTTP/2 clients (extended CONNECT, RFC 8441) at endpoints that know them by HTTP/1.1's `Upgrade`.

use super::{
    Fault,
    incoming::Incoming,
    message::{RequestHead, ResponseHead},
    upstream::Upstream,
};
use bytes::Bytes;
use h2::ext::Protocol;
use http::{
    HeaderValue, Method,
    header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE},
};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf},
    task::AbortHandle,
};

/// What is read at a time.
const CHUNK: usize = 16 * 1024;

thread_local! {
    /// Into which is read, so that a connection at rest holds no room.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into_boxed_slice());
}

/// What a request asks for that is an extended CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    WebSocket,
    /// Something that is nothing in HTTP/1.1.
    Other,
}

/// Makes a GET of an extended CONNECT, which is what it would have been in HTTP/1.1; `None`: it is none.
pub(super) fn begin(head: &mut RequestHead) -> Option<Asks> {
    if head.method != Method::CONNECT {
        return None;
    }
    let protocol = head.extensions.remove::<Protocol>()?;
    if !protocol.as_str().eq_ignore_ascii_case("websocket") {
        return Some(Asks::Other);
    }
    head.method = Method::GET;
    // HTTP/2 has no use for it, and HTTP/1.1 wants one.
    head.headers.insert(SEC_WEBSOCKET_KEY, &key(|most| fastrand::usize(..most)));
    Some(Asks::WebSocket)
}

/// Base64 of 16 bytes that nobody guesses.
fn key(mut below: impl FnMut(usize) -> usize) -> HeaderValue {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text: Vec<u8> = (0..21).map(|_| DIGITS[below(64)]).collect();
    // The last digit has two bits.
    text.extend([DIGITS[below(4) << 4], b'=', b'=']);
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or(HeaderValue::from_static(""))
}

/// Makes the answer to an extended CONNECT of that of an endpoint which agreed to the upgrade.
pub(super) fn agree(head: &mut ResponseHead) {
    head.status = http::StatusCode::OK;
    for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT] {
        head.headers.remove(name);
    }
}

/// What an endpoint says after it has agreed. Meanwhile what the client says goes there, in a task of its own: neither
/// waits for the other to be taken. Dropped, it ends both.
#[derive(Debug)]
pub(super) struct Bridge {
    read: Bytes,
    from: ReadHalf<Upstream>,
    ended: bool,
    upload: AbortHandle,
}

impl Bridge {
    /// Over a connection of which `read` was read, and the body of the client's request, of which `sent` counts the bytes.
    pub(super) fn new(stream: Upstream, read: Bytes, body: Incoming, sent: Rc<Cell<u64>>) -> Self {
        let (from, to) = tokio::io::split(stream);
        let upload = tokio::task::spawn_local(upload(body, to, sent)).abort_handle();
        Self { read, from, ended: false, upload }
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if !self.read.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.read)))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let read = SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            let read = ready!(Pin::new(&mut self.from).poll_read(cx, &mut buffer));
            Poll::Ready(read.map(|()| Bytes::copy_from_slice(buffer.filled())))
        });
        let read = ready!(read).map_err(|e| Fault::upstream(e.kind().into()))?;
        self.ended = read.is_empty();
        Poll::Ready((!self.ended).then(|| Ok(Frame::data(read))))
    }

    pub(super) const fn is_end_stream(&self) -> bool {
        self.ended && self.read.is_empty()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.upload.abort();
    }
}

/// Passes on what the client says, and that it has said all.
async fn upload(mut body: Incoming, mut to: WriteHalf<Upstream>, sent: Rc<Cell<u64>>) {
    while !body.is_end_stream() {
        let Some(Ok(frame)) = body.frame().await else { break };
        let Ok(data) = frame.into_data() else { break };
        if to.write_all(&data).await.is_err() {
            return;
        }
        sent.set(sent.get() + data.len() as u64);
    }
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn connect() -> RequestHead {
        Request::connect("http://chat/path").body(()).unwrap().into_parts().0.into()
    }

    #[test]
    fn an_extended_connect_becomes_a_get_with_a_key() {
        let mut head = connect();
        assert_eq!(begin(&mut head), None, "a plain one");
        head.extensions.insert(Protocol::from_static("websocket"));
        assert_eq!(begin(&mut head), Some(Asks::WebSocket));
        assert_eq!((head.method, head.headers.get(SEC_WEBSOCKET_KEY).unwrap().len()), (Method::GET, 24));
        let mut other = connect();
        other.extensions.insert(Protocol::from_static("connect-udp"));
        assert_eq!(begin(&mut other), Some(Asks::Other));
    }

    #[test]
    fn a_key_is_sixteen_bytes_in_base64() {
        assert_eq!(key(|_| 0), "AAAAAAAAAAAAAAAAAAAAAA==");
        assert_eq!(key(|most| most - 1), "/////////////////////w==");
    }
}
