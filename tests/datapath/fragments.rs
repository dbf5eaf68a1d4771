//! Later fragments follow their first: at every hook, in both families, and only while it holds.

use weir_abi::Proto;
use weir_abi::counter::Counter;
use weir_abi::fragment::{FragmentEntry, FragmentKey, LIFE_TICKS};
use weir_abi::policy::{GroupId, RuleId, RuleVerdict};

use crate::dry::{ALLOW_IN, ALLOW_OUT, both};
use crate::packets::*;
use crate::pieces::{datagram, join, pieces};
use crate::rig::*;

const CLASS: u32 = 7;
const SHUT: GroupId = GroupId(20);

/// A may send and B may receive, both under policy: everybody's, but nothing else is open.
fn isolate(node: &mut Node) {
    for family in Family::BOTH {
        for peer in [family.a(), family.b(), family.remote(), family.world()] {
            node.peer(peer, CLASS);
        }
    }
    node.inline_row(SHUT, CLASS, RuleVerdict::allow(RuleId(100)));
    for slot in [SLOT_A, SLOT_B] {
        node.groups(slot, SHUT, SHUT);
    }
}

/// A datagram from A to B in three pieces.
fn a_to_b(family: Family, id: u32) -> Vec<Vec<u8>> {
    pieces(&datagram(family.a(), 4000, family.b(), 80), id, 200)
}

#[test]
fn the_fragments_of_what_policy_allows_follow_the_first() {
    on_node(|node| {
        isolate(node);
        for family in Family::BOTH {
            for proto in [Proto::UDP, Proto::TCP, family.icmp()] {
                let t = tuple(family.a(), 4000, family.b(), 80);
                let whole = match proto {
                    Proto::UDP => datagram(t.src, 4000, t.dst, 80),
                    Proto::TCP => Packet::tcp(&t, ACK).payload(500),
                    _ => Packet::echo(family, t.src, t.dst, 9, false).payload(500),
                };
                let sent = pieces(&whole, 7, 200);
                let come: Vec<_> = sent
                    .iter()
                    .map(|piece| node.run(Hook::FromA, piece).delivered().packet)
                    .collect();
                let seen = see(&join(&come));
                assert_eq!((seen.src, seen.dst, seen.ttl), (t.src, t.dst, 63));
                assert_eq!(seen.macs, (MAC_POD_B, MAC_HOST_B));
                let whole = see(&whole.frame());
                assert_eq!(seen.l4, whole.l4);
            }
        }
    });
}

#[test]
fn a_fragment_that_comes_before_its_first_is_dropped_and_counted() {
    on_node(|node| {
        isolate(node);
        for family in Family::BOTH {
            let sent = a_to_b(family, 1);
            node.run(Hook::FromA, &sent[1])
                .dropped(Counter::DropFragment);
            node.run(Hook::FromA, &sent[0]).delivered();
            node.run(Hook::FromA, &sent[2]).delivered();
            node.run(Hook::FromA, &sent[1]).delivered();
        }
    });
}

#[test]
fn a_fragment_of_another_datagram_or_place_follows_nothing() {
    on_node(|node| {
        isolate(node);
        for family in Family::BOTH {
            let (a, b, far) = (family.a(), family.b(), family.remote());
            node.run(Hook::FromA, &a_to_b(family, 1)[0]).delivered();
            let other_id = a_to_b(family, 2);
            let other_way = pieces(&datagram(b, 4000, a, 80), 1, 200);
            node.run(Hook::FromA, &other_id[1])
                .dropped(Counter::DropFragment);
            node.run(Hook::FromB, &other_way[1])
                .dropped(Counter::DropFragment);
            if family == Family::V4 {
                let icmp = Packet::echo(family, a, b, 9, false).payload(500);
                node.run(Hook::FromA, &pieces(&icmp, 1, 200)[1])
                    .dropped(Counter::DropFragment);
            }
            // From a pod elsewhere by the uplink; another way in is another sender.
            let sent = pieces(&datagram(far, 4000, b, 80).addressed(MAC_UPLINK), 1, 200);
            node.run(Hook::FromUplink, &sent[0]).delivered();
            node.run(Hook::ToB, &sent[1]).dropped(Counter::DropFragment);
            node.run(Hook::FromUplink, &sent[1]).delivered();
        }
    });
}

