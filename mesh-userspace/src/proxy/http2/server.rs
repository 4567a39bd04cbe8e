//! The half that faces clients.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use h2::{Reason, RecvStream, server::SendResponse};
use http::{Request, Response, StatusCode, header::EXPECT};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    super::{Fault, Side},
    Counted, Incoming, Limits,
    calm::{Account, End},
    cork::{Progress, cork},
    dialect,
    fault::{code_of_refusal, translate},
    pump::{self, Cut},
};

/// A client that gives up a stream sooner than this has hardly wanted it.
const EARLY: Duration = Duration::from_secs(1);

/// Serves the HTTP/2 connection `stream`, of which `already_read` was read, until it ends.
///
/// Each request goes to `handler`; all its futures run in the task that runs this one. What `handler` returns is answered:
///
/// - a response, whose body is sent as it comes and as the client takes it. If it fails, the stream is reset with the code
///   of the fault where that is a reset, else with `INTERNAL_ERROR`;
/// - a fault, which resets the stream at once: with its code, with `PROTOCOL_ERROR` where the client is at fault, or
///   with `INTERNAL_ERROR`.
///
/// A client that resets a stream, or whose connection ends, drops the handler's future and the body of the response at
/// once. `100 (Continue)` is sent when the handler first asks for the body. Heads that `h2` accepts and that could be read
/// in two ways ([`dialect::check`]) are answered by a reset with `PROTOCOL_ERROR`.
///
/// A client that closes its half of the TCP connection has ended it; so `h2` reads it, and no client is known to do so and
/// wait.
///
/// `open` counts the requests under way. When `drain` is done, the client is told to open no more streams, and the
/// connection ends with the last one.
///
/// # Errors
///
/// What ended the connection, if it was not the client's wish or `drain`.
pub async fn serve<S, H, F, B>(
    stream: S,
    already_read: Bytes,
    limits: &Limits,
    open: &Rc<Cell<u32>>,
    drain: impl Future<Output = ()>,
    handler: H,
) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Result<Response<B>, Fault>>,
    B: Body<Data = Bytes, Error = Fault>,
{
    let (corked, mut cork) = cork(stream, already_read);
    let progress = Rc::clone(cork.progress());
    let mut connection = cork.around(Side::Downstream, limits.server().handshake::<_, Bytes>(corked)).await?;
    let mut exchanges = FuturesUnordered::new();
    let mut account = Account::default();
    let mut drain = pin!(drain);
    let (mut draining, mut cut_off) = (false, false);
    poll_fn(|cx| {
        if !draining && drain.as_mut().poll(cx).is_ready() {
            draining = true;
            connection.graceful_shutdown();
        }
        loop {
            // Answers first, so that they go with the frames that the connection writes next.
            while let Poll::Ready(Some(end)) = exchanges.poll_next_unpin(cx) {
                if !account.add(end, limits.early_resets) && !cut_off {
                    cut_off = true;
                    connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                }
            }
            let mut more = false;
            loop {
                match connection.poll_accept(cx) {
                    Poll::Ready(Some(Ok((request, respond)))) => {
                        more = true;
                        exchanges.push(exchange(request, respond, &handler, &progress, Counted::new(open)));
                    }
                    Poll::Ready(Some(Err(error))) => {
                        return Poll::Ready(Err(translate(Side::Downstream, &error, &progress)));
                    }
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Pending => break,
                }
            }
            if !more {
                break;
            }
        }
        match cork.poll_round(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(Fault::downstream(error.kind().into()))),
            _ => Poll::Pending,
        }
    })
    .await
}

/// One request and its answer.
async fn exchange<H, F, B>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    handler: &H,
    progress: &Rc<Progress>,
    _open: Counted,
) -> End
where
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Result<Response<B>, Fault>>,
    B: Body<Data = Bytes, Error = Fault>,
{
    let began = Instant::now();
    if dialect::check(&request).is_err() {
        respond.send_reset(Reason::PROTOCOL_ERROR);
        return End::Malformed;
    }
    let waits = request.headers().contains_key(EXPECT) && !request.body().is_end_stream();
    let wanted = waits.then(Rc::<Cell<bool>>::default);
    let (head, body) = request.into_parts();
    let body = Incoming::of_request(body, &head.headers, progress, wanted.clone());
    let mut head = Some((head, body));
    let answer = {
        let mut handling = pin!(None);
        poll_fn(|cx| {
            // First, so that a stream that is already given up costs nothing more.
            if respond.poll_reset(cx).is_ready() {
                return Poll::Ready(None);
            }
            if let Some((head, body)) = head.take() {
                handling.set(Some(handler(Request::from_parts(head, body))));
            }
            let Some(handling) = handling.as_mut().as_pin_mut() else { return Poll::Ready(None) };
            let answer = handling.poll(cx);
            if wanted.as_ref().is_some_and(|wanted| wanted.take()) && answer.is_pending() {
                let mut go_on = Response::new(());
                *go_on.status_mut() = StatusCode::CONTINUE;
                // Fails only if the client is gone, which the next turn sees.
                let _ = respond.send_informational(go_on);
            }
            answer.map(Some)
        })
        .await
    };
    let response = match answer {
        None => return given_up(began),
        Some(Ok(response)) => response,
        Some(Err(fault)) => {
            respond.send_reset(code_of_refusal(fault));
            return End::Finished;
        }
    };
    let (head, body) = response.into_parts();
    let end = body.is_end_stream();
    match respond.send_response(Response::from_parts(head, ()), end) {
        Ok(_) if end => End::Finished,
        Ok(stream) => match pump::send(stream, body, Reason::INTERNAL_ERROR).await {
            Err(Cut::ByPeer) => given_up(began),
            _ => End::Finished,
        },
        // A head that HTTP/2 forbids, or the client is gone.
        Err(_) => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            End::Finished
        }
    }
}

fn given_up(began: Instant) -> End {
    if began.elapsed() < EARLY { End::GivenUpEarly } else { End::GivenUp }
}
