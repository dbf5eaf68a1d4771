//! Verdicts of new flows.

use weir_abi::counter::Counter;
use weir_abi::policy::*;
use weir_abi::{Addr, Proto};

use crate::packets::*;
use crate::rig::*;

const G: GroupId = GroupId(20);
const CLASS: u32 = 7;
const ALLOW: RuleVerdict = RuleVerdict::allow(RuleId(100));
const DENY: RuleVerdict = RuleVerdict::deny(RuleId(101));

fn syn(family: Family, dport: u16) -> Vec<u8> {
    Packet::tcp(
        &tuple(family.a(), dport.wrapping_add(4000), family.b(), dport),
        SYN,
    )
    .frame()
}

#[test]
fn a_closed_slot_lets_nothing_in_or_out() {
    on_node(|node| {
        for family in Family::BOTH {
            node.groups(SLOT_B, GroupId::CLOSED, GroupId::OPEN);
            node.run(Hook::FromA, &syn(family, 80))
                .dropped(Counter::DropNoRow);
            node.groups(SLOT_B, GroupId::OPEN, GroupId::OPEN);
            node.groups(SLOT_A, GroupId::OPEN, GroupId::CLOSED);
            node.run(Hook::FromA, &syn(family, 80))
                .dropped(Counter::DropNoRow);
            node.groups(SLOT_A, GroupId::OPEN, GroupId::OPEN);
        }
        assert_eq!(node.entries(), 0, "a denied flow leaves nothing");
    });
}

#[test]
fn a_missing_row_denies() {
    on_node(|node| {
        for family in Family::BOTH {
            node.groups(SLOT_B, G, GroupId::OPEN);
            node.peer(family.a(), CLASS);
            node.inline_row(G, CLASS + 1, ALLOW);
            node.run(Hook::FromA, &syn(family, 80))
                .dropped(Counter::DropNoRow);
            node.inline_row(G, CLASS, ALLOW);
            node.run(Hook::FromA, &syn(family, 80)).delivered();
            node.map::<DecisionKey, Decision>("DECISIONS")
                .remove(&DecisionKey {
                    group: G,
                    class: ClassId(CLASS),
                })
                .unwrap();
        }
    });
}

#[test]
fn one_verdict_for_all_ports_holds_for_every_protocol() {
    on_node(|node| {
        for family in Family::BOTH {
            let t = tuple(family.a(), 4000, family.b(), 80);
            let packets = [
                Packet::tcp(&t, SYN),
                Packet::udp(&t, b"x"),
                Packet::sctp(&t, 1),
                Packet::echo(family, t.src, t.dst, 1, false),
                Packet::new(t.src, t.dst, Proto(47), vec![0; 4]),
            ];
            for (slot, ingress, egress, peer, denied) in [
                (SLOT_B, G, GroupId::OPEN, t.src, Counter::DropPolicyIngress),
                (SLOT_A, GroupId::OPEN, G, t.dst, Counter::DropPolicyEgress),
            ] {
                node.groups(slot, ingress, egress);
                node.peer(peer, CLASS);
                node.inline_row(G, CLASS, DENY);
                for packet in &packets {
                    node.run(Hook::FromA, &packet.frame()).dropped(denied);
                }
                node.groups(slot, GroupId::OPEN, GroupId::OPEN);
            }
            node.groups(SLOT_B, G, GroupId::OPEN);
            node.peer(t.src, CLASS);
            node.inline_row(G, CLASS, ALLOW);
            for packet in &packets {
                node.run(Hook::FromA, &packet.frame()).delivered();
            }
            node.groups(SLOT_B, GroupId::OPEN, GroupId::OPEN);
        }
    });
}

#[test]
fn egress_is_judged_by_the_peers_class_and_ingress_too() {
    on_node(|node| {
        for family in Family::BOTH {
            // Egress of A towards B, ingress of B from A: each wants its own row.
            node.groups(SLOT_A, GroupId::OPEN, GroupId(30));
            node.groups(SLOT_B, GroupId(31), GroupId::OPEN);
            node.peer(family.b(), 1);
            node.peer(family.a(), 2);
            node.inline_row(GroupId(30), 1, ALLOW);
            node.inline_row(GroupId(31), 2, DENY);
            node.run(Hook::FromA, &syn(family, 80))
                .dropped(Counter::DropPolicyIngress);
            node.inline_row(GroupId(31), 2, ALLOW);
            node.run(Hook::FromA, &syn(family, 80)).delivered();
            node.inline_row(GroupId(30), 1, DENY);
            node.run(Hook::FromA, &syn(family, 81))
                .dropped(Counter::DropPolicyEgress);
        }
    });
}

