//! The other end of the admin socket.

use super::{
    door::Request,
    events::{Parser, Received},
    line::Line,
    logs::Logs,
    routes::{self, Written},
    takeover,
    types::{
        Changed, Circuit, Connection, Endpoint, Explanation, LogLevels, LogLine, Registered, RegistryInstance, Service,
        Status, Trace, TraceSummary,
    },
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, StatusCode,
    body::Incoming,
    client::conn::http1,
    header::{CONNECTION, HOST, UPGRADE},
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{net::UnixStream, time::timeout};

/// More than this is no answer of the daemon: some 400 bytes for each of a million endpoints.
const MAX_ANSWER: usize = 512 << 20;
/// How long a daemon that is alive may take to accept.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long it may take to answer.
const READ_PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to change something; a reload of a large configuration takes its time.
const WRITE_PATIENCE: Duration = Duration::from_secs(120);

/// Asks the daemon behind an admin socket. Every call is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    patience: Option<Duration>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no daemon at {}: {why}", socket.display())]
    NotReachable {
        /// The admin socket.
        socket: PathBuf,
        /// What was found instead.
        why: String,
    },
    /// The socket may not be opened.
    #[error("not permitted to open the admin socket {}: only the user who runs the daemon may; try sudo", socket.display())]
    NotPermitted {
        /// The admin socket.
        socket: PathBuf,
    },
    /// The daemon accepted and did not answer. A change may have been made.
    #[error("the daemon at {} gave no answer: {why}", socket.display())]
    NoAnswer {
        /// The admin socket.
        socket: PathBuf,
        /// How it ended.
        why: String,
    },
    /// The daemon says no.
    #[error("{message}")]
    Refused {
        /// The word for the kind of refusal, as in [`Kind`](super::Kind).
        kind: String,
        /// The reason.
        message: String,
    },
    /// What answered does not speak as the daemon does, or is of another version.
    #[error("the answer of {} is not understood: {why}; are daemon and command of the same version?", socket.display())]
    Malformed {
        /// The admin socket.
        socket: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl ClientError {
    /// Whether the daemon could not be spoken to at all; otherwise it refused, or spoke nonsense.
    #[must_use]
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::NotReachable { .. } | Self::NotPermitted { .. } | Self::NoAnswer { .. })
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Deserialize)]
struct ErrorDetail {
    kind: String,
    message: String,
}

