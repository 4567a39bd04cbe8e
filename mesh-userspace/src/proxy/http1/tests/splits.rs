//! However the bytes arrive, the messages are the same.

use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use super::{
    super::{super::Message, Limits, Server},
    Whole, collect, ok, run,
    smuggling::{CHUNKED, REQUESTS},
};

/// What a server makes of bytes that arrive in these parts: each request with its body, and how it ended.
fn understood(parts: &[&[u8]]) -> Vec<String> {
    run(async {
        // Room for one part, so that no read gets more than it.
        let (mut client, stream) = tokio::io::duplex(1 << 16);
        let mut server = Server::new(stream, Bytes::new(), &Limits::default());
        let send = async {
            for part in parts.iter().filter(|part| !part.is_empty()) {
                client.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
            client.shutdown().await.unwrap();
        };
        let serve = async {
            let mut log = Vec::new();
            loop {
                match server.request().await {
                    Ok(Some(request)) => {
                        let Message { head, body } = request;
                        log.push(format!("{} {} {:?}", head.method, head.uri, head.headers));
                        log.push(format!("{:?}", collect(body).await));
                        if server.respond(ok(Whole::default()), false).await.is_err() {
                            return log;
                        }
                    }
                    Ok(None) => return log,
                    Err(fault) => {
                        log.push(fault.to_string());
                        return log;
                    }
                }
            }
        };
        tokio::join!(serve, send).0
    })
}

/// Some messages, and where they are cut.
fn messages() -> impl Strategy<Value = (Vec<u8>, Vec<usize>)> {
    let heads = (0..REQUESTS.len()).prop_map(|at| REQUESTS[at].0.as_bytes().to_vec());
    let chunked = (0..CHUNKED.len()).prop_map(|at| {
        [b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", CHUNKED[at].0.as_bytes()].concat()
    });
    let valid = Just(b"POST /2 HTTP/1.1\r\nhost: b\r\ncontent-length: 5\r\n\r\nhello".to_vec());
    let message = prop_oneof![heads, chunked, valid];
    proptest::collection::vec(message, 1..4).prop_map(|messages| messages.concat()).prop_flat_map(|bytes| {
        let length = bytes.len();
        (Just(bytes), proptest::collection::vec(0..=length, 0..12))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_split_into_reads_gives_the_same_requests((bytes, mut cuts) in messages()) {
        cuts.sort_unstable();
        let mut parts = Vec::new();
        let mut from = 0;
        for cut in cuts {
            parts.push(&bytes[from..cut]);
            from = cut;
        }
        parts.push(&bytes[from..]);
        prop_assert_eq!(understood(&parts), understood(&[&bytes]));
    }
}

#[test]
fn byte_by_byte_is_as_good_as_at_once() {
    let text = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nt: u\r\n\r\nGET /2 HTTP/1.0\r\n\r\n";
    let bytes: Vec<&[u8]> = text.chunks(1).collect();
    let log = understood(&bytes);
    assert_eq!(log, understood(&[text]));
    assert_eq!(log.len(), 4);
}
