//! `getpeername(2)` on `AF_INET6` sockets.

use crate::translate;
use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

/// The application sees the address it dialled.
#[cgroup_sock_addr(getpeername6)]
pub(crate) fn mesh_peername6(ctx: SockAddrContext) -> i32 {
    translate::peer(&ctx, &translate::dialled6(&ctx))
}
