//! Fragments that carry no ports. Kernel only.
//!
//! Which flow they belong to is not remembered yet: to and from pods that a policy selects, and to
//! Services, they are dropped. First fragments are judged like whole packets.

use weir_abi::counter::Counter;

use crate::outcome::Outcome;
use crate::scratch::{Mode, Plan, Scratch};
use crate::{flow, maps, policy, service};

/// Plans the way of a later fragment.
#[inline(never)]
pub fn plan(s: &mut Scratch) -> u32 {
    if s.own_node != 0 {
        return Outcome::Stack.code();
    }
    if s.at_uplink() {
        // The stack puts together what is the node's own.
        return Outcome::Stack.code();
    }
    if unmatchable(s) {
        return Outcome::drop(Counter::DropFragment).code();
    }
    s.mode = Mode::FRAGMENT;
    Plan::GO
}

#[inline(always)]
fn unmatchable(s: &mut Scratch) -> bool {
    flow::receiver(s);
    (s.from.is_present() && (policy::isolated(&s.from) || is_service(s)))
        || (s.to.is_present() && policy::isolated(&s.to))
}

/// A Service's first fragment was translated, so its others would go nowhere. Of an address of the
/// node's own it is not known whose they are.
#[inline(always)]
fn is_service(s: &Scratch) -> bool {
    let dst = &s.packet.tuple.dst;
    service::has_services(dst) && !maps::is_node_addr(dst)
}
