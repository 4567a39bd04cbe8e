//! One line of the log of requests and connections, and how it is written.

use crate::proxy;
use serde::{Serialize, Serializer, ser::SerializeMap};
use std::{
    fmt::{self, Display},
    io::Write,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

/// A request, or a connection.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What became of it, as the client saw it.
    pub line: proxy::Line,
    /// What is known of a connection that the kernel followed.
    pub connection: Option<Box<Connection>>,
}

/// A connection of a client's own to an endpoint.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Whether it goes on: this is told of it meanwhile.
    pub open: bool,
    /// The process that dialled, in the host's numbers.
    pub pid: Option<u32>,
    /// The process's name.
    pub command: Option<Box<str>>,
    /// The process's cgroup, from the root of the hierarchy.
    pub cgroup: Option<Box<str>>,
    /// Its pod, as NAMESPACE/NAME.
    pub pod: Option<Box<str>>,
    /// What was dialled.
    pub original_destination: SocketAddr,
    /// From the SYN to the established connection; `None`: it never was.
    pub connect: Option<Duration>,
    /// Smoothed round-trip time in microseconds.
    pub rtt_us: Option<u64>,
    /// Segments that the client sent again.
    pub retransmits: u64,
    /// How many connects were refused that this one line tells of; `None`: it was not refused.
    pub refusals: Option<u64>,
}

/// What a line tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request that is over.
    Request,
    /// A connection that ended.
    Connection,
    /// A connection that goes on.
    Open,
}

impl Kind {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Connection => "connection",
            Self::Open => "open",
        }
    }
}

impl From<proxy::Line> for Entry {
    fn from(line: proxy::Line) -> Self {
        Self { line, connection: None }
    }
}

impl Entry {
    /// What it tells of.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match &self.connection {
            Some(connection) if connection.open => Kind::Open,
            None if self.line.method.is_some() => Kind::Request,
            _ => Kind::Connection,
        }
    }

    /// Whose it is in levels of the log.
    pub(super) const fn target(&self) -> &'static str {
        if self.connection.is_some() { CONNECTION } else { REQUEST }
    }

    /// When it was over, or looked at: by the clock of its beginning, whatever that clock did meanwhile.
    #[must_use]
    pub fn ended(&self) -> SystemTime {
        self.line.time.checked_add(self.line.duration).unwrap_or(self.line.time)
    }

    /// Bytes that it holds outside of itself.
    #[must_use]
    pub fn held(&self) -> usize {
        let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        let method = self.line.method.as_ref().map_or(0, |method| method.as_str().len());
        let line = text(&self.line.path) + text(&self.line.trace_id) + method;
        let connection = self
            .connection
            .as_ref()
            .map_or(0, |c| size_of::<Connection>() + text(&c.command) + text(&c.cgroup) + text(&c.pod));
        line + connection
    }

    /// Adds it as a line of the daemon's log that is written at `now`.
    pub(super) fn write(&self, json: bool, now: &str, text: &mut Vec<u8>) {
        // Writing to memory does not fail, and everything in it is text or numbers.
        let _ = if json {
            serde_json::to_writer(&mut *text, &Logged { now, entry: self }).map_err(Into::into)
        } else {
            write!(text, "{now}  INFO {}:{}", self.target(), ForPeople(self))
        };
        text.push(b'\n');
    }

    fn fields<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        let proxy::Line { service, endpoint, client, method, path, status, duration, .. } = &self.line;
        map.serialize_entry("time", &Shown(humantime::format_rfc3339_millis(self.line.time)))?;
        map.serialize_entry("kind", self.kind().word())?;
        map.serialize_entry("service", &service.as_deref())?;
        map.serialize_entry("endpoint", endpoint)?;
        map.serialize_entry("client", client)?;
        map.serialize_entry("method", &method.as_ref().map(http::Method::as_str))?;
        map.serialize_entry("path", path)?;
        map.serialize_entry("status", &status.map(|status| status.as_u16()))?;
        map.serialize_entry("duration_ms", &milliseconds(*duration))?;
        map.serialize_entry("sent_bytes", &self.line.sent_bytes)?;
        map.serialize_entry("received_bytes", &self.line.received_bytes)?;
        map.serialize_entry("attempts", &self.line.attempts)?;
        map.serialize_entry("trace_id", &self.line.trace_id)?;
        map.serialize_entry("reason", &self.line.reason)?;
        map.serialize_entry("connection", &self.connection)
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.fields(&mut map)?;
        map.end()
    }
}

