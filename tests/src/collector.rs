//! A collector of traces, as OpenTelemetry's is one: it speaks OTLP by the messages that its own project publishes.

use crate::{poll, ports::Port, wire::Identity};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, status::StatusCode as SpanStatus},
};
use prost::Message;
use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::TcpListener,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tonic::transport::{Server, server::TcpIncoming};

/// A span as it arrived.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// The message.
    pub span: Span,
    /// What it says of whoever sent it.
    pub resource: BTreeMap<String, String>,
    /// Its attributes as text.
    pub attributes: BTreeMap<String, String>,
}

impl Arrived {
    /// An attribute as text; empty: it has none.
    #[must_use]
    pub fn get(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }

    /// The id of its trace.
    #[must_use]
    pub fn trace(&self) -> String {
        hex(&self.span.trace_id)
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> String {
        hex(&self.span.span_id)
    }

    /// That of its parent; empty: it has none.
    #[must_use]
    pub fn parent(&self) -> String {
        hex(&self.span.parent_span_id)
    }

    /// Why it failed; `None`: it did not.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        let status = self.span.status.as_ref()?;
        (status.code == SpanStatus::Error as i32).then_some(status.message.as_str())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How a collector treats what it is sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// How long it takes for a message.
    pub pause: Duration,
    /// It refuses for good.
    pub refuses: bool,
    /// It takes no notice of so many spans of each message.
    pub rejects: i64,
}

#[derive(Debug, Default)]
struct Seen {
    spans: Vec<Arrived>,
    messages: usize,
}

/// A collector on a thread of its own.
#[derive(Debug)]
pub struct Collector {
    scheme: &'static str,
    port: Port,
    seen: Arc<Mutex<Seen>>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    /// Where it is reached with TLS.
    front: Option<Port>,
}

impl Collector {
    /// One that speaks HTTP.
    #[must_use]
    pub fn http(manner: Manner) -> Self {
        Self::start("http", Port::new(), manner, None)
    }

    /// One that speaks gRPC.
    #[must_use]
    pub fn grpc(manner: Manner) -> Self {
        Self::start("grpc", Port::new(), manner, None)
    }

    /// One that comes to this port only now.
    #[must_use]
    pub fn at(port: Port, scheme: &'static str) -> Self {
        Self::start(scheme, port, Manner::default(), None)
    }

    /// One that speaks `http` or `grpc` by TLS.
    #[must_use]
    pub fn secured(scheme: &'static str, identity: &Identity) -> Self {
        Self::start(scheme, Port::new(), Manner::default(), identity.clone())
    }