#[test]
fn a_first_fragment_that_is_denied_lets_nothing_follow() {
    on_node(|node| {
        for family in Family::BOTH {
            isolate(node);
            let sent = a_to_b(family, 1);
            let closed = [(SLOT_A, SHUT, GroupId(21)), (SLOT_B, GroupId(21), SHUT)];
            for (slot, ingress, egress) in closed {
                isolate(node);
                node.groups(slot, ingress, egress);
                node.run(Hook::FromA, &sent[0]).dropped(Counter::DropNoRow);
                node.run(Hook::FromA, &sent[1])
                    .dropped(Counter::DropFragment);
            }
        }
    });
}

/// Changes the one entry of `FRAGMENTS`.
fn edit(node: &mut Node, edit: impl FnOnce(&mut FragmentEntry)) {
    let mut map = node.map::<FragmentKey, FragmentEntry>("FRAGMENTS");
    let keys: Vec<_> = map.keys().map(Result::unwrap).collect();
    assert_eq!(keys.len(), 1);
    let mut entry = map.get(&keys[0], 0).unwrap();
    edit(&mut entry);
    map.insert(keys[0], entry, 0).unwrap();
}

fn forget(node: &mut Node) {
    let mut map = node.map::<FragmentKey, FragmentEntry>("FRAGMENTS");
    let keys: Vec<_> = map.keys().map(Result::unwrap).collect();
    for key in keys {
        map.remove(&key).unwrap();
    }
}

#[test]
fn a_fragment_that_comes_too_late_is_dropped() {
    on_node(|node| {
        isolate(node);
        for family in Family::BOTH {
            let sent = a_to_b(family, 1);
            node.run(Hook::FromA, &sent[0]).delivered();
            // A tick may pass under way.
            edit(node, |entry| {
                entry.written = entry.written.wrapping_sub(LIFE_TICKS - 4);
            });
            node.run(Hook::FromA, &sent[1]).delivered();
            edit(node, |entry| entry.written = entry.written.wrapping_sub(5));
            node.run(Hook::FromA, &sent[2])
                .dropped(Counter::DropFragment);
            forget(node);
        }
    });
}

#[test]
fn an_entry_of_another_key_in_a_recycled_element_is_not_believed() {
    on_node(|node| {
        isolate(node);
        for family in Family::BOTH {
            let sent = a_to_b(family, 1);
            node.run(Hook::FromA, &sent[0]).delivered();
            edit(node, |entry| entry.check ^= 1);
            node.run(Hook::FromA, &sent[1])
                .dropped(Counter::DropFragment);
            forget(node);
        }
    });
}

#[test]
fn a_verdict_holds_for_the_others_until_a_policy_changes_at_either_end() {
    on_node(|node| {
        for family in Family::BOTH {
            for slot in [SLOT_A, SLOT_B] {
                isolate(node);
                let sent = a_to_b(family, 1);
                node.run(Hook::FromA, &sent[0]).delivered();
                node.run(Hook::FromA, &sent[1]).delivered();
                node.bump(slot);
                node.run(Hook::FromA, &sent[2])
                    .dropped(Counter::DropFragment);
                // A tracked flow's first fragment is judged anew, and its others follow again.
                let sent = a_to_b(family, 2);
                for piece in &sent {
                    node.run(Hook::FromA, piece).delivered();
                }
            }
        }
    });
}

#[test]
fn a_pod_that_has_got_anothers_address_gets_none_of_its_fragments() {
    on_node(|node| {
        for family in Family::BOTH {
            isolate(node);
            let sent = a_to_b(family, 1);
            node.run(Hook::FromA, &sent[0]).delivered();
            let mut next = node.pod_b();
            next.incarnation += 100;
            node.adopt(next);
            node.run(Hook::FromA, &sent[1])
                .dropped(Counter::DropFragment);
            node.adopt(node.pod_b());
            let mut next = node.pod_a();
            next.incarnation += 100;
            node.adopt(next);
            node.run(Hook::FromA, &sent[1])
                .dropped(Counter::DropFragment);
            node.adopt(node.pod_a());
            node.run(Hook::FromA, &sent[1]).delivered();
        }
    });
}

