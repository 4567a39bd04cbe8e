//! Upstream connections of one worker that are kept, and how many there may be.

use super::{
    Fault,
    deadline::{Alarm, Clock, Over},
    http1, http2,
    net::{NoConnection, Sockets, connect},
    state::{Connected, EndpointState, ServiceState},
    table::{Endpoint, Service},
    upstream::Upstream,
};
use foldhash::HashMap;
use std::{
    cell::{Cell, OnceCell, RefCell},
    pin::pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::sync::Notify;

/// An upstream connection as `limits.max_connections` counts it.
#[derive(Debug)]
pub(super) struct Permit(Arc<ServiceState>);

impl Permit {
    fn take(state: &Arc<ServiceState>, most: u32) -> Option<Self> {
        let more = |n: u32| (most == 0 || n < most).then_some(n + 1);
        let taken = state.connections.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        taken.is_ok().then(|| Self(Arc::clone(state)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::AcqRel);
        if self.0.pending.load(Ordering::Acquire) > 0 {
            self.0.freed.notify_one();
        }
    }
}

/// A connection by which HTTP/1 requests go one after the other.
#[derive(Debug)]
pub(super) struct Http1 {
    pub(super) connection: http1::Connection<Upstream>,
    /// Apart, as what holds it is moved often.
    pub(super) keeper: Box<Keeper>,
}

/// What belongs to such a connection while a request has it.
#[derive(Debug)]
pub(super) struct Keeper {
    permit: Permit,
    _connected: Connected,
    key: Key,
    keep: Duration,
    /// Held so that no other endpoint is taken for this one.
    _endpoint: Arc<EndpointState>,
}

/// Whose connection it is: of the namespace it was made in, to the endpoint it leads to.
type Key = (u64, usize);

/// Which connection will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Any: should it have ended, then the request may be sent again.
    Any,
    /// One that has not ended as far as the system knows at this moment.
    Sure,
    /// A new one.
    Fresh,
}

/// Those of one worker.
#[derive(Debug)]
pub(super) struct Pool {
    clock: Rc<Clock>,
    http1: RefCell<HashMap<Key, Vec<Idle>>>,
    http2: RefCell<HashMap<Key, Vec<Rc<Line>>>>,
    /// How many requests of this worker wait for a connection, by service.
    waiting: RefCell<HashMap<usize, usize>>,
    /// Told, to every worker, when a request waits for what others may have at rest.
    wanted: Arc<Notify>,
}

#[derive(Debug)]
struct Idle {
    http1: Http1,
    /// On the worker's clock.
    since: Duration,
}

/// A connection for many requests at a time, from the moment that it is wanted.
#[derive(Debug)]
struct Line {
    connection: OnceCell<(http2::Connection, (Permit, Connected))>,
    /// Why there is none.
    failed: Cell<Option<NoConnection>>,
    /// Told when either is known.
    known: Notify,
    /// On the worker's clock.
    used: Cell<Duration>,
    keep: Duration,
    /// Held so that no other endpoint is taken for this one.
    _endpoint: Arc<EndpointState>,
}

impl Line {
    /// The service of a connection that nobody uses.
    fn at_rest(&self) -> Option<&Arc<ServiceState>> {
        let (connection, (permit, _)) = self.connection.get()?;
        (connection.open_streams() == 0).then_some(&permit.0)
    }

    fn is_wanted(&self) -> bool {
        self.failed.get().is_none() && self.connection.get().is_none_or(|(connection, _)| connection.is_usable())
    }
}

impl Pool {
    /// For a worker with this clock; all workers share `wanted`.
    pub(super) fn new(clock: &Rc<Clock>, wanted: &Arc<Notify>) -> Self {
        Self {
            wanted: Arc::clone(wanted),
            clock: Rc::clone(clock),
            http1: RefCell::default(),
            http2: RefCell::default(),
            waiting: RefCell::default(),
        }
    }

    /// A connection for one HTTP/1 request: the one used last, if any is kept; else, or if none that was kept will do, a new one.
    /// `queued` is true while it waits for `limits.max_connections`, which says nothing of the endpoint.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn http1(
        &self,
        sockets: &dyn Sockets,
        service: &Service,
        endpoint: &Endpoint,
        want: Want,
        queued: &Cell<bool>,
    ) -> Result<Http1, NoConnection> {
        let key = key(sockets, endpoint);
        if want != Want::Fresh
            && let Some(kept) = self.take(key, want)
        {
            return Ok(kept);
        }
        // Apart, so that requests that need no new connection do not carry its making with them.
        Box::pin(self.open_http1(key, sockets, service, endpoint, queued)).await
    }

    async fn open_http1(
        &self,
        key: Key,
        sockets: &dyn Sockets,
        service: &Service,
        endpoint: &Endpoint,
        queued: &Cell<bool>,
    ) -> Result<Http1, NoConnection> {
        let permit = match self.place(service, key, queued).await? {
            Free::Kept(kept) => return Ok(kept),
            Free::Place(permit) => permit,
        };
        let (stream, _connected) = connect(&self.clock, sockets, service, endpoint).await?;
        let (keep, _endpoint) = (service.http().idle_http, Arc::clone(&endpoint.state));
        let connection = http1::Connection::new(stream, &http1::Limits::default());
        Ok(Http1 { connection, keeper: Box::new(Keeper { permit, _connected, key, keep, _endpoint }) })
    }

    /// The connection that was used last and still lives.
    fn take(&self, key: Key, want: Want) -> Option<Http1> {
        loop {
            let mut idle = self.http1.borrow_mut().get_mut(&key)?.pop()?;
            let connection = &mut idle.http1.connection;
            if if want == Want::Sure { connection.is_alive_now() } else { connection.is_alive() } {
                return Some(idle.http1);
            }
        }
    }

    /// Keeps a connection whose exchange is over.
    pub(super) fn put(&self, http1: Http1) {
        let state = &http1.keeper.permit.0;
        if state.pending.load(Ordering::Acquire) > 0 {
            if !self.waiting.borrow().contains_key(&Arc::as_ptr(state).addr()) {
                // Somebody waits at another worker, who cannot use it: its place is worth more.
                return;
            }
            state.freed.notify_waiters();
        }
        self.http1.borrow_mut().entry(http1.keeper.key).or_default().push(Idle { http1, since: self.clock.now() });
    }

    /// A place for another connection; where there is none, what comes free first.
    async fn place(&self, service: &Service, key: Key, queued: &Cell<bool>) -> Result<Free, NoConnection> {
        if let Some(permit) = self.permit(service) {
            return Ok(Free::Place(permit));
        }
        queued.set(true);
        let free = self.wait(service, key).await;
        queued.set(false);
        free
    }

    /// A place for another connection, if there is one.
    pub(super) fn permit(&self, service: &Service) -> Option<Permit> {
        Permit::take(&service.state, service.http().limits.max_connections)
    }

    /// Waits until there is a place for another connection, or one of our own is free.
    async fn wait(&self, service: &Service, key: Key) -> Result<Free, NoConnection> {
        let (state, limits) = (&service.state, &service.http().limits);
        let before = state.pending.fetch_add(1, Ordering::AcqRel);
        let _waiting = Waiting::new(self, state);
        loop {
            // Asked for before the look, so that nothing is missed between.
            let freed = state.freed.notified();
            if let Some(kept) = self.take(key, Want::Sure) {
                return Ok(Free::Kept(kept));
            }
            if let Some(permit) = self.permit(service) {
                return Ok(Free::Place(permit));
            }
            // A connection to another endpoint makes room for one to this.
            if self.close_one_of(state) {
                continue;
            }
            if limits.max_pending_requests != 0 && before >= limits.max_pending_requests {
                return Err(NoConnection::TooManyWait);
            }
            // Other workers may have some at rest, which are of no use to anybody then.
            self.wanted.notify_waiters();
            freed.await;
        }
    }

    /// Closes a connection of a service that is at rest; whether there was one.
    pub(super) fn close_one_of(&self, state: &Arc<ServiceState>) -> bool {
        let closed = {
            let mut pools = self.http1.borrow_mut();
            let of_service = |idle: &Idle| Arc::ptr_eq(&idle.http1.keeper.permit.0, state);
            let found = pools.values_mut().find(|idle| idle.first().is_some_and(of_service));
            found.map(|idle| idle.remove(0))
        };
        if closed.is_some() {
            return true;
        }
        let closed = {
            let mut lines = self.http2.borrow_mut();
            lines.values_mut().find_map(|lines| {
                let at = lines.iter().position(|line| line.at_rest().is_some_and(|of| Arc::ptr_eq(of, state)))?;
                Some(lines.remove(at))
            })
        };
        closed.is_some()
    }

    /// Closes what is at rest of services for whose connections requests wait at other workers.
    pub(super) fn make_room(&self) {
        let wanted = {
            let waits = |state: &&Arc<ServiceState>| {
                let here = || self.waiting.borrow().contains_key(&Arc::as_ptr(state).addr());
                state.pending.load(Ordering::Acquire) > 0 && !here()
            };
            let (http1, http2) = (self.http1.borrow(), self.http2.borrow());
            let kept = http1.values().filter_map(|idle| idle.first()).map(|idle| &idle.http1.keeper.permit.0);
            let lines = http2.values().flatten().filter_map(|line| line.at_rest());
            let mut wanted: Vec<_> = kept.chain(lines).filter(waits).map(Arc::clone).collect();
            wanted.sort_by_key(Arc::as_ptr);
            wanted.dedup_by_key(|state| Arc::as_ptr(state));
            wanted
        };
        for state in wanted {
            // As many as wait, and not all.
            (0..state.pending.load(Ordering::Acquire)).all(|_| self.close_one_of(&state));
        }
    }

    /// A connection for HTTP/2 requests, shared with others of this worker. `queued` as for [`Pool::http1`].
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn http2(
        &self,
        sockets: &dyn Sockets,
        service: &Service,
        endpoint: &Endpoint,
        queued: &Cell<bool>,
    ) -> Result<http2::Connection, NoConnection> {
        let key = key(sockets, endpoint);
        loop {
            let line = {
                let mut lines = self.http2.borrow_mut();
                let lines = lines.entry(key).or_default();
                let has_room = |line: &Rc<Line>| line.connection.get().is_none_or(|(c, _)| c.has_room());
                let found = lines.iter().find(|line| line.is_wanted() && has_room(line)).map(Rc::clone);
                if found.is_none() {
                    lines.retain(|line| line.is_wanted());
                }
                found
            };
            let Some(line) = line else { return Box::pin(self.open(key, sockets, service, endpoint, queued)).await };
            line.used.set(self.clock.now());
            if let Some((connection, _)) = line.connection.get() {
                return Ok(connection.clone());
            }
            // Nothing is told between the look above and this: workers have one thread. Who opens it learns of the endpoint.
            queued.set(true);
            line.known.notified().await;
            queued.set(false);
            if let Some(why) = line.failed.get() {
                return Err(why);
            }
        }
    }

    async fn open(
        &self,
        key: Key,
        sockets: &dyn Sockets,
        service: &Service,
        endpoint: &Endpoint,
        queued: &Cell<bool>,
    ) -> Result<http2::Connection, NoConnection> {
        let line = Rc::new(Line {
            connection: OnceCell::new(),
            failed: Cell::new(None),
            known: Notify::new(),
            used: Cell::new(self.clock.now()),
            keep: service.http().idle_http,
            _endpoint: Arc::clone(&endpoint.state),
        });
        self.http2.borrow_mut().entry(key).or_default().push(Rc::clone(&line));
        // Also if this request is given up meanwhile: those who wait try for themselves then.
        let opening = Opening { pool: self, key, line: &line };
        let opened = self.handshake(sockets, service, endpoint, queued).await;
        let result = match opened {
            Ok((connection, permit)) => {
                let _ = line.connection.set((connection.clone(), permit));
                Ok(connection)
            }
            Err(why) => {
                line.failed.set(Some(why));
                Err(why)
            }
        };
        drop(opening);
        result
    }

    async fn handshake(
        &self,
        sockets: &dyn Sockets,
        service: &Service,
        endpoint: &Endpoint,
        queued: &Cell<bool>,
    ) -> Result<(http2::Connection, (Permit, Connected)), NoConnection> {
        // No connection is kept under this key.
        let permit = match self.place(service, (0, 0), queued).await? {
            Free::Place(permit) => permit,
            Free::Kept(kept) => kept.keeper.permit,
        };
        let (stream, connected) = connect(&self.clock, sockets, service, endpoint).await?;
        let (connection, driver) = http2::Connection::handshake(stream, &http2::Limits::upstream())
            .await
            .map_err(|_| NoConnection::Failed(std::io::ErrorKind::ConnectionReset))?;
        tokio::task::spawn_local(attend(driver, connection.watch(), self.clock.alarm()));
        Ok((connection, (permit, connected)))
    }

    /// Closes what has been at rest for too long.
    pub(super) fn sweep(&self, now: Duration) {
        let is_old = |since: Duration, keep: Duration| !keep.is_zero() && now.saturating_sub(since) >= keep;
        self.http1.borrow_mut().retain(|_, idle| {
            idle.retain(|idle| !is_old(idle.since, idle.http1.keeper.keep));
            !idle.is_empty()
        });
        self.http2.borrow_mut().retain(|_, lines| {
            lines.retain(|line| match line.connection.get() {
                Some((connection, _)) => {
                    if connection.open_streams() > 0 {
                        line.used.set(now);
                    }
                    line.is_wanted() && !is_old(line.used.get(), line.keep)
                }
                None => line.is_wanted(),
            });
            !lines.is_empty()
        });
    }

    /// Closes what is at rest of a network namespace, which would keep that alive.
    pub(super) fn forget(&self, namespace: u64) {
        self.http1.borrow_mut().retain(|(of, _), _| *of != namespace);
        self.http2.borrow_mut().retain(|(of, _), _| *of != namespace);
    }

    /// Closes all that is at rest.
    pub(super) fn clear(&self) {
        self.http1.borrow_mut().clear();
        self.http2.borrow_mut().clear();
    }
}

