//! What tests of the engine begin with: services whose endpoints are on this machine, and a worker without a thread.

use super::{
    deadline::Alarm,
    exchange::{Client, Exchange},
    hop::Origin,
    incoming::Incoming,
    message::{Request, Response},
    net::{Destination, Sockets},
    passing::ResponseBody,
    table::{Entry, Service, Share, Table},
    told::Trace,
    worker::{RequestLog, Shared, Tracer, Worker},
};
use crate::{model, policy::Tier};
use bytes::Bytes;
use http::HeaderValue;
use mesh_common::breaker::Limits;
use socket2::{Domain, Socket, Type};
use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    rc::Rc,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::LocalSet,
};

/// Makes sockets as if they were of this network namespace.
#[derive(Debug)]
pub(super) struct Here(pub(super) u64);

impl Sockets for Here {
    fn socket(&self, to: &Destination) -> io::Result<OwnedFd> {
        let socket = Socket::new(Domain::for_address(to.address), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    }

    fn namespace(&self) -> u64 {
        self.0
    }
}

#[derive(Debug)]
struct Unheard;

impl RequestLog for Unheard {
    fn requests(&self, _: super::Packed) {}
}

/// Remembers traces.
#[derive(Debug, Default)]
pub(super) struct Traces(Mutex<Vec<Trace>>);

impl Traces {
    /// Those since the last look.
    pub(super) fn take(&self) -> Vec<Trace> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Tracer for Traces {
    fn trace(&self, trace: Trace) {
        self.0.lock().unwrap().push(trace);
    }
}

/// Runs a test of one thread.
pub(super) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// A worker that has a service called `web`, with these endpoints, whose circuits never open.
pub(super) fn worker(endpoints: &[SocketAddr], http: model::Http) -> Rc<Worker> {
    traced_worker(endpoints, http).0
}

/// As [`worker`], and the traces that are kept; where nobody decides none is sampled.
pub(super) fn traced_worker(endpoints: &[SocketAddr], http: model::Http) -> (Rc<Worker>, Arc<Traces>) {
    let mut endpoints = endpoints.to_vec();
    endpoints.sort_unstable();
    let facts = model::Service {
        name: "web".to_owned(),
        addresses: Vec::new(),
        hosts: Vec::new(),
        routes: Arc::default(),
        protocol: model::Protocol::Http,
        policy: model::Policy::RoundRobin,
        settings: Arc::new(model::Settings { http, ..model::Settings::default() }),
        endpoints: endpoints.iter().copied().map(model::Endpoint::new).collect(),
    };
    let share = |address: &SocketAddr| Share { address: *address, row: None, tier: Tier::Any, attended: 1, all: 1 };
    let limits = Limits {
        failure_threshold: u32::MAX,
        half_open: 1,
        reset_ms: 1000,
        max_reset_ms: 1000,
        lease_ms: 900,
        probe_interval_ms: 100,
        max_open: 1,
        endpoints: u32::try_from(endpoints.len()).unwrap(),
    };
    let endpoints = endpoints.iter().map(share).collect();
    let entry = Entry { facts: Arc::new(facts), limits, circuits: None, row: None, mark: None, endpoints };
    let traces = Arc::<Traces>::default();
    let shared = Arc::new(Shared::new(1, Arc::new(Unheard), Arc::clone(&traces) as _));
    shared.record_traces(true);
    shared.table.store(Arc::new(Table::new(vec![entry], Arc::default(), &shared.states)));
    let worker = Rc::new(Worker::new(shared, 0));
    tokio::task::spawn_local(Rc::clone(&worker.clock).keep());
    (worker, traces)
}

/// The service of such a worker.
pub(super) fn web(worker: &Worker) -> Arc<Service> {
    Arc::clone(worker.table().service("web").unwrap())
}

/// Serves a request as one of the explicit proxy, with a body that is there as a whole (empty: with none).
pub(super) async fn serve(worker: &Rc<Worker>, method: &str, body: &'static [u8]) -> Response<ResponseBody> {
    let request = http::Request::builder().method(method).uri("/").header("host", "web");
    let request = match body.len() {
        0 => request,
        length => request.header("content-length", length),
    };
    let body = Incoming::Copy((!body.is_empty()).then(|| Bytes::from_static(body)));
    serve_request(worker, request.body(body).unwrap().into()).await
}

/// As [`serve`], any request.
pub(super) async fn serve_request(worker: &Rc<Worker>, request: Request<Incoming>) -> Response<ResponseBody> {
    let client = Client {
        address: "127.0.0.1:1".parse().unwrap(),
        origin: Origin { address: HeaderValue::from_static("127.0.0.1") },
        sockets: Arc::new(Here(1)),
        vip: None,
    };
    let alarm: Rc<Alarm> = worker.clock.alarm();
    let exchange = Exchange { worker, client: &client, alarm: &alarm };
    exchange.serve(request).await
}

/// An address where nobody listens.
pub(super) fn nobody() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// An endpoint that does this with each of its connections, and how many there were.
pub(super) async fn endpoint<F: Future<Output = ()> + 'static>(
    serve: impl Fn(TcpStream) -> F + 'static,
) -> (SocketAddr, Rc<Cell<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Rc::<Cell<usize>>::default();
    let count = Rc::clone(&accepted);
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.set(count.get() + 1);
            tokio::task::spawn_local(serve(stream));
        }
    });
    (address, accepted)
}

/// Reads one request with its whole body; `None`: there is none any more.
pub(super) async fn request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut read = Vec::new();
    loop {
        if let Some(head) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&read[..head]).to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            if read.len() >= head + 4 + length {
                return Some(read.split_off(head + 4));
            }
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
}

/// Answers every request of a connection with this status, and with the request's body.
pub(super) async fn mirror(mut stream: TcpStream, status: u16) {
    while let Some(body) = request(&mut stream).await {
        let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
    }
}
