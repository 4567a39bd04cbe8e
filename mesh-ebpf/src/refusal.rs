//! Connects that are refused, for the log: counted in a row each process, VIP and reason, which the daemon takes away.

use crate::{atomic, maps};
use aya_ebpf::helpers::{
    bpf_ktime_get_ns,
    generated::{bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid},
};
use mesh_common::{
    event::{Refused, RefusedKey, untold},
    service::VipKey,
};

/// Tells the daemon that the current process dialled `vip`, a service's, and was refused for the reason with this number.
/// Nothing happens where nothing is logged.
///
/// A function of its own: the verifier goes through it with a stack that knows nothing of the choice before.
///
/// # Safety
/// `vip` points to a key that can be read.
#[inline(never)]
pub(crate) unsafe fn tell(vip: *const VipKey, service: u32, reason: u32) {
    if maps::logged() == 0 {
        return;
    }
    // SAFETY: the caller promises that it can be read; helpers without arguments.
    let (vip, now, pid) = unsafe { (*vip, bpf_ktime_get_ns(), (bpf_get_current_pid_tgid() >> 32) as u32) };
    let key = RefusedKey { vip, pid, reason };
    if again(&key, now) {
        return;
    }
    let mut row = Refused { first_at: now, last_at: now, count: 1, service, ..Refused::default() };
    // SAFETY: helpers that answer a number, or fill what they are given.
    unsafe {
        row.cgroup = bpf_get_current_cgroup_id();
        bpf_get_current_comm((&raw mut row.command).cast(), size_of::<[u8; 16]>() as u32);
    }
    // Another thread may have begun the row meanwhile.
    if !maps::begin_refused(&key, &row) && !again(&key, now) {
        maps::count_untold(untold::REFUSED);
    }
}

/// Counts one more in the row of `key`; whether there is one.
#[inline(always)]
fn again(key: &RefusedKey, now: u64) -> bool {
    let Some(row) = maps::refused(key) else { return false };
    // SAFETY: words inside the row. One that the daemon takes away at this moment may lack this connect: the counters that
    // are exact are elsewhere.
    unsafe {
        atomic::add(&raw mut (*row).count, 1);
        (&raw mut (*row).last_at).write_volatile(now);
    }
    true
}
