//! Fields of kernel sockets that no context shows, read at offsets that the daemon takes from the kernel's BTF.
//!
//! An offset of 0 means that the daemon did not find the field: the reader says "not known".

use aya_ebpf::{
    Global,
    helpers::generated::{bpf_skc_to_mptcp_sock, bpf_skc_to_tcp_sock},
};
use core::ffi::c_void;

/// Offset of `sk_err` in `struct sock`.
#[unsafe(no_mangle)]
static OFFSET_SK_ERR: Global<u32> = Global::new(0);
/// Offset of `skc_flags` in `struct sock_common`, which begins `struct sock`.
#[unsafe(no_mangle)]
static OFFSET_SK_FLAGS: Global<u32> = Global::new(0);
/// Offset of `write_seq` in `struct tcp_sock`.
#[unsafe(no_mangle)]
static OFFSET_WRITE_SEQ: Global<u32> = Global::new(0);
/// Offset of the byte that holds `skc_ipv6only` in `struct sock_common`.
#[unsafe(no_mangle)]
static OFFSET_IPV6ONLY: Global<u32> = Global::new(0);
/// The bit in that byte.
#[unsafe(no_mangle)]
static MASK_IPV6ONLY: Global<u32> = Global::new(0);

/// 1 where the kernel knows MPTCP; a kernel without it refuses the helper.
#[unsafe(no_mangle)]
static HAS_MPTCP: Global<u32> = Global::new(0);

/// The socket that the application holds, if `sk` is only a subflow of it (MPTCP); else null.
#[inline(always)]
pub(crate) fn application_socket(sk: *mut c_void) -> *mut c_void {
    if HAS_MPTCP.load() == 0 {
        return core::ptr::null_mut();
    }
    // SAFETY: the helper checks the socket.
    unsafe { bpf_skc_to_mptcp_sock(sk) }.cast()
}

/// Whether the socket takes no v4-mapped addresses (`IPV6_V6ONLY`). Not known: no.
#[inline(always)]
pub(crate) fn is_ipv6_only(sk: *mut c_void) -> bool {
    let offset = OFFSET_IPV6ONLY.load();
    if offset == 0 {
        return false;
    }
    // SAFETY: the helper checks the socket; the load is checked by the verifier against the kernel's own types.
    unsafe {
        let tcp = bpf_skc_to_tcp_sock(sk).cast::<u8>();
        !tcp.is_null() && u32::from(tcp.add(offset as usize).read_volatile()) & MASK_IPV6ONLY.load() != 0
    }
}

/// Whether the peer's FIN was received, `None` where it is not known: TCP sets `SOCK_DONE` when it takes a FIN, and
/// only then.
#[inline(always)]
pub(crate) fn fin_received(sk: *mut c_void) -> Option<bool> {
    /// `SOCK_DONE` of `enum sock_flags` in include/net/sock.h, a bit number.
    const DONE: u32 = 1;
    let offset = OFFSET_SK_FLAGS.load();
    if offset == 0 {
        return None;
    }
    // SAFETY: as above.
    unsafe {
        let tcp = bpf_skc_to_tcp_sock(sk).cast::<u8>();
        if tcp.is_null() {
            None
        } else {
            Some(tcp.add(offset as usize).cast::<u64>().read_volatile() & (1 << DONE) != 0)
        }
    }
}

/// The sequence number behind all that the socket was given to send, its FIN included; `None` where it is not known.
#[inline(always)]
pub(crate) fn write_seq(sk: *mut c_void) -> Option<u32> {
    let offset = OFFSET_WRITE_SEQ.load();
    if offset == 0 {
        return None;
    }
    // SAFETY: as above.
    unsafe {
        let tcp = bpf_skc_to_tcp_sock(sk).cast::<u8>();
        if tcp.is_null() { None } else { Some(tcp.add(offset as usize).cast::<u32>().read_volatile()) }
    }
}

/// The socket's pending error (`sk_err`), `None` where it is not known.
#[inline(always)]
pub(crate) fn error(sk: *mut c_void) -> Option<i32> {
    let offset = OFFSET_SK_ERR.load();
    if offset == 0 {
        return None;
    }
    // SAFETY: as above.
    unsafe {
        let tcp = bpf_skc_to_tcp_sock(sk).cast::<u8>();
        if tcp.is_null() { None } else { Some(tcp.add(offset as usize).cast::<i32>().read_volatile()) }
    }
}
