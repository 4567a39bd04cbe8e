//! Against `h2` and hyper as peers, over pipes in memory.

mod client;
mod cork;
mod dialect;
mod hostile;
mod reached;
mod server;
mod through;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::{Future, pending, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::io::DuplexStream;

use super::{super::Fault, Connection, Incoming, Limits, serve};

/// Bytes that a pipe holds.
const PIPE: usize = 64 << 10;

/// Runs a test with a place for local tasks, for ten seconds at most.
fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async { tokio::time::timeout(Duration::from_secs(10), test).await.expect("test is stuck") };
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

/// Lets all other tasks come to rest.
async fn rest() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// A body of given frames; a `None` is where it waits for ever.
#[derive(Default)]
struct Frames(VecDeque<Option<Result<Frame<Bytes>, Fault>>>);

impl Frames {
    fn of(bytes: impl Into<Bytes>) -> Self {
        Self::default().data(bytes)
    }

    fn data(mut self, bytes: impl Into<Bytes>) -> Self {
        self.0.push_back(Some(Ok(Frame::data(bytes.into()))));
        self
    }

    fn trailers(mut self, name: &'static str, value: &'static str) -> Self {
        self.0.push_back(Some(Ok(Frame::trailers(HeaderMap::from_iter([(
            name.parse().unwrap(),
            value.parse().unwrap(),
        )])))));
        self
    }

    fn fault(mut self, fault: Fault) -> Self {
        self.0.push_back(Some(Err(fault)));
        self
    }

    fn stuck(mut self) -> Self {
        self.0.push_back(None);
        self
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match self.0.pop_front() {
            Some(None) => {
                self.0.push_front(None);
                Poll::Pending
            }
            Some(frame) => Poll::Ready(frame),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

/// A body that never ends and counts what is taken of it.
struct Endless(Rc<Cell<usize>>);

impl Body for Endless {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        self.0.set(self.0.get() + 10_000);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[7; 10_000])))))
    }
}

/// Says that it was dropped.
#[derive(Clone, Default)]
struct Dropped(Rc<Cell<bool>>);

impl Dropped {
    fn guard(&self) -> impl Drop + use<> {
        struct Guard(Rc<Cell<bool>>);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        Guard(Rc::clone(&self.0))
    }

    fn is_true(&self) -> bool {
        self.0.get()
    }
}

type Served = tokio::task::JoinHandle<Result<(), Fault>>;

/// Serves one end of a pipe with `handler` until it ends; gives the other end.
fn served<H, F, B>(limits: Limits, handler: H) -> (DuplexStream, Served)
where
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Result<Response<B>, Fault>> + 'static,
    B: Body<Data = Bytes, Error = Fault> + 'static,
{
    served_until(limits, pending(), handler)
}

/// A clock.
fn clock() -> impl Fn() -> Duration {
    let started = Instant::now();
    move || started.elapsed()
}

/// The same as [`served`], until `drain`.
fn served_until<H, F, B>(
    limits: Limits,
    drain: impl Future<Output = ()> + 'static,
    handler: H,
) -> (DuplexStream, Served)
where
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Result<Response<B>, Fault>> + 'static,
    B: Body<Data = Bytes, Error = Fault> + 'static,
{
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let task = tokio::task::spawn_local(async move {
        serve(ours, Bytes::new(), &limits, &Rc::default(), clock(), drain, handler).await
    });
    (theirs, task)
}

type Sender = h2::client::SendRequest<Bytes>;

/// A client made of `h2`, on `stream`.
async fn h2_client(stream: DuplexStream) -> (Sender, tokio::task::JoinHandle<Result<(), h2::Error>>) {
    let (send, connection) = h2::client::Builder::new().handshake(stream).await.unwrap();
    (send, tokio::task::spawn_local(connection))
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://service{path}")).body(()).unwrap()
}

fn post(path: &str) -> Request<()> {
    Request::post(format!("http://service{path}")).body(()).unwrap()
}

/// The rest of a stream: its bytes and trailers.
async fn all_of(mut stream: h2::RecvStream) -> Result<(Bytes, Option<HeaderMap>), h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok((all.into(), stream.trailers().await?))
}

/// Our client half on one end of a pipe, with its driver running; gives the other end.
async fn connected(limits: Limits) -> (Connection, Served, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let (connection, driver) = Connection::handshake(ours, &limits).await.unwrap();
    (connection, tokio::task::spawn_local(driver), theirs)
}

/// A server made of `h2`, which gives each request to `handler` and is driven on.
fn h2_server<F>(
    stream: DuplexStream,
    handler: impl Fn(Request<h2::RecvStream>, h2::server::SendResponse<Bytes>) -> F + 'static,
) where
    F: Future<Output = ()> + 'static,
{
    tokio::task::spawn_local(async move {
        let mut connection = h2::server::Builder::new().handshake(stream).await.unwrap();
        while let Some(Ok((request, respond))) = connection.accept().await {
            tokio::task::spawn_local(handler(request, respond));
        }
    });
}

/// The parts and body of a request of ours.
fn ours<B>(request: Request<()>, body: B) -> (http::request::Parts, B) {
    (request.into_parts().0, body)
}

/// What a client begins with: the preface and empty SETTINGS.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A frame of raw bytes.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `GET http://a/` as a HEADERS frame that ends head and stream.
fn get_frame(stream: u32) -> Vec<u8> {
    frame(1, 5, stream, &[0x82, 0x86, 0x84, 0x41, 0x01, b'a'])
}

struct RawFrame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

/// The whole frames in `bytes`.
fn frames(mut bytes: &[u8]) -> Vec<RawFrame<'_>> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        frames.push(RawFrame { kind: head[3], flags: head[4], stream, payload });
        bytes = rest;
    }
    frames
}
