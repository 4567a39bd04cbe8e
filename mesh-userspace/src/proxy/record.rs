//! What becomes of a request, told on every way out.

use super::{
    reason::Reason,
    state::{EndpointState, method_index},
    table::{Active, Service},
    worker::Shared,
};
use http::{Method, StatusCode};
use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

/// One request, as the request log has it.
#[derive(Clone, Debug)]
pub struct Line {
    /// When its head was there.
    pub time: SystemTime,
    /// The service it was for; `None`: nobody's.
    pub service: Option<Arc<str>>,
    /// The endpoint that answered, or was tried last.
    pub endpoint: Option<SocketAddr>,
    /// The client.
    pub client: SocketAddr,
    /// The method.
    pub method: Method,
    /// The path as the client sent it, with its query.
    pub path: Box<str>,
    /// The status of the answer; `None`: the client went away before there was one.
    pub status: Option<StatusCode>,
    /// From its head to the end of the answer.
    pub duration: Duration,
    /// Bytes of the request's body.
    pub sent_bytes: u64,
    /// Bytes of the answer's body.
    pub received_bytes: u64,
    /// How often it was sent to an endpoint.
    pub attempts: u32,
    /// The trace it is part of, 32 hexadecimal digits.
    pub trace_id: Option<Box<str>>,
    /// Why the proxy answered itself, or what broke the answer off.
    pub reason: Option<&'static str>,
}

/// A request on its way. Whoever holds this last decides when it is over.
#[derive(Debug)]
pub(super) struct Record {
    shared: Arc<Shared>,
    service: Option<Arc<Service>>,
    /// Counted while it is on its way.
    active: Option<Active>,
    endpoint: Option<(usize, ActiveAt)>,
    started: Instant,
    status: Option<StatusCode>,
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
    pub(super) attempts: u32,
    /// What is logged of it, if it is.
    line: Option<Box<Line>>,
}

/// A request on its way to one endpoint.
#[derive(Debug)]
struct ActiveAt(Arc<EndpointState>);

impl Drop for ActiveAt {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Record {
    /// A request whose head is there. `line`: what is logged of it.
    pub(super) fn new(shared: &Arc<Shared>, line: Option<Box<Line>>) -> Self {
        Self {
            shared: Arc::clone(shared),
            service: None,
            active: None,
            endpoint: None,
            started: Instant::now(),
            status: None,
            sent_bytes: 0,
            received_bytes: 0,
            attempts: 0,
            line,
        }
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// It is for this service.
    pub(super) fn is_for(&mut self, service: &Arc<Service>, method: &Method) {
        service.state.requests[method_index(method)].fetch_add(1, Ordering::Relaxed);
        if let Some(line) = &mut self.line {
            line.service = Some(Arc::clone(&service.name));
        }
        self.service = Some(Arc::clone(service));
    }

    /// It is one of the requests that the service has on its way, if it admits another one.
    pub(super) fn enter(&mut self, service: &Service) -> bool {
        self.active = Active::enter(&service.state, service.http().limits.max_requests);
        self.active.is_some()
    }

    /// It goes to this endpoint of `service`.
    pub(super) fn goes_to(&mut self, service: &Service, index: usize) {
        let endpoint = &service.endpoints[index];
        endpoint.state.active.fetch_add(1, Ordering::AcqRel);
        self.attempts += 1;
        if let Some(line) = &mut self.line {
            line.endpoint = Some(endpoint.address);
        }
        self.endpoint = Some((index, ActiveAt(Arc::clone(&endpoint.state))));
    }

    /// The endpoint's answer has begun.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
        if let Some((_, at)) = &self.endpoint {
            at.0.responses.count(status);
        }
    }

    /// The proxy answers itself.
    pub(super) fn rejected(&mut self, reason: Reason, status: StatusCode) {
        self.status = Some(status);
        self.endpoint = None;
        match &self.service {
            Some(service) => {
                service.state.rejected.count(reason);
                service.state.own_responses.count(status);
            }
            None => self.shared.rejected.count(reason),
        }
        self.broke(reason.word());
    }

    /// Something broke it off, or made the proxy answer.
    pub(super) fn broke(&mut self, why: &'static str) {
        if let Some(line) = &mut self.line {
            line.reason = Some(why);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        if let Some(service) = &self.service {
            service.state.durations.add(duration);
        }
        let Some(mut line) = self.line.take() else { return };
        line.duration = duration;
        line.status = self.status;
        line.attempts = self.attempts;
        (line.sent_bytes, line.received_bytes) = (self.sent_bytes, self.received_bytes);
        self.shared.log(&line);
    }
}
