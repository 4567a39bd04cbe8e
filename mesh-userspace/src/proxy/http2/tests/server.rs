//! The half that faces clients, against `h2`'s client.

use super::*;

use super::super::Activity;
use h2::Reason;

async fn echo(request: Request<Incoming>) -> Result<Response<Incoming>, Fault> {
    Ok(Response::new(request.into_body()))
}

async fn hello(_: Request<Incoming>) -> Result<Response<Frames>, Fault> {
    Ok(Response::new(Frames::of("hello")))
}

#[test]
fn a_thousand_requests_are_answered_on_one_connection() {
    run(async {
        let (stream, _task) = served(Limits::default(), hello);
        let (mut send, _driver) = h2_client(stream).await;
        // Until the settings come, a client thinks that it may open any number of streams.
        send.send_request(get("/"), true).unwrap().0.await.unwrap();
        let requests = (0..1000).map(|i| {
            let send = send.clone();
            async move {
                let (response, _) = send.ready().await.unwrap().send_request(get(&format!("/{i}")), true).unwrap();
                all_of(response.await.unwrap().into_body()).await.unwrap().0
            }
        });
        let answers = futures_util::future::join_all(requests).await;
        assert!(answers.iter().all(|answer| answer == "hello"));
    });
}

#[test]
fn bytes_that_were_read_before_are_not_lost() {
    run(async {
        let (ours, mut theirs) = tokio::io::duplex(PIPE);
        let mut before = [0; 20];
        let (client, reading) = tokio::join!(h2::client::handshake(ours), async {
            tokio::io::AsyncReadExt::read_exact(&mut theirs, &mut before).await
        });
        reading.unwrap();
        let (mut send, connection) = client.unwrap();
        tokio::task::spawn_local(connection);
        tokio::task::spawn_local(async move {
            let limits = Limits::default();
            serve(theirs, Bytes::copy_from_slice(&before), &limits, &Rc::default(), clock(), pending(), hello).await
        });
        let (response, _) = send.send_request(get("/"), true).unwrap();
        assert_eq!(all_of(response.await.unwrap().into_body()).await.unwrap().0, "hello");
    });
}

#[test]
fn a_large_body_and_its_trailers_come_back() {
    run(async {
        let (stream, _task) = served(Limits::default(), echo);
        let (mut send, _driver) = h2_client(stream).await;
        let (response, mut body) = send.send_request(post("/"), false).unwrap();
        let sent = Bytes::from((0..3_000_000_u32).map(|i| (i % 251) as u8).collect::<Vec<_>>());
        body.send_data(sent.clone(), false).unwrap();
        body.send_trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), "7".parse().unwrap())])).unwrap();
        let (echoed, trailers) = all_of(response.await.unwrap().into_body()).await.unwrap();
        assert_eq!(echoed, sent);
        assert_eq!(trailers.unwrap()["grpc-status"], "7");
    });
}

#[test]
fn a_slow_reader_holds_the_body_back() {
    run(async {
        let taken = Rc::new(Cell::new(0));
        let seen = Rc::clone(&taken);
        let (stream, _task) = served(Limits::default(), move |_| {
            let body = Endless(Rc::clone(&taken));
            async { Ok(Response::new(body)) }
        });
        let (mut send, _driver) = h2_client(stream).await;
        let (response, _) = send.send_request(get("/"), true).unwrap();
        let _unread = response.await.unwrap();
        rest().await;
        let limits = Limits::default();
        // The client's window, what we queue for the stream, and the frame that waits.
        assert!(seen.get() < 65_535 + limits.send_buffer + 20_000, "{}", seen.get());
    });
}

