//! One request, from its head to the head of its answer: whose it is, where it may go, and what is tried.

use super::{
    answer::{self, Manner},
    attempt::{Attempt, Failed},
    bridge::{self, Asks},
    deadline::Alarm,
    fields::text,
    forwards,
    hop::{self, Hop, Origin},
    http2::dialect::{prepare_for_http1, prepare_for_http2},
    incoming::Incoming,
    message::{Request, RequestHead, Response},
    net::Sockets,
    passing::ResponseBody,
    pick::{Asking, Picked, hash_of, pick},
    reason::Reason,
    record::Record,
    request_body::Source,
    routing::{self, Asked, Way},
    state::Retry,
    table::Service,
    trace,
    worker::Worker,
};
use crate::{
    model,
    policy::{self, timeout},
};
use h2::ext::Protocol;
use http::{
    HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{CONNECTION, HOST, UPGRADE},
};
use mesh_common::service::Policy as Pick;
use std::{
    cell::Cell,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// How long a client of gRPC waits for the answer.
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Who sends requests by a connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) address: SocketAddr,
    pub(super) origin: Origin,
    /// Where upstream sockets are made for it.
    pub(super) sockets: Arc<dyn Sockets>,
    /// The VIP that it dialled; `None`: it spoke to the explicit proxy.
    pub(super) vip: Option<SocketAddr>,
}

impl Client {
    /// The service whose VIP it dialled, as it is now; `None`: it spoke to the explicit proxy, or the VIP is nobody's any
    /// more.
    pub(super) fn service(&self, worker: &Worker) -> Option<Arc<Service>> {
        worker.table().owner(self.vip?).cloned()
    }
}

/// A request being served.
pub(super) struct Exchange<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) client: &'a Client,
    /// Rings when the request takes too long.
    pub(super) alarm: &'a Rc<Alarm>,
}

