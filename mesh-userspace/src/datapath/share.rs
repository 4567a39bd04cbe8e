//! Who a connect to a VIP would meet now, asked of the rows that the connect hook reads.

use super::plan::vip_key;
use crate::{kernel::Tables, model::Protocol};
use mesh_common::{
    breaker::State,
    endpoint::{EndpointRow, Slot},
    reason::Reason,
    select::{self, Rows},
    service::{Set, View, flags},
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

/// Who a connect to a VIP would meet now, as the kernel's rows have it.
#[derive(Clone, Debug, PartialEq)]
pub enum Share {
    /// The address is no VIP in the kernel.
    NoVip,
    /// Refused at once.
    Refused(Reason),
    /// Endpoints with the part of connects that each gets, 0 to 1.
    Endpoints(BTreeMap<SocketAddr, f64>),
}

/// What a socket that is not `IPV6_V6ONLY` sees of a service when it dials `vip`, as the connect hook has it.
#[must_use]
pub const fn view(vip: SocketAddr, same_family: bool) -> View {
    match vip {
        SocketAddr::V4(_) => View::V4,
        SocketAddr::V6(_) if same_family => View::V6,
        SocketAddr::V6(_) => View::Any,
    }
}

/// Asks the kernel's rows who gets how many of the connects to `vip` at `now` (nanoseconds of CLOCK_MONOTONIC). Whoever
/// is probed next, or tried because the whole service is open, is no share.
#[must_use]
pub fn share(tables: &Tables, vip: SocketAddr, now: u64) -> Share {
    let Some(service) = tables.vip(&vip_key(Protocol::Tcp, vip)) else { return Share::NoVip };
    let view = view(vip, tables.flags(service) & flags::SAME_FAMILY != 0);
    let first = if tables.settings().is_attended(now) { Set::Attended } else { Set::Alone };
    let mut refused = false;
    for set in [first, Set::All] {
        let range = select::shown(tables, service, set, view);
        let mut seen: BTreeMap<SocketAddr, u32> = BTreeMap::new();
        let mut slots = 0_u32;
        for index in range.base..range.base.saturating_add(range.count) {
            let Some((slot, row)) = seat(tables, service, index) else { continue };
            if tables.circuit(slot.id()).state() == State::Closed {
                *seen.entry(SocketAddr::new(IpAddr::from(row.address), u16::from_be(row.port))).or_default() += 1;
                slots += 1;
            } else {
                refused = true;
            }
        }
        if slots > 0 {
            let part = |times: u32| f64::from(times) / f64::from(slots);
            return Share::Endpoints(seen.into_iter().map(|(address, times)| (address, part(times))).collect());
        }
    }
    let count = |view| select::shown(tables, service, Set::All, view).count;
    Share::Refused(if refused || tables.flags(service) & flags::TRIPPED != 0 && count(view) == 0 {
        Reason::CircuitOpen
    } else if count(View::Any) > 0 {
        Reason::FamilyMismatch
    } else {
        Reason::NoEndpoint
    })
}

/// The endpoint in a slot, looked at again while rows change.
fn seat(tables: &Tables, service: u32, index: u32) -> Option<(Slot, EndpointRow)> {
    let slot = tables.slot(index)?;
    let row = tables.endpoint(slot.id())?;
    (row.tag == slot.tag() && row.service == service).then_some((slot, row))
}
