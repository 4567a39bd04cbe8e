//! Scrapes of any length, by clients of any kind.

use super::{
    Door, Refusal,
    fake::{FakeDoor, Scrape, Served},
    scrape,
    stream::Impatient,
};
use hyper::{Response, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex},
    net::{TcpStream, UnixStream},
    time::{sleep, timeout},
};

const GET: &str = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

/// More than any socket takes that nobody reads.
const LONG: usize = 256;

fn set(door: &FakeDoor, pieces: usize, end: fn() -> Result<(), Refusal>) {
    *door.scrape.lock().unwrap() = Scrape { pieces, end };
}

fn whole(pieces: usize) -> Vec<u8> {
    [Scrape::LINE.into()].into_iter().chain((0..pieces).map(Scrape::piece)).collect::<Vec<_>>().concat()
}

/// Sends a request and reads until the server closes: the head in lower case, and what follows it.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> (String, Vec<u8>) {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("an end").unwrap();
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
    let body = answer.split_off(head);
    (String::from_utf8(answer).unwrap().to_ascii_lowercase(), body)
}

async fn tcp(served: &Served, request: &str) -> (String, Vec<u8>) {
    ask(TcpStream::connect(served.tcp).await.unwrap(), request).await
}

/// A chunked body, and whether it came to its end.
fn unchunked(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|bytes| bytes == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        let Some(chunk) = bytes.get(end + 2..end + 2 + size) else { break };
        if size == 0 {
            return (body, true);
        }
        body.extend_from_slice(chunk);
        bytes = &bytes[end + 4 + size..];
    }
    (body, false)
}

/// Waits until nobody writes a scrape any more.
async fn nobody_writes(door: &FakeDoor) {
    let over = async {
        while door.scraping.load(Ordering::SeqCst) > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), over).await.expect("a thread still writes for nobody");
}

#[tokio::test]
async fn a_short_one_says_how_long_it_is() {
    let served = Served::start().await;
    let (head, body) = tcp(&served, GET).await;
    assert_eq!(body, Scrape::LINE.as_bytes());
    assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", Scrape::LINE.len())), "{head}");
    assert!(head.contains("\r\ncontent-type: text/plain; version=0.0.4\r\n"), "{head}");
}

#[tokio::test]
async fn a_long_one_comes_in_chunks_and_is_whole_on_every_listener() {
    let served = Served::start().await;
    set(&served.door, 20, || Ok(()));
    let answers = [
        tcp(&served, GET).await,
        ask(TcpStream::connect(served.metrics).await.unwrap(), GET).await,
        ask(UnixStream::connect(&served.socket).await.unwrap(), GET).await,
    ];
    for (head, body) in answers {
        assert!(head.starts_with("http/1.1 200 ok\r\n"), "{head}");
        assert!(head.contains("\r\ntransfer-encoding: chunked\r\n"), "{head}");
        assert!(head.contains("\r\ncontent-type: text/plain; version=0.0.4\r\n"), "{head}");
        assert!(unchunked(&body) == (whole(20), true));
    }
}

#[tokio::test]
async fn several_share_a_connection() {
    let served = Served::start().await;
    set(&served.door, 3, || Ok(()));
    let requests = format!("{}{GET}", GET.replace("connection: close\r\n", ""));
    let (_, rest) = tcp(&served, &requests).await;
    assert!(unchunked(&rest) == (whole(3), true));
    let second = rest.windows(9).position(|bytes| bytes == b"HTTP/1.1 ").expect("a second answer");
    let body = second + rest[second..].windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
    assert!(unchunked(&rest[body..]) == (whole(3), true));
}

#[tokio::test]
async fn an_old_client_gets_a_length_and_never_a_part() {
    let served = Served::start().await;
    set(&served.door, 3, || Ok(()));
    let (head, body) = tcp(&served, "GET /metrics HTTP/1.0\r\n\r\n").await;
    assert!(body == whole(3));
    assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())), "{head}");
    set(&served.door, 3, || Err(Refusal::internal("no more")));
    let (head, _) = tcp(&served, "GET /metrics HTTP/1.0\r\n\r\n").await;
    assert!(head.starts_with("http/1.0 500 "), "{head}");
}

#[tokio::test]
async fn head_has_no_body_however_long_it_would_be() {
    let served = Served::start().await;
    for pieces in [0, 3, LONG] {
        set(&served.door, pieces, || Ok(()));
        let (head, body) = tcp(&served, &GET.replace("GET", "HEAD")).await;
        assert!(head.starts_with("http/1.1 200 ok\r\n") && body.is_empty(), "{head}");
        nobody_writes(&served.door).await;
    }
}

#[tokio::test]
async fn what_fails_at_once_is_an_error_and_what_fails_later_is_no_whole_answer() {
    let served = Served::start().await;
    for end in [|| Err(Refusal::internal("no counters")), || panic!("no counters")] {
        set(&served.door, 0, end);
        let (head, body) = tcp(&served, GET).await;
        assert!(head.starts_with("http/1.1 500 "), "{head}");
        assert!(head.contains("content-type: application/json"), "{head}");
        assert!(String::from_utf8(body).unwrap().contains("\"kind\":\"internal\""));
        set(&served.door, 3, end);
        let (head, body) = tcp(&served, GET).await;
        assert!(head.starts_with("http/1.1 200 ok\r\n"), "{head}");
        let (body, is_whole) = unchunked(&body);
        assert!(!is_whole && whole(3).starts_with(&body), "a part, and no end");
    }
}

#[tokio::test]
async fn nobody_writes_for_a_client_that_went_away() {
    let served = Served::start().await;
    set(&served.door, LONG, || Ok(()));
    for read in [0, 1 << 20] {
        let mut stream = TcpStream::connect(served.tcp).await.unwrap();
        stream.write_all(GET.as_bytes()).await.unwrap();
        stream.read_exact(&mut vec![0; 100 + read]).await.unwrap();
        sleep(Duration::from_millis(50)).await;
        assert_eq!(served.door.scraping.load(Ordering::SeqCst), 1, "it waits to be read");
        drop(stream);
        nobody_writes(&served.door).await;
    }
}

#[tokio::test]
async fn nor_for_one_that_does_not_read() {
    let door = Arc::new(FakeDoor::default());
    set(&door, LONG, || Ok(()));
    let (near, mut far) = duplex(64 << 10);
    let answers: Arc<dyn Door> = door.clone();
    let service = service_fn(move |request: hyper::Request<_>| {
        let answers = Arc::clone(&answers);
        async move { scrape::body(&answers, request.version()).await.map(Response::new) }
    });
    let near = TokioIo::new(Impatient::new(near, Duration::from_millis(300)));
    let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(near, service);
    let connection = tokio::spawn(async move { connection.await.map_err(|e| format!("{e:?}")) });
    far.write_all(GET.as_bytes()).await.unwrap();
    let why = timeout(Duration::from_secs(20), connection).await.expect("an end").unwrap().unwrap_err();
    assert!(why.contains("the client does not read"), "{why}");
    nobody_writes(&door).await;
}

#[tokio::test]
async fn stopping_waits_for_nobody_who_does_not_read() {
    let mut served = Served::start().await;
    set(&served.door, LONG, || Ok(()));
    let mut stream = TcpStream::connect(served.tcp).await.unwrap();
    stream.write_all(GET.as_bytes()).await.unwrap();
    stream.read_exact(&mut [0; 100]).await.unwrap();
    timeout(Duration::from_secs(15), served.stop()).await.expect("an end");
    nobody_writes(&served.door).await;
}
