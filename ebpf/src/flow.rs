//! A packet and its flow: found or opened, judged, remembered. Kernel only.

use weir_abi::conntrack::{Tuple, flags, seen};
use weir_abi::policy::Interval;
use weir_abi::{PortBe, Proto};

use crate::packet::Kind;
use crate::scratch::{Hook, Local, Mode, Plan, Scratch};
use crate::skb::Skb;
use crate::{conntrack, maps, masquerade, open, policy, service, short_way, state};

/// Plans the way of a packet whose ends are known.
#[inline(never)]
pub fn plan(skb: Skb, s: &mut Scratch) -> u32 {
    // One call of each way on: to the verifier, two calls are two programs.
    match known(skb, s) {
        TRACKED => {
            s.mode = Mode::TRACKED;
            Plan::GO
        }
        NOT_ITS_FLOW => alone(s),
        _ => open::plan(skb, s),
    }
}

/// What conntrack knows of the packet's flow.
#[inline(never)]
fn known(skb: Skb, s: &mut Scratch) -> u32 {
    let (tuple, proto) = (s.packet.tuple, s.packet.proto);
    if conntrack::find(s, &tuple, proto) == 0 {
        return NEW;
    }
    if s.packet.is_icmp() && !s.packet.is_echo(s.original != 0) {
        // An echo opens the way for its replies, and for nothing else that shares its tuple.
        return NOT_ITS_FLOW;
    }
    let known = classify(skb, s);
    if known == NEW {
        conntrack::remove(s);
    }
    known
}

/// The entry is the packet's.
const TRACKED: u32 = 0;
/// The packet has its entry's tuple, but is none of its flow's: the node's own flow, say, and the packet is
/// forwarded with the node's address.
const NOT_ITS_FLOW: u32 = 1;
/// There is no entry, or it is a former flow's.
const NEW: u32 = 2;

/// What the entry that was found is to the packet; fills in `judged`, `out`, `translate`, `to`.
#[inline(never)]
fn classify(skb: Skb, s: &mut Scratch) -> u32 {
    let original = s.original != 0;
    if original && s.entry.flags & flags::HOST_LOCAL != 0 && s.own_node == 0 {
        return NOT_ITS_FLOW;
    }
    if superseded(s) || masquerade::outlived(skb, s) != 0 {
        return NEW;
    }
    let tuple = s.packet.tuple;
    judged_by_entry(s, &tuple);
    if translates(s) {
        s.translate = 1;
        s.out = if original {
            s.entry.other
        } else {
            s.entry.other.reversed()
        };
    }
    receiver(s);
    if same_pods(s) {
        return TRACKED;
    }
    as_it_came(s);
    NEW
}

/// Takes back what an entry that is not the packet's has said of it: also the pod that was to receive it.
#[inline(always)]
fn as_it_came(s: &mut Scratch) {
    let uplink = s.hook == Hook::FROM_UPLINK || s.hook == Hook::TO_UPLINK;
    if uplink && s.out.dst != s.packet.tuple.dst {
        s.to.present = 0;
    }
    s.translate = 0;
    s.out = s.packet.tuple;
}

/// Whether the packet opens a new flow in place of the one that the entry remembers.
#[inline(always)]
fn superseded(s: &Scratch) -> bool {
    let (p, entry, original) = (&s.packet, &s.entry, s.original != 0);
    let opens = p.opens();
    if p.proto.0 == Proto::TCP.0 && opens && state::closing(entry.seen) {
        return true;
    }
    if s.own_node != 0 && original && entry.flags & flags::HOST_LOCAL == 0 {
        return true;
    }
    if !original || !opens {
        return false;
    }
    if entry.backend.0 != 0 {
        // A UDP flow leaves a backend that is gone with its next packet; a connection cannot move.
        return !service::backend_usable(entry.backend, entry.backend_incarnation);
    }
    // Nobody has answered, and the address has become a Service's since.
    s.hook == Hook::FROM_POD
        && entry.seen & seen::REPLY == 0
        && !p.is_icmp()
        && service::is_service(&p.tuple.dst, p.tuple.dport, p.proto)
}

