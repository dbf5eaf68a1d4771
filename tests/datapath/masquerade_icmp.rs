//! ICMP errors about masqueraded flows, and those that the node itself sends about their packets.

use weir_abi::Proto;
use weir_abi::conntrack::Tuple;
use weir_abi::counter::Counter;

use crate::masquerade::masquerading;
use crate::packets::*;
use crate::rig::*;
use crate::services::{ends, opening};

fn there(family: Family) -> Tuple {
    tuple(family.a(), 4000, family.world(), 443)
}

fn arrives(node: &mut Node, packet: &Packet) -> Run {
    node.run(
        Hook::FromUplink,
        &packet.clone().addressed(MAC_UPLINK).frame(),
    )
}

/// Pod A's packet as it leaves.
#[track_caller]
fn leaves(node: &mut Node, packet: &Packet) -> Vec<u8> {
    node.run(Hook::FromA, &packet.frame())
        .expect(REDIRECTED, Counter::Forwarded)
        .packet
}

/// (time exceeded, port unreachable, too big), type and code.
fn kinds(family: Family) -> [(u8, u8); 3] {
    match family {
        Family::V4 => [(11, 0), (3, 3), (3, 4)],
        Family::V6 => [(3, 0), (1, 4), (2, 0)],
    }
}

#[test]
fn a_routers_error_about_a_masqueraded_packet_reaches_the_pod_and_quotes_what_it_has_sent() {
    on_node(|node| {
        masquerading(node);
        for family in Family::BOTH {
            let router = family.other_node();
            for proto in [Proto::TCP, Proto::UDP, Proto::SCTP] {
                let sent = leaves(node, &opening(proto, &there(family)));
                for (kind, code) in kinds(family) {
                    let rest = 1400u32.to_be_bytes();
                    let error = Packet::icmp(router, family.node(), kind, code, rest, &sent[14..]);
                    let seen = see(&arrives(node, &error).delivered().packet);
                    assert_eq!((seen.src, seen.dst), (router, family.a()));
                    assert_eq!(seen.l4[..2], [kind, code]);
                    assert_eq!(seen.l4[4..8], rest, "the MTU stays");
                    let quoted = see_ip(&seen.l4[8..], false);
                    assert_eq!(
                        ends(&quoted),
                        (family.a(), 4000, family.world(), 443),
                        "{proto:?}"
                    );
                }
            }
        }
    });
}

#[test]
fn a_routers_error_about_an_echo_has_the_pods_identifier() {
    on_node(|node| {
        masquerading(node);
        for family in Family::BOTH {
            let (a, world, router) = (family.a(), family.world(), family.other_node());
            let sent = leaves(node, &Packet::echo(family, a, world, 77, false));
            let (kind, code) = kinds(family)[0];
            let error = Packet::icmp(router, family.node(), kind, code, [0; 4], &sent[14..]);
            let seen = see(&arrives(node, &error).delivered().packet);
            assert_eq!((seen.src, seen.dst), (router, a));
            let quoted = see_ip(&seen.l4[8..], false);
            assert_eq!((quoted.src, quoted.dst), (a, world));
            assert_eq!(quoted.l4[4..6], 77u16.to_be_bytes());
        }
    });
}

#[test]
fn a_pods_error_about_a_reply_reaches_the_server_from_the_node() {
    on_node(|node| {
        masquerading(node);
        for family in Family::BOTH {
            let (a, world, host) = (family.a(), family.world(), family.node());
            let port = see(&leaves(node, &Packet::udp(&there(family), b"?"))).sport;
            let reply = Packet::udp(&tuple(world, 443, host, port), b"!");
            let got = arrives(node, &reply).delivered().packet;
            let (kind, code) = kinds(family)[1];
            let error = Packet::icmp(a, world, kind, code, [0; 4], &got[14..]);
            let seen = see(&leaves(node, &error));
            assert_eq!((seen.src, seen.dst), (host, world));
            let quoted = see_ip(&seen.l4[8..], false);
            assert_eq!(ends(&quoted), (world, 443, host, port));
        }
    });
}

#[test]
fn an_error_that_quotes_no_flow_of_a_pods_is_the_stacks() {
    on_node(|node| {
        masquerading(node);
        for family in Family::BOTH {
            leaves(node, &Packet::udp(&there(family), b"?"));
            let strange = Packet::udp(&tuple(family.node(), 60_999, family.world(), 443), b"?");
            let (kind, code) = kinds(family)[0];
            let router = family.other_node();
            let error = Packet::icmp(router, family.node(), kind, code, [0; 4], &strange.ip());
            arrives(node, &error).left_to_stack();
        }
    });
}

#[test]
fn the_first_hop_is_the_pods_gateway_and_what_is_too_big_is_answered_with_the_uplinks_mtu() {
    on_node(|node| {
        masquerading(node);
        ip("link set weirup mtu 1400");
        for family in Family::BOTH {
            let last = Packet::udp(&there(family), b"?").ttl(1);
            let run = node.run(Hook::FromA, &last.frame());
            let seen = see(&run.expect(REDIRECTED, Counter::AnsweredIcmp).packet);
            assert_eq!((seen.src, seen.dst), (family.gateway(), family.a()));
            let quoted = see_ip(&seen.l4[8..], false);
            assert_eq!(ends(&quoted), (family.a(), 4000, family.world(), 443));
            let large = Packet::udp(&there(family), b"?").payload(1400);
            let run = node.run(Hook::FromA, &large.frame());
            let seen = see(&run.expect(REDIRECTED, Counter::AnsweredIcmp).packet);
            let (kind, code) = kinds(family)[2];
            assert_eq!(seen.l4[..2], [kind, code]);
            assert_eq!(seen.l4[6..8], 1400u16.to_be_bytes());
        }
        assert_eq!(node.entries(), 0);
    });
}