#[test]
fn a_fragment_that_lies_over_the_first_is_malformed() {
    on_node(|node| {
        for family in Family::BOTH {
            for isolated in [false, true] {
                if isolated {
                    isolate(node);
                }
                let whole = datagram(family.a(), 4000, family.b(), 80);
                node.run(Hook::FromA, &pieces(&whole, 9, 200)[0])
                    .delivered();
                let finer = pieces(&whole, 9, 40);
                for piece in &finer[1..5] {
                    node.run(Hook::FromA, piece).dropped(Counter::DropMalformed);
                }
                node.run(Hook::FromA, &finer[5]).delivered();
            }
        }
    });
}

#[test]
fn a_later_fragment_over_the_header_of_tcp_is_malformed_whoever_it_is_for() {
    on_node(|node| {
        for family in Family::BOTH {
            let t = tuple(family.a(), 4000, family.b(), 80);
            let tiny = pieces(&Packet::tcp(&t, SYN).payload(60), 9, 8);
            for piece in &tiny[..3] {
                node.run(Hook::FromA, piece).dropped(Counter::DropMalformed);
            }
            node.run(Hook::FromA, &tiny[3]).delivered();
        }
    });
}

#[test]
fn nobody_is_told_of_what_happens_to_a_later_fragment() {
    on_node(|node| {
        isolate(node);
        for family in Family::BOTH {
            let whole = datagram(family.a(), 4000, family.b(), 80);
            node.run(Hook::FromA, &pieces(&whole, 1, 200)[0])
                .delivered();
            let run = node.run(Hook::FromA, &pieces(&whole.ttl(1), 1, 200)[1]);
            run.dropped(Counter::DropFragment);
        }
    });
}

#[test]
fn an_isolated_pods_answer_to_its_node_may_come_in_fragments() {
    on_node(|node| {
        for slot in [SLOT_A, SLOT_B] {
            node.groups(slot, GroupId(30), GroupId(30));
        }
        for family in Family::BOTH {
            let (host, b) = (family.node(), family.b());
            for piece in pieces(&datagram(host, 4000, b, 80), 1, 200) {
                node.run(Hook::NodeToB, &piece).left_to_stack();
            }
            let back = datagram(b, 80, host, 4000).addressed(MAC_HOST_B);
            for piece in pieces(&back, 2, 200) {
                node.run(Hook::FromB, &piece).left_to_stack();
            }
            let other = datagram(b, 80, host, 4001).addressed(MAC_HOST_B);
            let other = pieces(&other, 3, 200);
            node.run(Hook::FromB, &other[0]).dropped(Counter::DropNoRow);
            node.run(Hook::FromB, &other[1])
                .dropped(Counter::DropFragment);
        }
    });
}

#[test]
fn an_answer_that_goes_by_the_stack_does_so_in_all_its_fragments() {
    on_node(|node| {
        isolate(node);
        for family in Family::BOTH {
            let (pod, world) = (family.b(), family.world());
            let out = datagram(pod, 4000, world, 53).addressed(MAC_HOST_B);
            for piece in pieces(&out, 1, 200) {
                node.run(Hook::FromB, &piece).left_to_stack();
            }
            for piece in pieces(
                &datagram(world, 53, pod, 4000).addressed(MAC_UPLINK),
                2,
                200,
            ) {
                node.run(Hook::FromUplink, &piece).left_to_stack();
                node.run(Hook::ToB, &piece).left_to_stack();
            }
            let stray = datagram(world, 53, pod, 4001).addressed(MAC_UPLINK);
            let stray = &pieces(&stray, 3, 200)[1];
            node.run(Hook::FromUplink, stray)
                .dropped(Counter::DropFragment);
            node.run(Hook::ToB, stray).dropped(Counter::DropFragment);
        }
    });
}

#[test]
fn a_dry_run_remembers_no_fragment_and_follows_those_that_are() {
    both(|both| {
        both.policy(ALLOW_OUT, ALLOW_IN);
        for family in Family::BOTH {
            let sent = a_to_b(family, 1);
            both.dry.run(both.node, Hook::FromA, &sent[0]);
            both.node
                .run(Hook::FromA, &sent[1])
                .dropped(Counter::DropFragment);
            both.run_frame(Hook::FromA, &sent[0]).1.delivered();
            both.run_frame(Hook::FromA, &sent[1]).1.delivered();
        }
    });
}
