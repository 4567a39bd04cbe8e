//! Serving a connection of a client, request by request.

use super::{
    FaultKind, Side,
    answer::{self, Manner},
    attempt::reason_of,
    deadline::{Alarm, Over},
    exchange::{Client, Exchange, host},
    http1::{self, After, Gone, Server},
    http2,
    incoming::Incoming,
    passing::ResponseBody,
    reason::Reason,
    record::Record,
    tunnel,
    worker::Worker,
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use std::{
    cell::Cell,
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
    loop {
        let request = match next(worker, &client, &alarm, &mut server).await {
            Ok(Some(request)) => request,
            Ok(None) => break,
            Err(reason) => {
                let record = Record::new(&worker.shared, None);
                let _ = server.respond(answer::because(reason, Manner::Http, record), true).await;
                break;
            }
        };
        if request.method() == Method::CONNECT && client.vip.is_none() {
            return Box::pin(connect(worker, &client, &alarm, server, request)).await;
        }
        let exchange = Exchange { worker, client: &client, alarm: &alarm };
        let response = {
            // Pinned here: passed by value it would be in this future twice.
            let serving = pin!(exchange.serve(request.map(Incoming::Http1)));
            while_wanted(&mut server, serving).await
        };
        let Some(response) = response else { return };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Box::pin(switch(worker, &client, server, response)).await;
        }
        // A client may read nothing of the answer before all that it sends is taken.
        let upload = |body: Pin<&mut ResponseBody>, cx: &mut Context<'_>| body.get_mut().poll_upload(cx);
        match server.respond_while(response, worker.draining.get(), upload).await {
            Ok(responded) if responded.after == After::Request => {}
            Ok(_) => break,
            Err(fault) if fault.side == Side::Upstream && !server.has_begun_response() => {
                let record = Record::new(&worker.shared, None);
                let sorry = answer::because(reason_of(&fault), Manner::Http, record);
                let _ = server.respond(sorry, true).await;
                break;
            }
            Err(_) => return,
        }
    }
    Box::pin(server.close()).await;
}

/// The answer to a request; `None`: nobody waits for it any more, so that it is given up, upstream too.
async fn while_wanted<T>(server: &mut Server<TcpStream>, answer: impl Future<Output = T>) -> Option<T> {
    let mut answer = pin!(answer);
    poll_fn(|cx| {
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
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
    let (mut parts, body) = request.into_parts();
    drop(body);
    let mut record = worker.record(client, &mut parts);
    let service = host(&parts).and_then(|host| worker.table().connectable(host));
    let opened = match &service {
        None => Err(Reason::ConnectForbidden),
        Some(service) => {
            record.is_for(service, &parts.method);
            alarm.clear();
            match while_wanted(&mut server, tunnel::open(worker, client, service)).await {
                Some(opened) => opened,
                None => return,
            }
        }
    };
    match (opened, service) {
        (Ok((upstream, _connected)), Some(service)) => {
            let response = Response::new(ResponseBody::whole(Bytes::new(), record));
            let Ok(responded) = server.respond(response, false).await else { return };
            if responded.after == After::Tunnel
                && let Some((downstream, read)) = server.upgrade()
            {
                tunnel::relay(worker, downstream, upstream, read, Bytes::new(), service.http().idle_tcp).await;
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
    let (head, body) = response.into_parts();
    // Held until the end: it is one request, however long.
    let Some((upstream, from_upstream, _passing)) = body.into_upgraded() else { return };
    if server.respond(Response::from_parts(head, ResponseBody::none()), false).await.is_err() {
        return;
    }
    let idle = client.service(worker).map(|service| service.http().idle_tcp);
    if let Some((downstream, read)) = server.upgrade() {
        tunnel::relay(worker, downstream, upstream, read, from_upstream, idle.unwrap_or_default()).await;
    }
}

/// Serves a connection that speaks HTTP/2.
pub(super) async fn http2(worker: &Rc<Worker>, client: Client, stream: TcpStream, read: Bytes) {
    let open = Rc::<Cell<u32>>::default();
    let alarm = worker.clock.alarm();
    let limits = http2::Limits::default();
    let handler = |request: Request<http2::Incoming>| {
        let (worker, client) = (worker, &client);
        // Apart: what is served at the same time is moved around until it is in its place, and this is large.
        Box::pin(async move {
            let alarm = worker.clock.alarm();
            let exchange = Exchange { worker, client, alarm: &alarm };
            let (mut head, body) = exchange.serve(request.map(Incoming::http2)).await.into_parts();
            http2::dialect::prepare_response_for_http2(&mut head);
            Ok(Response::from_parts(head, body))
        })
    };
    let drain = at_rest(worker, &alarm, &open, idle(worker, &client));
    if let Err(fault) = http2::serve(stream, read, &limits, &open, drain, handler).await {
        tracing::debug!(client = %client.address, "{fault}");
    }
}

/// Done when the worker drains, or no request was on its way for `idle` (zero: ever).
async fn at_rest(worker: &Worker, alarm: &Alarm, open: &Cell<u32>, idle: Duration) {
    loop {
        alarm.set(idle);
        let drained = poll_fn(|_| {
            // Looked at with every turn of the connection.
            if open.get() > 0 {
                alarm.set(idle);
            }
            if worker.draining.get() { Poll::Ready(()) } else { Poll::Pending }
        });
        if alarm.before(drained).await.is_ok() || open.get() == 0 {
            return;
        }
    }
}
