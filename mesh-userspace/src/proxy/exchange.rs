//! One request, from its head to the head of its answer: whose it is, where it may go, and what is tried.

use super::{
    answer::{self, Manner},
    attempt::Attempt,
    deadline::Alarm,
    hop::{self, Hop, Origin},
    http2::dialect::{prepare_for_http1, prepare_for_http2},
    incoming::Incoming,
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
        let hop = hop::strip_request(&mut parts.headers);
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
        let within = timeout::of_try(retries.per_try_timeout, whole).unwrap_or_default();
        // A stream of gRPC may be silent for long, and HTTP/2 connections are kept for others anyway.
        let stall = if matches!(body, Incoming::Http1(_)) { self.entry.http().idle_http } else { Duration::ZERO };
        let source = Source::new(body, retries.attempts > 0 || mirror.is_some(), alarm, within, stall);
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
            };
            let tried_at = picked.index;
            let outcome = attempt.run(parts, &source).await;
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
                record.sent_bytes = source.read();
                let failed = outcome.is_err() || again.is_some();
                if record.attempts > 1 {
                    self.count(if failed { Retry::Failure } else { Retry::Success });
                }
                break match outcome {
                    Ok(answered) => {
                        record.answered(answered.status());
                        answered.pass(record)
                    }
                    Err(failed) => answer::because(failed.reason, self.manner, record),
                };
            };
            if record.attempts > 1 {
                self.count(Retry::Failure);
            }
            if let Ok(answered) = outcome {
                // Told as this endpoint's, although nobody gets to see it.
                record.answered(answered.status());
            }
            let pause = policy::backoff(retries, record.attempts, fastrand::u32(..));
            let left = whole.map(|whole| whole.saturating_sub(record.started().elapsed()));
            Box::pin(tokio::time::sleep(left.map_or(pause, |left| pause.min(left)))).await;
            match whole.map(|whole| whole.saturating_sub(record.started().elapsed())) {
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

    /// How long the answer may take; `None`: as long as it does.
    fn timeout(&self, parts: &Parts) -> Option<Duration> {
        let client = parts.headers.get("grpc-timeout").and_then(|value| timeout::grpc_timeout(value.as_bytes()));
        let client = client.filter(|client| !client.is_zero());
        if self.switches {
            return client;
        }
        timeout::limit(self.entry.http().request_timeout, self.way.request_timeout(self.entry), client)
    }

    /// What the policy hashes of the request.
    fn hash(&self, parts: &Parts) -> u32 {
        if self.target.facts.policy != model::Policy::Maglev {
            return 0;
        }
        let header = |name: &str| parts.headers.get_all(name).iter().map(HeaderValue::as_bytes);
        hash_of(self.target, header, self.exchange.client.address.ip())
    }
}
