//! What the log says of connections that the kernel tells of.

use crate::{
    app::connections::{address, client, command, endpoint, original},
    datapath::Datapath,
    discovery::kubernetes::Pods,
    kernel::CgroupPaths,
    model::is_probe,
    proxy,
    telemetry::entry::{Connection, Entry},
    text::is_harmless,
};
use mesh_common::{
    connection::{Record, Traffic, stage, tcp},
    event::{ERROR_UNKNOWN, Ended, Refused, RefusedKey},
    reason::{Failure, Reason},
};
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Where the error of a failed connect is not known, one that ends within this time was refused: as the kernel counts it.
const FAST: Duration = Duration::from_secs(1);

/// What lines are made with, at one moment of both clocks.
pub(super) struct Moment<'a> {
    pub(super) datapath: Option<&'a Datapath>,
    pub(super) pods: &'a Pods,
    pub(super) now: u64,
    pub(super) time: SystemTime,
    /// Where the clock of the workers began.
    pub(super) began: u64,
}

/// What is told of a connection besides its record.
pub(super) struct Told {
    pub(super) open: bool,
    /// When it ended, or was looked at.
    pub(super) until: u64,
    pub(super) rtt_us: u32,
    pub(super) reason: Option<&'static str>,
}

impl Moment<'_> {
    /// The line of a connection; `None`: it is not told of.
    pub(super) fn line(
        &self,
        record: &Record,
        traffic: &Traffic,
        told: &Told,
        cgroups: &mut CgroupPaths,
    ) -> Option<Entry> {
        if is_probe(original(record)) {
            return None;
        }
        let line = proxy::Line {
            endpoint: Some(endpoint(record)),
            client: Some(client(record)?),
            sent_bytes: traffic.sent,
            received_bytes: traffic.received,
            attempts: record.attempt,
            reason: told.reason,
            ..self.outline(record.service, record.picked_at, told.until)
        };
        let whose = Whose { pid: record.pid, command: &record.command, cgroup: record.cgroup };
        let connection = Connection {
            open: told.open,
            connect: (record.established_at > 0).then(|| since(record.opened_at, record.established_at)),
            rtt_us: Some(u64::from(told.rtt_us)).filter(|rtt| *rtt > 0),
            retransmits: traffic.retransmits,
            ..self.connection(&whose, original(record), cgroups)
        };
        Some(Entry { line, connection: Some(Box::new(connection)) })
    }

    /// The line of connects that were refused; `None`: they are not told of.
    pub(super) fn refused(&self, key: &RefusedKey, row: &Refused, cgroups: &mut CgroupPaths) -> Option<Entry> {
        let dialled = address(key.vip.address, key.vip.port);
        if is_probe(dialled) {
            return None;
        }
        let line = proxy::Line {
            // A reason without a number would be another program's: there is none.
            reason: Reason::from_number(key.reason).map(Reason::word),
            ..self.outline(row.service, row.first_at, row.last_at)
        };
        let whose = Whose { pid: key.pid, command: &row.command, cgroup: row.cgroup };
        let connection = Connection { refusals: Some(row.count), ..self.connection(&whose, dialled, cgroups) };
        Some(Entry { line, connection: Some(Box::new(connection)) })
    }

    /// What all lines have that went to the service of this row, between two moments.
    fn outline(&self, service: u32, from: u64, until: u64) -> proxy::Line {
        proxy::Line {
            time: self.time.checked_sub(since(from, self.now)).unwrap_or(self.time),
            service: self.datapath.and_then(|d| d.service_of_row(service, from)).map(Arc::from),
            endpoint: None,
            client: None,
            method: None,
            path: None,
            status: None,
            duration: since(from, until),
            ended: since(self.began, until),
            sent_bytes: 0,
            received_bytes: 0,
            attempts: 0,
            trace_id: None,
            reason: None,
        }
    }

    /// What is known of whoever dialled this.
    fn connection(&self, whose: &Whose<'_>, dialled: SocketAddr, cgroups: &mut CgroupPaths) -> Connection {
        let cgroup = cgroups.path(whose.cgroup);
        Connection {
            open: false,
            pid: Some(whose.pid).filter(|pid| *pid > 0),
            command: command(whose.command).map(|name| harmless(&name)),
            cgroup: cgroup.map(harmless),
            pod: cgroup.and_then(|path| self.pods.of_cgroup(path)).map(Box::from),
            original_destination: dialled,
            connect: None,
            rtt_us: None,
            retransmits: 0,
            refusals: None,
        }
    }
}

