//! connect(2) to a service address becomes connect(2) to one endpoint; getpeername(2) shows what was dialled.

use crate::{
    account, atomic, capture,
    choose::{Hook, unknown_zero},
    maps, refusal,
    sock::{self, Tcp},
};
use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock, bpf_sock_addr},
    helpers::{
        bpf_ktime_get_ns,
        generated::{
            bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_current_comm,
            bpf_get_current_pid_tgid, bpf_get_netns_cookie, bpf_set_retval,
        },
    },
    programs::SockAddrContext,
};
use aya_log_ebpf::debug;
use core::ffi::c_void;
use mesh_common::{
    addr::Address,
    connection::{Record, Traffic, stage},
    endpoint::EndpointRow,
    reason::Reason,
    select::{self, Rows},
    service::{self, Set, View, VipKey},
    settings::flags,
};

/// Let the kernel go on with the (perhaps rewritten) address.
pub(crate) const PROCEED: i32 = 1;
const ECONNREFUSED: i32 = 111;
/// In place of an endpoint's id.
const TO_THE_DAEMON: u32 = u32::MAX;

/// What a socket dialled, in either family.
pub(crate) struct Dialled {
    /// The address; IPv4 is v4-mapped.
    pub address: Address,
    /// Whether a v4-mapped address means `AF_INET6` here.
    pub v6_socket: bool,
}

/// Translates one connect: rewrites the context's address, or refuses. Anything that is no service passes.
#[inline(always)]
pub(crate) fn connect(ctx: &SockAddrContext, dialled: &Dialled) -> i32 {
    let addr = ctx.sock_addr;
    // SAFETY: fields of the program's own context; the verifier checks each access.
    let (port, protocol) = unsafe { ((*addr).user_port as u16, (*addr).protocol as u8) };
    let key = VipKey { address: dialled.address, port, protocol, zero: 0 };
    // SAFETY: a field of the context.
    let sk = unsafe { (*addr).__bindgen_anon_1.sk };
    // What this socket was up to before, if it was ever sent to an endpoint and TCP is what it speaks.
    let record = match sk.is_null() || protocol != service::TCP {
        true => core::ptr::null_mut(),
        // SAFETY: the context's socket, not null.
        false => unsafe { maps::record(sk.cast(), 0) },
    };
    if !record.is_null() {
        // SAFETY: the socket's record.
        if unsafe { account::is_tracked(record) } {
            return PROCEED;
        }
        // SAFETY: as above.
        unsafe { account::settle(record) };
        // SAFETY: as above. A socket that connects has no connection: an earlier one to the daemon came to nothing.
        unsafe {
            if (*record).stage == stage::CAPTURED {
                (*record).stage = stage::NONE;
            }
        }
        // SAFETY: the socket has a record, so it is not null.
        unsafe { forget_for_peer(sk.cast()) };
    }
    let Some((service, bypassed)) = maps::service(&key) else { return PROCEED };
    match forward(ctx, dialled, &key, service, bypassed, record) {
        Ok(endpoint) => {
            debug!(ctx, "connect: service {} to endpoint {}", service, endpoint);
            PROCEED
        }
        Err(reason) => {
            maps::count(service, reason);
            debug!(ctx, "connect: service {} not forwarded: {}", service, reason.word());
            if !reason.refuses() {
                return PROCEED;
            }
            // SAFETY: the key is what was dialled, and lives as long as this.
            unsafe { refusal::tell(&raw const key, service, reason as u32) };
            // SAFETY: sets what connect(2) returns; 0 alone would mean EPERM.
            unsafe { bpf_set_retval(-ECONNREFUSED) };
            0
        }
    }
}

