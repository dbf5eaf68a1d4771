//! The pod's edge: forged sources, ARP, neighbour discovery, noise.

use weir_abi::Addr;
use weir_abi::counter::Counter;
use weir_abi::endpoint::{GATEWAY_V4, GATEWAY_V6};

use crate::packets::*;
use crate::rig::*;

/// The pod's own link-local address: nobody has told the programs of it.
fn link_local(last: u8) -> Addr {
    Addr::from_v6([
        0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0xa1, 0xff, 0xfe, 0, 0, last,
    ])
}

fn multicast(last: u8) -> Addr {
    Addr::from_v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last])
}

#[test]
fn a_source_that_is_not_the_pods_is_dropped() {
    on_node(|node| {
        for family in Family::BOTH {
            for src in [
                family.b(),
                family.node(),
                family.world(),
                family.gateway(),
                family.vip(),
            ] {
                let t = tuple(src, 4000, family.b(), 80);
                for packet in [
                    Packet::tcp(&t, SYN),
                    Packet::udp(&t, b"x"),
                    Packet::echo(family, src, family.b(), 1, true),
                ] {
                    node.run(Hook::FromA, &packet.frame())
                        .dropped(Counter::DropSpoofed);
                }
            }
        }
        assert_eq!(node.entries(), 0);
    });
}

#[test]
fn a_pod_of_one_family_has_no_address_of_the_other() {
    on_node(|node| {
        for family in Family::BOTH {
            let mut only = node.pod_a();
            if family == Family::V4 {
                only.addr6 = Addr::NONE;
            } else {
                only.addr4 = Addr::NONE;
            }
            let if_a = node.if_a;
            node.map("ENDPOINTS").insert(if_a, only, 0).unwrap();
            let other = if family == Family::V4 {
                Family::V6
            } else {
                Family::V4
            };
            for src in [
                other.a(),
                if other == Family::V4 {
                    Addr::from_v4([0; 4])
                } else {
                    Addr::NONE
                },
            ] {
                let packet = Packet::tcp(&tuple(src, 1, other.b(), 80), SYN).frame();
                node.run(Hook::FromA, &packet).dropped(Counter::DropSpoofed);
            }
            node.run(
                Hook::FromA,
                &Packet::tcp(&tuple(family.a(), 1, family.b(), 80), SYN).frame(),
            )
            .delivered();
        }
    });
}

fn arp(op: u8, sender_mac: [u8; 6], sender: Addr, target: Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(MAC_POD_A);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, op]);
    frame.extend(sender_mac);
    frame.extend(&sender.octets()[12..]);
    frame.extend([0; 6]);
    frame.extend(&target.octets()[12..]);
    frame
}

#[test]
fn arp_for_the_gateway_is_answered() {
    on_node(|node| {
        let a = Family::V4.a();
        for sender in [a, Addr::from_v4([0; 4])] {
            let run = node.run(Hook::FromA, &arp(1, MAC_POD_A, sender, GATEWAY_V4));
            let run = run.expect(REDIRECTED, Counter::AnsweredNeighbour);
            let mut expected = MAC_POD_A.to_vec();
            expected.extend(MAC_HOST_A);
            expected.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
            expected.extend(MAC_HOST_A);
            expected.extend([169, 254, 1, 1]);
            expected.extend(MAC_POD_A);
            expected.extend(&sender.octets()[12..]);
            assert_eq!(run.packet, expected);
        }
    });
}

#[test]
fn arp_in_anothers_name_is_dropped_and_about_others_ignored() {
    on_node(|node| {
        let v4 = Family::V4;
        for op in [1, 2] {
            for frame in [
                arp(op, MAC_POD_A, v4.b(), GATEWAY_V4),
                arp(op, MAC_POD_B, v4.a(), GATEWAY_V4),
            ] {
                node.run(Hook::FromA, &frame).dropped(Counter::DropSpoofed);
            }
        }
        node.run(
            Hook::FromA,
            &arp(2, MAC_POD_A, Addr::from_v4([0; 4]), v4.node()),
        )
        .dropped(Counter::DropSpoofed);
        for target in [v4.b(), v4.a(), v4.node()] {
            node.run(Hook::FromA, &arp(1, MAC_POD_A, v4.a(), target))
                .dropped(Counter::IgnoredNoise);
        }
        node.run(Hook::FromA, &arp(2, MAC_POD_A, v4.a(), v4.node()))
            .left_to_stack();
        node.run(Hook::NodeToB, &arp(1, MAC_HOST_B, v4.node(), v4.b()))
            .left_to_stack();
        node.run(Hook::ToB, &arp(1, MAC_HOST_B, v4.node(), v4.b()))
            .dropped(Counter::DropOtherProtocol);
    });
}

#[test]
fn arp_that_is_not_of_ethernet_and_ipv4_or_truncated_is_malformed() {
    on_node(|node| {
        let right = arp(1, MAC_POD_A, Family::V4.a(), GATEWAY_V4);
        for at in 14..22 {
            let mut frame = right.clone();
            frame[at] ^= 0x40;
            node.run(Hook::FromA, &frame)
                .dropped(Counter::DropMalformed);
        }
        for len in 15..right.len() {
            node.run(Hook::FromA, &right[..len])
                .dropped(Counter::DropMalformed);
        }
    });
}

/// A neighbour solicitation or advertisement.
fn nd(kind: u8, src: Addr, dst: Addr, target: Addr) -> Packet {
    Packet::icmp(src, dst, kind, 0, [0; 4], &target.octets()).ttl(255)
}