#[test]
fn a_client_that_sends_and_is_not_read_fills_its_window_and_no_more() {
    run(async {
        let (stream, _task) = served(Limits { stream_window: 100_000, ..Limits::default() }, |request| async move {
            let _unread = request;
            pending::<Result<Response<Frames>, Fault>>().await
        });
        let (mut send, _driver) = h2_client(stream).await;
        let (_response, mut body) = send.send_request(post("/"), false).unwrap();
        rest().await;
        let mut sent = 0;
        loop {
            body.reserve_capacity(1000);
            let room = poll_fn(|cx| Poll::Ready(body.poll_capacity(cx))).await;
            if room.is_pending() && body.capacity() == 0 {
                break;
            }
            let piece = vec![1; body.capacity().min(1000)];
            sent += piece.len();
            body.send_data(piece.into(), false).unwrap();
            rest().await;
        }
        assert_eq!(sent, 100_000);
    });
}

#[test]
fn a_reset_by_the_client_drops_the_handler_at_once() {
    run(async {
        let dropped = Dropped::default();
        let guard = dropped.clone();
        let (stream, _task) = served(Limits::default(), move |_| {
            let guard = guard.guard();
            async move {
                let _guard = guard;
                pending::<Result<Response<Frames>, Fault>>().await
            }
        });
        let (mut send, _driver) = h2_client(stream).await;
        let (response, _body) = send.send_request(get("/"), true).unwrap();
        rest().await;
        assert!(!dropped.is_true());
        drop((response, _body));
        rest().await;
        assert!(dropped.is_true());
    });
}

#[test]
fn a_body_that_fails_resets_the_stream_with_the_code_of_its_fault() {
    for (fault, code) in [
        (
            super::super::super::FaultKind::Reset { code: Some(Reason::ENHANCE_YOUR_CALM.into()) },
            Reason::ENHANCE_YOUR_CALM,
        ),
        (super::super::super::FaultKind::Closed, Reason::INTERNAL_ERROR),
        (super::super::super::FaultKind::Reset { code: Some(Reason::NO_ERROR.into()) }, Reason::INTERNAL_ERROR),
    ] {
        run(async move {
            let (stream, _task) = served(Limits::default(), move |_| async move {
                Ok(Response::new(Frames::of("begun").fault(Fault::upstream(fault))))
            });
            let (mut send, _driver) = h2_client(stream).await;
            let (response, _) = send.send_request(get("/"), true).unwrap();
            let error = match response.await {
                Err(error) => error,
                Ok(response) => all_of(response.into_body()).await.unwrap_err(),
            };
            assert!(error.is_reset() && error.is_remote());
            assert_eq!(error.reason(), Some(code));
        });
    }
}

#[test]
fn a_handler_that_fails_resets_the_stream() {
    run(async {
        let (stream, _task) = served(Limits::default(), |_| async {
            let refused = super::super::super::FaultKind::Reset { code: Some(Reason::REFUSED_STREAM.into()) };
            Err::<Response<Frames>, _>(Fault::upstream(refused))
        });
        let (mut send, _driver) = h2_client(stream).await;
        let (response, _) = send.send_request(get("/"), true).unwrap();
        assert_eq!(response.await.unwrap_err().reason(), Some(Reason::REFUSED_STREAM));
    });
}

