//! Fragments that carry no ports. Kernel only.
//!
//! Which flow they belong to is not remembered yet: to and from pods that a policy selects, and to
//! Services, they are dropped. First fragments are judged like whole packets.

use weir_abi::counter::Counter;
use weir_abi::{PortBe, Proto};

use crate::outcome::Outcome;
use crate::scratch::Scratch;
use crate::service::{self, Selection};
use crate::skb::Skb;
use crate::{deliver, flow, policy};

/// A later fragment.
#[inline(always)]
pub fn later(skb: Skb, s: &mut Scratch) -> Outcome {
    if s.own_node != 0 {
        return Outcome::Stack;
    }
    if unmatchable(s) != 0 {
        return Outcome::drop(Counter::DropFragment);
    }
    match deliver::route(skb, s) {
        deliver::CLEAR => deliver::send(skb, s),
        obstacle => deliver::blocked(skb, s, obstacle),
    }
}

#[inline(never)]
fn unmatchable(s: &mut Scratch) -> u32 {
    flow::receiver(s);
    let isolated = (s.from.is_present() && (policy::isolated(&s.from) || is_service(s)))
        || (s.to.is_present() && policy::isolated(&s.to));
    isolated as u32
}

/// A Service's first fragment was translated, so its others would go nowhere.
#[inline(always)]
fn is_service(s: &Scratch) -> bool {
    !matches!(
        service::select(&s.packet.tuple.dst, PortBe(0), Proto(0)),
        Selection::NotAService
    )
}
