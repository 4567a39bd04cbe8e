//! Serving a connection of a client, request by request.

use super::{
    Fault, FaultKind, Side,
    answer::{self, Manner},
    attempt::reason_of,
    deadline::{Alarm, Over},
    exchange::{Client, Exchange, host},
    http1::{self, After, Gone, Server},
    http2,
    incoming::Incoming,
    interim,
    message::{Message, Request, Response},
    passing::{Heir, ResponseBody},
    reason::Reason,
    record::Record,
    tunnel,
    worker::Worker,
};
use bytes::Bytes;
use http::{Method, StatusCode};
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::net::TcpStream;

/// How long the head of a request may take from its first byte.
const HEAD: Duration = Duration::from_secs(10);

/// How long a connection may be idle of which it is not known to which service it belongs.
const IDLE: Duration = Duration::from_secs(60);

/// Serves a connection that speaks HTTP/1.
pub(super) async fn http1(worker: &Rc<Worker>, client: Client, stream: TcpStream, read: Bytes) {
    let alarm = worker.clock.alarm();
    let mut server = Server::new(stream, read, &http1::Limits::default());
    let heir = Rc::<Heir>::default();
    loop {
        let request = match next(worker, &client, &alarm, &mut server).await {
            Ok(Some(request)) => request,
            Ok(None) => break,
            Err(reason) => {
                let record = Record::of_malformed(worker, &client);
                let _ = server.respond(answer::because(reason, Manner::Http, record), true).await;
                break;
            }
        };
        if request.head.method == Method::CONNECT && client.vip.is_none() {
            return Box::pin(connect(worker, &client, &alarm, server, request)).await;
        }
        let exchange = Exchange { worker, client: &client, alarm: &alarm };
        let response = {
            // Pinned here: passed by value it would be in this future twice.
            let serving = pin!(exchange.serve(request.map(Incoming::Http1)));
            while_wanted(&mut server, serving).await
        };
        let Some(mut response) = response else { return };
        if response.head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Box::pin(switch(worker, &client, server, response)).await;
        }
        response.body.leaves_to(&heir);
        let Some(responded) = respond(worker, &alarm, &mut server, response).await else {
            return server.abort();
        };
        match responded {
            Ok(responded) if responded.after == After::Request => {}
            Ok(_) => break,
            Err(fault) if fault.side == Side::Upstream && !server.has_begun_response() => {
                // It is the same request still, of which the client has heard nothing.
                let record = heir.take().map_or_else(|| Record::new(worker), |left| left.record);
                let sorry = answer::because(reason_of(&fault), Manner::Http, record);
                let _ = server.respond(sorry, true).await;
                break;
            }
            Err(_) => return,
        }
    }
    Box::pin(server.close()).await;
}

/// Answers a request; `None`: the client has read nothing of what is there for it for as long as it may be idle.
async fn respond(
    worker: &Worker,
    alarm: &Alarm,
    server: &mut Server<TcpStream>,
    response: Response<ResponseBody>,
) -> Option<Result<http1::Responded, Fault>> {
    let progress = Rc::clone(server.progress());
    let gave_up = Cell::new(false);
    // What had moved when the client was first found not to read, and when that was.
    let mut held: Option<(u64, Duration)> = None;
    let meanwhile = |body: Pin<&mut ResponseBody>, cx: &mut Context<'_>| {
        let body = body.get_mut();
        // It may read nothing before all that it sends is taken.
        body.poll_upload(cx);
        let (now, idle) = (worker.now(), body.patience().unwrap_or(IDLE));
        let since = held.filter(|(moved, _)| *moved == progress.bytes()).map_or(now, |(_, since)| since);
        held = Some((progress.bytes(), since));
        let left = idle.saturating_sub(now.saturating_sub(since));
        if idle.is_zero() || !left.is_zero() {
            alarm.set(left);
        } else if !gave_up.replace(true) {
            body.give_up(Reason::SlowReader);
        }
    };
    // RFC 9110, section 15.5.9: what the client still sends after 408 is nothing that could be told from a request.
    let close = worker.draining.get() || response.head.status == StatusCode::REQUEST_TIMEOUT;
    let mut responding = pin!(server.respond_while(response, close, meanwhile));
    loop {
        match alarm.before(responding.as_mut()).await {
            Ok(responded) => return Some(responded),
            Err(Over) if gave_up.get() => return None,
            // It reads, and the endpoint takes its time.
            Err(Over) => alarm.clear(),
        }
    }
}

