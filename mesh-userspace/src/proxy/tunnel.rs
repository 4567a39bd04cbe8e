//! Connections whose bytes are nobody's business: passed on as they come, both ways, until both ways have ended.

use super::{
    deadline::{Alarm, Over},
    exchange::Client,
    http1::Transport,
    net::{NoConnection, connect},
    pick::{Asking, cell, hash_of, pick},
    pool::Permit,
    reason::Reason,
    record::Record,
    state::Connected,
    table::Service,
    told::Used,
    upstream::Upstream,
    worker::Worker,
};
use bytes::Bytes;
use mesh_common::breaker::Outcome;
use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// What is read at a time.
const CHUNK: usize = 64 * 1024;

thread_local! {
    /// Into which is read, so that a connection at rest holds no room.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into_boxed_slice());
}

/// Who broke a tunnel off, in the request log.
const DOWNSTREAM: &str = "downstream_reset";
const UPSTREAM: &str = "upstream_reset";

/// Passes on a connection that is no HTTP.
pub(super) async fn opaque(
    worker: &Rc<Worker>,
    client: &Client,
    service: &Arc<Service>,
    downstream: TcpStream,
    read: Bytes,
) {
    let mut record = Record::of_connection(worker, client, service);
    match open(worker, client, service, &mut record).await {
        Ok((upstream, _held)) => {
            let idle = service.http().idle_tcp;
            relay(worker, downstream, upstream, read, Bytes::new(), idle, &mut record).await;
        }
        Err(reason) => {
            service.state.rejected.count(reason);
            record.broke(reason.word());
            // As if nobody had listened.
            let _ = downstream.set_zero_linger();
        }
    }
}

/// What counts a tunnel, as long as it is there.
pub(super) struct Held {
    _connected: Connected,
    _permit: Permit,
}

/// Connects to an endpoint of a service, to another one if that fails.
///
/// # Errors
/// Why there is none.
pub(super) async fn open(
    worker: &Rc<Worker>,
    client: &Client,
    service: &Arc<Service>,
    record: &mut Record,
) -> Result<(Upstream, Held), Reason> {
    // It is one of the service's connections (`limits.max_connections`), and there is nothing to wait with.
    let pool = &worker.pool;
    let permit = pool.permit(service).or_else(|| pool.close_one_of(&service.state).then(|| pool.permit(service))?);
    let permit = permit.ok_or(Reason::MaxPendingRequests)?;
    let mut tried = Vec::new();
    let mut last = None;
    let counts = service.http().counted.connect_failure;
    let attempts = service.http().retries.attempts as usize;
    while tried.len() <= attempts {
        let nothing = |_: &str| std::iter::empty::<&[u8]>();
        let hash = hash_of(service, nothing, client.address.ip());
        let asking = Asking { worker: worker.number, hash, now: worker.now(), tried: &tried };
        let picked = match pick(service, &asking) {
            Ok(picked) => picked,
            Err(reason) => return Err(last.unwrap_or(reason)),
        };
        let endpoint = &service.endpoints[picked.index];
        record.goes_to(service, picked.index);
        let connected = connect(&worker.clock, &*client.sockets, service, endpoint).await;
        let outcome = match connected {
            Ok(_) => Outcome::Established,
            Err(NoConnection::TimedOut) if counts => Outcome::Timeout,
            Err(NoConnection::Failed(_)) if counts => Outcome::Failure,
            Err(_) => Outcome::Nothing,
        };
        let cell = cell(service, endpoint);
        super::circuit::report(&cell, outcome, picked.probe, &service.limits, fastrand::u32(..));
        match connected {
            Ok((upstream, connected)) => {
                super::circuit::report(&cell, Outcome::Alive, picked.probe, &service.limits, fastrand::u32(..));
                record.went_by(Used { kept: Some(false), again: false });
                return Ok((upstream, Held { _connected: connected, _permit: permit }));
            }
            Err(why) => {
                record.try_is_over(Some(why.reason()));
                last = Some(why.reason());
            }
        }
        tried.push(picked.index);
    }
    Err(last.unwrap_or(Reason::NoEndpoint))
}

