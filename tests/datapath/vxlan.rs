//! VXLAN without its device: what of an established flow's packets is packed at the pod's edge and unpacked at
//! the uplink, and what is left to the device. That the two understand each other shows in the lab.

use weir_abi::conntrack::{Tuple, seen};
use weir_abi::counter::Counter;
use weir_abi::node::{
    NodeAddr, NodeCidr, OVERLAY_MAC, UplinkInfo, VXLAN_SOURCE_PORTS, config, node_cidr, uplink,
};
use weir_abi::policy::GroupId;
use weir_abi::{Addr, Proto};

use crate::packets::*;
use crate::rig::*;

const PORT: u16 = 8472;
const NEIGHBOUR: [u8; 6] = [2, 0, 0, 0, 0, 0xd0];
const OUTER: usize = 20 + 8 + 8 + 14;
/// A third node, at which other tunnels end.
const OTHER: Addr = Addr::from_v4([10, 200, 0, 3]);

fn node_v4() -> Addr {
    Family::V4.node()
}

/// The other node, at which tunnels end.
fn there_v4() -> Addr {
    Family::V4.other_node()
}

/// The remote pods of both families behind the overlay, over IPv4, and a way to the other node.
fn packing(node: &mut Node) {
    let device = node.if_overlay;
    let info = UplinkInfo {
        addr4: node_v4(),
        addr6: Family::V6.node(),
        mac: OVERLAY_MAC,
        flags: uplink::OVERLAY,
    };
    node.map("UPLINKS").insert(device, info, 0).unwrap();
    let kind = config::OVERLAY_IS_TOLD | config::OVERLAY_IS_VXLAN;
    let word = u64::from(device) | u64::from(PORT) << 32 | kind;
    node.config(config::OVERLAY, word);
    for family in Family::BOTH {
        let (cidr, len) = family.remote_cidr();
        let pods = NodeCidr {
            node: 9,
            ifindex: device,
            flags: node_cidr::OVERLAY,
            zero: 0,
            tunnel: there_v4(),
        };
        node.put_node_cidr(cidr, len, pods);
    }
    let uplink = node.if_uplink;
    let info = UplinkInfo {
        mac: MAC_UPLINK,
        flags: 0,
        ..info
    };
    node.map("UPLINKS").insert(uplink, info, 0).unwrap();
    // Another node, whose pods are others.
    let other = NodeCidr {
        node: 8,
        ifindex: device,
        flags: node_cidr::OVERLAY,
        zero: 0,
        tunnel: OTHER,
    };
    node.put_node_cidr(Addr::from_v4([10, 3, 0, 0]), 24, other);
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    ip(&format!("addr add {}/32 dev weirup", node_v4().to_ip()));
    ip(&format!("route add {} dev weirup", there_v4().to_ip()));
    let mac = NEIGHBOUR.map(|b| format!("{b:02x}")).join(":");
    let neighbour = format!("neigh add {} lladdr {mac} dev weirup", there_v4().to_ip());
    ip(&neighbour);
}

fn flow(family: Family) -> Tuple {
    tuple(family.a(), 4000, family.remote(), 80)
}

/// A packet of the flow out of the pod, and one into it.
fn out(family: Family) -> Packet {
    Packet::udp(&flow(family), b"there")
}

fn back(family: Family) -> Packet {
    Packet::udp(&flow(family).reversed(), b"back")
}

/// The flow in its usual state: a test run brings no tunnel along, so the other end's packet is taken for seen.
fn open(node: &mut Node, family: Family) {
    node.run(Hook::FromA, &out(family).frame())
        .expect(REDIRECTED, Counter::Forwarded);
    node.edit_entry(&flow(family), Proto::UDP, |entry| {
        entry.seen = seen::REPLY | seen::ESTABLISHED | seen::ASSURED;
    });
    node.establish(&flow(family), Proto::UDP);
    // The whole way notes that the way leads to the overlay.
    node.run(Hook::FromA, &out(family).frame())
        .expect(REDIRECTED, Counter::Forwarded);
}

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