/// The answer to a request; `None`: nobody waits for it any more, so that it is given up, upstream too.
async fn while_wanted<T>(server: &mut Server<TcpStream>, answer: impl Future<Output = T>) -> Option<T> {
    let mut answer = pin!(answer);
    poll_fn(|cx| {
        let mut said = Vec::new();
        let polled = interim::hearing(|| answer.as_mut().poll(cx), |head| said.push(head));
        said.iter().for_each(|head| server.inform(head, cx));
        if let Poll::Ready(answer) = polled {
            return Poll::Ready(Some(answer));
        }
        // A client that has said all it wants to say may well be waiting for the answer.
        while let Poll::Ready(gone) = server.poll_gone(cx) {
            if gone == Gone::Reset {
                return Poll::Ready(None);
            }
        }
        Poll::Pending
    })
    .await
}

/// The next request of a connection; `None`: there is none any more.
async fn next(
    worker: &Worker,
    client: &Client,
    alarm: &Alarm,
    server: &mut Server<TcpStream>,
) -> Result<Option<Request<http1::RequestBody<TcpStream>>>, Reason> {
    alarm.set(idle(worker, client));
    let progress = Rc::clone(server.progress());
    let head = {
        let mut head = pin!(server.request());
        let mut in_head = false;
        alarm
            .before(poll_fn(|cx| {
                if let Poll::Ready(head) = head.as_mut().poll(cx) {
                    return Poll::Ready(Some(head));
                }
                if progress.is_idle() {
                    return if worker.closes_idle() { Poll::Ready(None) } else { Poll::Pending };
                }
                if !std::mem::replace(&mut in_head, true) {
                    alarm.set(HEAD);
                }
                Poll::Pending
            }))
            .await
    };
    match head {
        Ok(Some(Ok(request))) => Ok(request),
        Ok(None) => Ok(None),
        Ok(Some(Err(fault))) => match fault.kind {
            FaultKind::Malformed(what) => {
                tracing::debug!(client = %client.address, "a malformed request: {what}");
                Err(Reason::BadRequest)
            }
            FaultKind::TooLarge(_) => Err(Reason::HeadTooLarge),
            FaultKind::TimedOut => Err(Reason::SlowRequest),
            FaultKind::Closed | FaultKind::Reset { .. } | FaultKind::Io(_) => Ok(None),
        },
        Err(Over) if progress.is_idle() => Ok(None),
        Err(Over) => Err(Reason::SlowRequest),
    }
}

/// How long the connection may be idle.
fn idle(worker: &Worker, client: &Client) -> Duration {
    client.service(worker).map_or(IDLE, |service| service.http().idle_http)
}

/// Makes the tunnel that a client of the explicit proxy asks for (RFC 9110, section 9.3.6).
async fn connect(
    worker: &Rc<Worker>,
    client: &Client,
    alarm: &Rc<Alarm>,
    mut server: Server<TcpStream>,
    request: Request<http1::RequestBody<TcpStream>>,
) {
    let Request { head: mut parts, body } = request;
    drop(body);
    let mut record = worker.record(client, &mut parts);
    let service = host(&parts).and_then(|host| worker.table().connectable(host));
    let opened = match &service {
        None => Err(Reason::ConnectForbidden),
        Some(service) => {
            record.is_for(service, &parts.method);
            alarm.clear();
            match while_wanted(&mut server, tunnel::open(worker, client, service, &mut record)).await {
                Some(opened) => opened,
                None => return,
            }
        }
    };
    match (opened, service) {
        (Ok((upstream, _held)), Some(service)) => {
            // Told at the end of the tunnel, however long it is.
            record.tunnels(StatusCode::OK);
            let response = Response::new(ResponseBody::none());
            let Ok(responded) = server.respond(response, false).await else { return };
            if responded.after == After::Tunnel
                && let Some((downstream, read)) = server.upgrade()
            {
                let idle = service.http().idle_tcp;
                tunnel::relay(worker, downstream, upstream, read, Bytes::new(), idle, &mut record).await;
            }
        }
        (Err(reason), _) => {
            let _ = server.respond(answer::because(reason, Manner::Http, record), true).await;
            server.close().await;
        }
        // There is no connection without a service.
        (Ok(_), None) => {}
    }
}