impl Serialize for Connection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("pid", &self.pid)?;
        map.serialize_entry("command", &self.command)?;
        map.serialize_entry("cgroup", &self.cgroup)?;
        map.serialize_entry("pod", &self.pod)?;
        map.serialize_entry("original_destination", &self.original_destination)?;
        map.serialize_entry("connect_ms", &self.connect.map(milliseconds))?;
        map.serialize_entry("rtt_us", &self.rtt_us)?;
        map.serialize_entry("retransmits", &self.retransmits)?;
        map.serialize_entry("refusals", &self.refusals)?;
        map.end()
    }
}

/// It among the daemon's messages, in JSON.
struct Logged<'a> {
    now: &'a str,
    entry: &'a Entry,
}

impl Serialize for Logged<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("timestamp", self.now)?;
        map.serialize_entry("level", "INFO")?;
        map.serialize_entry("target", self.entry.target())?;
        self.entry.fields(&mut map)?;
        map.end()
    }
}

/// What the proxy tells of, as a module in levels of the log.
pub(super) const REQUEST: &str = "request";
/// The same of what the kernel tells of.
pub(super) const CONNECTION: &str = "connection";

/// A text that is written as it is shown.
struct Shown<T>(T);

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// It for people: what is known of it. Texts from outside are in quotes, with codes in the place of what could move a
/// cursor.
struct ForPeople<'a>(&'a Entry);