/// Drives a connection to its end, or until nobody is there any more.
async fn attend(driver: impl Future<Output = Result<(), Fault>>, watch: Option<http2::Watch>, alarm: Rc<Alarm>) {
    let (mut driver, mut watch) = (pin!(driver), watch);
    loop {
        alarm.set(http2::Watch::EVERY);
        let is_over = match alarm.before(driver.as_mut()).await {
            Ok(_) => true,
            Err(Over) => watch.as_mut().is_some_and(|watch| !watch.look()),
        };
        if is_over {
            return;
        }
    }
}

fn key(sockets: &dyn Sockets, endpoint: &Endpoint) -> Key {
    (sockets.namespace(), Arc::as_ptr(&endpoint.state).addr())
}

/// What a request was waiting for.
enum Free {
    Kept(Http1),
    Place(Permit),
}

/// A request that waits.
struct Waiting<'a> {
    pool: &'a Pool,
    state: &'a Arc<ServiceState>,
}

impl<'a> Waiting<'a> {
    fn new(pool: &'a Pool, state: &'a Arc<ServiceState>) -> Self {
        *pool.waiting.borrow_mut().entry(Arc::as_ptr(state).addr()).or_default() += 1;
        Self { pool, state }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.state.pending.fetch_sub(1, Ordering::AcqRel);
        let mut waiting = self.pool.waiting.borrow_mut();
        let service = Arc::as_ptr(self.state).addr();
        if let Some(n) = waiting.get_mut(&service) {
            *n -= 1;
            if *n == 0 {
                waiting.remove(&service);
            }
        }
    }
}

/// A connection that is being made.
struct Opening<'a> {
    pool: &'a Pool,
    key: Key,
    line: &'a Rc<Line>,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if self.line.connection.get().is_none()
            && let Some(lines) = self.pool.http2.borrow_mut().get_mut(&self.key)
        {
            lines.retain(|line| !Rc::ptr_eq(line, self.line));
        }
        self.line.known.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
