//! The tables. Sizes here are placeholders: the daemon sets `max_entries` when it loads the object.
//!
//! Rows that the daemon writes and counters that it reads lie in mmapable arrays: a word is stored or added to in
//! place, never replaced by a copy of the row.

use crate::atomic;
use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::SkStorage,
    helpers::generated::bpf_sk_storage_get,
    macros::{btf_map, map},
    maps::{Array, HashMap},
};
use core::ffi::c_void;
use mesh_common::{
    connection::{Record, Traffic},
    endpoint::{EndpointCounts, EndpointRow, EndpointTimes, Slot},
    histogram::{self, Histogram},
    reason::{Failure, Reason, ServiceCounts},
    select::Rows,
    service::{Policy, ServiceRow, View, VipKey, VipRow},
    settings::Settings,
};

#[map]
static VIPS: HashMap<VipKey, VipRow> = HashMap::with_max_entries(1, 0);
#[map]
static SERVICES: Array<ServiceRow> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static SLOTS: Array<Slot> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static ENDPOINTS: Array<EndpointRow> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static CURSORS: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static SERVICE_COUNTS: Array<ServiceCounts> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static ENDPOINT_COUNTS: Array<EndpointCounts> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static ENDPOINT_TIMES: Array<EndpointTimes> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static BYPASSED: HashMap<u64, u64> = HashMap::with_max_entries(1, 0);
#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[btf_map]
static CONNECTIONS: SkStorage<Record> = SkStorage::new();

/// The service that owns a dialled address, and whether connects to it are left alone.
#[inline(always)]
pub(crate) fn service(key: &VipKey) -> Option<(u32, bool)> {
    let look = || {
        // SAFETY: a pointer into the hash's memory, valid while the program runs; the word may belong to another key
        // by now, which its fingerprint tells.
        let row = unsafe { atomic::read(VIPS.get_ptr(key)?) };
        Some(row.service(key).map(|service| (service, row.is_bypassed())))
    };
    // An entry that was replaced under us has its successor in the table already.
    look()?.or_else(|| look()?)
}

/// What the daemon tells every hook.
#[inline(always)]
pub(crate) fn settings() -> Settings {
    match SETTINGS.get_ptr(0) {
        // SAFETY: words inside the row.
        Some(row) => unsafe {
            Settings {
                flags: atomic::read(&raw const (*row).flags),
                mark: atomic::read(&raw const (*row).mark),
                heartbeat: atomic::read(&raw const (*row).heartbeat),
                stale_after: atomic::read(&raw const (*row).stale_after),
            }
        },
        None => Settings { flags: 0, mark: 0, heartbeat: 0, stale_after: 0 },
    }
}

/// Whether the processes of a cgroup are left alone.
#[inline(always)]
pub(crate) fn is_bypassed(cgroup: u64) -> bool {
    BYPASSED.get_ptr(cgroup).is_some()
}

/// How `service` picks.
#[inline(always)]
pub(crate) fn policy(service: u32) -> Policy {
    // SAFETY: a word inside the row.
    SERVICES
        .get_ptr(service)
        .map_or(Policy::RoundRobin, |row| Policy::from_word(unsafe { atomic::read(&raw const (*row).policy) }))
}

/// The next turn of a service's round robin.
#[inline(always)]
pub(crate) fn turn(service: u32) -> u32 {
    // SAFETY: the row is one word.
    CURSORS.get_ptr_mut(service).map_or(0, |row| unsafe { atomic::add(row, 1) } as u32)
}

/// Counts a connect of `service` that was not simply forwarded.
#[inline(always)]
pub(crate) fn count(service: u32, reason: Reason) {
    if let Some(row) = SERVICE_COUNTS.get_ptr_mut(service) {
        // SAFETY: `reason` numbers a word inside the row.
        unsafe { atomic::add(row.cast::<u64>().add(reason as usize), 1) };
    }
}