/// Whether the flow is that of the pods that have its addresses now.
#[inline(always)]
pub fn same_pods(s: &mut Scratch) -> bool {
    // In original direction the sender is the initiator.
    let (from, to) = if s.original != 0 { (1, 0) } else { (0, 1) };
    let (sender, receiver) = (s.from, s.to);
    same_pod(s, &sender, from) && same_pod(s, &receiver, to)
}

#[inline(always)]
fn same_pod(s: &mut Scratch, pod: &Local, initiator: u32) -> bool {
    if !pod.is_present() {
        return true;
    }
    let known = if initiator != 0 {
        s.entry.initiator
    } else {
        s.entry.responder
    };
    if known == 0 {
        conntrack::adopt(s, initiator, pod.incarnation);
        return true;
    }
    known == pod.incarnation
}

/// Whether a packet in this direction is to be rewritten to the entry's other tuple.
#[inline(always)]
pub fn translates(s: &Scratch) -> bool {
    let key_is_original = s.entry.flags & flags::KEY_TRANSLATED == 0;
    s.entry.flags & flags::NAT != 0 && key_is_original == (s.original != 0)
}

/// Fills in what policy judges, from the entry and a packet's tuple.
#[inline(always)]
pub fn judged_by_entry(s: &mut Scratch, tuple: &Tuple) {
    let wire = if s.original != 0 {
        *tuple
    } else {
        tuple.reversed()
    };
    s.judged.src = wire.src;
    s.judged.dst = wire.dst;
    let mut dport = wire.dport;
    if s.entry.flags & flags::NAT != 0 {
        if s.entry.flags & flags::KEY_TRANSLATED != 0 {
            s.judged.src = s.entry.other.src;
        } else {
            s.judged.dst = s.entry.other.dst;
            dport = s.entry.other.dport;
        }
    }
    s.judged.port = port_key(s.key.proto(), dport);
}

/// Fills in what policy judges of a packet without an entry.
#[inline(always)]
pub fn judged_by_packet(s: &mut Scratch) {
    s.judged.src = s.packet.tuple.src;
    s.judged.dst = s.out.dst;
    s.judged.port = port_key(s.packet.proto, s.out.dport);
}

/// Where a protocol and port stand in the decision tables. What ICMP's tuples hold is no port.
#[inline(always)]
fn port_key(proto: Proto, dport: PortBe) -> u32 {
    let has_ports = matches!(proto, Proto::TCP | Proto::UDP | Proto::SCTP);
    Interval::key(proto, if has_ports { dport.get() } else { 0 })
}

/// Finds the pod that receives, where the hook does not tell it.
#[inline(always)]
pub fn receiver(s: &mut Scratch) {
    let translated = s.at_uplink() && s.out.dst != s.packet.tuple.dst;
    if (s.hook == Hook::FROM_POD || translated) && !maps::local_pod(&s.out.dst, &mut s.to) {
        s.to.present = 0;
    }
}

/// Plans to judge a packet for itself, and to remember nothing.
#[inline(always)]
pub fn alone(s: &mut Scratch) -> u32 {
    as_it_came(s);
    s.mode = Mode::ALONE;
    receiver(s);
    judged_by_packet(s);
    Plan::GO
}

/// Judges a planned packet: 0 if it may pass, else what it is counted as.
#[inline(never)]
pub fn judge(s: &mut Scratch) -> u32 {
    if s.own_node != 0 && s.mode != Mode::TRACKED {
        return 0;
    }
    if s.mode == Mode::TRACKED {
        policy::check_tracked(s)
    } else if s.mode == Mode::FRAGMENT
        || s.mode == Mode::FOLLOWS
        || (s.mode == Mode::OPENS && s.entry.flags & flags::HAIRPIN != 0)
    {
        0
    } else {
        policy::judge_new(s)
    }
}

/// Remembers a packet that passes: 0, or what it is counted as.
#[inline(never)]
pub fn remember(skb: Skb, s: &mut Scratch) -> u32 {
    if s.packet.kind as u8 != Kind::Flow as u8 {
        return 0;
    }
    if s.mode == Mode::TRACKED {
        conntrack::touch(s);
        short_way::note_way(s)
    } else if s.mode == Mode::OPENS {
        open::record(skb, s)
    } else {
        0
    }
}
