//! The short way: for a packet of a flow that is established, judged and not translated, between pods of this
//! node or to and from another node's. That is most packets, and each of them needs few facts. Kernel only.
//!
//! Nothing is decided here that the whole way ([`crate::path`]) would decide otherwise: whatever is not as
//! usual in a packet, its flow or its ends goes there, and so does one packet of each tick of the clock, which
//! keeps the flow's entry up to date ([`unpacked`] does it itself). Facts are read in place and not copied; what
//! is read is checked against its key, or the flow's tag, afterwards (see [`crate::conntrack`] and [`crate::maps`] for why).

mod flow;
mod head;
mod vxlan;

use aya_ebpf::programs::TcContext;
use weir_abi::conntrack::flags;
use weir_abi::counter::Counter;
use weir_abi::node::config;

use crate::outcome::Outcome;
use crate::skb::{PACKET_HOST, Skb};
use crate::scratch::{Hook, Scratch, Target};
use crate::{atomic, conntrack, dry_run, maps, overlay};
use flow::Flow;
use head::Head;
use vxlan::Packed;

/// Unset before load (`override_global`): all packets go the whole way, to show that it is the same one.
#[unsafe(no_mangle)]
static SHORT_WAY: u8 = 1;

#[inline(always)]
fn is_on() -> bool {
    // SAFETY: a plain read of a constant, volatile so that the compiler does not assume its initial value.
    unsafe { core::ptr::read_volatile(&raw const SHORT_WAY) != 0 && !dry_run::is_on() }
}

/// Answer of the functions for the hooks: the packet has to go the whole way. Else it is [`Outcome::code`].
pub const NOT_HERE: u32 = u32::MAX;

/// Packets up to this size fit everywhere (RFC 8200 §5).
const ALWAYS_FITS: u32 = 1280;

/// Ingress of a pod's host interface.
#[inline(never)]
pub fn from_pod(ctx: &TcContext) -> u32 {
    let skb = Skb::new(ctx.skb.skb);
    if !is_on() || skb.vlan_present() != 0 {
        return NOT_HERE;
    }
    let Some(head) = Head::read::<0>(ctx, skb) else {
        return NOT_HERE;
    };
    let Some(flow) = Flow::of(&head) else {
        return NOT_HERE;
    };
    let Some(pod) = maps::sender(flow.sender.incarnation, head.v4) else {
        return NOT_HERE;
    };
    if !flow.is_up_to_date()
        || pod.ifindex != skb.ifindex()
        || pod.addr != head.tuple.src
        || !flow.sender.allows(&flow, pod.slot)
    {
        return NOT_HERE;
    }
    if flow.receiver.incarnation != 0 {
        return deliver(ctx, skb, head, &flow);
    }
    let uplink = flow.way.uplink(flow.tag, generation());
    if uplink == 0 || head.ttl <= 1 {
        return NOT_HERE;
    }
    let mut mtu = 0;
    let size = head.size(skb);
    if size > ALWAYS_FITS
        && (!skb.fits(uplink, size, &mut mtu) || overlay::may_be_narrow(uplink))
    {
        return NOT_HERE;
    }
    if overlay::is_told(uplink)
        && !flow.is_devices_turn()
        && let Some(outcome) = vxlan::send(ctx, skb, uplink, &head)
    {
        return outcome.code();
    }
    let dst = head.tuple.dst;
    if head.forward::<0>(ctx, skb).is_err() {
        return Outcome::drop(Counter::DropInternal).code();
    }
    if !overlay::is_told(uplink) {
        skb.redirect_neigh(uplink);
    } else if overlay::send_to(skb, uplink, &dst).is_err() {
        return Outcome::drop(Counter::DropNoTunnel).code();
    }
    Outcome::redirected(Counter::Forwarded).code()
}

/// Ingress of an uplink. Also a packed packet is known by a look at it: the overlay's device meets it next.
#[inline(never)]
pub fn from_uplink(ctx: &TcContext) -> u32 {
    from_outside(ctx, false)
}

/// Ingress of the overlay's device.
#[inline(never)]
pub fn from_overlay(ctx: &TcContext) -> u32 {
    from_outside(ctx, true)
}

/// Egress of an uplink: what the overlay's device has packed goes on.
#[inline(never)]
pub fn to_uplink(ctx: &TcContext) -> u32 {
    let skb = Skb::new(ctx.skb.skb);
    if !is_on() || !overlay::is_on() {
        return NOT_HERE;
    }
    match Head::read::<0>(ctx, skb) {
        Some(head) if head.is_packed() => Outcome::Stack.code(),
        _ => NOT_HERE,
    }
}

