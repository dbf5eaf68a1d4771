//! A packet's way through each hook, up to the point where its flow is looked at. Kernel only.

use aya_ebpf::programs::TcContext;
use weir_abi::counter::Counter;

use crate::outcome::Outcome;
use crate::packet::{self, Frame, Kind};
use crate::scratch::{Hook, Local, Plan, Scratch, scratch};
use crate::skb::{PACKET_HOST, Skb};
use crate::{
    answer, conntrack, deliver, flow, fragment, icmp_error, maps, masquerade, nat, neighbour,
    outside, overlay, source, wireguard,
};

/// Ingress of a pod's host interface.
#[inline(always)]
pub fn from_pod(ctx: &TcContext) -> Outcome {
    let skb = Skb::new(ctx.skb.skb);
    let Some(s) = scratch() else {
        return Outcome::drop(Counter::DropInternal);
    };
    if !maps::endpoint(skb.ifindex(), &mut s.pod) {
        return Outcome::drop(Counter::DropUnknownEndpoint);
    }
    if skb.vlan_present() != 0 {
        return Outcome::drop(Counter::DropOtherProtocol);
    }
    match frame(skb, s) {
        Frame::Ip => {}
        Frame::Arp => return neighbour::arp_from_pod(skb, &s.pod),
        Frame::Other => return Outcome::drop(Counter::DropOtherProtocol),
        Frame::Malformed => return Outcome::drop(Counter::DropMalformed),
    }
    if source::aliases_v4(&s.packet) {
        return Outcome::drop(Counter::DropMappedV4);
    }
    if let Err(why) = source::from_pod(&s.packet, &s.pod) {
        return Outcome::drop(why);
    }
    if s.packet.family == 6
        && s.packet.is_icmp()
        && let Some(outcome) = neighbour::nd_from_pod(skb, &s.pod, &s.packet)
    {
        return outcome;
    }
    s.from = Local::of(&s.pod);
    s.to.present = 0;
    transit(Hook::FROM_POD, skb, s)
}

/// Egress of a pod's host interface.
#[inline(always)]
pub fn to_pod(ctx: &TcContext) -> Outcome {
    let skb = Skb::new(ctx.skb.skb);
    let Some(s) = scratch() else {
        return Outcome::drop(Counter::DropInternal);
    };
    if !maps::endpoint(skb.ifindex(), &mut s.pod) {
        return Outcome::drop(Counter::DropUnknownEndpoint);
    }
    let own = skb.ingress_ifindex() == 0;
    match frame(skb, s) {
        Frame::Ip => {}
        // The node's own question, or its answer.
        Frame::Arp if own => return Outcome::Stack,
        Frame::Arp | Frame::Other => return Outcome::drop(Counter::DropOtherProtocol),
        Frame::Malformed => return Outcome::drop(Counter::DropMalformed),
    }
    let p = &s.packet;
    if source::aliases_v4(p) {
        return Outcome::drop(Counter::DropMappedV4);
    }
    if own && p.family == 6 && p.is_icmp() && neighbour::is_link_local(&p.tuple.src) {
        // The node's neighbour discovery and ICMP errors, from its own side of the link.
        return Outcome::Stack;
    }
    let addressed = if p.family == 4 {
        s.pod.addr4
    } else {
        s.pod.addr6
    };
    if p.tuple.dst != addressed {
        return Outcome::drop(Counter::DropNotForPod);
    }
    if !own && source::is_anothers(&p.tuple.src, skb.ingress_ifindex()) {
        return Outcome::drop(Counter::DropOwnSource);
    }
    s.own_node = (own && maps::is_node_addr(&s.packet.tuple.src)) as u32;
    s.from.present = 0;
    s.to = Local::of(&s.pod);
    transit(Hook::TO_POD, skb, s)
}

/// Ingress of an uplink.
#[inline(always)]
pub fn from_uplink(ctx: &TcContext) -> Outcome {
    let skb = Skb::new(ctx.skb.skb);
    // A tagged frame is another network's, and may be another device's.
    if skb.pkt_type() != PACKET_HOST || skb.vlan_present() != 0 {
        return Outcome::Stack;
    }
    let Some(s) = scratch() else {
        return Outcome::drop(Counter::DropInternal);
    };
    match frame(skb, s) {
        Frame::Ip => {}
        Frame::Arp | Frame::Other => return Outcome::Stack,
        Frame::Malformed => return Outcome::drop(Counter::DropMalformed),
    }
    if source::aliases_v4(&s.packet) {
        return Outcome::drop(Counter::DropMappedV4);
    }
    if maps::is_node_addr(&s.packet.tuple.src) {
        return Outcome::drop(Counter::DropOwnSource);
    }
    if overlay::is_on() {
        if overlay::is_outer(&s.packet) && maps::is_node_addr(&s.packet.tuple.dst) {
            // The device unpacks it, and it is met there.
            return Outcome::Stack;
        }
        if overlay::is_behind(&s.packet.tuple.src) {
            return Outcome::drop(Counter::DropForgedTunnel);
        }
    }
    if concerns(s) == 0 {
        return Outcome::Stack;
    }
    if source::is_anothers(&s.packet.tuple.src, skb.ifindex()) {
        return Outcome::drop(Counter::DropOwnSource);
    }
    s.from.present = 0;
    transit(Hook::FROM_UPLINK, skb, s)
}

/// Ingress of the overlay's device: what other nodes have sent through it.
#[inline(always)]
pub fn from_overlay(ctx: &TcContext) -> Outcome {
    let skb = Skb::new(ctx.skb.skb);
    let Some(s) = scratch() else {
        return Outcome::drop(Counter::DropInternal);
    };
    // All nodes' devices have one address.
    if skb.pkt_type() != PACKET_HOST || skb.vlan_present() != 0 {
        return Outcome::drop(Counter::DropForgedTunnel);
    }
    unpacked(skb, s, |s| overlay::is_from_owner(skb, s) != 0)
}