/// The counters of endpoint `id`, as long as its row still carries `tag`.
#[inline(always)]
pub(crate) fn endpoint_counts(id: u32, tag: u32) -> Option<*mut EndpointCounts> {
    let row = ENDPOINTS.get_ptr(id)?;
    // SAFETY: a word inside the row.
    if unsafe { atomic::read(&raw const (*row).tag) } != tag {
        return None;
    }
    ENDPOINT_COUNTS.get_ptr_mut(id)
}

/// Adds what a connection carried to its endpoint's counters.
///
/// # Safety
/// `counts` is a row of counters.
#[inline(always)]
pub(crate) unsafe fn add_traffic(counts: *mut EndpointCounts, more: &Traffic) {
    // SAFETY: words inside the row.
    unsafe {
        atomic::add(&raw mut (*counts).sent, more.sent);
        atomic::add(&raw mut (*counts).received, more.received);
        atomic::add(&raw mut (*counts).retransmits, more.retransmits);
    }
}

/// The histograms of endpoint `id`, whose tag was checked.
#[inline(always)]
pub(crate) fn endpoint_times(id: u32) -> Option<*mut EndpointTimes> {
    ENDPOINT_TIMES.get_ptr_mut(id)
}

/// Adds a duration to a histogram.
///
/// # Safety
/// `histogram` lies in a row of histograms.
#[inline(always)]
pub(crate) unsafe fn measure(histogram: *mut Histogram, ns: u64) {
    // SAFETY: the bucket is inside the array, which the minimum tells the verifier; words inside the row.
    unsafe {
        let bucket = histogram::bucket(ns).min(histogram::FINITE);
        atomic::add((&raw mut (*histogram).buckets).cast::<u64>().add(bucket), 1);
        atomic::add(&raw mut (*histogram).sum_ns, ns);
    }
}

/// Counts a failed connect.
///
/// # Safety
/// `counts` is a row of counters.
#[inline(always)]
pub(crate) unsafe fn count_failure(counts: *mut EndpointCounts, failure: Failure) {
    // SAFETY: `failure` numbers a word inside the row. (An index would bring a panic that the verifier refuses.)
    unsafe { atomic::add((&raw mut (*counts).failures).cast::<u64>().add(failure as usize), 1) };
}

/// The record of a socket's connection; null if there is none (and, with `create`, no memory for one).
///
/// # Safety
/// `sk` is the context's socket, not null.
#[inline(always)]
pub(crate) unsafe fn record(sk: *mut c_void, create: u64) -> *mut Record {
    // SAFETY: the helper checks the map and takes a socket; without a value it starts from zeroes.
    unsafe { bpf_sk_storage_get((&raw const CONNECTIONS).cast_mut().cast(), sk, core::ptr::null_mut(), create).cast() }
}

/// The tables, as [`mesh_common::select`] reads them.
pub(crate) struct Tables;

impl Rows for Tables {
    #[inline(always)]
    fn view(&self, service: u32, view: View) -> u64 {
        // SAFETY: `view` numbers a word inside the row.
        SERVICES.get_ptr(service).map_or(0, |row| unsafe { atomic::read(&raw const (*row).views[view as usize]) })
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<Slot> {
        // SAFETY: the row is one word.
        SLOTS.get_ptr(index).map(|row| unsafe { atomic::read(row) })
    }

    #[inline(always)]
    fn endpoint(&self, id: u32) -> Option<EndpointRow> {
        let row = ENDPOINTS.get_ptr(id)?;
        // SAFETY: inside the table. A row that starts another use while it is read shows another tag, before or after:
        // on x86 that alone is enough, elsewhere loads may pass one another and the rest of freed rows is what counts.
        unsafe {
            let tag = atomic::read(&raw const (*row).tag);
            let copy = row.read_volatile();
            (atomic::read(&raw const (*row).tag) == tag && copy.tag == tag).then_some(copy)
        }
    }
}
