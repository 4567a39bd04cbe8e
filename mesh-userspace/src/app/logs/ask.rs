//! What is shown of the log: which lines are wanted, once or as they come.

use crate::{
    api::{
        BoxFuture, DEFAULT_LIMIT, Event, EventSource, LogLine, LoggedConnection, Logs as Wanted, Read, Refusal, Time,
    },
    app::daemon::Daemon,
    telemetry::{
        entry::{Connection, Entry, milliseconds},
        logs::Logs,
    },
};
use std::{collections::VecDeque, sync::Arc, time::SystemTime};
use tokio::sync::watch;

/// Workers tell what ended at about the same time in any order: of so many lines together.
const OUT_OF_ORDER: usize = 256;

/// So many lines are looked at before others get their turn.
const PAGE: usize = 256;

/// Whether a line is wanted; `since` is the time that is meant.
fn is_wanted(entry: &Entry, wanted: &Wanted, since: Option<SystemTime>) -> bool {
    let line = &entry.line;
    let Wanted { service, endpoint, status, method, path, duration, trace, since: _, limit: _ } = wanted;
    service.as_ref().is_none_or(|name| line.service.as_deref() == Some(name.as_str()))
        && endpoint.is_none_or(|endpoint| line.endpoint == Some(endpoint))
        && status.as_ref().is_none_or(|statuses| line.status.is_some_and(|status| statuses.contain(status.as_u16())))
        && method.as_ref().is_none_or(|methods| line.method.as_ref().is_some_and(|m| methods.contain(m.as_str())))
        && path.as_ref().is_none_or(|pattern| line.path.as_ref().is_some_and(|path| pattern.matches(path)))
        && duration.is_none_or(|bound| bound.holds(line.duration))
        && trace.as_ref().is_none_or(|start| line.trace_id.is_some_and(|id| start.matches(&id.to_string())))
        && since.is_none_or(|since| entry.ended() >= since)
}

fn since(wanted: &Wanted) -> Option<SystemTime> {
    wanted.since.map(|since| since.time(Time::now()).system_time())
}

/// A line as the contract has it.
fn told(entry: &Entry) -> LogLine {
    let line = &entry.line;
    let connection = |c: &Connection| LoggedConnection {
        pid: c.pid,
        command: c.command.as_deref().map(str::to_owned),
        cgroup: c.cgroup.as_deref().map(str::to_owned),
        pod: c.pod.as_deref().map(str::to_owned),
        original_destination: c.original_destination,
        connect_ms: c.connect.map(milliseconds),
        rtt_us: c.rtt_us,
        retransmits: c.retransmits,
        refusals: c.refusals,
    };
    LogLine {
        time: Time::from(line.time),
        kind: entry.kind().word().to_owned(),
        service: line.service.as_deref().map(str::to_owned),
        endpoint: line.endpoint,
        client: line.client,
        method: line.method.as_ref().map(|method| method.as_str().to_owned()),
        path: line.path.as_deref().map(str::to_owned),
        status: line.status.map(|status| status.as_u16()),
        duration_ms: milliseconds(line.duration),
        sent_bytes: line.sent_bytes,
        received_bytes: line.received_bytes,
        attempts: line.attempts,
        trace_id: line.trace_id.map(|id| id.to_string()),
        reason: line.reason.map(str::to_owned),
        connection: entry.connection.as_deref().map(connection),
    }
}

impl Daemon {
    /// The lines that are wanted, the newest last.
    pub(in crate::app) fn logs(&self, wanted: &Wanted) -> Result<Vec<LogLine>, Refusal> {
        let since = since(wanted);
        let limit = wanted.limit.unwrap_or(DEFAULT_LIMIT) as usize;
        let sought = limit.saturating_add(OUT_OF_ORDER);
        let mut lines = self.logs.ring.newest(sought, |entry| is_wanted(entry, wanted, since));
        if lines.is_empty() {
            self.is_known(wanted)?;
        }
        lines.sort_by_key(|(number, entry)| (entry.line.ended, *number));
        let first = lines.len().saturating_sub(limit);
        Ok(lines[first..].iter().map(|(_, entry)| told(entry)).collect())
    }

    /// The lines that are wanted, and those that come.
    pub(in crate::app) fn follow_logs(&self, wanted: Wanted, after: Option<u64>) -> Result<Follower, Refusal> {
        self.is_known(&wanted)?;
        let logs = Arc::clone(&self.logs);
        let changes = logs.ring.changes();
        let first = self.first_line;
        let mut follower = Follower { logs, changes, wanted, first, next: 0, since: None, waiting: VecDeque::new() };
        follower.since = since(&follower.wanted);
        follower.begin(after);
        Ok(follower)
    }