#[test]
fn a_solicitation_for_the_gateway_is_answered() {
    on_node(|node| {
        for src in [Family::V6.a(), link_local(1), Addr::NONE] {
            let packet = nd(135, src, multicast(1), GATEWAY_V6);
            let run = node.run(Hook::FromA, &packet.frame());
            let seen = see(&run.expect(REDIRECTED, Counter::AnsweredNeighbour).packet);
            let (to, flags) = if src.is_none() {
                (multicast(1), 0xa0)
            } else {
                (src, 0xe0)
            };
            assert_eq!((seen.src, seen.dst, seen.ttl), (GATEWAY_V6, to, 255));
            assert_eq!(seen.macs, (MAC_POD_A, MAC_HOST_A));
            assert_eq!((seen.l4[0], seen.l4[1], seen.l4[4]), (136, 0, flags));
            assert_eq!(seen.l4[8..24], GATEWAY_V6.octets());
            assert_eq!(seen.l4[24..26], [2, 1]);
            assert_eq!(seen.l4[26..32], MAC_HOST_A);
        }
    });
}

#[test]
fn a_solicitation_with_options_or_from_afar_is_handled_by_the_rules() {
    on_node(|node| {
        let a = Family::V6.a();
        let mut with_option = nd(135, a, GATEWAY_V6, GATEWAY_V6);
        with_option.l4.extend([1, 1]);
        with_option.l4.extend(MAC_POD_A);
        let run = node.run(Hook::FromA, &with_option.frame());
        assert_eq!(
            run.expect(REDIRECTED, Counter::AnsweredNeighbour)
                .packet
                .len(),
            14 + 40 + 32
        );
        for kind in [135, 136] {
            let far = nd(kind, a, GATEWAY_V6, GATEWAY_V6).ttl(254);
            node.run(Hook::FromA, &far.frame())
                .dropped(Counter::DropMalformed);
            let mut short = nd(kind, a, GATEWAY_V6, GATEWAY_V6);
            short.l4.truncate(23);
            node.run(Hook::FromA, &short.frame())
                .dropped(Counter::DropMalformed);
        }
    });
}

#[test]
fn a_pod_advertises_only_itself() {
    on_node(|node| {
        let v6 = Family::V6;
        for own in [v6.a(), link_local(1)] {
            node.run(Hook::FromA, &nd(136, own, v6.node(), own).frame())
                .left_to_stack();
        }
        for target in [v6.b(), v6.node(), GATEWAY_V6] {
            for src in [v6.a(), link_local(1)] {
                node.run(Hook::FromA, &nd(136, src, multicast(1), target).frame())
                    .dropped(Counter::DropSpoofed);
            }
        }
    });
}

#[test]
fn questions_about_other_neighbours_and_address_detection_are_ignored() {
    on_node(|node| {
        for (src, target) in [
            (Family::V6.a(), Family::V6.b()),
            (Addr::NONE, link_local(1)),
            (Addr::NONE, Family::V6.a()),
        ] {
            node.run(Hook::FromA, &nd(135, src, multicast(1), target).frame())
                .dropped(Counter::IgnoredNoise);
        }
    });
}

#[test]
fn a_pod_is_no_router() {
    on_node(|node| {
        for src in [Family::V6.a(), link_local(1)] {
            for kind in [134, 137] {
                node.run(
                    Hook::FromA,
                    &nd(kind, src, multicast(1), Family::V6.a()).frame(),
                )
                .dropped(Counter::DropForbiddenIcmp);
            }
        }
        for kind in [5, 9] {
            let packet = Packet::icmp(Family::V4.a(), Family::V4.b(), kind, 0, [0; 4], &[0; 28]);
            node.run(Hook::FromA, &packet.frame())
                .dropped(Counter::DropForbiddenIcmp);
        }
    });
}

#[test]
fn what_a_pods_kernel_says_by_itself_is_noise_and_not_forgery() {
    on_node(|node| {
        for src in [Addr::NONE, link_local(1), Family::V6.a()] {
            for kind in [130, 131, 132, 133, 143] {
                let packet = Packet::icmp(src, multicast(2), kind, 0, [0; 4], &[0; 20]);
                node.run(Hook::FromA, &packet.frame())
                    .dropped(Counter::IgnoredNoise);
            }
        }
        // As the kernel sends it: behind a hop-by-hop header with the router alert option.
        let mut report =
            Packet::icmp(link_local(1), multicast(0x16), 143, 0, [0; 4], &[0; 20]).ttl(1);
        report.first_extension = Some(0);
        report.options = vec![58, 0, 5, 2, 0, 0, 1, 0];
        node.run(Hook::FromA, &report.frame())
            .dropped(Counter::IgnoredNoise);
        // Names asked for by multicast.
        let t = tuple(link_local(1), 5353, multicast(0xfb), 5353);
        node.run(Hook::FromA, &Packet::udp(&t, b"?").frame())
            .dropped(Counter::IgnoredNoise);
        // But a link-local source is not the pod's for anyone else.
        let t = tuple(link_local(1), 5353, Family::V6.b(), 5353);
        node.run(Hook::FromA, &Packet::udp(&t, b"?").frame())
            .dropped(Counter::DropSpoofed);
    });
}

#[test]
fn the_nodes_own_link_talk_reaches_a_pod_and_a_forwarded_one_does_not() {
    on_node(|node| {
        let packet = nd(135, GATEWAY_V6, Family::V6.b(), Family::V6.b()).frame();
        node.run(Hook::NodeToB, &packet).left_to_stack();
        let foreign = nd(135, GATEWAY_V6, multicast(1), Family::V6.b()).frame();
        node.run(Hook::ToB, &foreign)
            .dropped(Counter::DropNotForPod);
    });
}
