//! Truncated and contradictory packets, and fragments.

use weir_abi::Proto;
use weir_abi::counter::Counter;
use weir_abi::policy::GroupId;

use crate::packets::*;
use crate::rig::*;

/// One packet of each kind that can be truncated.
fn kinds(family: Family) -> Vec<Packet> {
    let t = tuple(family.a(), 4000, family.b(), 80);
    let quoted = Packet::tcp(&t.reversed(), ACK).ip();
    let (unreachable, code) = if family == Family::V4 { (3, 3) } else { (1, 4) };
    let mut kinds = vec![
        Packet::tcp(&t, SYN),
        Packet::udp(&t, b"payload"),
        Packet::sctp(&t, 1),
        Packet::echo(family, t.src, t.dst, 9, false),
        Packet::icmp(t.src, t.dst, unreachable, code, [0; 4], &quoted),
    ];
    let mut long = Packet::tcp(&t, SYN);
    if family == Family::V4 {
        long.options = vec![1; 40];
    } else {
        long.first_extension = Some(0);
        long.options = [
            [60, 0, 1, 4, 0, 0, 0, 0],
            [43, 0, 1, 4, 0, 0, 0, 0],
            [44, 0, 3, 0, 0, 0, 0, 0],
            [51, 0, 0, 0, 0, 0, 0, 9],
            [6, 0, 0, 0, 0, 0, 0, 1],
        ]
        .concat();
    }
    kinds.push(long);
    kinds
}

#[test]
fn a_packet_cut_at_any_length_is_dropped_by_every_hook() {
    on_node(|node| {
        for family in Family::BOTH {
            for packet in kinds(family) {
                let frame = packet.clone().addressed(MAC_UPLINK).frame();
                // The kernel takes no frame for a test run that ends within its IP header
                // (6.18); those lengths are tried on the parser itself.
                for len in family.l4()..frame.len() {
                    for hook in [Hook::FromA, Hook::ToB, Hook::NodeToB, Hook::FromUplink] {
                        let run = node.run(hook, &frame[..len]);
                        assert_eq!(
                            (run.action, &run.counted[..]),
                            (DROPPED, &[Counter::DropMalformed][..]),
                            "{hook:?} {len} of {} bytes of {packet:?}",
                            frame.len()
                        );
                    }
                }
            }
        }
        assert_eq!(node.entries(), 0);
    });
}

#[test]
fn a_packet_whose_header_ends_it_at_any_length_is_never_delivered_with_less_than_its_headers() {
    on_node(|node| {
        for family in Family::BOTH {
            let t = tuple(family.a(), 4000, family.b(), 80);
            for (packet, needs) in [
                (Packet::tcp(&t, SYN), 20),
                (Packet::udp(&t, b"payload"), 15),
                (Packet::sctp(&t, 1), 16),
                (Packet::echo(family, t.src, t.dst, 9, false), 8),
            ] {
                let mut frame = packet.frame();
                for len in 0..packet.l4.len() {
                    if family == Family::V4 {
                        frame[16..18].copy_from_slice(&((20 + len) as u16).to_be_bytes());
                    } else {
                        frame[18..20].copy_from_slice(&(len as u16).to_be_bytes());
                    }
                    let run = node.run(Hook::FromA, &frame);
                    let action = if len < needs { DROPPED } else { REDIRECTED };
                    assert_eq!(run.action, action, "{len} bytes of {packet:?}");
                }
            }
        }
    });
}

#[test]
fn every_byte_of_every_header_may_be_anything() {
    on_node(|node| {
        for family in Family::BOTH {
            for packet in kinds(family) {
                let frame = packet.addressed(MAC_UPLINK).frame();
                for at in 12..frame.len().min(90) {
                    for value in [0, 1, 0x0f, 0x7f, 0x80, 0xff] {
                        let mut frame = frame.clone();
                        frame[at] = value;
                        for hook in [Hook::FromA, Hook::FromUplink] {
                            let run = node.run(hook, &frame);
                            assert!([STACK, DROPPED, REDIRECTED].contains(&run.action));
                            assert!(
                                !run.counted.contains(&Counter::DropInternal),
                                "{at}: {value:#x}"
                            );
                        }
                    }
                }
            }
        }
    });
}

