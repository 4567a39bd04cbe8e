use super::probe;
use crate::model::{HealthCheck, HealthProbe};
use std::time::Duration;
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
    assert!(probe(address, &check(HealthProbe::Tcp), 0).await.unwrap_err().starts_with("connect"));
}
