//! The half that faces endpoints, against `h2`'s server.

use super::*;

use h2::Reason;

use super::super::super::{FaultKind, Reached};

pub(super) async fn whole(response: Response<Incoming>) -> Result<(Bytes, Option<HeaderMap>), Fault> {
    let all = response.into_body().collect().await?;
    let trailers = all.trailers().cloned();
    Ok((all.to_bytes(), trailers))
}

pub(super) async fn answer(_: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    stream.send_data("answer".into(), true).unwrap();
}

#[test]
fn many_requests_share_a_connection() {
    run(async {
        let (connection, _driver, stream) = connected(Limits::upstream()).await;
        h2_server(stream, answer);
        let requests = (0..500).map(|_| {
            let (connection, (head, body)) = (connection.clone(), ours(get("/"), Frames::default()));
            async move { whole(connection.send(head, body).await.unwrap()).await.unwrap().0 }
        });
        let answers = futures_util::future::join_all(requests).await;
        assert!(answers.iter().all(|answer| answer == "answer"));
        assert_eq!(connection.open_streams(), 0);
    });
}

#[test]
fn body_and_trailers_go_both_ways() {
    run(async {
        let (connection, _driver, stream) = connected(Limits::upstream()).await;
        h2_server(stream, |request, mut respond| async move {
            let (body, trailers) = all_of(request.into_body()).await.unwrap();
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data(body, false).unwrap();
            stream.send_trailers(trailers.unwrap()).unwrap();
        });
        let sent = Bytes::from(vec![3; 1_000_000]);
        let (head, body) = ours(post("/"), Frames::of(sent.clone()).trailers("checksum", "1"));
        let (came, trailers) = whole(connection.send(head, body).await.unwrap()).await.unwrap();
        assert_eq!(came, sent);
        assert_eq!(trailers.unwrap()["checksum"], "1");
    });
}

#[test]
fn a_reset_after_the_head_keeps_its_code() {
    run(async {
        let (connection, _driver, stream) = connected(Limits::upstream()).await;
        h2_server(stream, |_, mut respond| async move {
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            tokio::task::yield_now().await;
            rest().await;
            stream.send_reset(Reason::ENHANCE_YOUR_CALM);
        });
        let (head, body) = ours(get("/"), Frames::default());
        let fault = whole(connection.send(head, body).await.unwrap()).await.unwrap_err();
        assert_eq!(fault, Fault::upstream(FaultKind::Reset { code: Some(Reason::ENHANCE_YOUR_CALM.into()) }));
    });
}

#[test]
fn a_future_or_a_body_that_is_dropped_cancels_the_stream() {
    run(async {
        let resets = Rc::<RefCell<Vec<Reason>>>::default();
        let seen = Rc::clone(&resets);
        let (connection, _driver, stream) = connected(Limits::upstream()).await;
        h2_server(stream, move |request, mut respond| {
            let seen = Rc::clone(&seen);
            async move {
                let reason = if request.uri().path() == "/silent" {
                    poll_fn(|cx| respond.poll_reset(cx)).await
                } else {
                    let mut stream = respond.send_response(Response::new(()), false).unwrap();
                    poll_fn(|cx| stream.poll_reset(cx)).await
                };
                seen.borrow_mut().push(reason.unwrap());
            }
        });
        let (head, body) = ours(get("/silent"), Frames::default());
        assert!(tokio::time::timeout(Duration::from_millis(20), connection.send(head, body)).await.is_err());
        let (head, body) = ours(post("/"), Frames::default().stuck());
        let response = connection.send(head, body).await.unwrap();
        assert_eq!(connection.open_streams(), 1);
        drop(response);
        rest().await;
        assert_eq!(*resets.borrow(), [Reason::CANCEL, Reason::CANCEL]);
        assert_eq!(connection.open_streams(), 0);
    });
}

#[test]
fn a_body_of_a_request_that_fails_resets_with_its_code_and_is_the_clients_fault() {
    run(async {
        let (connection, _driver, stream) = connected(Limits::upstream()).await;
        let seen = Rc::new(Cell::new(None));
        let reset = Rc::clone(&seen);
        h2_server(stream, move |request, respond| {
            let reset = Rc::clone(&reset);
            async move {
                let _respond = respond;
                reset.set(all_of(request.into_body()).await.unwrap_err().reason());
            }
        });
        let fault = Fault::downstream(FaultKind::Reset { code: Some(Reason::CANCEL.into()) });
        let (head, body) = ours(post("/"), Frames::of("begun").fault(fault));
        let error = connection.send(head, body).await.unwrap_err();
        assert_eq!(error, super::super::super::Unanswered { fault, reached: Reached::Endpoint });
        rest().await;
        // The head may not even have left.
        assert!(matches!(seen.get(), None | Some(Reason::CANCEL)));
    });
}

