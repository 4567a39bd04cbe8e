//! One try of a request at one endpoint, and what its circuit learns from it.

use super::{
    Fault, FaultKind, Reached, Side, Unanswered,
    answer::Manner,
    circuit::report,
    date,
    deadline::{Alarm, Over},
    exchange::Client,
    hop, http1, http2,
    incoming::Incoming,
    message::{Message, RequestHead, Response, ResponseHead},
    net::NoConnection,
    passing::{Passing, ResponseBody},
    pick::{Picked, cell},
    pool::{Http1, Keeper, Want},
    reason::Reason,
    record::Record,
    request_body::{RequestBody, Source},
    table::Service,
    told::Used,
    upstream::Upstream,
    worker::Worker,
};
use crate::{model::Retries, policy};
use http::{
    HeaderValue, StatusCode, Version,
    header::{CONNECTION, UPGRADE},
};
use http_body::Body as _;
use mesh_common::breaker::Outcome;
use std::{cell::Cell, pin::pin, rc::Rc, sync::Arc, time::Duration};

/// A try.
pub(super) struct Attempt<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) client: &'a Client,
    pub(super) alarm: &'a Rc<Alarm>,
    pub(super) service: &'a Arc<Service>,
    pub(super) picked: Picked,
    /// What the endpoint is spoken to.
    pub(super) upstream: Version,
    /// Whether the request asks for another protocol.
    pub(super) switches: bool,
    /// How the client wants to be told of what goes wrong.
    pub(super) manner: Manner,
    /// When it may be tried again.
    pub(super) retries: &'a Retries,
    /// Where it is noted by which connection it went, also if it is given up.
    pub(super) used: &'a Cell<Used>,
}

/// A try that got no answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed {
    /// As the client is told.
    pub(super) reason: Reason,
    /// As it bears on whether there is another try.
    pub(super) failure: Option<policy::Failure>,
    /// Whether the client has gone.
    pub(super) gone: bool,
}

impl Failed {
    const fn new(reason: Reason, failure: Option<policy::Failure>) -> Self {
        Self { reason, failure, gone: false }
    }
}

/// A try that got an answer.
pub(super) struct Answered {
    head: Box<ResponseHead>,
    body: From,
    picked: Picked,
    manner: Manner,
}

enum From {
    Http1(http1::ResponseBody<Upstream, RequestBody<Incoming>>, Box<Keeper>),
    Http2(http2::Incoming),
}

