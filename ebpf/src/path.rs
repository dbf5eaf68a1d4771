//! A packet's way through each hook. Kernel only.

use aya_ebpf::helpers::generated::bpf_redirect_peer;
use aya_ebpf::programs::TcContext;
use weir_abi::Addr;
use weir_abi::counter::Counter;

use crate::maps;

/// What becomes of a packet.
#[derive(Clone, Copy)]
pub enum Outcome {
    /// Left to the kernel's stack and to the programs after ours.
    Stack,
    /// Redirected; what for is counted.
    Redirected(Counter),
    /// Dropped, and why.
    Drop(Counter),
}

const ETH_P_IP: u16 = 0x0800u16.to_be();
const ETH_P_IPV6: u16 = 0x86ddu16.to_be();

/// Ingress of a pod's host interface.
#[inline(always)]
pub fn from_pod(ctx: &TcContext) -> Outcome {
    forward(ctx)
}

/// Egress of a pod's host interface.
#[inline(always)]
pub fn to_pod(_ctx: &TcContext) -> Outcome {
    Outcome::Stack
}

/// Ingress of an uplink.
#[inline(always)]
pub fn from_uplink(ctx: &TcContext) -> Outcome {
    forward(ctx)
}

#[inline(always)]
fn forward(ctx: &TcContext) -> Outcome {
    let Ok(proto) = ctx.load::<u16>(12) else {
        return Outcome::Drop(Counter::DropMalformed);
    };
    let dst = match proto {
        ETH_P_IP => ctx.load::<u32>(30).map(Addr::from_v4_word),
        ETH_P_IPV6 => ctx.load::<[u32; 4]>(38).map(Addr),
        _ => return Outcome::Stack,
    };
    let Ok(dst) = dst else {
        return Outcome::Drop(Counter::DropMalformed);
    };
    let Some(pod) = maps::local_pod(&dst) else {
        return Outcome::Stack;
    };
    let mut macs = [0u8; 12];
    let (to, from) = macs.split_at_mut(6);
    to.copy_from_slice(&pod.pod_mac);
    from.copy_from_slice(&pod.host_mac);
    if ctx.store(0, &macs, 0).is_err() {
        return Outcome::Drop(Counter::DropInternal);
    }
    // SAFETY: plain helper call; a bad index makes the kernel drop the packet.
    unsafe { bpf_redirect_peer(pod.ifindex, 0) };
    Outcome::Redirected(Counter::Delivered)
}
