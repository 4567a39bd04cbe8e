//! Accepting: who connects, what for, and what is spoken.

use super::{
    answer::{self, Manner},
    detect::{Spoken, spoken},
    exchange::Client,
    hop::Origin,
    http1::{self, Server},
    net::Sockets,
    reason::Reason,
    record::Record,
    serve, tunnel,
    worker::{Open, Worker},
};
use crate::model::Protocol;
use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use std::{
    fmt,
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};
use tokio::net::{TcpListener, TcpStream};

/// How long a client may take from its first byte until it is known what it speaks.
const FIRST_BYTES: Duration = Duration::from_secs(10);

/// How long a client may say nothing that does not belong to a service.
const SILENCE: Duration = Duration::from_secs(60);

/// Whom a captured connection was for.
pub trait Originals: fmt::Debug + Send + Sync {
    /// The VIP that `client`, in the network namespace of this listener, dialled.
    fn vip(&self, namespace: u64, client: SocketAddr) -> Option<SocketAddr>;
}

/// A listening socket for a worker.
#[derive(Debug)]
pub struct Listener {
    /// It listens, and does not block.
    pub socket: std::net::TcpListener,
    /// Makes upstream sockets for whom comes by it.
    pub sockets: Arc<dyn Sockets>,
    /// Whom captured connections were for; `None`: it is the explicit proxy's.
    pub captures: Option<Arc<dyn Originals>>,
}

/// Accepts until the worker drains.
pub(super) async fn accept(worker: Rc<Worker>, listener: Listener) {
    let Listener { socket, sockets, captures } = listener;
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(e) => return tracing::error!("a listener cannot be used: {e}"),
    };
    let mut complained = false;
    let alarm = worker.clock.alarm();
    loop {
        // Whoever waits already when the worker drains is still let in.
        let accepted = alarm.before(poll_fn(|cx| match socket.poll_accept(cx) {
            Poll::Pending if worker.draining.get() => Poll::Ready(None),
            accepted => accepted.map(Some),
        }));
        let Ok(Some(accepted)) = accepted.await else { return };
        match accepted {
            Ok((stream, address)) => {
                let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                let vip = captures.as_ref().map(|originals| originals.vip(sockets.namespace(), address));
                let Some(vip) = vip.map_or(Some(None), |vip| vip.map(Some)) else {
                    // Nobody was sent here: somebody dialled the port itself.
                    tracing::debug!(client = %address, "a connection to the capture port that was not captured");
                    continue;
                };
                if !worker.shared.has_room() {
                    worker.shared.rejected.count(Reason::TooManyConnections);
                    if !std::mem::replace(&mut complained, true) {
                        tracing::warn!(
                            "there are as many connections as descriptors allow (LimitNOFILE): more are reset"
                        );
                    }
                    // As if nobody had listened: what it speaks is not known yet.
                    let _ = stream.set_zero_linger();
                    continue;
                }
                complained = false;
                let client = Client { address, origin: origin(address.ip()), sockets: Arc::clone(&sockets), vip };
                let worker = Rc::clone(&worker);
                tokio::task::spawn_local(async move {
                    // Pinned here: passed by value it would be in this task twice.
                    worker.clock.by_turns(pin!(connection(&worker, client, stream))).await;
                });
            }
            // The client's doing, or a moment's.
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(e) => {
                if !std::mem::replace(&mut complained, true) {
                    tracing::warn!("connections cannot be accepted: {e}");
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

fn origin(ip: IpAddr) -> Origin {
    // An address is a valid header value.
    let address = HeaderValue::from_str(&ip.to_string()).unwrap_or(HeaderValue::from_static("unknown"));
    Origin { address }
}

/// Serves a connection to its end.
async fn connection(worker: &Rc<Worker>, client: Client, mut stream: TcpStream) {
    let _open = Open::new(&worker.shared);
    let service = client.service(worker);
    let protocol = service.as_ref().map_or(Protocol::Http, |service| service.facts.protocol);
    let patience = match (&service, protocol) {
        (Some(service), Protocol::Auto | Protocol::Tcp) => service.http().detect_timeout,
        (Some(service), _) => service.http().idle_http,
        (None, _) => SILENCE,
    };
    let (spoken, read) = match first_bytes(worker, &mut stream, patience).await {
        Ok(first) => first,
        Err(_) => return,
    };
    match spoken {
        Spoken::Http1 => serve::http1(worker, client, stream, read).await,
        Spoken::Http2 => Box::pin(serve::http2(worker, client, stream, read)).await,
        // Protocols in which the server speaks first begin with nothing.
        Spoken::Other | Spoken::Unsure => match service {
            Some(service) if matches!(protocol, Protocol::Auto | Protocol::Tcp) => {
                Box::pin(tunnel::opaque(worker, &client, &service, stream, read)).await;
            }
            // It never said anything.
            _ if read.is_empty() => {}
            _ => Box::pin(refuse(worker, &client, stream, Reason::NotHttp)).await,
        },
    }
}

/// What a client says first, until it is known what it speaks.
async fn first_bytes(worker: &Worker, stream: &mut TcpStream, patience: Duration) -> io::Result<(Spoken, Bytes)> {
    let alarm = worker.clock.alarm();
    alarm.set(patience);
    let mut read = BytesMut::new();
    loop {
        // No room is taken for a client that says nothing.
        let readable = alarm.before(poll_fn(|cx| match stream.poll_read_ready(cx) {
            Poll::Pending if worker.closes_idle() && read.is_empty() => Poll::Ready(None),
            ready => ready.map(Some),
        }));
        match readable.await {
            Err(_) | Ok(None) => return Ok((Spoken::Unsure, read.freeze())),
            Ok(Some(ready)) => ready?,
        }
        if read.is_empty() && patience > FIRST_BYTES {
            alarm.set(FIRST_BYTES);
        }
        read.reserve(1024);
        match stream.try_read_buf(&mut read) {
            Ok(0) if read.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            // All that comes; what it is can be told only if it is something else.
            Ok(0) => return Ok((Spoken::Other, read.freeze())),
            Ok(_) => match spoken(&read) {
                Spoken::Unsure => {}
                sure => return Ok((sure, read.freeze())),
            },
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}

/// Tells a client that what it said is no HTTP, in the way that most understand.
async fn refuse(worker: &Rc<Worker>, client: &Client, stream: TcpStream, reason: Reason) {
    let answer = answer::because(reason, Manner::Http, Record::of_malformed(worker, client));
    let mut server = Server::new(stream, Bytes::new(), &http1::Limits::default());
    let said = async {
        let _ = server.respond(answer, true).await;
        // What the client still says is read, or the system would reset the connection before it has read ours.
        server.close().await;
    };
    let alarm = worker.clock.alarm();
    alarm.set(Duration::from_secs(1));
    let _ = alarm.before(said).await;
}
