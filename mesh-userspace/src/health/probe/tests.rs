use super::{
    Failure,
    grpc::{HealthCheckResponse, ServingStatus, framed},
    probe,
};
use crate::model::{HealthCheck, HealthProbe};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{convert::Infallible, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

fn check(probe: HealthProbe) -> HealthCheck {
    HealthCheck { probe, timeout: Duration::from_millis(500), ..HealthCheck::default() }
}

fn http() -> HealthProbe {
    HealthProbe::Http { path: "/".to_owned(), host: String::new(), expected_status: vec![200..=299] }
}

/// The outcome of a check of a server that says `answer` and then leaves the connection open.
async fn says(answer: Vec<u8>, probe_as: HealthProbe) -> Result<(), String> {
    ask(answer, probe_as).await.map_err(endpoints_fault)
}

fn endpoints_fault(failure: Failure) -> String {
    match failure {
        Failure::Endpoint(reason) => reason,
        Failure::Here(reason) => panic!("not the endpoint's fault: {reason}"),
    }
}

async fn ask(answer: Vec<u8>, probe_as: HealthProbe) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(&answer).await;
        std::future::pending::<()>().await;
    });
    let outcome = probe(address, &check(probe_as), 0).await;
    server.abort();
    outcome
}

#[tokio::test]
async fn http_is_judged_by_its_status_without_its_body() {
    let large = [b"HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n".to_vec(), vec![b'x'; 10_000_000]].concat();
    assert_eq!(says(large, http()).await, Ok(()));
    let missing = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec();
    assert_eq!(says(missing, http()).await, Err("status 404".to_owned()));
}

#[tokio::test]
async fn bad_answers_fail_with_a_reason() {
    let huge = [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'x'; 1 << 20]].concat();
    for answer in [b"garbage\r\n\r\n".to_vec(), b"HTTP/1.1 20".to_vec(), huge] {
        assert!(says(answer, http()).await.is_err());
    }
    assert!(says(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), HealthProbe::Grpc).await.is_err());
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_passes_tcp_and_times_out_otherwise() {
    assert_eq!(says(Vec::new(), HealthProbe::Tcp).await, Ok(()));
    for asked in [http(), HealthProbe::Grpc] {
        assert!(says(Vec::new(), asked).await.unwrap_err().contains("no answer within"));
    }
}

#[tokio::test]
async fn a_refused_connection_fails() {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let failure = probe(address, &check(HealthProbe::Tcp), 0).await.unwrap_err();
    assert!(endpoints_fault(failure).starts_with("connect"));
}

/// The outcome of a check of an HTTP/2 server that answers with `body` and then `grpc-status: status`.
async fn grpc(body: Bytes, status: &'static str) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let answer = service_fn(move |request: Request<Incoming>| answer(request, body.clone(), status));
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), answer)
            .await;
    });
    let outcome = probe(address, &check(HealthProbe::Grpc), 0).await.map_err(endpoints_fault);
    server.abort();
    outcome
}

async fn answer(
    request: Request<Incoming>,
    body: Bytes,
    status: &'static str,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/grpc.health.v1.Health/Check"));
    assert_eq!(request.headers()["content-type"], "application/grpc");
    assert_eq!(request.headers()["te"], "trailers");
    assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), [0; 5][..]);
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), status.parse().unwrap())]);
    let body = Full::new(body).with_trailers(async { Some(Ok(trailers)) });
    Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
}

#[tokio::test]
async fn grpc_passes_if_the_server_says_that_it_serves() {
    let says = |status: ServingStatus| framed(&HealthCheckResponse { status: status.into() }).unwrap();
    assert_eq!(grpc(says(ServingStatus::Serving), "0").await, Ok(()));
    assert_eq!(grpc(says(ServingStatus::NotServing), "0").await, Err("gRPC: NOT_SERVING".to_owned()));
    assert!(grpc(says(ServingStatus::Serving), "14").await.unwrap_err().contains("status 14"));
    assert!(grpc(Bytes::new(), "12").await.unwrap_err().contains("UNIMPLEMENTED"));
    assert!(grpc(Bytes::new(), "0").await.unwrap_err().contains("not one message"));
    assert!(grpc(vec![0; 100_000].into(), "0").await.unwrap_err().contains("too long"));
}
