//! What becomes of a translated connection: opened, established or failed, closed, and the bytes it carried.

use crate::{atomic, maps, sock::Tcp};
use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::SockOpsContext};
use core::ffi::c_void;
use mesh_common::{
    addr::Address,
    connection::{Counters, Live, Record, Traffic, entering_means_fin, stage, tcp},
    endpoint::EndpointCounts,
    reason::{Failure, Reason},
};

/// `BPF_SOCK_OPS_TCP_CONNECT_CB`: the local port is chosen, the SYN not yet sent.
pub(crate) const TCP_CONNECT: u32 = 3;
/// `BPF_SOCK_OPS_STATE_CB`: the connection enters another state.
pub(crate) const STATE: u32 = 10;
/// `BPF_SOCK_OPS_STATE_CB_FLAG`: asks for [`STATE`].
const STATE_FLAG: u32 = 4;
const AF_INET: u32 = 2;
/// Where the error of a failed connect is not known, one that ends within this time was refused.
const FAST_NS: u64 = 1_000_000_000;

/// The record of this event's socket, if it was ever translated. It lives as long as the program runs.
#[inline(always)]
fn record(ctx: &SockOpsContext) -> Option<&'static mut Record> {
    // SAFETY: a field of the context.
    let sk = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if sk.is_null() {
        return None;
    }
    // SAFETY: the context's socket, not null; sock_ops runs under the socket's lock, so nobody else holds the record.
    unsafe { maps::record(sk.cast(), 0).as_mut() }
}

/// TCP begins to connect.
#[inline(always)]
pub(crate) fn opening(ctx: &SockOpsContext) {
    let Some(record) = record(ctx) else { return };
    let port = (u32::from_be(ctx.remote_port()) as u16).to_be();
    if record.stage != stage::PICKED || port != record.endpoint_port || remote(ctx) != record.endpoint {
        // The socket that we translated once connects elsewhere now.
        record.stage = stage::NONE;
        return;
    }
    record.stage = stage::OPENING;
    // SAFETY: a helper without arguments.
    record.opened_at = unsafe { bpf_ktime_get_ns() };
    (record.local, record.local_port) = local(ctx, record.endpoint.is_v4());
    // Flags are shared by all programs of the socket: add ours to what is set.
    if ctx.set_cb_flags((ctx.cb_flags() | STATE_FLAG).cast_signed()).is_err() {
        return;
    }
    if let Some(counts) = maps::endpoint_counts(record.id, record.tag) {
        // SAFETY: a word inside the row.
        unsafe { atomic::add(&raw mut (*counts).opened, 1) };
    }
}

/// The connection goes from one TCP state to another.
#[inline(always)]
pub(crate) fn changed(ctx: &SockOpsContext) {
    let (old, new) = (ctx.arg(0), ctx.arg(1));
    let Some(record) = record(ctx) else { return };
    if !is_counted(record) {
        return;
    }
    let counts = maps::endpoint_counts(record.id, record.tag);
    // SAFETY: a field of the context.
    let received = unsafe { (*ctx.ops).bytes_received };
    if entering_means_fin(new) {
        record.fin_received = 1;
    }
    match new {
        tcp::ESTABLISHED => {
            record.stage = stage::ESTABLISHED;
            // SAFETY: a helper without arguments.
            record.established_at = unsafe { bpf_ktime_get_ns() };
            if let Some(counts) = counts {
                // SAFETY: a word inside the row.
                unsafe { atomic::add(&raw mut (*counts).established, 1) };
                if let Some(times) = maps::endpoint_times(record.id) {
                    // SAFETY: inside the row.
                    unsafe { maps::measure(&raw mut (*times).connect, record.established_at - record.opened_at) };
                }
            }
        }
        tcp::FIN_WAIT2 => record.received_at_fin_wait2 = received,
        tcp::CLOSE => {
            if let Some(counts) = counts {
                closed(ctx, record, old, counts);
            }
            record.stage = stage::NONE;
        }
        _ => {}
    }
}

/// Whether `record` is of a connection whose life is counted.
#[inline(always)]
const fn is_counted(record: &Record) -> bool {
    matches!(record.stage, stage::OPENING | stage::ESTABLISHED)
}

