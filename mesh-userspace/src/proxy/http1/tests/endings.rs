//! The server half: how connections end, well or badly.

use std::{
    future::poll_fn,
    io::ErrorKind,
    task::{Context, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time,
};

use super::{
    super::{
        super::{Fault, FaultKind, Side},
        After, Gone, Limits, Server,
    },
    GET, Never, Parts, Whole, collect, ok, read_all, read_to, run, server, write,
};

/// Both ends of a connection on loopback.
async fn sockets() -> (TcpStream, Server<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    (client, Server::new(stream, Bytes::new(), &Limits::default()))
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
fn a_body_that_fails_leaves_a_response_that_is_not_whole() {
    run(async {
        let (mut client, mut server) = server();
        write(&mut client, GET).await;
        server.request().await.unwrap().unwrap();
        let fault = Fault::upstream(FaultKind::Reset { code: None });
        let result = server.respond(ok(Parts::of(&["abc"]).then_wait().then(Err(fault))), false).await;
        assert_eq!(result, Err(fault));
        assert!(server.request().await.unwrap().is_none());
        server.close().await;
        let text = read_all(&mut client).await;
        assert!(text.ends_with("\r\n\r\n3\r\nabc\r\n"), "{text}");
    });
}

#[test]
fn a_body_that_fails_at_once_leaves_room_for_another_answer() {
    run(async {
        let (mut client, mut server) = server();
        for version in ["1.1", "1.0"] {
            let line = "connection: keep-alive";
            write(&mut client, &format!("GET / HTTP/{version}\r\nhost: a\r\n{line}\r\n\r\n")).await;
            server.request().await.unwrap().unwrap();
            let fault = Fault::upstream(FaultKind::Malformed("chunk size"));
            let result = server.respond(ok(Parts::of(&["abc"]).then(Err(fault))), false).await;
            assert_eq!(result, Err(fault));
            assert!(!server.has_begun_response());
            let instead = Response::builder().status(502).body(Whole::default()).unwrap();
            assert_eq!(server.respond(instead.into(), false).await.unwrap().after, After::Request);
            assert!(server.has_begun_response());
            assert!(read_to(&mut client, "\r\n\r\n").await.starts_with("HTTP/1.1 502"));
        }
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
                server.respond(response.into(), false).await
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
        assert_eq!(server.respond(response.into(), false).await.unwrap().after, After::Close);
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
            assert_eq!(collect(request.body).await, Err(Fault::downstream(FaultKind::Closed)));
            assert!(!server.is_open());
        }
    });
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
        let body = Parts::of(&["abc"]).then_wait().then(Err(fault));
        assert_eq!(server.respond(ok(body), false).await, Err(fault));
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
fn a_client_that_is_still_sending_can_read_the_response() {
    run(async {
        let (mut client, mut server) = sockets().await;
        client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n").await.unwrap();
        let request = server.request().await.unwrap().unwrap();
        let response = Response::builder().status(413).body(Whole::default()).unwrap();
        server.respond(response.into(), true).await.unwrap();
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
