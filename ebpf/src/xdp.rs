//! XDP on uplinks: flows that the tc programs have opened go on in the driver. Kernel only.
//!
//! Only a flow from outside whose backend is on another node passes this node without ever ending
//! here ([`flags::SNAT`]); its packets, in both directions, are translated and sent back out of the
//! device they came by. All else is passed on to tc: first packets, whatever is not plain, and what
//! has no way in the kernel's tables. So nothing is decided here, and results are the same without.

mod frame;

use aya_ebpf::bindings::xdp_md;
use weir_abi::Proto;
use weir_abi::conntrack::flags;
use weir_abi::counter::Counter;

use crate::packet::{self, Frame, Kind};
use crate::scratch::{Scratch, scratch};
use crate::{conntrack, dry_run, flow, maps, service, source};

use frame::XdpFrame;

/// What becomes of a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// To the tc programs.
    Pass,
    /// Back out of the device.
    Transmit,
    /// Dropped, and why: a helper failed on a frame that was partly rewritten.
    Drop(Counter),
}

/// Carries a known flow on.
#[inline(always)]
pub fn from_uplink(ctx: *mut xdp_md) -> Action {
    let frame = XdpFrame::new(ctx);
    let Some(s) = scratch() else {
        return Action::Pass;
    };
    // A dry run is asked of the tc programs, which decide.
    if dry_run::is_on() || !frame.is_for(frame.ifindex()) {
        return Action::Pass;
    }
    if parse(frame, s) == 0 || is_known(s) == 0 || has_way(frame, s) == 0 {
        return Action::Pass;
    }
    conntrack::touch(s);
    if frame::rewrite(frame, s) == 0 {
        return Action::Drop(Counter::DropInternal);
    }
    Action::Transmit
}

/// 1 for a whole TCP or UDP packet that may go on.
#[inline(never)]
fn parse(frame: XdpFrame, s: &mut Scratch) -> u32 {
    if packet::parse(&frame, &mut s.packet) != Frame::Ip {
        return 0;
    }
    let p = &s.packet;
    let plain = p.kind as u8 == Kind::Flow as u8
        && p.fragmented == 0
        && matches!(p.proto, Proto::TCP | Proto::UDP)
        && p.ttl > 1
        && !source::aliases_v4(p);
    plain as u32
}

/// 1 if the packet is of a flow that this node hands on, and not one that tc would open anew. Fills
/// in `out`.
#[inline(never)]
fn is_known(s: &mut Scratch) -> u32 {
    let (tuple, proto) = (s.packet.tuple, s.packet.proto);
    s.now = conntrack::now();
    if conntrack::find(s, &tuple, proto) == 0 || s.entry.flags & (flags::SNAT | flags::DSR) == 0 {
        return 0;
    }
    // A pod of this node has opened it: its packets end here.
    if s.entry.flags & flags::MASQUERADE != 0 {
        return 0;
    }
    if !flow::translates(s) || maps::is_node_addr(&tuple.src) || maps::local_ifindex(&tuple.src) != 0
    {
        return 0;
    }
    if proto.0 == Proto::TCP.0 && s.packet.opens() {
        return 0;
    }
    let original = s.original != 0;
    if proto.0 == Proto::UDP.0
        && original
        && !service::backend_usable(s.entry.backend, s.entry.backend_incarnation)
    {
        return 0;
    }
    s.out = if original {
        s.entry.other
    } else {
        s.entry.other.reversed()
    };
    1
}

/// 1 if the way of the translated packet is back out of the device it came by, and wide enough:
/// then `answer` begins with the frame's new addresses.
#[inline(never)]
fn has_way(frame: XdpFrame, s: &mut Scratch) -> u32 {
    let ifindex = frame.ifindex();
    // Where the flow came from, or where its source was translated for.
    let right = if s.original != 0 {
        s.entry.flags & flags::DSR != 0 || maps::is_uplink_addr(ifindex, &s.out.src)
    } else {
        s.entry.uplink == ifindex
    };
    (right && frame::resolve(frame, s) == ifindex) as u32
}
