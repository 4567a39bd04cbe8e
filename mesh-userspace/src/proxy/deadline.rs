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
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::Notify;

/// How often deadlines are looked at, and so how late they may be noticed.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// The longest pause between two looks.
const PAUSE: u64 = 1000;

/// How long it is taken for known how far this clock is behind the time of day. What that drifts meanwhile, when it is set
/// right little by little, is less than a tenth of a millisecond.
const DAY: Duration = Duration::from_millis(100);

/// The clock of a worker. All workers' have the same beginning.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    turn: Cell<Turn>,
    /// The time of day when it began, and until when that is known.
    day: Cell<(SystemTime, Duration)>,
    /// All who wait; those who have gone are swept out as they are met.
    waiting: RefCell<Vec<Weak<Alarm>>>,
    /// When the keeper looks next.
    next: Cell<u64>,
    /// A deadline before that was set.
    sooner: Notify,
}

/// The turn of the task that is being polled. A request looks at the time about ten times, and each look costs as much as
/// parsing a header line: within a turn, which is short against all that is measured, it is read once.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// None is being taken by a task that said so: the time is read for each look.
    None,
    /// The time was not asked for yet.
    Began,
    At(Duration),
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
    /// A clock that shows the time since `started`.
    pub(super) fn new(started: Instant) -> Rc<Self> {
        Rc::new(Self {
            started,
            turn: Cell::new(Turn::None),
            day: Cell::new((SystemTime::UNIX_EPOCH, Duration::ZERO)),
            waiting: RefCell::default(),
            next: Cell::new(0),
            sooner: Notify::new(),
        })
    }

    /// The time.
    pub(super) fn now(&self) -> Duration {
        let turn = self.turn.get();
        if let Turn::At(now) = turn {
            return now;
        }
        let now = self.started.elapsed();
        if matches!(turn, Turn::Began) {
            self.turn.set(Turn::At(now));
        }
        now
    }

    /// What time of day it was at `then`, as the clock of the system has it now.
    pub(super) fn time_of_day(&self, then: Duration) -> SystemTime {
        let (mut began, until) = self.day.get();
        let now = self.now();
        if now >= until {
            began = SystemTime::now().checked_sub(now).unwrap_or(SystemTime::UNIX_EPOCH);
            self.day.set((began, now + DAY));
        }
        began + then
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.now().as_millis()).unwrap_or(NEVER - 1)
    }

    /// Does `work`, for which the time stands still while it is polled.
    pub(super) async fn by_turns<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            self.turn.set(Turn::Began);
            let polled = work.as_mut().poll(cx);
            self.turn.set(Turn::None);
            polled
        })
        .await
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
        let now = self.now_ms();
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
    /// The time on its clock.
    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Sets the deadline `after` from now; zero: none.
    pub(super) fn set(&self, after: Duration) {
        self.rang.set(false);
        let ms = u64::try_from(after.as_millis()).unwrap_or(NEVER / 2);
        // What is left of a deadline may be less than this clock shows, and is not none.
        let at = if after.is_zero() { NEVER } else { self.clock.now_ms().saturating_add(ms.max(1)) };
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

    /// Whether the deadline is over, and nobody has noticed yet.
    pub(super) fn has_rung(&self) -> bool {
        self.rang.get()
    }

    /// As [`Alarm::clear`]; and whoever waited for it does no more.
    pub(super) fn rest(&self) {
        self.clear();
        self.waker.take();
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
        let clock = Clock::new(Instant::now());
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
    fn a_moment_of_the_clock_has_its_time_of_day() {
        let clock = Clock::new(Instant::now());
        let before = SystemTime::now();
        let then = clock.now();
        let after = SystemTime::now();
        for _ in 0..2 {
            let time = clock.time_of_day(then);
            // Both clocks were read one after the other, on a machine that may be busy.
            assert!(before - DAY <= time && time <= after + DAY, "{before:?} {time:?} {after:?}");
        }
    }

    #[test]
    fn a_deadline_of_less_than_a_millisecond_is_one() {
        let clock = Clock::new(Instant::now());
        let alarm = clock.alarm();
        alarm.set(Duration::from_micros(300));
        std::thread::sleep(Duration::from_millis(3));
        clock.tick();
        assert!(alarm.has_rung());
    }

    #[tokio::test]
    async fn the_time_stands_still_within_a_turn_and_no_longer() {
        let clock = Clock::new(Instant::now());
        let pause = || std::thread::sleep(Duration::from_millis(2));
        let look = async {
            let first = clock.now();
            pause();
            assert_eq!(clock.now(), first);
            tokio::task::yield_now().await;
            assert!(clock.now() > first);
            clock.now()
        };
        let last = clock.by_turns(look).await;
        pause();
        assert!(clock.now() > last);
    }

    #[test]
    fn who_has_gone_is_not_kept() {
        let clock = Clock::new(Instant::now());
        drop(clock.alarm());
        clock.tick();
        assert!(clock.waiting.borrow().is_empty());
    }
}
