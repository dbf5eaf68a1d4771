//! Known flows: their replies, and what a change of policy does to them.

use weir_abi::Proto;
use weir_abi::counter::Counter;
use weir_abi::policy::*;

use crate::packets::*;
use crate::rig::*;

const G: GroupId = GroupId(20);
const CLASS: u32 = 7;
const ALLOW: RuleVerdict = RuleVerdict::allow(RuleId(100));
const DENY: RuleVerdict = RuleVerdict::deny(RuleId(101));

fn syn(family: Family, dport: u16) -> Vec<u8> {
    Packet::tcp(&tuple(family.a(), 4000, family.b(), dport), SYN).frame()
}

/// Opens a TCP connection from A to B.
fn connect(node: &mut Node, family: Family, dport: u16) -> weir_abi::conntrack::Tuple {
    let t = tuple(family.a(), 4000, family.b(), dport);
    node.run(Hook::FromA, &Packet::tcp(&t, SYN).frame())
        .delivered();
    node.run(Hook::FromB, &Packet::tcp(&t.reversed(), SYN | ACK).frame())
        .delivered();
    node.run(Hook::FromA, &Packet::tcp(&t, ACK).frame())
        .delivered();
    t
}

#[test]
fn a_reply_passes_where_the_flow_may_and_a_flow_the_other_way_does_not() {
    on_node(|node| {
        for family in Family::BOTH {
            // B may not open anything, A takes nothing in.
            node.groups(SLOT_A, G, GroupId::OPEN);
            node.groups(SLOT_B, GroupId::OPEN, G);
            let t = connect(node, family, 80);
            node.run(Hook::FromB, &Packet::tcp(&t.reversed(), ACK).frame())
                .delivered();
            let other = tuple(family.b(), 80, family.a(), 4001);
            for flags in [SYN, SYN | ACK, ACK] {
                node.run(Hook::FromB, &Packet::tcp(&other, flags).frame())
                    .dropped(Counter::DropNoRow);
            }
            let ping = Packet::echo(family, family.a(), family.b(), 5, false);
            node.run(Hook::FromA, &ping.frame()).delivered();
            let pong = Packet::echo(family, family.b(), family.a(), 5, true);
            node.run(Hook::FromB, &pong.frame()).delivered();
            // A request of its own with the same identifier is no reply; nor is an unasked reply.
            let back = Packet::echo(family, family.b(), family.a(), 5, false);
            node.run(Hook::FromB, &back.frame())
                .dropped(Counter::DropNoRow);
            let unasked = Packet::echo(family, family.b(), family.a(), 6, true);
            node.run(Hook::FromB, &unasked.frame())
                .dropped(Counter::DropNoRow);
        }
    });
}

#[test]
fn what_is_now_forbidden_is_cut_both_ways_and_what_stays_allowed_never_is() {
    on_node(|node| {
        for family in Family::BOTH {
            for (slot, ingress, egress, peer, why) in [
                (
                    SLOT_B,
                    G,
                    GroupId::OPEN,
                    family.a(),
                    Counter::DropPolicyIngress,
                ),
                (
                    SLOT_A,
                    GroupId::OPEN,
                    G,
                    family.b(),
                    Counter::DropPolicyEgress,
                ),
            ] {
                let kept = connect(node, family, 80);
                let cut = connect(node, family, 443);
                node.peer(peer, CLASS);
                let only_80 = [
                    (0, DENY),
                    (Interval::key(Proto::TCP, 80), ALLOW),
                    (Interval::key(Proto::TCP, 81), DENY),
                ];
                node.table(G, CLASS, 0, &only_80);
                node.groups(slot, ingress, egress);
                for _ in 0..2 {
                    // The reply first: it is judged on the flow's own tuple, not on its own.
                    node.run(Hook::FromB, &Packet::tcp(&kept.reversed(), ACK).frame())
                        .delivered();
                    node.run(Hook::FromA, &Packet::tcp(&kept, ACK).frame())
                        .delivered();
                    node.run(Hook::FromB, &Packet::tcp(&cut.reversed(), ACK).frame())
                        .dropped(why);
                    node.run(Hook::FromA, &Packet::tcp(&cut, ACK).frame())
                        .dropped(why);
                }
                // Allowed again: the connection goes on where it was.
                node.groups(slot, GroupId::OPEN, GroupId::OPEN);
                node.run(Hook::FromA, &Packet::tcp(&cut, ACK).frame())
                    .delivered();
                node.run(Hook::FromB, &Packet::tcp(&cut.reversed(), ACK).frame())
                    .delivered();
            }
        }
    });
}

#[test]
fn a_verdict_holds_until_the_epoch_moves() {
    on_node(|node| {
        for family in Family::BOTH {
            let t = connect(node, family, 80);
            // The group changes without its epoch: known flows keep their verdict.
            let mut slots = node.array::<PolicySlot>("POLICY_SLOTS");
            let mut slot = slots.get(&SLOT_B, 0).unwrap();
            slot.groups = PolicySlot::pack(G, GroupId::OPEN);
            slots.set(SLOT_B, slot, 0).unwrap();
            node.run(Hook::FromA, &Packet::tcp(&t, ACK).frame())
                .delivered();
            node.run(Hook::FromA, &syn(family, 81))
                .dropped(Counter::DropNoRow);
            node.bump(SLOT_B);
            node.run(Hook::FromA, &Packet::tcp(&t, ACK).frame())
                .dropped(Counter::DropNoRow);
            node.groups(SLOT_B, GroupId::OPEN, GroupId::OPEN);
        }
    });
}

#[test]
fn only_the_low_half_of_the_epoch_counts() {
    on_node(|node| {
        for family in Family::BOTH {
            let t = connect(node, family, 80);
            let before = node.entry(&t, Proto::TCP).unwrap().1;
            let mut slots = node.array::<PolicySlot>("POLICY_SLOTS");
            let mut slot = slots.get(&SLOT_B, 0).unwrap();
            slot.epoch ^= 1 << 32;
            slots.set(SLOT_B, slot, 0).unwrap();
            node.run(Hook::FromA, &Packet::tcp(&t, ACK).frame())
                .delivered();
            assert_eq!(
                node.entry(&t, Proto::TCP).unwrap().1.ingress,
                before.ingress
            );
        }
    });
}

#[test]
fn an_entry_names_the_rules_that_let_it_pass() {
    on_node(|node| {
        for family in Family::BOTH {
            node.groups(SLOT_B, G, GroupId::OPEN);
            node.peer(family.a(), CLASS);
            node.inline_row(G, CLASS, ALLOW);
            let t = connect(node, family, 80);
            let entry = node.entry(&t, Proto::TCP).unwrap().1;
            assert_eq!(
                (entry.egress_rule, entry.ingress_rule),
                (RuleVerdict::NOT_SELECTED, ALLOW)
            );
            node.groups(SLOT_B, GroupId::OPEN, GroupId::OPEN);
            node.run(Hook::FromA, &Packet::tcp(&t, ACK).frame())
                .delivered();
            let entry = node.entry(&t, Proto::TCP).unwrap().1;
            assert_eq!(entry.ingress_rule, RuleVerdict::NOT_SELECTED);
        }
    });
}
