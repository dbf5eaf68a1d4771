//! Entries: when they are made, where they stand, when they are over.

use weir_abi::conntrack::{CtEntry, Tuple, flags, seen};
use weir_abi::counter::Counter;
use weir_abi::policy::GroupId;
use weir_abi::{Addr, Proto};

use crate::packets::*;
use crate::rig::*;

const CLOSED: GroupId = GroupId::CLOSED;

fn state(node: &mut Node, t: &Tuple, proto: Proto) -> (&'static str, u32) {
    let (map, entry) = node.entry(t, proto).expect("an entry");
    (map, entry.seen)
}

fn a_to_b(family: Family) -> Tuple {
    tuple(family.a(), 4000, family.b(), 80)
}

/// Sends TCP packets: (from A?, flags).
fn exchange(node: &mut Node, t: &Tuple, packets: &[(bool, u8)]) {
    for &(from_a, flags) in packets {
        if from_a {
            node.run(Hook::FromA, &Packet::tcp(t, flags).frame())
                .delivered();
        } else {
            node.run(Hook::FromB, &Packet::tcp(&t.reversed(), flags).frame())
                .delivered();
        }
    }
}

const HANDSHAKE: [(bool, u8); 3] = [(true, SYN), (false, SYN | ACK), (true, ACK)];

#[test]
fn a_connection_moves_to_the_established_map_with_its_handshake_and_back_with_its_end() {
    on_node(|node| {
        for family in Family::BOTH {
            for end in [
                (true, FIN | ACK),
                (false, FIN | ACK),
                (true, RST),
                (false, RST | ACK),
            ] {
                let t = a_to_b(family);
                exchange(node, &t, &HANDSHAKE[..1]);
                assert_eq!(state(node, &t, Proto::TCP), ("CT_NEW", 0));
                exchange(node, &t, &HANDSHAKE[1..2]);
                assert_eq!(
                    state(node, &t, Proto::TCP),
                    ("CT_NEW", seen::REPLY | seen::SYN_ACK)
                );
                exchange(node, &t, &HANDSHAKE[2..]);
                let open = seen::REPLY | seen::SYN_ACK | seen::ESTABLISHED;
                assert_eq!(state(node, &t, Proto::TCP), ("CT_EST", open));
                exchange(node, &t, &[end]);
                let bit = match end {
                    (true, flags) if flags & FIN != 0 => seen::FIN_INITIATOR,
                    (false, flags) if flags & FIN != 0 => seen::FIN_RESPONDER,
                    _ => seen::RST,
                };
                assert_eq!(state(node, &t, Proto::TCP), ("CT_NEW", open | bit));
                assert_eq!(node.entries(), 1, "one entry, in one map");
                // Both ends go on: a FIN closes one direction, a RST may be forged.
                exchange(node, &t, &[(true, ACK), (false, ACK)]);
                // A new connection takes the place of the old.
                exchange(node, &t, &HANDSHAKE[..1]);
                assert_eq!(state(node, &t, Proto::TCP), ("CT_NEW", 0));
                exchange(node, &t, &[(true, RST)]);
            }
            exchange(node, &a_to_b(family), &HANDSHAKE[..1]);
            node.map::<weir_abi::conntrack::CtKey, CtEntry>("CT_NEW")
                .remove(&weir_abi::conntrack::CtKey::sorted(&a_to_b(family), Proto::TCP).0)
                .unwrap();
        }
    });
}

#[test]
fn datagrams_and_echoes_move_with_their_first_reply() {
    on_node(|node| {
        for family in Family::BOTH {
            let t = a_to_b(family);
            let echo = tuple(t.src, 9, t.dst, 0);
            for (proto, t, there, back) in [
                (
                    Proto::UDP,
                    t,
                    Packet::udp(&t, b"?"),
                    Packet::udp(&t.reversed(), b"!"),
                ),
                (
                    Proto::SCTP,
                    t,
                    Packet::sctp(&t, 1),
                    Packet::sctp(&t.reversed(), 2),
                ),
                (
                    family.icmp(),
                    echo,
                    Packet::echo(family, t.src, t.dst, 9, false),
                    Packet::echo(family, t.dst, t.src, 9, true),
                ),
            ] {
                for _ in 0..2 {
                    node.run(Hook::FromA, &there.frame()).delivered();
                }
                assert_eq!(state(node, &t, proto), ("CT_NEW", 0));
                node.run(Hook::FromB, &back.frame()).delivered();
                assert_eq!(
                    state(node, &t, proto),
                    ("CT_EST", seen::REPLY | seen::ESTABLISHED)
                );
            }
        }
    });
}

