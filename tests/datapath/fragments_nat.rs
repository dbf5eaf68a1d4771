//! Fragments of what is translated: Services for pods, for those outside, and for the node itself.

use weir_abi::counter::Counter;
use weir_abi::policy::{GroupId, RuleId, RuleVerdict};
use weir_abi::{Addr, Proto};

use crate::masquerade::masquerading;
use crate::packets::*;
use crate::pieces::{datagram, join, pieces};
use crate::rig::*;
use crate::services::ends;

const BACKEND: u32 = 7;
const PORT: u16 = 30_080;

/// Sends a datagram's fragments through a hook, each of which must come to the same: what a receiver
/// puts together, its checksum found right.
#[track_caller]
fn through(node: &mut Node, hook: Hook, whole: &Packet, id: u32, expect: (i32, Counter)) -> Seen {
    let mac = match hook {
        Hook::FromA | Hook::ToUplink => MAC_HOST_A,
        Hook::FromB => MAC_HOST_B,
        _ => MAC_UPLINK,
    };
    let mut come = Vec::new();
    for piece in pieces(&whole.clone().addressed(mac), id, 200) {
        come.push(node.run(hook, &piece).expect(expect.0, expect.1).packet);
    }
    see(&join(&come))
}

const DELIVERED: (i32, Counter) = (REDIRECTED, Counter::Delivered);
const FORWARDED: (i32, Counter) = (REDIRECTED, Counter::Forwarded);
const TO_STACK: (i32, Counter) = (STACK, Counter::ToStack);

#[test]
fn the_fragments_of_a_datagram_to_a_service_and_of_its_answer_are_translated() {
    on_node(|node| {
        for family in Family::BOTH {
            let (a, b, vip) = (family.a(), family.b(), family.vip());
            node.service(vip, 80, Proto::UDP, &[(BACKEND, b, 8080)]);
            let seen = through(node, Hook::FromA, &datagram(a, 4000, vip, 80), 1, DELIVERED);
            assert_eq!(ends(&seen), (a, 4000, b, 8080));
            let back = datagram(b, 8080, a, 4000);
            let seen = through(node, Hook::FromB, &back, 2, DELIVERED);
            assert_eq!(ends(&seen), (vip, 80, a, 4000));
            let stray = pieces(&datagram(a, 4000, vip, 80), 3, 200);
            node.run(Hook::FromA, &stray[1])
                .dropped(Counter::DropFragment);
        }
    });
}

#[test]
fn a_backend_elsewhere_gets_all_fragments_and_so_does_who_has_asked() {
    on_node(|node| {
        for family in Family::BOTH {
            let (a, far, vip) = (family.a(), family.remote(), family.vip());
            let (cidr, len) = family.remote_cidr();
            let uplink = node.if_uplink;
            node.node_cidr(cidr, len, uplink);
            node.service(vip, 80, Proto::UDP, &[(BACKEND, far, 8080)]);
            let there = datagram(a, 4000, vip, 80);
            let seen = through(node, Hook::FromA, &there, 1, FORWARDED);
            assert_eq!(ends(&seen), (a, 4000, far, 8080));
            let back = datagram(far, 8080, a, 4000);
            let seen = through(node, Hook::FromUplink, &back, 2, DELIVERED);
            assert_eq!(ends(&seen), (vip, 80, a, 4000));
        }
    });
}

#[test]
fn a_pod_that_reaches_itself_through_a_service_does_so_in_fragments() {
    on_node(|node| {
        for family in Family::BOTH {
            let (a, vip) = (family.a(), family.vip());
            node.groups(SLOT_A, GroupId(30), GroupId(30));
            node.service(vip, 80, Proto::UDP, &[(BACKEND, a, 8080)]);
            let there = datagram(a, 4000, vip, 80);
            let seen = through(node, Hook::FromA, &there, 1, DELIVERED);
            assert_eq!((seen.dst, seen.dport), (a, 8080));
            let back = datagram(a, 8080, seen.src, seen.sport);
            let seen = through(node, Hook::FromA, &back, 2, DELIVERED);
            assert_eq!(ends(&seen), (vip, 80, a, 4000));
        }
    });
}

#[test]
fn a_datagram_in_fragments_to_a_node_port_reaches_a_backend_on_the_node() {
    on_node(|node| {
        let group = GroupId(20);
        node.inline_row(group, 7, RuleVerdict::allow(RuleId(100)));
        node.groups(SLOT_B, group, group);
        for family in Family::BOTH {
            let (b, world, host) = (family.b(), family.world(), family.node());
            node.peer(world, 7);
            node.node_port(
                family == Family::V4,
                PORT,
                Proto::UDP,
                &[(BACKEND, b, 8080)],
            );
            let there = datagram(world, 4000, host, PORT);
            let seen = through(node, Hook::FromUplink, &there, 1, DELIVERED);
            assert_eq!(ends(&seen), (world, 4000, b, 8080));
            let back = datagram(b, 8080, world, 4000);
            let seen = through(node, Hook::FromB, &back, 2, FORWARDED);
            assert_eq!(ends(&seen), (host, PORT, world, 4000));
        }
    });
}

