//! A look at all TCP sockets of a network namespace, whenever userspace reads the iterator.

use crate::account;
use aya_ebpf::helpers::generated::bpf_seq_write;
use core::ffi::c_void;
use mesh_common::connection::Live;

/// `struct bpf_iter__tcp`: what the kernel shows a program of this kind.
#[repr(C)]
pub(crate) struct Context {
    meta: *mut Meta,
    sk: *mut c_void,
}

/// `struct bpf_iter_meta`, its head.
#[repr(C)]
struct Meta {
    seq: *mut c_void,
}

/// Brings the counters of a socket's endpoint up to now, and tells of the connection. The kernel holds the socket's
/// lock (since 5.15).
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub(crate) extern "C" fn mesh_live(ctx: *mut Context) -> i32 {
    // SAFETY: the kernel's context; the socket is null after the last one.
    let (meta, sk) = unsafe { ((*ctx).meta, (*ctx).sk) };
    if sk.is_null() {
        return 0;
    }
    if let Some(live) = account::live(sk) {
        // SAFETY: the row is plain bytes. If it does not fit the kernel shows the socket again, which folds nothing
        // more.
        unsafe { bpf_seq_write((*meta).seq.cast(), (&raw const live).cast_mut().cast(), size_of::<Live>() as u32) };
    }
    0
}