/// What comes by the device that the flow's way says is of the node that this way leads to.
#[inline(always)]
fn from_outside(ctx: &TcContext, by_overlay: bool) -> u32 {
    let skb = Skb::new(ctx.skb.skb);
    if !is_on() || skb.pkt_type() != PACKET_HOST || skb.vlan_present() != 0 {
        return NOT_HERE;
    }
    let Some(head) = Head::read::<0>(ctx, skb) else {
        return NOT_HERE;
    };
    if !by_overlay && head.is_packed() {
        if let Some(done) = unpacked(ctx, skb, &head) {
            return done;
        }
        // The device unpacks it, and it is met there.
        let to_node = maps::is_node_addr(&head.tuple.dst) && !maps::is_node_addr(&head.tuple.src);
        return if to_node { Outcome::Stack.code() } else { NOT_HERE };
    }
    let Some(flow) = Flow::of(&head) else {
        return NOT_HERE;
    };
    if !flow.is_up_to_date() || flow.way.uplink(flow.tag, generation()) != skb.ifindex() {
        return NOT_HERE;
    }
    if by_overlay && !overlay::comes_from(skb, &head.tuple.src) {
        return NOT_HERE;
    }
    deliver(ctx, skb, head, &flow)
}

/// A packed packet, if it is one that the overlay's device would hand to [`from_overlay`], and that would deliver
/// it. Nothing of a flow may overtake what is in the device's queue: so this leaves no packet to the device because
/// of the time, and all of the flow that follow one that was left to it for another reason, until a pause.
#[inline(always)]
fn unpacked(ctx: &TcContext, skb: Skb, outer: &Head) -> Option<u32> {
    let packed = Packed::read(ctx, skb, outer)?;
    if !packed.is_from_owner() {
        return None;
    }
    let flow = Flow::of(&packed.head)?;
    let to = may_be_unpacked(skb, &packed, &flow);
    if to.is_none() {
        flow.note_queued();
    }
    let to = to?;
    packed.unpack(skb).ok()?;
    flow.bring_up_to_date();
    Some(into_pod(ctx, skb, &packed.head, &to))
}

/// The pod that a packed packet may be delivered to.
#[inline(always)]
fn may_be_unpacked(skb: Skb, packed: &Packed, flow: &Flow) -> Option<maps::Receiver> {
    if !packed.is_usual
        || flow.may_be_queued()
        || flow.way.uplink(flow.tag, generation()) != overlay::ifindex()
        || !overlay::passes_reverse_path(skb, &packed.from, &packed.to)
    {
        return None;
    }
    receiver(skb, &packed.head, flow)
}

/// Into a pod of this node.
#[inline(always)]
fn deliver(ctx: &TcContext, skb: Skb, head: Head, flow: &Flow) -> u32 {
    match receiver(skb, &head, flow) {
        Some(to) => into_pod(ctx, skb, &head, &to),
        None => NOT_HERE,
    }
}

/// The pod of this node that a packet may be delivered to.
#[inline(always)]
fn receiver(skb: Skb, head: &Head, flow: &Flow) -> Option<maps::Receiver> {
    let to = maps::receiver(flow.receiver.incarnation, head.v4)?;
    let may = to.addr == head.tuple.dst
        && flow.receiver.allows(flow, to.slot)
        && head.ttl > 1
        && head.size(skb) <= to.mtu;
    may.then_some(to)
}

#[inline(always)]
fn into_pod(ctx: &TcContext, skb: Skb, head: &Head, to: &maps::Receiver) -> u32 {
    if head.deliver(ctx, skb, &to.macs).is_err() {
        return Outcome::drop(Counter::DropInternal).code();
    }
    skb.clear_marks();
    skb.redirect_peer(to.ifindex);
    Outcome::redirected(Counter::Delivered).code()
}

/// Of what the agent has last told of nodes and uplinks.
#[inline(always)]
pub fn generation() -> u32 {
    maps::config_word(config::GENERATION) as u32
}

/// Notes the way of a tracked flow's packet from a pod to another node's, if the tables say it and nothing
/// else does: what comes from there then needs no question either.
#[inline(never)]
pub fn note_way(s: &mut Scratch) -> u32 {
    if s.hook != Hook::FROM_POD
        || s.target != Target::UPLINK
        || s.entry.flags & !flags::INITIATOR_HIGH != 0
    {
        return 0;
    }
    let generation = generation();
    if s.entry.way.uplink(s.entry.tag, generation) == s.target_ifindex {
        return 0;
    }
    // The generation must be read before the table that it vouches for.
    atomic::fence();
    let dst = s.out.dst;
    if overlay::or_uplink_to(&dst) == s.target_ifindex {
        conntrack::set_way(s, s.target_ifindex, generation);
    }
    0
}
