//! What the codec promises, on connections in memory and on real ones.

mod bodies;
mod client;
mod endings;
mod mutations;
mod proxied;
mod server;
mod smuggling;
mod splits;

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::{Body, Frame};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf},
    task::LocalSet,
};

use super::{
    super::{Fault, RequestHead, Response},
    Connection, Limits, Server, Transport,
};

impl Transport for DuplexStream {
    fn confirmed(&self) -> Option<u64> {
        None
    }

    fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn is_quiet(&mut self) -> bool {
        let (mut cx, mut byte) = (Context::from_waker(Waker::noop()), [0]);
        Pin::new(self).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
    }

    fn has_news(&self) -> bool {
        false
    }

    fn reset_on_close(&self) {}
}

/// A body of the parts that it is made of; a `None` is a moment without any.
#[derive(Debug, Default)]
struct Parts(VecDeque<Option<Result<Frame<Bytes>, Fault>>>);

impl Parts {
    fn of(parts: &[&'static str]) -> Self {
        Self(parts.iter().map(|part| Some(Ok(Frame::data(Bytes::from_static(part.as_bytes()))))).collect())
    }

    fn then(mut self, frame: Result<Frame<Bytes>, Fault>) -> Self {
        self.0.push_back(Some(frame));
        self
    }

    fn then_wait(mut self) -> Self {
        self.0.push_back(None);
        self
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match self.0.pop_front() {
            Some(None) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Some(frame)) => Poll::Ready(Some(frame)),
            None => Poll::Ready(None),
        }
    }
}

/// A body of known length.
type Known = http_body_util::Full<Bytes>;

/// [`Known`], as the codec wants it.
#[derive(Debug, Default)]
struct Whole(Known);

impl Whole {
    fn of(text: &'static str) -> Self {
        Self(Known::new(Bytes::from_static(text.as_bytes())))
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        Pin::new(&mut self.0).poll_frame(cx).map_err(|never| match never {})
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.size_hint()
    }
}

/// One part, and then nothing, not even an end.
struct Never(Option<Bytes>);

impl Body for Never {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        self.0.take().map_or(Poll::Pending, |data| Poll::Ready(Some(Ok(Frame::data(data)))))
    }
}

/// All of a body, and its trailers.
async fn collect<B>(mut body: B) -> Result<(Vec<u8>, Option<HeaderMap>), Fault>
where
    B: Body<Data = Bytes, Error = Fault> + Unpin,
{
    let (mut data, mut trailers) = (Vec::new(), None);
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.transpose()? {
        match frame.into_data() {
            Ok(part) => data.extend_from_slice(&part),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((data, trailers))
}

/// Runs a test on one thread, as a worker does.
fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test)
}

/// A request.
const GET: &str = "GET /1 HTTP/1.1\r\nhost: a\r\n\r\n";

/// A client that is a test, and the server for it.
fn server() -> (DuplexStream, Server<DuplexStream>) {
    let (client, stream) = tokio::io::duplex(1 << 20);
    (client, Server::new(stream, Bytes::new(), &Limits::default()))
}

/// An endpoint that is a test, and a connection to it.
fn connection() -> (DuplexStream, Connection<DuplexStream>) {
    let (endpoint, stream) = tokio::io::duplex(1 << 20);
    (endpoint, Connection::new(stream, &Limits::default()))
}

/// Reads until `end` was read.
async fn read_to(stream: &mut DuplexStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        match stream.read_u8().await {
            Ok(byte) => text.push(byte),
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&text)),
        }
    }
    String::from_utf8(text).unwrap()
}

/// Reads what is left.
async fn read_all(stream: &mut DuplexStream) -> String {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap();
    String::from_utf8(text).unwrap()
}

async fn write(stream: &mut DuplexStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

fn get(path: &str) -> RequestHead {
    head_of(Request::get(path).header("host", "a"))
}

fn post(path: &str) -> RequestHead {
    head_of(Request::post(path).header("host", "a"))
}

fn head_of(request: http::request::Builder) -> RequestHead {
    request.body(()).unwrap().into_parts().0.into()
}

fn ok<B>(body: B) -> Response<B> {
    Response::new(body)
}