/// Ingress of WireGuard's device: what other nodes have sent through it.
#[inline(always)]
pub fn from_wireguard(ctx: &TcContext) -> Outcome {
    let skb = Skb::new(ctx.skb.skb);
    let Some(s) = scratch() else {
        return Outcome::drop(Counter::DropInternal);
    };
    if wireguard::unpacked(skb).is_err() {
        return Outcome::drop(Counter::DropInternal);
    }
    // The device has taken it only from the peer whose address this is; here it is asked whether it is
    // a node's at all.
    unpacked(skb, s, |s| overlay::towards(&s.packet.tuple.src) != 0)
}

/// What a tunnel's device has unpacked, if it `is_known` by whom it was packed.
#[inline(always)]
fn unpacked(skb: Skb, s: &mut Scratch, is_known: impl FnOnce(&Scratch) -> bool) -> Outcome {
    match frame(skb, s) {
        Frame::Ip => {}
        Frame::Arp | Frame::Other => return Outcome::drop(Counter::DropOtherProtocol),
        Frame::Malformed => return Outcome::drop(Counter::DropMalformed),
    }
    if source::aliases_v4(&s.packet) {
        return Outcome::drop(Counter::DropMappedV4);
    }
    if maps::is_node_addr(&s.packet.tuple.src) {
        return Outcome::drop(Counter::DropOwnSource);
    }
    if !is_known(s) {
        return Outcome::drop(Counter::DropForgedTunnel);
    }
    if concerns(s) == 0 {
        return Outcome::Stack;
    }
    s.from.present = 0;
    transit(Hook::FROM_UPLINK, skb, s)
}

/// Whether what comes in by an uplink is for a pod of this node, which is then filled in, or perhaps for a
/// Service.
#[inline(never)]
fn concerns(s: &mut Scratch) -> u32 {
    let dst = s.packet.tuple.dst;
    if maps::local_pod(&dst, &mut s.to) {
        return 1;
    }
    s.to.present = 0;
    outside::may_be_served(&dst) as u32
}

/// Egress of an uplink, for what the node itself sends: its processes' replies to those outside, and
/// what no socket hook has translated.
#[inline(always)]
pub fn to_uplink(ctx: &TcContext) -> Outcome {
    let skb = Skb::new(ctx.skb.skb);
    let Some(s) = scratch() else {
        return Outcome::drop(Counter::DropInternal);
    };
    if !matches!(frame(skb, s), Frame::Ip)
        || source::aliases_v4(&s.packet)
        || !maps::is_node_addr(&s.packet.tuple.src)
        // What the overlay's device has packed.
        || overlay::is_outer(&s.packet)
    {
        return Outcome::Stack;
    }
    s.own_node = 1;
    s.from.present = 0;
    s.to.present = 0;
    transit(Hook::TO_UPLINK, skb, s)
}

/// Parses the frame into `s.packet`.
#[inline(always)]
fn frame(skb: Skb, s: &mut Scratch) -> Frame {
    s.own_node = 0;
    match parse(skb, s) {
        0 => Frame::Ip,
        1 => Frame::Arp,
        2 => Frame::Other,
        _ => Frame::Malformed,
    }
}

#[inline(never)]
fn parse(skb: Skb, s: &mut Scratch) -> u32 {
    match packet::parse(&skb, &mut s.packet) {
        Frame::Ip => 0,
        Frame::Arp => 1,
        Frame::Other => 2,
        Frame::Malformed => 3,
    }
}

/// What all hooks do with a packet that may be where it is.
#[inline(always)]
fn transit(hook: Hook, skb: Skb, s: &mut Scratch) -> Outcome {
    s.hook = hook;
    Outcome::from_code(go(skb, s))
}

/// In a function of its own: to the verifier, all ways to it are one.
#[inline(never)]
fn go(skb: Skb, s: &mut Scratch) -> u32 {
    steps(skb, s).code()
}

#[inline(always)]
fn steps(skb: Skb, s: &mut Scratch) -> Outcome {
    s.now = conntrack::now();
    s.out = s.packet.tuple;
    s.translate = 0;
    let plan = match s.packet.kind {
        Kind::LaterFragment => fragment::plan(skb, s),
        Kind::IcmpError => icmp_error::plan(skb, s),
        Kind::Flow => flow::plan(skb, s),
    };
    match plan {
        // Neither a Service's nor a pod's.
        Plan::GO if s.at_uplink() && s.translate == 0 => {
            masquerade::touch_own(s);
            return Outcome::Stack;
        }
        // It is met again at the pod's interface.
        Plan::GO if outside::goes_by_stack(s) => {
            fragment::by_stack(skb, s);
            return Outcome::Stack;
        }
        Plan::GO => {}
        Plan::REFUSE => return answer::refuse(skb, s),
        outcome => return Outcome::from_code(outcome),
    }
    if overlay::would_forge(s) != 0 {
        return Outcome::drop(Counter::DropForgedTunnel);
    }
    let denied = flow::judge(s);
    if denied != 0 {
        return Outcome::Drop(denied);
    }
    match deliver::route(skb, s) {
        deliver::CLEAR => {}
        deliver::NO_WAY => return Outcome::drop(Counter::DropNoRoute),
        obstacle => return deliver::blocked(skb, s, obstacle),
    }
    let failed = flow::remember(skb, s);
    if failed != 0 {
        return Outcome::Drop(failed);
    }
    if s.translate != 0 && nat::translate(skb, s) == 0 {
        return Outcome::drop(Counter::DropInternal);
    }
    fragment::remember(skb, s);
    deliver::send(skb, s)
}
