//! What becomes of a translated connection: opened, established or failed, closed, and the bytes it carried.

use crate::{atomic, maps, sock};
use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::SockOpsContext};
use mesh_common::{
    addr::Address,
    connection::{AtClose, Record, entering_means_fin, stage, tcp},
    endpoint::EndpointCounts,
    reason::Failure,
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
    if record.stage < stage::OPENING {
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
            if let Some(counts) = counts {
                // SAFETY: a word inside the row.
                unsafe { atomic::add(&raw mut (*counts).established, 1) };
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

/// Adds a connection that ends to its endpoint's counters.
#[inline(always)]
fn closed(ctx: &SockOpsContext, record: &Record, old: u32, counts: *mut EndpointCounts) {
    let ops = ctx.ops;
    // SAFETY: fields of the context.
    let (at, retransmits, sk) = unsafe {
        let sk = (*ops).__bindgen_anon_2.sk;
        let at = AtClose {
            old,
            bytes_acked: (*ops).bytes_acked,
            bytes_received: (*ops).bytes_received,
            // What was sent may be acknowledged while the FIN still waits behind data that could not leave.
            all_acknowledged: (*ops).snd_una == known(sk.cast(), sock::write_seq).unwrap_or((*ops).snd_nxt),
            fin_received: known(sk.cast(), sock::fin_received),
        };
        (at, u64::from((*ops).total_retrans), sk)
    };
    let (sent, received) = record.bytes(&at);
    let failure = if record.stage == stage::OPENING { failure(record, sk.cast()) } else { None };
    // SAFETY: words inside the row.
    unsafe {
        if let Some(failure) = failure {
            maps::count_failure(counts, failure);
        }
        atomic::add(&raw mut (*counts).sent, sent);
        atomic::add(&raw mut (*counts).received, received);
        atomic::add(&raw mut (*counts).retransmits, retransmits);
        atomic::add(&raw mut (*counts).closed, 1);
    }
}

/// Asks a socket, if there is one.
#[inline(always)]
fn known<T>(sk: *mut core::ffi::c_void, ask: fn(*mut core::ffi::c_void) -> Option<T>) -> Option<T> {
    if sk.is_null() { None } else { ask(sk) }
}

/// Why a connection that was never established ended; `None`: our own side gave up.
#[inline(always)]
fn failure(record: &Record, sk: *mut core::ffi::c_void) -> Option<Failure> {
    match known(sk, sock::error) {
        Some(errno) => Failure::from_errno(errno),
        // SAFETY: a helper without arguments.
        None => (unsafe { bpf_ktime_get_ns() } - record.picked_at < FAST_NS).then_some(Failure::Refused),
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
