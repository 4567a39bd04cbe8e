//! How a line of the log of requests and connections is written: to stderr, and to those who follow it.
//!
//! JSON is put together by hand: a serializer that is handed fields one by one looks into each name for what it would have to
//! escape, and a busy proxy writes a million names a second. What came from outside goes through `serde_json` all the same.

use super::entry::{self, Connection, Entry};
use crate::proxy;
use std::{
    fmt::{self, Display},
    io::Write,
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

/// Writes lines, all at the same time.
pub(super) struct Writer {
    json: bool,
    /// When that is.
    now: String,
    second: Second,
}

/// The last second in which something began, since 1970, and its text: nearly all that come together began in the same.
struct Second(u64, String);

impl Entry {
    /// It as an object of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        let mut text = vec![b'{'];
        fields(self, &mut Second::default(), &mut text);
        text.push(b'}');
        // Every text in it was one.
        String::from_utf8(text).unwrap_or_default()
    }
}

impl Writer {
    /// It is `now`; `json`: as JSON, else for people.
    pub(super) fn new(json: bool, now: SystemTime) -> Self {
        Self { json, now: humantime::format_rfc3339_micros(now).to_string(), second: Second::default() }
    }

    /// Adds a line to `text`.
    pub(super) fn write(&mut self, entry: &Entry, text: &mut Vec<u8>) {
        if self.json {
            self.write_json(entry, text);
        } else {
            // Writing to memory does not fail.
            let _ = writeln!(text, "{}  INFO {}:{}", self.now, entry.target(), ForPeople(entry));
        }
    }

