//! Connects to HTTP services go to the daemon, which listens in the client's own network namespace.

use crate::{
    maps::{self, Tables},
    sock,
};
use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock_addr},
    helpers::generated::{bpf_get_current_pid_tgid, bpf_get_netns_cookie},
};
use mesh_common::{
    addr::Address,
    capture::{AF_INET, AF_INET6, ClientEnd, ListenerKey, Original},
    connection::{Record, stage, tcp},
    event::NoListener,
    reason::Reason,
    select::Rows,
    service::{VipKey, flags},
};

/// What [`connect`] answers: the connect goes to an endpoint.
pub(crate) const DIRECT: u32 = 0;
/// It is refused: the daemon does not listen. Above all ports.
pub(crate) const NO_LISTENER: u32 = 1 << 16;
/// It is refused: the daemon takes no connections.
pub(crate) const DAEMON_DOWN: u32 = 2 << 16;

/// The id of no endpoint.
const NO_ENDPOINT: u32 = u32::MAX;

/// Prepares a socket that dialled `key` for the daemon, if `service` is one that goes through it, and the daemon listens.
/// Answers at which port of [`loopback`] (network byte order), else what becomes of the connect.
///
/// A function of its own that answers a number: the verifier goes through the choice of an endpoint only once,
/// whatever was found here.
///
/// # Safety
/// `addr` is the connect hook's context, `key` what was dialled.
#[inline(never)]
pub(crate) unsafe fn connect(addr: *mut bpf_sock_addr, key: *const VipKey, service: u32, v4: bool, now: u64) -> u32 {
    let terms = Tables.flags(service);
    if terms & flags::PROXIED == 0 {
        return DIRECT;
    }
    let refuse = terms & flags::REFUSE_ALONE != 0;
    if !maps::settings().takes_connections(now) {
        return passed(service, refuse, Reason::DaemonDown, DAEMON_DOWN);
    }
    // SAFETY: the caller's; fields of the context.
    let (netns, sk) = unsafe { (bpf_get_netns_cookie(addr.cast()), (*addr).__bindgen_anon_1.sk) };
    // SAFETY: checked for null, a field of the context's socket.
    if sk.is_null() || unsafe { (*sk).bound_dev_if } != 0 {
        // The daemon is at a loopback address, which no other device leads to.
        return passed(service, refuse, Reason::NoListener, NO_LISTENER);
    }
    let family = if v4 { AF_INET } else { AF_INET6 };
    let port = maps::listener_port(&ListenerKey::new(netns, family));
    if port == 0 {
        if maps::is_to_be_told(netns, now) {
            // SAFETY: a helper without arguments.
            let pid = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
            maps::tell_no_listener(&NoListener { netns, pid, zero: 0 });
        }
        return passed(service, refuse, Reason::NoListener, NO_LISTENER);
    }
    let listener = loopback(v4);
    // SAFETY: the context's socket, not null.
    let record = unsafe { maps::record(sk.cast(), u64::from(BPF_SK_STORAGE_GET_F_CREATE)) };
    if record.is_null() {
        // Nobody would know what was dialled. That there is no memory is counted on the way to an endpoint.
        return DIRECT;
    }
    // SAFETY: the helper returned a record; a socket being connected is locked by its owner.
    unsafe {
        note(record, key, &listener, port);
        (*record).id = NO_ENDPOINT;
        (*record).tag = 0;
        (*record).service = service;
        (*record).attempt += 1;
        (*record).netns = netns;
        (*record).picked_at = now;
        (*record).opened_at = 0;
        (*record).marks = 0;
        (*record).stage = stage::CAPTURED;
    }
    let application = sock::application_socket(sk.cast());
    if !application.is_null() {
        // SAFETY: a socket, not null.
        let record = unsafe { maps::record(application, u64::from(BPF_SK_STORAGE_GET_F_CREATE)) };
        if !record.is_null() {
            // SAFETY: as above.
            unsafe {
                note(record, key, &listener, port);
                (*record).stage = stage::SHOWN;
            }
        }
    }
    u32::from(port)
}

/// Where the daemon listens: 127.0.0.1 or ::1.
#[inline(always)]
pub(crate) const fn loopback(v4: bool) -> Address {
    if v4 { Address::v4(0x7f00_0001_u32.to_be()) } else { Address::v6([0, 0, 0, 1_u32.to_be()]) }
}

/// What getpeername(2) needs.
///
/// # Safety
/// `record` is a socket's record, `key` what it dialled.
#[inline(always)]
unsafe fn note(record: *mut Record, key: *const VipKey, listener: &Address, port: u16) {
    // SAFETY: the caller's.
    unsafe {
        (*record).original = (*key).address;
        (*record).original_port = (*key).port;
        (*record).endpoint = *listener;
        (*record).endpoint_port = port;
    }
}

/// The daemon is passed by, or missed.
#[inline(always)]
fn passed(service: u32, refuse: bool, reason: Reason, refused: u32) -> u32 {
    if refuse {
        return refused;
    }
    maps::count(service, reason);
    DIRECT
}

/// TCP begins to connect to the daemon: what was dialled is kept under the client's address, which is known now, until
/// the daemon takes the connection.
///
/// # Safety
/// `record` is a socket's record.
#[inline(never)]
pub(crate) unsafe fn opening(record: *mut Record) {
    // SAFETY: the caller's.
    let (end, original) = unsafe {
        let vip = VipKey::tcp((*record).original, (*record).original_port);
        (end(record), Original { vip, service: (*record).service })
    };
    if !maps::put_original(&end, &original) {
        maps::count(original.service, Reason::Untracked);
    }
}

/// A connection to the daemon ended. What was dialled is forgotten, unless the daemon may not have taken the connection
/// yet: a client that has said all that it wanted to may be gone before.
///
/// # Safety
/// `record` is a socket's record.
#[inline(never)]
pub(crate) unsafe fn closed(record: *mut Record, old: u32) {
    if old != tcp::FIN_WAIT2 {
        // SAFETY: the caller's.
        maps::forget_original(&unsafe { end(record) });
    }
}

/// # Safety
/// `record` is a socket's record.
#[inline(always)]
unsafe fn end(record: *const Record) -> ClientEnd {
    // SAFETY: the caller's.
    unsafe { ClientEnd::new((*record).netns, (*record).local, (*record).local_port) }
}