/// A fragment of a UDP datagram from A to B.
fn fragment(
    family: Family,
    src: weir_abi::Addr,
    dst: weir_abi::Addr,
    offset: u16,
    more: bool,
) -> Packet {
    let mut packet = Packet::udp(&tuple(src, 4000, dst, 80), &[7; 24]);
    packet.no_checksum = true;
    if offset > 0 {
        packet.l4 = vec![7; 24];
    }
    if family == Family::V4 {
        packet.fragment = (offset / 8) | (u16::from(more) << 13);
    } else {
        let [a, b] = (offset | u16::from(more)).to_be_bytes();
        packet.first_extension = Some(44);
        packet.options = vec![17, 0, a, b, 0, 0, 0, 1];
    }
    packet
}

#[test]
fn fragments_between_open_pods_are_delivered() {
    on_node(|node| {
        for family in Family::BOTH {
            for (offset, more) in [(0, true), (32, true), (56, false)] {
                let packet = fragment(family, family.a(), family.b(), offset, more);
                node.run(Hook::FromA, &packet.frame()).delivered();
                let packet = fragment(family, family.world(), family.b(), offset, more);
                node.run(
                    Hook::FromUplink,
                    &packet.clone().addressed(MAC_UPLINK).frame(),
                )
                .delivered();
                node.run(Hook::ToB, &packet.frame()).left_to_stack();
            }
        }
    });
}

#[test]
fn later_fragments_to_or_from_a_pod_under_policy_are_dropped_and_counted() {
    on_node(|node| {
        let closed = GroupId(20);
        for family in Family::BOTH {
            let later = fragment(family, family.a(), family.b(), 32, false).frame();
            for (slot, ingress, egress) in [
                (SLOT_A, closed, GroupId::OPEN),
                (SLOT_A, GroupId::OPEN, closed),
                (SLOT_B, closed, GroupId::OPEN),
                (SLOT_B, GroupId::OPEN, closed),
            ] {
                node.groups(slot, ingress, egress);
                node.run(Hook::FromA, &later).dropped(Counter::DropFragment);
                node.groups(slot, GroupId::OPEN, GroupId::OPEN);
            }
            node.run(Hook::FromA, &later).delivered();
            node.groups(SLOT_B, closed, GroupId::OPEN);
            let foreign = fragment(family, family.world(), family.b(), 32, false);
            node.run(
                Hook::FromUplink,
                &foreign.clone().addressed(MAC_UPLINK).frame(),
            )
            .dropped(Counter::DropFragment);
            node.run(Hook::ToB, &foreign.frame())
                .dropped(Counter::DropFragment);
            let own = fragment(family, family.node(), family.b(), 32, false);
            node.run(Hook::NodeToB, &own.frame()).left_to_stack();
            node.groups(SLOT_B, GroupId::OPEN, GroupId::OPEN);
        }
    });
}

#[test]
fn later_fragments_to_a_service_are_dropped_and_counted() {
    on_node(|node| {
        for family in Family::BOTH {
            node.service(family.vip(), 80, Proto::UDP, &[(1, family.b(), 80)]);
            let later = fragment(family, family.a(), family.vip(), 32, false);
            node.run(Hook::FromA, &later.frame())
                .dropped(Counter::DropFragment);
        }
    });
}

#[test]
fn a_first_fragment_too_short_for_its_ports_is_malformed() {
    on_node(|node| {
        for family in Family::BOTH {
            let mut packet = fragment(family, family.a(), family.b(), 0, true);
            packet.l4.truncate(7);
            node.run(Hook::FromA, &packet.frame())
                .dropped(Counter::DropMalformed);
            // TCP's flags decide too: all of its header must be there (RFC 1858).
            let mut packet = fragment(family, family.a(), family.b(), 0, true);
            packet.proto = Proto::TCP;
            if let Some(next) = packet.options.first_mut() {
                *next = 6;
            }
            packet.l4.truncate(16);
            node.run(Hook::FromA, &packet.frame())
                .dropped(Counter::DropMalformed);
        }
    });
}
