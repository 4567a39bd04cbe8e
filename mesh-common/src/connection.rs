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
    /// The dialled port, network byte order.
    pub original_port: u16,
    /// The endpoint's port, network byte order.
    pub endpoint_port: u16,
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
    /// When the connect hook ran, CLOCK_MONOTONIC in nanoseconds.
    pub picked_at: u64,
    /// `bytes_received` when FIN_WAIT2 was entered; more at the end means that the peer's FIN arrived since.
    pub received_at_fin_wait2: u64,
    /// 1 once the peer's FIN was received.
    pub fin_received: u32,
    /// Always zero.
    pub zero: u32,
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

/// TCP's own counters of a socket at the moment it closes.
#[derive(Clone, Copy, Debug)]
pub struct AtClose {
    /// The state it comes from, of [`tcp`].
    pub old: u32,
    /// `tcp_sock.bytes_acked`.
    pub bytes_acked: u64,
    /// `tcp_sock.bytes_received`.
    pub bytes_received: u64,
    /// Whether all that was given to send is acknowledged, our FIN included (`snd_una == write_seq`).
    pub all_acknowledged: bool,
    /// Whether the peer's FIN was received, where the socket says so.
    pub fin_received: Option<bool>,
}

/// Whether entering `state` says that the peer's FIN was received (and counted as a byte).
#[inline(always)]
#[must_use]
pub const fn entering_means_fin(state: u32) -> bool {
    matches!(state, tcp::CLOSE_WAIT | tcp::LAST_ACK | tcp::CLOSING | tcp::TIME_WAIT)
}

impl Record {
    /// Payload bytes (sent, received) of the side that connected.
    ///
    /// TCP counts in sequence space, where our SYN and either FIN are a byte each. The rule was exact on ten kinds of
    /// close at both ends. Where the socket does not tell whether the peer's FIN is in, it is a byte short for a
    /// socket that is closed after its own half-close, with data received since, before the peer's FIN.
    #[inline(always)]
    #[must_use]
    pub const fn bytes(&self, at: &AtClose) -> (u64, u64) {
        let fin_received = match at.fin_received {
            Some(received) => received,
            None => {
                self.fin_received == 1 || (at.old == tcp::FIN_WAIT2 && at.bytes_received != self.received_at_fin_wait2)
            }
        };
        let fin_acknowledged =
            at.old == tcp::FIN_WAIT2 || (matches!(at.old, tcp::LAST_ACK | tcp::CLOSING) && at.all_acknowledged);
        let syn_acknowledged = at.bytes_acked > 0;
        (
            at.bytes_acked.saturating_sub(fin_acknowledged as u64 + syn_acknowledged as u64),
            at.bytes_received.saturating_sub(fin_received as u64),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(old: u32, bytes_acked: u64, bytes_received: u64) -> AtClose {
        AtClose { old, bytes_acked, bytes_received, all_acknowledged: true, fin_received: None }
    }

    #[test]
    fn a_refused_connect_carried_nothing() {
        assert_eq!(Record::default().bytes(&at(tcp::SYN_SENT, 0, 0)), (0, 0));
    }

    #[test]
    fn an_active_close_takes_off_the_syn_and_both_fins() {
        // FIN_WAIT2 → CLOSE (by TIME_WAIT's mini socket) with the peer's FIN counted after FIN_WAIT2 was entered.
        let record = Record { received_at_fin_wait2: 1000, ..Record::default() };
        assert_eq!(record.bytes(&at(tcp::FIN_WAIT2, 52, 1001)), (50, 1000));
    }

    #[test]
    fn a_passive_close_takes_off_the_syn_and_both_fins() {
        let record = Record { fin_received: 1, ..Record::default() };
        assert_eq!(record.bytes(&at(tcp::LAST_ACK, 52, 1001)), (50, 1000));
    }

    #[test]
    fn a_reset_takes_off_only_the_syn() {
        assert_eq!(Record::default().bytes(&at(tcp::ESTABLISHED, 51, 1000)), (50, 1000));
    }

    #[test]
    fn data_after_our_half_close_is_no_fin_where_the_socket_says_so() {
        let record = Record { received_at_fin_wait2: 0, ..Record::default() };
        let at = |fin| AtClose { fin_received: Some(fin), ..at(tcp::FIN_WAIT2, 52, 1000) };
        assert_eq!(record.bytes(&at(false)), (50, 1000));
        assert_eq!(record.bytes(&at(true)), (50, 999));
    }

    #[test]
    fn an_orphan_in_fin_wait2_whose_peer_never_closed_keeps_what_it_received() {
        let record = Record { received_at_fin_wait2: 1000, ..Record::default() };
        assert_eq!(record.bytes(&at(tcp::FIN_WAIT2, 52, 1000)), (50, 1000));
    }
}
