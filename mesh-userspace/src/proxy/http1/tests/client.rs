//! The client half.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::{Body as _, Frame};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    super::{
        super::{Fault, FaultKind, Reached, RequestHead, Response, Unanswered},
        Connection, Limits,
    },
    Parts, Whole, collect, connection, get, head_of, post, read_all, read_to, run, write,
};

#[test]
fn a_connection_serves_one_request_after_the_other() {
    run(async {
        let (mut endpoint, mut connection) = connection();
        for (answer, expected) in [
            ("content-length: 3\r\n\r\nabc", "abc"),
            ("transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n", "abcd"),
            ("content-length: 0\r\n\r\n", ""),
        ] {
            assert!(connection.is_alive());
            let (head, body) = (get("/x?y"), Whole::default());
            let serve = async {
                assert_eq!(read_to(&mut endpoint, "\r\n\r\n").await, "GET /x?y HTTP/1.1\r\nhost: a\r\n\r\n");
                write(&mut endpoint, &format!("HTTP/1.1 200 OK\r\n{answer}")).await;
            };
            let (response, ()) = tokio::join!(connection.send(&head, body), serve);
            let mut response = response.unwrap();
            assert_eq!(collect(&mut response.body).await.unwrap().0, expected.as_bytes());
            connection = response.body.into_connection().expect("it goes on");
            assert!(connection.has_served());
        }
    });
}