/// Sends the socket to the daemon or to an endpoint of `service`. Returns the endpoint, or [`TO_THE_DAEMON`].
#[inline(always)]
fn forward(
    ctx: &SockAddrContext,
    dialled: &Dialled,
    key: &VipKey,
    service: u32,
    bypassed: bool,
    record: *mut Record,
) -> Result<u32, Reason> {
    let addr = ctx.sock_addr;
    let settings = maps::settings();
    if bypassed
        || settings.flags & flags::BYPASS != 0
        || (settings.flags & flags::BYPASSED != 0 && is_in_bypassed_cgroup())
    {
        return Err(Reason::Bypass);
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if settings.is_stale(now) {
        return Err(Reason::Stale);
    }
    // SAFETY: a field of the context.
    let sk = unsafe { (*addr).__bindgen_anon_1.sk };
    // SAFETY: checked for null, a field of the context's socket.
    if !sk.is_null() && settings.mark != 0 && u64::from(unsafe { (*sk).mark }) == settings.mark {
        return Err(Reason::Own);
    }
    if settings.flags & flags::OBSERVE != 0 {
        return Err(Reason::Observe);
    }
    let is_bound_to_v4 = dialled.v6_socket && !sk.is_null() && is_bound_to_v4(sk);
    let view = if dialled.address.is_v4() || is_bound_to_v4 || was_sent_to_v4(record) {
        View::V4
    } else if (!sk.is_null() && Tcp::of(sk.cast()).is_some_and(Tcp::is_ipv6_only))
        || maps::Tables.flags(service) & service::flags::SAME_FAMILY != 0
    {
        View::V6
    } else {
        View::Any
    };
    let v4 = matches!(view, View::V4);
    // SAFETY: the hook's context, and the key that lives as long as this.
    match unsafe { capture::connect(addr, key, service, v4, now) } {
        capture::DIRECT => {}
        capture::NO_LISTENER => return Err(Reason::NoListenerRefused),
        capture::DAEMON_DOWN => return Err(Reason::DaemonDownRefused),
        port => {
            set(addr, dialled.v6_socket, &capture::loopback(v4), port as u16);
            return Ok(TO_THE_DAEMON);
        }
    }
    let view = forget(view, now);
    let hook = Hook { ctx, service, v6_socket: dialled.v6_socket, now };
    let select::Choice { slot, entry } = hook.choose(view, &settings)?;
    let row = select::occupant(&maps::Tables, service, slot).ok_or(Reason::StaleRows)?;
    maps::count_pick(service, hook.view(service, Set::All, view), &row);
    if let Some(counts) = maps::endpoint_counts(slot.id(), row.tag) {
        // SAFETY: a word inside the row.
        unsafe { atomic::add(&raw mut (*counts).picked, 1) };
    }
    remember(ctx, key, &Picked { id: slot.id(), row, marks: entry as u32 }, now);
    set(addr, dialled.v6_socket, &row.address, row.port);
    Ok(slot.id())
}

/// `view`, of which the verifier no longer knows which one it is.
#[inline(always)]
fn forget(view: View, now: u64) -> View {
    // SAFETY: the number of a view, combined with 0.
    unsafe { core::mem::transmute::<u8, View>(view as u8 ^ unknown_zero(now) as u8) }
}

/// An endpoint that was picked.
struct Picked {
    id: u32,
    row: EndpointRow,
    /// Of the connection.
    marks: u32,
}

/// Whether an earlier connect of this socket went to an IPv4 endpoint. Linux keeps an `AF_INET6` socket IPv4 from its
/// first v4-mapped connect on, also if that failed: an IPv6 endpoint would time out.
#[inline(always)]
fn was_sent_to_v4(record: *const Record) -> bool {
    // SAFETY: the socket's record, if there is one.
    !record.is_null() && unsafe { (*record).attempt > 0 && (*record).endpoint.is_v4() }
}

/// Whether the calling process is in a cgroup whose processes are left alone, or below one.
#[inline(always)]
fn is_in_bypassed_cgroup() -> bool {
    /// Kubernetes nests pods 4 to 5 deep.
    const DEEPEST: i32 = 16;
    let mut level = 0;
    while level < DEEPEST {
        // SAFETY: a helper that answers 0 beyond the process's own cgroup.
        let cgroup = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
        if cgroup == 0 {
            break;
        }
        if maps::is_bypassed(cgroup) {
            return true;
        }
        level += 1;
    }
    false
}

/// Notes in the socket's storage who dialled what and where it was sent.
#[inline(always)]
fn remember(ctx: &SockAddrContext, key: &VipKey, picked: &Picked, now: u64) {
    let Picked { id, row, marks } = picked;
    let service = row.service;
    // SAFETY: a field of the context.
    let sk: *mut c_void = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk }.cast();
    if sk.is_null() {
        return maps::count(service, Reason::Untracked);
    }
    // Looked up again even where it was found before: kept until here, it would have the verifier go through the choice
    // once with it and once without.
    // SAFETY: the context's socket, not null.
    let record = unsafe { maps::record(sk, u64::from(BPF_SK_STORAGE_GET_F_CREATE)) };
    if record.is_null() {
        return maps::count(service, Reason::Untracked);
    }
    // SAFETY: the helper returned a record; a socket being connected is locked by its owner. The helpers fill what
    // they are given, or answer numbers.
    unsafe {
        (*record).original = key.address;
        (*record).original_port = key.port;
        (*record).endpoint = row.address;
        (*record).endpoint_port = row.port;
        (*record).id = *id;
        (*record).tag = row.tag;
        (*record).service = service;
        (*record).attempt += 1;
        (*record).pid = (bpf_get_current_pid_tgid() >> 32) as u32;
        (*record).cgroup = bpf_get_current_cgroup_id();
        (*record).netns = bpf_get_netns_cookie(ctx.sock_addr.cast());
        let command = &raw mut (*record).command;
        bpf_get_current_comm(command.cast(), size_of::<[u8; 16]>() as u32);
        (*record).picked_at = now;
        (*record).opened_at = 0;
        (*record).established_at = 0;
        (*record).folded = Traffic::default();
        (*record).received_at_fin_wait2 = 0;
        (*record).fin_received = 0;
        (*record).marks = *marks;
        (*record).stage = stage::PICKED;
    }
    let application = sock::application_socket(sk);
    if !application.is_null() {
        remember_for_peer(application, key, row);
    }
}

