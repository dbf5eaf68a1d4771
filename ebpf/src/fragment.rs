//! Fragments. Kernel only.
//!
//! A first fragment is judged like a whole packet, and what became of it is remembered; the later
//! ones, which carry no ports, follow it while its ends and their verdicts stand. One that follows
//! none is dropped where it would have to: to and from pods that a policy selects, and to Services.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use weir_abi::conntrack;
use weir_abi::counter::Counter;
use weir_abi::fragment::{FragmentEntry, FragmentKey, LIFE_TICKS, flags};
use weir_abi::map::MAX_FRAGMENTS;

use crate::outcome::Outcome;
use crate::scratch::{Hook, Local, Mode, Plan, Scratch, Target};
use crate::skb::Skb;
use crate::{dry_run, flow, maps, masquerade, policy, service};

#[map(name = "FRAGMENTS")]
static FRAGMENTS_MAP: LruHashMap<FragmentKey, FragmentEntry> =
    LruHashMap::with_max_entries(MAX_FRAGMENTS, 0);

/// Plans the way of a later fragment.
#[inline(never)]
pub fn plan(skb: Skb, s: &mut Scratch) -> u32 {
    if s.hook == Hook::TO_POD && s.own_node != 0 {
        return Outcome::Stack.code();
    }
    match follow(skb, s) {
        FOLLOWS => {
            s.mode = Mode::FOLLOWS;
            return Plan::GO;
        }
        OVERLAPS => return Outcome::drop(Counter::DropMalformed).code(),
        _ => {}
    }
    if s.own_node != 0 || s.at_uplink() {
        // The stack puts together what is the node's own.
        return Outcome::Stack.code();
    }
    if unmatchable(skb, s) {
        return Outcome::drop(Counter::DropFragment).code();
    }
    s.mode = Mode::FRAGMENT;
    Plan::GO
}

#[inline(always)]
fn unmatchable(skb: Skb, s: &mut Scratch) -> bool {
    flow::receiver(s);
    (s.from.is_present() && (policy::isolated(&s.from) || is_service(s)))
        || (s.to.is_present() && policy::isolated(&s.to))
        // The first went out from the node's address.
        || masquerade::concerns(skb, s) != 0
}

/// A Service's first fragment was translated, so its others would go nowhere. Of an address of the
/// node's own it is not known whose they are.
#[inline(always)]
fn is_service(s: &Scratch) -> bool {
    let dst = &s.packet.tuple.dst;
    service::has_services(dst) && !maps::is_node_addr(dst)
}

/// The first fragment is not known, or was another pod's, or was judged under another policy.
const UNKNOWN: u32 = 0;
/// `out`, `translate`, `to` and the target are the first fragment's.
const FOLLOWS: u32 = 1;
/// It would replace a part of what was judged.
const OVERLAPS: u32 = 2;

/// Looks for the first fragment.
#[inline(never)]
fn follow(skb: Skb, s: &mut Scratch) -> u32 {
    fill_key(skb, s);
    let Some(found) = FRAGMENTS_MAP.get_ptr(&s.fragment_key) else {
        return UNKNOWN;
    };
    // SAFETY: a map value, which is valid memory, and never the scratch's. By words.
    unsafe { core::ptr::copy_nonoverlapping(found, &raw mut s.fragment, 1) };
    if s.fragment.check != s.fragment_key.check()
        || s.now.wrapping_sub(s.fragment.written) > LIFE_TICKS
    {
        return UNKNOWN;
    }
    if s.hook == Hook::TO_POD {
        s.fragment_to = s.to;
    } else if !maps::local_pod(&s.fragment.dst, &mut s.fragment_to) {
        s.fragment_to.present = 0;
    }
    let first = &s.fragment;
    let unjudged = first.flags & flags::UNJUDGED != 0;
    if !(holds(&s.from, first.sender, first.sender_epoch, unjudged)
        && holds(&s.fragment_to, first.receiver, first.receiver_epoch, unjudged))
    {
        return UNKNOWN;
    }
    if s.packet.fragment_offset < first.length {
        return OVERLAPS;
    }
    s.out.src = first.src;
    s.out.dst = first.dst;
    s.translate = (s.out.src != s.packet.tuple.src || s.out.dst != s.packet.tuple.dst) as u32;
    s.target = Target::of(first.target);
    s.target_ifindex = first.target_ifindex;
    s.to = s.fragment_to;
    FOLLOWS
}

/// Whether an end is still the pod that it was, under the policy that it was judged by.
#[inline(always)]
fn holds(pod: &Local, incarnation: u32, epoch: u32, unjudged: bool) -> bool {
    if !pod.is_present() {
        return incarnation == 0;
    }
    pod.incarnation == incarnation && (unjudged || policy::epoch_is(pod, epoch))
}

#[inline(always)]
fn fill_key(skb: Skb, s: &mut Scratch) {
    let p = &s.packet;
    s.fragment_key = FragmentKey {
        src: p.tuple.src,
        dst: p.tuple.dst,
        id: p.fragment_id,
        proto: if p.family == 4 { p.proto.0 as u32 } else { 0 },
        ifindex: skb.ifindex(),
        hook: s.hook.number(),
    };
}

/// Remembers a first fragment that is judged and on its way; other packets are passed over.
#[inline(always)]
pub fn remember(skb: Skb, s: &mut Scratch) {
    if s.packet.is_first_fragment() && !dry_run::is_on() {
        record(skb, s, unjudged(s) as u32);
    }
}

/// The same of one that is left to the stack, and judged where the stack brings it.
#[inline(always)]
pub fn by_stack(skb: Skb, s: &mut Scratch) {
    if s.packet.is_first_fragment() && !dry_run::is_on() {
        s.target = Target::STACK;
        record(skb, s, flags::UNJUDGED);
    }
}

/// Whether no policy was asked: see [`flow::judge`].
#[inline(always)]
fn unjudged(s: &Scratch) -> bool {
    let tracked = s.mode == Mode::TRACKED;
    let exempt = conntrack::flags::HOST_LOCAL | conntrack::flags::HAIRPIN;
    (s.own_node != 0 && !tracked)
        || ((tracked || s.mode == Mode::OPENS) && s.entry.flags & exempt != 0)
}

#[inline(never)]
fn record(skb: Skb, s: &mut Scratch, flags: u32) -> u32 {
    fill_key(skb, s);
    // The sender is the flow's initiator, but of a reply.
    let (sender, receiver) = if s.mode == Mode::TRACKED && s.original == 0 {
        (s.entry.ingress, s.entry.egress)
    } else {
        (s.entry.egress, s.entry.ingress)
    };
    let to_device = s.target == Target::POD || s.target == Target::UPLINK;
    s.fragment = FragmentEntry {
        src: s.out.src,
        dst: s.out.dst,
        written: s.now,
        target: s.target.number(),
        target_ifindex: if to_device { s.target_ifindex } else { 0 },
        length: s.packet.end - s.packet.fragment_start,
        sender: incarnation(&s.from),
        receiver: incarnation(&s.to),
        sender_epoch: sender.0 as u32,
        receiver_epoch: receiver.0 as u32,
        flags,
        check: s.fragment_key.check(),
    };
    // An LRU map has room, or makes it. If it has none after all, the others are dropped and counted.
    let _ = FRAGMENTS_MAP.insert(&s.fragment_key, &s.fragment, BPF_ANY as u64);
    0
}

#[inline(always)]
fn incarnation(pod: &Local) -> u32 {
    if pod.is_present() { pod.incarnation } else { 0 }
}
