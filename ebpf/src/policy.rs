//! Policy: the verdict on a flow at one of its ends. Kernel only.

use weir_abi::Addr;
use weir_abi::conntrack::{Stamp, flags};
use weir_abi::counter::Counter;
use weir_abi::policy::{
    ClassId, Decision, DecisionKey, GroupId, Interval, LpmKey, PolicySlot, RuleId, RuleVerdict,
};

use crate::scratch::{Hook, Local, Scratch};
use crate::{atomic, conntrack, dry_run, maps, search};

/// Direction of a judgement, as seen from the pod: it is the initiator.
pub const EGRESS: u32 = 0;
/// It is the responder.
pub const INGRESS: u32 = 1;

const NO_ROW: u32 = RuleVerdict::deny(RuleId::NO_ROW).0;

/// The groups' verdict on a peer and a port: one peer lookup, one decision lookup.
#[inline(never)]
fn judge(group: u32, peer: &Addr, port: u32) -> u32 {
    if group == GroupId::OPEN.0 {
        return RuleVerdict::NOT_SELECTED.0;
    }
    let class = match maps::peer(peer) {
        Some(class) => class,
        None => maps::cidr(&LpmKey::host(*peer)).unwrap_or(ClassId::WORLD),
    };
    let Some(decision) = row(GroupId(group), class) else {
        return NO_ROW;
    };
    if decision.len == 0 {
        return decision.at;
    }
    let interval = |index| {
        let p: *const Interval = maps::interval(index)?;
        // SAFETY: an array's element is always valid; the agent writes it whole before any
        // decision refers to it.
        Some(unsafe { *p })
    };
    match search::verdict(&decision, port, interval) {
        Some(verdict) => verdict.0,
        None => NO_ROW,
    }
}

/// The row of a class, else that of its base, else that of the world.
#[inline(always)]
fn row(group: GroupId, class: ClassId) -> Option<Decision> {
    for class in [class, class.base(), ClassId::WORLD] {
        if let Some(decision) = maps::decision(&DecisionKey { group, class }) {
            return Some(decision);
        }
    }
    None
}

/// Judges `s.judged` at one end: the raw [`RuleVerdict`] in the low half, the epoch that it holds
/// under in the high half.
#[inline(never)]
fn judge_at(s: &Scratch, slot: u32, direction: u32) -> u64 {
    let Some(slot) = maps::policy_slot(slot) else {
        return NO_ROW as u64;
    };
    let epoch = (epoch(slot) as u64) << 32;
    if s.judged.src == s.judged.dst {
        return RuleVerdict::allow(RuleId::SELF).0 as u64 | epoch;
    }
    // The epoch must be read before anything it vouches for.
    atomic::fence();
    let (ingress, egress) = PolicySlot::unpack(groups(slot));
    let verdict = if direction == INGRESS {
        judge(ingress.0, &s.judged.src, s.judged.port)
    } else {
        judge(egress.0, &s.judged.dst, s.judged.port)
    };
    verdict as u64 | epoch
}

/// The endpoint's epoch, as conntrack stamps have it.
#[inline(always)]
fn epoch(slot: *const PolicySlot) -> u32 {
    // SAFETY: an array's element is always valid; one aligned 8-byte load.
    unsafe { (&raw const (*slot).epoch).read_volatile() as u32 }
}

/// Whether an epoch, as stamps have it, is the pod's.
#[inline(always)]
pub fn epoch_is(pod: &Local, low: u32) -> bool {
    maps::policy_slot(pod.slot).is_some_and(|slot| epoch(slot) == low)
}

/// Whether a stamp lets a flow pass at the endpoint as its policy is now.
#[inline(always)]
pub fn allows(stamp: Stamp, slot: u32) -> bool {
    maps::policy_slot(slot).is_some_and(|slot| stamp.verdict(epoch(slot)) == Some(true))
}

#[inline(always)]
fn groups(slot: *const PolicySlot) -> u64 {
    // SAFETY: as above.
    unsafe { (&raw const (*slot).groups).read_volatile() }
}

