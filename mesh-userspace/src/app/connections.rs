//! Live connections, as an operator asks for them.

use super::daemon::Daemon;
use crate::{
    api::{self, ConnectionClient, ConnectionOrder, Connections, Kind, Refusal},
    discovery::kubernetes::Pods,
    kernel::{CgroupPaths, Connection},
    model::{Service, is_probe},
};
use mesh_common::{
    addr::Address,
    connection::{Record, marks, tcp},
};
use std::{
    cmp::Reverse,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// A connection on its way into a listing.
struct Row<'a> {
    service: Option<&'a str>,
    endpoint: SocketAddr,
    client: Option<SocketAddr>,
    seen: Connection,
}

impl Daemon {
    /// The live connections that `wanted` describes.
    pub(super) fn connections(&self, wanted: &Connections) -> Result<Vec<api::Connection>, Refusal> {
        let mut seen = Vec::new();
        let mut visit = |connection: Connection| {
            if is_wanted(&connection.live.record, wanted) {
                seen.push(connection);
            }
        };
        if let Err(why) = self.look(&mut visit) {
            // Some of them are better than none, except where that would be taken for all there is.
            if seen.is_empty() {
                return Err(Refusal::new(Kind::Conflict, format!("connections cannot be listed: {why}")));
            }
            tracing::warn!("not all connections are listed: {why}");
        }
        let now = super::daemon::now();
        let state = self.state();
        let name = |record: &Record| state.datapath.as_ref()?.service_of_row(record.service, record.picked_at);
        let rows = seen.into_iter().map(|seen| Row {
            service: name(&seen.live.record),
            endpoint: endpoint(&seen.live.record),
            client: client(&seen.live.record),
            seen,
        });
        let mut rows: Vec<Row<'_>> =
            rows.filter(|row| wanted.service.is_none() || row.service == wanted.service.as_deref()).collect();
        if rows.is_empty() {
            self::known(state.snapshot.services(), wanted)?;
        }
        sort(&mut rows, wanted.sort);
        rows.truncate(wanted.limit.map_or(usize::MAX, |limit| limit as usize));
        let mut cgroups = CgroupPaths::new();
        let pods = self.pods.load();
        Ok(rows.iter().map(|row| told(row, now, &mut cgroups, &pods)).collect())
    }
}

/// Whether a connection may be in the listing; its service is looked at later. The daemon's own probe is none of anyone's.
fn is_wanted(record: &Record, wanted: &Connections) -> bool {
    wanted.endpoint.is_none_or(|address| address == endpoint(record)) && !is_probe(original(record))
}

/// Whether what is asked for is there at all, connections aside.
fn known(services: &[Arc<Service>], wanted: &Connections) -> Result<(), Refusal> {
    let mut of_service = services.iter().filter(|s| wanted.service.as_ref().is_none_or(|name| *name == s.name));
    if let (Some(name), true) = (&wanted.service, of_service.clone().next().is_none()) {
        return Err(Refusal::not_found(format!("no service is named {name:?}; `mesh services` lists them")));
    }
    match wanted.endpoint {
        Some(address) if !of_service.any(|s| s.endpoints.iter().any(|e| e.address == address)) => {
            let of = wanted.service.as_ref().map(|name| format!(" of {name}")).unwrap_or_default();
            Err(Refusal::not_found(format!("{address} is no endpoint{of}; `mesh endpoints` lists them")))
        }
        _ => Ok(()),
    }
}

/// Into the order asked for, each connection once.
fn sort(rows: &mut Vec<Row<'_>>, order: Option<ConnectionOrder>) {
    rows.sort_unstable_by_key(|row| (row.service, row.endpoint, row.client, row.seen.namespace));
    // The kernel may show a socket again when its table changes meanwhile. The later look knows more.
    rows.dedup_by(|later, row| {
        let same = (later.endpoint, later.client, later.seen.namespace)
            == (row.endpoint, row.client, row.seen.namespace)
            && later.seen.live.record.picked_at == row.seen.live.record.picked_at;
        if same && later.seen.live.traffic.sent > row.seen.live.traffic.sent {
            std::mem::swap(later, row);
        }
        same
    });
    match order {
        None => {}
        Some(ConnectionOrder::Sent) => rows.sort_by_key(|row| Reverse(row.seen.live.traffic.sent)),
        Some(ConnectionOrder::Received) => rows.sort_by_key(|row| Reverse(row.seen.live.traffic.received)),
        Some(ConnectionOrder::Age) => rows.sort_by_key(|row| row.seen.live.record.picked_at),
        Some(ConnectionOrder::Rtt) => rows.sort_by_key(|row| Reverse(row.seen.live.rtt_us)),
    }
}

