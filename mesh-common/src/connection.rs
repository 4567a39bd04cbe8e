//! The record of a connection, in the storage of its socket, and how TCP's counters become payload bytes.

use crate::addr::Address;
use bytemuck::{Pod, Zeroable};

/// What the hooks remember about one translated socket. Gone with the socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Record {
    /// The address the application dialled.
    pub original: Address,
    /// The endpoint's address it was sent to.
    pub endpoint: Address,
    /// The client's own address, known once TCP connects.
    pub local: Address,
    /// The dialled port, network byte order.
    pub original_port: u16,
    /// The endpoint's port, network byte order.
    pub endpoint_port: u16,
    /// The client's own port, network byte order.
    pub local_port: u16,
    /// 1 once the peer's FIN was received.
    pub fin_received: u16,
    /// A [`stage`].
    pub stage: u32,
    /// Index of the endpoint's row.
    pub id: u32,
    /// Tag of that row: counts of a reused row are not touched.
    pub tag: u32,
    /// Index of the service's row.
    pub service: u32,
    /// How often this socket was sent to an endpoint.
    pub attempt: u32,
    /// Process id (thread group) of the client, in the host's pid namespace.
    pub pid: u32,
    /// The client's process name, padded with zeroes.
    pub command: [u8; 16],
    /// Id of the cgroup the client was in: the inode of its directory.
    pub cgroup: u64,
    /// Cookie of the socket's network namespace (`SO_NETNS_COOKIE`).
    pub netns: u64,
    /// When the connect hook ran, CLOCK_MONOTONIC in nanoseconds; all times of a record.
    pub picked_at: u64,
    /// When TCP began to connect.
    pub opened_at: u64,
    /// When the connection was established, 0 before.
    pub established_at: u64,
    /// How much of the connection is in its endpoint's counters already.
    pub folded: Traffic,
    /// `bytes_received` when FIN_WAIT2 was entered; more at the end means that the peer's FIN arrived since.
    pub received_at_fin_wait2: u64,
    /// A set of [`marks`].
    pub marks: u32,
    /// `TCP_USER_TIMEOUT` as the application set it, in milliseconds, while ours stands in its place.
    pub user_timeout_ms: u32,
}

/// Bits of [`Record::marks`].
pub mod marks {
    /// It was let through as a probe of its endpoint's circuit.
    pub const PROBE: u32 = 1;
    /// That it had to repeat its SYN was told.
    pub const SUSPECT: u32 = 2;
    /// Our `TCP_USER_TIMEOUT` stands in place of the application's.
    pub const TIMED: u32 = 4;
    /// Its first byte is waited for.
    pub const WATCHED: u32 = 8;
    /// The daemon made it for a service: it is counted as any other, and its deadlines and what comes of it for its
    /// endpoint's circuit are the daemon's.
    pub const PROXIED: u32 = 16;
    /// Its SYN was not let out of this machine when it was sent again.
    pub const STUCK: u32 = 32;
    /// Its endpoint's circuit has heard that it is of use.
    pub const TOLD: u32 = 64;
}

/// What a connection carried, as its client sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Traffic {
    /// Payload bytes that the peer's TCP acknowledged.
    pub sent: u64,
    /// Payload bytes that arrived in order.
    pub received: u64,
    /// Segments sent again.
    pub retransmits: u64,
}

impl Traffic {
    /// What is in `self` and not in `earlier`.
    #[inline(always)]
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            sent: self.sent.saturating_sub(earlier.sent),
            received: self.received.saturating_sub(earlier.received),
            retransmits: self.retransmits.saturating_sub(earlier.retransmits),
        }
    }

    /// The larger of each: what was counted once is never taken back.
    #[inline(always)]
    #[must_use]
    pub const fn max(&self, other: &Self) -> Self {
        const fn max(a: u64, b: u64) -> u64 {
            if a > b { a } else { b }
        }
        Self {
            sent: max(self.sent, other.sent),
            received: max(self.received, other.received),
            retransmits: max(self.retransmits, other.retransmits),
        }
    }
}

/// A live connection, as the iterator over a namespace's sockets tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Live {
    /// The socket's record.
    pub record: Record,
    /// What it carried until now.
    pub traffic: Traffic,
    /// Its state, of [`tcp`].
    pub state: u32,
    /// Smoothed round-trip time in microseconds, 0 before the first measurement.
    pub rtt_us: u32,
}

