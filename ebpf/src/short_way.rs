//! The short way: for a packet of a flow that is established, judged and not translated, between pods of this
//! node or to and from another node's. That is most packets, and each of them needs few facts. Kernel only.
//!
//! Nothing is decided here that the whole way ([`crate::path`]) would decide otherwise: whatever is not as
//! usual in a packet, its flow or its ends goes there, and so does one packet of each tick of the clock, which
//! keeps the flow's entry up to date. Facts are read in place and not copied; what is read is checked against
//! its key, or the flow's tag, afterwards (see [`crate::conntrack`] and [`crate::maps`] for why).

mod head;

use aya_ebpf::programs::TcContext;
use weir_abi::conntrack::{CtEntry, CtKey, Stamp, Way, flags, seen};
use weir_abi::counter::Counter;
use weir_abi::node::config;

use crate::outcome::Outcome;
use crate::skb::{PACKET_HOST, Skb};
use crate::scratch::{Hook, Scratch, Target};
use crate::{atomic, conntrack, dry_run, maps, overlay, policy, state};
use head::Head;

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
    let Some(head) = Head::read(ctx, skb) else {
        return NOT_HERE;
    };
    let Some(flow) = Flow::of(&head) else {
        return NOT_HERE;
    };
    let Some(pod) = maps::sender(flow.sender.incarnation, head.v4) else {
        return NOT_HERE;
    };
    if pod.ifindex != skb.ifindex()
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
    let dst = head.tuple.dst;
    if head.forward(ctx, skb).is_err() {
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
    match Head::read(ctx, skb) {
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
    let Some(head) = Head::read(ctx, skb) else {
        return NOT_HERE;
    };
    if !by_overlay && head.is_packed() {
        let to_node = maps::is_node_addr(&head.tuple.dst) && !maps::is_node_addr(&head.tuple.src);
        return if to_node { Outcome::Stack.code() } else { NOT_HERE };
    }
    let Some(flow) = Flow::of(&head) else {
        return NOT_HERE;
    };
    if flow.way.uplink(flow.tag, generation()) != skb.ifindex() {
        return NOT_HERE;
    }
    if by_overlay && !overlay::comes_from(skb, &head.tuple.src) {
        return NOT_HERE;
    }
    deliver(ctx, skb, head, &flow)
}

/// Into a pod of this node.
#[inline(always)]
fn deliver(ctx: &TcContext, skb: Skb, head: Head, flow: &Flow) -> u32 {
    let Some(to) = maps::receiver(flow.receiver.incarnation, head.v4) else {
        return NOT_HERE;
    };
    if to.addr != head.tuple.dst
        || !flow.receiver.allows(flow, to.slot)
        || head.ttl <= 1
        || head.size(skb) > to.mtu
    {
        return NOT_HERE;
    }
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

/// What the flow's entry says of one end.
struct End {
    /// The pod there, see [`CtEntry::initiator`]; 0 for none of this node.
    incarnation: u32,
    /// The verdict there.
    stamp: Stamp,
}

impl End {
    /// Whether the pod, whose policy is in that slot, lets the flow pass.
    #[inline(always)]
    fn allows(&self, flow: &Flow, slot: u32) -> bool {
        self.stamp.tag() == flow.tag & Stamp::TAG_BITS && policy::allows(self.stamp, slot)
    }
}

/// A flow in its usual state.
struct Flow {
    sender: End,
    receiver: End,
    way: Way,
    tag: u32,
}

impl Flow {
    /// The packet's, if this packet changes nothing of it.
    #[inline(always)]
    fn of(head: &Head) -> Option<Self> {
        let (key, from_high) = CtKey::sorted(&head.tuple, head.proto);
        let entry: *const CtEntry = conntrack::established(&key)?;
        // SAFETY: a map value, valid memory until the program ends; volatile keeps the order in which the
        // tag is read first and last.
        unsafe {
            let tag = (&raw const (*entry).tag).read_volatile();
            let was = (&raw const (*entry).seen).read_volatile();
            let bits = (&raw const (*entry).flags).read_volatile();
            let original = (bits & flags::INITIATOR_HIGH != 0) == from_high;
            let usual = bits & !flags::INITIATOR_HIGH == 0
                && was & seen::REPLY != 0
                && state::advance(was, head.proto, original, head.tcp_flags) == was
                && (&raw const (*entry).version).read_volatile() == CtEntry::VERSION
                && (&raw const (*entry).last_seen).read_volatile() == conntrack::now();
            let initiator = End {
                incarnation: (&raw const (*entry).initiator).read_volatile(),
                stamp: (&raw const (*entry).egress).read_volatile(),
            };
            let responder = End {
                incarnation: (&raw const (*entry).responder).read_volatile(),
                stamp: (&raw const (*entry).ingress).read_volatile(),
            };
            let way = (&raw const (*entry).way).read_volatile();
            if !usual || (&raw const (*entry).tag).read_volatile() != tag {
                return None;
            }
            let (sender, receiver) = if original {
                (initiator, responder)
            } else {
                (responder, initiator)
            };
            Some(Self {
                sender,
                receiver,
                way,
                tag,
            })
        }
    }
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
