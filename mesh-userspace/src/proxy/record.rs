//! What becomes of a request, told on every way out.

use super::{
    attempt::Verdict,
    exchange::Client,
    fields::Fields,
    lines,
    message::RequestHead,
    pick::Picked,
    pool::Pool,
    reason::Reason,
    state::{EndpointState, method_index},
    table::{Active, Service},
    told::{Line, Trace, TraceId, Try, Used},
    trace::{self, Context},
    tunnel::Relayed,
    worker::Worker,
};
use crate::policy::Tier;
use bytes::Bytes;
use http::{
    HeaderValue, Method, StatusCode, Uri, Version,
    uri::{Authority, PathAndQuery},
};
use std::{
    cell::Cell,
    mem,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// A request on its way. Whoever holds this last decides when it is over.
///
/// All that will be told of it is remembered as it is, without a copy: most requests are told to nobody.
#[derive(Debug)]
pub(super) struct Record {
    worker: Rc<Worker>,
    service: Option<Arc<Service>>,
    /// Counted while it is on its way.
    active: Option<Active>,
    /// Where it is counted.
    endpoint: Option<ActiveAt>,
    /// On the worker's clock.
    started: Duration,
    status: Option<StatusCode>,
    /// What a tunnel has sent.
    sent_bytes: u64,
    /// What was read of the request's body, until the end.
    sent: Option<Rc<Cell<u64>>>,
    pub(super) received_bytes: u64,
    pub(super) attempts: u32,
    /// Why the proxy answered itself, or what broke the answer off.
    reason: Option<&'static str>,
    /// Whether it ended as it should not have, where the status does not say so.
    failed: bool,
    grpc_status: Option<u16>,
    about: About,
    /// The try under way, or the last one.
    going: Option<Going>,
    /// Those before it.
    gone: Vec<Going>,
}

/// What is told of.
#[derive(Debug)]
enum About {
    /// Nothing: a copy, or what is no request.
    Nobody,
    Request(SocketAddr, Asked),
    /// What was to be a request, to this service if that is known.
    Malformed(SocketAddr, Option<Arc<str>>),
    /// A connection for a service.
    Connection(SocketAddr, Arc<str>),
}

/// What was asked for, as the client said it.
#[derive(Debug)]
struct Asked {
    method: Method,
    target: Target,
    version: Version,
    trace: Context,
    /// Lines of `tracestate`, where the client's trace goes on.
    state: Vec<HeaderValue>,
}

/// What a request is for. Both are parts of the whole head.
#[derive(Debug)]
enum Target {
    Path(PathAndQuery),
    /// Of `CONNECT`.
    Authority(Authority),
    Nothing,
}

impl Target {
    fn of(uri: &Uri) -> Self {
        match (uri.path_and_query(), uri.authority()) {
            (Some(path), _) => Self::Path(path.clone()),
            (None, Some(authority)) => Self::Authority(authority.clone()),
            (None, None) => Self::Nothing,
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Path(path) => path.as_str(),
            Self::Authority(authority) => authority.as_str(),
            Self::Nothing => "",
        }
    }

    /// The same, in memory of its own.
    fn own(&self) -> Self {
        let bytes = || Bytes::copy_from_slice(self.as_str().as_bytes());
        match self {
            Self::Path(path) => Self::Path(PathAndQuery::from_maybe_shared(bytes()).unwrap_or_else(|_| path.clone())),
            Self::Authority(authority) => {
                Self::Authority(Authority::from_maybe_shared(bytes()).unwrap_or_else(|_| authority.clone()))
            }
            Self::Nothing => Self::Nothing,
        }
    }
}

/// A try, on the worker's clock.
#[derive(Clone, Copy, Debug)]
struct Going {
    span: u64,
    endpoint: SocketAddr,
    tier: Tier,
    began: Duration,
    answered: Option<(Duration, StatusCode)>,
    ended: Option<Duration>,
    failed: Option<&'static str>,
    used: Used,
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
    /// What nobody is told of.
    pub(super) fn new(worker: &Rc<Worker>) -> Self {
        Self::about(worker, About::Nobody)
    }

    fn about(worker: &Rc<Worker>, about: About) -> Self {
        Self {
            worker: Rc::clone(worker),
            service: None,
            active: None,
            endpoint: None,
            started: worker.now(),
            status: None,
            sent_bytes: 0,
            sent: None,
            received_bytes: 0,
            attempts: 0,
            reason: None,
            failed: false,
            grpc_status: None,
            about,
            going: None,
            gone: Vec::new(),
        }
    }

    /// A request whose head is there, as its client sent it, part of this trace.
    pub(super) fn of_request(worker: &Rc<Worker>, client: &Client, parts: &RequestHead, trace: Context) -> Self {
        let (method, target) = (parts.method.clone(), Target::of(&parts.uri));
        let state = if trace.parent == 0 { Vec::new() } else { trace::state(&parts.headers) };
        let asked = Asked { method, target, version: parts.version, trace, state };
        Self::about(worker, About::Request(client.address, asked))
    }

    /// What a client sent that is no request.
    pub(super) fn of_malformed(worker: &Rc<Worker>, client: &Client) -> Self {
        let service = client.service(worker).map(|service| Arc::clone(&service.name));
        Self::about(worker, About::Malformed(client.address, service))
    }

    /// A connection for this service, whose bytes nobody reads: none of its requests.
    pub(super) fn of_connection(worker: &Rc<Worker>, client: &Client, service: &Service) -> Self {
        Self::about(worker, About::Connection(client.address, Arc::clone(&service.name)))
    }

    /// The time since its head was there.
    pub(super) fn elapsed(&self) -> Duration {
        self.worker.now().saturating_sub(self.started)
    }

    /// Where connections of its worker are kept.
    pub(super) fn pool(&self) -> &Pool {
        &self.worker.pool
    }

    /// Bytes of its body that go to endpoints are counted here, also those that are still to come.
    pub(super) fn counts_sent(&mut self, sent: Option<Rc<Cell<u64>>>) {
        self.sent = sent;
    }

    /// It is for this service.
    pub(super) fn is_for(&mut self, service: &Arc<Service>, method: &Method) {
        service.state.requests[method_index(method)].fetch_add(1, Ordering::Relaxed);
        self.service = Some(Arc::clone(service));
    }

    /// The client was told, by the proxy itself, that it has a tunnel.
    pub(super) fn tunnels(&mut self, status: StatusCode) {
        self.status = Some(status);
        if let Some(service) = &self.service {
            service.state.own_responses.count(status);
        }
    }

    /// From here on it may take long: what it holds on to besides itself is let go.
    pub(super) fn goes_on_for_long(&mut self) {
        if let About::Request(_, Asked { target, .. }) = &mut self.about {
            *target = target.own();
        }
    }

    /// A tunnel has passed on so much.
    pub(super) fn relayed(&mut self, relayed: &Relayed) {
        self.sent_bytes += relayed.sent;
        self.received_bytes += relayed.received;
        if let Some(why) = relayed.broken {
            self.broke(why);
        }
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
        self.endpoint = Some(ActiveAt(Arc::clone(&endpoint.state)));
        let going = Going {
            span: 0,
            endpoint: endpoint.address,
            tier: endpoint.tier,
            began: self.worker.now(),
            answered: None,
            ended: None,
            failed: None,
            used: Used::default(),
        };
        if let Some(before) = self.going.replace(going) {
            self.gone.push(before);
        }
    }

    /// The try under way is not the first one: it is told to its endpoint by these headers.
    pub(super) fn goes_again(&mut self, headers: &mut Fields) {
        let records = self.worker.shared.records();
        if let (About::Request(_, asked), Some(going), true) = (&mut self.about, &mut self.going, records) {
            going.span = asked.trace.again(headers);
        }
    }

    /// By which connection the try under way went.
    pub(super) fn went_by(&mut self, used: Used) {
        if let Some(going) = &mut self.going {
            going.used = used;
        }
    }

    /// The try under way is over, with an answer or (`failed`: why) without one, and not the last one.
    pub(super) fn try_is_over(&mut self, failed: Option<Reason>) {
        let now = self.worker.now();
        if let Some(going) = &mut self.going {
            (going.ended, going.failed) = (Some(now), failed.map(Reason::word));
        }
    }

    /// The endpoint's answer has begun.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
        if let Some(at) = &self.endpoint {
            at.0.responses.count(status);
        }
        let now = self.worker.now();
        if let Some(going) = &mut self.going {
            going.answered = Some((now, status));
        }
    }

    /// The answer ends with this `grpc-status`, if any.
    pub(super) fn ends_with(&mut self, grpc_status: Option<&[u8]>) {
        self.grpc_status = grpc_status.and_then(|status| str::from_utf8(status).ok()?.parse().ok());
    }

    /// The proxy answers itself.
    pub(super) fn rejected(&mut self, reason: Reason, status: StatusCode) {
        self.status = Some(status);
        let is_error = status.is_client_error() || status.is_server_error();
        self.endpoint = None;
        let of_malformed = match &self.about {
            About::Malformed(_, Some(name)) => self.worker.shared.table.load().service(name).map(Arc::clone),
            _ => None,
        };
        match self.service.as_ref().or(of_malformed.as_ref()) {
            Some(service) => {
                service.state.rejected.count(reason);
                service.state.own_responses.count(status);
            }
            None => self.worker.shared.rejected.count(reason),
        }
        (self.reason, self.failed) = (Some(reason.word()), self.failed || is_error);
    }

    /// How long a client may let the answer lie; `None`: it is nobody's.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.service.as_ref().map(|service| service.http().idle_http)
    }

    /// The proxy gives up an answer that has begun.
    pub(super) fn gave_up(&mut self, reason: Reason) {
        match &self.service {
            Some(service) => service.state.rejected.count(reason),
            None => self.worker.shared.rejected.count(reason),
        }
        self.broke(reason.word());
    }

    /// The endpoint broke its answer off.
    pub(super) fn broken_off(&self, picked: Picked) {
        if let Some(service) = &self.service {
            Verdict { worker: &self.worker, service, picked }.broken();
        }
    }

    /// Its client has gone before the end of the answer, or this worker has, and it is not known yet why.
    pub(super) fn cut_off(&mut self) {
        if self.reason.is_none() {
            self.broke(if self.worker.draining.get() { "stopped" } else { "downstream_reset" });
        }
    }

    /// Something broke it off.
    pub(super) fn broke(&mut self, why: &'static str) {
        (self.reason, self.failed) = (Some(why), true);
    }

    /// Whether it ended as it should not have.
    fn has_failed(&self) -> bool {
        // Without a status the client went away before there was an answer: perhaps it would not wait any longer.
        let failed = self.failed || self.status.is_none_or(|status| status.is_server_error());
        failed || self.grpc_status.is_some_and(is_server_error)
    }

    /// What the request log says of it, without service and path.
    fn line(&self, client: SocketAddr, asked: Option<&Asked>, duration: Duration) -> Line {
        Line {
            time: self.worker.time_of_day(self.started),
            service: None,
            endpoint: self.going.map(|going| going.endpoint),
            client: Some(client),
            method: asked.map(|asked| lines::method(&asked.method)),
            path: None,
            status: self.status,
            duration,
            ended: self.started + duration,
            sent_bytes: self.sent_bytes + self.sent.as_ref().map_or(0, |sent| sent.get()),
            received_bytes: self.received_bytes,
            attempts: self.attempts,
            trace_id: asked.and_then(|asked| TraceId::new(asked.trace.trace)),
            reason: self.reason,
        }
    }

    /// The trace of it, of which the request log says `line`.
    fn trace(&self, line: Line, asked: &Asked) -> Trace {
        let since = |time: Duration| time.saturating_sub(self.started);
        let (end, facts) = (self.started + line.duration, self.service.as_ref().map(|service| &service.facts));
        let mut picked = None;
        let tries = self.gone.iter().chain(&self.going).enumerate().map(|(number, going)| {
            // The next endpoint is picked as soon as a try is over, before the pause.
            let picked = mem::replace(&mut picked, going.ended).unwrap_or(going.began);
            Try {
                span: if number == 0 { asked.trace.first() } else { trace::or_new(going.span) },
                endpoint: going.endpoint,
                tier: going.tier.word(),
                picked: since(picked),
                began: since(going.began),
                answered: going.answered.map(|(time, status)| (since(time), status)),
                ended: since(going.ended.unwrap_or(end)),
                failed: going.failed,
                used: going.used,
            }
        });
        Trace {
            id: asked.trace.trace,
            parent: asked.trace.parent,
            state: trace::joined(&asked.state),
            span: asked.trace.span(),
            is_sampled: asked.trace.is_sampled(),
            failed: self.has_failed(),
            version: asked.version,
            grpc_status: self.grpc_status,
            policy: facts.map(|facts| facts.policy),
            endpoints: facts.map_or(0, |facts| facts.endpoints.len()),
            tries: tries.collect(),
            line,
        }
    }
}