    /// Whether there is, or was, what lines are asked for of.
    fn is_known(&self, wanted: &Wanted) -> Result<(), Refusal> {
        let Some(name) = &wanted.service else { return Ok(()) };
        if self.state().snapshot.service(name).is_some() {
            return Ok(());
        }
        let of_service = |entry: &Entry| entry.line.service.as_deref() == Some(name.as_str());
        match self.logs.ring.newest(1, of_service).is_empty() {
            true => Err(Refusal::not_found(format!("no service is named {name:?}; `mesh services` lists them"))),
            false => Ok(()),
        }
    }
}

/// Lines as they come.
pub(in crate::app) struct Follower {
    logs: Arc<Logs>,
    changes: watch::Receiver<u64>,
    wanted: Wanted,
    since: Option<SystemTime>,
    /// The id of the line with the number 0.
    first: u64,
    /// The number of the next line to be looked at.
    next: u64,
    /// What was found and is not told yet.
    waiting: VecDeque<Event>,
}

impl Follower {
    /// Goes on after the line `after`; without it, or where that was another daemon's, with the newest of what is kept.
    fn begin(&mut self, after: Option<u64>) {
        if let Some(number) = after.and_then(|id| id.checked_sub(self.first)) {
            self.next = number + 1;
            return;
        }
        let limit = self.wanted.limit.unwrap_or(DEFAULT_LIMIT) as usize;
        self.next = self.logs.ring.next();
        let kept = self.logs.ring.newest(limit, |entry| is_wanted(entry, &self.wanted, self.since));
        for (number, entry) in kept.iter().rev() {
            self.tell(*number, entry);
            self.next = self.next.max(number + 1);
        }
    }

    fn tell(&mut self, number: u64, entry: &Entry) {
        // Texts and numbers can always be written.
        let data = entry.json().into();
        self.waiting.push_back(Event { id: self.first + number, kind: "line", data });
    }

    /// Looks at some of what came.
    fn look(&mut self) {
        let page = self.logs.ring.page(self.next, PAGE);
        if page.missed > 0 {
            let data = serde_json::json!({ "lines": page.missed }).to_string().into();
            // What comes next has not been told yet.
            let id = (self.first + page.next - page.items.len() as u64).saturating_sub(1);
            self.waiting.push_back(Event { id, kind: "missed", data });
        }
        let start = page.next - page.items.len() as u64;
        for (number, entry) in (start..).zip(&page.items) {
            if is_wanted(entry, &self.wanted, self.since) {
                self.tell(number, entry);
            }
        }
        self.next = page.next;
    }
}