/// What went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Relayed {
    /// Bytes that the endpoint was sent.
    pub(super) sent: u64,
    /// Bytes that the client was sent.
    pub(super) received: u64,
    /// What broke it off; `None`: both sides had said all.
    pub(super) broken: Option<&'static str>,
}

/// Passes bytes on until both sides have said all, one of them breaks off, or nothing was said for `idle` (zero: ever).
/// What was read of either side already goes first. `record` is told what went through, also where the proxy ends before.
pub(super) async fn relay(
    worker: &Worker,
    mut downstream: TcpStream,
    mut upstream: Upstream,
    from_downstream: Bytes,
    from_upstream: Bytes,
    idle: Duration,
    record: &mut Record,
) {
    let alarm = worker.clock.alarm();
    let mut ways =
        Ways { record, up: Way::new(from_downstream), down: Way::new(from_upstream), broken: Some("stopped") };
    let passing = async {
        alarm.set(idle);
        poll_fn(|cx| {
            let up = ways.up.pass(cx, &mut downstream, &mut upstream, &alarm, idle, [DOWNSTREAM, UPSTREAM])?;
            let down = ways.down.pass(cx, &mut upstream, &mut downstream, &alarm, idle, [UPSTREAM, DOWNSTREAM])?;
            if up.is_ready() && down.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await
    };
    let ended = alarm.before(passing).await;
    ways.broken = match ended {
        Ok(Ok(())) => None,
        Ok(Err(side)) => Some(side),
        Err(Over) => Some("idle_timeout"),
    };
    // Reset, or idle for too long: neither side must take that for a regular end.
    if ways.broken.is_some() {
        downstream.reset_on_close();
        upstream.reset_on_close();
    }
}

/// Both directions, and who is told at the end.
struct Ways<'a> {
    record: &'a mut Record,
    up: Way,
    down: Way,
    broken: Option<&'static str>,
}

impl Drop for Ways<'_> {
    fn drop(&mut self) {
        let Self { up, down, broken, .. } = self;
        let relayed = Relayed { sent: up.passed, received: down.passed, broken: *broken };
        self.record.relayed(&relayed);
    }
}

/// One direction.
struct Way {
    /// What was read and is not written yet.
    held: Bytes,
    /// Bytes that were written.
    passed: u64,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    Open,
    /// The reader's end was seen, and is not passed on yet.
    Ending,
    Ended,
}

impl Way {
    fn new(held: Bytes) -> Self {
        Self { held, passed: 0, state: State::Open }
    }

    /// Passes on what there is. Ready: this direction has ended. The error says, of the words for either side, that of
    /// the one which broke off.
    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        alarm: &Alarm,
        idle: Duration,
        [from_broke, to_broke]: [&'static str; 2],
    ) -> Poll<Result<(), &'static str>> {
        loop {
            while !self.held.is_empty() {
                let n = ready!(Pin::new(&mut *to).poll_write(cx, &self.held)).map_err(|_| to_broke)?;
                self.passed += n as u64;
                drop(self.held.split_to(n));
            }
            match self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(|_| to_broke)?;
                    self.state = State::Ended;
                    return Poll::Ready(Ok(()));
                }
                State::Open => {}
            }
            let ended = SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer)).map_err(|_| from_broke)?;
                let mut rest = buffer.filled();
                if rest.is_empty() {
                    return Poll::Ready(Ok(true));
                }
                alarm.set(idle);
                // Nearly always all of it fits; what does not is kept.
                while !rest.is_empty() {
                    match Pin::new(&mut *to).poll_write(cx, rest).map_err(|_| to_broke)? {
                        Poll::Ready(n) => {
                            self.passed += n as u64;
                            rest = &rest[n..];
                        }
                        Poll::Pending => {
                            self.held = Bytes::copy_from_slice(rest);
                            break;
                        }
                    }
                }
                Poll::Ready(Ok::<_, &str>(false))
            });
            if ready!(ended)? {
                self.state = State::Ending;
            }
        }
    }
}