impl Client {
    /// A client of the daemon behind this socket. Nothing is opened yet.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), patience: None }
    }

    /// Waits this long for each answer, instead of 30 seconds (120 for changes).
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The daemon as a whole.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.call(&Request::Status).await
    }

    /// Services, all or one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn services(&self, name: Option<String>) -> Result<Vec<Service>, ClientError> {
        self.call(&Request::Services { name }).await
    }

    /// Endpoints, of all services or one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn endpoints(&self, service: Option<String>) -> Result<Vec<Endpoint>, ClientError> {
        self.call(&Request::Endpoints { service }).await
    }

    /// Live connections. `request` is a [`Request::Connections`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn connections(&self, request: &Request) -> Result<Vec<Connection>, ClientError> {
        self.call(request).await
    }

    /// Circuits, of all services or one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn circuits(&self, service: Option<String>) -> Result<Vec<Circuit>, ClientError> {
        self.call(&Request::Circuits { service }).await
    }

    /// Lines of the log. `request` is a [`Request::Logs`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn logs(&self, request: &Request) -> Result<Vec<LogLine>, ClientError> {
        self.call(request).await
    }

    /// How much which module logs.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn log_levels(&self) -> Result<LogLevels, ClientError> {
        self.call(&Request::LogLevels).await
    }

    /// What a connection would meet. `request` is a [`Request::Explain`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn explain(&self, request: &Request) -> Result<Explanation, ClientError> {
        self.call(request).await
    }

    /// Traces. `request` is a [`Request::Traces`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn traces(&self, request: &Request) -> Result<Vec<TraceSummary>, ClientError> {
        self.call(request).await
    }

    /// One trace.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn trace(&self, id: String) -> Result<Trace, ClientError> {
        self.call(&Request::Trace { id }).await
    }

    /// The running configuration.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn config(&self) -> Result<serde_json::Value, ClientError> {
        self.call(&Request::ConfigDump).await
    }

    /// Makes a change. `request` is one that writes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn change(&self, request: &Request) -> Result<Changed, ClientError> {
        self.call(request).await
    }

    /// Registers an instance. `request` is a [`Request::Register`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn register(&self, request: &Request) -> Result<Registered, ClientError> {
        self.call(request).await
    }

    /// Instances in the registry, all or those of a service.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn registry(&self, service: Option<String>) -> Result<Vec<RegistryInstance>, ClientError> {
        self.call(&Request::Registry { service }).await
    }

    /// Watches a service, from the event after `after` on, if that can be had, and else from a snapshot on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn watch(&self, service: &str, after: Option<u64>) -> Result<Events, ClientError> {
        self.events(routes::watch(service), after).await
    }

    /// Follows lines of the log: those that are kept, and those that come; or those after the event `after`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn follow_logs(&self, wanted: &Logs, after: Option<u64>) -> Result<Events, ClientError> {
        self.events(routes::follow(wanted), after).await
    }

    /// Follows the node live: a snapshot, then what is different each second.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn live(&self) -> Result<Events, ClientError> {
        self.events(routes::LIVE.to_owned(), None).await
    }

    /// What is told at `path`, whatever it is: its status and its bytes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get(&self, path: &str) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = self.connect().await?;
        let patience = self.patience.unwrap_or(READ_PATIENCE);
        let written = Written { method: Method::GET, path_and_query: path.to_owned(), body: Vec::new() };
        let exchange = self.exchange(stream, written);
        timeout(patience, exchange).await.unwrap_or_else(|_| Err(self.no_answer(format!("nothing in {patience:?}"))))
    }

    async fn events(&self, path: String, after: Option<u64>) -> Result<Events, ClientError> {
        let stream = self.connect().await?;
        let patience = self.patience.unwrap_or(READ_PATIENCE);
        let watch = self.begin_watch(stream, path, after);
        timeout(patience, watch).await.unwrap_or_else(|_| Err(self.no_answer(format!("nothing in {patience:?}"))))
    }

    async fn begin_watch(&self, stream: UnixStream, path: String, after: Option<u64>) -> Result<Events, ClientError> {
        let broken = |e: hyper::Error| self.broken(&e);
        let mut request = hyper::Request::get(path).header(HOST, "mesh");
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let request = request.body(Full::<Bytes>::default());
        let request = request.map_err(|e| self.malformed(format!("the request: {e}")))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(broken)?;
        if response.status() == StatusCode::OK {
            return Ok(Events { client: self.clone(), body: response.into_body(), parser: Parser::default() });
        }
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|e| self.no_answer(format!("it ended in the middle: {e}")))?.to_bytes();
        match self.understand::<serde_json::Value>(status, &body) {
            Ok(_) => Err(self.malformed(format!("HTTP status {status} to a watch"))),
            Err(e) => Err(e),
        }
    }

    /// Asks the daemon to let this process take over. Nothing has been said on the line yet: this side begins.
    ///
    /// # Errors
    /// [`ClientError`]; `Refused` with `not_found` by a daemon that knows of no takeover.
    pub async fn take_over(&self) -> Result<Line, ClientError> {
        let stream = self.connect().await?;
        let patience = self.patience.unwrap_or(READ_PATIENCE);
        let upgrade = self.upgrade(stream);
        timeout(patience, upgrade).await.unwrap_or_else(|_| Err(self.no_answer(format!("nothing in {patience:?}"))))
    }

    async fn upgrade(&self, stream: UnixStream) -> Result<Line, ClientError> {
        let broken = |e: hyper::Error| self.broken(&e);
        let request = hyper::Request::post(routes::TAKEOVER)
            .header(HOST, "mesh")
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, takeover::PROTOCOL)
            .body(Full::<Bytes>::default())
            .map_err(|e| self.malformed(format!("the request: {e}")))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let connection = tokio::spawn(connection.with_upgrades());
        let response = sender.send_request(request).await.map_err(broken)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|e| self.no_answer(format!("it ended in the middle: {e}")))?.to_bytes();
            // Only the 101 leads anywhere.
            return match self.understand::<serde_json::Value>(status, &body) {
                Ok(_) => Err(self.malformed(format!("HTTP status {status} to a takeover"))),
                Err(e) => Err(e),
            };
        }
        let upgraded = hyper::upgrade::on(response).await.map_err(broken)?;
        drop(connection);
        let parts = upgraded.downcast::<TokioIo<UnixStream>>().map_err(|_| self.malformed("it is no line"))?;
        let stream = parts.io.into_inner().into_std();
        stream.and_then(Line::new).map_err(|e| self.no_answer(e.to_string()))
    }

    async fn call<T: DeserializeOwned>(&self, request: &Request) -> Result<T, ClientError> {
        let stream = self.connect().await?;
        let patience = self.patience.unwrap_or(if request.is_write() { WRITE_PATIENCE } else { READ_PATIENCE });
        match timeout(patience, self.converse(stream, request)).await {
            Ok(answer) => answer,
            Err(_) if request.is_write() => {
                Err(self.no_answer(format!("nothing in {patience:?}; the change may still be made")))
            }
            Err(_) => Err(self.no_answer(format!("nothing in {patience:?}"))),
        }
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        let unreachable = |why: String| ClientError::NotReachable { socket: self.socket.clone(), why };
        match timeout(CONNECT_PATIENCE, UnixStream::connect(&self.socket)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(e)) => Err(match e.kind() {
                ErrorKind::NotFound => unreachable(
                    "there is no such socket; is the daemon running, and is this its admin.socket (--admin-socket)?"
                        .to_owned(),
                ),
                ErrorKind::ConnectionRefused => {
                    unreachable("nobody listens: the daemon that made the socket is gone".to_owned())
                }
                ErrorKind::PermissionDenied => ClientError::NotPermitted { socket: self.socket.clone() },
                _ => unreachable(e.to_string()),
            }),
            Err(_) => Err(unreachable("it does not accept connections".to_owned())),
        }
    }

    async fn converse<T: DeserializeOwned>(&self, stream: UnixStream, request: &Request) -> Result<T, ClientError> {
        let written = routes::write(request).map_err(|e| self.malformed(format!("the request: {e}")))?;
        let (status, body) = self.exchange(stream, written).await?;
        self.understand(status, &body)
    }

    async fn exchange(&self, stream: UnixStream, written: Written) -> Result<(StatusCode, Bytes), ClientError> {
        let broken = |e: hyper::Error| self.broken(&e);
        let request = hyper::Request::builder()
            .method(written.method)
            .uri(written.path_and_query)
            .header(HOST, "mesh")
            .body(Full::new(Bytes::from(written.body)))
            .map_err(|e| self.malformed(format!("the request: {e}")))?;

        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|e| self.no_answer(format!("it ended in the middle: {e}")))?;
            Ok((status, body.to_bytes()))
        };
        // The connection does the reading and writing; it has nothing to say that the exchange does not.
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            result = &mut exchange => result,
            _ = connection => exchange.await,
        }
    }

    fn understand<T: DeserializeOwned>(&self, status: StatusCode, body: &[u8]) -> Result<T, ClientError> {
        if status == StatusCode::OK || status == StatusCode::CREATED {
            return serde_json::from_slice(body).map_err(|e| self.malformed(e.to_string()));
        }
        match serde_json::from_slice(body) {
            Ok(ErrorBody { error: ErrorDetail { kind, message } }) => Err(ClientError::Refused { kind, message }),
            Err(_) => Err(self.malformed(format!("HTTP status {status} without a reason"))),
        }
    }

    fn broken(&self, e: &hyper::Error) -> ClientError {
        if e.is_parse() { self.malformed(e.to_string()) } else { self.no_answer(describe(e)) }
    }

    fn no_answer(&self, why: impl Into<String>) -> ClientError {
        ClientError::NoAnswer { socket: self.socket.clone(), why: why.into() }
    }

    fn malformed(&self, why: impl Into<String>) -> ClientError {
        ClientError::Malformed { socket: self.socket.clone(), why: why.into() }
    }
}

/// Events of the daemon, as they happen.
#[derive(Debug)]
pub struct Events {
    client: Client,
    body: Incoming,
    parser: Parser,
}

/// The daemon says something at least every 15 s.
const SILENCE: Duration = Duration::from_secs(60);

impl Events {
    /// The next event, once there is one.
    ///
    /// # Errors
    /// [`ClientError`] once the daemon has ended.
    pub async fn next(&mut self) -> Result<Received, ClientError> {
        loop {
            if let Some(event) = self.parser.next() {
                return Ok(event);
            }
            match timeout(SILENCE, self.body.frame()).await {
                Ok(Some(Ok(frame))) => self.parser.feed(frame.data_ref().map_or(&[], |data| &data[..])),
                Ok(Some(Err(e))) => return Err(self.client.broken(&e)),
                Ok(None) => return Err(self.client.no_answer("it ended")),
                Err(_) => return Err(self.client.no_answer(format!("nothing in {SILENCE:?}"))),
            }
        }
    }
}

/// hyper's words and, where there is one, the system's.
fn describe(e: &hyper::Error) -> String {
    match std::error::Error::source(e).and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(source) => format!("{e}: {source}"),
        None => e.to_string(),
    }
}