impl Display for ForPeople<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { line, connection } = self.0;
        let milliseconds = |time: Duration| format!("{:.3}", milliseconds(time));
        let mut field = |name: &str, value: Option<&dyn Display>| match value {
            Some(value) => write!(f, " {name}={value}"),
            None => Ok(()),
        };
        let quoted = |text: &str| format!("{text:?}");
        field("kind", connection.as_ref().map(|_| self.0.kind().word()).as_ref().map(|v| v as _))?;
        field("service", line.service.as_deref().map(quoted).as_ref().map(|v| v as _))?;
        field("endpoint", line.endpoint.as_ref().map(|v| v as _))?;
        field("client", line.client.as_ref().map(|v| v as _))?;
        field("method", line.method.as_ref().map(|v| v as _))?;
        field("path", line.path.as_deref().map(quoted).as_ref().map(|v| v as _))?;
        field("status", line.status.map(|status| status.as_u16()).as_ref().map(|v| v as _))?;
        field("duration_ms", Some(&milliseconds(line.duration)))?;
        field("sent_bytes", Some(&line.sent_bytes))?;
        field("received_bytes", Some(&line.received_bytes))?;
        field("attempts", Some(&line.attempts))?;
        field("trace_id", line.trace_id.as_ref().map(|v| v as _))?;
        field("reason", line.reason.as_ref().map(|v| v as _))?;
        let Some(connection) = connection else { return Ok(()) };
        field("pid", connection.pid.as_ref().map(|v| v as _))?;
        field("command", connection.command.as_deref().map(quoted).as_ref().map(|v| v as _))?;
        field("cgroup", connection.cgroup.as_deref().map(quoted).as_ref().map(|v| v as _))?;
        field("pod", connection.pod.as_deref().map(quoted).as_ref().map(|v| v as _))?;
        field("dialled", Some(&connection.original_destination))?;
        field("connect_ms", connection.connect.map(milliseconds).as_ref().map(|v| v as _))?;
        field("rtt_us", connection.rtt_us.as_ref().map(|v| v as _))?;
        field("retransmits", Some(&connection.retransmits))?;
        field("refusals", connection.refusals.as_ref().map(|v| v as _))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::time::UNIX_EPOCH;

    /// A request that ended well.
    pub(crate) fn request(path: &str) -> Entry {
        Entry::from(proxy::Line {
            time: UNIX_EPOCH + Duration::from_micros(1_769_860_800_012_345),
            service: Some("web".into()),
            endpoint: Some("10.0.0.1:8080".parse().unwrap()),
            client: Some("[fd00::1]:4000".parse().unwrap()),
            method: Some(http::Method::GET),
            path: Some(path.into()),
            status: Some(http::StatusCode::OK),
            duration: Duration::from_micros(1500),
            ended: Duration::ZERO,
            sent_bytes: 1,
            received_bytes: 2,
            attempts: 1,
            trace_id: Some("0af7651916cd43dd8448eb211c80319c".into()),
            reason: None,
        })
    }

    /// A connection that a reset ended.
    pub(crate) fn connection() -> Entry {
        let connection = Connection {
            open: false,
            pid: Some(7),
            command: Some("c\u{1b}[2J".into()),
            cgroup: Some("/a".into()),
            pod: None,
            original_destination: "10.96.0.10:80".parse().unwrap(),
            connect: Some(Duration::from_micros(250)),
            rtt_us: Some(90),
            retransmits: 3,
            refusals: None,
        };
        let line = proxy::Line {
            method: None,
            path: None,
            status: None,
            trace_id: None,
            reason: Some("upstream_reset"),
            ..request("").line
        };
        Entry { line, connection: Some(Box::new(connection)) }
    }

    fn written(entry: &Entry, json: bool) -> String {
        let mut text = Vec::new();
        entry.write(json, "2026-01-31T12:00:00.020000Z", &mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_request_is_written_with_all_fields_and_null_where_there_is_nothing() {
        let text = written(&request("/a?b=\"\u{1b}\n"), true);
        assert_eq!(text.matches('\n').count(), 1, "one line: {text}");
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            json!({
                "timestamp": "2026-01-31T12:00:00.020000Z", "level": "INFO", "target": "request",
                "time": "2026-01-31T12:00:00.012Z", "kind": "request", "service": "web", "endpoint": "10.0.0.1:8080",
                "client": "[fd00::1]:4000", "method": "GET", "path": "/a?b=\"\u{1b}\n", "status": 200, "duration_ms": 1.5,
                "sent_bytes": 1, "received_bytes": 2, "attempts": 1, "trace_id": "0af7651916cd43dd8448eb211c80319c",
                "reason": null, "connection": null,
            })
        );
    }

    #[test]
    fn a_connection_says_whose_it_was() {
        let value = serde_json::to_value(connection()).unwrap();
        assert_eq!(
            (&value["kind"], &value["method"], &value["status"]),
            (&json!("connection"), &json!(null), &json!(null))
        );
        assert_eq!(
            value["connection"],
            json!({
                "pid": 7, "command": "c\u{1b}[2J", "cgroup": "/a", "pod": null, "original_destination": "10.96.0.10:80",
                "connect_ms": 0.25, "rtt_us": 90, "retransmits": 3, "refusals": null,
            })
        );
    }

    #[test]
    fn for_people_nothing_from_outside_can_end_a_line_or_move_the_cursor() {
        assert_eq!(
            written(&request("/\u{1b}[2J\nx"), false),
            "2026-01-31T12:00:00.020000Z  INFO request: service=\"web\" endpoint=10.0.0.1:8080 client=[fd00::1]:4000 \
             method=GET path=\"/\\u{1b}[2J\\nx\" status=200 duration_ms=1.500 sent_bytes=1 received_bytes=2 attempts=1 \
             trace_id=0af7651916cd43dd8448eb211c80319c\n"
        );
        let text = written(&connection(), false);
        assert!(
            text.contains(" INFO connection: kind=connection ") && text.contains(r#"command="c\u{1b}[2J""#),
            "{text}"
        );
    }

    #[test]
    fn a_connection_that_outlived_a_change_of_the_clock_ended_after_it_began() {
        let mut entry = request("/");
        entry.line.time = UNIX_EPOCH;
        entry.line.duration = Duration::MAX;
        assert_eq!(entry.ended(), UNIX_EPOCH, "no panic");
    }
}