#[test]
fn an_answer_before_the_end_of_the_request_is_whole() {
    run(async {
        let (stream, _task) = served(Limits::default(), hello);
        let (mut send, _driver) = h2_client(stream).await;
        let (response, mut body) = send.send_request(post("/"), false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(all_of(response.into_body()).await.unwrap().0, "hello");
        let reset = poll_fn(|cx| body.poll_reset(cx)).await.unwrap();
        assert_eq!(reset, Reason::NO_ERROR);
    });
}

#[test]
fn a_head_request_has_an_answer_with_a_length_and_without_a_body() {
    run(async {
        let (stream, _task) = served(Limits::default(), |_| async {
            Ok(Response::builder().header("content-length", "5").body(Frames::default()).unwrap())
        });
        let (mut send, _driver) = h2_client(stream).await;
        let (response, _) = send.send_request(Request::head("http://service/").body(()).unwrap(), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers()["content-length"], "5");
        assert_eq!(all_of(response.into_body()).await.unwrap().0, "");
    });
}

#[test]
fn a_client_that_waits_for_100_gets_it_when_the_body_is_wanted() {
    run(async {
        let (stream, _task) = served(Limits::default(), |request| async {
            let body = request.into_body().collect().await?.to_bytes();
            Ok(Response::new(Frames::of(body)))
        });
        let (mut send, _driver) = h2_client(stream).await;
        let mut request = post("/");
        request.headers_mut().insert("expect", "100-continue".parse().unwrap());
        let (mut response, mut body) = send.send_request(request, false).unwrap();
        let informed = poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!(informed.status(), 100);
        body.send_data("now".into(), true).unwrap();
        assert_eq!(all_of(response.await.unwrap().into_body()).await.unwrap().0, "now");
    });
}

#[test]
fn a_drain_lets_streams_finish_and_then_ends() {
    run(async {
        let drain = Rc::new(tokio::sync::Notify::new());
        let told = Rc::clone(&drain);
        let go_on = Rc::new(tokio::sync::Notify::new());
        let waiting = Rc::clone(&go_on);
        let (stream, task) = served_until(Limits::default(), async move { told.notified().await }, move |_| {
            let waiting = Rc::clone(&waiting);
            async move {
                waiting.notified().await;
                Ok(Response::new(Frames::of("late")))
            }
        });
        let (mut send, driver) = h2_client(stream).await;
        let (response, _) = send.send_request(get("/"), true).unwrap();
        rest().await;
        drain.notify_one();
        rest().await;
        assert!(poll_fn(|cx| send.poll_ready(cx)).await.unwrap_err().is_go_away());
        assert!(!task.is_finished());
        go_on.notify_one();
        assert_eq!(all_of(response.await.unwrap().into_body()).await.unwrap().0, "late");
        task.await.unwrap().unwrap();
        driver.await.unwrap().unwrap();
    });
}

#[test]
fn the_end_of_the_connection_drops_all_handlers() {
    run(async {
        let dropped = Dropped::default();
        let guard = dropped.clone();
        let (stream, task) = served(Limits::default(), move |_| {
            let guard = guard.guard();
            async move {
                let _guard = guard;
                pending::<Result<Response<Frames>, Fault>>().await
            }
        });
        let (mut send, driver) = h2_client(stream).await;
        let _stream = send.send_request(get("/"), true).unwrap();
        rest().await;
        driver.abort();
        let _ = task.await.unwrap();
        assert!(dropped.is_true());
    });
}

#[test]
fn the_counter_says_how_many_requests_are_under_way() {
    run(async {
        let open = Rc::<Activity>::default();
        let counter = Rc::clone(&open);
        let (ours, theirs) = tokio::io::duplex(PIPE);
        tokio::task::spawn_local(async move {
            let handler = |_| pending::<Result<Response<Frames>, Fault>>();
            serve(ours, Bytes::new(), &Limits::default(), &counter, clock(), pending(), handler).await
        });
        let (mut send, _driver) = h2_client(theirs).await;
        let first = send.send_request(get("/"), true).unwrap();
        let _second = send.send_request(get("/"), true).unwrap();
        rest().await;
        assert_eq!(open.open(), 2);
        drop(first);
        rest().await;
        assert_eq!(open.open(), 1);
    });
}

#[test]
fn an_answer_that_is_there_is_a_head_and_one_frame_that_ends_it() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    run(async {
        let (mut stream, _task) = served(Limits::default(), hello);
        stream.write_all(&[PREFACE, &get_frame(1), &get_frame(3)].concat()).await.unwrap();
        rest().await;
        let mut read = [0; 4096];
        let n = stream.read(&mut read).await.unwrap();
        let mut answer: Vec<_> = frames(&read[..n])
            .into_iter()
            .filter(|frame| frame.stream != 0)
            .map(|frame| (frame.stream, frame.kind, frame.flags))
            .collect();
        answer.sort_by_key(|frame| frame.0);
        // HEADERS that end the head, DATA that ends the stream.
        assert_eq!(answer, [(1, 1, 4), (1, 0, 1), (3, 1, 4), (3, 0, 1)]);
    });
}
