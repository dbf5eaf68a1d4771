//! The contract between Weir's eBPF programs and user space: every map key, value, constant and
//! counter. Nothing here allocates, nothing depends on a kernel or on aya (but for the `user`
//! feature, which marks the types as plain data for aya's maps).
//!
//! Rules of this crate: `#[repr(C)]`, no implicit padding (a layout test per type), multi-byte
//! network-order fields are named or typed so, and a changed layout raises [`LAYOUT_VERSION`].
#![no_std]

pub mod addr;
pub mod conntrack;
pub mod counter;
pub mod dry_run;
pub mod endpoint;
pub mod fragment;
pub mod map;
pub mod node;
pub mod policy;
pub mod service;
pub mod sock;
#[cfg(test)]
mod tests;

pub use addr::{Addr, PortBe, Proto};

/// Version of every pinned map's layout. Pins live under `<bpffs>/v<LAYOUT_VERSION>/`, for a map
/// that is pinned by name is reused without a look at its key, value or size.
pub const LAYOUT_VERSION: u32 = 1;

/// Marks a map type as plain bytes for aya: `#[repr(C)]`, `Copy`, every bit pattern valid, no
/// padding.
macro_rules! pod {
    ($($t:ty),+ $(,)?) => { $(
        // SAFETY: the layout tests show that the type has no padding, it is `#[repr(C)]` or
        // `#[repr(transparent)]`, `Copy` and 'static, and every bit pattern is a valid value.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $t {}
    )+ };
}
pub(crate) use pod;
