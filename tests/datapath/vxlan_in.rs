//! VXLAN without its device: what is unpacked at the uplink, and what is left to the device.

use weir_abi::conntrack::CtEntry;
use weir_abi::node::{NodeAddr, OVERLAY_MAC, config};
use weir_abi::policy::GroupId;
use weir_abi::{Addr, Proto};

use crate::overlay::PORT;
use crate::packets::*;
use crate::rig::*;
use crate::vxlan::{back, flow, node_v4, open, overlay_word, packing, summed, there_v4, train};

/// An outer packet's frame, for this node.
fn packed(inner: &Packet) -> Vec<u8> {
    let t = tuple(there_v4(), 50_000, node_v4(), PORT);
    let mut payload = vec![8, 0, 0, 0, 0, 0, 0x57, 0];
    payload.extend(OVERLAY_MAC);
    payload.extend([0x0a, 0x58, 0, 0, 0, 1]);
    payload.extend(&inner.frame()[12..]);
    let mut frame = Packet::udp(&t, &payload).addressed(MAC_UPLINK).frame();
    // No checksum, as over IPv4.
    frame[40..42].fill(0);
    frame
}

/// The flow's entry.
fn entry(node: &mut Node, family: Family) -> CtEntry {
    node.entry(&flow(family), Proto::UDP).unwrap().1
}

/// As if none of the flow were in the device's queue.
fn no_queue(node: &mut Node, family: Family) {
    node.edit_entry(&flow(family), Proto::UDP, |entry| entry.queued = 0);
}

#[test]
fn a_packed_packet_of_an_established_flow_is_delivered_from_the_uplink() {
    on_node(|node| {
        packing(node);
        for family in Family::BOTH {
            open(node, family);
            for packet in [back(family), back(family).payload(1400)] {
                let run = node.run(Hook::FromUplink, &packed(&packet)).delivered();
                let (seen, was) = (see(&run.packet), see(&packet.frame()));
                assert_eq!(seen.macs, (MAC_POD_A, MAC_HOST_A));
                assert_eq!((seen.src, seen.dst), (was.src, was.dst));
                assert_eq!((seen.ttl, seen.l4), (was.ttl - 1, was.l4));
                assert_eq!(run.packet[12..14], packet.frame()[12..14]);
                assert_eq!((run.mark, run.priority), (0, 0));
            }
        }
    });
}

#[test]
fn a_packed_packet_keeps_its_flow_alive_by_itself_as_nothing_may_overtake_it() {
    on_node(|node| {
        packing(node);
        for family in Family::BOTH {
            open(node, family);
            let now = entry(node, family).last_seen;
            node.edit_entry(&flow(family), Proto::UDP, |entry| {
                entry.last_seen = entry.last_seen.wrapping_sub(2)
            });
            let frame = packed(&back(family));
            node.run(Hook::FromUplink, &frame).delivered();
            let after = entry(node, family).last_seen;
            assert!(after >= now, "{after} {now}");
        }
    });
}