#[test]
fn ports_are_searched_in_the_intervals_to_their_edges() {
    on_node(|node| {
        let tcp = |port| Interval::key(Proto::TCP, port);
        let table = [
            (0, DENY),
            (tcp(80), ALLOW),
            (tcp(81), DENY),
            (tcp(8000), ALLOW),
            (tcp(9001), DENY),
            (Interval::key(Proto::UDP, 53), ALLOW),
            (Interval::key(Proto::UDP, 54), DENY),
            (Interval::key(Proto::SCTP, 0), ALLOW),
            (Interval::key(Proto(133), 0), DENY),
        ];
        for (at, len) in [(0, 9), (1000, 9), (77, 5)] {
            for family in Family::BOTH {
                node.groups(SLOT_B, G, GroupId::OPEN);
                node.peer(family.a(), CLASS);
                node.table(G, CLASS, at, &table[..len]);
                for (port, allowed) in [
                    (0, false),
                    (1, false),
                    (79, false),
                    (80, true),
                    (81, false),
                    (7999, false),
                    (8000, true),
                    (9000, true),
                    (9001, false),
                    (65_535, false),
                ] {
                    let run = node.run(Hook::FromA, &syn(family, port));
                    assert_eq!(run.action == REDIRECTED, allowed, "{family:?} TCP {port}");
                }
                for (port, allowed) in [(52, false), (53, len == 9), (54, false)] {
                    let t = tuple(family.a(), 4000, family.b(), port);
                    let run = node.run(Hook::FromA, &Packet::udp(&t, b"").frame());
                    assert_eq!(run.action == REDIRECTED, allowed, "{family:?} UDP {port}");
                }
                let t = tuple(family.a(), 4000, family.b(), 9999);
                let run = node.run(Hook::FromA, &Packet::sctp(&t, 1).frame());
                assert_eq!(run.action == REDIRECTED, len == 9);
            }
        }
    });
}

#[test]
fn echo_is_judged_as_icmp_without_ports() {
    on_node(|node| {
        for family in Family::BOTH {
            node.groups(SLOT_B, G, GroupId::OPEN);
            node.peer(family.a(), CLASS);
            // A rule for every port of TCP and UDP is none for ICMP.
            let ports_only = [
                (0, DENY),
                (Interval::key(Proto::TCP, 0), ALLOW),
                (Interval::key(Proto(18), 0), DENY),
            ];
            node.table(G, CLASS, 0, &ports_only);
            let echo = Packet::echo(family, family.a(), family.b(), 1, false).frame();
            node.run(Hook::FromA, &echo)
                .dropped(Counter::DropPolicyIngress);
            let icmp = [
                (0, DENY),
                (Interval::key(family.icmp(), 0), ALLOW),
                (Interval::key(family.icmp(), 1), DENY),
            ];
            node.table(G, CLASS, 0, &icmp);
            node.run(Hook::FromA, &echo).delivered();
        }
    });
}

#[test]
fn an_address_that_is_no_known_peer_has_the_class_of_its_longest_prefix() {
    on_node(|node| {
        for family in Family::BOTH {
            let whole = match family {
                Family::V4 => Addr::from_v4([0; 4]),
                Family::V6 => Addr::from_v6([0; 16]),
            };
            node.groups(SLOT_B, G, GroupId::OPEN);
            let frame = |family: Family, port| {
                let t = tuple(family.world(), port, family.b(), 80);
                Packet::tcp(&t, SYN).addressed(MAC_UPLINK).frame()
            };
            node.inline_row(G, 0, DENY);
            node.run(Hook::FromUplink, &frame(family, 1))
                .dropped(Counter::DropPolicyIngress);
            node.cidr(whole, 0, 40);
            node.inline_row(G, 40, ALLOW);
            node.run(Hook::FromUplink, &frame(family, 2)).delivered();
            // One family's default prefix is nothing to the other.
            let other = if family == Family::V4 {
                Family::V6
            } else {
                Family::V4
            };
            if family == Family::V4 {
                node.run(Hook::FromUplink, &frame(other, 3))
                    .dropped(Counter::DropPolicyIngress);
            }
            node.cidr(
                family.world(),
                if family == Family::V4 { 32 } else { 128 },
                41,
            );
            node.inline_row(G, 41, DENY);
            node.run(Hook::FromUplink, &frame(family, 4))
                .dropped(Counter::DropPolicyIngress);
            node.peer(family.world(), 42);
            node.inline_row(G, 42, ALLOW);
            node.run(Hook::FromUplink, &frame(family, 5)).delivered();
        }
    });
}

#[test]
fn a_pod_reaches_its_own_address_whatever_the_policy() {
    on_node(|node| {
        for family in Family::BOTH {
            node.groups(SLOT_A, G, G);
            let t = tuple(family.a(), 4000, family.a(), 80);
            let run = node
                .run(Hook::FromA, &Packet::tcp(&t, SYN).frame())
                .delivered();
            assert_eq!(see(&run.packet).macs, (MAC_POD_A, MAC_HOST_A));
        }
    });
}
