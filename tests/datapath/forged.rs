//! Raw frames by which a pod might speak as a router, a DHCP server or another network, or hide from
//! policy what it says.

use weir_abi::counter::Counter;
use weir_abi::policy::{GroupId, RuleId, RuleVerdict};
use weir_abi::{Addr, Proto};

use crate::packets::*;
use crate::pieces::pieces;
use crate::rig::*;

fn v6(text: &str) -> Addr {
    text.parse::<std::net::Ipv6Addr>().unwrap().into()
}

#[test]
fn dhcp_of_a_pod_goes_nowhere() {
    on_node(|node| {
        let broadcast = Addr::from_v4([255; 4]);
        let discover = Packet::udp(
            &tuple(Addr::from_v4([0; 4]), 68, broadcast, 67),
            &[1, 1, 6, 0],
        );
        node.run(Hook::FromA, &discover.addressed([0xff; 6]).frame())
            .dropped(Counter::DropSpoofed);
        // An offer in the name of a server.
        let offer = Packet::udp(&tuple(Family::V4.node(), 67, broadcast, 68), &[2, 1, 6, 0]);
        node.run(Hook::FromA, &offer.addressed([0xff; 6]).frame())
            .dropped(Counter::DropSpoofed);
        let solicit = Packet::udp(
            &tuple(v6("fe80::a"), 546, v6("ff02::1:2"), 547),
            &[1, 0, 0, 1],
        );
        node.run(Hook::FromA, &solicit.frame())
            .dropped(Counter::IgnoredNoise);
        let advertise = Packet::udp(
            &tuple(v6("fe80::1"), 547, Family::V6.b(), 546),
            &[2, 0, 0, 1],
        );
        node.run(Hook::FromA, &advertise.frame())
            .dropped(Counter::DropSpoofed);
    });
}

#[test]
fn frames_with_tags_and_of_other_protocols_go_nowhere() {
    on_node(|node| {
        for family in Family::BOTH {
            let t = tuple(family.a(), 4000, family.b(), 80);
            let plain = Packet::tcp(&t, SYN).frame();
            for tag in [[0x81, 0x00], [0x88, 0xa8], [0x91, 0x00], [0x88, 0x47]] {
                let mut frame = plain[..12].to_vec();
                frame.extend(tag);
                frame.extend([0, 5]);
                frame.extend(&plain[12..]);
                node.run(Hook::FromA, &frame)
                    .dropped(Counter::DropOtherProtocol);
            }
            // PPPoE, LLDP, 802.1X, a length (LLC).
            for other in [[0x88, 0x64], [0x88, 0xcc], [0x88, 0x8e], [0x00, 0x40]] {
                let mut frame = plain.clone();
                frame[12..14].copy_from_slice(&other);
                node.run(Hook::FromA, &frame)
                    .dropped(Counter::DropOtherProtocol);
            }
            // The header's version is another one than the frame's.
            let mut frame = plain.clone();
            frame[14] ^= 0x20;
            node.run(Hook::FromA, &frame)
                .dropped(Counter::DropMalformed);
        }
        assert_eq!(node.entries(), 0);
    });
}

/// A router advertisement.
fn advertisement(src: Addr) -> Packet {
    let body = [[0; 8], [3, 4, 64, 0xc0, 0, 0, 0, 1]].concat();
    let mut packet = Packet::icmp(src, v6("ff02::1"), 134, 0, [64, 0, 0x07, 8], &body);
    packet.ttl = 255;
    packet
}

