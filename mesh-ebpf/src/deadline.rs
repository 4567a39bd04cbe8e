//! `connect_timeout` for applications that know nothing of it: the kernel's own timers, set for one connect.

use crate::{circuit::NS_PER_MS, maps, sock};
use aya_ebpf::{
    helpers::generated::{bpf_getsockopt, bpf_setsockopt},
    programs::SockOpsContext,
};
use mesh_common::{
    connection::{Record, marks, stage},
    deadline,
};

/// `BPF_SOCK_OPS_TIMEOUT_INIT`: how long to wait for an answer to the first SYN?
pub(crate) const FIRST: u32 = 1;

const IPPROTO_TCP: i32 = 6;
const TCP_USER_TIMEOUT: i32 = 18;

/// Limits how long the connect may take that begins now. An application's own limit is kept aside, and in force where
/// it is shorter.
#[inline(always)]
pub(crate) fn begin(ctx: &SockOpsContext, record: &mut Record) {
    let ours = maps::connect_timeout_ms(record.service);
    // What the daemon makes it looks after itself.
    if ours == 0 || record.marks & marks::PROXIED != 0 {
        return;
    }
    let mut theirs = 0_u32;
    let value = (&raw mut theirs).cast();
    // SAFETY: the context, and four bytes of ours.
    if unsafe { bpf_getsockopt(ctx.ops.cast(), IPPROTO_TCP, TCP_USER_TIMEOUT, value, 4) } != 0 {
        return;
    }
    if theirs != 0 && theirs <= ours {
        return;
    }
    if set(ctx, ours) {
        record.user_timeout_ms = theirs;
        record.marks |= marks::TIMED;
    }
}

/// The connect is over: the limit that the application had set holds again, for the life of the connection.
#[inline(always)]
pub(crate) fn end(ctx: &SockOpsContext, record: &mut Record) {
    if record.marks & marks::TIMED != 0 {
        record.marks &= !marks::TIMED;
        set(ctx, record.user_timeout_ms);
    }
}

#[inline(always)]
fn set(ctx: &SockOpsContext, ms: u32) -> bool {
    let mut ms = ms;
    // SAFETY: the context, and four bytes of ours.
    unsafe { bpf_setsockopt(ctx.ops.cast(), IPPROTO_TCP, TCP_USER_TIMEOUT, (&raw mut ms).cast(), 4) == 0 }
}

/// How long to wait for an answer to the first SYN of this connect, in ticks of the kernel; `None`: as ever.
#[inline(always)]
pub(crate) fn first(record: &Record) -> Option<u32> {
    if record.stage != stage::OPENING || record.marks & marks::PROXIED != 0 {
        return None;
    }
    let timeout_ms = maps::connect_timeout_ms(record.service);
    // SAFETY: a word inside the row.
    let usual_ns = maps::endpoint_state(record.id).map_or(0, |row| unsafe { (*row).connect_ns });
    let ms = deadline::first_syn_ms(timeout_ms, usual_ns / NS_PER_MS)?;
    sock::ticks(ms)
}
