//! Weir's eBPF programs: one module per concern. What decides builds for the host too, and is
//! tested there as plain functions; what touches packets and maps is for the kernel only.
#![cfg_attr(target_arch = "bpf", no_std)]

#[cfg(target_arch = "bpf")]
pub mod maps;
#[cfg(target_arch = "bpf")]
pub mod path;
pub mod service;
pub mod sock;
