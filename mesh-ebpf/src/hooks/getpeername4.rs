//! `getpeername(2)` on `AF_INET` sockets.

use crate::translate;
use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

/// The application sees the address it dialled.
#[cgroup_sock_addr(getpeername4)]
pub(crate) fn mesh_peername4(ctx: SockAddrContext) -> i32 {
    translate::peer(&ctx, &translate::dialled4(&ctx))
}
