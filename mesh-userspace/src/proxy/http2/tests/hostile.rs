//! Peers that mean harm.

use super::*;

use h2::Reason;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The code of the GOAWAY that ends what comes, if there is one.
async fn goaway(stream: &mut DuplexStream) -> Option<u32> {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all).await;
    let last = frames(&all).into_iter().rfind(|frame| frame.kind == 7)?;
    Some(u32::from_be_bytes(last.payload[4..8].try_into().unwrap()))
}

async fn never(_: Request<Incoming>) -> Result<Response<Frames>, Fault> {
    pending().await
}

#[test]
fn a_client_that_resets_what_it_opens_is_cut_off() {
    run(async {
        let begun = Rc::new(Cell::new(0));
        let count = Rc::clone(&begun);
        let (mut stream, task) = served(Limits::default(), move |request| {
            count.set(count.get() + 1);
            never(request)
        });
        stream.write_all(PREFACE).await.unwrap();
        let mut streams = (1..).step_by(2);
        loop {
            let id = streams.next().unwrap();
            assert!(id < 2000, "not cut off");
            let mut both = get_frame(id);
            if stream.write_all(&both).await.is_err() {
                break;
            }
            // So that it is accepted and begun with.
            rest().await;
            both = frame(3, 0, id, &[0, 0, 0, 8]);
            if stream.write_all(&both).await.is_err() {
                break;
            }
            rest().await;
            if task.is_finished() {
                break;
            }
        }
        assert_eq!(goaway(&mut stream).await, Some(Reason::ENHANCE_YOUR_CALM.into()));
        assert_eq!(begun.get(), Limits::default().early_resets + 1);
    });
}

#[test]
fn streams_that_are_reset_in_one_breath_never_reach_the_handler() {
    run(async {
        let begun = Rc::new(Cell::new(0));
        let count = Rc::clone(&begun);
        let (mut stream, _task) = served(Limits::default(), move |request| {
            count.set(count.get() + 1);
            never(request)
        });
        let mut flood = PREFACE.to_vec();
        for id in (1..2000).step_by(2) {
            flood.extend(get_frame(id));
            flood.extend(frame(3, 0, id, &[0, 0, 0, 8]));
        }
        let _ = stream.write_all(&flood).await;
        assert_eq!(goaway(&mut stream).await, Some(Reason::ENHANCE_YOUR_CALM.into()));
        assert_eq!(begun.get(), 0);
    });
}

#[test]
fn a_head_without_end_is_cut_off() {
    run(async {
        let (mut stream, _task) = served(Limits::default(), never);
        let mut flood = PREFACE.to_vec();
        flood.extend(frame(1, 1, 1, &[0x82, 0x86, 0x84, 0x41, 0x01, b'a']));
        for _ in 0..1000 {
            flood.extend(frame(9, 0, 1, &[]));
        }
        let _ = stream.write_all(&flood).await;
        assert_eq!(goaway(&mut stream).await, Some(Reason::ENHANCE_YOUR_CALM.into()));
    });
}

#[test]
fn a_giant_head_is_answered_by_431_and_more_than_that_by_the_end() {
    run(async {
        let (stream, _task) = served(Limits::default(), never);
        let (mut send, _driver) = h2_client(stream).await;
        for (length, status) in [(70_000, Some(431)), (300_000, None)] {
            let mut request = get("/");
            for i in 0..length / 1000 {
                let name = http::HeaderName::try_from(format!("x-{i}")).unwrap();
                request.headers_mut().insert(name, "v".repeat(1000).parse().unwrap());
            }
            let (response, _) = send.send_request(request, true).unwrap();
            match (response.await, status) {
                (Ok(response), Some(status)) => assert_eq!(response.status(), status),
                (Err(error), None) => assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM)),
                (other, _) => panic!("{length}: {other:?}"),
            }
        }
    });
}

#[test]
fn floods_of_frames_that_are_answered_stop_at_a_peer_that_does_not_read() {
    for answered in [frame(6, 0, 0, &[0; 8]), frame(4, 0, 0, &[])] {
        run(async move {
            let (mut stream, _task) = served(Limits::default(), never);
            stream.write_all(PREFACE).await.unwrap();
            let mut written = 0;
            while let Ok(Ok(())) = tokio::time::timeout(Duration::from_millis(50), stream.write_all(&answered)).await {
                written += answered.len();
                assert!(written < 2_000_000, "there is no end to it");
            }
            assert!(written > PIPE);
        });
    }
}