/// How far a socket's connection has come: [`Record::stage`].
pub mod stage {
    /// No translated connection: fresh, ended, or the socket connected elsewhere since.
    pub const NONE: u32 = 0;
    /// The connect hook chose an endpoint; TCP has not begun yet.
    pub const PICKED: u32 = 1;
    /// TCP is connecting.
    pub const OPENING: u32 = 2;
    /// TCP is established.
    pub const ESTABLISHED: u32 = 3;
    /// Another socket does the work (MPTCP): the record only says what getpeername(2) shows.
    pub const SHOWN: u32 = 4;
    /// It goes to the daemon. Nothing is counted by this record; getpeername(2) shows what was dialled.
    pub const CAPTURED: u32 = 5;
}

/// TCP states as `BPF_SOCK_OPS_STATE_CB` names them (`enum` in include/net/tcp_states.h).
pub mod tcp {
    /// Data flows.
    pub const ESTABLISHED: u32 = 1;
    /// Our SYN is out.
    pub const SYN_SENT: u32 = 2;
    /// Our FIN is out, not yet acknowledged.
    pub const FIN_WAIT1: u32 = 4;
    /// Our FIN is acknowledged, the peer's not yet seen.
    pub const FIN_WAIT2: u32 = 5;
    /// Both FINs seen, waiting.
    pub const TIME_WAIT: u32 = 6;
    /// Gone.
    pub const CLOSE: u32 = 7;
    /// The peer's FIN is in, ours not out.
    pub const CLOSE_WAIT: u32 = 8;
    /// The peer's FIN is in, ours out.
    pub const LAST_ACK: u32 = 9;
    /// Both FINs crossed.
    pub const CLOSING: u32 = 11;
}

/// TCP's own counters of a socket at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Counters {
    /// Its state, of [`tcp`]; that it comes from, if it is being closed.
    pub state: u32,
    /// `tcp_sock.bytes_acked`.
    pub bytes_acked: u64,
    /// `tcp_sock.bytes_received`.
    pub bytes_received: u64,
    /// Whether all that was given to send is acknowledged, our FIN included (`snd_una == write_seq`).
    pub all_acknowledged: bool,
    /// Whether the peer's FIN was received, where the socket says so.
    pub fin_received: Option<bool>,
    /// `tcp_sock.total_retrans`.
    pub retransmits: u32,
}

/// Whether entering `state` says that the peer's FIN was received (and counted as a byte).
#[inline(always)]
#[must_use]
pub const fn entering_means_fin(state: u32) -> bool {
    matches!(state, tcp::CLOSE_WAIT | tcp::LAST_ACK | tcp::CLOSING | tcp::TIME_WAIT)
}

impl Record {
    /// What the connection carried until `at`, counted at the side that connected; the same while it lives and when it
    /// closes.
    ///
    /// TCP counts in sequence space, where our SYN and either FIN are a byte each. The rule was exact on ten kinds of
    /// close at both ends. Where the socket does not tell whether the peer's FIN is in, it is a byte short for a
    /// socket that is closed after its own half-close, with data received since, before the peer's FIN.
    #[inline(always)]
    #[must_use]
    pub const fn traffic(&self, at: &Counters) -> Traffic {
        let fin_received = match at.fin_received {
            Some(received) => received,
            None => {
                self.fin_received == 1
                    || (at.state == tcp::FIN_WAIT2 && at.bytes_received != self.received_at_fin_wait2)
            }
        };
        let fin_acknowledged =
            at.state == tcp::FIN_WAIT2 || (matches!(at.state, tcp::LAST_ACK | tcp::CLOSING) && at.all_acknowledged);
        let syn_acknowledged = at.bytes_acked > 0;
        Traffic {
            sent: at.bytes_acked.saturating_sub(fin_acknowledged as u64 + syn_acknowledged as u64),
            received: at.bytes_received.saturating_sub(fin_received as u64),
            retransmits: at.retransmits as u64,
        }
    }

    /// Whether it is one of those that are logged, `rate` in 2^32 of all (all ones: every one). The same whenever it is
    /// asked, so that what is told of a connection is told from its beginning to its end.
    #[inline(always)]
    #[must_use]
    pub const fn is_logged(&self, rate: u32) -> bool {
        // Fibonacci hashing: connections that begin one after the other lie far apart.
        let mixed = (self.picked_at ^ (self.local_port as u64) << 48).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        rate == u32::MAX || ((mixed >> 32) as u32) < rate
    }

