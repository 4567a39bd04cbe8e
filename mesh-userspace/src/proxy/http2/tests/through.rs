//! Both halves together, between hyper's client and server.

use super::{super::super::Message, *};

use http_body_util::{Full, StreamBody};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

/// Spawns what hyper wants spawned here.
#[derive(Clone, Copy)]
struct Here;

impl<F: Future + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

type AnyBody = http_body_util::combinators::UnsyncBoxBody<Bytes, std::convert::Infallible>;
type HyperClient = hyper::client::conn::http2::SendRequest<AnyBody>;

/// A client of hyper, whose requests go through both halves to a server of hyper that echoes them.
async fn proxied() -> HyperClient {
    let (connection, _driver, stream) = connected(Limits::upstream()).await;
    tokio::task::spawn_local(async move {
        let echo = service_fn(|request: Request<hyper::body::Incoming>| async {
            let (head, body) = request.into_parts();
            let mut response = Response::new(body);
            response.headers_mut().extend(head.headers.into_iter().filter(|(name, _)| name.is_some()));
            response.headers_mut().insert("x-target", head.uri.to_string().parse().unwrap());
            response.headers_mut().remove("content-length");
            Ok::<_, std::convert::Infallible>(response)
        });
        hyper::server::conn::http2::Builder::new(Here).serve_connection(TokioIo::new(stream), echo).await
    });
    let (stream, _task) = served(Limits::default(), move |request| {
        let connection = connection.clone();
        async move {
            let Message { mut head, body } = request.into();
            super::super::dialect::prepare_for_http2(&mut head)?;
            connection.send((*head).into(), body).await.map_err(|unanswered| unanswered.fault)
        }
    });
    let (send, driver) =
        hyper::client::conn::http2::handshake::<_, _, AnyBody>(Here, TokioIo::new(stream)).await.unwrap();
    tokio::task::spawn_local(driver);
    send
}

fn full(bytes: impl Into<Bytes>) -> AnyBody {
    Full::new(bytes.into()).boxed_unsync()
}

#[test]
fn requests_of_all_sizes_come_back_as_they_were() {
    run(async {
        let send = proxied().await;
        let all = [0, 1, 100, 16_384, 16_385, 65_535, 65_536, 1_000_000, 5_000_000].map(|size| {
            let mut send = send.clone();
            async move {
                let sent = Bytes::from((0..size).map(|i: u32| (i % 253) as u8).collect::<Vec<_>>());
                let request = Request::post(format!("http://service/{size}?q=1")).body(full(sent.clone())).unwrap();
                let response = send.send_request(request).await.unwrap();
                assert_eq!(response.headers()["x-target"], format!("http://service/{size}?q=1"));
                assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), sent);
            }
        });
        futures_util::future::join_all(all).await;
    });
}

#[test]
fn messages_of_a_stream_are_answered_one_by_one() {
    run(async {
        let mut send = proxied().await;
        let (to, mut from) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
        let frames = futures_util::stream::poll_fn(move |cx| {
            from.poll_recv(cx).map(|data| data.map(|data| Ok::<_, std::convert::Infallible>(Frame::data(data))))
        });
        let request = Request::post("http://service/").body(StreamBody::new(frames).boxed_unsync()).unwrap();
        let mut response = send.send_request(request).await.unwrap();
        for message in ["one", "two", "three"] {
            to.send(message.into()).unwrap();
            assert_eq!(response.frame().await.unwrap().unwrap().into_data().unwrap(), message);
        }
        drop(to);
        assert!(response.collect().await.unwrap().to_bytes().is_empty());
    });
}

#[test]
fn trailers_of_the_request_come_back_as_those_of_the_response() {
    run(async {
        let mut send = proxied().await;
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        let body = Full::new(Bytes::from("x")).with_trailers(std::future::ready(Some(Ok(trailers)))).boxed_unsync();
        let response = send.send_request(Request::post("http://service/").body(body).unwrap()).await.unwrap();
        let all = response.collect().await.unwrap();
        assert_eq!(all.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(all.to_bytes(), "x");
    });
}

#[test]
fn a_client_that_gives_up_an_echo_leaves_nothing_open() {
    run(async {
        let (connection, _driver, stream) = connected(Limits::upstream()).await;
        h2_server(stream, |_, mut respond| async move {
            let _ = poll_fn(|cx| respond.poll_reset(cx)).await;
        });
        let upstream = connection.clone();
        let (stream, _task) = served(Limits::default(), move |request| {
            let upstream = upstream.clone();
            async move {
                let (head, body) = request.into_parts();
                upstream.send(head, body).await.map_err(|unanswered| unanswered.fault)
            }
        });
        let (mut send, _driver) = h2_client(stream).await;
        let both = send.send_request(get("/"), true).unwrap();
        rest().await;
        assert_eq!(connection.open_streams(), 1);
        drop(both);
        rest().await;
        assert_eq!(connection.open_streams(), 0);
    });
}

#[test]
fn an_extended_connect_is_a_stream_both_ways() {
    run(async {
        let (connection, _driver, stream) = connected(Limits::upstream()).await;
        tokio::task::spawn_local(async move {
            let mut server =
                h2::server::Builder::new().enable_connect_protocol().handshake::<_, Bytes>(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = server.accept().await {
                tokio::task::spawn_local(async move {
                    assert_eq!(request.extensions().get::<h2::ext::Protocol>().unwrap().as_str(), "websocket");
                    let mut out = respond.send_response(Response::new(()), false).unwrap();
                    let mut body = request.into_body();
                    while let Some(Ok(data)) = body.data().await {
                        out.send_data(data, false).unwrap();
                    }
                    out.send_data(Bytes::new(), true).unwrap();
                });
            }
        });
        rest().await;
        assert!(connection.takes_extended_connect());
        let limits = Limits { extended_connect: true, ..Limits::default() };
        let (stream, _task) = served(limits, move |request| {
            let connection = connection.clone();
            async move {
                let Message { mut head, body } = request.into();
                super::super::dialect::prepare_for_http2(&mut head)?;
                connection.send((*head).into(), body).await.map_err(|unanswered| unanswered.fault)
            }
        });
        let (mut send, _driver) = h2_client(stream).await;
        rest().await;
        let request = Request::connect("http://service/chat").extension(h2::ext::Protocol::from("websocket"));
        let (response, mut to) = send.send_request(request.body(()).unwrap(), false).unwrap();
        let mut from = response.await.unwrap().into_body();
        for message in ["one", "two"] {
            to.send_data(message.into(), false).unwrap();
            assert_eq!(from.data().await.unwrap().unwrap(), message);
        }
        to.send_data(Bytes::new(), true).unwrap();
        assert_eq!(all_of(from).await.unwrap().0, "");
    });
}