impl Exchange<'_> {
    /// Serves a request.
    pub(super) async fn serve(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let Request { head: mut parts, body } = request;
        let manner = Manner::of(&parts.headers);
        let mut record = self.worker.record(self.client, &mut parts);
        let service = self.service(&parts);
        let is_tunnel = parts.method == Method::CONNECT && parts.extensions.get::<Protocol>().is_none();
        let Some(service) = service else {
            let reason = if is_tunnel { Reason::ConnectForbidden } else { Reason::UnknownService };
            return answer::because(reason, manner, record);
        };
        if is_tunnel {
            // A tunnel is made before this is asked, where one may be: for clients of the explicit proxy, by HTTP/1.1.
            record.is_for(&service, &parts.method);
            let http2 = parts.version == Version::HTTP_2 && self.client.vip.is_none();
            let reason = if http2 { Reason::Unsupported } else { Reason::ConnectForbidden };
            return answer::because(reason, manner, record);
        }
        let asks = bridge::begin(&mut parts);
        if !forwards::count_down(&parts.method, &mut parts.headers) {
            record.is_for(&service, &parts.method);
            let traces = parts.method == Method::TRACE;
            // What TRACE asks for, the request itself, is not for those who can make others send one.
            let reason = if traces { Reason::Unsupported } else { Reason::MaxForwards };
            return answer::because(reason, manner, record);
        }
        let way = match routing::way(self.worker, &service, &parts) {
            Ok(way) => way,
            Err(asked) => return self.answer(asked, &service, manner, record, &parts),
        };
        let target = way.target.as_ref().unwrap_or(&service);
        // That of the service whose routes these are, and that of the one which gets the request.
        let elsewhere = (!Arc::ptr_eq(target, &service)).then_some(target);
        let admits = |service: &Arc<Service>| service.rate.as_ref().is_none_or(|b| b.admit(self.worker.now()));
        if let Some(limited) = [Some(&service), elsewhere].into_iter().flatten().find(|service| !admits(service)) {
            record.is_for(limited, &parts.method);
            return answer::because(Reason::RateLimited, manner, record);
        }
        record.is_for(target, &parts.method);
        if !record.enter(target) {
            return answer::because(Reason::MaxRequests, manner, record);
        }
        if let Some(fault) = way.fault(&service) {
            if !fault.delay.is_zero() {
                Box::pin(tokio::time::sleep(fault.delay)).await;
            }
            if let Some(status) = fault.abort {
                return answer::with_status(status, Reason::Fault, manner, record);
            }
        }
        let mut hop = self.prepare(&mut parts, &service, &way);
        if asks.is_some() {
            hop.upgrade = Some(HeaderValue::from_static("websocket"));
        }
        let upstream = dialect(target, parts.version, asks.is_some());
        if asks == Some(Asks::Other) || asks.is_some() && upstream == Version::HTTP_2 {
            return answer::because(Reason::Unsupported, manner, record);
        }
        let prepared = match upstream {
            Version::HTTP_2 => prepare_for_http2(&mut parts),
            // It is as it has to be already, which is what most requests are.
            _ if parts.version == Version::HTTP_11 && parts.uri.authority().is_none() => Ok(()),
            _ => prepare_for_http1(&mut parts),
        };
        if prepared.is_err() {
            return answer::because(Reason::BadRequest, manner, record);
        }
        if let (Some(protocol), Version::HTTP_11) = (&hop.upgrade, upstream) {
            parts.headers.insert(CONNECTION, &HeaderValue::from_static("upgrade"));
            parts.headers.insert(UPGRADE, protocol);
        }
        if hop.trailers && upstream == Version::HTTP_11 {
            // `te` belongs to the connection, and that has to say so (RFC 9110, section 10.1.4).
            let options = if hop.upgrade.is_some() { "upgrade, te" } else { "te" };
            parts.headers.insert(CONNECTION, &HeaderValue::from_static(options));
        }
        let tries = Tries {
            exchange: self,
            entry: &service,
            target,
            way: &way,
            upstream,
            manner,
            switches: hop.upgrade.is_some(),
        };
        // What comes after an extended CONNECT is no body of the request that it has become.
        let (body, after) = if asks.is_some() { (Incoming::Copy(None), Some(body)) } else { (body, None) };
        let mut response = tries.run(&mut parts, body, record).await;
        if let Some(after) = after
            && response.head.status == StatusCode::SWITCHING_PROTOCOLS
        {
            bridge::agree(&mut response.head);
            response = response.map(|body| body.bridged(after));
        }
        way.change_response(&service, &mut response.head.headers);
        response
    }

    /// Whose request it is.
    fn service(&self, parts: &RequestHead) -> Option<Arc<Service>> {
        match self.client.vip {
            Some(_) => self.client.service(self.worker),
            None => self.worker.table().host(host(parts)?).cloned(),
        }
    }

    /// Answers what needs no endpoint.
    fn answer(
        &self,
        asked: Asked,
        service: &Arc<Service>,
        manner: Manner,
        mut record: Record,
        parts: &RequestHead,
    ) -> Response<ResponseBody> {
        record.is_for(service, &parts.method);
        match asked {
            Asked::NoRoute => answer::because(Reason::NoRoute, manner, record),
            Asked::NoTarget => answer::because(Reason::NoEndpoint, manner, record),
            Asked::Redirect(status, location) => {
                let mut response = answer::with_status(status, Reason::Redirect, manner, record);
                response.head.headers.insert(http::header::LOCATION, &location);
                response
            }
        }
    }

    /// Changes what a proxy has to change in a request.
    fn prepare(&self, parts: &mut RequestHead, service: &Service, way: &Way) -> Hop {
        let mut hop = hop::strip_request(&mut parts.headers);
        if hop.upgrade.as_ref().is_some_and(|protocol| !may_switch(protocol, parts.version)) {
            hop.upgrade = None;
        }
        hop::announce(&mut parts.headers, &self.client.origin, parts.version, trace::request_id);
        way.change_request(service, parts);
        hop
    }
}