impl EventSource for Follower {
    fn next(&mut self) -> BoxFuture<'_, Read> {
        Box::pin(async {
            loop {
                if let Some(event) = self.waiting.pop_front() {
                    return Read::Event(event);
                }
                let before = self.next;
                self.changes.borrow_and_update();
                self.look();
                if self.next > before {
                    // A page without anything that is wanted: others first.
                    tokio::task::yield_now().await;
                } else if self.changes.changed().await.is_err() {
                    return Read::Ended;
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{
        entry::tests::{connection, request},
        logs::Keeping,
        ring::Bounds,
    };
    use std::time::{Duration, UNIX_EPOCH};

    fn wanted(set: impl FnOnce(&mut Wanted)) -> Wanted {
        let mut wanted = Wanted::default();
        set(&mut wanted);
        wanted
    }

    #[test]
    fn every_filter_lets_through_what_fits_and_nothing_else() {
        let (request, connection) = (request("/api/x?y"), connection());
        let both = |set: &dyn Fn(&mut Wanted)| {
            let wanted = wanted(set);
            (is_wanted(&request, &wanted, None), is_wanted(&connection, &wanted, None))
        };
        assert_eq!(both(&|_| ()), (true, true));
        assert_eq!(both(&|w| w.service = Some("web".to_owned())), (true, true));
        assert_eq!(both(&|w| w.service = Some("we".to_owned())), (false, false));
        assert_eq!(both(&|w| w.endpoint = "10.0.0.1:8080".parse().ok()), (true, true));
        assert_eq!(both(&|w| w.endpoint = "10.0.0.1:8081".parse().ok()), (false, false));
        assert_eq!(both(&|w| w.status = "2xx".parse().ok()), (true, false));
        assert_eq!(both(&|w| w.status = "5xx".parse().ok()), (false, false));
        assert_eq!(both(&|w| w.method = "get".parse().ok()), (true, false));
        assert_eq!(both(&|w| w.path = "/api".parse().ok()), (true, false));
        assert_eq!(both(&|w| w.path = "/v1".parse().ok()), (false, false));
        assert_eq!(both(&|w| w.duration = ">1ms".parse().ok()), (true, true));
        assert_eq!(both(&|w| w.duration = "<1ms".parse().ok()), (false, false));
        assert_eq!(both(&|w| w.trace = "0af7".parse().ok()), (true, false));
        assert_eq!(both(&|w| (w.status, w.method) = ("2xx".parse().ok(), "PUT".parse().ok())), (false, false));
    }

    #[test]
    fn since_is_by_the_end_of_a_line_whatever_the_clock_did() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let mut entry = request("/");
        (entry.line.time, entry.line.duration) = (at(1000), Duration::from_secs(60));
        let all = Wanted::default();
        assert!(is_wanted(&entry, &all, Some(at(1060))) && !is_wanted(&entry, &all, Some(at(1061))));
        // The clock was set back by a day: lines of before are of the future, and shown.
        (entry.line.time, entry.line.duration) = (at(86_400 + 1000), Duration::ZERO);
        assert!(is_wanted(&entry, &all, Some(at(1000))));
        // It was set forward: what was just before is long ago.
        entry.line.time = at(1000);
        assert!(!is_wanted(&entry, &all, Some(at(86_400))));
    }

    #[test]
    fn a_line_is_the_same_in_an_answer_and_in_an_event() {
        let mut refused = connection();
        refused.line.client = None;
        refused.connection.as_mut().unwrap().refusals = Some(17);
        for entry in [request("/a?b"), connection(), refused] {
            assert_eq!(
                serde_json::to_value(told(&entry)).unwrap(),
                serde_json::from_str::<serde_json::Value>(&entry.json()).unwrap()
            );
        }
    }

    fn follower(logs: &Arc<Logs>, wanted: Wanted, after: Option<u64>) -> Follower {
        let (logs, changes) = (Arc::clone(logs), logs.ring.changes());
        let mut follower =
            Follower { logs, changes, wanted, since: None, first: 1000, next: 0, waiting: VecDeque::new() };
        follower.begin(after);
        follower
    }

    /// All that can be read without waiting: ids, or what was missed.
    async fn read(follower: &mut Follower) -> Vec<(u64, &'static str)> {
        let mut events = Vec::new();
        loop {
            tokio::select! {
                biased;
                read = follower.next() => match read {
                    Read::Event(event) => events.push((event.id, event.kind)),
                    other => panic!("{other:?}"),
                },
                () = tokio::time::sleep(Duration::from_millis(20)) => return events,
            }
        }
    }

    #[tokio::test]
    async fn whoever_follows_gets_the_newest_first_and_then_what_comes_and_fits() {
        let bounds = Bounds { count: 4, bytes: 1 << 20 };
        let logs = Logs::start(Keeping { bounds, stderr: false }, None).unwrap();
        let push = |paths: &[&str]| paths.iter().for_each(|path| logs.ring.push(request(path), 0));
        push(&["/a1", "/b", "/a2", "/a3"]);
        let mut all = follower(&logs, wanted(|w| (w.path, w.limit) = ("/a".parse().ok(), Some(2))), None);
        assert_eq!(read(&mut all).await, [(1002, "line"), (1003, "line")]);
        push(&["/b", "/a4"]);
        assert_eq!(read(&mut all).await, [(1005, "line")]);
        // It comes again, and goes on where it was.
        let mut again = follower(&logs, Wanted::default(), Some(1003));
        assert_eq!(read(&mut again).await, [(1004, "line"), (1005, "line")]);
        // It was away for so long that some are gone.
        push(&["/1", "/2", "/3", "/4"]);
        assert_eq!(read(&mut again).await[0], (1006, "line"));
        let mut late = follower(&logs, Wanted::default(), Some(1001));
        assert_eq!(
            read(&mut late).await,
            [(1005, "missed"), (1006, "line"), (1007, "line"), (1008, "line"), (1009, "line")]
        );
        // Of a daemon before this one.
        let mut old = follower(&logs, Wanted::default(), Some(10));
        assert_eq!(read(&mut old).await.len(), 4);
        // Of one that never was.
        let mut strange = follower(&logs, Wanted::default(), Some(u64::MAX));
        assert_eq!(read(&mut strange).await, []);
    }
}
