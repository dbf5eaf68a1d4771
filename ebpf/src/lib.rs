//! Weir's eBPF programs: one module per concern. What decides builds for the host too, and is
//! tested there as plain functions; what touches packets and maps is for the kernel only.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(
    target_arch = "bpf",
    feature(core_intrinsics),
    expect(
        internal_features,
        reason = "core::sync::atomic has no compare-and-exchange for this target"
    )
)]

pub mod checksum;
pub mod outcome;
pub mod packet;
pub mod search;
pub mod service;
pub mod sock;
pub mod state;

/// Declares the modules that exist for the kernel only.
macro_rules! kernel {
    ($($name:ident),+ $(,)?) => { $(
        #[cfg(target_arch = "bpf")]
        pub mod $name;
    )+ };
}

kernel!(
    answer, atomic, conntrack, deliver, dry_run, dsr, flow, fragment, icmp_error, maps, masquerade,
    nat, neighbour, open, outside, overlay, path, policy, scratch, short_way, skb, source,
    wireguard, xdp,
);