#[test]
fn a_datagram_in_fragments_to_a_node_port_reaches_a_backend_on_another_node() {
    on_node(|node| {
        node.nat(61_000, 61_003);
        for family in Family::BOTH {
            let (far, world, host) = (family.remote(), family.world(), family.node());
            let (cidr, len) = family.remote_cidr();
            let uplink = node.if_uplink;
            node.node_cidr(cidr, len, uplink);
            let v4 = family == Family::V4;
            node.node_port(v4, PORT, Proto::UDP, &[(BACKEND, far, 8080)]);
            let there = datagram(world, 4000, host, PORT);
            let seen = through(node, Hook::FromUplink, &there, 1, FORWARDED);
            assert_eq!((seen.src, seen.dst, seen.dport), (host, far, 8080));
            let back = datagram(far, 8080, host, seen.sport);
            let seen = through(node, Hook::FromUplink, &back, 2, FORWARDED);
            assert_eq!(ends(&seen), (host, PORT, world, 4000));
        }
    });
}

#[test]
fn a_datagram_in_fragments_to_a_backend_on_the_node_itself_is_translated_both_ways() {
    on_node(|node| {
        for family in Family::BOTH {
            let (world, host) = (family.world(), family.node());
            let v4 = family == Family::V4;
            node.node_port(v4, PORT, Proto::UDP, &[(BACKEND, host, 9100)]);
            let there = datagram(world, 4000, host, PORT);
            let seen = through(node, Hook::FromUplink, &there, 1, TO_STACK);
            assert_eq!(ends(&seen), (world, 4000, host, 9100));
            let back = datagram(host, 9100, world, 4000);
            let seen = through(node, Hook::ToUplink, &back, 2, TO_STACK);
            assert_eq!(ends(&seen), (host, PORT, world, 4000));
        }
    });
}

#[test]
fn the_nodes_own_datagram_in_fragments_to_a_service_reaches_a_shut_pod_and_is_answered() {
    on_node(|node| {
        node.groups(SLOT_B, GroupId::CLOSED, GroupId::CLOSED);
        for family in Family::BOTH {
            let (host, b, vip) = (family.node(), family.b(), family.vip());
            node.service(vip, 80, Proto::UDP, &[(BACKEND, b, 8080)]);
            let there = datagram(host, 4000, vip, 80);
            let seen = through(node, Hook::ToUplink, &there, 1, DELIVERED);
            assert_eq!(ends(&seen), (host, 4000, b, 8080));
            assert_eq!(seen.macs, (MAC_POD_B, MAC_HOST_B));
            let back = datagram(b, 8080, host, 4000);
            let by_loopback = (REDIRECTED, Counter::ToStack);
            let seen = through(node, Hook::FromB, &back, 2, by_loopback);
            assert_eq!(ends(&seen), (vip, 80, host, 4000));
        }
    });
}

#[test]
fn the_nodes_own_datagram_in_fragments_to_a_backend_elsewhere_leaves_by_its_uplink() {
    on_node(|node| {
        node.nat(61_000, 61_003);
        for family in Family::BOTH {
            let (host, far, vip) = (family.node(), family.remote(), family.vip());
            let (cidr, len) = family.remote_cidr();
            let uplink = node.if_uplink;
            node.node_cidr(cidr, len, uplink);
            node.service(vip, 80, Proto::UDP, &[(BACKEND, far, 8080)]);
            let there = datagram(host, 4000, vip, 80);
            let seen = through(node, Hook::ToUplink, &there, 1, FORWARDED);
            assert_eq!(ends(&seen), (host, 4000, far, 8080));
            let back = datagram(far, 8080, host, 4000);
            let seen = through(node, Hook::FromUplink, &back, 2, TO_STACK);
            assert_eq!(ends(&seen), (vip, 80, host, 4000));
        }
    });
}

#[test]
fn fragments_between_those_outside_and_the_node_itself_are_the_stacks_as_they_come() {
    on_node(|node| {
        node.nat(61_000, 61_003);
        for family in Family::BOTH {
            let (world, host): (Addr, Addr) = (family.world(), family.node());
            let v4 = family == Family::V4;
            node.node_port(v4, PORT, Proto::UDP, &[(BACKEND, family.b(), 8080)]);
            for (hook, whole) in [
                (Hook::FromUplink, datagram(world, 4000, host, 53)),
                (Hook::ToUplink, datagram(host, 53, world, 4000)),
            ] {
                for piece in pieces(&whole.addressed(MAC_UPLINK), 1, 200) {
                    let run = node.run(hook, &piece).left_to_stack();
                    assert_eq!(run.packet, piece);
                }
            }
            // Nobody knows whether it is for the NodePort.
            let whole = datagram(world, 4000, host, PORT).addressed(MAC_UPLINK);
            let stray = &pieces(&whole, 2, 200)[1];
            node.run(Hook::FromUplink, stray).left_to_stack();
        }
    });
}

#[test]
fn fragments_to_the_world_leave_from_the_nodes_address_or_not_at_all() {
    on_node(|node| {
        masquerading(node);
        for family in Family::BOTH {
            let whole = datagram(family.a(), 4000, family.world(), 53);
            let sent = pieces(&whole, 1, 200);
            let left = sent.iter().map(|piece| {
                let run = node.run(Hook::FromA, piece);
                run.expect(REDIRECTED, Counter::Forwarded).packet
            });
            let left: Vec<Vec<u8>> = left.collect();
            assert_eq!(see(&join(&left)).src, family.node());
            // Its first has not been here.
            node.run(Hook::FromA, &pieces(&whole, 2, 200)[1])
                .dropped(Counter::DropFragment);
            // Pods of other nodes know the pod.
            let among_pods = datagram(family.a(), 4000, family.remote(), 53);
            let (addr, len) = family.remote_cidr();
            let uplink = node.if_uplink;
            node.node_cidr(addr, len, uplink);
            node.run(Hook::FromA, &pieces(&among_pods, 3, 200)[1])
                .expect(REDIRECTED, Counter::Forwarded);
        }
    });
}
