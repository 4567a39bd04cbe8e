//! One line of the log of requests and connections.

use crate::proxy;
use std::{
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
            // Of what was no request nothing but the answer is known.
            None if self.line.method.is_some() || self.line.status.is_some() => Kind::Request,
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
        let line = text(&self.line.path) + method;
        let connection = self
            .connection
            .as_ref()
            .map_or(0, |c| size_of::<Connection>() + text(&c.command) + text(&c.cgroup) + text(&c.pod));
        line + connection
    }
}

/// In milliseconds; prints without more digits than there are, as long as it takes less than a hundred days.
#[must_use]
pub fn milliseconds(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e6
}

/// What the proxy tells of, as a module in levels of the log.
pub(super) const REQUEST: &str = "request";
/// The same of what the kernel tells of.
pub(super) const CONNECTION: &str = "connection";

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
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
            trace_id: proxy::TraceId::new(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c),
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

    #[test]
    fn a_connection_that_outlived_a_change_of_the_clock_ended_after_it_began() {
        let mut entry = request("/");
        entry.line.time = UNIX_EPOCH;
        entry.line.duration = Duration::MAX;
        assert_eq!(entry.ended(), UNIX_EPOCH, "no panic");
    }
}
