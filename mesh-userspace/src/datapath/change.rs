//! What can be written to the tables, and what does not fit.

use mesh_common::{
    endpoint::{EndpointRow, Slot},
    service::{ServiceRow, Set, Shown, View, VipKey},
};
use std::net::SocketAddr;

/// How many rows each table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Service rows.
    pub services: u32,
    /// VIPs.
    pub vips: u32,
    /// Endpoint rows.
    pub endpoints: u32,
    /// Slots.
    pub slots: u32,
}

/// One write to the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Starts the use of an endpoint row.
    Endpoint(u32, EndpointRow),
    /// An endpoint row that was freed serves the same endpoint of the same service again: what it has counted goes on.
    Again(u32, EndpointRow),
    /// Fills slots from this index on.
    Slots(u32, Vec<Slot>),
    /// Starts the use of a service row.
    Service(u32, ServiceRow),
    /// Shows other slots, or picks among them in another way.
    View(u32, Set, View, Shown),
    /// Changes what holds for a service besides its views.
    Terms(u32, ServiceRow),
    /// Says how much an endpoint weighs, and its marks.
    Weigh(u32, u16, u16),
    /// An address is no VIP any more.
    NoVip(VipKey),
    /// Leads a VIP to a service.
    Vip(VipKey, u32),
    /// Ends the use of a service row.
    FreeService(u32),
    /// Ends the use of an endpoint row.
    FreeEndpoint(u32),
}

/// Something that did not fit. Traffic goes on with what did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// No service row is free.
    #[error("service {0:?} is not intercepted: all {1} service rows are in use; raise dataplane.max_services")]
    NoServiceRow(String, u32),
    /// No endpoint row is free.
    #[error(
        "endpoint {1} of service {0:?} gets no connections: all {2} endpoint rows are in use; raise dataplane.max_endpoints"
    )]
    NoEndpointRow(String, SocketAddr, u32),
    /// The arena has no range of this length.
    #[error(
        "service {0:?} stays as it is in the kernel, or out of it: no {1} slots are free in one piece; raise \
         dataplane.max_slots if this stays"
    )]
    NoSlots(String, u32),
    /// The VIP table is full.
    #[error("VIP {1} of service {0:?} is not intercepted: all {2} VIP rows are in use; raise dataplane.max_services")]
    NoVipRow(String, SocketAddr, u32),
    /// Two names have one hash.
    #[error("service {0:?} is not intercepted: its name has the same hash as another service's; rename it")]
    SameHash(String),
}

/// The writes that lead from what the tables hold to a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be done in this order.
    pub changes: Vec<Change>,
    /// What did not fit.
    pub problems: Vec<Problem>,
    /// When to plan again, if something may fit once freed rows have rested (same clock as the plan's `now`).
    pub again_at: Option<u64>,
}

/// What an earlier daemon left in the tables.
pub struct Found<'a> {
    /// VIPs and their services.
    pub vips: &'a [(VipKey, u32)],
    /// Used service rows.
    pub services: &'a [(u32, ServiceRow)],
    /// Used endpoint rows.
    pub endpoints: &'a [(u32, EndpointRow)],
    /// The highest tag in any row.
    pub highest_tag: u32,
}
