//! The XDP program.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use weir_abi::counter::Counter;
use weir_ebpf::maps::count;
use weir_ebpf::xdp::{self, Action};

/// An uplink's frames before anything else sees them.
#[xdp(frags)]
pub fn xdp_uplink(ctx: XdpContext) -> u32 {
    match xdp::from_uplink(ctx.ctx) {
        // Counted by the tc program that gets it.
        Action::Pass => XDP_PASS,
        Action::Transmit => {
            count(Counter::Forwarded as u32);
            XDP_TX
        }
        Action::Drop(why) => {
            count(why as u32);
            XDP_DROP
        }
    }
}
