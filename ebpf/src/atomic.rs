//! Atomics that the target has, but `core::sync::atomic` does not offer for it. Kernel only.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;

/// Replaces `old` by `new`; whether it did.
#[inline(always)]
pub fn compare_exchange(at: *mut u64, old: u64, new: u64) -> bool {
    // SAFETY: callers pass an aligned word of a map value; the verifier checks it.
    unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(at, old, new).1
    }
}

/// The same for 32 bits.
#[inline(always)]
pub fn compare_exchange32(at: *mut u32, old: u32, new: u32) -> bool {
    // SAFETY: as above.
    unsafe {
        atomic_cxchg::<u32, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(at, old, new).1
    }
}

/// A word for [`fence`] only.
#[map(name = "FENCE")]
static FENCE_MAP: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// No load after this is made before one above it. BPF has no fence (before v4), but an atomic
/// that returns the old value orders everything around it, on every architecture.
#[inline(always)]
pub fn fence() {
    if let Some(word) = FENCE_MAP.get_ptr_mut(0) {
        // SAFETY: an aligned word of a map value.
        let old = unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(word, 1) };
        core::hint::black_box(old);
    }
}
