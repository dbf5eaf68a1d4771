//! Masquerade: what pods send to those outside the cluster goes out from the node's address, for the
//! network there knows nothing of pods. Kernel only.

use weir_abi::conntrack::{flags, seen};
use weir_abi::node::config;
use weir_abi::{Addr, Proto};

use crate::neighbour::{is_group, is_link_local};
use crate::outcome::Outcome;
use crate::packet::{Kind, Packet};
use crate::scratch::{Hook, Mode, Scratch};
use crate::skb::Skb;
use crate::{conntrack, maps, open, overlay};

/// Gives a new flow of a pod to somebody outside the cluster the node's address for a source. A flow that
/// has no way out by an uplink stays as it is: the stack has it.
#[inline(never)]
pub fn source(skb: Skb, s: &mut Scratch) -> u32 {
    if s.to.is_present() || !has_port(&s.packet) {
        return 0;
    }
    let (src, dst) = (s.packet.tuple.src, s.out.dst);
    let uplink = uplink_for(skb, &src, &dst);
    let addr = maps::uplink_addr(uplink, s.packet.family == 4);
    if addr.is_none() {
        return 0;
    }
    s.out.src = addr;
    s.translate = 1;
    s.entry.flags |= flags::NAT | flags::SNAT | flags::MASQUERADE;
    s.entry.uplink = uplink;
    0
}

/// Whether a flow of a pod to the packet's destination would go out masqueraded: 1 if so.
#[inline(never)]
pub fn concerns(skb: Skb, s: &Scratch) -> u32 {
    if s.hook != Hook::FROM_POD || s.to.is_present() || !has_port(&s.packet) {
        return 0;
    }
    let t = &s.packet.tuple;
    (uplink_for(skb, &t.src, &t.dst) != 0) as u32
}

/// Whether `s.entry` is the packet's, and one of a masqueraded flow.
#[inline(always)]
pub fn has(s: &Scratch) -> bool {
    // In other modes the entry is another packet's.
    (s.mode == Mode::TRACKED || s.mode == Mode::OPENS) && s.entry.flags & flags::MASQUERADE != 0
}

/// Whether replies can be told by a port, or by an echo's identifier.
#[inline(always)]
fn has_port(p: &Packet) -> bool {
    p.is_icmp() || matches!(p.proto, Proto::TCP | Proto::UDP | Proto::SCTP)
}

/// The uplink by which a flow goes out masqueraded; 0 if it is none of those, or the kernel's routes
/// lead elsewhere.
#[inline(never)]
fn uplink_for(skb: Skb, src: &Addr, dst: &Addr) -> u32 {
    if maps::config_word(config::FLAGS) & config::flags::MASQUERADE == 0 || excluded(dst) {
        return 0;
    }
    let uplink = skb.routed_by(skb.ifindex(), src, dst);
    let known = !maps::uplink_addr(uplink, dst.is_v4()).is_none();
    if known { uplink } else { 0 }
}

/// Whether pods reach an address from their own: pods, nodes (but not through an overlay),
/// `--non-masquerade-cidrs`, and what no router sends on.
#[inline(always)]
fn excluded(dst: &Addr) -> bool {
    let on_link = if dst.is_v4() {
        let [a, b, ..] = dst.v4_word().to_ne_bytes();
        (a, b) == (169, 254)
    } else {
        is_link_local(dst)
    };
    on_link
        || is_group(dst)
        || maps::is_node_addr(dst)
        || (maps::is_in_node_cidrs(dst) && !is_node_behind_overlay(dst))
}

/// Whether an address is another node's own whose pods are reached by the overlay: the network between
/// would take a pod's address for forged.
#[inline(always)]
fn is_node_behind_overlay(dst: &Addr) -> bool {
    maps::is_other_node(dst) && overlay::towards(dst) != 0
}

/// Whether the entry of a flow that a pod has opened is over before its time, 1 or 0: the node has lost
/// the address that the flow goes out from; or, looked at now and then when the flow might as well
/// be opened anew, its way has changed: by another uplink, or now masqueraded or no longer so.
#[inline(never)]
pub fn outlived(skb: Skb, s: &Scratch) -> u32 {
    let entry = &s.entry;
    if s.hook != Hook::FROM_POD || s.original == 0 {
        return 0;
    }
    let masqueraded = entry.flags & flags::MASQUERADE != 0;
    if masqueraded && !maps::is_node_addr(&entry.other.src) {
        return 1;
    }
    let idle = s.now.wrapping_sub(entry.last_seen);
    let unanswered = entry.seen & seen::REPLY == 0 && entry.flags & flags::BY_STACK != 0;
    let due = if masqueraded {
        idle >= conntrack::TWIN_LAG
    } else {
        unanswered && idle != 0
    };
    if !due || !s.packet.opens() || !has_port(&s.packet) {
        return 0;
    }
    let dst = if entry.flags & flags::NAT != 0 {
        entry.other.dst
    } else {
        s.packet.tuple.dst
    };
    let uplink = uplink_for(skb, &s.packet.tuple.src, &dst);
    let before = if masqueraded { entry.uplink } else { 0 };
    (uplink != before) as u32
}

/// Keeps the tuple of a flow that the node itself opens for it, where its port is one that pods' flows get, and
/// no socket tells so (echo, SCTP). The packet goes on in the stack.
#[inline(never)]
pub fn keep_own(s: &mut Scratch) -> u32 {
    let p = &s.packet;
    let unseen = p.is_icmp() || p.proto.0 == Proto::SCTP.0;
    let word = maps::config_word(config::NAT_PORTS) as u32;
    let port = p.tuple.sport.get() as u32;
    let in_range = port != 0 && port >= word & 0xffff && port <= word >> 16;
    if s.hook == Hook::TO_UPLINK && unseen && in_range && p.opens() && open::remembered(p) {
        s.entry.flags = flags::HOST_LOCAL | open::high(s.from_high != 0);
        conntrack::insert_new(&s.key, &s.entry, s.now);
    }
    Outcome::Stack.code()
}

/// Notes a packet of such a flow.
#[inline(always)]
pub fn touch_own(s: &mut Scratch) {
    let own = s.entry.flags & (flags::HOST_LOCAL | flags::NAT) == flags::HOST_LOCAL;
    if s.mode == Mode::TRACKED && own && s.packet.kind as u8 == Kind::Flow as u8 {
        conntrack::touch(s);
    }
}
