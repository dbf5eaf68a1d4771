//! What somebody outside, or a pod, could make up to get past policy.

use weir_abi::Addr;
use weir_abi::conntrack::flags;
use weir_abi::counter::Counter;
use weir_abi::policy::{GroupId, RuleId, RuleVerdict};

use crate::packets::*;
use crate::rig::*;

/// A group without rows: nothing may pass.
const CLOSED: GroupId = GroupId(20);
/// A group that lets class [`OF_A`] in.
const ONLY_A: GroupId = GroupId(21);
const OF_A: u32 = 30;

fn isolate_b_but_for_a(node: &mut Node, family: Family) {
    node.groups(SLOT_B, ONLY_A, GroupId::OPEN);
    node.peer(family.a(), OF_A);
    node.inline_row(ONLY_A, OF_A, RuleVerdict::allow(RuleId(100)));
}

#[test]
fn a_local_pods_address_as_source_is_dropped_at_the_uplink() {
    on_node(|node| {
        for family in Family::BOTH {
            isolate_b_but_for_a(node, family);
            for src in [family.a(), family.b()] {
                let t = tuple(src, 4000, family.b(), 80);
                for packet in [
                    Packet::tcp(&t, SYN),
                    Packet::udp(&t, b"x"),
                    Packet::echo(family, src, family.b(), 1, false),
                ] {
                    node.run(Hook::FromUplink, &packet.addressed(MAC_UPLINK).frame())
                        .dropped(Counter::DropOwnSource);
                }
            }
            // Nor on a flow that the pod itself has opened.
            let t = tuple(family.a(), 4000, family.b(), 80);
            node.run(Hook::FromA, &Packet::tcp(&t, SYN).frame())
                .delivered();
            let forged = Packet::tcp(&t, ACK).addressed(MAC_UPLINK).frame();
            node.run(Hook::FromUplink, &forged)
                .dropped(Counter::DropOwnSource);
        }
    });
}

#[test]
fn a_forwarded_packet_with_another_pods_address_as_source_is_dropped() {
    on_node(|node| {
        for family in Family::BOTH {
            isolate_b_but_for_a(node, family);
            for src in [family.a(), family.b()] {
                let t = tuple(src, 4000, family.b(), 80);
                node.run(Hook::ToB, &Packet::udp(&t, b"x").frame())
                    .dropped(Counter::DropOwnSource);
            }
            // What pod A has sent, and the stack forwarded, is pod A's.
            let t = tuple(family.a(), 4000, family.b(), 80);
            let if_a = node.if_a;
            node.run_with(Hook::ToB, &Packet::udp(&t, b"x").frame(), |ctx| {
                ctx[skb::INGRESS_IFINDEX] = if_a;
            })
            .left_to_stack();
        }
    });
}

#[test]
fn a_pod_that_reaches_itself_through_a_service_opens_no_door_for_others() {
    on_node(|node| {
        for family in Family::BOTH {
            node.groups(SLOT_B, CLOSED, CLOSED);
            for proto in [weir_abi::Proto::TCP, weir_abi::Proto::UDP] {
                node.service(family.vip(), 80, proto, &[(7, family.b(), 8080)]);
            }
            let t = tuple(family.b(), 4000, family.vip(), 80);
            let run = node
                .run(Hook::FromB, &Packet::udp(&t, b"x").frame())
                .delivered();
            let seen = see(&run.packet);
            let (_, entry) = node.entry(&t, weir_abi::Proto::UDP).expect("remembered");
            assert_ne!(entry.flags & flags::HAIRPIN, 0);
            let forged = Packet::udp(&entry.other, b"x").frame();
            assert_eq!(seen.src, entry.other.src);
            let mut at_uplink = forged.clone();
            at_uplink[..6].copy_from_slice(&MAC_UPLINK);
            node.run(Hook::FromUplink, &at_uplink)
                .dropped(Counter::DropInvalidState);
            node.run(Hook::ToB, &forged)
                .dropped(Counter::DropInvalidState);
        }
    });
}

#[test]
fn only_echo_replies_are_replies_of_an_echo() {
    on_node(|node| {
        for family in Family::BOTH {
            // A may ping B, and nothing may get into A.
            node.groups(SLOT_A, CLOSED, GroupId::OPEN);
            let (a, b) = (family.a(), family.b());
            node.run(Hook::FromA, &Packet::echo(family, a, b, 0, false).frame())
                .delivered();
            node.run(Hook::FromB, &Packet::echo(family, b, a, 0, true).frame())
                .delivered();
            node.run(Hook::FromB, &Packet::echo(family, b, a, 0, false).frame())
                .dropped(Counter::DropNoRow);
            let other = if family == Family::V4 { 13 } else { 144 };
            let packet = Packet::icmp(b, a, other, 0, [0; 4], &[0; 16]);
            node.run(Hook::FromB, &packet.frame())
                .dropped(Counter::DropNoRow);
            node.run(Hook::FromB, &Packet::echo(family, b, a, 0, true).frame())
                .delivered();
        }
    });
}

#[test]
fn a_pod_cannot_reach_the_nodes_loopback() {
    on_node(|node| {
        for (family, loopbacks) in [
            (
                Family::V4,
                [[127, 0, 0, 1], [127, 255, 255, 254]].map(Addr::from_v4),
            ),
            (
                Family::V6,
                [Addr::from_v6(core::net::Ipv6Addr::LOCALHOST.octets()); 2],
            ),
        ] {
            for dst in loopbacks {
                let t = tuple(family.a(), 4000, dst, 80);
                node.run(Hook::FromA, &Packet::tcp(&t, SYN).frame())
                    .dropped(Counter::DropMalformed);
            }
        }
    });
}
