//! The process's memory.

/// Has all threads take their memory from one heap: objects are read by one and kept by another, and
/// what either leaves free in a heap of its own is lost to the other. To be called before there are
/// threads.
pub fn one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) with numbers only, before any other thread allocates.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives the kernel back what is free between what is in use. The allocator keeps it otherwise, and
/// reading all objects at start takes much for a moment.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes the allocator's own locks and changes nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