/// Whether a socket of IPv6 is bound to `::ffff:a.b.c.d`, from where it reaches IPv4 only.
#[inline(always)]
fn is_bound_to_v4(sk: *const bpf_sock) -> bool {
    // SAFETY: fields of the context's socket, which is not null.
    let [first, second, third, _] = unsafe { (*sk).src_ip6 };
    first | second == 0 && third == 0xffff_u32.to_be()
}

/// Notes what getpeername(2) needs at the socket that the application holds, where TCP connects on another (MPTCP).
/// Nothing is counted by this record.
#[inline(always)]
fn remember_for_peer(sk: *mut c_void, key: &VipKey, row: &EndpointRow) {
    // SAFETY: a socket, not null.
    let record = unsafe { maps::record(sk, u64::from(BPF_SK_STORAGE_GET_F_CREATE)) };
    if record.is_null() {
        return;
    }
    // SAFETY: the helper returned a record; the application's socket is locked while it connects.
    unsafe {
        (*record).original = key.address;
        (*record).original_port = key.port;
        (*record).endpoint = row.address;
        (*record).endpoint_port = row.port;
        (*record).stage = stage::SHOWN;
    }
}

/// Undoes [`remember_for_peer`] of an earlier connect, which must not be shown if this one goes elsewhere.
///
/// # Safety
/// `sk` is the context's socket, not null.
#[inline(always)]
unsafe fn forget_for_peer(sk: *mut c_void) {
    let application = sock::application_socket(sk);
    if application.is_null() {
        return;
    }
    // SAFETY: a socket, not null; it is locked while it connects.
    if let Some(record) = unsafe { maps::record(application, 0).as_mut() } {
        record.stage = stage::NONE;
    }
}

/// Writes an address into the context. Volatile: the compiler would merge stores that the verifier wants apart.
#[inline(always)]
fn set(addr: *mut bpf_sock_addr, v6: bool, address: &Address, port: u16) {
    let [a, b, c, d] = address.words;
    // SAFETY: writable fields of the program's own context.
    unsafe {
        if v6 {
            (&raw mut (*addr).user_ip6[0]).write_volatile(a);
            (&raw mut (*addr).user_ip6[1]).write_volatile(b);
            (&raw mut (*addr).user_ip6[2]).write_volatile(c);
            (&raw mut (*addr).user_ip6[3]).write_volatile(d);
        } else {
            (&raw mut (*addr).user_ip4).write_volatile(d);
        }
        (&raw mut (*addr).user_port).write_volatile(u32::from(port));
    }
}

/// Shows the dialled address in place of the endpoint's, if this socket's connection is a translated one.
#[inline(always)]
pub(crate) fn peer(ctx: &SockAddrContext, peer: &Dialled) -> i32 {
    let addr = ctx.sock_addr;
    // SAFETY: a field of the context.
    let sk = unsafe { (*addr).__bindgen_anon_1.sk };
    if sk.is_null() {
        return PROCEED;
    }
    // SAFETY: the context's socket, not null.
    let record = unsafe { maps::record(sk.cast(), 0) };
    if record.is_null() {
        return PROCEED;
    }
    // SAFETY: fields of the record and of the context. A socket that connected elsewhere since has another peer, or a
    // record without a stage.
    unsafe {
        if (*record).stage != stage::NONE
            && (*record).endpoint == peer.address
            && (*record).endpoint_port == (*addr).user_port as u16
        {
            let (original, port) = ((*record).original, (*record).original_port);
            set(addr, peer.v6_socket, &original, port);
        }
    }
    PROCEED
}

/// The dialled address of an `AF_INET` socket.
#[inline(always)]
pub(crate) fn dialled4(ctx: &SockAddrContext) -> Dialled {
    // SAFETY: a field of the context.
    Dialled { address: Address::v4(unsafe { (*ctx.sock_addr).user_ip4 }), v6_socket: false }
}

/// The dialled address of an `AF_INET6` socket.
#[inline(always)]
pub(crate) fn dialled6(ctx: &SockAddrContext) -> Dialled {
    // SAFETY: fields of the context.
    let words = unsafe {
        let ip = &raw const (*ctx.sock_addr).user_ip6;
        [(*ip)[0], (*ip)[1], (*ip)[2], (*ip)[3]]
    };
    Dialled { address: Address::v6(words), v6_socket: true }
}