/// The frame, with the outer IPv4 header's checksum made right again.
fn summed(mut frame: Vec<u8>) -> Vec<u8> {
    frame[24..26].fill(0);
    let sum = checksum(0, &frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// Makes a run's packet a train of segments; the kernel wants their size to be no larger than the packet.
fn train(ctx: &mut [u32]) {
    ctx[skb::GSO_SIZE] = 10;
    ctx[skb::GSO_SEGS] = 2;
}

/// The first of three runs that has not met a new tick of the clock.
fn tried(
    node: &mut Node,
    run: impl Fn(&mut Node) -> Run,
    is: impl Fn(&Run) -> bool,
) -> Option<Run> {
    (0..3).map(|_| run(node)).find(is)
}

#[test]
fn an_established_flows_packet_is_packed_at_the_pods_edge_for_the_node_that_has_the_other_end() {
    on_node(|node| {
        packing(node);
        for family in Family::BOTH {
            for mut packet in [out(family), out(family).payload(1390)] {
                packet.ttl = 64;
                open(node, family);
                let frame = packet.frame();
                let run = |node: &mut Node| {
                    let run = node.run(Hook::FromA, &frame);
                    run.expect(REDIRECTED, Counter::Forwarded)
                };
                let run = tried(node, run, |run| run.packet.len() > frame.len());
                let sent = run.expect("packed").packet;
                assert_eq!(sent.len(), frame.len() + OUTER);
                let outer = see(&sent);
                assert_eq!(outer.macs, (NEIGHBOUR, MAC_UPLINK));
                assert_eq!(
                    (outer.src, outer.dst, outer.ttl),
                    (node_v4(), there_v4(), 64)
                );
                let (first, end) = VXLAN_SOURCE_PORTS;
                assert!((first..end).contains(&outer.sport), "{}", outer.sport);
                assert_eq!(outer.dport, PORT);
                // Don't fragment, no type of service, no checksum of UDP.
                assert_eq!((sent[15], &sent[20..22]), (0, &[0x40, 0][..]));
                assert_eq!(outer.l4[6..16], [0, 0, 8, 0, 0, 0, 0, 0, 0x57, 0]);
                assert_eq!(sent[50..56], OVERLAY_MAC);
                assert_ne!(sent[56..62], OVERLAY_MAC);
                // The packet itself has one hop less.
                let inner = see(&sent[50..]);
                let was = see(&frame);
                assert_eq!(sent[62..64], frame[12..14]);
                assert_eq!((inner.src, inner.dst), (was.src, was.dst));
                assert_eq!((inner.ttl, inner.l4), (63, was.l4));
            }
        }
    });
}

#[test]
fn congestion_notification_is_carried_to_the_outer_packet_but_congestion_met_before_is_not() {
    on_node(|node| {
        packing(node);
        open(node, Family::V4);
        for (inner, outer) in [(0xb8, 0), (1, 1), (2, 2), (3, 2), (0xbb, 2)] {
            let mut frame = out(Family::V4).frame();
            frame[15] = inner;
            let frame = summed(frame);
            let run = |node: &mut Node| node.run(Hook::FromA, &frame);
            let run = tried(node, run, |run| run.packet.len() > frame.len()).expect("packed");
            assert_eq!((run.packet[15], run.packet[65]), (outer, inner));
        }
    });
}

#[test]
fn what_cannot_be_packed_goes_to_the_device_as_it_is() {
    on_node(|node| {
        packing(node);
        for family in Family::BOTH {
            open(node, family);
            let frame = out(family).frame();
            let is_packed = |run: &Run| run.packet.len() > frame.len();
            let packs = |node: &mut Node| {
                let run = |node: &mut Node| node.run(Hook::FromA, &frame);
                assert!(tried(node, run, is_packed).is_some(), "{family:?}");
            };
            let goes_to_device = |node: &mut Node, set: &dyn Fn(&mut [u32])| {
                for _ in 0..3 {
                    let run = node.run_with(Hook::FromA, &frame, set);
                    let run = run.expect(REDIRECTED, Counter::Forwarded);
                    assert!(!is_packed(&run), "{family:?}");
                }
            };
            packs(node);
            goes_to_device(node, &train);
            packs(node);
            // A neighbour of whom nobody knows the address, and a way that is too narrow.
            let there = there_v4().to_ip();
            for (spoil, mend) in [
                (
                    format!("neigh del {there} dev weirup"),
                    format!("neigh add {there} lladdr 02:00:00:00:00:d0 dev weirup"),
                ),
                (
                    format!("route replace {there} dev weirup mtu lock 70"),
                    format!("route replace {there} dev weirup"),
                ),
                (
                    format!("route del {there} dev weirup"),
                    format!("route add {there} dev weirup"),
                ),
            ] {
                ip(&spoil);
                goes_to_device(node, &|_| {});
                ip(&mend);
                packs(node);
            }
            let word = u64::from(node.if_overlay) | u64::from(PORT) << 32;
            node.config(config::OVERLAY, word | config::OVERLAY_IS_TOLD);
            goes_to_device(node, &|_| {});
            let kind = config::OVERLAY_IS_TOLD | config::OVERLAY_IS_VXLAN;
            node.config(config::OVERLAY, word | kind);
        }
    });
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
            let now = node.entry(&flow(family), Proto::UDP).unwrap().1.last_seen;
            node.edit_entry(&flow(family), Proto::UDP, |entry| {
                entry.last_seen = entry.last_seen.wrapping_sub(2)
            });
            let frame = packed(&back(family));
            node.run(Hook::FromUplink, &frame).delivered();
            let after = node.entry(&flow(family), Proto::UDP).unwrap().1.last_seen;
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
                node.edit_entry(&flow(family), Proto::UDP, |entry| entry.queued = 0);
                node.run(Hook::FromUplink, &usual).delivered();
                let mut frame = usual.clone();
                spoil(&mut frame);
                let frame = summed(frame);
                let run = node.run(Hook::FromUplink, &frame).left_to_stack();
                assert_eq!(run.packet, frame, "{what}");
                let next = node.run(Hook::FromUplink, &usual);
                assert_eq!(next.action == STACK, *is_flows, "{what}");
            }
            node.edit_entry(&flow(family), Proto::UDP, |entry| entry.queued = 0);
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
            let entry = node.entry(&flow(family), Proto::UDP).unwrap().1;
            assert_eq!(entry.queued, 0);
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
            node.edit_entry(&flow(family), Proto::UDP, |entry| entry.queued = 0);
            node.groups(SLOT_A, GroupId::OPEN, GroupId::OPEN);
            node.bump(SLOT_A);
            open(node, family);
            node.run(Hook::FromUplink, &frame).delivered();
            node.config(config::GENERATION, family.ip_header() as u64);
            node.run(Hook::FromUplink, &frame).left_to_stack();
            node.edit_entry(&flow(family), Proto::UDP, |entry| entry.queued = 0);
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
        let word = node
            .array::<u64>("CONFIG")
            .get(&config::OVERLAY, 0)
            .unwrap();
        node.config(config::OVERLAY, word | config::UPLINKS_ARE_STRICT);
        for family in Family::BOTH {
            open(node, family);
            let frame = packed(&back(family));
            node.run(Hook::FromUplink, &frame).delivered();
            let there = there_v4().to_ip();
            ip(&format!("route replace {there} dev weirov"));
            node.run(Hook::FromUplink, &frame).left_to_stack();
            node.edit_entry(&flow(family), Proto::UDP, |entry| entry.queued = 0);
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
            node.run_with(Hook::FromUplink, &frame, train)
                .left_to_stack();
            node.run(Hook::FromUplink, &frame).left_to_stack();
            node.edit_entry(&flow(family), Proto::UDP, |entry| {
                entry.queued = entry.queued.wrapping_sub(2)
            });
            node.run(Hook::FromUplink, &frame).delivered();
        }
    });
}
