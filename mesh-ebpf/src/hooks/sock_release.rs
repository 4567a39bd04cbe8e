//! The application lets go of a socket.

use crate::{account, maps};
use aya_ebpf::{macros::cgroup_sock, programs::SockContext};
use mesh_common::connection::tcp;

/// Settles a connect that TCP never heard of.
#[cgroup_sock(sock_release)]
pub(crate) fn mesh_release(ctx: SockContext) -> i32 {
    // SAFETY: the context is the socket, which is not null.
    let record = unsafe { maps::record(ctx.sock.cast(), 0) };
    // SAFETY: a field of the context. A connect that waits for its first data (TCP Fast Open) met no trouble.
    let waits = unsafe { (*ctx.sock).state } == tcp::SYN_SENT;
    if !record.is_null() && !waits {
        // SAFETY: the socket's record; nobody can connect a socket that is being released.
        unsafe { account::settle(record) };
    }
    1
}
