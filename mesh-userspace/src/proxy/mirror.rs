//! Copies of requests for another service, whose answers nobody waits for.

use super::{
    answer::Manner,
    attempt::Attempt,
    exchange::{Client, dialect},
    http2::dialect::{prepare_for_http1, prepare_for_http2},
    incoming::Incoming,
    message::RequestHead,
    pick::{Asking, pick},
    record::Record,
    request_body::Source,
    table::Service,
    worker::Worker,
};
use bytes::Bytes;
use http::{HeaderValue, Version};
use http_body_util::BodyExt;
use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

/// Copies that one worker has on their way at most; more are left out, so that a slow mirror costs nobody but itself.
const MOST: usize = 256;

/// Sends a copy of a request, `body` included, as it was sent on.
pub(super) fn send(worker: &Rc<Worker>, client: &Client, service: Arc<Service>, parts: &RequestHead, body: Bytes) {
    if worker.mirrored.get() >= MOST {
        return;
    }
    let mut parts = parts.clone();
    // So that nobody takes it for the request itself.
    parts.headers.insert("x-mesh-mirrored", &HeaderValue::from_static("true"));
    let client = Client {
        address: client.address,
        origin: client.origin.clone(),
        sockets: Arc::clone(&client.sockets),
        vip: client.vip,
    };
    worker.mirrored.set(worker.mirrored.get() + 1);
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        worker.clock.by_turns(copy(&worker, &client, &service, parts, body)).await;
        worker.mirrored.set(worker.mirrored.get() - 1);
    });
}

async fn copy(worker: &Rc<Worker>, client: &Client, service: &Arc<Service>, mut parts: RequestHead, body: Bytes) {
    let hash = fastrand::u32(..);
    let asking = Asking { worker: worker.number, hash, now: worker.now(), tried: &[] };
    let Ok(picked) = pick(service, &asking) else { return };
    let alarm = worker.clock.alarm();
    let body = Incoming::Copy((!body.is_empty()).then_some(body));
    let source = Source::new(body, false, &alarm, service.http().request_timeout, Duration::ZERO);
    let mut record = Record::new(worker);
    record.is_for(service, &parts.method);
    record.goes_to(service, picked.index);
    // Fit for the endpoint that got the request itself, which may be spoken to in another way.
    let upstream = dialect(service, parts.version, false);
    let prepared = match upstream {
        Version::HTTP_2 => prepare_for_http2(&mut parts),
        _ => prepare_for_http1(&mut parts),
    };
    if prepared.is_err() {
        return;
    }
    let retries = &service.http().retries;
    let attempt = Attempt {
        worker,
        client,
        alarm: &alarm,
        service,
        picked,
        upstream,
        switches: false,
        manner: Manner::Http,
        retries,
        used: &Cell::default(),
    };
    if let Ok(answered) = attempt.run(&parts, &source).await {
        record.answered(answered.status());
        alarm.clear();
        let mut body = answered.pass(record).body;
        while let Some(Ok(_)) = body.frame().await {}
    }
}
