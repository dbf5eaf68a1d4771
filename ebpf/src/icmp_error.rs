//! ICMP errors: they go the way of the flow that they are about, the other way round. Kernel only.

use weir_abi::counter::Counter;

use crate::outcome::Outcome;
use crate::packet::{self, Kind};
use crate::scratch::{Mode, Plan, Scratch};
use crate::skb::Skb;
use crate::{conntrack, flow, maps, overlay};

/// Plans the way of an ICMP error. One that matches no flow is an ICMP message like any other; none
/// creates state.
#[inline(never)]
pub fn plan(skb: Skb, s: &mut Scratch) -> u32 {
    if parse(skb, s) == 0 {
        return flow::alone(s);
    }
    overlay::note_error(s);
    let (tuple, proto) = (s.inner.tuple, s.inner.proto);
    if conntrack::find(s, &tuple, proto) == 0 || classify(s) == 0 {
        return flow::alone(s);
    }
    // A pod reports only on what it was sent.
    if s.from.is_present() && s.inner.tuple.dst != s.packet.tuple.src {
        return Outcome::drop(Counter::DropSpoofed).code();
    }
    s.mode = Mode::TRACKED;
    Plan::GO
}

/// Reads what is quoted; 1 if it is of use: a packet with ports, and the error goes to whom it
/// came from. (Who reports it may be any router.)
#[inline(never)]
fn parse(skb: Skb, s: &mut Scratch) -> u32 {
    (packet::parse_quoted(&skb, &s.packet, &mut s.inner)
        && s.inner.kind as u8 == Kind::Flow as u8
        && s.inner.tuple.src == s.packet.tuple.dst) as u32
}

/// Fills in what the flow's entry says of the error; 0 if the entry is a former flow's.
#[inline(never)]
fn classify(s: &mut Scratch) -> u32 {
    let quoted = s.inner.tuple;
    // First as the quoted packet goes, then as the error does.
    judged(s);
    s.original ^= 1;
    if flow::translates(s) {
        s.translate = 1;
        // The quoted packet, on the other side of the translation.
        s.inner_out = if s.original != 0 {
            s.entry.other.reversed()
        } else {
            s.entry.other
        };
        s.out.dst = s.inner_out.src;
        // Where the pod knows a node's address for the other end, the error comes from there, whoever
        // sent it: in the overlay, a router's address is no node's, and would be taken for forged.
        if s.packet.tuple.src == quoted.dst || maps::is_node_addr(&s.inner_out.dst) {
            s.out.src = s.inner_out.dst;
        }
    }
    flow::receiver(s);
    flow::same_pods(s) as u32
}

#[inline(always)]
fn judged(s: &mut Scratch) {
    let quoted = s.inner.tuple;
    flow::judged_by_entry(s, &quoted);
}
