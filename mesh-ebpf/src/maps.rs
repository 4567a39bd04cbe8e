//! The tables. Sizes here are placeholders: the daemon sets `max_entries` when it loads the object.
//!
//! Rows that the daemon writes and counters that it reads lie in mmapable arrays: a word is stored or added to in
//! place, never replaced by a copy of the row.

use crate::atomic;
use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, bpf_sock},
    btf_maps::SkStorage,
    helpers::generated::{bpf_map_lookup_elem, bpf_sk_release, bpf_sk_storage_get},
    macros::{btf_map, map},
    maps::{Array, HashMap, LruHashMap, RingBuf, SockHash},
};
use core::ffi::c_void;
use mesh_common::{
    breaker::{Limits, Word},
    capture::{ClientEnd, ListenerKey, Original},
    client::{ClientKey, ClientRow},
    connection::{Record, Traffic},
    endpoint::{EndpointCounts, EndpointRow, EndpointState, EndpointTimes, Picks, Slot, TIERS, marks},
    event::{
        ENDED_BYTES, Ended, MAX_REFUSED, NoListener, Refused, RefusedKey, TELL_AGAIN_NS, Transition, WAKE_BYTES, untold,
    },
    histogram::{self, Histogram},
    reason::{Failure, Reason, ServiceCounts},
    select::{Head, Rows},
    service::{Policy, ServiceRow, ServiceState, Set, Shown, View, VipKey, VipRow},
    settings::{Settings, flags},
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
static SERVICE_STATES: Array<ServiceState> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static ENDPOINT_STATES: Array<EndpointState> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static SERVICE_COUNTS: Array<ServiceCounts> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static PICKS: Array<Picks> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static ENDPOINT_COUNTS: Array<EndpointCounts> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static ENDPOINT_TIMES: Array<EndpointTimes> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static CLIENTS: LruHashMap<ClientKey, ClientRow> = LruHashMap::with_max_entries(1, 0);
/// Thousands of transitions: more than come while the daemon looks away for a moment.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);
#[map]
static ENDED: RingBuf = RingBuf::with_byte_size(ENDED_BYTES, 0);
#[map]
static REFUSED: HashMap<RefusedKey, Refused> = HashMap::with_max_entries(MAX_REFUSED, 0);
#[map]
static UNTOLD: Array<u64> = Array::with_max_entries(untold::COUNT, 0);
#[map]
static BYPASSED: HashMap<u64, u64> = HashMap::with_max_entries(1, 0);
#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[btf_map]
static CONNECTIONS: SkStorage<Record> = SkStorage::new();
#[map]
static LISTENERS: SockHash<ListenerKey> = SockHash::with_max_entries(1, 0);
#[map]
static ORIGINALS: LruHashMap<ClientEnd, Original> = LruHashMap::with_max_entries(1, 0);
/// Namespaces beyond these are told of too often, which costs no more than the telling.
#[map]
static TOLD: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1024, 0);

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
                heartbeat_timeout: atomic::read(&raw const (*row).heartbeat_timeout),
                netns: atomic::read(&raw const (*row).netns),
                workers: atomic::read(&raw const (*row).workers),
            }
        },
        None => {
            Settings { flags: 0, mark: 0, heartbeat: 0, stale_after: 0, heartbeat_timeout: 0, netns: 0, workers: 0 }
        }
    }
}

/// Whether the processes of a cgroup are left alone.
#[inline(always)]
pub(crate) fn is_bypassed(cgroup: u64) -> bool {
    BYPASSED.get_ptr(cgroup).is_some()
}

/// What the kernel remembers about `service`.
#[inline(always)]
pub(crate) fn service_state(service: u32) -> Option<*mut ServiceState> {
    SERVICE_STATES.get_ptr_mut(service)
}

/// What the kernel remembers about endpoint `id`.
#[inline(always)]
pub(crate) fn endpoint_state(id: u32) -> Option<*mut EndpointState> {
    ENDPOINT_STATES.get_ptr_mut(id)
}

/// When circuits of `service` open, and for how long.
#[inline(always)]
pub(crate) fn limits(service: u32) -> Limits {
    // SAFETY: inside the row; its words may be of two changes, each of which makes sense.
    SERVICES.get_ptr(service).map_or(NO_LIMITS, |row| unsafe { (&raw const (*row).limits).read_volatile() })
}

/// Of a service that does not exist: nothing opens.
const NO_LIMITS: Limits = Limits {
    failure_threshold: 0,
    half_open: 1,
    reset_ms: 0,
    max_reset_ms: 0,
    lease_ms: 0,
    probe_interval_ms: 0,
    max_open: 0,
    endpoints: 0,
};

