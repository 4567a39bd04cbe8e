//! `grpc.health.v1.Health/Check` of the whole server, over HTTP/2 without TLS.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, body::Incoming, client::conn::http2};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use std::{
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{net::TcpStream, task::AbortHandle};

/// The most that is kept of an answer's body, in bytes; a health message has two and a frame around it five.
const MOST: usize = 1024;
/// How far a server may be ahead of us, in bytes.
const WINDOW: u32 = 65_535;

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HealthCheckRequest {
    /// Empty: the server as a whole.
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    pub(super) status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(super) enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

pub(super) async fn ask(stream: TcpStream, address: SocketAddr) -> Result<(), String> {
    let asked = framed(&HealthCheckRequest::default()).ok_or("gRPC: the question is too long")?;
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", concat!("mesh-health/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(asked))
        .map_err(|error| format!("request: {error}"))?;
    let tasks = Tasks::default();
    let _ended = Ended(tasks.clone());
    let (mut sender, connection) = http2::Builder::new(tasks)
        .max_header_list_size(16 * 1024)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
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

/// A message as gRPC puts it into a body: a byte that says whether it is compressed, four of length, the message.
pub(super) fn framed(message: &impl prost::Message) -> Option<Bytes> {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).ok()?;
    Some([&[0], &length.to_be_bytes()[..], &message].concat().into())
}

/// Whether a body is one frame with a `HealthCheckResponse` in it that says `SERVING`.
fn serving(body: &[u8]) -> Result<(), String> {
    let message = match body {
        [0, a, b, c, d, message @ ..] if u32::from_be_bytes([*a, *b, *c, *d]) as usize == message.len() => message,
        [1, _, _, _, _, ..] => return Err("gRPC: the answer is compressed, which was not asked for".to_owned()),
        _ => return Err("gRPC: the answer is not one message".to_owned()),
    };
    let answer = HealthCheckResponse::decode(message).map_err(|error| format!("gRPC: no health message: {error}"))?;
    match ServingStatus::try_from(answer.status) {
        Ok(ServingStatus::Serving) => Ok(()),
        Ok(ServingStatus::NotServing) => Err("gRPC: NOT_SERVING".to_owned()),
        Ok(ServingStatus::ServiceUnknown) => Err("gRPC: SERVICE_UNKNOWN".to_owned()),
        Ok(ServingStatus::Unknown) => Err("gRPC: UNKNOWN".to_owned()),
        Err(_) => Err(format!("gRPC: serving status {}", answer.status)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_serving_passes() {
        for status in -1..6 {
            let answer = framed(&HealthCheckResponse { status }).unwrap();
            assert_eq!(serving(&answer).is_ok(), status == 1, "{status}");
        }
    }

    #[test]
    fn fields_that_are_not_known_are_passed_over() {
        // Field 1 is 1; field 15, a string, is "x".
        assert_eq!(serving(&[0, 0, 0, 0, 5, 0x08, 1, 0x7a, 1, b'x']), Ok(()));
    }

    #[test]
    fn an_empty_message_asks_about_the_whole_server() {
        assert_eq!(framed(&HealthCheckRequest::default()).unwrap(), [0; 5][..]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(body in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = serving(&body);
        }
    }
}
