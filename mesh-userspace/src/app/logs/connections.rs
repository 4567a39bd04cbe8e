//! Connections as the kernel has them, as lines of the log: those that ended, and once in a while those that go on.

use super::{parts, wanted};
use crate::{
    app::{
        connections::{client, command, endpoint, original},
        daemon::{Daemon, State, now},
    },
    discovery::kubernetes::Pods,
    kernel::{CgroupPaths, Endings},
    model::is_probe,
    proxy,
    telemetry::entry::{Connection, Entry},
    text::is_harmless,
};
use mesh_common::{
    connection::{Record, Traffic, marks, stage, tcp},
    event::{ERROR_UNKNOWN, Ended, LOOK_EVERY_MS},
    reason::Failure,
};
use nix::poll::{PollFd, PollFlags, poll};
use std::{
    collections::HashMap,
    io,
    os::fd::AsFd,
    sync::{
        Arc,
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

/// Where the error of a failed connect is not known, one that ends within this time was refused: as the kernel counts it.
const FAST: Duration = Duration::from_secs(1);

/// Those who tell of connections.
pub(in crate::app) struct Followers {
    daemon: Arc<Daemon>,
    stop: Arc<AtomicBool>,
    threads: [JoinHandle<()>; 2],
}

/// Tells the log of connections that end, and of those that go on, each in a thread of its own: a look at all there are
/// takes its time.
///
/// # Errors
/// The system's, where there can be no thread.
pub(in crate::app) fn follow(daemon: &Arc<Daemon>, mut endings: Endings) -> io::Result<Followers> {
    let stop = Arc::new(AtomicBool::new(false));
    let (mut ended, mut open) = (Teller::new(daemon), Teller::new(daemon));
    let (stop_ended, stop_open) = (Arc::clone(&stop), Arc::clone(&stop));
    let follow_ended = move || {
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
            ended.daemon.untold.store(endings.untold(), Ordering::Relaxed);
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

fn since(then: u64, now: u64) -> Duration {
    Duration::from_nanos(now.saturating_sub(then))
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

/// What lines are made with, at one moment of both clocks.
struct Moment<'a> {
    state: &'a State,
    pods: &'a Pods,
    now: u64,
    time: SystemTime,
    /// Where the clock of the workers began.
    began: u64,
}

impl Teller {
    fn new(daemon: &Arc<Daemon>) -> Self {
        let (daemon, carried) = (Arc::clone(daemon), HashMap::new());
        Self { daemon, cgroups: CgroupPaths::new(), remembered: now(), carried }
    }

    fn tell_ended(&mut self, ended: &[Ended]) {
        let lines = self.lines(ended.iter().map(|ended| {
            let line = Told { open: false, until: ended.at, rtt_us: ended.rtt_us, reason: reason(ended) };
            (&ended.record, &ended.traffic, line)
        }));
        if !lines.is_empty() {
            self.daemon.logs.connections(lines);
        }
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
            let lines = self.lines(some.iter().map(|connection| {
                let live = &connection.live;
                (&live.record, &live.traffic, Told { open: true, until: now, rtt_us: live.rtt_us, reason: None })
            }));
            self.daemon.logs.connections(lines);
        }
    }

    fn lines<'a>(&mut self, told: impl ExactSizeIterator<Item = (&'a Record, &'a Traffic, Told)>) -> Vec<Entry> {
        if told.len() == 0 {
            return Vec::new();
        }
        if since(self.remembered, now()) > REMEMBERED {
            (self.cgroups, self.remembered) = (CgroupPaths::new(), now());
        }
        let daemon = Arc::clone(&self.daemon);
        let (state, pods) = (daemon.state(), daemon.pods.load());
        let (now, time) = (now(), SystemTime::now());
        let began = now.saturating_sub(u64::try_from(daemon.http.shared.now().as_nanos()).unwrap_or(u64::MAX));
        let moment = Moment { state: &state, pods: &pods, now, time, began };
        told.filter(|(record, ..)| !is_probe(original(record)))
            .filter_map(|(record, traffic, told)| moment.line(record, traffic, &told, &mut self.cgroups))
            .collect()
    }
}

/// What is told of a connection besides its record.
struct Told {
    open: bool,
    /// When it ended, or was looked at.
    until: u64,
    rtt_us: u32,
    reason: Option<&'static str>,
}

impl Moment<'_> {
    fn line(&self, record: &Record, traffic: &Traffic, told: &Told, cgroups: &mut CgroupPaths) -> Option<Entry> {
        let service = self.state.datapath.as_ref().and_then(|d| d.service_of_row(record.service, record.picked_at));
        let cgroup = cgroups.path(record.cgroup);
        let pod = cgroup.and_then(|path| self.pods.of_cgroup(path)).map(Box::from);
        let began = self.time.checked_sub(since(record.picked_at, self.now));
        let line = proxy::Line {
            time: began.unwrap_or(self.time),
            service: service.map(Arc::from),
            endpoint: Some(endpoint(record)),
            client: client(record)?,
            method: None,
            path: None,
            status: None,
            duration: since(record.picked_at, told.until),
            ended: since(self.began, told.until),
            sent_bytes: traffic.sent,
            received_bytes: traffic.received,
            attempts: record.attempt,
            trace_id: None,
            reason: told.reason,
        };
        let connection = Connection {
            open: told.open,
            pid: Some(record.pid).filter(|pid| *pid > 0),
            command: command(&record.command).map(|name| harmless(&name)),
            cgroup: cgroup.map(harmless),
            pod,
            original_destination: original(record),
            connect: (record.established_at > 0).then(|| since(record.opened_at, record.established_at)),
            rtt_us: Some(u64::from(told.rtt_us)).filter(|rtt| *rtt > 0),
            retransmits: traffic.retransmits,
        };
        Some(Entry { line, connection: Some(Box::new(connection)) })
    }
}

/// Any text without what could do something to a terminal.
fn harmless(text: &str) -> Box<str> {
    text.replace(|character| !is_harmless(character), "\u{fffd}").into()
}

/// How a connection ended; `None`: well. What came of a connect has the words of `mesh_tcp_connect_failures_total`.
fn reason(ended: &Ended) -> Option<&'static str> {
    let failure = Failure::from_errno(ended.error);
    if ended.record.stage != stage::ESTABLISHED {
        return Some(match failure {
            _ if ended.error == ERROR_UNKNOWN => match since(ended.record.picked_at, ended.at) < FAST {
                true => Failure::Refused.word(),
                false => "cancelled",
            },
            Some(failure) => failure.word(),
            None => "cancelled",
        });
    }
    match failure {
        Some(Failure::Reset) => Some("upstream_reset"),
        Some(failure) if ended.error != ERROR_UNKNOWN => Some(failure.word()),
        // From one of these states there is no way to the end but a reset, and it was not the peer's.
        _ if matches!(ended.state, tcp::ESTABLISHED | tcp::CLOSE_WAIT) && ended.error == 0 => Some("downstream_reset"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(stage: u32, state: u32, error: i32) -> Ended {
        let record = Record { stage, picked_at: 1, ..Record::default() };
        Ended { record, state, error, at: 2, ..Ended::default() }
    }

    #[test]
    fn a_connect_that_came_to_nothing_says_why() {
        let reason = |error| reason(&ended(stage::OPENING, tcp::SYN_SENT, error)).unwrap();
        assert_eq!([111, 110, 113, 104, 99].map(reason), ["refused", "timeout", "unreachable", "reset", "other"]);
        assert_eq!([0, ERROR_UNKNOWN].map(reason), ["cancelled", "refused"]);
        let slow = Ended { at: 2_000_000_000, ..ended(stage::OPENING, tcp::SYN_SENT, ERROR_UNKNOWN) };
        assert_eq!(super::reason(&slow), Some("cancelled"));
    }

    #[test]
    fn an_end_in_good_order_has_no_reason() {
        for state in [tcp::FIN_WAIT2, tcp::TIME_WAIT, tcp::LAST_ACK, tcp::CLOSING] {
            assert_eq!(reason(&ended(stage::ESTABLISHED, state, 0)), None);
            assert_eq!(reason(&ended(stage::ESTABLISHED, state, ERROR_UNKNOWN)), None);
        }
    }

    #[test]
    fn a_reset_says_whose_it_was() {
        let reason = |state, error| reason(&ended(stage::ESTABLISHED, state, error));
        assert_eq!(reason(tcp::ESTABLISHED, 104), Some("upstream_reset"));
        assert_eq!(reason(tcp::CLOSE_WAIT, 32), Some("upstream_reset"));
        assert_eq!(reason(tcp::ESTABLISHED, 0), Some("downstream_reset"));
        assert_eq!(reason(tcp::ESTABLISHED, 110), Some("timeout"));
        assert_eq!(reason(tcp::ESTABLISHED, ERROR_UNKNOWN), None, "nobody knows");
    }
}