    /// Takes what the connection carried until now into account: returns what its endpoint's counters lack. Whoever
    /// calls this holds the socket's lock and adds that at once, so every byte is counted exactly once.
    #[inline(always)]
    #[must_use]
    pub const fn fold(&mut self, traffic: &Traffic) -> Traffic {
        let more = traffic.since(&self.folded);
        self.folded = self.folded.max(traffic);
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(state: u32, bytes_acked: u64, bytes_received: u64) -> Counters {
        Counters { state, bytes_acked, bytes_received, all_acknowledged: true, fin_received: None, retransmits: 0 }
    }

    fn bytes(record: &Record, at: &Counters) -> (u64, u64) {
        let traffic = record.traffic(at);
        (traffic.sent, traffic.received)
    }

    #[test]
    fn a_refused_connect_carried_nothing() {
        assert_eq!(bytes(&Record::default(), &at(tcp::SYN_SENT, 0, 0)), (0, 0));
    }

    #[test]
    fn a_live_connection_is_a_syn_ahead_of_its_payload() {
        assert_eq!(bytes(&Record::default(), &at(tcp::ESTABLISHED, 51, 1000)), (50, 1000));
    }

    #[test]
    fn our_fin_counts_only_once_it_is_acknowledged() {
        assert_eq!(bytes(&Record::default(), &at(tcp::FIN_WAIT1, 51, 1000)), (50, 1000));
        assert_eq!(bytes(&Record::default(), &at(tcp::FIN_WAIT2, 52, 0)), (50, 0));
    }

    #[test]
    fn an_active_close_takes_off_the_syn_and_both_fins() {
        // FIN_WAIT2 → CLOSE (by TIME_WAIT's mini socket) with the peer's FIN counted after FIN_WAIT2 was entered.
        let record = Record { received_at_fin_wait2: 1000, ..Record::default() };
        assert_eq!(bytes(&record, &at(tcp::FIN_WAIT2, 52, 1001)), (50, 1000));
    }

    #[test]
    fn a_passive_close_takes_off_the_syn_and_both_fins() {
        let record = Record { fin_received: 1, ..Record::default() };
        assert_eq!(bytes(&record, &at(tcp::LAST_ACK, 52, 1001)), (50, 1000));
    }

    #[test]
    fn data_after_our_half_close_is_no_fin_where_the_socket_says_so() {
        let record = Record { received_at_fin_wait2: 0, ..Record::default() };
        let at = |fin| Counters { fin_received: Some(fin), ..at(tcp::FIN_WAIT2, 52, 1000) };
        assert_eq!(bytes(&record, &at(false)), (50, 1000));
        assert_eq!(bytes(&record, &at(true)), (50, 999));
    }

    #[test]
    fn an_orphan_in_fin_wait2_whose_peer_never_closed_keeps_what_it_received() {
        let record = Record { received_at_fin_wait2: 1000, ..Record::default() };
        assert_eq!(bytes(&record, &at(tcp::FIN_WAIT2, 52, 1000)), (50, 1000));
    }

    #[test]
    fn as_many_are_logged_as_are_to_be() {
        let logged = |rate: u32| {
            let starts = (0..10_000_u64).map(|n| 1_000_000_007 * n);
            starts.filter(|at| Record { picked_at: *at, ..Record::default() }.is_logged(rate)).count()
        };
        assert_eq!((logged(0), logged(u32::MAX)), (0, 10_000));
        let tenth = logged(u32::MAX / 10);
        assert!((800..1200).contains(&tenth), "{tenth}");
    }

    proptest! {
        #[test]
        fn folding_at_any_moments_adds_up_to_the_end_and_never_goes_back(
            steps in proptest::collection::vec((0..1u64 << 40, 0..1u64 << 40, 0..99u64), 1..20),
            backwards in 0..20usize,
        ) {
            let mut record = Record::default();
            let (mut now, mut total) = (Traffic::default(), Traffic::default());
            for (i, (sent, received, retransmits)) in steps.into_iter().enumerate() {
                now = Traffic {
                    sent: now.sent + sent,
                    received: now.received + received,
                    retransmits: now.retransmits + retransmits,
                };
                // A moment that lies before one that was folded adds nothing and takes nothing away.
                let seen = if i == backwards { Traffic::default() } else { now };
                let more = record.fold(&seen);
                total = Traffic {
                    sent: total.sent + more.sent,
                    received: total.received + more.received,
                    retransmits: total.retransmits + more.retransmits,
                };
                prop_assert_eq!(total, record.folded);
            }
            let _ = record.fold(&now);
            prop_assert_eq!(record.folded, now);
        }
    }
}