#[test]
fn an_entry_holds_who_opened_it() {
    on_node(|node| {
        for family in Family::BOTH {
            let t = a_to_b(family);
            for (hook, t) in [(Hook::FromA, t), (Hook::FromB, tuple(t.dst, 1, t.src, 2))] {
                let mut packet = Packet::udp(&t, b"x");
                packet.dst_mac = MAC_HOST_B;
                node.run(hook, &packet.frame()).delivered();
                let entry = node.entry(&t, Proto::UDP).unwrap().1;
                let pods = (node.pod_a().incarnation, node.pod_b().incarnation);
                let expected = if hook == Hook::FromA {
                    pods
                } else {
                    (pods.1, pods.0)
                };
                assert_eq!((entry.initiator, entry.responder), expected);
                assert_eq!(entry.version, CtEntry::VERSION);
                assert_eq!(entry.flags & flags::NAT, 0);
            }
            let t = tuple(family.remote(), 4000, family.b(), 80);
            node.run(
                Hook::FromUplink,
                &Packet::tcp(&t, SYN).addressed(MAC_UPLINK).frame(),
            )
            .delivered();
            let entry = node.entry(&t, Proto::TCP).unwrap().1;
            assert_eq!(
                (entry.initiator, entry.responder),
                (0, node.pod_b().incarnation)
            );
        }
    });
}

#[test]
fn what_nothing_can_answer_leaves_no_entry() {
    on_node(|node| {
        for family in Family::BOTH {
            let t = a_to_b(family);
            for packet in [
                Packet::tcp(&t, RST),
                Packet::tcp(&t, SYN | ACK),
                Packet::tcp(&t, SYN | RST),
                Packet::echo(family, t.src, t.dst, 9, true),
                Packet::icmp(
                    t.src,
                    t.dst,
                    if family == Family::V4 { 13 } else { 150 },
                    0,
                    [0; 4],
                    b"",
                ),
            ] {
                node.run(Hook::FromA, &packet.frame()).delivered();
            }
        }
        assert_eq!(node.entries(), 0);
    });
}

#[test]
fn a_connection_met_midway_is_judged_in_its_packets_own_direction() {
    on_node(|node| {
        for family in Family::BOTH {
            let t = a_to_b(family);
            node.groups(SLOT_A, CLOSED, GroupId::OPEN);
            // B's packet comes first: A takes nothing in.
            node.run(Hook::FromB, &Packet::tcp(&t.reversed(), ACK).frame())
                .dropped(Counter::DropNoRow);
            exchange(node, &t, &[(true, ACK)]);
            assert_eq!(state(node, &t, Proto::TCP), ("CT_NEW", seen::MIDSTREAM));
            exchange(node, &t, &[(false, ACK)]);
            assert_eq!(state(node, &t, Proto::TCP).0, "CT_EST");
            node.groups(SLOT_A, GroupId::OPEN, GroupId::OPEN);
        }
    });
}

#[test]
fn an_entry_that_is_over_is_as_good_as_none() {
    on_node(|node| {
        for family in Family::BOTH {
            let t = a_to_b(family);
            node.run(Hook::FromA, &Packet::udp(&t, b"x").frame())
                .delivered();
            node.groups(SLOT_A, CLOSED, GroupId::OPEN);
            let reply = Packet::udp(&t.reversed(), b"y").frame();
            // 30 seconds are 28 ticks.
            node.edit_entry(&t, Proto::UDP, |e| {
                e.last_seen = e.last_seen.wrapping_sub(26)
            });
            node.run(Hook::FromB, &reply).delivered();
            node.edit_entry(&t, Proto::UDP, |e| {
                e.last_seen = e.last_seen.wrapping_sub(200)
            });
            node.run(Hook::FromB, &reply).dropped(Counter::DropNoRow);
            // The flow may be opened again.
            node.run(Hook::FromA, &Packet::udp(&t, b"x").frame())
                .delivered();
            assert_eq!(state(node, &t, Proto::UDP), ("CT_NEW", 0));
            node.groups(SLOT_A, GroupId::OPEN, GroupId::OPEN);
        }
    });
}

#[test]
fn a_packet_of_either_end_keeps_an_entry_alive() {
    on_node(|node| {
        for family in Family::BOTH {
            let t = a_to_b(family);
            exchange(node, &t, &HANDSHAKE);
            for from_a in [true, false] {
                let mut last = 0;
                node.edit_entry(&t, Proto::TCP, |e| {
                    e.last_seen -= 20;
                    last = e.last_seen;
                });
                exchange(node, &t, &[(from_a, ACK)]);
                let now = node.entry(&t, Proto::TCP).unwrap().1.last_seen;
                assert!(now >= last + 20, "{last} {now}");
            }
        }
    });
}

