//! How far requests came that got no answer.

use super::{
    client::{answer, whole},
    *,
};

use h2::Reason;

use super::super::super::{FaultKind, Reached, Side};

#[test]
fn a_refused_stream_reached_nowhere_and_other_resets_the_endpoint() {
    for (reason, reached) in [
        (Reason::REFUSED_STREAM, Reached::Nowhere),
        (Reason::INTERNAL_ERROR, Reached::Endpoint),
        (Reason::CANCEL, Reached::Endpoint),
    ] {
        run(async move {
            let (connection, _driver, stream) = connected(Limits::upstream()).await;
            h2_server(stream, move |_, mut respond| async move { respond.send_reset(reason) });
            let (head, body) = ours(get("/"), Frames::default());
            let error = connection.send(head, body).await.unwrap_err();
            assert_eq!(error.fault, Fault::upstream(FaultKind::Reset { code: Some(reason.into()) }));
            assert_eq!(error.reached, reached);
        });
    }
}

#[test]
fn a_goaway_leaves_out_what_came_after_and_ends_the_use_of_the_connection() {
    run(async {
        let (connection, driver, stream) = connected(Limits::upstream()).await;
        tokio::task::spawn_local(async move {
            let mut server = h2::server::handshake(stream).await.unwrap();
            let (_request, mut respond) = server.accept().await.unwrap().unwrap();
            server.graceful_shutdown();
            let finish = async {
                rest().await;
                let mut stream = respond.send_response(Response::new(()), false).unwrap();
                stream.send_data("last".into(), true).unwrap();
            };
            tokio::join!(finish, async { while server.accept().await.is_some() {} });
        });
        let (head, body) = ours(get("/"), Frames::default());
        assert!(connection.is_usable());
        let last = whole(connection.send(head, body).await.unwrap()).await.unwrap().0;
        assert_eq!(last, "last");
        assert!(!connection.is_usable());
        let (head, body) = ours(get("/"), Frames::default());
        let error = connection.send(head, body).await.unwrap_err();
        assert_eq!((error.reached, error.fault.side), (Reached::Nowhere, Side::Upstream));
        drop(connection);
        driver.await.unwrap().unwrap();
    });
}

#[test]
fn streams_above_the_last_of_a_goaway_reached_nowhere_and_those_below_the_endpoint() {
    run(async {
        let (connection, _driver, mut stream) = connected(Limits::upstream()).await;
        let both = futures_util::future::join_all((0..2).map(|_| {
            let (head, body) = ours(get("/"), Frames::default());
            connection.send(head, body)
        }));
        let server = async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            // SETTINGS, then GOAWAY: last stream 1, no error; then the end.
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            rest().await;
            stream.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]).await.unwrap();
            rest().await;
            let mut read = [0; 4096];
            assert!(stream.read(&mut read).await.unwrap() > 100);
            drop(stream);
        };
        let (answers, ()) = tokio::join!(both, server);
        let reached: Vec<_> = answers.into_iter().map(|answer| answer.unwrap_err().reached).collect();
        assert_eq!(reached, [Reached::Endpoint, Reached::Nowhere]);
    });
}

#[test]
fn a_connection_that_served_and_ends_without_a_byte_was_stale() {
    run(async {
        let (connection, _driver, stream) = connected(Limits::upstream()).await;
        let end = Rc::new(tokio::sync::Notify::new());
        let told = Rc::clone(&end);
        tokio::task::spawn_local(async move {
            let mut server = h2::server::handshake(stream).await.unwrap();
            let (request, respond) = server.accept().await.unwrap().unwrap();
            answer(request, respond).await;
            // Says all that it has to say, and then reads no more.
            assert!(tokio::time::timeout(Duration::from_millis(20), server.accept()).await.is_err());
            told.notified().await;
        });
        let (head, body) = ours(get("/"), Frames::default());
        whole(connection.send(head, body).await.unwrap()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (head, body) = ours(get("/"), Frames::default());
        let (answer, ()) = tokio::join!(connection.send(head, body), async {
            rest().await;
            end.notify_one();
        });
        let error = answer.unwrap_err();
        assert_eq!((error.reached, error.fault), (Reached::Stale, Fault::upstream(FaultKind::Closed)));
        assert!(!connection.is_usable());
    });
}

#[test]
fn a_head_that_http2_forbids_is_not_held_against_the_endpoint() {
    run(async {
        let (connection, _driver, _stream) = connected(Limits::upstream()).await;
        let (mut head, body) = ours(get("/"), Frames::default());
        head.headers.insert("connection", "close".parse().unwrap());
        let error = connection.send(head, body).await.unwrap_err();
        assert_eq!((error.reached, error.fault.side), (Reached::Nowhere, Side::Downstream));
        assert!(connection.is_usable());
        assert_eq!(connection.open_streams(), 0);
    });
}

#[test]
fn a_connection_that_ends_before_it_takes_a_byte_was_reached_by_nothing() {
    run(async {
        let (connection, driver, stream) = connected(Limits::upstream()).await;
        rest().await;
        drop(stream);
        let (head, body) = ours(get("/"), Frames::default());
        let error = connection.send(head, body).await.unwrap_err();
        assert_eq!(error.reached, Reached::Nowhere);
        let _ = driver.await.unwrap();
    });
}