#[test]
fn head_and_bodies_of_requests_are_written_as_they_are_known() {
    run(async {
        let trailers = [("x".parse().unwrap(), "y".parse().unwrap())].into_iter().collect();
        let chunked = Parts::of(&["ab"]).then_wait().then(Ok(Frame::trailers(trailers)));
        assert_eq!(
            sent(post("/"), Whole::of("abc")).await,
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc"
        );
        assert_eq!(sent(post("/"), Whole::default()).await, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(
            sent(post("/"), chunked).await,
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nx: y\r\n\r\n"
        );
        let connect = head_of(Request::connect("b:443").header("host", "b:443"));
        assert_eq!(sent(connect, Whole::default()).await, "CONNECT b:443 HTTP/1.1\r\nhost: b:443\r\n\r\n");
        let absolute = head_of(Request::get("http://b?q").header("host", "b"));
        assert_eq!(sent(absolute, Whole::default()).await, "GET /?q HTTP/1.1\r\nhost: b\r\n\r\n");
        let all = head_of(Request::options("*").header("host", "b"));
        assert_eq!(sent(all, Whole::default()).await, "OPTIONS * HTTP/1.1\r\nhost: b\r\n\r\n");
    });
}

/// What an endpoint reads of a request.
async fn sent<B>(head: RequestHead, body: B) -> String
where
    B: http_body::Body<Data = Bytes, Error = Fault> + Unpin,
{
    let (mut endpoint, connection) = connection();
    let serve = async {
        let mut text = String::new();
        // The test's bodies are over at once.
        while let Ok(Ok(byte)) = tokio::time::timeout(Duration::from_millis(20), endpoint.read_u8()).await {
            text.push(byte.into());
        }
        write(&mut endpoint, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        text
    };
    let (response, text) = tokio::join!(connection.send(&head, body), serve);
    response.unwrap();
    text
}

/// The answer to a `GET`, after which the endpoint closes.
async fn answered(
    head: &RequestHead,
    text: &str,
) -> Result<Response<super::super::ResponseBody<tokio::io::DuplexStream, Whole>>, Unanswered> {
    let (mut endpoint, connection) = connection();
    let serve = async {
        read_to(&mut endpoint, "\r\n\r\n").await;
        write(&mut endpoint, text).await;
        endpoint.shutdown().await.unwrap();
    };
    let (response, ()) = tokio::join!(connection.send(head, Whole::default()), serve);
    response
}

#[test]
fn a_body_without_length_ends_with_the_connection() {
    run(async {
        let mut response = answered(&get("/"), "HTTP/1.1 200 OK\r\n\r\nabc").await.unwrap();
        assert_eq!(collect(&mut response.body).await.unwrap().0, b"abc");
        assert!(response.body.into_connection().is_none());
    });
}

#[test]
fn a_body_that_ends_early_is_a_fault() {
    run(async {
        for framing in ["content-length: 4\r\n\r\nabc", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
            let mut response = answered(&get("/"), &format!("HTTP/1.1 200 OK\r\n{framing}")).await.unwrap();
            assert_eq!(collect(&mut response.body).await, Err(Fault::upstream(FaultKind::Closed)));
            assert!(response.body.into_connection().is_none());
        }
    });
}

#[test]
fn a_response_to_head_has_no_body_whatever_it_says() {
    run(async {
        let head = head_of(Request::head("/").header("host", "a"));
        let text = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n";
        let response = answered(&head, text).await.unwrap();
        assert!(response.body.is_end_stream());
        assert_eq!(response.head.headers.get("content-length"), Some(&b"4"[..]));
    });
}

#[test]
fn a_connection_is_not_kept_where_something_is_odd_about_it() {
    run(async {
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nmore",
            "HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\n",
        ] {
            let response = answered(&get("/"), text).await.unwrap();
            assert!(response.body.is_end_stream());
            assert!(response.body.into_connection().is_none(), "{text}");
        }
        let text = "HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n";
        let mut connection = answered(&get("/"), text).await.unwrap().body.into_connection().unwrap();
        assert!(!connection.is_alive(), "the endpoint closed it meanwhile");
    });
}

#[test]
fn unsolicited_bytes_are_the_end_of_a_resting_connection() {
    run(async {
        let (mut endpoint, mut connection) = connection();
        assert!(connection.is_alive());
        write(&mut endpoint, "HTTP/1.1 408 Request Timeout\r\n\r\n").await;
        assert!(!connection.is_alive());
    });
}

#[test]
fn how_far_a_request_came_is_known() {
    run(async {
        let reached = |result: Result<_, Unanswered>| result.map(drop).unwrap_err().reached;
        assert_eq!(reached(answered(&get("/"), "").await), Reached::Endpoint, "it never served before");
        assert_eq!(reached(answered(&get("/"), "HTTP/1.1 200").await), Reached::Endpoint);

        let (mut endpoint, mut served) = connection();
        let serve = async {
            read_to(&mut endpoint, "\r\n\r\n").await;
            write(&mut endpoint, "HTTP/1.1 204 No Content\r\n\r\n").await;
        };
        let head = get("/");
        let (response, ()) = tokio::join!(served.send(&head, Whole::default()), serve);
        served = response.unwrap().body.into_connection().unwrap();
        let serve = async {
            read_to(&mut endpoint, "\r\n\r\n").await;
            drop(endpoint);
        };
        let (response, ()) = tokio::join!(served.send(&head, Whole::default()), serve);
        assert_eq!(reached(response), Reached::Stale);

        let (endpoint, connection) = connection();
        drop(endpoint);
        assert_eq!(reached(connection.send(&head, Whole::default()).await), Reached::Nowhere);
    });
}

/// How an endpoint ends a connection that it has answered on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ends {
    BeforeTheNext,
    HalfBeforeTheNext,
    WithTheNextUnread,
    AfterReading,
    ByResetAfterReading,
}

/// How far a request came on a real connection that was used a few times and then ended like this.
async fn reached_at_the_end(how: Ends) -> Reached {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (told, tell) = std::sync::mpsc::channel();
    let endpoint = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        // Often enough that the system waits with its confirmations.
        for _ in 0..30 {
            assert!(stream.read(&mut request).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        }
        match how {
            Ends::BeforeTheNext => return None,
            Ends::HalfBeforeTheNext => {
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                return Some(stream);
            }
            Ends::WithTheNextUnread => tell.recv().unwrap(),
            Ends::AfterReading | Ends::ByResetAfterReading => assert!(stream.read(&mut request).unwrap() > 0),
        }
        if how == Ends::ByResetAfterReading {
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        None
    });
    let stream = TcpStream::connect(address).await.unwrap();
    let mut connection = Connection::new(stream, &Limits::default());
    let head = post("/");
    for _ in 0..30 {
        let response = connection.send(&head, Whole::of("body")).await.unwrap();
        connection = response.body.into_connection().unwrap();
    }
    let mut half = None;
    let mut endpoint = Some(endpoint);
    if matches!(how, Ends::BeforeTheNext | Ends::HalfBeforeTheNext) {
        half = endpoint.take().and_then(|endpoint| endpoint.join().unwrap());
    }
    let sent = connection.send(&head, Whole::of("body"));
    let then = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let _ = told.send(());
        drop(half);
    };
    let (response, ()) = tokio::join!(sent, then);
    if let Some(endpoint) = endpoint {
        endpoint.join().unwrap();
    }
    response.map(drop).unwrap_err().reached
}