#[test]
fn an_entry_of_another_layout_is_not_read() {
    on_node(|node| {
        for family in Family::BOTH {
            let t = a_to_b(family);
            node.run(Hook::FromA, &Packet::udp(&t, b"x").frame())
                .delivered();
            node.edit_entry(&t, Proto::UDP, |e| e.version = 99);
            node.groups(SLOT_A, CLOSED, GroupId::OPEN);
            node.run(Hook::FromB, &Packet::udp(&t.reversed(), b"y").frame())
                .dropped(Counter::DropNoRow);
            node.run(Hook::FromA, &Packet::udp(&t, b"x").frame())
                .delivered();
            assert_eq!(
                node.entry(&t, Proto::UDP).unwrap().1.version,
                CtEntry::VERSION
            );
            node.groups(SLOT_A, GroupId::OPEN, GroupId::OPEN);
        }
    });
}

#[test]
fn a_reused_address_inherits_no_flow() {
    on_node(|node| {
        for family in Family::BOTH {
            let t = a_to_b(family);
            exchange(node, &t, &HANDSHAKE);
            // Another pod has A's address now, and takes nothing in.
            node.groups(SLOT_A, CLOSED, GroupId::OPEN);
            let mut heir = node.pod_a();
            heir.incarnation += 1000;
            node.adopt(heir);
            node.run(Hook::FromB, &Packet::tcp(&t.reversed(), ACK).frame())
                .dropped(Counter::DropNoRow);
            let original = node.pod_a();
            node.adopt(original);
            node.groups(SLOT_A, GroupId::OPEN, GroupId::OPEN);

            exchange(node, &t, &[(true, SYN), (false, SYN | ACK), (true, ACK)]);
            // Or B's.
            let mut heir = node.pod_b();
            heir.incarnation += 1000;
            heir.slot = 3;
            node.adopt(heir);
            node.run(Hook::FromA, &Packet::tcp(&t, ACK).frame())
                .dropped(Counter::DropNoRow);
            let original = node.pod_b();
            node.adopt(original);
            node.run(Hook::FromA, &Packet::tcp(&t, RST).frame())
                .delivered();
        }
    });
}

#[test]
fn an_end_that_was_not_known_when_the_flow_began_is_adopted_by_it() {
    on_node(|node| {
        for family in Family::BOTH {
            let t = a_to_b(family);
            node.run(Hook::FromA, &Packet::udp(&t, b"x").frame())
                .delivered();
            node.edit_entry(&t, Proto::UDP, |e| {
                e.responder = 0;
                e.ingress = weir_abi::conntrack::Stamp::unjudged(e.tag);
            });
            node.run(Hook::FromA, &Packet::udp(&t, b"x").frame())
                .delivered();
            let entry = node.entry(&t, Proto::UDP).unwrap().1;
            assert_eq!(entry.responder, node.pod_b().incarnation);
            assert_eq!(entry.ingress.verdict(1), Some(true));
        }
    });
}

#[test]
fn a_flood_of_half_open_connections_evicts_no_established_one() {
    on_node(|node| {
        for family in Family::BOTH {
            let t = a_to_b(family);
            exchange(node, &t, &HANDSHAKE);
            for i in 0..6000u32 {
                let t = tuple(
                    family.a(),
                    10_000 + (i / 60) as u16,
                    family.b(),
                    1000 + (i % 60) as u16,
                );
                node.run(Hook::FromA, &Packet::tcp(&t, SYN).frame())
                    .delivered();
            }
            assert_eq!(state(node, &t, Proto::TCP).0, "CT_EST");
            node.groups(SLOT_A, CLOSED, GroupId::OPEN);
            exchange(node, &t, &[(false, ACK)]);
            node.groups(SLOT_A, GroupId::OPEN, GroupId::OPEN);
        }
    });
}

#[test]
fn a_multicast_datagram_leaves_no_entry() {
    on_node(|node| {
        for dst in [Addr::from_v4([224, 0, 0, 251]), Addr::from_v4([255; 4])] {
            let t = tuple(Family::V4.a(), 5353, dst, 5353);
            node.run(Hook::FromA, &Packet::udp(&t, b"?").frame())
                .left_to_stack();
        }
        let mut group = [0u8; 16];
        (group[0], group[1], group[15]) = (0xff, 2, 0xfb);
        let t = tuple(Family::V6.a(), 5353, Addr::from_v6(group), 5353);
        node.run(Hook::FromA, &Packet::udp(&t, b"?").frame())
            .left_to_stack();
        assert_eq!(node.entries(), 0);
    });
}