/// Whether a status of gRPC says that the server failed (as `5xx` do): unknown, deadline_exceeded, unimplemented, internal,
/// unavailable, data_loss.
const fn is_server_error(status: u16) -> bool {
    matches!(status, 2 | 4 | 12 | 13 | 14 | 15)
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.elapsed();
        if let Some(service) = &self.service {
            service.state.durations.add(duration);
        }
        match &self.about {
            About::Nobody => {}
            About::Connection(client, service) => {
                if self.worker.shared.is_logged() {
                    self.worker.lines.push(self.line(*client, None, duration), Some(service), None);
                }
            }
            About::Malformed(client, service) => {
                if self.worker.shared.is_logged() {
                    self.worker.lines.push(self.line(*client, None, duration), service.as_ref(), None);
                }
            }
            About::Request(client, asked) => {
                let Worker { shared, lines, .. } = &*self.worker;
                let traced = shared.records() && (asked.trace.is_sampled() || self.attempts > 1 || self.has_failed());
                let logged = shared.is_logged();
                if !traced && !logged {
                    return;
                }
                let service = self.service.as_ref().map(|service| &service.name);
                let path = asked.target.as_str();
                let line = self.line(*client, Some(asked), duration);
                let whole = traced.then(|| Line {
                    service: service.map(Arc::clone),
                    path: Some(lines::path(path)),
                    ..line.clone()
                });
                if logged {
                    lines.push(line, service, Some(path));
                }
                if let Some(line) = whole {
                    shared.trace(self.trace(line, asked));
                }
            }
        }
    }
}
