//! The half that faces clients.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use h2::{Ping, Reason, RecvStream, server::SendResponse};
use http::{Method, Request, Response, StatusCode, header::EXPECT};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    super::{Fault, FaultKind, Side, interim},
    Activity, Counted, Incoming, Limits,
    calm::{Account, End},
    cork::{Progress, cork},
    dialect,
    fault::{code_of_refusal, translate},
    incoming::length,
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
/// A client that closes its half of the TCP connection gets the answers to what it has asked whole; bodies that are not
/// whole end all. `h2` would end all streams at once, so that end is kept from it until the last answer is written.
///
/// `now` is a clock. `activity` says what goes on. `rest` is polled in every turn, to decide when the connection ends
/// ([`Activity::drain`], [`Activity::cut`]); it is drained when `rest` is done, too.
///
/// # Errors
///
/// What ended the connection, if it was not the client's wish or that it was drained.
pub async fn serve<S, H, F, B>(
    stream: S,
    already_read: Bytes,
    limits: &Limits,
    activity: &Rc<Activity>,
    now: impl Fn() -> Duration,
    rest: impl Future<Output = ()>,
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
    let mut rest = pin!(rest);
    let (mut rested, mut draining, mut cut_off) = (false, false, false);
    progress.withhold_end(true);
    poll_fn(|cx| {
        if !rested && rest.as_mut().poll(cx).is_ready() {
            rested = true;
            activity.drain();
        }
        if activity.cut.get() {
            return Poll::Ready(Err(Fault::downstream(FaultKind::TimedOut)));
        }
        if activity.drained.get() && !draining {
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
                        let open = Counted::new(&activity.open);
                        exchanges.push(exchange(request, respond, &handler, &now, &progress, activity, open));
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
        let mut round = cork.poll_round(cx);
        activity.unwritten.set(round.is_pending());
        if progress.withholds_end() {
            if !activity.half_closed.replace(true) {
                // Whoever is gone, and has not only closed its half, answers this by a reset.
                if let Some(mut ping) = connection.ping_pong() {
                    let _ = ping.send_ping(Ping::opaque());
                }
                cx.waker().wake_by_ref();
            } else if progress.awaiting() > 0 || activity.open() == 0 && round.is_ready() {
                progress.withhold_end(false);
                cx.waker().wake_by_ref();
            }
        }
        if activity.touched.take()
            && let Poll::Ready(Err(error)) = cork.poll_gone(cx)
        {
            round = Poll::Ready(Err(error));
        }
        match round {
            Poll::Ready(Err(error)) => Poll::Ready(Err(Fault::downstream(error.kind().into()))),
            _ => Poll::Pending,
        }
    })
    .await
}

/// One request and its answer.
///
/// The handler's future is made at once and not within the one that is returned: that would have room for the request as
/// well, and is moved about before it is polled.
fn exchange<H, F, B>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    handler: &H,
    now: &impl Fn() -> Duration,
    progress: &Rc<Progress>,
    activity: &Activity,
    _open: Counted,
) -> impl Future<Output = End>
where
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Result<Response<B>, Fault>>,
    B: Body<Data = Bytes, Error = Fault>,
{
    let began = now();
    let to_head = request.method() == Method::HEAD;
    let waits = !request.body().is_end_stream() && request.headers().contains_key(EXPECT);
    let wanted = waits.then(Rc::<Cell<bool>>::default);
    let handling = dialect::check(&request).is_ok().then(|| {
        let length = length(request.headers());
        handler(request.map(|body| Incoming::of_request(body, length, progress, wanted.clone())))
    });
    async move {
        let _open = _open;
        let Some(handling) = handling else {
            respond.send_reset(Reason::PROTOCOL_ERROR);
            return End::Malformed;
        };
        let answer = {
            let mut handling = pin!(handling);
            poll_fn(|cx| {
                // First, so that a stream that is already given up costs nothing more.
                if respond.poll_reset(cx).is_ready() {
                    return Poll::Ready(None);
                }
                let answer = interim::hearing(
                    || handling.as_mut().poll(cx),
                    |head| {
                        // Fails only if the client is gone, which the next turn sees.
                        let _ = respond.send_informational(Response::from_parts(head.into(), ()));
                    },
                );
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
            None => return given_up(now().saturating_sub(began)),
            Some(Ok(response)) => response,
            Some(Err(fault)) => {
                respond.send_reset(code_of_refusal(fault));
                return End::Finished;
            }
        };
        let (head, body) = response.into_parts();
        // RFC 9110, section 9.3.2: to HEAD there is a head, whoever answers.
        let end = to_head || body.is_end_stream();
        match respond.send_response(Response::from_parts(head, ()), end) {
            Ok(_) if end => End::Finished,
            Ok(stream) => match pump::send(stream, pin!(body), Reason::INTERNAL_ERROR, Some(&activity.held)).await {
                Err(Cut::ByPeer) => given_up(now().saturating_sub(began)),
                _ => End::Finished,
            },
            // A head that HTTP/2 forbids, or the client is gone.
            Err(_) => {
                respond.send_reset(Reason::INTERNAL_ERROR);
                End::Finished
            }
        }
    }
}

fn given_up(after: Duration) -> End {
    if after < EARLY { End::GivenUpEarly } else { End::GivenUp }
}