#[test]
fn only_a_connection_that_ended_before_the_request_came_proves_that_it_was_not_read() {
    run(async {
        for (how, expected) in [
            (Ends::BeforeTheNext, Reached::Unread),
            (Ends::HalfBeforeTheNext, Reached::Unread),
            (Ends::WithTheNextUnread, Reached::Stale),
            (Ends::AfterReading, Reached::Stale),
            (Ends::ByResetAfterReading, Reached::Stale),
        ] {
            assert_eq!(reached_at_the_end(how).await, expected, "{how:?}");
        }
    });
}

#[test]
fn a_request_whose_body_fails_is_the_clients_fault() {
    run(async {
        let (_endpoint, connection) = connection();
        let fault = Fault::downstream(FaultKind::Closed);
        let body = Parts::of(&["a"]).then_wait().then(Err(fault));
        let unanswered = connection.send(&post("/"), body).await.unwrap_err();
        assert_eq!(unanswered, Unanswered { fault, reached: Reached::Endpoint });
    });
}

#[test]
fn interim_responses_are_skipped() {
    run(async {
        let text =
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(answered(&get("/"), text).await.unwrap().head.status, StatusCode::NO_CONTENT);
    });
}

fn expecting() -> RequestHead {
    head_of(Request::post("/").header("host", "a").header("expect", "100-continue"))
}

