//! The daemon's own memory, as far as the allocator has to be told.

/// Gives memory that is free back to the system.
///
/// Loading a large configuration takes several times what is kept of it, in small pieces, and by a thread that then does
/// nothing for long: without this its pages would be kept for it.
pub fn give_back_memory() {
    // SAFETY: takes no pointer; looks only at the pages of the calling thread, and at those that threads have left.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
