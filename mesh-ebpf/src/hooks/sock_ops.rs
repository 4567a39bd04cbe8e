//! The life of TCP connections.

use crate::{account, deadline};
use aya_ebpf::{macros::sock_ops, programs::SockOpsContext};

/// Counts what becomes of translated connections, and tells their endpoints' circuits.
#[sock_ops]
pub(crate) fn mesh_sock_ops(ctx: SockOpsContext) -> u32 {
    let told = match ctx.op() {
        account::TCP_CONNECT => account::opening(&ctx),
        account::STATE => account::changed(&ctx),
        account::RETRANSMIT => account::sent_again(&ctx),
        account::ROUND_TRIP => account::round_trip(&ctx),
        deadline::FIRST => account::first_answer(&ctx),
        _ => None,
    };
    if let Some((record, outcome)) = told {
        account::report(record, outcome);
    }
    // What is replied where nothing is asked is not looked at.
    1
}
