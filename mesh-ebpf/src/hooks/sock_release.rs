//! The application lets go of a socket.

use crate::{account, maps};
use aya_ebpf::{macros::cgroup_sock, programs::SockContext};

/// Settles a connect that TCP never heard of.
#[cgroup_sock(sock_release)]
pub(crate) fn mesh_release(ctx: SockContext) -> i32 {
    // SAFETY: the context is the socket, which is not null.
    let record = unsafe { maps::record(ctx.sock.cast(), 0) };
    if !record.is_null() {
        // SAFETY: the socket's record; nobody can connect a socket that is being released.
        unsafe { account::settle(record) };
    }
    1
}