/// Whether a request of `version` may ask for `protocol`. What comes by 1.0 asks for nothing (RFC 9110, section 7.8), and
/// nobody gets through to an endpoint in HTTP/2, which routes and limits would not see (RFC 9113, section 3.1).
fn may_switch(protocol: &HeaderValue, version: Version) -> bool {
    let protocols = protocol.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let h2c = |name: &[u8]| name.get(..3).is_some_and(|begin| begin.eq_ignore_ascii_case(b"h2c"));
    version != Version::HTTP_10 && !protocols.into_iter().any(h2c)
}

/// What an endpoint of this service is spoken to, for a request that came by `version`.
///
/// `switches`: to a protocol that endpoints know by HTTP/1.1, unless they are said to speak HTTP/2.
pub(super) fn dialect(target: &Service, version: Version, switches: bool) -> Version {
    match target.http().upstream {
        model::Upstream::Http1 => Version::HTTP_11,
        model::Upstream::Http2 => Version::HTTP_2,
        model::Upstream::Auto if version == Version::HTTP_2 && !switches => Version::HTTP_2,
        model::Upstream::Auto => Version::HTTP_11,
    }
}

/// The host that a request names: that of its target if it has one, else of its header (RFC 9112, section 3.3).
pub(super) fn host(parts: &RequestHead) -> Option<&str> {
    match parts.uri.authority() {
        Some(authority) => Some(authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, host)| host)),
        None => parts.headers.get(HOST).and_then(text),
    }
}

/// The tries of a request.
struct Tries<'a> {
    exchange: &'a Exchange<'a>,
    /// The service that was asked for.
    entry: &'a Arc<Service>,
    /// The service whose endpoints are tried.
    target: &'a Arc<Service>,
    way: &'a Way,
    upstream: Version,
    manner: Manner,
    /// Whether the request asks for another protocol.
    switches: bool,
}

