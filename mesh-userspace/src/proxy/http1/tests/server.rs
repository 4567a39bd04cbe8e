//! The server half.

use std::{
    future::poll_fn,
    io::ErrorKind,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Response, Version};
use http_body::{Body as _, Frame};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time,
};

use super::{
    super::{
        super::{Fault, FaultKind, Side},
        After, Gone, Limits, Server, Stage,
    },
    Parts, Whole, collect, ok, read_all, read_to, run, server, write,
};

const GET: &str = "GET /1 HTTP/1.1\r\nhost: a\r\n\r\n";

#[test]
fn a_response_of_known_length_has_content_length() {
    run(async {
        let (mut client, mut server) = server();
        write(&mut client, GET).await;
        let request = server.request().await.unwrap().unwrap();
        assert_eq!((request.method(), request.uri().path(), request.version()), (&Method::GET, "/1", Version::HTTP_11));
        assert!(request.body().is_end_stream());
        let responded = server.respond(ok(Whole::of("hello")), false).await.unwrap();
        assert_eq!((responded.after, responded.bytes), (After::Request, 5));
        drop((server, request));
        assert_eq!(read_all(&mut client).await, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
    });
}

#[test]
fn a_response_of_unknown_length_is_chunked_and_has_its_trailers() {
    run(async {
        let (mut client, mut server) = server();
        write(&mut client, GET).await;
        server.request().await.unwrap().unwrap();
        let trailers = [("x".parse().unwrap(), "y".parse().unwrap())].into_iter().collect();
        let body = Parts::of(&["hello", "", "you"]).then_wait().then(Ok(Frame::trailers(trailers)));
        assert_eq!(server.respond(ok(body), false).await.unwrap().after, After::Request);
        drop(server);
        let expected =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\nyou\r\n0\r\nx: y\r\n\r\n";
        assert_eq!(read_all(&mut client).await, expected);
    });
}

#[test]
fn http_1_0_gets_no_chunks_and_a_close_unless_it_asks_to_go_on() {
    run(async {
        for (asks, known, expected) in [
            ("", true, "connection: close\r\n"),
            ("connection: keep-alive\r\n", true, "connection: keep-alive\r\n"),
            ("connection: keep-alive\r\n", false, "connection: close\r\n"),
        ] {
            let (mut client, mut server) = server();
            write(&mut client, &format!("GET / HTTP/1.0\r\n{asks}\r\n")).await;
            server.request().await.unwrap().unwrap();
            let responded = match known {
                true => server.respond(ok(Whole::of("hi")), false).await.unwrap(),
                false => server.respond(ok(Parts::of(&["hi"])), false).await.unwrap(),
            };
            assert_eq!(responded.after == After::Request, expected.contains("keep-alive"));
            drop(server);
            let text = read_all(&mut client).await;
            assert!(text.contains(expected) && text.ends_with("\r\n\r\nhi"), "{text}");
            assert!(!text.contains("transfer-encoding"), "{text}");
        }
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    run(async {
        let (mut client, mut server) = server();
        write(
            &mut client,
            "POST /1 HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nhost: a\r\n\r\n\
            POST /3 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nxy\r\n0\r\n\r\n",
        )
        .await;
        client.shutdown().await.unwrap();
        for (path, body) in [("/1", "abc"), ("/2", ""), ("/3", "xy")] {
            let request = server.request().await.unwrap().unwrap();
            assert_eq!(request.uri().path(), path);
            assert_eq!(collect(request.into_body()).await.unwrap().0, body.as_bytes());
            server.respond(ok(Whole::default()), false).await.unwrap();
        }
        assert!(server.request().await.unwrap().is_none(), "a half-close ends it only after the last request");
    });
}

#[test]
fn head_and_304_have_the_lines_of_a_body_and_no_body() {
    run(async {
        for (method, status) in [("HEAD", 200), ("GET", 304), ("HEAD", 304)] {
            let (mut client, mut server) = server();
            write(&mut client, &format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n")).await;
            server.request().await.unwrap().unwrap();
            let response = Response::builder().status(status).header("content-length", 7).body(Parts::default());
            assert_eq!(server.respond(response.unwrap(), false).await.unwrap().after, After::Request);
            drop(server);
            let text = read_all(&mut client).await;
            assert!(text.ends_with("\r\ncontent-length: 7\r\n\r\n"), "{text}");
        }
    });
}

#[test]
fn a_204_speaks_of_no_body() {
    run(async {
        let (mut client, mut server) = server();
        write(&mut client, GET).await;
        server.request().await.unwrap().unwrap();
        let response =
            Response::builder().status(204).header("content-length", 0).header("transfer-encoding", "chunked");
        server.respond(response.body(Parts::default()).unwrap(), false).await.unwrap();
        drop(server);
        assert_eq!(read_all(&mut client).await, "HTTP/1.1 204 No Content\r\n\r\n");
    });
}

#[test]
fn the_client_and_the_caller_can_both_end_the_connection() {
    run(async {
        for (line, close) in [("connection: close\r\n", false), ("", true)] {
            let (mut client, mut server) = server();
            write(&mut client, &format!("GET / HTTP/1.1\r\nhost: a\r\n{line}\r\n{GET}")).await;
            server.request().await.unwrap().unwrap();
            assert_eq!(server.respond(ok(Whole::default()), close).await.unwrap().after, After::Close);
            assert!(server.request().await.unwrap().is_none());
            drop(server);
            assert!(read_all(&mut client).await.contains("\r\nconnection: close\r\n"));
        }
    });
}

#[test]
fn an_early_response_is_followed_by_the_next_request_if_the_body_is_small() {
    run(async {
        let (mut client, mut server) = server();
        write(&mut client, &format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc{GET}")).await;
        let request = server.request().await.unwrap().unwrap();
        assert_eq!(server.respond(ok(Whole::default()), false).await.unwrap().after, After::Request);
        assert_eq!(server.request().await.unwrap().unwrap().uri().path(), "/1");
        let late = collect(request.into_body()).await;
        assert_eq!(late, Err(Fault::downstream(FaultKind::Closed)), "it reads nothing of the next request");
    });
}

#[test]
fn an_early_response_is_the_last_if_the_body_is_large() {
    run(async {
        let (mut client, mut server) = server();
        write(&mut client, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 70000\r\n\r\n").await;
        write(&mut client, &"x".repeat(70_000)).await;
        server.request().await.unwrap().unwrap();
        server.respond(ok(Whole::default()), false).await.unwrap();
        assert!(server.request().await.unwrap().is_none());
        let (text, ()) = tokio::join!(
            async {
                client.shutdown().await.unwrap();
                read_all(&mut client).await
            },
            server.close()
        );
        assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    });
}

#[test]
fn a_client_is_asked_to_go_on_when_its_body_is_wanted() {
    run(async {
        let (mut client, mut server) = server();
        write(&mut client, "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n").await;
        let request = server.request().await.unwrap().unwrap();
        let answer = async {
            assert_eq!(read_to(&mut client, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
            write(&mut client, "abc").await;
        };
        let (body, ()) = tokio::join!(collect(request.into_body()), answer);
        assert_eq!(body.unwrap().0, b"abc");
        assert_eq!(server.respond(ok(Whole::default()), false).await.unwrap().after, After::Request);
    });
}

#[test]
fn a_client_that_was_not_asked_to_go_on_is_closed() {
    run(async {
        let (mut client, mut server) = server();
        write(&mut client, "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n").await;
        let request = server.request().await.unwrap().unwrap();
        assert_eq!(server.respond(ok(Whole::default()), false).await.unwrap().after, After::Close);
        drop((server, request));
        let text = read_all(&mut client).await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("connection: close"), "{text}");
    });
}

#[test]
fn interim_responses_go_before_the_response() {
    run(async {
        let (mut client, mut server) = server();
        write(&mut client, GET).await;
        server.request().await.unwrap().unwrap();
        let hints = Response::builder().status(103).header("link", "x").body(Whole::default()).unwrap();
        assert_eq!(server.respond(hints, false).await.unwrap().after, After::Response);
        assert_eq!(server.respond(ok(Whole::of("a")), false).await.unwrap().after, After::Request);
        drop(server);
        let expected = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na";
        assert_eq!(read_all(&mut client).await, expected);
    });
}

#[test]
fn an_upgraded_connection_comes_with_what_was_read_of_it() {
    run(async {
        let upgrade = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nnot http";
        let connect = "CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\nnot http";
        for (text, status) in [(upgrade, 101), (connect, 200)] {
            let (mut client, mut server) = server();
            write(&mut client, text).await;
            drop(server.request().await.unwrap().unwrap());
            let response = Response::builder().status(status).header("connection", "upgrade").body(Whole::default());
            assert_eq!(server.respond(response.unwrap(), false).await.unwrap().after, After::Tunnel);
            let (stream, read) = server.upgrade().unwrap();
            assert_eq!(&read[..], b"not http");
            drop(stream);
            let text = read_all(&mut client).await;
            assert!(text.ends_with("\r\nconnection: upgrade\r\n\r\n") && !text.contains("content-length"), "{text}");
        }
    });
}

#[test]
fn a_body_that_fails_leaves_a_response_that_is_not_whole() {
    run(async {
        let (mut client, mut server) = server();
        write(&mut client, GET).await;
        server.request().await.unwrap().unwrap();
        let fault = Fault::upstream(FaultKind::Reset { code: None });
        let result = server.respond(ok(Parts::of(&["abc"]).then(Err(fault))), false).await;
        assert_eq!(result, Err(fault));
        assert!(server.request().await.unwrap().is_none());
        server.close().await;
        let text = read_all(&mut client).await;
        assert!(text.ends_with("\r\n\r\n3\r\nabc\r\n"), "{text}");
    });
}

#[test]
fn a_body_that_is_not_as_long_as_its_head_says_is_a_fault() {
    run(async {
        for text in ["ab", "abcd"] {
            let (mut client, mut server) = server();
            write(&mut client, GET).await;
            server.request().await.unwrap().unwrap();
            let response = Response::builder().header("content-length", 3).body(Parts::of(&[text])).unwrap();
            let Err(Fault { side: Side::Upstream, kind: FaultKind::Malformed(words) }) =
                server.respond(response, false).await
            else {
                panic!("{text}")
            };
            assert!(words.contains("than its Content-Length"), "{words}");
        }
    });
}

#[test]
fn a_fault_of_form_can_be_answered() {
    run(async {
        let (mut client, mut server) = server();
        write(&mut client, "GET / HTTP/1.1\r\nhost : a\r\n\r\n").await;
        assert_eq!(server.request().await.unwrap_err(), Fault::downstream(FaultKind::Malformed("header name")));
        let response = Response::builder().status(400).body(Whole::default()).unwrap();
        assert_eq!(server.respond(response, false).await.unwrap().after, After::Close);
        assert!(server.request().await.unwrap().is_none());
        let (text, ()) = tokio::join!(
            async {
                client.shutdown().await.unwrap();
                read_all(&mut client).await
            },
            server.close()
        );
        assert_eq!(text, "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    });
}

#[test]
fn a_premature_end_is_a_fault_and_an_idle_one_is_not() {
    run(async {
        for (text, whole) in [("", true), ("\r\n", true), ("GET", false), ("GET / HTTP/1.1\r\nhost: a\r\n", false)] {
            let (mut client, mut server) = server();
            write(&mut client, text).await;
            drop(client);
            match server.request().await {
                Ok(None) => assert!(whole, "{text:?}"),
                other => assert_eq!(other.unwrap_err(), Fault::downstream(FaultKind::Closed), "{text:?}"),
            }
        }
        for framing in ["content-length: 4\r\n\r\nabc", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
            let (mut client, mut server) = server();
            write(&mut client, &format!("POST / HTTP/1.1\r\nhost: a\r\n{framing}")).await;
            drop(client);
            let request = server.request().await.unwrap().unwrap();
            assert_eq!(collect(request.into_body()).await, Err(Fault::downstream(FaultKind::Closed)));
            assert!(!server.is_open());
        }
    });
}

#[test]
fn progress_says_where_a_connection_is_while_its_future_waits() {
    run(async {
        let (mut client, mut server) = server();
        let progress = server.progress().clone();
        let mut cx = Context::from_waker(Waker::noop());
        {
            let mut request = Box::pin(server.request());
            assert!(request.as_mut().poll(&mut cx).is_pending());
            assert!(progress.is_idle());
            write(&mut client, &GET[..10]).await;
            assert!(request.as_mut().poll(&mut cx).is_pending());
            assert_eq!((progress.stage(), progress.bytes()), (Stage::Head, 10));
        }
        // The future was dropped, what it read was not.
        write(&mut client, &GET[10..]).await;
        server.request().await.unwrap().unwrap();
        assert_eq!((progress.stage(), progress.requests()), (Stage::Exchange, 1));
    });
}

#[test]
fn a_response_waits_for_its_reader() {
    run(async {
        let (mut client, stream) = tokio::io::duplex(100);
        let mut server = Server::new(stream, Bytes::new(), &Limits::default());
        write(&mut client, GET).await;
        server.request().await.unwrap().unwrap();
        let body = Parts((0..100).map(|_| Some(Ok(Frame::data(Bytes::from(vec![b'x'; 20_000]))))).collect());
        let mut text = Vec::new();
        let read = async {
            tokio::task::yield_now().await;
            client.read_to_end(&mut text).await.unwrap()
        };
        let write = async move {
            let mut respond = Box::pin(server.respond(ok(body), true));
            assert!(respond.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            let bytes = respond.await.unwrap().bytes;
            server.close().await;
            bytes
        };
        assert_eq!(tokio::join!(read, write).1, 2_000_000);
        assert_eq!(text.iter().filter(|&&byte| byte == b'x').count(), 2_000_000);
    });
}

/// Both ends of a connection on loopback.
async fn sockets() -> (TcpStream, Server<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    (client, Server::new(stream, Bytes::new(), &Limits::default()))
}

#[test]
fn a_client_that_goes_away_is_noticed_and_a_half_close_is_told_from_a_reset() {
    run(async {
        for (resets, expected) in [(false, Gone::HalfClosed), (true, Gone::Reset)] {
            let (mut client, mut server) = sockets().await;
            client.write_all(GET.as_bytes()).await.unwrap();
            let request = server.request().await.unwrap().unwrap();
            let mut cx = Context::from_waker(Waker::noop());
            assert!(server.poll_gone(&mut cx).is_pending());
            match resets {
                true => {
                    client.set_zero_linger().unwrap();
                    drop(client);
                }
                false => client.shutdown().await.unwrap(),
            }
            let gone = time::timeout(Duration::from_secs(5), poll_fn(|cx| server.poll_gone(cx))).await;
            assert_eq!(gone.unwrap(), expected);
            assert_eq!(server.poll_gone(&mut cx).is_ready(), resets);
            drop(request);
        }
    });
}

#[test]
fn a_close_delimited_body_that_fails_ends_in_a_reset() {
    run(async {
        let (mut client, mut server) = sockets().await;
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        drop(server.request().await.unwrap().unwrap());
        let fault = Fault::upstream(FaultKind::Closed);
        assert_eq!(server.respond(ok(Parts::of(&["abc"]).then(Err(fault))), false).await, Err(fault));
        server.close().await;
        let error = client.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_response_that_is_given_up_is_the_last_and_seen_not_to_be_whole() {
    run(async {
        for version in ["1.0", "1.1"] {
            let (mut client, mut server) = sockets().await;
            client.write_all(format!("GET / HTTP/{version}\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
            drop(server.request().await.unwrap().unwrap());
            let never = ok(Never(Some(Bytes::from_static(b"abc"))));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(Box::pin(server.respond(never, false)).as_mut().poll(&mut cx).is_pending());
            assert!(server.request().await.unwrap().is_none());
            server.close().await;
            let mut text = Vec::new();
            let end = client.read_to_end(&mut text).await;
            match version {
                "1.0" => assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset),
                _ => assert!(end.is_ok() && text.ends_with(b"3\r\nabc\r\n"), "{end:?}"),
            }
        }
    });
}

#[test]
fn http_1_0_sees_no_interim_responses() {
    run(async {
        let (mut client, mut server) = server();
        write(&mut client, "GET / HTTP/1.0\r\n\r\n").await;
        server.request().await.unwrap().unwrap();
        let hints = Response::builder().status(103).body(Whole::default()).unwrap();
        assert_eq!(server.respond(hints, false).await.unwrap().after, After::Response);
        server.respond(ok(Whole::of("a")), false).await.unwrap();
        drop(server);
        assert!(read_all(&mut client).await.starts_with("HTTP/1.1 200 OK\r\n"));
    });
}

#[test]
fn a_client_that_is_still_sending_can_read_the_response() {
    run(async {
        let (mut client, mut server) = sockets().await;
        client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n").await.unwrap();
        let request = server.request().await.unwrap().unwrap();
        let response = Response::builder().status(413).body(Whole::default()).unwrap();
        server.respond(response, true).await.unwrap();
        drop(request);
        let client = async {
            client.write_all(&[b'x'; 1_000_000]).await.unwrap();
            client.shutdown().await.unwrap();
            let mut text = String::new();
            client.read_to_string(&mut text).await.unwrap();
            text
        };
        let (text, ()) = tokio::join!(client, server.close());
        assert!(text.starts_with("HTTP/1.1 413"), "{text}");
    });
}

#[test]
fn a_body_can_be_read_while_the_response_is_written() {
    run(async {
        let (mut client, mut server) = server();
        write(&mut client, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
        let request = server.request().await.unwrap().unwrap();
        let echo = async {
            let response = request.map(Box::pin).into_body();
            server.respond(ok(response), false).await.unwrap()
        };
        let talk = async {
            read_to(&mut client, "3\r\nabc\r\n").await;
            write(&mut client, "2\r\nde\r\n0\r\n\r\n").await;
            read_to(&mut client, "2\r\nde\r\n0\r\n\r\n").await
        };
        assert_eq!(tokio::join!(echo, talk).0.bytes, 5);
    });
}

#[test]
fn a_body_ends_where_its_length_says_even_while_its_producer_waits() {
    run(async {
        let (mut client, mut server) = server();
        write(&mut client, GET).await;
        server.request().await.unwrap().unwrap();
        let never = Never(Some(Bytes::from_static(b"abc")));
        let response = Response::builder().header("content-length", 3).body(never).unwrap();
        assert_eq!(server.respond(response, false).await.unwrap().after, After::Request);
    });
}

/// One part, and then nothing, not even an end.
struct Never(Option<Bytes>);

impl http_body::Body for Never {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        self.0.take().map_or(Poll::Pending, |data| Poll::Ready(Some(Ok(Frame::data(data)))))
    }
}