#[test]
fn a_body_is_held_back_until_the_endpoint_asks_for_it() {
    run(async {
        let (mut endpoint, connection) = connection();
        let serve = async {
            read_to(&mut endpoint, "\r\n\r\n").await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            let mut cx = Context::from_waker(Waker::noop());
            let mut byte = [0];
            let mut buf = tokio::io::ReadBuf::new(&mut byte);
            assert!(tokio::io::AsyncRead::poll_read(Pin::new(&mut endpoint), &mut cx, &mut buf).is_pending());
            write(&mut endpoint, "HTTP/1.1 100 Continue\r\n\r\n").await;
            assert_eq!(read_to(&mut endpoint, "abc").await, "abc");
            write(&mut endpoint, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        };
        let head = expecting();
        let (response, ()) = tokio::join!(connection.send(&head, Whole::of("abc")), serve);
        assert!(response.unwrap().body.into_connection().is_some());
    });
}

#[test]
fn a_body_is_not_held_back_for_ever() {
    run(async {
        let (mut endpoint, connection) = connection();
        let start = Instant::now();
        let serve = async {
            read_to(&mut endpoint, "\r\n\r\nabc").await;
            write(&mut endpoint, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        };
        let head = expecting();
        let (response, ()) = tokio::join!(connection.send(&head, Whole::of("abc")), serve);
        assert!(response.unwrap().body.into_connection().is_some());
        assert!(start.elapsed() >= Duration::from_secs(1));
    });
}

#[test]
fn a_body_that_was_refused_is_never_sent() {
    run(async {
        let (mut endpoint, connection) = connection();
        let serve = async {
            read_to(&mut endpoint, "\r\n\r\n").await;
            write(&mut endpoint, "HTTP/1.1 417 Expectation Failed\r\ncontent-length: 3\r\n\r\nabc").await;
        };
        let head = expecting();
        let (response, ()) = tokio::join!(connection.send(&head, Whole::of("xyz")), serve);
        let mut response = response.unwrap();
        assert_eq!(collect(&mut response.body).await.unwrap().0, b"abc");
        assert!(response.body.into_connection().is_none());
        assert_eq!(read_all(&mut endpoint).await, "");
    });
}

#[test]
fn a_request_goes_on_while_an_early_response_is_read() {
    run(async {
        let (mut endpoint, connection) = connection();
        let body = Parts::of(&["a"]).then_wait().then(Ok(Frame::data(Bytes::from_static(b"b"))));
        let serve = async {
            read_to(&mut endpoint, "1\r\na\r\n").await;
            write(&mut endpoint, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nx").await;
            read_to(&mut endpoint, "1\r\nb\r\n0\r\n\r\n").await;
            write(&mut endpoint, "yz").await;
        };
        let exchange = async {
            let mut response = connection.send(&post("/"), body).await.unwrap();
            assert_eq!(collect(&mut response.body).await.unwrap().0, b"xyz");
            assert!(response.body.into_connection().is_some());
        };
        tokio::join!(exchange, serve);
    });
}

#[test]
fn an_early_response_over_is_the_end_of_the_connection() {
    run(async {
        let (mut endpoint, connection) = connection();
        let body = Parts::of(&["a"]).then_wait().then_wait().then_wait().then_wait().then_wait().then_wait();
        write(&mut endpoint, "HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n").await;
        let response = connection.send(&post("/"), body).await.unwrap();
        assert!(response.body.is_end_stream());
        assert!(response.body.into_connection().is_none());
    });
}

#[test]
fn an_answer_is_read_though_the_endpoint_takes_no_more_of_the_request() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut endpoint, _) = listener.accept().await.unwrap();
        let connection = Connection::new(stream, &Limits::default());
        let body = Parts((0..2_000).map(|_| Some(Ok(Frame::data(Bytes::from(vec![0; 30_000]))))).collect());
        let serve = async {
            let mut some = vec![0; 1_000];
            endpoint.read_exact(&mut some).await.unwrap();
            endpoint.write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            endpoint
        };
        let head = post("/");
        let (response, _endpoint) = tokio::join!(connection.send(&head, body), serve);
        assert_eq!(response.unwrap().head.status, StatusCode::PAYLOAD_TOO_LARGE);
    });
}

#[test]
fn an_upgrade_gives_the_stream_and_what_was_read_of_it() {
    run(async {
        let head =
            head_of(Request::get("/").header("host", "a").header("connection", "upgrade").header("upgrade", "x"));
        let response = answered(&head, "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\nnot http").await.unwrap();
        assert_eq!(&response.body.into_upgraded().unwrap().1[..], b"not http");

        let head = head_of(Request::connect("b:1").header("host", "b:1"));
        let response = answered(&head, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nnot http").await.unwrap();
        assert_eq!(&response.body.into_upgraded().unwrap().1[..], b"not http");

        let unasked = answered(&get("/"), "HTTP/1.1 101 Switching Protocols\r\n\r\n").await.unwrap_err();
        assert!(matches!(unasked.fault.kind, FaultKind::Malformed(_)));
    });
}

#[test]
fn a_large_body_comes_whole_over_a_socket() {
    run(async {
        const LENGTH: usize = 10 << 20;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut endpoint, _) = listener.accept().await.unwrap();
        let connection = Connection::new(stream, &Limits::default());
        let serve = async {
            endpoint.read_exact(&mut [0; 10]).await.unwrap();
            endpoint
                .write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n").as_bytes())
                .await
                .unwrap();
            let data: Vec<u8> = (0..LENGTH).map(|at| (at % 251) as u8).collect();
            endpoint.write_all(&data).await.unwrap();
        };
        let exchange = async {
            let mut response = connection.send(&get("/"), Whole::default()).await.unwrap();
            let mut at = 0;
            while let Some(frame) = poll_fn(|cx| Pin::new(&mut response.body).poll_frame(cx)).await {
                for byte in frame.unwrap().into_data().unwrap() {
                    assert_eq!(byte, (at % 251) as u8);
                    at += 1;
                }
            }
            assert_eq!(at, LENGTH);
            assert!(response.body.into_connection().is_some());
        };
        tokio::join!(exchange, serve);
    });
}
