#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#[cfg(not(target_arch = "bpf"))]
fn main() {}
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
#[cfg(target_arch = "bpf")]
#[aya_ebpf::macros::classifier]
pub fn from_pod(_c: aya_ebpf::programs::TcContext) -> i32 {
    -1
}