/// Who dialled, as the kernel knows it.
struct Whose<'a> {
    pid: u32,
    command: &'a [u8],
    cgroup: u64,
}

/// From one moment of the kernel's clock to another.
pub(super) fn since(then: u64, now: u64) -> Duration {
    Duration::from_nanos(now.saturating_sub(then))
}

/// Any text without what could do something to a terminal.
fn harmless(text: &str) -> Box<str> {
    text.replace(|character| !is_harmless(character), "\u{fffd}").into()
}

/// How a connection ended; `None`: well. What came of a connect has the words of `mesh_tcp_connect_failures_total`.
pub(super) fn reason(ended: &Ended) -> Option<&'static str> {
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
    use mesh_common::{addr::Address, service::VipKey};
    use std::net::Ipv6Addr;

    /// What the log says of a refusal, ten seconds after the machine started.
    fn refused(key: &RefusedKey, row: &Refused) -> Option<Entry> {
        let (now, time) = (10_000_000_000, SystemTime::UNIX_EPOCH + Duration::from_secs(1000));
        let moment = Moment { datapath: None, pods: &Pods::default(), now, time, began: 1_000_000_000 };
        moment.refused(key, row, &mut CgroupPaths::new())
    }

    fn key(reason: u32) -> RefusedKey {
        let vip = VipKey::tcp(Address::from(std::net::IpAddr::from([10, 96, 0, 10])), 80_u16.to_be());
        RefusedKey { vip, pid: 7, reason }
    }

    #[test]
    fn refused_connects_are_one_line_that_says_whose_why_and_how_many() {
        let mut row = Refused { first_at: 8_000_000_000, last_at: 8_500_000_000, count: 40, ..Refused::default() };
        row.command[..4].copy_from_slice(b"curl");
        let Entry { line, connection } = refused(&key(Reason::CircuitOpen as u32), &row).unwrap();
        let connection = connection.unwrap();
        assert_eq!((line.reason, line.endpoint, line.client, line.attempts), (Some("circuit_open"), None, None, 0));
        assert_eq!(line.time, SystemTime::UNIX_EPOCH + Duration::from_secs(998));
        assert_eq!((line.duration, line.ended), (Duration::from_millis(500), Duration::from_millis(7500)));
        assert_eq!((connection.pid, connection.command.as_deref()), (Some(7), Some("curl")));
        assert_eq!((connection.refusals, connection.original_destination), (Some(40), ([10, 96, 0, 10], 80).into()));
    }

    #[test]
    fn no_row_of_the_kernels_can_do_harm() {
        let everything = Refused {
            first_at: u64::MAX,
            last_at: 0,
            count: u64::MAX,
            cgroup: u64::MAX,
            command: [0xff; 16],
            service: u32::MAX,
            zero: u32::MAX,
        };
        let odd = RefusedKey { pid: 0, ..key(u32::MAX) };
        let Entry { line, connection } = refused(&odd, &everything).unwrap();
        let connection = connection.unwrap();
        assert_eq!((line.reason, line.duration, connection.pid), (None, Duration::ZERO, None));
        assert_eq!(connection.command.as_deref(), Some(&*"\u{fffd}".repeat(16)));
        let mut hostile = Refused { first_at: 0, last_at: u64::MAX, ..everything };
        hostile.command = *b"a\n\x1b[2J\0after it.";
        let connection = refused(&key(Reason::COUNT as u32), &hostile).unwrap().connection.unwrap();
        assert_eq!(connection.command.as_deref(), Some("a\u{fffd}\u{fffd}[2J"));
        let unspecified = VipKey::tcp(Address::from(std::net::IpAddr::from(Ipv6Addr::UNSPECIFIED)), 0);
        assert!(refused(&RefusedKey { vip: unspecified, ..odd }, &Refused::default()).is_some());
    }

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
