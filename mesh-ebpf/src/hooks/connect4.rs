//! `connect(2)` on `AF_INET` sockets.

use crate::translate;
use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

/// A connect to a VIP goes to an endpoint; every other connect passes.
#[cgroup_sock_addr(connect4)]
pub(crate) fn mesh_connect4(ctx: SockAddrContext) -> i32 {
    translate::connect(&ctx, &translate::dialled4(&ctx))
}