/// How long a connect to `service` may take, in milliseconds; 0: as long as the kernel tries.
#[inline(always)]
pub(crate) fn connect_timeout_ms(service: u32) -> u32 {
    // SAFETY: inside the row.
    SERVICES.get_ptr(service).map_or(0, |row| unsafe { (&raw const (*row).connect_timeout_ms).read_volatile() })
}

/// For how long a client comes back to its endpoint of `service`, in milliseconds; 0: not at all.
#[inline(always)]
pub(crate) fn affinity_ms(service: u32) -> u32 {
    // SAFETY: inside the row.
    SERVICES.get_ptr(service).map_or(0, |row| unsafe { (&raw const (*row).affinity_ms).read_volatile() })
}

/// Where a client went last, and when.
#[inline(always)]
pub(crate) fn client(key: &ClientKey) -> Option<*mut ClientRow> {
    CLIENTS.get_ptr_mut(key)
}

/// Remembers where a client went. Where there is no memory it is not remembered.
#[inline(always)]
pub(crate) fn remember_client(key: &ClientKey, row: &ClientRow) {
    let _ = CLIENTS.insert(key, row, 0);
}

/// Tells the daemon of a transition; one for which there is no room is only counted.
#[inline(always)]
pub(crate) fn tell(transition: &Transition) {
    let _ = EVENTS.output::<Transition>(transition, 0);
}

/// How many connections the daemon wants to hear the end of: [`flags::LOGGED`].
#[inline(always)]
pub(crate) fn logged() -> u32 {
    // SAFETY: a word inside the row.
    SETTINGS
        .get_ptr(0)
        .map_or(0, |row| unsafe { (atomic::read(&raw const (*row).flags) >> flags::LOGGED_SHIFT) as u32 })
}

/// Tells the daemon that a connection ended. If there is no room, that is counted.
#[inline(always)]
pub(crate) fn tell_ended(record: &Record, traffic: &Traffic, at: u64, (state, rtt_us, error): (u32, u32, i32)) {
    /// `BPF_RB_AVAIL_DATA`, `BPF_RB_NO_WAKEUP` and `BPF_RB_FORCE_WAKEUP` of include/uapi/linux/bpf.h.
    const WAITING: u64 = 0;
    const QUIETLY: u64 = 1;
    const WAKE: u64 = 2;
    let Some(mut room) = ENDED.reserve::<Ended>(0) else {
        return count_untold(untold::ENDED);
    };
    let row = room.as_mut_ptr();
    // SAFETY: fields of the row that was reserved, each of which is set. In place: it is too large for the stack.
    unsafe {
        (&raw mut (*row).record).write(*record);
        (&raw mut (*row).traffic).write(*traffic);
        (&raw mut (*row).at).write(at);
        (&raw mut (*row).state).write(state);
        (&raw mut (*row).rtt_us).write(rtt_us);
        (&raw mut (*row).error).write(error);
        (&raw mut (*row).zero).write(0);
    }
    room.submit(if ENDED.query(WAITING) < WAKE_BYTES { QUIETLY } else { WAKE });
}

/// Counts what there was no room to tell of, by the number of a word.
#[inline(always)]
pub(crate) fn count_untold(word: u32) {
    if let Some(count) = UNTOLD.get_ptr_mut(word) {
        // SAFETY: the value is one word.
        unsafe { atomic::add(count, 1) };
    }
}

/// What was refused under `key` since the daemon looked last.
#[inline(always)]
pub(crate) fn refused(key: &RefusedKey) -> Option<*mut Refused> {
    REFUSED.get_ptr_mut(key)
}

/// Begins a row of what is refused; whether there was room, and nobody else did so meanwhile.
#[inline(always)]
pub(crate) fn begin_refused(key: &RefusedKey, row: &Refused) -> bool {
    /// `BPF_NOEXIST` of include/uapi/linux/bpf.h.
    const NEW: u64 = 1;
    REFUSED.insert(key, row, NEW).is_ok()
}

/// Where the daemon listens: a port in network byte order, 0 where it does not.
#[inline(always)]
pub(crate) fn listener_port(key: &ListenerKey) -> u16 {
    // SAFETY: the helper takes a map and a key of its size, and answers a socket that is held, or null.
    unsafe {
        let map = (&raw const LISTENERS).cast_mut().cast();
        let sk = bpf_map_lookup_elem(map, core::ptr::from_ref(key).cast()).cast::<bpf_sock>();
        if sk.is_null() {
            return 0;
        }
        let port = (&raw const (*sk).src_port).read_volatile();
        bpf_sk_release(sk.cast());
        (port as u16).to_be()
    }
}

/// Whether the daemon was not told of this network namespace for a moment. It counts as told now.
#[inline(always)]
pub(crate) fn is_to_be_told(netns: u64, now: u64) -> bool {
    if let Some(row) = TOLD.get_ptr_mut(netns) {
        // SAFETY: the value is one word.
        unsafe {
            let at = atomic::read(row);
            return now.saturating_sub(at) >= TELL_AGAIN_NS && atomic::swap(row, at, now);
        }
    }
    // Where there is no memory it is told each time.
    let _ = TOLD.insert(netns, now, 0);
    true
}

