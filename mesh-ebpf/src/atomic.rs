//! Atomic access to words in maps. `core::sync::atomic` has no read-modify-write on this target and its `load`
//! crashes the code generator; the intrinsics become single BPF instructions (`-C target-cpu=v3`, kernel 5.12).

use core::intrinsics::{AtomicOrdering::SeqCst, atomic_cxchg, atomic_xadd};

/// Adds `n` to the word at `pointer` and returns what it was.
///
/// # Safety
/// `pointer` points to an aligned word inside a map value.
#[inline(always)]
pub(crate) unsafe fn add(pointer: *mut u64, n: u64) -> u64 {
    // SAFETY: the caller's.
    unsafe { atomic_xadd::<u64, u64, { SeqCst }>(pointer, n) }
}

/// Replaces the word at `pointer` by `new` if it is `old`; whether it was.
///
/// # Safety
/// `pointer` points to an aligned word inside a map value.
#[inline(always)]
pub(crate) unsafe fn swap(pointer: *mut u64, old: u64, new: u64) -> bool {
    // SAFETY: the caller's.
    unsafe { atomic_cxchg::<u64, { SeqCst }, { SeqCst }>(pointer, old, new).1 }
}

/// Reads a word that somebody else may be writing, once and whole.
///
/// # Safety
/// `pointer` points to an aligned word inside a map value.
#[inline(always)]
pub(crate) unsafe fn read<T: Copy>(pointer: *const T) -> T {
    // SAFETY: the caller's.
    unsafe { pointer.read_volatile() }
}
