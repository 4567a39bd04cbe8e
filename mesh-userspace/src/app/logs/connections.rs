//! Connections as the kernel has them are told to the log: those that ended, those that were refused, and once in a while
//! those that go on.

use super::{
    lines::{Moment, Told, reason, since},
    parts, wanted,
};
use crate::{
    app::daemon::{Daemon, now},
    kernel::{CgroupPaths, Endings},
    telemetry::entry::Entry,
};
use mesh_common::{
    connection::{Traffic, marks},
    event::{Ended, LOOK_EVERY_MS, LOOK_FOR_REFUSED_MS, Refused, RefusedKey},
};
use nix::poll::{PollFd, PollFlags, poll};
use std::{
    collections::HashMap,
    io,
    os::fd::AsFd,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

/// So many are told at once.
const TOGETHER: usize = 512;

/// How often it is looked whether it is time to look.
const LOOK_UP: Duration = Duration::from_millis(500);

/// For how long paths of cgroups are remembered.
const REMEMBERED: Duration = Duration::from_secs(60);

/// How often it is looked what was refused.
const LOOK_FOR_REFUSED: Duration = Duration::from_millis(LOOK_FOR_REFUSED_MS as u64);

/// Those who tell of connections.
pub(in crate::app) struct Followers {
    daemon: Arc<Daemon>,
    stop: Arc<AtomicBool>,
    threads: [JoinHandle<()>; 2],
}

/// Tells the log of connections that end or are refused, and of those that go on, each in a thread of its own: a look at
/// all there are takes its time.
///
/// # Errors
/// The system's, where there can be no thread.
pub(in crate::app) fn follow(daemon: &Arc<Daemon>, mut endings: Endings) -> io::Result<Followers> {
    let stop = Arc::new(AtomicBool::new(false));
    let (mut ended, mut open) = (Teller::new(daemon), Teller::new(daemon));
    let (stop_ended, stop_open) = (Arc::clone(&stop), Arc::clone(&stop));
    let follow_ended = move || {
        let mut looked = now();
        loop {
            let last = stop_ended.load(Ordering::Acquire);
            let mut ready = [PollFd::new(endings.as_fd(), PollFlags::POLLIN)];
            // They are mostly taken because it is time to look, and not because somebody said so.
            let _ = poll(&mut ready, if last { 0 } else { LOOK_EVERY_MS });
            loop {
                let some: Vec<Ended> = std::iter::from_fn(|| endings.take()).take(TOGETHER).collect();
                ended.tell_ended(&some);
                if some.len() < TOGETHER {
                    break;
                }
            }
            if last || since(looked, now()) >= LOOK_FOR_REFUSED {
                looked = now();
                ended.tell_refused(&endings.take_refused());
            }
            *ended.daemon.untold.lock().unwrap_or_else(PoisonError::into_inner) = endings.untold();
            if last {
                return;
            }
        }
    };
    let follow_open = move || {
        let mut looked = now();
        while !stop_open.load(Ordering::Acquire) {
            thread::park_timeout(LOOK_UP);
            let log = open.daemon.state().config.telemetry.access_log.clone();
            let interval = log.open_interval.get();
            if interval.is_zero() || wanted(&log) == 0 || since(looked, now()) < interval {
                continue;
            }
            looked = now();
            open.tell_open(parts(wanted(&log)), interval);
        }
    };
    let threads = [
        thread::Builder::new().name("endings".to_owned()).spawn(follow_ended)?,
        thread::Builder::new().name("open".to_owned()).spawn(follow_open)?,
    ];
    Ok(Followers { daemon: Arc::clone(daemon), stop, threads })
}

impl Followers {
    /// Tells what is still to be told, and ends. `for_good`: nobody goes on in the place of this daemon.
    pub(in crate::app) fn stop(self, for_good: bool) {
        if let Some(tables) = self.daemon.tables().filter(|_| for_good) {
            // Nobody would hear of them.
            tables.set_logged(0);
        }
        self.stop.store(true, Ordering::Release);
        for thread in self.threads {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// Makes lines of what the kernel tells.
struct Teller {
    daemon: Arc<Daemon>,
    cgroups: CgroupPaths,
    /// Since when paths are remembered.
    remembered: u64,
    /// What connections that go on had carried when they were told of last.
    carried: HashMap<(u64, u64), Traffic>,
}

impl Teller {
    fn new(daemon: &Arc<Daemon>) -> Self {
        let (daemon, carried) = (Arc::clone(daemon), HashMap::new());
        Self { daemon, cgroups: CgroupPaths::new(), remembered: now(), carried }
    }

    fn tell_ended(&mut self, ended: &[Ended]) {
        self.tell(ended, |moment, ended, cgroups| {
            let told = Told { open: false, until: ended.at, rtt_us: ended.rtt_us, reason: reason(ended) };
            moment.line(&ended.record, &ended.traffic, &told, cgroups)
        });
    }

    fn tell_refused(&mut self, refused: &[(RefusedKey, Refused)]) {
        self.tell(refused, |moment, (key, row), cgroups| moment.refused(key, row, cgroups));
    }

    /// Tells of connections that are as old as `interval` and carried something since they were told of last.
    fn tell_open(&mut self, rate: u32, interval: Duration) {
        let (now, mut seen) = (now(), Vec::new());
        let looked = self.daemon.look(&mut |connection| {
            let record = &connection.live.record;
            let is_old = since(record.picked_at, now) >= interval;
            if is_old && record.marks & marks::PROXIED == 0 && record.is_logged(rate) {
                seen.push(connection);
            }
        });
        if let Err(why) = looked {
            tracing::debug!("not all open connections are logged: {why}");
        }
        let mut carried = HashMap::with_capacity(seen.len());
        seen.retain(|connection| {
            let key = (
                connection.live.record.picked_at,
                u64::from(connection.live.record.local_port) << 32 ^ connection.namespace,
            );
            let before = carried.insert(key, connection.live.traffic);
            // One that the kernel showed twice is told of once.
            before.is_none() && self.carried.get(&key) != Some(&connection.live.traffic)
        });
        self.carried = carried;
        for some in seen.chunks(TOGETHER) {
            self.tell(some, |moment, connection, cgroups| {
                let live = &connection.live;
                let told = Told { open: true, until: now, rtt_us: live.rtt_us, reason: None };
                moment.line(&live.record, &live.traffic, &told, cgroups)
            });
        }
    }

    /// Tells the log what `line` makes of each of them.
    fn tell<T>(&mut self, told: &[T], line: impl Fn(&Moment<'_>, &T, &mut CgroupPaths) -> Option<Entry>) {
        if told.is_empty() {
            return;
        }
        if since(self.remembered, now()) > REMEMBERED {
            (self.cgroups, self.remembered) = (CgroupPaths::new(), now());
        }
        let daemon = Arc::clone(&self.daemon);
        let (state, pods) = (daemon.state(), daemon.pods.load());
        let (now, time) = (now(), SystemTime::now());
        let began = now.saturating_sub(u64::try_from(daemon.http.shared.now().as_nanos()).unwrap_or(u64::MAX));
        let moment = Moment { datapath: state.datapath.as_ref(), pods: &pods, now, time, began };
        let lines: Vec<_> = told.iter().filter_map(|told| line(&moment, told, &mut self.cgroups)).collect();
        if !lines.is_empty() {
            daemon.logs.connections(lines);
        }
    }
}