/// Tells the daemon that it does not listen where it could. If there is no room, the next connect does.
#[inline(always)]
pub(crate) fn tell_no_listener(event: &NoListener) {
    let _ = EVENTS.output::<NoListener>(event, 0);
}

/// Keeps what the client at `end` dialled; whether there was memory for it.
#[inline(always)]
pub(crate) fn put_original(end: &ClientEnd, original: &Original) -> bool {
    ORIGINALS.insert(end, original, 0).is_ok()
}

/// Forgets what the client at `end` dialled.
#[inline(always)]
pub(crate) fn forget_original(end: &ClientEnd) {
    let _ = ORIGINALS.remove(end);
}

/// Counts a pick of an endpoint. `view` is the word of a view, read again: a policy that the choice knew would have the
/// verifier go through the rest of the hook once for each.
#[inline(always)]
pub(crate) fn count_pick(service: u32, view: u64, row: &EndpointRow) {
    let policy = bounded((view >> Shown::POLICY_SHIFT) as usize & 3, Policy::COUNT);
    let tier = bounded((row.marks & marks::TIER) as usize, TIERS);
    if let Some(row) = PICKS.get_ptr_mut(service) {
        // SAFETY: a word inside the row.
        unsafe { atomic::add(row.cast::<u64>().add(policy * TIERS + tier), 1) };
    }
}

/// `index`, which is below `count`. The compiler knows that of the values of an enum and takes every check away, and the
/// verifier, which wants to see one, does not know it: volatile, so that the compiler forgets.
#[inline(always)]
fn bounded(index: usize, count: usize) -> usize {
    // SAFETY: a local.
    unsafe { (&raw const index).read_volatile() }.min(count - 1)
}

/// Counts a connect of `service` that was not simply forwarded.
#[inline(always)]
pub(crate) fn count(service: u32, reason: Reason) {
    if let Some(row) = SERVICE_COUNTS.get_ptr_mut(service) {
        // SAFETY: `reason` numbers a word inside the row.
        unsafe { atomic::add(row.cast::<u64>().add(bounded(reason as usize, Reason::COUNT)), 1) };
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

/// Whether endpoint `id` is the one that `tag` names, and serves.
#[inline(always)]
pub(crate) fn is_used(id: u32, tag: u32) -> bool {
    // SAFETY: words inside the row.
    ENDPOINTS.get_ptr(id).is_some_and(|row| unsafe {
        atomic::read(&raw const (*row).tag) == tag && atomic::read(&raw const (*row).used) == 1
    })
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

impl Tables {
    /// The `index`th word of a service's views.
    #[inline(always)]
    pub(crate) fn view_at(&self, service: u32, index: usize) -> u64 {
        let word = bounded(index, Set::ALL.len() * View::ALL.len());
        // SAFETY: a word inside the row.
        SERVICES
            .get_ptr(service)
            .map_or(0, |row| unsafe { atomic::read((&raw const (*row).views).cast::<u64>().add(word)) })
    }
}

impl Rows for Tables {
    #[inline(always)]
    fn view(&self, service: u32, set: Set, view: View) -> u64 {
        self.view_at(service, set as usize * View::ALL.len() + view as usize)
    }

    #[inline(always)]
    fn flags(&self, service: u32) -> u64 {
        // SAFETY: a word inside the row.
        SERVICES.get_ptr(service).map_or(0, |row| unsafe { atomic::read(&raw const (*row).flags) })
    }

    #[inline(always)]
    fn head(&self, id: u32) -> Option<Head> {
        let row = ENDPOINTS.get_ptr(id)?;
        // SAFETY: inside the row. The tag is read last: a row that starts another use shows no tag before it is whole.
        unsafe {
            let (service, weight) = (atomic::read(&raw const (*row).service), atomic::read(&raw const (*row).weight));
            let marks = atomic::read(&raw const (*row).marks);
            Some(Head { tag: atomic::read(&raw const (*row).tag), service, weight, marks })
        }
    }

    #[inline(always)]
    fn circuit(&self, id: u32) -> Word {
        // SAFETY: a word inside the row.
        endpoint_state(id).map_or(Word(0), |row| Word(unsafe { atomic::read(&raw const (*row).circuit) }))
    }

    #[inline(always)]
    fn active(&self, id: u32) -> u64 {
        // SAFETY: words inside the row. A connection that ends in between counts as one that is not there.
        ENDPOINT_COUNTS.get_ptr(id).map_or(0, |row| unsafe {
            let closed = atomic::read(&raw const (*row).closed);
            atomic::read(&raw const (*row).opened).saturating_sub(closed)
        })
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
