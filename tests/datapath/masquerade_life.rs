//! Masqueraded flows beside the node's own, and how long they last.

use weir_abi::conntrack::{Tuple, flags};
use weir_abi::counter::Counter;
use weir_abi::node::{NodeAddr, config};
use weir_abi::{Addr, PortBe, Proto};

use crate::dry::{OPEN, both};
use crate::masquerade::{arrives, leaves, masquerading, there};
use crate::packets::*;
use crate::rig::*;
use crate::services::{PROTOS, answer, opening};

/// The tuple of the node's own flow to the server.
fn own(family: Family, port: u16) -> Tuple {
    tuple(family.node(), port, family.world(), 443)
}

#[test]
fn the_nodes_own_new_flow_on_a_pods_tuple_is_the_nodes_and_the_pod_moves() {
    on_node(|node| {
        masquerading(node);
        for family in Family::BOTH {
            for proto in PROTOS {
                let packet = opening(proto, &there(family, 4000));
                let port = leaves(node, family, &packet).sport;
                let frame = opening(proto, &own(family, port)).frame();
                let run = node.run(Hook::ToUplink, &frame).left_to_stack();
                assert_eq!(run.packet, frame);
                let reply = answer(proto, &own(family, port).reversed());
                let run = arrives(node, &reply).left_to_stack();
                assert_eq!(see(&run.packet).dst, family.node());
                assert!(node.entry(&there(family, 4000), proto).is_none());
                if proto == Proto::SCTP {
                    // No socket tells that this is the node's.
                    for _ in 0..8 {
                        let moved = leaves(node, family, &packet).sport;
                        assert_ne!(moved, port);
                        let taken = tuple(family.a(), 4000, family.world(), 443);
                        node.forget(&taken, proto);
                    }
                }
            }
        }
    });
}

#[test]
fn the_nodes_own_echo_keeps_its_identifier_from_pods() {
    on_node(|node| {
        masquerading(node);
        node.nat(61_000, 61_000);
        for family in Family::BOTH {
            let (host, world) = (family.node(), family.world());
            let ping = Packet::echo(family, host, world, 61_000, false);
            node.run(Hook::ToUplink, &ping.frame()).left_to_stack();
            let pods = Packet::echo(family, family.a(), world, 5, false);
            node.run(Hook::FromA, &pods.frame())
                .dropped(Counter::DropPortsExhausted);
            let pong = Packet::echo(family, world, host, 61_000, true);
            arrives(node, &pong).left_to_stack();
            let echo = Tuple {
                dport: PortBe(0),
                ..own(family, 61_000)
            };
            let (map, entry) = node.entry(&echo, family.icmp()).unwrap();
            assert_eq!((map, entry.flags & flags::NAT), ("CT_EST", 0));
            // One outside of the range is nobody's concern.
            let ping = Packet::echo(family, host, world, 999, false);
            node.run(Hook::ToUplink, &ping.frame()).left_to_stack();
            let echo = Tuple {
                dport: PortBe(0),
                ..own(family, 999)
            };
            assert!(node.entry(&echo, family.icmp()).is_none());
        }
    });
}

#[test]
fn the_reply_to_a_pod_that_is_gone_goes_nowhere_and_to_its_successor_not_either() {
    on_node(|node| {
        masquerading(node);
        for family in Family::BOTH {
            let port = leaves(node, family, &Packet::udp(&there(family, 4000), b"?")).sport;
            let reply = Packet::udp(&own(family, port).reversed(), b"!");
            node.map::<Addr, weir_abi::endpoint::Endpoint>("LOCAL_PODS")
                .remove(&family.a())
                .unwrap();
            arrives(node, &reply).dropped(Counter::DropNoRoute);
            let mut successor = node.pod_a();
            successor.incarnation += 1;
            node.adopt(successor);
            arrives(node, &reply).left_to_stack();
            node.adopt(node.pod_a());
        }
    });
}

#[test]
fn a_flow_from_an_address_that_the_node_has_lost_is_opened_anew_from_the_new_one() {
    on_node(|node| {
        masquerading(node);
        for family in Family::BOTH {
            let question = Packet::udp(&there(family, 4000), b"?");
            let port = leaves(node, family, &question).sport;
            node.map::<Addr, NodeAddr>("NODE_ADDRS")
                .remove(&family.node())
                .unwrap();
            let new = family.other_node();
            node.map("NODE_ADDRS")
                .insert(new, NodeAddr::default(), 0)
                .unwrap();
            node.uplink_address(new);
            let run = node.run(Hook::FromA, &question.frame());
            let seen = see(&run.expect(REDIRECTED, Counter::Forwarded).packet);
            assert_eq!(seen.src, new);
            let back = tuple(family.world(), 443, new, seen.sport);
            arrives(node, &Packet::udp(&back, b"!")).delivered();
            let old = Packet::udp(&own(family, port).reversed(), b"!");
            arrives(node, &old).left_to_stack();
        }
    });
}

#[test]
fn datagrams_follow_when_the_way_or_the_configuration_changes() {
    on_node(|node| {
        masquerading(node);
        for family in Family::BOTH {
            let out = there(family, 4000);
            let question = Packet::udp(&out, b"?");
            node.flags(0);
            let run = node.run(Hook::FromA, &question.frame()).left_to_stack();
            assert_eq!(see(&run.packet).src, family.a());
            node.flags(config::flags::MASQUERADE);
            let later = |node: &mut Node| {
                node.edit_entry(&out, Proto::UDP, |entry| {
                    entry.last_seen = entry.last_seen.wrapping_sub(9);
                });
            };
            later(node);
            leaves(node, family, &question);
            node.flags(0);
            leaves(node, family, &question);
            later(node);
            let run = node.run(Hook::FromA, &question.frame()).left_to_stack();
            assert_eq!(see(&run.packet).src, family.a());
            node.flags(config::flags::MASQUERADE);
        }
    });
}

/// A flow to the world and its replies, the node's own echo, and a flow that is opened anew.
#[test]
fn masqueraded_packets_come_to_the_same_dry_and_change_no_map() {
    both(|both| {
        masquerading(both.node);
        for family in Family::BOTH {
            let (a, host, world) = (family.a(), family.node(), family.world());
            let question = Packet::udp(&there(family, 4000), b"?");
            both.expect(
                Hook::FromA,
                &question,
                Counter::Forwarded,
                (OPEN, None, false, 0),
            );
            let (_, entry) = both.node.entry(&there(family, 4000), Proto::UDP).unwrap();
            let reply = Packet::udp(&entry.other.reversed(), b"!");
            let (ran, run) = both.run(Hook::FromUplink, &reply);
            assert!(ran.report.tracked());
            assert_eq!(see(&run.packet).dst, a);
            both.run(Hook::FromA, &Packet::echo(family, a, world, 5, false));
            both.run(
                Hook::ToUplink,
                &Packet::echo(family, host, world, 61_002, false),
            );
            both.run(
                Hook::ToUplink,
                &Packet::echo(family, host, world, 61_002, false),
            );
            both.node.flags(0);
            both.node
                .edit_entry(&there(family, 4000), Proto::UDP, |entry| {
                    entry.last_seen = entry.last_seen.wrapping_sub(9);
                });
            let (_, run) = both.run(Hook::FromA, &question);
            assert_eq!(run.counted, [Counter::ToStack]);
            both.node.flags(config::flags::MASQUERADE);
        }
    });
}