#[test]
fn requests_of_a_client_that_does_not_read_are_no_more_than_its_streams() {
    run(async {
        let begun = Rc::new(Cell::new(0));
        let count = Rc::clone(&begun);
        let (mut stream, _task) = served(Limits::default(), move |_| {
            count.set(count.get() + 1);
            async { Ok(Response::new(Frames::of(vec![1; 10_000]))) }
        });
        stream.write_all(PREFACE).await.unwrap();
        for id in (1..100_000).step_by(2) {
            let frame = get_frame(id);
            let write = tokio::time::timeout(Duration::from_millis(50), stream.write_all(&frame));
            if !matches!(write.await, Ok(Ok(()))) {
                break;
            }
        }
        // The window of the connection lets 64 KiB through; what is answered beyond stays queued.
        assert!(begun.get() < 600, "{}", begun.get());
    });
}

#[test]
fn two_hosts_are_refused() {
    run(async {
        let (stream, _task) = served(Limits::default(), never);
        let (mut send, _driver) = h2_client(stream).await;
        let mut request = get("/");
        request.headers_mut().insert("host", "other".parse().unwrap());
        let (response, _) = send.send_request(request, true).unwrap();
        assert_eq!(response.await.unwrap_err().reason(), Some(Reason::PROTOCOL_ERROR));
    });
}

#[test]
fn noise_in_place_of_the_preface_is_malformed() {
    run(async {
        let (mut stream, task) = served(Limits::default(), never);
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let fault = task.await.unwrap().unwrap_err();
        assert!(matches!(fault.kind, super::super::super::FaultKind::Malformed(_)), "{fault:?}");
    });
}

#[test]
fn an_endpoint_with_a_giant_head_is_refused() {
    run(async {
        let (connection, _driver, stream) = connected(Limits::upstream()).await;
        h2_server(stream, |_, mut respond| async move {
            let mut response = Response::new(());
            for i in 0..70 {
                let name = http::HeaderName::try_from(format!("x-{i}")).unwrap();
                response.headers_mut().insert(name, "v".repeat(1000).parse().unwrap());
            }
            let _ = respond.send_response(response, true);
        });
        let (head, body) = ours(get("/"), Frames::default());
        let error = connection.send(head, body).await.unwrap_err();
        assert_eq!(error.reached, super::super::super::Reached::Endpoint);
    });
}

/// A frame of any kind, on streams that there may be, with little in it.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        Just(vec![0x82, 0x86, 0x84, 0x41, 0x01, b'a']),
        Just(vec![0x88]),
        Just(vec![0; 4]),
        Just(vec![0; 8]),
    ];
    (0..12_u8, any::<u8>(), 0..8_u32, payload).prop_map(|(kind, flags, id, payload)| frame(kind, flags, id, &payload))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_frames_of_a_client_make_it_panic(frames in prop::collection::vec(any_frame(), 1..30)) {
        run(async {
            let (mut stream, task) = served(Limits::default(), |request| async {
                Ok(Response::new(request.into_body()))
            });
            let _ = stream.write_all(&[PREFACE.to_vec(), frames.concat()].concat()).await;
            rest().await;
            drop(stream);
            let _ = task.await.expect("no panic");
        });
    }

    #[test]
    fn no_frames_of_an_endpoint_make_it_panic(frames in prop::collection::vec(any_frame(), 1..30)) {
        run(async {
            let (connection, driver, mut stream) = connected(Limits::upstream()).await;
            let sent = (0..3).map(|_| {
                let (head, body) = ours(post("/"), Frames::of("some").data("more").trailers("a", "b"));
                let connection = connection.clone();
                tokio::task::spawn_local(async move {
                    let response = connection.send(head, body).await?;
                    Ok::<_, super::super::super::Unanswered>(response.into_body().collect().await.is_ok())
                })
            });
            let sent: Vec<_> = sent.collect();
            rest().await;
            let _ = stream.write_all(&[frame(4, 0, 0, &[]), frames.concat()].concat()).await;
            rest().await;
            drop((stream, connection));
            for one in sent {
                let _ = one.await.expect("no panic");
            }
            let _ = driver.await.expect("no panic");
        });
    }
}
