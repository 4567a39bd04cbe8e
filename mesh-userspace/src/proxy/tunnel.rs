//! Connections whose bytes are nobody's business: passed on as they come, both ways, until both ways have ended.

use super::{
    deadline::Alarm,
    exchange::Client,
    net::{NoConnection, connect},
    pick::{Asking, cell, hash_of, pick},
    reason::Reason,
    state::Connected,
    table::Service,
    worker::Worker,
};
use bytes::Bytes;
use mesh_common::breaker::Outcome;
use std::{
    cell::RefCell,
    future::poll_fn,
    io,
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

/// Passes on a connection that is no HTTP.
pub(super) async fn opaque(
    worker: &Rc<Worker>,
    client: &Client,
    service: &Arc<Service>,
    downstream: TcpStream,
    read: Bytes,
) {
    match open(worker, client, service).await {
        Ok((upstream, _connected)) => {
            relay(worker, downstream, upstream, read, Bytes::new(), service.http().idle_tcp).await;
        }
        Err(reason) => {
            service.state.rejected.count(reason);
            // As if nobody had listened.
            let _ = downstream.set_zero_linger();
        }
    }
}

/// Connects to an endpoint of a service, to another one if that fails.
///
/// # Errors
/// Why there is none.
pub(super) async fn open(
    worker: &Rc<Worker>,
    client: &Client,
    service: &Arc<Service>,
) -> Result<(TcpStream, Connected), Reason> {
    let mut tried = Vec::new();
    let mut last = None;
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
        let connected = connect(&worker.clock, &*client.sockets, service, endpoint).await;
        let outcome = match connected {
            Ok(_) => Outcome::Established,
            Err(NoConnection::TimedOut) => Outcome::Timeout,
            Err(NoConnection::Failed(_)) => Outcome::Failure,
            Err(NoConnection::Local(_) | NoConnection::TooManyWait) => Outcome::Nothing,
        };
        let cell = cell(service, endpoint);
        super::circuit::report(&cell, outcome, picked.probe, &service.limits, fastrand::u32(..));
        match connected {
            Ok(connected) => {
                super::circuit::report(&cell, Outcome::Alive, picked.probe, &service.limits, fastrand::u32(..));
                return Ok(connected);
            }
            Err(why) => last = Some(why.reason()),
        }
        tried.push(picked.index);
    }
    Err(last.unwrap_or(Reason::NoEndpoint))
}

/// Passes bytes on until both sides have said all, one of them breaks off, or nothing was said for `idle` (zero: ever).
/// What was read of either side already goes first.
pub(super) async fn relay(
    worker: &Worker,
    mut downstream: TcpStream,
    mut upstream: TcpStream,
    from_downstream: Bytes,
    from_upstream: Bytes,
    idle: Duration,
) {
    let alarm = worker.clock.alarm();
    let mut ways = [Way::new(from_downstream), Way::new(from_upstream)];
    let passing = async {
        alarm.set(idle);
        poll_fn(|cx| {
            let up = ways[0].pass(cx, &mut downstream, &mut upstream, &alarm, idle)?;
            let down = ways[1].pass(cx, &mut upstream, &mut downstream, &alarm, idle)?;
            if up.is_ready() && down.is_ready() { Poll::Ready(io::Result::Ok(())) } else { Poll::Pending }
        })
        .await
    };
    // Reset, or idle for too long: neither side must take that for a regular end.
    if !matches!(alarm.before(passing).await, Ok(Ok(()))) {
        let _ = downstream.set_zero_linger();
        let _ = upstream.set_zero_linger();
    }
}

/// One direction.
struct Way {
    /// What was read and is not written yet.
    held: Bytes,
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
        Self { held, state: State::Open }
    }

    /// Passes on what there is. Ready: this direction has ended.
    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        alarm: &Alarm,
        idle: Duration,
    ) -> Poll<io::Result<()>> {
        loop {
            while !self.held.is_empty() {
                let n = ready!(Pin::new(&mut *to).poll_write(cx, &self.held))?;
                drop(self.held.split_to(n));
            }
            match self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.state = State::Ended;
                    return Poll::Ready(Ok(()));
                }
                State::Open => {}
            }
            let ended = SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer))?;
                let mut rest = buffer.filled();
                if rest.is_empty() {
                    return Poll::Ready(Ok(true));
                }
                alarm.set(idle);
                // Nearly always all of it fits; what does not is kept.
                while !rest.is_empty() {
                    match Pin::new(&mut *to).poll_write(cx, rest)? {
                        Poll::Ready(n) => rest = &rest[n..],
                        Poll::Pending => {
                            self.held = Bytes::copy_from_slice(rest);
                            break;
                        }
                    }
                }
                Poll::Ready(io::Result::Ok(false))
            });
            if ready!(ended)? {
                self.state = State::Ending;
            }
        }
    }
}
