//! The process's memory.

/// Gives the kernel back what is free between what is in use. The allocator keeps it otherwise, and
/// reading all objects at start takes much for a moment.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes the allocator's own locks and changes nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
