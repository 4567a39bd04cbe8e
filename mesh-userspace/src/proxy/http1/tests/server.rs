//! The server half.

use std::task::{Context, Waker};

use bytes::Bytes;
use http::{Method, Response, Version};
use http_body::{Body as _, Frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    super::{
        super::{Fault, FaultKind},
        After, Limits, Server, Stage,
    },
    GET, Never, Parts, Whole, collect, ok, read_all, read_to, run, server, write,
};

#[test]
fn a_response_of_known_length_has_content_length() {
    run(async {
        let (mut client, mut server) = server();
        write(&mut client, GET).await;
        let request = server.request().await.unwrap().unwrap();
        assert_eq!(
            (&request.head.method, request.head.uri.path(), request.head.version),
            (&Method::GET, "/1", Version::HTTP_11)
        );
        assert!(request.body.is_end_stream());
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
            assert_eq!(request.head.uri.path(), path);
            assert_eq!(collect(request.body).await.unwrap().0, body.as_bytes());
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
            assert_eq!(server.respond(response.unwrap().into(), false).await.unwrap().after, After::Request);
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
        server.respond(response.body(Parts::default()).unwrap().into(), false).await.unwrap();
        drop(server);
        assert_eq!(read_all(&mut client).await, "HTTP/1.1 204 No Content\r\n\r\n");
    });
}

#[test]
fn an_early_response_is_followed_by_the_next_request_if_the_body_is_small() {
    run(async {
        let (mut client, mut server) = server();
        write(&mut client, &format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc{GET}")).await;
        let request = server.request().await.unwrap().unwrap();
        assert_eq!(server.respond(ok(Whole::default()), false).await.unwrap().after, After::Request);
        assert_eq!(server.request().await.unwrap().unwrap().head.uri.path(), "/1");
        let late = collect(request.body).await;
        assert_eq!(late, Err(Fault::downstream(FaultKind::Closed)), "it reads nothing of the next request");
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
        let (body, ()) = tokio::join!(collect(request.body), answer);
        assert_eq!(body.unwrap().0, b"abc");
        assert_eq!(server.respond(ok(Whole::default()), false).await.unwrap().after, After::Request);
    });
}

#[test]
fn interim_responses_go_before_the_response() {
    run(async {
        let (mut client, mut server) = server();
        write(&mut client, GET).await;
        server.request().await.unwrap().unwrap();
        let hints = Response::builder().status(103).header("link", "x").body(Whole::default()).unwrap();
        assert_eq!(server.respond(hints.into(), false).await.unwrap().after, After::Response);
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
            assert_eq!(server.respond(response.unwrap().into(), false).await.unwrap().after, After::Tunnel);
            let (stream, read) = server.upgrade().unwrap();
            assert_eq!(&read[..], b"not http");
            drop(stream);
            let text = read_all(&mut client).await;
            assert!(text.ends_with("\r\nconnection: upgrade\r\n\r\n") && !text.contains("content-length"), "{text}");
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

#[test]
fn http_1_0_sees_no_interim_responses() {
    run(async {
        let (mut client, mut server) = server();
        write(&mut client, "GET / HTTP/1.0\r\n\r\n").await;
        server.request().await.unwrap().unwrap();
        let hints = Response::builder().status(103).body(Whole::default()).unwrap();
        assert_eq!(server.respond(hints.into(), false).await.unwrap().after, After::Response);
        server.respond(ok(Whole::of("a")), false).await.unwrap();
        drop(server);
        assert!(read_all(&mut client).await.starts_with("HTTP/1.1 200 OK\r\n"));
    });
}

#[test]
fn a_body_can_be_read_while_the_response_is_written() {
    run(async {
        let (mut client, mut server) = server();
        write(&mut client, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
        let request = server.request().await.unwrap().unwrap();
        let echo = async {
            let response = request.map(Box::pin).body;
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
        assert_eq!(server.respond(response.into(), false).await.unwrap().after, After::Request);
    });
}