#[test]
fn a_router_advertisement_does_not_hide_behind_headers_or_in_fragments() {
    on_node(|node| {
        for src in [v6("fe80::a"), v6("fe80::1"), Family::V6.a()] {
            let plain = advertisement(src);
            for headers in [
                vec![],
                vec![58, 0, 5, 2, 0, 0, 1, 0],
                [[60, 0, 1, 4, 0, 0, 0, 0], [58, 0, 1, 4, 0, 0, 0, 0]].concat(),
                // A fragment that is all there is, and a first one.
                vec![58, 0, 0, 0, 0, 0, 0, 1],
                vec![58, 0, 0, 1, 0, 0, 0, 1],
            ] {
                let mut packet = plain.clone();
                packet.first_extension = match headers.len() {
                    0 => None,
                    16 => Some(0),
                    _ if headers[2] == 5 => Some(0),
                    _ => Some(44),
                };
                packet.options = headers;
                node.run(Hook::FromA, &packet.frame())
                    .dropped(Counter::DropForbiddenIcmp);
            }
            // Its type is in the second fragment, behind a header that fills the first.
            let mut packet = plain.clone();
            packet.first_extension = Some(44);
            packet.options = vec![60, 0, 0, 1, 0, 0, 0, 1, 58, 0, 1, 4, 0, 0, 0, 0];
            packet.l4.clear();
            node.run(Hook::FromA, &packet.frame())
                .dropped(Counter::DropMalformed);
            // Later ones alone say nothing, and from a link-local address pass nowhere.
            let last = &pieces(&plain, 1, 16)[1];
            if src != Family::V6.a() {
                node.run(Hook::FromA, last).dropped(Counter::IgnoredNoise);
            }
        }
    });
}

/// B lets A in at TCP port 80 only.
fn only_port_80(node: &mut Node) {
    let group = GroupId(20);
    let at = |port| weir_abi::policy::Interval::key(Proto::TCP, port);
    let deny = RuleVerdict::deny(RuleId(101));
    let table = [
        (0, deny),
        (at(80), RuleVerdict::allow(RuleId(100))),
        (at(81), deny),
    ];
    for family in Family::BOTH {
        node.peer(family.a(), 7);
    }
    node.table(group, 7, 0, &table);
    node.groups(SLOT_B, group, GroupId::OPEN);
}

#[test]
fn tiny_and_overlapping_fragments_do_not_change_what_tcp_was_judged_by() {
    on_node(|node| {
        only_port_80(node);
        for family in Family::BOTH {
            let connect = |port, flags| {
                let t = tuple(family.a(), 4000, family.b(), port);
                Packet::tcp(&t, flags).payload(100)
            };
            // RFC 1858 §3: ports without flags, and the flags in the next.
            let tiny = pieces(&connect(80, SYN), 1, 8);
            node.run(Hook::FromA, &tiny[0])
                .dropped(Counter::DropMalformed);
            node.run(Hook::FromA, &tiny[1])
                .dropped(Counter::DropMalformed);
            let tiny = pieces(&connect(80, SYN), 1, 16);
            node.run(Hook::FromA, &tiny[0])
                .dropped(Counter::DropMalformed);
            node.run(Hook::FromA, &tiny[1])
                .dropped(Counter::DropMalformed);
            // RFC 1858 §4: a right first fragment, and a second one over its flags.
            let right = pieces(&connect(80, ACK), 2, 40);
            node.run(Hook::FromA, &right[0]).delivered();
            node.run(Hook::FromA, &pieces(&connect(80, SYN), 2, 8)[1])
                .dropped(Counter::DropMalformed);
            // RFC 3128: a second first one, too short to be judged, over its ports; and one that is not.
            node.run(Hook::FromA, &pieces(&connect(22, SYN), 2, 8)[0])
                .dropped(Counter::DropMalformed);
            node.run(Hook::FromA, &pieces(&connect(22, SYN), 2, 40)[0])
                .dropped(Counter::DropPolicyIngress);
            // What follows is still the rest of what was let pass.
            node.run(Hook::FromA, &right[1]).delivered();
        }
    });
}

#[test]
fn an_ipv6_fragment_that_is_all_of_its_packet_is_judged_like_any_other_and_remembered_by_nobody() {
    on_node(|node| {
        only_port_80(node);
        let family = Family::V6;
        let atomic = |port| {
            let mut packet = Packet::tcp(&tuple(family.a(), 4000, family.b(), port), SYN);
            packet.first_extension = Some(44);
            packet.options = vec![6, 0, 0, 0, 0, 0, 0, 7];
            packet
        };
        node.run(Hook::FromA, &atomic(22).frame())
            .dropped(Counter::DropPolicyIngress);
        node.run(Hook::FromA, &atomic(80).frame()).delivered();
        let t = tuple(family.a(), 4000, family.b(), 80);
        let later = &pieces(&Packet::tcp(&t, ACK).payload(100), 7, 64)[1];
        node.run(Hook::FromA, later).dropped(Counter::DropFragment);
    });
}