impl Tries<'_> {
    async fn run(&self, parts: &mut RequestHead, body: Incoming, mut record: Record) -> Response<ResponseBody> {
        let (worker, alarm) = (self.exchange.worker, self.exchange.alarm);
        let retries = self.way.retries(self.entry);
        let whole = self.timeout(parts);
        let mirror = self.way.mirror(worker, self.entry);
        let within = timeout::of_try(retries.per_try_timeout, whole).unwrap_or_default();
        // A stream of gRPC may be silent for long, and HTTP/2 connections are kept for others anyway.
        let stall = if matches!(body, Incoming::Http1(_)) { self.entry.http().idle_http } else { Duration::ZERO };
        let source = Source::new(body, retries.attempts > 0 || mirror.is_some(), alarm, within, stall);
        record.counts_sent(source.read());
        let budget = &self.entry.state.budget;
        budget.request(worker.now());
        let hash = self.hash(parts);
        let mut tried: Vec<usize> = Vec::new();
        let mut picked = match self.pick(hash, &tried) {
            Ok(picked) => picked,
            Err(reason) => return answer::because(reason, self.manner, record),
        };
        let response = loop {
            record.goes_to(self.target, picked.index);
            if record.attempts > 1 {
                record.goes_again(&mut parts.headers);
            }
            let used = Cell::default();
            let attempt = Attempt {
                worker,
                client: self.exchange.client,
                alarm,
                service: self.target,
                picked,
                upstream: self.upstream,
                switches: self.switches,
                manner: self.manner,
                retries,
                used: &used,
            };
            let tried_at = picked.index;
            let outcome = attempt.run(parts, &source).await;
            record.went_by(used.get());
            if let Err(failed) = &outcome {
                record.try_is_over(Some(failed.reason));
            }
            let failure = match &outcome {
                Ok(answered) => Some(policy::Failure::Status(answered.status().as_u16())),
                Err(failed) => failed.failure,
            };
            let again = failure.filter(|failure| self.wants_another(retries, *failure, parts, &source, tried.len()));
            let next = again.and_then(|_| {
                tried.push(tried_at);
                self.another(retries, hash, &tried)
            });
            let Some(next) = next else {
                let failed = outcome.is_err() || again.is_some();
                if record.attempts > 1 {
                    self.count(if failed { Retry::Failure } else { Retry::Success });
                }
                break match outcome {
                    Ok(answered) => {
                        record.answered(answered.status());
                        answered.pass(record)
                    }
                    Err(Failed { gone: true, .. }) => answer::to_nobody(record),
                    Err(failed) => answer::because(failed.reason, self.manner, record),
                };
            };
            if record.attempts > 1 {
                self.count(Retry::Failure);
            }
            if let Ok(answered) = outcome {
                // Told as this endpoint's, although nobody gets to see it.
                record.answered(answered.status());
                record.try_is_over(None);
            }
            let pause = policy::backoff(retries, record.attempts, fastrand::u32(..));
            // Its time runs from the end of the request, not from its head: the client may have taken long to send it.
            let left = || whole.map(|whole| whole.saturating_sub(source.awaited(worker.now())));
            Box::pin(tokio::time::sleep(left().map_or(pause, |left| pause.min(left)))).await;
            match left() {
                Some(left) if left.is_zero() && source.has_ended() => {
                    break answer::because(Reason::RequestTimeout, self.manner, record);
                }
                left => {
                    let left = left.filter(|left| !left.is_zero());
                    let within = timeout::of_try(retries.per_try_timeout, left).unwrap_or_default();
                    source.answer_within(within, alarm);
                }
            }
            picked = next;
        };
        alarm.clear();
        if let Some(mirror) = mirror
            && let Some(copy) = source.copy()
        {
            super::mirror::send(worker, self.exchange.client, mirror, parts, copy);
        }
        response
    }

    fn pick(&self, hash: u32, tried: &[usize]) -> Result<Picked, Reason> {
        let worker = self.exchange.worker;
        pick(self.target, &Asking { worker: worker.number, hash, now: worker.now(), tried })
    }

    /// The endpoint of an extra try, if there is one that was not tried and if one more may be made.
    fn another(&self, retries: &model::Retries, hash: u32, tried: &[usize]) -> Option<Picked> {
        let Ok(picked) = self.pick(hash, tried) else {
            self.count(Retry::NoOther);
            return None;
        };
        let taken = self.entry.state.budget.take(retries, self.exchange.worker.now());
        if !taken {
            self.count(Retry::OverBudget);
        }
        taken.then_some(picked)
    }

    fn wants_another(
        &self,
        retries: &model::Retries,
        failure: policy::Failure,
        parts: &RequestHead,
        source: &Source<Incoming>,
        tries: usize,
    ) -> bool {
        let request = policy::Again {
            idempotent: policy::is_idempotent(parts.method.as_str()),
            replayable: source.is_untouched() || source.is_replayable(),
            tries: u32::try_from(tries + 1).unwrap_or(u32::MAX),
        };
        !self.switches && policy::retry(retries, failure, request)
    }

    fn count(&self, retry: Retry) {
        self.entry.state.retries[retry as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How long the answer may take; `None`: as long as it does.
    fn timeout(&self, parts: &RequestHead) -> Option<Duration> {
        let client = parts.headers.get(GRPC_TIMEOUT).and_then(timeout::grpc_timeout);
        let client = client.filter(|client| !client.is_zero());
        if self.switches {
            return client;
        }
        timeout::limit(self.entry.http().request_timeout, self.way.request_timeout(self.entry), client)
    }

    /// What the policy hashes of the request.
    fn hash(&self, parts: &RequestHead) -> u32 {
        if self.target.pick != Pick::Maglev {
            return 0;
        }
        let header = |name: &str| parts.headers.get_all(name);
        hash_of(self.target, header, self.exchange.client.address.ip())
    }
}

#[cfg(test)]
mod tests;