/// Goes on with another protocol, as endpoint and client have agreed.
async fn switch(worker: &Rc<Worker>, client: &Client, mut server: Server<TcpStream>, response: Response<ResponseBody>) {
    let Response { head, body } = response;
    // Held until the end: it is one request, however long.
    let Some((upstream, from_upstream, mut passing)) = body.into_upgraded() else { return };
    if server.respond(Message { head, body: ResponseBody::none() }, false).await.is_err() {
        return;
    }
    let idle = client.service(worker).map(|service| service.http().idle_tcp);
    passing.record.goes_on_for_long();
    if let Some((downstream, read)) = server.upgrade() {
        let (idle, record) = (idle.unwrap_or_default(), &mut passing.record);
        tunnel::relay(worker, downstream, upstream, read, from_upstream, idle, record).await;
    }
}

/// Serves a connection that speaks HTTP/2.
pub(super) async fn http2(worker: &Rc<Worker>, client: Client, stream: TcpStream, read: Bytes) {
    let activity = Rc::<http2::Activity>::default();
    let alarm = worker.clock.alarm();
    // That of the service which answered last, where the client could ask any.
    let patience = Cell::new(idle(worker, &client));
    let limits = http2::Limits { extended_connect: true, ..http2::Limits::default() };
    let spare = RefCell::<Vec<Rc<Alarm>>>::default();
    let handler = |request: http::Request<http2::Incoming>| {
        let (worker, client, patience, spare) = (worker, &client, &patience, &spare);
        // Apart: what is served at the same time is moved around until it is in its place, and this is large.
        Box::pin(async move {
            let kept = spare.borrow_mut().pop();
            let alarm = kept.unwrap_or_else(|| worker.clock.alarm());
            let exchange = Exchange { worker, client, alarm: &alarm };
            let mut response = exchange.serve(Request::from(request).map(Incoming::http2)).await;
            http2::dialect::prepare_response_for_http2(&mut response.head);
            if let Some(idle) = response.body.patience() {
                patience.set(idle);
            }
            // Unless it is to ring for what is left of the request's body.
            if Rc::strong_count(&alarm) == 1 {
                alarm.rest();
                spare.borrow_mut().push(alarm);
            }
            Ok(response.into())
        })
    };
    let rest = at_rest(worker, &client, &alarm, &activity, &patience);
    if let Err(fault) = http2::serve(stream, read, &limits, &activity, || worker.now(), rest, handler).await {
        tracing::debug!(client = %client.address, "{fault}");
    }
}

/// After this a client that has closed its half of the connection, and was sent something, is known to be gone if it is.
const GONE: Duration = Duration::from_millis(200);

/// How long a client that was told to open no more streams, and has none, may take to end the connection.
const GOODBYE: Duration = Duration::from_secs(5);

/// Done when the worker drains. Ends the connection when no request was on its way for `idle` (zero: ever), and when
/// nothing at all went on meanwhile, though the client has something to read, or has closed its half.
async fn at_rest(worker: &Worker, client: &Client, alarm: &Alarm, activity: &http2::Activity, idle: &Cell<Duration>) {
    let mut looked = false;
    let mut told = false;
    loop {
        let mut looks = false;
        alarm.set(if told { GOODBYE } else { idle.get() });
        // Polled with every turn of the connection.
        let drained = poll_fn(|_| {
            if alarm.has_rung() {
                // Nothing went on before this turn, which is there to notice that.
                return Poll::Pending;
            }
            if activity.has_half_closed() && !looked {
                if !std::mem::replace(&mut looks, true) {
                    alarm.set(GONE);
                }
            } else if activity.open() > 0 {
                alarm.set(idle.get());
            }
            if worker.draining.get() { Poll::Ready(()) } else { Poll::Pending }
        });
        if alarm.before(drained).await.is_ok() {
            return;
        }
        if looks {
            looked = true;
            activity.touch();
        } else if activity.open() == 0 {
            if std::mem::replace(&mut told, true) { activity.cut() } else { activity.drain() }
        } else if activity.is_held() {
            tracing::info!(client = %client.address, "a client of HTTP/2 does not read its answers");
            worker.shared.rejected.count(Reason::SlowReader);
            activity.cut();
        } else if activity.has_half_closed() {
            activity.cut();
        }
    }
}
