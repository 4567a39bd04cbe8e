//! `connect(2)` on `AF_INET6` sockets, v4-mapped destinations included.

use crate::translate;
use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

/// A connect to a VIP goes to an endpoint; every other connect passes.
#[cgroup_sock_addr(connect6)]
pub(crate) fn mesh_connect6(ctx: SockAddrContext) -> i32 {
    translate::connect(&ctx, &translate::dialled6(&ctx))
}
