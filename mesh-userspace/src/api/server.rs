//! The door over HTTP/1.1: at the admin socket everything, at TCP only what changes nothing.
//!
//! It promises that no client can hold up another: heads, bodies and answers have limits in size and time, and every
//! listener has its own limit of connections, so that the admin socket stays open however busy TCP is.

use super::{
    admin_socket::AdminSocket,
    door::{Door, Kind, Refusal, Response as Answer},
    events::{self, Events, Frames},
    host,
    listen::Listeners,
    page, registration,
    routes::{self, Call, HttpError, Surface},
    scrape::{self, Pieces},
    strangers::{Guest, Strangers},
    stream::Impatient,
    takeover,
    token::Token,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::Body,
    header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use std::{
    convert::Infallible,
    io,
    net::{self, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
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
/// The same of the registry's own listener, where many instances say that they are alive. When half of them are taken,
/// connections are closed after each answer instead of resting until the next request; when all are, one that has shown
/// no token gives way.
const MAX_REGISTRY_CONNECTIONS: usize = 1024;
/// How long a connection there may take to show that it may speak.
const STRANGER_PATIENCE: Duration = Duration::from_secs(3);
/// Connections, of all listeners, on which services or the log are watched. They do not count as others of their listener.
const MAX_WATCHERS: usize = 4096;
/// Connections, of all listeners, on which the whole node is watched: each is sent some hundreds of bytes a second for every
/// endpoint that is busy. They do not count as others of their listener either.
const MAX_VIEWERS: usize = 64;
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
    let watchers = Arc::new(Semaphore::new(MAX_WATCHERS));
    let viewers = Arc::new(Semaphore::new(MAX_VIEWERS));
    let every = |surface| Site {
        door: Arc::clone(&door),
        surface,
        stopped: stopped.clone(),
        watchers: Arc::clone(&watchers),
        viewers: Arc::clone(&viewers),
        room: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        strangers: None,
        place: Place::default(),
        guest: None,
        is_loopback: false,
    };
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

/// The registry's own listener.
#[derive(Debug)]
pub struct RegistryDoor {
    /// It listens already.
    pub listener: net::TcpListener,
    /// The token that must be shown; `None`: none must.
    token: Option<Arc<Token>>,
}

impl RegistryDoor {
    /// The door at this listener, for whoever shows the token in a file, if one is named.
    #[must_use]
    pub fn new(listener: net::TcpListener, token_file: Option<&Path>) -> Self {
        Self { listener, token: token_file.map(|path| Arc::new(Token::new(path))) }
    }

    /// The file with the token that must be shown; `None`: none must.
    #[must_use]
    pub fn token_file(&self) -> Option<&Path> {
        self.token.as_ref().map(|token| token.path())
    }

    /// Why nobody is let in. Looks at the file.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.token.as_ref()?.trouble()
    }

    /// Listens.
    ///
    /// # Errors
    /// The system's.
    pub fn bind(address: SocketAddr) -> io::Result<net::TcpListener> {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    }
}

/// How many may wait to be accepted at the registry's listener.
const BACKLOG: i32 = 1024;

/// Serves the registry at the door that is wanted at each moment, until `stop` is done.
pub async fn serve_registry(
    mut wanted: watch::Receiver<Option<Arc<RegistryDoor>>>,
    door: Arc<dyn Door>,
    stop: impl Future<Output = ()>,
) {
    let mut stop = std::pin::pin!(stop);
    let mut closing = JoinSet::new();
    loop {
        let current = wanted.borrow_and_update().clone();
        let (stopping, stopped) = watch::channel(false);
        if let Some(registry) = current {
            let listener = registry.listener.try_clone().and_then(|listener| {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener)
            });
            let site = Site {
                door: Arc::clone(&door),
                surface: Surface::Registry(registry.token.clone()),
                stopped,
                watchers: Arc::new(Semaphore::new(0)),
                viewers: Arc::new(Semaphore::new(0)),
                room: Arc::new(Semaphore::new(MAX_REGISTRY_CONNECTIONS)),
                strangers: Some(Arc::default()),
                place: Place::default(),
                guest: None,
                is_loopback: false,
            };
            match listener {
                Ok(listener) => drop(closing.spawn(listen(Some(listener), site))),
                Err(e) => tracing::error!("the registry is not served at discovery.registry.listen: {e}"),
            }
        }
        // Fails only where nothing is served.
        let end = tokio::select! {
            changed = wanted.changed() => changed.is_err(),
            () = &mut stop => true,
        };
        let _ = stopping.send(true);
        if end {
            while closing.join_next().await.is_some() {}
            return;
        }
        while closing.try_join_next().is_some() {}
    }
}

/// What the connections of one listener share.
#[derive(Clone)]
struct Site {
    door: Arc<dyn Door>,
    surface: Surface,
    stopped: watch::Receiver<bool>,
    /// For connections on which something is watched.
    watchers: Arc<Semaphore>,
    /// For those on which the whole node is.
    viewers: Arc<Semaphore>,
    /// For all others.
    room: Arc<Semaphore>,
    /// Those of them that have shown nothing, where they give way to others.
    strangers: Option<Arc<Strangers>>,
    /// The place of this connection.
    place: Place,
    /// This connection as one that may have to give way.
    guest: Option<Arc<Guest>>,
    /// Whether it came to a loopback address.
    is_loopback: bool,
}

/// A connection's place among those of its listener, until it is given back.
type Place = Arc<Mutex<Option<OwnedSemaphorePermit>>>;

impl Site {
    /// Whether a connection had better not rest here until its next request.
    fn is_busy(&self) -> bool {
        matches!(self.surface, Surface::Registry(_)) && self.room.available_permits() < MAX_REGISTRY_CONNECTIONS / 2
    }
}

/// A listener of any kind.
trait Accept {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;
    async fn accept(&self) -> io::Result<Self::Stream>;

    /// Whether a connection came by TCP to a loopback address.
    fn is_loopback(_: &Self::Stream) -> bool {
        false
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;
    async fn accept(&self) -> io::Result<TcpStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }

    fn is_loopback(stream: &TcpStream) -> bool {
        stream.local_addr().is_ok_and(|local| local.ip().to_canonical().is_loopback())
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
    let mut connections = JoinSet::new();
    let mut stopped = site.stopped.clone();
    {
        // It goes on where it was when something else happens: it may have accepted somebody already.
        let mut accepting = std::pin::pin!(accept(&listener, &site));
        loop {
            let accepted = tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => break,
                Some(_) = connections.join_next() => continue,
                accepted = accepting.as_mut() => accepted,
            };
            accepting.set(accept(&listener, &site));
            match accepted {
                Ok((stream, place)) => {
                    let guest = site.strangers.as_ref().map(|strangers| Arc::new(strangers.welcome()));
                    let is_loopback = L::is_loopback(&stream);
                    let place = Arc::new(Mutex::new(Some(place)));
                    connections.spawn(converse(stream, Site { place, guest, is_loopback, ..site.clone() }));
                }
                // Usually no file descriptors are left. They come back when connections end, and asking again at once
                // would only burn the processor.
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }
    // No new connections from here on; the socket's file goes as well, so that nobody is left waiting at it.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// The next connection, once there is room for it.
async fn accept<L: Accept>(listener: &L, site: &Site) -> io::Result<(L::Stream, OwnedSemaphorePermit)> {
    let place = || Arc::clone(&site.room).acquire_owned();
    let Some(strangers) = &site.strangers else {
        let place = place().await.map_err(io::Error::other)?;
        return Ok((listener.accept().await?, place));
    };
    let stream = listener.accept().await?;
    if site.room.available_permits() == 0 {
        strangers.give_way();
    }
    Ok((stream, place().await.map_err(io::Error::other)?))
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
    let must_leave = async {
        match &site.guest {
            Some(guest) => guest.must_leave(STRANGER_PATIENCE).await,
            None => std::future::pending().await,
        }
    };
    // What goes wrong on a connection is the client's affair; what the door refuses has been answered.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = must_leave => return,
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
    // Whoever was accepted gets an answer: a connection that has asked nothing yet would be closed at once.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = timeout(LAST_QUESTION, asked.notified()) => connection.as_mut().graceful_shutdown(),
    }
    let _ = timeout(GRACE, connection).await;
}

/// What answers are made of: a whole, events as they happen, or a long text piece by piece.
type Content = Either<Full<Bytes>, Either<Frames, Pieces>>;

async fn respond<B>(request: Request<B>, site: &Site) -> Response<Content>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let closes = site.is_busy();
    let result = match permitted(&request, site) {
        Ok(Call::Write(change)) => match body(request).await.and_then(|body| change.read(&body)) {
            Ok(request) => ask(request, site).await,
            Err(e) => Err(e),
        },
        Ok(Call::Register { service, id }) => {
            match body(request).await.and_then(|body| registration::read(service, id, &body)) {
                Ok(registration) => ask(super::Request::Register(registration), site).await,
                Err(e) => Err(e),
            }
        }
        Ok(Call::Ask(request)) => ask(request, site).await,
        Ok(Call::Watch { service }) => {
            watch(site, site.door.watch(service, events::last_event(request.headers()))).await
        }
        Ok(Call::WatchLogs(wanted)) => {
            watch(site, site.door.follow_logs(wanted, events::last_event(request.headers()))).await
        }
        Ok(Call::Live) => watch_live(site),
        Ok(Call::Takeover) => takeover::begin(request, &site.door).map(|response| response.map(Either::Left)),
        Ok(Call::Page) => Ok(page::answer(request.headers()).map(|body| Either::Left(Full::new(body)))),
        Ok(Call::Metrics) => {
            let text = scrape::body(&site.door, request.version()).await;
            text.map(metrics).map_err(HttpError::from)
        }
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
    let mut response = result.unwrap_or_else(|e| error(&e));
    if closes {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// What a request asks for, if whoever asks may ask for it here.
fn permitted<B>(request: &Request<B>, site: &Site) -> Result<Call, HttpError> {
    if site.is_loopback {
        host::check(request.uri(), request.headers())?;
    }
    if let Surface::Registry(Some(token)) = &site.surface {
        token.check(request.headers())?;
    }
    if let Some(guest) = &site.guest {
        guest.is_known();
    }
    let uri = request.uri();
    routes::parse(&site.surface, request.method(), uri.path(), uri.query())
}

/// What `source` becomes, event by event.
async fn watch(
    site: &Site,
    source: impl Future<Output = Result<impl Events, Refusal>>,
) -> Result<Response<Content>, HttpError> {
    let full = |_| Refusal::new(Kind::Unavailable, format!("{MAX_WATCHERS} connections watch already"));
    let place = Arc::clone(&site.watchers).try_acquire_owned().map_err(full)?;
    Ok(goes_on(source.await?, place, site))
}

fn watch_live(site: &Site) -> Result<Response<Content>, HttpError> {
    let full = |_| Refusal::new(Kind::Unavailable, format!("{MAX_VIEWERS} connections watch the node already"));
    let place = Arc::clone(&site.viewers).try_acquire_owned().map_err(full)?;
    Ok(goes_on(site.door.live(), place, site))
}

/// An answer that goes on until one of the two has enough of it.
fn goes_on(source: impl Events, place: OwnedSemaphorePermit, site: &Site) -> Response<Content> {
    // Who watches takes nobody's place who asks.
    drop(site.place.lock().unwrap_or_else(PoisonError::into_inner).take());
    let frames = events::frames(source, site.stopped.clone(), place);
    let mut response = headed(StatusCode::OK, "text/event-stream", Either::Right(Either::Left(frames)));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The body of a request that writes.
async fn body<B>(request: Request<B>) -> Result<Bytes, HttpError>
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
        Ok(Ok(body)) => Ok(body.to_bytes()),
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
async fn ask(request: super::Request, site: &Site) -> Result<Response<Content>, HttpError> {
    let door = Arc::clone(&site.door);
    let answer = tokio::spawn(async move { door.handle(request).await }).await;
    let mut answer: Answer = answer.map_err(|e| Refusal::internal(format!("the request was not finished: {e}")))??;
    if matches!(site.surface, Surface::ReadOnly { .. }) {
        answer = site.door.without_secrets(answer);
    }
    let status = match &answer {
        Answer::Registered(registered) if registered.created => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    Ok(json(status, &answer))
}

fn metrics(text: Either<Full<Bytes>, Pieces>) -> Response<Content> {
    let content = match text {
        Either::Left(whole) => Either::Left(whole),
        Either::Right(pieces) => Either::Right(Either::Right(pieces)),
    };
    headed(StatusCode::OK, "text/plain; version=0.0.4", content)
}

const fn or_unavailable(ok: bool) -> StatusCode {
    if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Response<Content> {
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

fn error(e: &HttpError) -> Response<Content> {
    let body = ErrorBody { error: ErrorDetail { kind: e.kind, message: &e.message } };
    let mut response = json(e.status, &body);
    if let Some(allow) = e.allow {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    }
    if e.status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn response(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Content> {
    headed(status, content_type, Either::Left(Full::new(body)))
}

fn headed(status: StatusCode, content_type: &'static str, content: Content) -> Response<Content> {
    let mut response = Response::new(content);
    *response.status_mut() = status;
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
