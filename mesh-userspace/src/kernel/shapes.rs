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
    [
        Shape {
            name: names::VIPS,
            kind: HASH,
            key: size_of::<VipKey>() as u32,
            value: size_of::<VipRow>() as u32,
            flags: 0,
            entries: with_probe(capacity.vips),
        },
        array(names::SERVICES, size_of::<ServiceRow>(), with_probe(capacity.services)),
        array(names::SLOTS, size_of::<Slot>(), with_probe(capacity.slots)),
        array(names::ENDPOINTS, size_of::<EndpointRow>(), with_probe(capacity.endpoints)),
        array(names::SERVICE_STATES, size_of::<ServiceState>(), with_probe(capacity.services)),
        array(names::ENDPOINT_STATES, size_of::<EndpointState>(), with_probe(capacity.endpoints)),
        array(names::PICKS, size_of::<Picks>(), with_probe(capacity.services)),
        array(names::SERVICE_COUNTS, size_of::<ServiceCounts>(), with_probe(capacity.services)),
        array(names::ENDPOINT_COUNTS, size_of::<EndpointCounts>(), with_probe(capacity.endpoints)),
        array(names::ENDPOINT_TIMES, size_of::<EndpointTimes>(), with_probe(capacity.endpoints)),
        Shape {
            name: names::CLIENTS,
            kind: LRU_HASH,
            key: size_of::<ClientKey>() as u32,
            value: size_of::<ClientRow>() as u32,
            flags: 0,
            entries: MAX_CLIENTS,
        },
        Shape {
            name: names::BYPASSED,
            kind: HASH,
            key: size_of::<u64>() as u32,
            value: size_of::<u64>() as u32,
            flags: 0,
            entries: MAX_BYPASSED,
        },
        array(names::SETTINGS, size_of::<Settings>(), 1),
        Shape {
            name: names::CONNECTIONS,
            kind: SK_STORAGE,
            key: 4,
            value: size_of::<Record>() as u32,
            flags: NO_PREALLOC,
            entries: 0,
        },
        Shape {
            name: names::LISTENERS,
            kind: SOCKHASH,
            key: size_of::<ListenerKey>() as u32,
            value: 4,
            flags: 0,
            entries: MAX_LISTENERS,
        },
        Shape {
            name: names::ORIGINALS,
            kind: LRU_HASH,
            key: size_of::<ClientEnd>() as u32,
            value: size_of::<Original>() as u32,
            flags: 0,
            entries: MAX_ORIGINALS,
        },
    ]
}
