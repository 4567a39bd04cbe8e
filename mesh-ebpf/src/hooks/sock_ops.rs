//! The life of TCP connections.

use crate::account;
use aya_ebpf::{macros::sock_ops, programs::SockOpsContext};

/// Counts what becomes of translated connections.
#[sock_ops]
pub(crate) fn mesh_sock_ops(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        account::TCP_CONNECT => account::opening(&ctx),
        account::STATE => account::changed(&ctx),
        _ => {}
    }
    0
}