/// Adds a connection that ends to its endpoint's counters.
#[inline(always)]
fn closed(ctx: &SockOpsContext, record: &mut Record, old: u32, counts: *mut EndpointCounts) {
    let ops = ctx.ops;
    // SAFETY: fields of the context.
    let sk = unsafe { (*ops).__bindgen_anon_2.sk };
    let tcp = if sk.is_null() { None } else { Tcp::of(sk.cast()) };
    // SAFETY: fields of the context.
    let (at, rtt_us) = unsafe {
        let at = Counters {
            state: old,
            bytes_acked: (*ops).bytes_acked,
            bytes_received: (*ops).bytes_received,
            // What was sent may be acknowledged while the FIN still waits behind data that could not leave.
            all_acknowledged: (*ops).snd_una == tcp.and_then(Tcp::write_seq).unwrap_or((*ops).snd_nxt),
            fin_received: tcp.and_then(Tcp::fin_received),
            retransmits: (*ops).total_retrans,
        };
        (at, (*ops).srtt_us >> 3)
    };
    let more = record.fold(&record.traffic(&at));
    // SAFETY: words inside the row.
    unsafe {
        maps::add_traffic(counts, &more);
        atomic::add(&raw mut (*counts).closed, 1);
    }
    if record.stage == stage::ESTABLISHED {
        if rtt_us > 0
            && let Some(times) = maps::endpoint_times(record.id)
        {
            // SAFETY: inside the row.
            unsafe { maps::measure(&raw mut (*times).rtt, u64::from(rtt_us) * 1000) };
        }
    } else if let Some(failure) = failure(record, tcp) {
        // SAFETY: a row of counters.
        unsafe { maps::count_failure(counts, failure) };
    }
}

/// Why a connection that was never established ended; `None`: our own side gave up.
#[inline(always)]
fn failure(record: &Record, tcp: Option<Tcp>) -> Option<Failure> {
    match tcp.and_then(Tcp::error) {
        Some(errno) => Failure::from_errno(errno),
        // SAFETY: a helper without arguments.
        None => (unsafe { bpf_ktime_get_ns() } - record.picked_at < FAST_NS).then_some(Failure::Refused),
    }
}

/// The record of a socket's live connection with what it carried until now, which is in its endpoint's counters from
/// now on. The caller holds the socket's lock.
#[inline(always)]
pub(crate) fn live(sk: *mut c_void) -> Option<Live> {
    // SAFETY: a socket, not null, locked by the caller.
    let record = unsafe { maps::record(sk, 0).as_mut()? };
    if !is_counted(record) {
        return None;
    }
    let (at, rtt_us) = Tcp::of(sk)?.counters()?;
    let traffic = record.traffic(&at);
    if let Some(counts) = maps::endpoint_counts(record.id, record.tag) {
        let more = record.fold(&traffic);
        if more != Traffic::default() {
            // SAFETY: a row of counters.
            unsafe { maps::add_traffic(counts, &more) };
        }
    }
    Some(Live { record: *record, traffic, state: at.state, rtt_us })
}

/// Settles a socket that was sent to an endpoint and that TCP never heard of: there was no route, or no local port.
///
/// # Safety
/// `record` is a socket's record.
#[inline(always)]
pub(crate) unsafe fn settle(record: *mut Record) {
    // SAFETY: the caller's.
    unsafe {
        if (*record).stage == stage::PICKED {
            (*record).stage = stage::NONE;
            // The service's row may serve another one by now; its endpoint's tag tells.
            if maps::endpoint_counts((*record).id, (*record).tag).is_some() {
                maps::count((*record).service, Reason::LocalTrouble);
            }
        }
    }
}

/// The socket's own address and port (network byte order), as the endpoint sees them on this side of any translation.
#[inline(always)]
fn local(ctx: &SockOpsContext, v4: bool) -> (Address, u16) {
    let ops = ctx.ops;
    // SAFETY: fields of the context, all readable whatever the family; volatile as in `remote`.
    unsafe {
        let port = (&raw const (*ops).local_port).read_volatile();
        let ip4 = (&raw const (*ops).local_ip4).read_volatile();
        let ip6 = (&raw const (*ops).local_ip6).cast::<u32>();
        let words =
            [ip6.read_volatile(), ip6.add(1).read_volatile(), ip6.add(2).read_volatile(), ip6.add(3).read_volatile()];
        (if v4 { Address::v4(ip4) } else { Address::v6(words) }, (port as u16).to_be())
    }
}

/// The peer's address; IPv4 is v4-mapped.
///
/// Both families are read, and volatile: the compiler would make one load at a computed offset of two branches, which
/// the verifier refuses.
#[inline(always)]
fn remote(ctx: &SockOpsContext) -> Address {
    let ops = ctx.ops;
    // SAFETY: fields of the context, all readable whatever the family.
    unsafe {
        let v4 = (&raw const (*ops).remote_ip4).read_volatile();
        let v6 = (&raw const (*ops).remote_ip6).cast::<u32>();
        let words =
            [v6.read_volatile(), v6.add(1).read_volatile(), v6.add(2).read_volatile(), v6.add(3).read_volatile()];
        if (*ops).family == AF_INET { Address::v4(v4) } else { Address::v6(words) }
    }
}