fn told(row: &Row<'_>, now: u64, cgroups: &mut CgroupPaths, pods: &Pods) -> api::Connection {
    let (live, record) = (&row.seen.live, &row.seen.live.record);
    let cgroup = cgroups.path(record.cgroup).map(str::to_owned);
    let milliseconds = |ns: u64| ns as f64 / 1e6;
    api::Connection {
        service: row.service.map(str::to_owned),
        endpoint: row.endpoint,
        client: ConnectionClient {
            address: row.client,
            pid: Some(record.pid).filter(|pid| *pid > 0),
            command: command(&record.command),
            pod: cgroup.as_deref().and_then(|path| pods.of_cgroup(path)).map(str::to_owned),
            cgroup,
            netns: Some(row.seen.namespace),
            cgroup_id: record.cgroup,
            netns_cookie: record.netns,
        },
        original_destination: original(record),
        path: match record.marks & marks::PROXIED {
            0 => api::Path::Direct,
            _ => api::Path::Proxied,
        },
        state: state(live.state).to_owned(),
        sent_bytes: live.traffic.sent,
        received_bytes: live.traffic.received,
        rtt_us: Some(u64::from(live.rtt_us)).filter(|rtt| *rtt > 0),
        retransmits: live.traffic.retransmits,
        age_ms: milliseconds(now.saturating_sub(record.picked_at)),
        connect_ms: (record.established_at > 0)
            .then(|| milliseconds(record.established_at.saturating_sub(record.opened_at))),
        attempt: u64::from(record.attempt),
    }
}

pub(super) fn endpoint(record: &Record) -> SocketAddr {
    address(record.endpoint, record.endpoint_port)
}

pub(super) fn original(record: &Record) -> SocketAddr {
    address(record.original, record.original_port)
}

pub(super) fn client(record: &Record) -> Option<SocketAddr> {
    (record.local_port != 0).then(|| address(record.local, record.local_port))
}

pub(super) fn address(ip: Address, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from(ip), u16::from_be(port))
}

/// A process's name, which is any bytes up to a zero.
pub(super) fn command(padded: &[u8]) -> Option<String> {
    let name = padded.split(|byte| *byte == 0).next().filter(|name| !name.is_empty())?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// The word for a state of TCP.
const fn state(number: u32) -> &'static str {
    match number {
        tcp::ESTABLISHED => "established",
        tcp::SYN_SENT => "syn_sent",
        tcp::FIN_WAIT1 => "fin_wait1",
        tcp::FIN_WAIT2 => "fin_wait2",
        tcp::TIME_WAIT => "time_wait",
        tcp::CLOSE => "close",
        tcp::CLOSE_WAIT => "close_wait",
        tcp::LAST_ACK => "last_ack",
        tcp::CLOSING => "closing",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PROBE_V4, PROBE_V6};
    use mesh_common::connection::{Live, Traffic};

    fn row(service: &'static str, port: u16, sent: u64, rtt_us: u32, picked_at: u64) -> Row<'static> {
        let at = SocketAddr::from(([10, 0, 0, 1], port));
        let record = Record { picked_at, ..Record::default() };
        let live = Live { record, traffic: Traffic { sent, ..Traffic::default() }, rtt_us, ..Live::default() };
        Row { service: Some(service), endpoint: at, client: Some(at), seen: Connection { namespace: 1, live } }
    }

    fn ports(mut rows: Vec<Row<'_>>, order: Option<ConnectionOrder>) -> Vec<u16> {
        sort(&mut rows, order);
        rows.iter().map(|row| row.endpoint.port()).collect()
    }

    #[test]
    fn the_largest_come_first_and_the_oldest_of_ages() {
        let rows = || vec![row("b", 1, 5, 9, 30), row("a", 3, 7, 0, 10), row("a", 2, 7, 8, 20)];
        assert_eq!(ports(rows(), None), [2, 3, 1]);
        assert_eq!(ports(rows(), Some(ConnectionOrder::Sent)), [2, 3, 1], "as without an order among equals");
        assert_eq!(ports(rows(), Some(ConnectionOrder::Age)), [3, 2, 1]);
        assert_eq!(ports(rows(), Some(ConnectionOrder::Rtt)), [1, 2, 3]);
    }

    #[test]
    fn a_socket_that_is_shown_twice_is_listed_once_as_it_was_last() {
        let mut rows = vec![row("a", 1, 5, 0, 1), row("a", 1, 9, 0, 1), row("a", 2, 5, 0, 1)];
        sort(&mut rows, None);
        let sent: Vec<u64> = rows.iter().map(|row| row.seen.live.traffic.sent).collect();
        assert_eq!(sent, [9, 5]);
    }

    #[test]
    fn the_daemons_own_probe_is_not_listed() {
        let to = |vip: SocketAddr| Record {
            original: Address::from(vip.ip()),
            original_port: vip.port().to_be(),
            ..Record::default()
        };
        let all = Connections::default();
        assert!(is_wanted(&to(SocketAddr::from(([127, 109, 101, 115], 80))), &all));
        assert!(!is_wanted(&to(PROBE_V4), &all) && !is_wanted(&to(PROBE_V6), &all));
    }

    #[test]
    fn a_command_ends_at_its_first_zero() {
        assert_eq!(command(b"curl\0\0\0rest").as_deref(), Some("curl"));
        assert_eq!(command(b"0123456789abcdef").as_deref(), Some("0123456789abcdef"));
        assert_eq!(command(b"\xff\0").as_deref(), Some("\u{fffd}"));
        assert_eq!(command(&[0; 16]), None);
    }
}
