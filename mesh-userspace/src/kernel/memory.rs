//! The daemon's own memory.

use std::alloc::{GlobalAlloc, Layout};

/// mimalloc. As the crate of this name, which asks for an alignment each time, also where every piece of memory has it:
/// that takes three times as long as the rest of getting one.
#[derive(Debug)]
pub struct Allocator;

/// What mimalloc gives for a size is aligned to this, if it is not smaller itself (`MI_MAX_ALIGN_SIZE`).
const ALIGNED: usize = 16;

const fn is_aligned_anyway(layout: Layout) -> bool {
    layout.align() <= ALIGNED && layout.align() <= layout.size()
}

// SAFETY: mimalloc is an allocator: what it gives has the size that was asked for, is nobody else's until it is freed, and
// stays as it is when it grows. It is aligned as asked for, or as `is_aligned_anyway` says. Nothing here unwinds.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let memory = if is_aligned_anyway(layout) {
            // SAFETY: any size may be asked for.
            unsafe { libmimalloc_sys::mi_malloc(layout.size()) }
        } else {
            // SAFETY: the alignment of a layout is a power of two.
            unsafe { libmimalloc_sys::mi_malloc_aligned(layout.size(), layout.align()) }
        };
        memory.cast()
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let memory = if is_aligned_anyway(layout) {
            // SAFETY: any size may be asked for.
            unsafe { libmimalloc_sys::mi_zalloc(layout.size()) }
        } else {
            // SAFETY: the alignment of a layout is a power of two.
            unsafe { libmimalloc_sys::mi_zalloc_aligned(layout.size(), layout.align()) }
        };
        memory.cast()
    }

    unsafe fn dealloc(&self, memory: *mut u8, _: Layout) {
        // SAFETY: the caller has it from here, and does not use it any more.
        unsafe { libmimalloc_sys::mi_free(memory.cast()) };
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller has it from here, and uses what is returned in its place; of the alignment as in `alloc`.
        unsafe { libmimalloc_sys::mi_realloc_aligned(memory.cast(), size, layout.align()) }.cast()
    }
}

/// Takes memory from here on in pages of the usual size only.
///
/// mimalloc asks for huge ones (`madvise`), and systems where `transparent_hugepage/enabled` is `always` give them unasked:
/// 2 MiB for each thread that needs a few KiB, so that an idle daemon holds 48 MiB in place of 19, and one with 1,000 busy
/// connections 58 in place of 21. Requests cost the same (`docs/performance.md`). Children inherit it.
///
/// # Errors
/// Those of `prctl(2)`: kernels from 3.15 on know it.
pub fn use_small_pages() -> std::io::Result<()> {
    Ok(nix::sys::prctl::set_thp_disable(true)?)
}

/// Gives memory that is free back to the system.
///
/// Loading a large configuration takes several times what is kept of it, in small pieces, and by a thread that then does
/// nothing for long: without this its pages would be kept for it.
pub fn give_back_memory() {
    // SAFETY: takes no pointer; looks only at the pages of the calling thread, and at those that threads have left.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
