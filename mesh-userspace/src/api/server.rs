//! The door over HTTP/1.1: at the admin socket everything, at TCP only what changes nothing.
//!
//! It promises that no client can hold up another: heads, bodies and answers have limits in size and time, and every
//! listener has its own limit of connections, so that the admin socket stays open however busy TCP is.

use super::{
    admin_socket::AdminSocket,
    door::{Door, Refusal, Response as Answer},
    html::PAGE,
    listen::Listeners,
    routes::{self, Call, Change, HttpError, Surface},
    stream::Impatient,
    takeover,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::Body,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use std::{convert::Infallible, io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{Notify, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

/// The largest body of a request that writes.
pub const MAX_BODY: usize = 1 << 20;
/// The largest head of a request.
const MAX_HEAD: usize = 16 << 10;
/// How long a head may take, and how long a connection may rest between two requests.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// How long a body may take.
const BODY_PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may leave an answer unread.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// Connections of one listener at a time; more wait to be accepted. A connection costs some tens of KiB.
const MAX_CONNECTIONS: usize = 128;
/// How long a connection that was just accepted may take to ask its one question once the server is told to stop.
const LAST_QUESTION: Duration = Duration::from_secs(1);
/// How long requests under way may take once the server is told to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Serves until `stop` is done, then lets requests under way finish (5 seconds at most) and removes the socket's file.
///
/// The admin socket belongs to traffic's threads in no way: run it on a runtime of its own.
pub async fn serve(listeners: Listeners, door: Arc<dyn Door>, stop: impl Future<Output = ()>) {
    let Listeners { tcp, metrics, socket } = listeners;
    let path = socket.as_ref().map(|socket| socket.path().to_owned());
    let (stopping, stopped) = watch::channel(false);
    let every = |surface| Site { door: Arc::clone(&door), surface, stopped: stopped.clone() };
    let everything = async {
        tokio::join!(
            listen(tcp, every(Surface::ReadOnly { socket: path })),
            listen(metrics, every(Surface::MetricsOnly)),
            listen(socket, every(Surface::ReadWrite)),
        );
    };
    let stop = async {
        stop.await;
        // Fails only if nobody listens any more.
        let _ = stopping.send(true);
    };
    tokio::join!(everything, stop);
}

/// What the connections of one listener share.
#[derive(Clone)]
struct Site {
    door: Arc<dyn Door>,
    surface: Surface,
    stopped: watch::Receiver<bool>,
}

/// A listener of any kind.
trait Accept {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;
    async fn accept(&self) -> io::Result<Self::Stream>;
}

impl Accept for TcpListener {
    type Stream = TcpStream;
    async fn accept(&self) -> io::Result<TcpStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;
    async fn accept(&self) -> io::Result<UnixStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }
}

impl Accept for AdminSocket {
    type Stream = UnixStream;
    async fn accept(&self) -> io::Result<UnixStream> {
        Accept::accept(&self.listener).await
    }
}

/// Accepts until told to stop, then waits for what is under way.
async fn listen<L: Accept>(listener: Option<L>, site: Site) {
    let Some(listener) = listener else { return };
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut stopped = site.stopped.clone();
    loop {
        let accepted = tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &room) => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                let site = site.clone();
                connections.spawn(async move {
                    converse(stream, site).await;
                    drop(place);
                });
            }
            // Usually no file descriptors are left. They come back when connections end, and asking again at once
            // would only burn the processor.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
    // No new connections from here on; the socket's file goes as well, so that nobody is left waiting at it.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept<L: Accept>(
    listener: &L,
    room: &Arc<Semaphore>,
) -> io::Result<(L::Stream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    Ok((listener.accept().await?, place))
}

/// One connection from its first request to its last.
async fn converse<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S, site: Site) {
    let mut stopped = site.stopped.clone();
    let asked = Arc::new(Notify::new());
    let service = service_fn(|request| {
        asked.notify_one();
        let site = site.clone();
        async move { Ok::<_, Infallible>(respond(request, &site).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_header_size(MAX_HEAD)
        // A client that has said all it wants to say may close its half and still read the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(Impatient::new(stream, WRITE_PATIENCE)), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    // What goes wrong on a connection is the client's affair; what the door refuses has been answered.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
    // Whoever was accepted gets an answer: a connection that has asked nothing yet would be closed at once.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = timeout(LAST_QUESTION, asked.notified()) => connection.as_mut().graceful_shutdown(),
    }
    let _ = timeout(GRACE, connection).await;
}

async fn respond<B>(request: Request<B>, site: &Site) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let uri = request.uri();
    let result = match routes::parse(&site.surface, request.method(), uri.path(), uri.query()) {
        Ok(Call::Write(change)) => match read(change, request).await {
            Ok(request) => ask(request, &site.door).await,
            Err(e) => Err(e),
        },
        Ok(Call::Ask(request)) => ask(request, &site.door).await,
        Ok(Call::Takeover) => takeover::begin(request, &site.door),
        Ok(Call::Page) => Ok(response(StatusCode::OK, "text/html; charset=utf-8", Bytes::from_static(PAGE.as_bytes()))),
        Ok(Call::Metrics) => metrics(&site.door).await,
        Ok(Call::Health) => {
            let health = site.door.health();
            Ok(json(or_unavailable(health.ok), &health))
        }
        Ok(Call::Ready) => {
            let ready = site.door.ready();
            Ok(json(or_unavailable(ready.ready), &ready))
        }
        Err(e) => Err(e),
    };
    result.unwrap_or_else(|e| error(&e))
}

/// The request that writes, its body read.
async fn read<B>(change: Change, request: Request<B>) -> Result<super::Request, HttpError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let too_large = || {
        let message = format!("the body is larger than {MAX_BODY} bytes");
        HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    };
    // Refused before it is sent, where the client says how much it will be.
    if request.body().size_hint().lower() > u64::try_from(MAX_BODY).unwrap_or(u64::MAX) {
        return Err(too_large());
    }
    let body = Limited::new(request.into_body(), MAX_BODY).collect();
    match timeout(BODY_PATIENCE, body).await {
        Ok(Ok(body)) => change.read(&body.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(e)) => Err(Refusal::invalid(format!("the body cannot be read: {e}")).into()),
        Err(_) => {
            let message = format!("the body did not come within {} s", BODY_PATIENCE.as_secs());
            Err(HttpError::new(StatusCode::REQUEST_TIMEOUT, "timeout", message))
        }
    }
}

/// The door's answer. It runs as a task of its own: if the client goes away a change is still made to its end, and if
/// the door panics the client still hears of it.
async fn ask(request: super::Request, door: &Arc<dyn Door>) -> Result<Response<Full<Bytes>>, HttpError> {
    let door = Arc::clone(door);
    let answer = tokio::spawn(async move { door.handle(request).await }).await;
    let answer: Answer = answer.map_err(|e| Refusal::internal(format!("the request was not finished: {e}")))??;
    Ok(json(StatusCode::OK, &answer))
}

async fn metrics(door: &Arc<dyn Door>) -> Result<Response<Full<Bytes>>, HttpError> {
    let door = Arc::clone(door);
    let text = tokio::task::spawn_blocking(move || door.metrics()).await;
    let text = text.map_err(|e| Refusal::internal(format!("the metrics were not collected: {e}")))??;
    Ok(response(StatusCode::OK, "text/plain; version=0.0.4", text.into()))
}

const fn or_unavailable(ok: bool) -> StatusCode {
    if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(mut text) => {
            // A line of its own at the prompt after `curl`.
            text.push(b'\n');
            response(status, "application/json", text.into())
        }
        Err(e) => response(
            StatusCode::INTERNAL_SERVER_ERROR,
            "text/plain; charset=utf-8",
            format!("the answer cannot be written as JSON: {e}\n").into(),
        ),
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorDetail<'a>,
}

#[derive(Serialize)]
struct ErrorDetail<'a> {
    kind: &'a str,
    message: &'a str,
}

fn error(e: &HttpError) -> Response<Full<Bytes>> {
    let body = ErrorBody { error: ErrorDetail { kind: e.kind, message: &e.message } };
    let mut response = json(e.status, &body);
    if let Some(allow) = e.allow {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    }
    response
}

fn response(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