    fn start(scheme: &'static str, port: Port, manner: Manner, identity: Identity) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let listener = TcpListener::bind(port.address()).expect("a port of ours can be bound");
        listener.set_nonblocking(true).expect("a listener can be made not to block");
        let front = identity.map(|identity| (Port::new(), identity));
        let secured = front.as_ref().map(|(front, identity)| {
            let listener = TcpListener::bind(front.address()).expect("a port of ours can be bound");
            listener.set_nonblocking(true).expect("a listener can be made not to block");
            let mut config = (**identity).clone();
            config.alpn_protocols = vec![if scheme == "grpc" { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
            (listener, TlsAcceptor::from(Arc::new(config)), port.address())
        });
        let (stop, stopped) = oneshot::channel();
        let taking = Taking { seen: Arc::clone(&seen), manner };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener for tokio");
                if let Some((listener, acceptor, to)) = secured {
                    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener for tokio");
                    tokio::spawn(unwrap(listener, acceptor, to));
                }
                tokio::select! {
                    () = serve(scheme, listener, taking) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { scheme, port, seen, running: Some((stop, thread)), front: front.map(|(front, _)| front) }
    }

    /// As `telemetry.tracing.otlp` names it.
    #[must_use]
    pub fn url(&self) -> String {
        match &self.front {
            Some(front) => format!("{}s://{}", self.scheme, front.address()),
            None => format!("{}://{}", self.scheme, self.port.address()),
        }
    }

    /// What has arrived so far.
    ///
    /// # Panics
    /// Where the collector has panicked.
    #[must_use]
    pub fn spans(&self) -> Vec<Arrived> {
        self.seen.lock().expect("the collector works").spans.clone()
    }

    /// In how many messages.
    ///
    /// # Panics
    /// Where the collector has panicked.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.seen.lock().expect("the collector works").messages
    }

    /// Waits until `wanted` spans of requests have arrived, and gives all spans.
    #[must_use]
    pub fn requests(&self, wanted: usize) -> Vec<Arrived> {
        let count = |spans: &[Arrived]| spans.iter().filter(|s| s.span.kind == 2).count();
        poll::eventually(&format!("{wanted} requests arrive at the collector"), || {
            let spans = self.spans();
            if count(&spans) >= wanted { Ok(spans) } else { Err(format!("{} of {spans:?}", count(&spans))) }
        })
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

/// Takes the TLS off connections, and passes them on.
async fn unwrap(listener: tokio::net::TcpListener, acceptor: TlsAcceptor, to: String) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, to) = (acceptor.clone(), to.clone());
        tokio::spawn(async move {
            let mut outside = acceptor.accept(stream).await?;
            let mut inside = tokio::net::TcpStream::connect(to).await?;
            tokio::io::copy_bidirectional(&mut outside, &mut inside).await
        });
    }
}

async fn serve(scheme: &str, listener: tokio::net::TcpListener, taking: Taking) {
    if scheme == "grpc" {
        let served = Server::builder().add_service(TraceServiceServer::new(taking));
        let _ = served.serve_with_incoming(TcpIncoming::from(listener)).await;
        return;
    }
    while let Ok((stream, _)) = listener.accept().await {
        let taking = taking.clone();
        let service = service_fn(move |request| answer(request, taking.clone()));
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(request: Request<Incoming>, taking: Taking) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    let mut response = Response::new(Full::default());
    let right = request.uri().path() == "/v1/traces"
        && request.method() == "POST"
        && request.headers().get("content-type").is_some_and(|value| value == "application/x-protobuf");
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    match ExportTraceServiceRequest::decode(body).ok().filter(|_| right && !taking.manner.refuses) {
        Some(message) => *response.body_mut() = Full::from(taking.take(message).await.encode_to_vec()),
        None => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    Ok(response)
}

#[derive(Clone, Debug)]
struct Taking {
    seen: Arc<Mutex<Seen>>,
    manner: Manner,
}

impl Taking {
    async fn take(&self, request: ExportTraceServiceRequest) -> ExportTraceServiceResponse {
        tokio::time::sleep(self.manner.pause).await;
        let mut seen = self.seen.lock().expect("the collector works");
        seen.messages += 1;
        for resource_spans in request.resource_spans {
            let resource = texts(&resource_spans.resource.unwrap_or_default().attributes);
            for span in resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let attributes = texts(&span.attributes);
                seen.spans.push(Arrived { span, resource: resource.clone(), attributes });
            }
        }
        let error_message = "no room".to_owned();
        let partly = ExportTracePartialSuccess { rejected_spans: self.manner.rejects, error_message };
        ExportTraceServiceResponse { partial_success: (self.manner.rejects > 0).then_some(partly) }
    }
}

#[tonic::async_trait]
impl TraceService for Taking {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        if self.manner.refuses {
            return Err(tonic::Status::invalid_argument("not here"));
        }
        Ok(tonic::Response::new(self.take(request.into_inner()).await))
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(truth) => truth.to_string(),
        other => format!("{other:?}"),
    };
    let pair = |it: &KeyValue| {
        (it.key.clone(), it.value.as_ref().and_then(|v| v.value.as_ref()).map_or_else(String::new, text))
    };
    attributes.iter().map(pair).collect()
}
