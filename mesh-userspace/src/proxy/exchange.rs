//! One request, from its head to the head of its answer: whose it is, where it may go, and what is tried.

use super::{
    answer::{self, Manner},
    attempt::{Attempt, Failed},
    deadline::Alarm,
    hop::{self, Hop, Origin},
    http2::dialect::{prepare_for_http1, prepare_for_http2},
    incoming::Incoming,
    net::Sockets,
    passing::ResponseBody,
    pick::{Asking, pick},
    reason::Reason,
    record::Record,
    request_body::Source,
    routing::{self, Asked, Way},
    state::Retry,
    table::Service,
    trace,
    worker::Worker,
};
use crate::{model, policy};
use http::{
    HeaderValue, Method, Request, Response, Version,
    header::{CONNECTION, HOST, UPGRADE},
    request::Parts,
};
use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

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
        let (mut parts, body) = request.into_parts();
        let manner = Manner::of(&parts.headers);
        let mut record = self.worker.record(self.client, &mut parts);
        let Some(service) = self.service(&parts) else {
            return answer::because(Reason::UnknownService, manner, record);
        };
        if parts.method == Method::CONNECT {
            // A tunnel is made before this is asked, where one may be.
            return answer::because(Reason::ConnectForbidden, manner, record);
        }
        let way = match routing::way(self.worker, &service, &parts) {
            Ok(way) => way,
            Err(asked) => return self.answer(asked, &service, manner, record, &parts),
        };
        if service.rate.as_ref().is_some_and(|bucket| !bucket.admit(self.worker.now())) {
            record.is_for(&service, &parts.method);
            return answer::because(Reason::RateLimited, manner, record);
        }
        let target = Arc::clone(way.target.as_ref().unwrap_or(&service));
        record.is_for(&target, &parts.method);
        if !record.enter(&service) {
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
        let hop = self.prepare(&mut parts, &service, &way);
        let upstream = dialect(&target, parts.version);
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
            parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(UPGRADE, protocol.clone());
        }
        let tries = Tries {
            exchange: self,
            entry: &service,
            target: &target,
            way: &way,
            upstream,
            manner,
            switches: hop.upgrade.is_some(),
        };
        let mut response = tries.run(&parts, body, record).await;
        way.change_response(&service, response.headers_mut());
        response
    }

    /// Whose request it is.
    fn service(&self, parts: &Parts) -> Option<Arc<Service>> {
        let table = self.worker.table();
        match self.client.vip {
            Some(vip) => table.owner(vip).cloned(),
            None => table.host(host(parts)?).cloned(),
        }
    }

    /// Answers what needs no endpoint.
    fn answer(
        &self,
        asked: Asked,
        service: &Arc<Service>,
        manner: Manner,
        mut record: Record,
        parts: &Parts,
    ) -> Response<ResponseBody> {
        record.is_for(service, &parts.method);
        match asked {
            Asked::NoRoute => answer::because(Reason::NoRoute, manner, record),
            Asked::NoTarget => answer::because(Reason::NoEndpoint, manner, record),
            Asked::Redirect(status, location) => {
                let mut response = answer::with_status(status, Reason::Redirect, manner, record);
                response.headers_mut().insert(http::header::LOCATION, location);
                response
            }
        }
    }

    /// Changes what a proxy has to change in a request.
    fn prepare(&self, parts: &mut Parts, service: &Service, way: &Way) -> Hop {
        let hop = hop::strip(&mut parts.headers);
        if hop.trailers {
            parts.headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
        }
        hop::announce(&mut parts.headers, &self.client.origin, parts.version, trace::request_id);
        way.change_request(service, parts);
        hop
    }
}

/// What an endpoint of this service is spoken to, for a request that came by `version`.
fn dialect(target: &Service, version: Version) -> Version {
    match target.http().upstream {
        model::Upstream::Http1 => Version::HTTP_11,
        model::Upstream::Http2 => Version::HTTP_2,
        model::Upstream::Auto if version == Version::HTTP_2 => Version::HTTP_2,
        model::Upstream::Auto => Version::HTTP_11,
    }
}

