//! How large each table is, and what is in it.

use super::{pins::Shape, probe_rows::PROBE_ROWS, tables::MAX_ORIGINALS};
use mesh_common::{
    capture::{ClientEnd, ListenerKey, Original},
    client::{ClientKey, ClientRow},
    connection::Record,
    endpoint::{EndpointCounts, EndpointRow, EndpointState, EndpointTimes, Picks, Slot},
    names,
    reason::ServiceCounts,
    service::{ServiceRow, ServiceState, VipKey, VipRow},
    settings::Settings,
};

/// How much the tables hold. Kernel memory: 96 bytes a VIP, 424 a service, 496 an endpoint, 8 a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Services.
    pub services: u32,
    /// VIPs of all services.
    pub vips: u32,
    /// Endpoints of all services.
    pub endpoints: u32,
    /// Slots of all services; twice the needed number, because a changed range is written beside the old one.
    pub slots: u32,
}

/// Cgroups that `dataplane.bypass` can name.
pub const MAX_BYPASSED: u32 = 1024;

/// Clients of services with affinity that are remembered, 4 MiB of kernel memory; the least recently seen go first.
const MAX_CLIENTS: u32 = 32_768;

/// Listeners of the daemon: of both families in half as many network namespaces. Memory is taken as they come.
const MAX_LISTENERS: u32 = 8192;

/// Every table, as a daemon with this capacity wants it.
pub(super) fn shapes(capacity: &Capacity) -> [Shape; 16] {
    let with_probe = |rows: u32| rows.saturating_add(PROBE_ROWS);
    // enum bpf_map_type and flags of include/uapi/linux/bpf.h.
    const HASH: u32 = 1;
    const ARRAY: u32 = 2;
    const LRU_HASH: u32 = 9;
    const SOCKHASH: u32 = 18;
    const SK_STORAGE: u32 = 24;
    const NO_PREALLOC: u32 = 1;
    const MMAPABLE: u32 = 1024;
    let array = |name, value: usize, entries| Shape {
        name,
        kind: ARRAY,
        key: 4,
        value: value as u32,
        flags: MMAPABLE,
        entries,
    };
    let hash = |name, kind, key: usize, value: usize, entries| Shape {
        name,
        kind,
        key: key as u32,
        value: value as u32,
        flags: 0,
        entries,
    };
    [
        hash(names::VIPS, HASH, size_of::<VipKey>(), size_of::<VipRow>(), with_probe(capacity.vips)),
        array(names::SERVICES, size_of::<ServiceRow>(), with_probe(capacity.services)),
        array(names::SLOTS, size_of::<Slot>(), with_probe(capacity.slots)),
        array(names::ENDPOINTS, size_of::<EndpointRow>(), with_probe(capacity.endpoints)),
        array(names::SERVICE_STATES, size_of::<ServiceState>(), with_probe(capacity.services)),
        array(names::ENDPOINT_STATES, size_of::<EndpointState>(), with_probe(capacity.endpoints)),
        array(names::PICKS, size_of::<Picks>(), with_probe(capacity.services)),
        array(names::SERVICE_COUNTS, size_of::<ServiceCounts>(), with_probe(capacity.services)),
        array(names::ENDPOINT_COUNTS, size_of::<EndpointCounts>(), with_probe(capacity.endpoints)),
        array(names::ENDPOINT_TIMES, size_of::<EndpointTimes>(), with_probe(capacity.endpoints)),
        hash(names::CLIENTS, LRU_HASH, size_of::<ClientKey>(), size_of::<ClientRow>(), MAX_CLIENTS),
        hash(names::BYPASSED, HASH, size_of::<u64>(), size_of::<u64>(), MAX_BYPASSED),
        array(names::SETTINGS, size_of::<Settings>(), 1),
        Shape {
            name: names::CONNECTIONS,
            kind: SK_STORAGE,
            key: 4,
            value: size_of::<Record>() as u32,
            flags: NO_PREALLOC,
            entries: 0,
        },
        hash(names::LISTENERS, SOCKHASH, size_of::<ListenerKey>(), 4, MAX_LISTENERS),
        hash(names::ORIGINALS, LRU_HASH, size_of::<ClientEnd>(), size_of::<Original>(), MAX_ORIGINALS),
    ]
}
