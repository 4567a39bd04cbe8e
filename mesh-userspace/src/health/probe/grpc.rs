//! `grpc.health.v1.Health/Check` of the whole server, over HTTP/2 without TLS.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, body::Incoming, client::conn::http2};
use hyper_util::rt::TokioIo;
use std::{
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{net::TcpStream, task::AbortHandle};

/// The most that is read of an answer, in bytes; a health message has two.
const MOST: usize = 1024;

pub(super) async fn ask(stream: TcpStream, address: SocketAddr) -> Result<(), String> {
    // No flags, a length of zero: the empty message, which asks about the server as a whole.
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", concat!("mesh-health/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(Bytes::from_static(&[0; 5])))
        .map_err(|error| format!("request: {error}"))?;
    let tasks = Tasks::default();
    let _ended = Ended(tasks.clone());
    let (mut sender, connection) = http2::Builder::new(tasks)
        .max_header_list_size(16 * 1024)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| format!("HTTP/2: {error}"))?;
    let mut answer = pin!(async {
        let answer = sender.send_request(request).await.map_err(|error| format!("HTTP/2: {error}"))?;
        if answer.status() != 200 {
            return Err(format!("status {}", answer.status().as_u16()));
        }
        if answer.headers().contains_key("grpc-status") {
            status(answer.headers())?;
        }
        message(answer.into_body()).await
    });
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}

async fn message(mut body: Incoming) -> Result<(), String> {
    let mut data = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("HTTP/2: {error}"))?;
        if let Some(trailers) = frame.trailers_ref() {
            status(trailers)?;
            return serving(&data);
        }
        if let Some(more) = frame.data_ref() {
            data.extend_from_slice(more);
        }
        if data.len() > MOST {
            return Err("gRPC: the answer is too long for a health message".to_owned());
        }
    }
    Err("gRPC: the answer has no grpc-status".to_owned())
}

fn status(headers: &HeaderMap) -> Result<(), String> {
    match headers.get("grpc-status").map(|status| status.as_bytes()) {
        Some(b"0") => Ok(()),
        Some(b"12") => Err("gRPC: UNIMPLEMENTED, the server has no grpc.health.v1.Health".to_owned()),
        Some(other) => Err(format!("gRPC: status {}", String::from_utf8_lossy(other))),
        None => Err("gRPC: the answer has no grpc-status".to_owned()),
    }
}

/// Whether a framed `HealthCheckResponse` says `SERVING`: field 1, a varint, is 1.
fn serving(data: &[u8]) -> Result<(), String> {
    match data {
        [0, 0, 0, 0, 2, 0x08, 1] => Ok(()),
        [0, 0, 0, 0, 2, 0x08, 2] => Err("gRPC: NOT_SERVING".to_owned()),
        [0, 0, 0, 0, 2, 0x08, 3] => Err("gRPC: SERVICE_UNKNOWN".to_owned()),
        [0, 0, 0, 0, 0] | [0, 0, 0, 0, 2, 0x08, 0] => Err("gRPC: UNKNOWN".to_owned()),
        _ => Err("gRPC: the answer is no health message".to_owned()),
    }
}

/// Runs what a connection wants run, and remembers it.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<Vec<AbortHandle>>>);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        let handle = tokio::spawn(task).abort_handle();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
    }
}

/// Ends a connection's tasks with the check: a server that hangs would keep them, and the socket, for ever.
struct Ended(Tasks);

impl Drop for Ended {
    fn drop(&mut self) {
        for task in self.0.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }
}
