//! The daemon's own memory, as far as the system has to be told.

/// Gives memory that is free back to the system.
///
/// Loading a large configuration takes several times what is kept of it, in small pieces. The C library keeps such
/// pages for later use, and a thread that reloads has a pool of its own: without this a daemon with 100,000 services
/// grows by half at its first reload.
pub fn give_back_memory() {
    // SAFETY: takes no pointer; the C library locks its pools meanwhile.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