/// The host that a request names: that of its target if it has one, else of its header (RFC 9112, section 3.3).
pub(super) fn host(parts: &Parts) -> Option<&str> {
    match parts.uri.authority() {
        Some(authority) => Some(authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, host)| host)),
        None => parts.headers.get(HOST)?.to_str().ok(),
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
    async fn run(&self, parts: &Parts, body: Incoming, mut record: Record) -> Response<ResponseBody> {
        let (worker, alarm) = (self.exchange.worker, self.exchange.alarm);
        let retries = self.way.retries(self.entry);
        let whole = self.timeout(parts);
        let mirror = self.way.mirror(worker, self.entry);
        let within = if retries.per_try_timeout.is_zero() { whole } else { shorter(whole, retries.per_try_timeout) };
        // A stream of gRPC may be silent for long, and HTTP/2 connections are kept for others anyway.
        let stall = if matches!(body, Incoming::Http1(_)) { self.entry.http().idle_http } else { Duration::ZERO };
        let source = Source::new(body, retries.attempts > 0 || mirror.is_some(), alarm, within, stall);
        let budget = &self.entry.state.budget;
        budget.request(worker.now());
        let hash = self.hash(parts);
        let mut tried: Vec<usize> = Vec::new();
        let mut last: Option<Failed> = None;
        let response = loop {
            let asking = Asking { worker: worker.number, hash, now: worker.now(), tried: &tried };
            let picked = match pick(self.target, &asking) {
                Ok(picked) => picked,
                Err(reason) => {
                    if last.is_some() {
                        self.count(Retry::NoOther);
                    }
                    let reason = last.map_or(reason, |failed| failed.reason);
                    break answer::because(reason, self.manner, record);
                }
            };
            record.goes_to(self.target, picked.index);
            let attempt = Attempt {
                worker,
                client: self.exchange.client,
                alarm,
                service: self.target,
                picked,
                upstream: self.upstream,
                switches: self.switches,
                retries,
            };
            let failed = match attempt.run(parts, &source).await {
                Ok(answered) => {
                    let failure = policy::Failure::Status(answered.status().as_u16());
                    if !self.wants_another(retries, failure, parts, &source, tried.len()) {
                        if !tried.is_empty() {
                            self.count(Retry::Success);
                        }
                        record.sent_bytes = source.read();
                        record.answered(answered.status());
                        break answered.pass(record);
                    }
                    // Told as this endpoint's, although nobody gets to see it.
                    record.answered(answered.status());
                    None
                }
                Err(failed) => {
                    let again = |failure| self.wants_another(retries, failure, parts, &source, tried.len());
                    if !failed.failure.is_some_and(again) {
                        record.sent_bytes = source.read();
                        break answer::because(failed.reason, self.manner, record);
                    }
                    Some(failed)
                }
            };
            if !tried.is_empty() {
                self.count(Retry::Failure);
            }
            if !budget.take(retries, worker.now()) {
                self.count(Retry::OverBudget);
                let reason = failed.map_or(Reason::UpstreamReset, |failed| failed.reason);
                break answer::because(reason, self.manner, record);
            }
            last = failed;
            tried.push(picked.index);
            let pause = policy::backoff(retries, u32::try_from(tried.len()).unwrap_or(u32::MAX), fastrand::u32(..));
            let left = remaining(whole, record.started().elapsed());
            Box::pin(tokio::time::sleep(left.map_or(pause, |left| pause.min(left)))).await;
            match remaining(whole, record.started().elapsed()) {
                Some(left) if left.is_zero() && source.has_ended() => {
                    break answer::because(Reason::RequestTimeout, self.manner, record);
                }
                left => source.answer_within(shorter(left.unwrap_or_default(), retries.per_try_timeout), alarm),
            }
        };
        alarm.clear();
        if let Some(mirror) = mirror
            && let Some(copy) = source.copy()
        {
            super::mirror::send(worker, self.exchange.client, mirror, parts, copy);
        }
        response
    }

    fn wants_another(
        &self,
        retries: &model::Retries,
        failure: policy::Failure,
        parts: &Parts,
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

    /// How long the answer may take; zero: as long as it does.
    fn timeout(&self, parts: &Parts) -> Duration {
        let configured = if self.switches { Duration::ZERO } else { self.way.request_timeout(self.entry) };
        match parts.headers.get("grpc-timeout").and_then(|value| policy::grpc_timeout(value.as_bytes())) {
            Some(grpc) => shorter(configured, grpc),
            None => configured,
        }
    }

    /// What the policy hashes of the request.
    fn hash(&self, parts: &Parts) -> u32 {
        if self.target.facts.policy != model::Policy::Maglev {
            return 0;
        }
        let header = |name: &str| parts.headers.get_all(name).iter().map(HeaderValue::as_bytes);
        let hash = policy::hash(&self.target.http().hash, header, Some(self.exchange.client.address.ip()));
        // Nothing to hash: any endpoint.
        hash.map_or_else(|| fastrand::u32(..), |hash| (hash >> 32) as u32)
    }
}

/// The shorter of two times, of which zero means none.
fn shorter(a: Duration, b: Duration) -> Duration {
    if a.is_zero() {
        b
    } else if b.is_zero() {
        a
    } else {
        a.min(b)
    }
}

/// What is left of a time; `None`: it is not limited.
fn remaining(whole: Duration, elapsed: Duration) -> Option<Duration> {
    (!whole.is_zero()).then(|| whole.saturating_sub(elapsed))
}