#[test]
fn an_early_answer_is_read_while_the_request_goes_on() {
    run(async {
        let (connection, _driver, stream) = connected(Limits::upstream()).await;
        // Echoes as it comes.
        h2_server(stream, |request, mut respond| async move {
            let mut out = respond.send_response(Response::new(()), false).unwrap();
            let mut body = request.into_body();
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
                out.send_data(data, false).unwrap();
            }
            out.send_data(Bytes::new(), true).unwrap();
        });
        let (to, from) = tokio::sync::mpsc::unbounded_channel();
        let (head, body) = ours(post("/"), Channel(from));
        let mut response = connection.send(head, body).await.unwrap();
        for message in ["one", "two", "three"] {
            to.send(Ok(Bytes::from(message))).unwrap();
            let frame = response.body_mut().frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), message);
        }
        drop(to);
        assert!(response.body_mut().frame().await.is_none());
    });
}

#[test]
fn a_request_that_fails_after_the_head_of_the_response_fails_that_with_its_own_fault() {
    run(async {
        let (connection, _driver, stream) = connected(Limits::upstream()).await;
        let seen = Rc::new(Cell::new(None));
        let reset = Rc::clone(&seen);
        h2_server(stream, move |request, mut respond| {
            let reset = Rc::clone(&reset);
            async move {
                let _out = respond.send_response(Response::new(()), false).unwrap();
                reset.set(all_of(request.into_body()).await.unwrap_err().reason());
            }
        });
        let (to, from) = tokio::sync::mpsc::unbounded_channel();
        let (head, body) = ours(post("/"), Channel(from));
        let response = connection.send(head, body).await.unwrap();
        let fault = Fault::downstream(FaultKind::Reset { code: Some(Reason::ENHANCE_YOUR_CALM.into()) });
        to.send(Err(fault)).unwrap();
        assert_eq!(whole(response).await.unwrap_err(), fault);
        rest().await;
        assert_eq!(seen.get(), Some(Reason::ENHANCE_YOUR_CALM));
    });
}

#[test]
fn a_request_goes_on_while_nobody_reads_the_response() {
    run(async {
        let (connection, _driver, stream) = connected(Limits::upstream()).await;
        let received = Rc::new(Cell::new(0));
        let count = Rc::clone(&received);
        h2_server(stream, move |request, mut respond| {
            let count = Rc::clone(&count);
            async move {
                let _out = respond.send_response(Response::new(()), false).unwrap();
                count.set(all_of(request.into_body()).await.unwrap().0.len());
                pending::<()>().await;
            }
        });
        let (to, from) = tokio::sync::mpsc::unbounded_channel();
        let (head, body) = ours(post("/"), Channel(from));
        let _unread = connection.send(head, body).await.unwrap();
        to.send(Ok(Bytes::from(vec![1; 500_000]))).unwrap();
        drop(to);
        while received.get() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(received.get(), 500_000);
    });
}

#[test]
fn a_connection_says_whether_it_has_room() {
    run(async {
        let (connection, _driver, stream) = connected(Limits::upstream()).await;
        tokio::task::spawn_local(async move {
            let mut server =
                h2::server::Builder::new().max_concurrent_streams(1).handshake::<_, Bytes>(stream).await.unwrap();
            let mut kept = Vec::new();
            while let Some(Ok((_, mut respond))) = server.accept().await {
                kept.push(respond.send_response(Response::new(()), false).unwrap());
            }
        });
        rest().await;
        assert!(connection.has_room());
        let (head, body) = ours(get("/"), Frames::default());
        let first = connection.send(head, body).await.unwrap();
        assert!(!connection.has_room());
        // One more waits until there is.
        let (head, body) = ours(get("/"), Frames::default());
        let second = connection.send(head, body);
        let (second, ()) = tokio::join!(second, async {
            rest().await;
            drop(first);
        });
        second.unwrap();
    });
}

#[test]
fn a_request_that_is_there_is_a_head_and_one_frame_that_ends_it() {
    use tokio::io::AsyncReadExt;
    run(async {
        let (connection, _driver, mut stream) = connected(Limits::upstream()).await;
        let (head, body) = ours(post("/"), Frames::of("all"));
        let (with, without) = (connection.send(head, body), {
            let (head, body) = ours(get("/"), Frames::default());
            connection.send(head, body)
        });
        let server = async {
            rest().await;
            let mut read = [0; 4096];
            let n = stream.read(&mut read).await.unwrap();
            let mut request: Vec<_> = frames(&read[24..n])
                .into_iter()
                .filter(|frame| frame.stream != 0)
                .map(|frame| (frame.stream, frame.kind, frame.flags))
                .collect();
            request.sort_by_key(|frame| frame.0);
            assert_eq!(request, [(1, 1, 4), (1, 0, 1), (3, 1, 5)]);
        };
        tokio::select! {
            biased;
            _ = with => {}
            _ = without => {}
            () = server => {}
        }
    });
}

/// A body that comes through a channel.
pub(super) struct Channel(pub(super) tokio::sync::mpsc::UnboundedReceiver<Result<Bytes, Fault>>);

impl Body for Channel {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        self.0.poll_recv(cx).map(|data| data.map(|data| data.map(Frame::data)))
    }
}
