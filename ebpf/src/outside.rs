//! Flows of those outside to Services: the source that they show to a backend elsewhere, and the way
//! there and back. Kernel only.

use weir_abi::Addr;
use weir_abi::conntrack::flags;
use weir_abi::counter::Counter;

use crate::{dsr, maps, masquerade, overlay, source};
use crate::outcome::Outcome;
use crate::scratch::{Hook, Local, Mode, Scratch};
use crate::skb::{Failed, Skb};
use crate::packet::Bytes;

/// Gives a new flow from outside, whose backend is on another node, the node's address for a source,
/// so that the replies come here again. 0, or the code of what becomes of the packet.
#[inline(never)]
pub fn source(skb: Skb, s: &mut Scratch) -> u32 {
    if s.to.is_present() || maps::is_node_addr(&s.out.dst) {
        return 0;
    }
    if dsr::takes(s) != 0 {
        return 0;
    }
    own_source(skb, s)
}

/// The node's address for a source. 0, or the code of what becomes of the packet.
#[inline(never)]
pub fn own_source(skb: Skb, s: &mut Scratch) -> u32 {
    let uplink = towards(skb, s);
    let addr = maps::uplink_addr(uplink, s.packet.family == 4);
    if addr.is_none() {
        return Outcome::drop(Counter::DropNoRoute).code();
    }
    s.out.src = addr;
    s.entry.flags |= flags::SNAT;
    0
}

/// The uplink towards a backend: that of its node's pods, else the one that the kernel's routes
/// name. 0 for none.
#[inline(never)]
pub fn towards(skb: Skb, s: &Scratch) -> u32 {
    match maps::uplink_to(&s.out.dst) {
        0 => skb.routed_by(skb.ifindex(), &s.out.src, &s.out.dst),
        uplink => uplink,
    }
}

/// What [`way`] answers where the packet can go nowhere.
pub const NO_ROUTE: u32 = u32::MAX;

/// The uplink that a packet to no local pod leaves by; 0: the stack has it, or goes on with it.
#[inline(always)]
pub fn way(skb: Skb, s: &Scratch) -> u32 {
    let reply = s.mode == Mode::TRACKED && s.original == 0;
    if reply && s.hook == Hook::TO_UPLINK {
        return 0;
    }
    if reply && s.entry.uplink != 0 && !masquerade::has(s) {
        // The way it came by: its source is an address of this node's, which the stack would take for
        // forged.
        if s.entry.flags & flags::NAT != 0 {
            return s.entry.uplink;
        }
        // A node's address whose packets came by the overlay: bare, it would be taken for forged there.
        let device = overlay::towards(&s.out.dst);
        if device != 0 {
            return device;
        }
        // The stack has not seen the question either.
        let uplink = towards(skb, s);
        let known = !maps::uplink_addr(uplink, s.packet.family == 4).is_none();
        return if known { uplink } else { 0 };
    }
    if masquerade::has(s) {
        // A reply is for a pod of this node; this one is gone.
        return if reply { NO_ROUTE } else { s.entry.uplink };
    }
    if s.hook == Hook::FROM_POD {
        return overlay::or_uplink_to(&s.out.dst);
    }
    if maps::is_node_addr(&s.out.dst) {
        return if s.hook == Hook::TO_UPLINK { NO_ROUTE } else { 0 };
    }
    let uplink = towards(skb, s);
    let known = !maps::uplink_addr(uplink, s.packet.family == 4).is_none();
    if known { uplink } else { NO_ROUTE }
}

/// Whether a packet from an uplink answers what a pod has sent by the stack.
#[inline(always)]
pub fn goes_by_stack(s: &Scratch) -> bool {
    s.hook == Hook::FROM_UPLINK
        && s.mode == Mode::TRACKED
        && s.original == 0
        && s.entry.flags & flags::BY_STACK != 0
}

/// Whether this is a pod's reply to the node itself that shows a Service's address. Coming from the
/// pod's device, which has no address, it would be dropped: reverse path filtering, even where it is loose,
/// takes there no source that is routed elsewhere.
#[inline(always)]
pub fn to_node_itself(s: &Scratch) -> bool {
    s.hook == Hook::FROM_POD
        && s.translate != 0
        && s.mode == Mode::TRACKED
        && s.original == 0
        && s.entry.flags & flags::HOST_LOCAL != 0
}

/// Notes the way back to whom a frame has come from.
#[inline(never)]
pub fn note_sender(skb: Skb, s: &mut Scratch) -> u32 {
    let Some([a, b, c, d, e, f, g, h, i, j, k, l]) = skb.read::<12>(0) else {
        return 1;
    };
    let macs = [
        u32::from_ne_bytes([g, h, i, j]),
        u32::from_ne_bytes([k, l, a, b]),
        u32::from_ne_bytes([c, d, e, f]),
    ];
    s.from = Local::outside(skb.ifindex(), macs);
    0
}

/// Sends a frame back where [`note_sender`] says; what the node itself has sent goes back into
/// its stack.
#[inline(always)]
pub fn back(skb: Skb, to: &Local) -> Result<(), Failed> {
    skb.store_words(0, &to.macs)?;
    skb.redirect(to.ifindex, skb.ingress_ifindex() == 0);
    Ok(())
}

/// Whether an address may be one of a Service for those outside. A HostPort at the node's loopback is
/// for its own sockets.
#[inline(always)]
pub fn may_be_served(dst: &Addr) -> bool {
    maps::is_node_addr(dst) || (crate::service::has_services(dst) && !source::is_loopback(dst))
}
