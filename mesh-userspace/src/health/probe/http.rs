//! `GET` over HTTP/1.1: the status decides, the body is not read.

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use std::{net::SocketAddr, ops::RangeInclusive, pin::pin};
use tokio::net::TcpStream;

/// The most that is read of an answer, in bytes; its head has to fit.
const HEAD: usize = 16 * 1024;

pub(super) async fn ask(
    stream: TcpStream,
    address: SocketAddr,
    path: &str,
    host: &str,
    expected: &[RangeInclusive<u16>],
) -> Result<(), String> {
    let host = if host.is_empty() { address.to_string() } else { host.to_owned() };
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("mesh-health/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("request: {error}"))?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| format!("HTTP: {error}"))?;
    let mut answer = pin!(sender.send_request(request));
    // The connection may be over before its answer was looked at: then the answer is there.
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = connection => answer.await,
    };
    let status = answer.map_err(|error| format!("HTTP: {error}"))?.status().as_u16();
    if expected.iter().any(|range| range.contains(&status)) { Ok(()) } else { Err(format!("status {status}")) }
}