impl Attempt<'_> {
    /// Sends the request.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(super) async fn run(self, parts: &RequestHead, source: &Source<Incoming>) -> Result<Answered, Failed> {
        let verdict = Verdict { worker: self.worker, service: self.service, picked: self.picked };
        let started = self.worker.now();
        let queued = Cell::new(false);
        // Pinned here: passed by value it would be in this future twice.
        let sent = self.alarm.before(pin!(self.send(parts, source, &queued))).await;
        let counted = &self.service.http().counted;
        match sent {
            Ok(Ok((mut head, body))) => {
                verdict.answered(head.status, started);
                let hop = hop::strip(&mut head.headers);
                hop::say_via(&mut head.headers, head.version);
                date::add(&mut head.headers);
                if head.status == StatusCode::SWITCHING_PROTOCOLS
                    && let Some(protocol) = hop.upgrade
                {
                    head.headers.insert(CONNECTION, &HeaderValue::from_static("upgrade"));
                    head.headers.insert(UPGRADE, &protocol);
                }
                Ok(Answered { head, body, picked: self.picked, manner: self.manner })
            }
            Ok(Err(Refused::NoConnection(why))) => {
                match why {
                    NoConnection::TimedOut if counted.connect_failure => verdict.is(Outcome::Timeout),
                    NoConnection::Failed(_) if counted.connect_failure => verdict.is(Outcome::Failure),
                    _ => {}
                }
                let failure = match why {
                    NoConnection::TooManyWait => None,
                    _ => Some(policy::Failure::Connect),
                };
                Err(Failed::new(why.reason(), failure))
            }
            Ok(Err(Refused::Unanswered(Unanswered { fault, reached }))) => {
                let reason = reason_of(&fault);
                if fault.side == Side::Downstream {
                    let gone = matches!(fault.kind, FaultKind::Closed | FaultKind::Reset { .. } | FaultKind::Io(_));
                    return Err(Failed { reason, failure: None, gone });
                }
                let timed_out = fault.kind == FaultKind::TimedOut;
                let counts = if timed_out { counted.timeout } else { counted.reset };
                // A connection that was closed at rest says nothing about its endpoint.
                if counts && !matches!(reached, Reached::Unread | Reached::Stale) {
                    verdict.is(Outcome::Failure);
                }
                let failure = match (reached, fault.kind) {
                    (Reached::Nowhere, FaultKind::Reset { code: Some(_) }) => policy::Failure::Refused,
                    // It was no connection any more.
                    (Reached::Nowhere, _) => policy::Failure::Connect,
                    (Reached::Unread, _) => policy::Failure::Unread,
                    (Reached::Stale, _) => policy::Failure::Stale,
                    (Reached::Endpoint, _) if timed_out => policy::Failure::Timeout,
                    (Reached::Endpoint, _) => policy::Failure::Reset,
                };
                Err(Failed::new(reason, Some(failure)))
            }
            Err(Over) if source.is_awaited() => Err(Failed::new(Reason::SlowRequest, None)),
            // No endpoint's fault, and elsewhere it would wait as well.
            Err(Over) if queued.get() => Err(Failed::new(Reason::RequestTimeout, None)),
            Err(Over) => {
                if counted.timeout {
                    verdict.is(Outcome::Failure);
                }
                Err(Failed::new(Reason::RequestTimeout, Some(policy::Failure::Timeout)))
            }
        }
    }

    /// `queued`: whether it waits for `limits.max_connections`.
    async fn send(
        &self,
        parts: &RequestHead,
        source: &Source<Incoming>,
        queued: &Cell<bool>,
    ) -> Result<(Box<ResponseHead>, From), Refused> {
        let mut fresh = false;
        loop {
            let sent = match self.upstream {
                Version::HTTP_2 => Box::pin(self.send_http2(parts, source, fresh, queued)).await,
                _ => self.send_http1(parts, source, fresh, queued).await,
            };
            match sent {
                // The connection had ended, which says nothing of the endpoint: one more try there, by a new one.
                Err(Refused::Unanswered(lost)) if !fresh && self.may_resend(&lost, parts, source) => fresh = true,
                sent => return sent,
            }
        }
    }

    /// Whether a request that was lost with its connection may be sent by another one to the same endpoint.
    fn may_resend(&self, lost: &Unanswered, parts: &RequestHead, source: &Source<Incoming>) -> bool {
        let on = &self.retries.on;
        let wanted = match lost.reached {
            Reached::Nowhere => on.refused_stream || on.reset_before_request,
            Reached::Unread => on.reset_before_request,
            Reached::Stale => on.reset_before_request && policy::is_idempotent(parts.method.as_str()),
            Reached::Endpoint => false,
        };
        let theirs = lost.fault.side == Side::Upstream;
        wanted && theirs && self.retries.attempts > 0 && (source.is_untouched() || source.is_replayable())
    }

    /// By which connection it goes; `again`: because one before it was lost.
    fn goes_by(&self, kept: bool, again: bool) {
        self.used.set(Used { kept: Some(kept), again });
    }

    /// `again`: another connection was lost before.
    async fn send_http2(
        &self,
        parts: &RequestHead,
        source: &Source<Incoming>,
        again: bool,
        queued: &Cell<bool>,
    ) -> Result<(Box<ResponseHead>, From), Refused> {
        let endpoint = &self.service.endpoints[self.picked.index];
        let connection = self.worker.pool.http2(&*self.client.sockets, self.service, endpoint, queued).await?;
        self.goes_by(connection.has_served(), again);
        let Response { head, body } = connection.send(parts.clone().into(), source.body()).await?.into();
        Ok((head, From::Http2(body)))
    }

    /// `fresh`: by a new connection.
    async fn send_http1(
        &self,
        parts: &RequestHead,
        source: &Source<Incoming>,
        fresh: bool,
        queued: &Cell<bool>,
    ) -> Result<(Box<ResponseHead>, From), Refused> {
        let (pool, sockets) = (&self.worker.pool, &*self.client.sockets);
        let endpoint = &self.service.endpoints[self.picked.index];
        let want = match (fresh, policy::is_idempotent(parts.method.as_str())) {
            (true, _) => Want::Fresh,
            (false, true) => Want::Any,
            (false, false) => Want::Sure,
        };
        let Http1 { connection, keeper } = pool.http1(sockets, self.service, endpoint, want, queued).await?;
        self.goes_by(connection.has_served(), fresh);
        let Response { head, body } = connection.send(parts, source.body()).await?;
        if head.status == StatusCode::SWITCHING_PROTOCOLS && !self.switches {
            return Err(Refused::Unanswered(Unanswered {
                fault: Fault::upstream(FaultKind::Malformed("101 that nobody asked for")),
                reached: Reached::Endpoint,
            }));
        }
        Ok((head, From::Http1(body, keeper)))
    }
}