    fn write_json(&mut self, entry: &Entry, text: &mut Vec<u8>) {
        put(text, r#"{"timestamp":""#);
        put(text, &self.now);
        put(text, r#"","level":"INFO","target":""#);
        put(text, entry.target());
        put(text, r#"","#);
        fields(entry, &mut self.second, text);
        put(text, "}\n");
    }
}

impl Default for Second {
    fn default() -> Self {
        Self(u64::MAX, String::new())
    }
}

impl Second {
    /// A time to the millisecond. What is before 1970 is 1970.
    fn time(&mut self, time: SystemTime, text: &mut Vec<u8>) {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if self.0 != since.as_secs() {
            let whole = SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs());
            *self = Self(since.as_secs(), humantime::format_rfc3339_seconds(whole).to_string());
        }
        put(text, self.1.trim_end_matches('Z'));
        let thousandths = since.subsec_millis();
        text.push(b'.');
        text.extend([thousandths / 100, thousandths / 10 % 10, thousandths % 10].map(|digit| b'0' + digit as u8));
        text.push(b'Z');
    }
}

/// The fields of an object.
fn fields(entry: &Entry, second: &mut Second, text: &mut Vec<u8>) {
    let proxy::Line { service, endpoint, client, method, path, status, duration, .. } = &entry.line;
    put(text, r#""time":""#);
    second.time(entry.line.time, text);
    put(text, r#"","kind":""#);
    put(text, entry.kind().word());
    put(text, r#"","service":"#);
    or_null(service.as_deref(), text, string);
    put(text, r#","endpoint":"#);
    or_null(*endpoint, text, address);
    put(text, r#","client":"#);
    or_null(*client, text, address);
    put(text, r#","method":"#);
    or_null(method.as_ref().map(http::Method::as_str), text, string);
    put(text, r#","path":"#);
    or_null(path.as_deref(), text, string);
    put(text, r#","status":"#);
    or_null(status.map(|status| status.as_u16()), text, number);
    put(text, r#","duration_ms":"#);
    milliseconds(*duration, text);
    put(text, r#","sent_bytes":"#);
    number(entry.line.sent_bytes, text);
    put(text, r#","received_bytes":"#);
    number(entry.line.received_bytes, text);
    put(text, r#","attempts":"#);
    number(entry.line.attempts, text);
    put(text, r#","trace_id":"#);
    or_null(entry.line.trace_id, text, |id, text| {
        text.push(b'"');
        text.extend_from_slice(&id.digits());
        text.push(b'"');
    });
    put(text, r#","reason":"#);
    or_null(entry.line.reason, text, string);
    put(text, r#","connection":"#);
    or_null(entry.connection.as_deref(), text, connection);
}

fn put(text: &mut Vec<u8>, what: &str) {
    text.extend_from_slice(what.as_bytes());
}

fn or_null<T>(value: Option<T>, text: &mut Vec<u8>, write: impl FnOnce(T, &mut Vec<u8>)) {
    match value {
        Some(value) => write(value, text),
        None => put(text, "null"),
    }
}

/// Text from whoever, in quotes.
fn string(value: &str, text: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = serde_json::to_writer(text, value);
}

fn number(value: impl itoa::Integer, text: &mut Vec<u8>) {
    put(text, itoa::Buffer::new().format(value));
}

fn milliseconds(value: Duration, text: &mut Vec<u8>) {
    // A finite number has a text, and writing to memory does not fail.
    let _ = serde_json::to_writer(text, &entry::milliseconds(value));
}

fn address(value: SocketAddr, text: &mut Vec<u8>) {
    text.push(b'"');
    if let IpAddr::V4(ip) = value.ip() {
        for (place, octet) in ip.octets().into_iter().enumerate() {
            if place > 0 {
                text.push(b'.');
            }
            number(octet, text);
        }
        text.push(b':');
        number(value.port(), text);
    } else {
        // Writing to memory does not fail.
        let _ = write!(text, "{value}");
    }
    text.push(b'"');
}

fn connection(value: &Connection, text: &mut Vec<u8>) {
    put(text, r#"{"pid":"#);
    or_null(value.pid, text, number);
    put(text, r#","command":"#);
    or_null(value.command.as_deref(), text, string);
    put(text, r#","cgroup":"#);
    or_null(value.cgroup.as_deref(), text, string);
    put(text, r#","pod":"#);
    or_null(value.pod.as_deref(), text, string);
    put(text, r#","original_destination":"#);
    address(value.original_destination, text);
    put(text, r#","connect_ms":"#);
    or_null(value.connect, text, milliseconds);
    put(text, r#","rtt_us":"#);
    or_null(value.rtt_us, text, number);
    put(text, r#","retransmits":"#);
    number(value.retransmits, text);
    put(text, r#","refusals":"#);
    or_null(value.refusals, text, number);
    text.push(b'}');
}

/// It for people: what is known of it. Texts from outside are in quotes, with codes in the place of what could move a
/// cursor.
struct ForPeople<'a>(&'a Entry);

impl Display for ForPeople<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { line, connection } = self.0;
        let milliseconds = |time: Duration| format!("{:.3}", entry::milliseconds(time));
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
mod tests {
    use super::{
        super::entry::tests::{connection, request},
        *,
    };
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::time::UNIX_EPOCH;

    fn written(entry: &Entry, json: bool) -> String {
        let mut text = Vec::new();
        Writer::new(json, UNIX_EPOCH + Duration::from_millis(1_769_860_800_020)).write(entry, &mut text);
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
        let value: Value = serde_json::from_str(&written(&connection(), true)).unwrap();
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
    fn lines_of_one_writer_have_each_their_own_time() {
        let mut writer = Writer::new(true, UNIX_EPOCH);
        let times = [1_999, 1_000, 2_007, 2_070, 86_400_000].map(|ms| {
            let mut entry = request("/");
            entry.line.time = UNIX_EPOCH + Duration::from_millis(ms);
            let mut text = Vec::new();
            writer.write(&entry, &mut text);
            serde_json::from_slice::<Value>(&text).unwrap()["time"].as_str().unwrap().to_owned()
        });
        let expected = [
            "1970-01-01T00:00:01.999",
            "1970-01-01T00:00:01.000",
            "1970-01-01T00:00:02.007",
            "1970-01-01T00:00:02.070",
        ];
        assert_eq!(times[..4], expected.map(|time| format!("{time}Z")));
        assert_eq!(times[4], "1970-01-02T00:00:00.000Z");
        // It began before a clock was set that had never been right.
        let mut entry = request("/");
        entry.line.time = UNIX_EPOCH - Duration::from_secs(1);
        assert!(written(&entry, true).contains(r#""time":"1970-01-01T00:00:00.000Z""#));
    }

    proptest! {
        #[test]
        fn whatever_is_in_a_line_a_parser_reads_the_same(
            (service, path, reason) in (any::<Option<String>>(), any::<Option<String>>(), any::<bool>()),
            (endpoint, client) in (any::<Option<SocketAddr>>(), any::<Option<SocketAddr>>()),
            (status, trace) in (prop::option::of(100..1000_u16), any::<u128>()),
            (sent, received, attempts, nanos) in (any::<u64>(), any::<u64>(), any::<u32>(), 0..1_u64 << 53),
        ) {
            let mut entry = request("");
            entry.line = proxy::Line {
                service: service.as_deref().map(Into::into),
                endpoint,
                client,
                path: path.as_deref().map(Into::into),
                status: status.map(|status| http::StatusCode::from_u16(status).unwrap()),
                duration: Duration::from_nanos(nanos),
                sent_bytes: sent,
                received_bytes: received,
                attempts,
                trace_id: proxy::TraceId::new(trace),
                reason: reason.then_some("timeout"),
                ..entry.line
            };
            let text = written(&entry, true);
            prop_assert_eq!(text.find('\n'), Some(text.len() - 1));
            let read: Value = serde_json::from_str(&text).unwrap();
            let expected = json!({
                "timestamp": "2026-01-31T12:00:00.020000Z", "level": "INFO", "target": "request",
                "time": "2026-01-31T12:00:00.012Z", "kind": "request", "service": service, "endpoint": endpoint,
                "client": client, "method": "GET", "path": path, "status": status, "duration_ms": nanos as f64 / 1e6,
                "sent_bytes": sent, "received_bytes": received, "attempts": attempts,
                "trace_id": (trace != 0).then(|| format!("{trace:032x}")),
                "reason": reason.then_some("timeout"), "connection": null,
            });
            prop_assert_eq!(read, expected);
        }
    }
}
