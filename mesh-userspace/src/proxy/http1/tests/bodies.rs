//! What was encoded is decoded to the same.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body::Frame;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::{
    super::{super::Message, Connection, Limits, Server},
    Parts, Whole, collect, head_of, ok, run,
};

fn header_maps() -> impl Strategy<Value = HeaderMap> {
    let name = "x-[a-z0-9!#$%&'*+.^_`|~-]{0,12}".prop_map(|name| HeaderName::try_from(name).unwrap());
    // Blanks around a value are no part of it.
    let value = "([!-~\u{80}-\u{ff}]([!-~ \t]{0,20}[!-~])?)?"
        .prop_map(|value| HeaderValue::from_bytes(value.as_bytes()).unwrap());
    proptest::collection::vec((name, value), 0..10).prop_map(|lines| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value);
        }
        headers
    })
}

/// Parts of a body, and how much of it is known before.
fn bodies() -> impl Strategy<Value = (Vec<usize>, bool)> {
    (proptest::collection::vec(0..40_000_usize, 0..6), any::<bool>())
}

fn parts(lengths: &[usize], trailers: &HeaderMap) -> (Parts, Vec<u8>) {
    let mut body = Parts::default();
    let mut all = Vec::new();
    for (at, &length) in lengths.iter().enumerate() {
        let data: Vec<u8> = (0..length).map(|byte| (byte * 7 + at) as u8).collect();
        all.extend_from_slice(&data);
        body = body.then(Ok(Frame::data(Bytes::from(data))));
        if at % 2 == 0 {
            body = body.then_wait();
        }
    }
    (if trailers.is_empty() { body } else { body.then(Ok(Frame::trailers(trailers.clone()))) }, all)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn messages_come_through_as_they_were(
        headers in header_maps(), trailers in header_maps(), back in header_maps(),
        (up, up_known) in bodies(), (down, down_known) in bodies(),
        room in 1_000..100_000_usize,
    ) {
        run(async {
            let (near, far) = tokio::io::duplex(room);
            let mut server = Server::new(far, Bytes::new(), &Limits::default());
            let connection = Connection::new(near, &Limits::default());

            let (up_body, up_data) = parts(&up, &trailers);
            let mut head = head_of(Request::post("/a/b?c=d"));
            head.headers = headers.clone().into();
            head.headers.insert("host", &HeaderValue::from_static("h"));
            if up_known {
                head.headers.insert("content-length", &HeaderValue::from(up_data.len()));
            }
            let (down_body, down_data) = parts(&down, &trailers);
            let mut response = ok(down_body);
            response.head.headers = back.clone().into();
            if down_known {
                response.head.headers.insert("content-length", &HeaderValue::from(down_data.len()));
            }

            let serve = async {
                let request = server.request().await.unwrap().unwrap();
                let Message { head: got, body } = request;
                let (data, got_trailers) = collect(body).await.unwrap();
                assert_eq!((&got.method, got.uri.to_string()), (&Method::POST, "/a/b?c=d".to_owned()));
                for (name, value) in &headers {
                    assert!(got.headers.get_all(name).any(|other| other == value));
                }
                assert!(data == up_data, "the body is the same");
                // Trailers of a body of known length have no place.
                assert_eq!(got_trailers, (!up_known && !trailers.is_empty()).then(|| trailers.clone()));
                server.respond(response, false).await.unwrap();
            };
            let ask = async {
                let mut response = connection.send(&head, up_body).await.unwrap();
                for (name, value) in &back {
                    assert!(response.head.headers.get_all(name).any(|other| other == value));
                }
                let (data, got_trailers) = collect(&mut response.body).await.unwrap();
                assert!(data == down_data, "the body is the same");
                assert_eq!(got_trailers, (!down_known && !trailers.is_empty()).then(|| trailers.clone()));
                assert!(response.body.into_connection().is_some(), "it can be used again");
            };
            tokio::join!(serve, ask);
        });
    }
}

#[test]
fn a_tiny_pipe_is_slow_but_not_wrong() {
    run(async {
        let (mut client, far) = tokio::io::duplex(1);
        let mut server = Server::new(far, Bytes::new(), &Limits::default());
        let ask = async {
            client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc").await.unwrap();
            super::read_to(&mut client, "hello").await
        };
        let serve = async {
            let request = server.request().await.unwrap().unwrap();
            assert_eq!(collect(request.body).await.unwrap().0, b"abc");
            server.respond(ok(Whole::of("hello")), false).await.unwrap();
        };
        assert_eq!(tokio::join!(ask, serve).0, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
    });
}