/// Why a request was not answered.
enum Refused {
    NoConnection(NoConnection),
    Unanswered(Unanswered),
}

impl std::convert::From<NoConnection> for Refused {
    fn from(why: NoConnection) -> Self {
        Self::NoConnection(why)
    }
}

impl std::convert::From<Unanswered> for Refused {
    fn from(why: Unanswered) -> Self {
        Self::Unanswered(why)
    }
}

/// What a client is told of a fault.
pub(super) fn reason_of(fault: &Fault) -> Reason {
    match (fault.side, fault.kind) {
        (Side::Downstream, FaultKind::TimedOut) => Reason::SlowRequest,
        (Side::Downstream, _) => Reason::BadRequest,
        (Side::Upstream, FaultKind::TimedOut) => Reason::RequestTimeout,
        (Side::Upstream, FaultKind::Malformed(_) | FaultKind::TooLarge(_)) => Reason::BadResponse,
        (Side::Upstream, _) => Reason::UpstreamReset,
    }
}

impl Answered {
    pub(super) fn status(&self) -> StatusCode {
        self.head.status
    }

    /// The response, on its way to the client.
    pub(super) fn pass(self, mut record: Record) -> Response<ResponseBody> {
        let Self { head, body, picked, manner } = self;
        let body = match body {
            From::Http1(body, keeper) => {
                let passing = Passing { record, home: Some(keeper), picked: Some(picked) };
                match head.status {
                    StatusCode::SWITCHING_PROTOCOLS => ResponseBody::switching(body, passing),
                    _ => ResponseBody::http1(body, passing),
                }
            }
            From::Http2(body) => {
                if body.is_end_stream() {
                    // What gRPC has to say may be all that there is.
                    record.ends_with(head.headers.get("grpc-status"));
                }
                ResponseBody::http2(body, manner, Passing { record, home: None, picked: Some(picked) })
            }
        };
        Message { head, body }
    }
}

/// Who tells the endpoint's circuit what became of a request.
pub(super) struct Verdict<'a> {
    pub(super) worker: &'a Worker,
    pub(super) service: &'a Service,
    pub(super) picked: Picked,
}

impl Verdict<'_> {
    fn is(&self, outcome: Outcome) {
        let Self { service, picked, .. } = self;
        let Some(endpoint) = service.endpoints.get(picked.index) else { return };
        let cell = cell(service, endpoint);
        report(&cell, outcome, picked.probe, &service.limits, fastrand::u32(..));
        let success = match outcome {
            Outcome::Alive => true,
            Outcome::Failure | Outcome::Timeout => false,
            Outcome::Established | Outcome::Suspect | Outcome::Nothing | Outcome::Unreliable => return,
        };
        let Some(rate) = &endpoint.success else { return };
        let now = self.worker.now();
        rate.record(success, now);
        if !success && rate.is_too_low(&service.http().success_rate, now) {
            report(&cell, Outcome::Unreliable, None, &service.limits, fastrand::u32(..));
            rate.clear();
        }
    }

    /// The head of an answer is there.
    fn answered(&self, status: StatusCode, started: Duration) {
        let Some(endpoint) = self.service.endpoints.get(self.picked.index) else { return };
        let now = self.worker.now();
        endpoint.state.latency.observe(now.saturating_sub(started), now);
        if status.is_server_error() && self.service.http().counted.server_error {
            return self.is(Outcome::Failure);
        }
        self.is(Outcome::Established);
        self.is(Outcome::Alive);
    }

    /// The answer was broken off.
    pub(super) fn broken(&self) {
        if self.service.http().counted.reset {
            self.is(Outcome::Failure);
        }
    }
}