/// Judges a new flow: first at its source, then at its destination, and stamps `s.entry`. 0 if it
/// may pass, else what the denied packet is counted as.
#[inline(never)]
pub fn judge_new(s: &mut Scratch) -> u32 {
    let tag = s.entry.tag;
    if s.from.is_present() {
        let verdict = judge_at(s, s.from.slot, EGRESS);
        let rule = RuleVerdict(verdict as u32);
        dry_run::judged(s, EGRESS, rule);
        if !rule.allowed() {
            if dry_run::is_on() && s.to.is_present() {
                let other = judge_at(s, s.to.slot, INGRESS);
                dry_run::judged(s, INGRESS, RuleVerdict(other as u32));
            }
            return denial(rule, EGRESS);
        }
        s.entry.egress = Stamp::judged(tag, (verdict >> 32) as u32, true);
        s.entry.egress_rule = rule;
    }
    if s.to.is_present() {
        let verdict = judge_at(s, s.to.slot, INGRESS);
        let rule = RuleVerdict(verdict as u32);
        dry_run::judged(s, INGRESS, rule);
        if !rule.allowed() {
            return denial(rule, INGRESS);
        }
        s.entry.ingress = Stamp::judged(tag, (verdict >> 32) as u32, true);
        s.entry.ingress_rule = rule;
    }
    0
}

/// Checks a tracked flow's verdicts at the ends that are here. 0 if it may pass, else what the
/// denied packet is counted as.
#[inline(never)]
pub fn check_tracked(s: &mut Scratch) -> u32 {
    if s.entry.flags & flags::HAIRPIN != 0 && s.hook != Hook::FROM_POD {
        // A pod's way to itself never leaves its interface: somebody else has made this up.
        return Counter::DropInvalidState as u32;
    }
    if s.entry.flags & (flags::HOST_LOCAL | flags::HAIRPIN) != 0 {
        return 0;
    }
    // The sender is the initiator in original direction, else the responder.
    if s.from.is_present() {
        let denied = check(s, s.from.slot, (s.original == 0) as u32);
        if denied != 0 {
            if dry_run::is_on() && s.to.is_present() {
                check(s, s.to.slot, (s.original != 0) as u32);
            }
            return denied;
        }
    }
    if s.to.is_present() {
        return check(s, s.to.slot, (s.original != 0) as u32);
    }
    0
}

/// The verdict that the flow was stamped with at one end, or a new one if the endpoint's epoch has
/// moved on.
#[inline(never)]
fn check(s: &mut Scratch, slot_index: u32, direction: u32) -> u32 {
    let Some(slot) = maps::policy_slot(slot_index) else {
        return Counter::DropNoRow as u32;
    };
    let (stamp, rule) = if direction == INGRESS {
        (s.entry.ingress, s.entry.ingress_rule)
    } else {
        (s.entry.egress, s.entry.egress_rule)
    };
    if let Some(allowed) = stamp.verdict(epoch(slot)) {
        // The rule is for display and may be another judgement's; the stamp decides.
        let shown = rule.rule();
        let verdict = if allowed {
            RuleVerdict::allow(shown)
        } else {
            RuleVerdict::deny(shown)
        };
        dry_run::judged(s, direction, verdict);
        return if allowed { 0 } else { denial(rule, direction) };
    }
    let verdict = judge_at(s, slot_index, direction);
    let rule = RuleVerdict(verdict as u32);
    let new = Stamp::judged(s.entry.tag, (verdict >> 32) as u32, rule.allowed());
    dry_run::judged(s, direction, rule);
    conntrack::restamp(s, direction, rule.0, new.0);
    if direction == INGRESS {
        s.entry.ingress = new;
    } else {
        s.entry.egress = new;
    }
    if rule.allowed() {
        0
    } else {
        denial(rule, direction)
    }
}

/// What a denied packet is counted as.
#[inline(always)]
fn denial(rule: RuleVerdict, direction: u32) -> u32 {
    let counter = if rule.rule() == RuleId::NO_ROW {
        Counter::DropNoRow
    } else if direction == INGRESS {
        Counter::DropPolicyIngress
    } else {
        Counter::DropPolicyEgress
    };
    counter as u32
}

/// Whether any policy selects the pod, in either direction.
#[inline(always)]
pub fn isolated(pod: &Local) -> bool {
    let Some(slot) = maps::policy_slot(pod.slot) else {
        return true;
    };
    groups(slot) != PolicySlot::pack(GroupId::OPEN, GroupId::OPEN)
}
