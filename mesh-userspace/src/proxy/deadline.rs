//! Deadlines without a timer each: one task a worker looks for those that are over.
//!
//! A timer a request costs a write and a wait more where it is the earliest one (`docs/performance.md`). Here a deadline
//! is a number in a cell; the worker's keeper looks at all of them when the earliest may be over, at most once a
//! [`TICK`], so one is noticed up to that much late, never early.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::pin,
    rc::{Rc, Weak},
    task::{Poll, Waker},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// How often deadlines are looked at, and so how late they may be noticed.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// The longest pause between two looks.
const PAUSE: u64 = 1000;

/// The clock of a worker, in milliseconds since its start; advanced by its keeper.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    /// All who wait; those who have gone are swept out as they are met.
    waiting: RefCell<Vec<Weak<Alarm>>>,
    /// When the keeper looks next.
    next: Cell<u64>,
    /// A deadline before that was set.
    sooner: Notify,
}

/// A deadline of somebody, who may set it anew as often as wanted.
#[derive(Debug)]
pub(super) struct Alarm {
    clock: Rc<Clock>,
    /// In the clock's milliseconds; [`NEVER`]: none.
    at: Cell<u64>,
    rang: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

const NEVER: u64 = u64::MAX;

/// It took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Over;

impl Clock {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            started: Instant::now(),
            waiting: RefCell::default(),
            next: Cell::new(0),
            sooner: Notify::new(),
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }

    /// Somebody with no deadline yet.
    pub(super) fn alarm(self: &Rc<Self>) -> Rc<Alarm> {
        let alarm = Rc::new(Alarm {
            clock: Rc::clone(self),
            at: Cell::new(NEVER),
            rang: Cell::new(false),
            waker: RefCell::new(None),
        });
        self.waiting.borrow_mut().push(Rc::downgrade(&alarm));
        alarm
    }

    /// Wakes whose deadline is over. How long there is nothing to do.
    pub(super) fn tick(&self) -> Duration {
        let now = self.now();
        let mut next = now + PAUSE;
        // Wakers may drop alarms, whose clock is then borrowed: they are called afterwards.
        let mut wakers = Vec::new();
        self.waiting.borrow_mut().retain(|waiting| {
            let Some(alarm) = waiting.upgrade() else { return false };
            if alarm.at.get() <= now {
                alarm.at.set(NEVER);
                alarm.rang.set(true);
                wakers.extend(alarm.waker.take());
            }
            next = next.min(alarm.at.get());
            true
        });
        self.next.set(next);
        wakers.into_iter().for_each(Waker::wake);
        Duration::from_millis(next - now).max(TICK)
    }

    /// Wakes everybody, so that they look at what has changed.
    pub(super) fn wake_all(&self) {
        let waiting: Vec<_> = self.waiting.borrow().iter().filter_map(Weak::upgrade).collect();
        waiting.iter().filter_map(|alarm| alarm.waker.take()).for_each(Waker::wake);
    }

    /// Ticks for ever.
    pub(super) async fn keep(self: Rc<Self>) {
        loop {
            let pause = self.tick();
            if tokio::time::timeout(pause, self.sooner.notified()).await.is_ok() {
                tokio::time::sleep(TICK).await;
            }
        }
    }
}

impl Alarm {
    /// Sets the deadline `after` from now; zero: none.
    pub(super) fn set(&self, after: Duration) {
        self.rang.set(false);
        let after = u64::try_from(after.as_millis()).unwrap_or(NEVER / 2);
        let at = if after == 0 { NEVER } else { self.clock.now().saturating_add(after) };
        self.at.set(at);
        if at < self.clock.next.get() {
            self.clock.next.set(at);
            self.clock.sooner.notify_one();
        }
    }

    /// There is no deadline any more.
    pub(super) fn clear(&self) {
        self.rang.set(false);
        self.at.set(NEVER);
    }

    /// Does `work` (large work is best passed pinned), unless the deadline, as it is set before or meanwhile, is over first.
    pub(super) async fn before<T>(&self, work: impl Future<Output = T>) -> Result<T, Over> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            // Work that is done is done, however late.
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            if self.rang.get() {
                return Poll::Ready(Err(Over));
            }
            let mut waker = self.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_takes_too_long_is_cut_off_and_other_work_is_not() {
        let clock = Clock::new();
        let alarm = clock.alarm();
        alarm.set(Duration::from_millis(1));
        assert_eq!(alarm.before(async { 7 }).await, Ok(7), "done at once");
        std::thread::sleep(Duration::from_millis(3));
        clock.tick();
        assert_eq!(alarm.before(std::future::pending::<()>()).await, Err(Over));
        alarm.set(Duration::ZERO);
        clock.tick();
        let stays = tokio::time::timeout(Duration::from_millis(5), alarm.before(std::future::pending::<()>()));
        assert!(stays.await.is_err(), "no deadline");
    }

    #[test]
    fn who_has_gone_is_not_kept() {
        let clock = Clock::new();
        drop(clock.alarm());
        clock.tick();
        assert!(clock.waiting.borrow().is_empty());
    }
}