/// What makes a packed packet another one than the device would take at once, and whether it is still the flow's,
/// by the node that has the other end.
type Spoil = (&'static str, bool, fn(&mut Vec<u8>));

const UNUSUAL: &[Spoil] = &[
    ("another network's number", false, |f| f[47] = 1),
    ("a number's reserved byte", false, |f| f[49] = 1),
    ("no number", false, |f| f[42] = 0),
    ("an unknown flag", false, |f| f[43] = 0x80),
    ("a UDP checksum", true, |f| f[40] = 1),
    ("congestion met", true, |f| f[15] = 3),
    ("ECT(1)", true, |f| f[15] = 1),
    ("from another machine", false, |f| f[29] = 99),
    ("from another node", false, |f| f[29] = 3),
    ("to another address of the node", false, |f| f[33] ^= 8),
    ("another port", false, |f| f[37] ^= 1),
    ("a frame for another device", true, |f| f[50] ^= 2),
    ("a frame that is no IP", false, |f| f[62] = 9),
    ("something behind it", true, |f| f.push(0)),
    ("a fragment", false, |f| f[20] |= 0x20),
    ("a last hop", true, |f| {
        let ttl = if f[63] == 0 { 72 } else { 71 };
        f[ttl] = 1;
    }),
];

#[test]
fn a_packed_packet_with_anything_unusual_is_left_to_the_device_as_it_is_and_none_of_its_flow_overtakes_it()
 {
    on_node(|node| {
        packing(node);
        let own = NodeAddr::default();
        let another = Addr::from_v4([10, 100, 0, 9]);
        node.map("NODE_ADDRS").insert(another, own, 0).unwrap();
        for family in Family::BOTH {
            open(node, family);
            let usual = packed(&back(family));
            for (what, is_flows, spoil) in UNUSUAL {
                no_queue(node, family);
                node.run(Hook::FromUplink, &usual).delivered();
                let mut frame = usual.clone();
                spoil(&mut frame);
                let frame = summed(frame);
                let run = node.run(Hook::FromUplink, &frame).left_to_stack();
                assert_eq!(run.packet, frame, "{what}");
                let noted = entry(node, family).queued != 0;
                assert_eq!(noted, *is_flows, "{what}");
            }
            no_queue(node, family);
            for (what, packet) in [
                (
                    "a flow that is not known",
                    Packet::udp(&tuple(family.remote(), 81, family.a(), 4000), b"?"),
                ),
                ("more than the pod's link takes", back(family).payload(1501)),
            ] {
                let frame = packed(&packet);
                let run = node.run(Hook::FromUplink, &frame).left_to_stack();
                assert_eq!(run.packet, frame, "{what}");
            }
        }
    });
}

#[test]
fn a_flow_whose_time_is_over_is_not_revived_by_a_packed_packet() {
    on_node(|node| {
        packing(node);
        for family in Family::BOTH {
            open(node, family);
            let frame = packed(&back(family));
            node.run(Hook::FromUplink, &frame).delivered();
            // UDP flows last for minutes.
            node.edit_entry(&flow(family), Proto::UDP, |entry| {
                entry.last_seen = entry.last_seen.wrapping_sub(1000)
            });
            node.run(Hook::FromUplink, &frame).left_to_stack();
            assert_eq!(entry(node, family).queued, 0);
        }
    });
}

#[test]
fn a_packed_packet_is_left_to_the_device_once_policy_or_the_tables_of_nodes_have_changed() {
    on_node(|node| {
        packing(node);
        for family in Family::BOTH {
            open(node, family);
            let frame = packed(&back(family));
            node.run(Hook::FromUplink, &frame).delivered();
            node.groups(SLOT_A, GroupId::OPEN, GroupId::CLOSED);
            node.bump(SLOT_A);
            node.run(Hook::FromUplink, &frame).left_to_stack();
            no_queue(node, family);
            node.groups(SLOT_A, GroupId::OPEN, GroupId::OPEN);
            node.bump(SLOT_A);
            open(node, family);
            node.run(Hook::FromUplink, &frame).delivered();
            node.config(config::GENERATION, family.ip_header() as u64);
            node.run(Hook::FromUplink, &frame).left_to_stack();
            no_queue(node, family);
            open(node, family);
            node.run(Hook::FromUplink, &frame).delivered();
            // The pod is gone.
            let mut heir = node.pod_a();
            heir.incarnation += 100;
            node.adopt(heir);
            node.run(Hook::FromUplink, &frame).left_to_stack();
            node.adopt(node.pod_a());
        }
    });
}

#[test]
fn where_an_uplinks_reverse_path_filter_is_strict_a_packed_packet_comes_by_the_way_back_or_is_left_to_it()
 {
    on_node(|node| {
        packing(node);
        ip("addr add 10.77.0.1/32 dev weirov");
        let word = overlay_word(node);
        node.config(config::OVERLAY, word | config::UPLINKS_ARE_STRICT);
        for family in Family::BOTH {
            open(node, family);
            let frame = packed(&back(family));
            node.run(Hook::FromUplink, &frame).delivered();
            let there = there_v4().to_ip();
            ip(&format!("route replace {there} dev weirov"));
            node.run(Hook::FromUplink, &frame).left_to_stack();
            no_queue(node, family);
            node.config(config::OVERLAY, word);
            node.run(Hook::FromUplink, &frame).delivered();
            node.config(config::OVERLAY, word | config::UPLINKS_ARE_STRICT);
            ip(&format!("route replace {there} dev weirup"));
        }
    });
}

#[test]
fn packets_follow_a_train_of_segments_through_the_device_and_do_not_overtake_it() {
    on_node(|node| {
        packing(node);
        for family in Family::BOTH {
            open(node, family);
            let frame = packed(&back(family));
            node.run(Hook::FromUplink, &frame).delivered();
            // A machine may take longer between two runs than a queue lasts.
            let follows = (0..50).any(|_| {
                node.run_with(Hook::FromUplink, &frame, train)
                    .left_to_stack();
                node.run(Hook::FromUplink, &frame).action == STACK
            });
            assert!(follows, "{family:?}");
            // One after the other, as long as there is no pause.
            let before = entry(node, family).queued;
            let renewed = (0..5000).any(|_| {
                node.run(Hook::FromUplink, &frame);
                entry(node, family).queued != before
            });
            assert!(renewed, "{family:?}");
            node.edit_entry(&flow(family), Proto::UDP, |entry| {
                entry.queued = entry.queued.wrapping_sub(2);
            });
            node.run(Hook::FromUplink, &frame).delivered();
        }
    });
}
