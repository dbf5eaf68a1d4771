//! Entry points: each asks `weir_ebpf` for an outcome and turns it into an action.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod sock_entry;
#[cfg(target_arch = "bpf")]
mod tc_entry;
#[cfg(target_arch = "bpf")]
mod xdp_entry;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier admits no panic: every index is checked, so this is never linked in.
    loop {}
}
